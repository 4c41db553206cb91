// Complex numbers from and to their parts.
#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
struct RealPart {
  auto operator()(T x) const {
    if constexpr (kIsComplexType<T>)
      return x.real();
    else
      return x;
  }
};
template <class T>
struct Join {
  std::complex<T> operator()(T real, T imag) const { return {real, imag}; }
};

bool FindReal(DType t, ElementwiseKernel* k) { return FindUnary<RealPart, kAllTypes>(t, k, 1); }

}  // namespace

Status aclnn::Real(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindReal, self, out);
}

Status aclnn::Complex(Call& call, const aclTensor* real, const aclTensor* imag, aclTensor* out) {
  return MapBinary<kFloatTypes>(call, real, imag, out, Promote(real->view.dtype, imag->view.dtype),
                                [](auto tag) { return Join<typename decltype(tag)::type>{}; });
}

}  // namespace anycann
