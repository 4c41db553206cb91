#include "ops/matmul/packed_gemm.h"

namespace anycann {
namespace {

struct DoubleProduct {
  using Lanes = DoubleLanes;
  static constexpr int kColumns = 1;
  static constexpr DType kAccumulator = DType::kDouble;
  static constexpr int kPerUnit = 1;
  static void PackLeft(double* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
  static void PackRight(double* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
};

}  // namespace

bool PackedDouble(const GemmArgs& g) { return RunPackedGemm<DoubleProduct>(g); }

}  // namespace anycann
