// Dual numbers: a value and its derivatives by kN variables, so that one formula gives both.
#pragma once

#include <cmath>

namespace anycann::aclop {

template <int kN>
struct Dual {
  double value = 0;
  double by[kN] = {};

  Dual() = default;
  Dual(double v) : value(v) {}  // NOLINT: a constant
  static Dual Variable(double v, int index) {
    Dual d(v);
    d.by[index] = 1;
    return d;
  }
  // f(x) with the derivatives of x times `slope`.
  static Dual Chain(double value, const Dual& x, double slope) {
    Dual d(value);
    for (int i = 0; i < kN; ++i) d.by[i] = x.by[i] * slope;
    return d;
  }
  static Dual Chain(double value, const Dual& a, double slope_a, const Dual& b, double slope_b) {
    Dual d(value);
    for (int i = 0; i < kN; ++i) d.by[i] = a.by[i] * slope_a + b.by[i] * slope_b;
    return d;
  }
};

template <int kN>
Dual<kN> operator+(const Dual<kN>& a, const Dual<kN>& b) {
  return Dual<kN>::Chain(a.value + b.value, a, 1, b, 1);
}
template <int kN>
Dual<kN> operator-(const Dual<kN>& a, const Dual<kN>& b) {
  return Dual<kN>::Chain(a.value - b.value, a, 1, b, -1);
}
template <int kN>
Dual<kN> operator*(const Dual<kN>& a, const Dual<kN>& b) {
  return Dual<kN>::Chain(a.value * b.value, a, b.value, b, a.value);
}
template <int kN>
Dual<kN> operator/(const Dual<kN>& a, const Dual<kN>& b) {
  return Dual<kN>::Chain(a.value / b.value, a, 1 / b.value, b, -a.value / (b.value * b.value));
}
template <int kN>
Dual<kN> Smaller(const Dual<kN>& a, const Dual<kN>& b) {
  return b.value < a.value ? b : a;
}
template <int kN>
Dual<kN> Larger(const Dual<kN>& a, const Dual<kN>& b) {
  return b.value > a.value ? b : a;
}
template <int kN>
Dual<kN> Arctangent(const Dual<kN>& x) {
  return Dual<kN>::Chain(std::atan(x.value), x, 1 / (1 + x.value * x.value));
}
template <int kN>
double Plain(const Dual<kN>& x) {
  return x.value;
}

inline double Smaller(double a, double b) { return b < a ? b : a; }
inline double Larger(double a, double b) { return b > a ? b : a; }
inline double Arctangent(double x) { return std::atan(x); }
inline double Plain(double x) { return x; }

}  // namespace anycann::aclop
