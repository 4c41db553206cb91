// Exponentials, logarithms and the error function.
#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
struct ExpOf {
  T operator()(T x) const { return math::Exp(x); }
};
template <class T>
struct Exp2Of {
  T operator()(T x) const { return math::Exp2(x); }
};
template <class T>
struct Expm1Of {
  T operator()(T x) const { return math::Expm1(x); }
};
template <class T>
struct LogOf {
  T operator()(T x) const { return math::Log(x); }
};
template <class T>
struct Log2Of {
  T operator()(T x) const { return math::Log2(x); }
};
template <class T>
struct Log10Of {
  T operator()(T x) const { return math::Log10(x); }
};
template <class T>
struct Log1pOf {
  T operator()(T x) const { return math::Log1p(x); }
};
template <class T>
struct ErfOf {
  T operator()(T x) const { return math::Erf(x); }
};
template <class T>
struct ErfcOf {
  T operator()(T x) const { return math::Erfc(x); }
};

bool FindExp2(DType t, ElementwiseKernel* k) { return FindUnary<Exp2Of, kFloatingTypes>(t, k, 2); }

}  // namespace

bool FindExp(DType t, ElementwiseKernel* k) { return FindUnary<ExpOf, kFloatingTypes>(t, k, 2.5); }
bool FindExpm1(DType t, ElementwiseKernel* k) { return FindUnary<Expm1Of, kFloatingTypes>(t, k, 3); }
bool FindLog(DType t, ElementwiseKernel* k) { return FindUnary<LogOf, kFloatingTypes>(t, k, 3.5); }
bool FindLog2(DType t, ElementwiseKernel* k) { return FindUnary<Log2Of, kFloatingTypes>(t, k, 3.5); }
bool FindLog10(DType t, ElementwiseKernel* k) { return FindUnary<Log10Of, kFloatingTypes>(t, k, 3.5); }
bool FindLog1p(DType t, ElementwiseKernel* k) { return FindUnary<Log1pOf, kFloatingTypes>(t, k, 5); }
bool FindErf(DType t, ElementwiseKernel* k) { return FindUnary<ErfOf, kFloatTypes>(t, k, 4); }
bool FindErfc(DType t, ElementwiseKernel* k) { return FindUnary<ErfcOf, kFloatTypes>(t, k, 7); }

Status aclnn::Exp(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindExp, self, out);
}
Status aclnn::Exp2(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindExp2, self, out);
}
Status aclnn::Expm1(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindExpm1, self, out);
}
Status aclnn::Log(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindLog, self, out);
}
Status aclnn::Log2(Call& call, const aclTensor* self, const aclTensor* out) {
  return UnaryFloating(call, FindLog2, self, out);
}
Status aclnn::Log10(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindLog10, self, out);
}
Status aclnn::Log1p(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindLog1p, self, out);
}
Status aclnn::Erf(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindErf, self, out);
}
Status aclnn::Erfc(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindErfc, self, out);
}

}  // namespace anycann
