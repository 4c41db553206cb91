#include "ops/matmul/packed_engine.h"

namespace anycann {
namespace {

struct DoubleProduct {
  using Lanes = DoubleLanes;
  static constexpr int kColumns = 1;
  static constexpr DType kAccumulator = DType::kDouble;
  static int64_t Units(int64_t k) { return k; }
  static void PackLeft(double* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
  static void PackRight(double* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
};

}  // namespace

bool PackedDouble(const GemmArgs& g) { return PackedEngine<DoubleProduct>(g).Run(); }

}  // namespace anycann
