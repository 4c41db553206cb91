#include "ops/matmul/packed_gemm.h"

namespace anycann {
namespace {

// Unsigned, because the overflow of signed integers isn't defined; the bits are the same.
template <class T, DType accumulator>
struct IntegerProduct {
  using Lanes = IntegerLanes<T>;
  static constexpr int kColumns = 1;
  static constexpr DType kAccumulator = accumulator;
  static constexpr int kPerUnit = 1;
  static void PackLeft(T* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
  static void PackRight(T* to, int padded, const Lines& l, int width, int64_t k) {
    Pack(to, padded, l, width, k);
  }
};

}  // namespace

bool PackedInteger(const GemmArgs& g) {
  if (SizeOf(g.a.dtype) < 8 && SizeOf(g.b.dtype) < 8 && SizeOf(g.out.dtype) < 8)
    return RunPackedGemm<IntegerProduct<uint32_t, DType::kInt32>>(g);
  return RunPackedGemm<IntegerProduct<uint64_t, DType::kInt64>>(g);
}

}  // namespace anycann
