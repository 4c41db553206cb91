#include "ops/matmul/packed_gemm.h"

namespace anycann {
namespace {

struct BFloat16Product {
  using Lanes = BFloat16Lanes;
  static constexpr int kColumns = 1;
  static constexpr int kPerUnit = 2;
  static constexpr DType kAccumulator = DType::kFloat;
  static void PackLeft(uint32_t* to, int padded, const Lines& l, int width, int64_t k) {
    PackPairs(to, padded, l, width, k);
  }
  static void PackRight(uint32_t* to, int padded, const Lines& l, int width, int64_t k) {
    PackPairs(to, padded, l, width, k);
  }
};

}  // namespace

bool PackedBFloat16(const GemmArgs& g) { return RunPackedGemm<BFloat16Product>(g); }

}  // namespace anycann
