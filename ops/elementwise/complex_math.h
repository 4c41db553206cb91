// The functions of base/vector_math.h for complex numbers, so that one functor serves all floating types.
#pragma once

#include <complex>
#include <type_traits>

#include "base/vector_math.h"

namespace anycann {

template <class T>
inline constexpr bool kIsComplexType = false;
template <class T>
inline constexpr bool kIsComplexType<std::complex<T>> = true;

// The type of a complex number's parts; a real type's own.
template <class T>
struct RealOf {
  using type = T;
};
template <class T>
struct RealOf<std::complex<T>> {
  using type = T;
};

namespace math {

template <class T>
std::complex<T> Exp(std::complex<T> x) {
  return std::exp(x);
}
template <class T>
std::complex<T> Exp2(std::complex<T> x) {
  return std::exp(x * T(0.693147180559945309417232121458));
}
// e^x - 1 without the cancellation near 0: (e^a - 1) cos b - 2 sin^2(b/2) + i e^a sin b
template <class T>
std::complex<T> Expm1(std::complex<T> x) {
  if (x.imag() == 0) return {std::expm1(x.real()), x.imag()};
  const T a = std::expm1(x.real()), s = std::sin(x.imag() / 2);
  return {a * std::cos(x.imag()) - 2 * s * s, (a + 1) * std::sin(x.imag())};
}
template <class T>
std::complex<T> Log(std::complex<T> x) {
  return std::log(x);
}
template <class T>
std::complex<T> Log2(std::complex<T> x) {
  return std::log(x) * T(1.44269504088896340735992468100);
}
template <class T>
std::complex<T> Log10(std::complex<T> x) {
  return std::log10(x);
}
// |1 + z| near 1 loses the small real part: log|1 + z| = log1p(a (a + 2) + b^2) / 2
template <class T>
std::complex<T> Log1p(std::complex<T> x) {
  const T a = x.real(), b = x.imag();
  const T angle = std::atan2(b, 1 + a);
  if (std::fabs(a) < T(0.5) && std::fabs(b) < T(0.5)) return {std::log1p(a * (a + 2) + b * b) / 2, angle};
  return {std::log(std::hypot(1 + a, b)), angle};
}
template <class T>
std::complex<T> Sigmoid(std::complex<T> x) {
  return T(1) / (T(1) + std::exp(-x));
}
template <class T>
std::complex<T> Tanh(std::complex<T> x) {
  return std::tanh(x);
}
template <class T>
std::complex<T> Sin(std::complex<T> x) {
  return std::sin(x);
}
template <class T>
std::complex<T> Cos(std::complex<T> x) {
  return std::cos(x);
}
template <class T>
std::complex<T> Tan(std::complex<T> x) {
  return std::tan(x);
}
template <class T>
std::complex<T> Asin(std::complex<T> x) {
  return std::asin(x);
}
template <class T>
std::complex<T> Acos(std::complex<T> x) {
  return std::acos(x);
}
template <class T>
std::complex<T> Atan(std::complex<T> x) {
  return std::atan(x);
}
template <class T>
std::complex<T> Sinh(std::complex<T> x) {
  return std::sinh(x);
}
template <class T>
std::complex<T> Cosh(std::complex<T> x) {
  return std::cosh(x);
}
template <class T>
std::complex<T> Asinh(std::complex<T> x) {
  return std::asinh(x);
}
template <class T>
std::complex<T> Acosh(std::complex<T> x) {
  return std::acosh(x);
}
template <class T>
std::complex<T> Atanh(std::complex<T> x) {
  return std::atanh(x);
}

}  // namespace math
}  // namespace anycann
