// The real part (aclnnComplex joins parts: ops/shape/view.cc).
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

bool FindReal(DType t, ElementwiseKernel* k) { return FindUnary<RealPart, kAllTypes>(t, k, 1); }

}  // namespace

Status aclnn::Real(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindReal, self, out);
}

}  // namespace anycann
