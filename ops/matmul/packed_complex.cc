#include "ops/matmul/packed_gemm.h"

namespace anycann {
namespace {

template <class L, DType accumulator>
struct ComplexProduct {
  using Lanes = L;
  using T = typename L::Element;
  static constexpr int kColumns = 2;
  static constexpr DType kAccumulator = accumulator;
  static constexpr int kPerUnit = -2;
  static void PackLeft(T* to, int padded, const Lines& l, int width, int64_t k) {
    PackComplexLeft(to, padded, l, width, k);
  }
  static void PackRight(T* to, int padded, const Lines& l, int width, int64_t k) {
    PackComplexRight(to, padded, l, width, k);
  }
};

}  // namespace

bool PackedComplex(const GemmArgs& g) {
  if (g.a.dtype == DType::kComplex64 && g.b.dtype == DType::kComplex64)
    return RunPackedGemm<ComplexProduct<FloatLanes, DType::kComplex64>>(g);
  return RunPackedGemm<ComplexProduct<DoubleLanes, DType::kComplex128>>(g);
}

}  // namespace anycann
