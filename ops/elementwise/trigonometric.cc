// Circular and hyperbolic functions, their inverses, and sinc.
#include <numbers>

#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

// Sin, Cos and Tan of float reduce their argument in double: beyond the limit libm's double does it.
template <class T>
struct Reduced {};
template <>
struct Reduced<float> {
  bool Hard(float x) const { return !(std::fabs(x) <= math::kTrigonometricLimit); }
};

template <class T>
struct SinOf : Reduced<T> {
  T operator()(T x) const { return math::Sin(x); }
  T Exact(T x) const { return static_cast<T>(std::sin(static_cast<double>(x))); }
};
template <class T>
struct CosOf : Reduced<T> {
  T operator()(T x) const { return math::Cos(x); }
  T Exact(T x) const { return static_cast<T>(std::cos(static_cast<double>(x))); }
};
template <class T>
struct TanOf : Reduced<T> {
  T operator()(T x) const { return math::Tan(x); }
  T Exact(T x) const { return static_cast<T>(std::tan(static_cast<double>(x))); }
};
// sin(pi x) / (pi x)
template <class T>
struct SincOf {
  using Real = typename RealOf<T>::type;
  T operator()(T x) const {
    const T y = x * std::numbers::pi_v<Real>;
    return x == T(0) ? T(1) : math::Sin(y) / y;
  }
  bool Hard(T x) const requires std::is_same_v<T, float> {
    return !(std::fabs(x) <= math::kTrigonometricLimit / 4);
  }
  T Exact(T x) const {
    const T y = x * std::numbers::pi_v<Real>;
    return x == T(0) ? T(1) : static_cast<T>(std::sin(static_cast<double>(y))) / y;
  }
};
template <class T>
struct AsinOf {
  T operator()(T x) const { return math::Asin(x); }
};
template <class T>
struct AcosOf {
  T operator()(T x) const { return math::Acos(x); }
};
template <class T>
struct AtanOf {
  T operator()(T x) const { return math::Atan(x); }
};
template <class T>
struct SinhOf {
  T operator()(T x) const { return math::Sinh(x); }
};
template <class T>
struct CoshOf {
  T operator()(T x) const { return math::Cosh(x); }
};
template <class T>
struct TanhOf {
  T operator()(T x) const { return math::Tanh(x); }
};
template <class T>
struct AsinhOf {
  T operator()(T x) const { return math::Asinh(x); }
};
template <class T>
struct AcoshOf {
  T operator()(T x) const { return math::Acosh(x); }
};
template <class T>
struct AtanhOf {
  T operator()(T x) const { return math::Atanh(x); }
};

bool FindSinc(DType t, ElementwiseKernel* k) { return FindUnary<SincOf, kFloatingTypes>(t, k, 7); }
bool FindAsinh(DType t, ElementwiseKernel* k) { return FindUnary<AsinhOf, kFloatingTypes>(t, k, 15); }
bool FindAcosh(DType t, ElementwiseKernel* k) { return FindUnary<AcoshOf, kFloatingTypes>(t, k, 12); }
bool FindAtanh(DType t, ElementwiseKernel* k) { return FindUnary<AtanhOf, kFloatingTypes>(t, k, 11); }

}  // namespace

bool FindSin(DType t, ElementwiseKernel* k) { return FindUnary<SinOf, kFloatingTypes>(t, k, 5); }
bool FindCos(DType t, ElementwiseKernel* k) { return FindUnary<CosOf, kFloatingTypes>(t, k, 5); }
bool FindTan(DType t, ElementwiseKernel* k) { return FindUnary<TanOf, kFloatingTypes>(t, k, 7); }
bool FindAsin(DType t, ElementwiseKernel* k) { return FindUnary<AsinOf, kFloatingTypes>(t, k, 8); }
bool FindAcos(DType t, ElementwiseKernel* k) { return FindUnary<AcosOf, kFloatingTypes>(t, k, 8); }
bool FindAtan(DType t, ElementwiseKernel* k) { return FindUnary<AtanOf, kFloatingTypes>(t, k, 10); }
bool FindSinh(DType t, ElementwiseKernel* k) { return FindUnary<SinhOf, kFloatingTypes>(t, k, 7); }
bool FindCosh(DType t, ElementwiseKernel* k) { return FindUnary<CoshOf, kFloatingTypes>(t, k, 8); }
bool FindTanh(DType t, ElementwiseKernel* k) { return FindUnary<TanhOf, kFloatingTypes>(t, k, 3); }

Status aclnn::Sin(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindSin, self, out);
}
Status aclnn::Cos(Call& call, const aclTensor* input, aclTensor* out) {
  return UnaryFloating(call, FindCos, input, out);
}
Status aclnn::Tan(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindTan, self, out);
}
Status aclnn::Asin(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindAsin, self, out);
}
Status aclnn::Acos(Call& call, const aclTensor* input, aclTensor* out) {
  return UnaryFloating(call, FindAcos, input, out);
}
Status aclnn::Atan(Call& call, const aclTensor* input, aclTensor* out) {
  return UnaryFloating(call, FindAtan, input, out);
}
Status aclnn::Sinh(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindSinh, self, out);
}
Status aclnn::Cosh(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindCosh, self, out);
}
Status aclnn::Tanh(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindTanh, self, out);
}
Status aclnn::Asinh(Call& call, const aclTensor* input, aclTensor* out) {
  return UnaryFloating(call, FindAsinh, input, out);
}
Status aclnn::Acosh(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindAcosh, self, out);
}
Status aclnn::Atanh(Call& call, const aclTensor* input, aclTensor* out) {
  return UnaryFloating(call, FindAtanh, input, out);
}
Status aclnn::Sinc(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindSinc, self, out);
}

}  // namespace anycann
