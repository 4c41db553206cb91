// The Gaussian error linear unit and its derivative, exact and by tanh, for gelu.cc and the gated units.
#pragma once

#include <cstdint>

#include "base/vector_math.h"

namespace anycann {

enum class GeluForm : int64_t { kExact = 0, kTanh = 1 };

// x Phi(x)
template <class T>
struct GeluExact {
  T operator()(T x) const { return x * math::NormalCdf(x); }
  static T Derivative(T x) {
    constexpr T kInvSqrt2Pi = T(0.398942280401432677939946059934);
    return math::NormalCdf(x) + x * (kInvSqrt2Pi * math::ExpFlushed(T(-0.5) * x * x));
  }
};

// x (1 + tanh u) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
template <class T>
struct GeluTanh {
  static constexpr T kScale = T(1.59576912160573071176), kCube = T(0.044715);  // 2 sqrt(2/pi)
  T operator()(T x) const { return x * math::Sigmoid(kScale * (x + kCube * x * x * x)); }
  static T Derivative(T x) {
    const T s = math::Sigmoid(kScale * (x + kCube * x * x * x));
    const T slope = kScale * (1 + 3 * kCube * x * x);
    const T bend = s * (1 - s);
    return s + (bend == 0 ? T(0) : x * bend * slope);
  }
};

}  // namespace anycann
