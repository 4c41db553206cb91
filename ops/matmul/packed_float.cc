#include "ops/matmul/packed_gemm.h"

namespace anycann {
namespace {

struct FloatProduct {
  using Lanes = FloatLanes;
  static constexpr int kColumns = 1;
  static constexpr DType kAccumulator = DType::kFloat;
  static constexpr int kPerUnit = 1;
  static void PackLeft(float* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
  static void PackRight(float* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
};

}  // namespace

bool PackedFloat(const GemmArgs& g) { return RunPackedGemm<FloatProduct>(g); }

}  // namespace anycann
