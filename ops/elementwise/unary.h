// Unary functions without parameters: each is a Find function, which the operator and the foreach operators
// share.
#pragma once

#include "ops/elementwise/map.h"

namespace anycann {

// Writes the kernel of a function for compute type `t`; false when the function has none for it.
using FindKernel = bool (*)(DType t, ElementwiseKernel* kernel);

// FindUnary<F, set>: the body of a Find function, from a functor template over compute types.
template <template <class> class F, unsigned set>
bool FindUnary(DType t, ElementwiseKernel* kernel, double cost) {
  return VisitCompute<set>(t, [&](auto tag) {
    using T = typename decltype(tag)::type;
    *kernel = KernelOf<F<T>, T>(cost);
  });
}

// out = function(self), computed in the type `compute`.
ANYCANN_API Status LaunchUnary(Call& call, FindKernel find, DType compute, const aclTensor* self,
                               const aclTensor* out);

// In floating types; integers and bool compute in float32.
inline Status UnaryFloating(Call& call, FindKernel find, const aclTensor* self, const aclTensor* out) {
  return LaunchUnary(call, find, ToFloating(self->view.dtype), self, out);
}
// In self's own type.
inline Status UnaryExact(Call& call, FindKernel find, const aclTensor* self, const aclTensor* out) {
  return LaunchUnary(call, find, self->view.dtype, self, out);
}

bool FindAbs(DType t, ElementwiseKernel* kernel);
bool FindAcos(DType t, ElementwiseKernel* kernel);
bool FindAsin(DType t, ElementwiseKernel* kernel);
bool FindAtan(DType t, ElementwiseKernel* kernel);
bool FindCos(DType t, ElementwiseKernel* kernel);
bool FindCosh(DType t, ElementwiseKernel* kernel);
bool FindErf(DType t, ElementwiseKernel* kernel);
bool FindErfc(DType t, ElementwiseKernel* kernel);
bool FindExp(DType t, ElementwiseKernel* kernel);
bool FindExpm1(DType t, ElementwiseKernel* kernel);
bool FindLog(DType t, ElementwiseKernel* kernel);
bool FindLog10(DType t, ElementwiseKernel* kernel);
bool FindLog1p(DType t, ElementwiseKernel* kernel);
bool FindLog2(DType t, ElementwiseKernel* kernel);
bool FindNeg(DType t, ElementwiseKernel* kernel);
bool FindReciprocal(DType t, ElementwiseKernel* kernel);
bool FindSigmoid(DType t, ElementwiseKernel* kernel);
bool FindSign(DType t, ElementwiseKernel* kernel);
bool FindSin(DType t, ElementwiseKernel* kernel);
bool FindSinh(DType t, ElementwiseKernel* kernel);
bool FindSqrt(DType t, ElementwiseKernel* kernel);
bool FindTan(DType t, ElementwiseKernel* kernel);
bool FindTanh(DType t, ElementwiseKernel* kernel);
bool FindRound(DType t, ElementwiseKernel* kernel);
bool FindFloor(DType t, ElementwiseKernel* kernel);
bool FindCeil(DType t, ElementwiseKernel* kernel);
bool FindTrunc(DType t, ElementwiseKernel* kernel);
bool FindFrac(DType t, ElementwiseKernel* kernel);

}  // namespace anycann
