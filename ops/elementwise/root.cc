// Square root, its reciprocal, the reciprocal.
#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
struct SqrtOf {
  T operator()(T x) const { return std::sqrt(x); }
};
template <class T>
struct RsqrtOf {
  T operator()(T x) const { return T(1) / std::sqrt(x); }
};
template <class T>
struct ReciprocalOf {
  T operator()(T x) const { return T(1) / x; }
};

bool FindRsqrt(DType t, ElementwiseKernel* k) { return FindUnary<RsqrtOf, kFloatingTypes>(t, k, 3); }

}  // namespace

bool FindSqrt(DType t, ElementwiseKernel* k) { return FindUnary<SqrtOf, kFloatingTypes>(t, k, 2); }
bool FindReciprocal(DType t, ElementwiseKernel* k) {
  return FindUnary<ReciprocalOf, kFloatingTypes>(t, k, 2);
}

Status aclnn::Sqrt(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindSqrt, self, out);
}
Status aclnn::InplaceSqrt(Call& call, aclTensor* self) { return UnaryFloating(call, FindSqrt, self, self); }
Status aclnn::Rsqrt(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindRsqrt, self, out);
}
Status aclnn::Reciprocal(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindReciprocal, self, out);
}

}  // namespace anycann
