// Digamma, the logarithm of gamma, and the inverse of the error function: scalar code, called seldom.
#include <limits>
#include <numbers>

#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

double Digamma(double x) {
  constexpr double kPi = std::numbers::pi;
  if (x == 0) return std::copysign(std::numeric_limits<double>::infinity(), -x);
  if (x < 0) {
    if (std::trunc(x) == x) return std::numeric_limits<double>::quiet_NaN();
    // Reflection: psi(1 - x) - psi(x) = pi / tan(pi x). tan of the fraction, for precision.
    double whole;
    return Digamma(1 - x) - kPi / std::tan(kPi * std::modf(x, &whole));
  }
  double sum = 0;
  for (; x < 10; ++x) sum -= 1 / x;
  if (x == 10) return sum + 2.25175258906672110764;
  const double z = 1 / (x * x);
  // Bernoulli numbers B_2k / 2k of the asymptotic series.
  const double tail = x < 1e17 ? z * math::detail::Poly(z, 1.0 / 12, -1.0 / 120, 1.0 / 252, -1.0 / 240,
                                                        1.0 / 132, -691.0 / 32760, 1.0 / 12)
                               : 0;
  return sum + std::log(x) - 0.5 / x - tail;
}

// Newton's method with Halley's correction on erf, from a rough start.
double Erfinv(double y) {
  const double a = std::fabs(y);
  if (!(a < 1))
    return a == 1 ? std::copysign(std::numeric_limits<double>::infinity(), y)
                  : std::numeric_limits<double>::quiet_NaN();
  if (a < 1e-9) return y * (0.5 / std::numbers::inv_sqrtpi);
  const double l = std::log1p(-a * a), b = 2 / (std::numbers::pi * 0.147) + l / 2;
  double x = std::sqrt(std::sqrt(b * b - l / 0.147) - b);
  for (int i = 0; i < 3; ++i) {
    // erfc keeps the digits that 1 - erf loses.
    const double error = a > 0.5 ? (1 - a) - std::erfc(x) : std::erf(x) - a;
    const double step = error / (2 * std::numbers::inv_sqrtpi * std::exp(-x * x));
    x -= step / (1 + x * step);
  }
  return std::copysign(x, y);
}

template <class T>
struct DigammaOf {
  T operator()(T x) const { return static_cast<T>(Digamma(static_cast<double>(x))); }
};
template <class T>
struct ErfinvOf {
  T operator()(T x) const { return static_cast<T>(Erfinv(static_cast<double>(x))); }
};
// lgamma_r: lgamma writes a global, which is a race between threads.
template <class T>
struct LgammaOf {
  T operator()(T x) const {
    int sign;
    return static_cast<T>(::lgamma_r(static_cast<double>(x), &sign));
  }
};

bool FindDigamma(DType t, ElementwiseKernel* k) { return FindUnary<DigammaOf, kFloatTypes>(t, k, 200); }
bool FindErfinv(DType t, ElementwiseKernel* k) { return FindUnary<ErfinvOf, kFloatTypes>(t, k, 400); }
bool FindLgamma(DType t, ElementwiseKernel* k) { return FindUnary<LgammaOf, kFloatTypes>(t, k, 200); }

}  // namespace

Status aclnn::Digamma(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindDigamma, self, out);
}
Status aclnn::Erfinv(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindErfinv, self, out);
}
Status aclnn::Lgamma(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindLgamma, self, out);
}

}  // namespace anycann
