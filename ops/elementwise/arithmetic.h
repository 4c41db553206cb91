// Arithmetic on single elements with the meaning that tensors give it: integers wrap, bool adds as or and
// multiplies as and, complex numbers multiply by the plain formula (the library's operator* looks for NaNs,
// which defeats vectorisation).
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "base/dtype.h"
#include "base/vector_math.h"

namespace anycann::arithmetic {

template <class T>
constexpr bool kIsComplex = std::is_same_v<T, Complex64> || std::is_same_v<T, Complex128>;

// The unsigned type in which T's arithmetic wraps without being undefined (uint16 * uint16 would overflow
// int).
template <class T>
using Wrapping = std::conditional_t<(sizeof(T) < 4), uint32_t, std::make_unsigned_t<T>>;

template <class T>
inline T Add(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a || b;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(Wrapping<T>(a) + Wrapping<T>(b));
  else
    return a + b;
}

// bool - bool is exclusive or.
template <class T>
inline T Sub(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a != b;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(Wrapping<T>(a) - Wrapping<T>(b));
  else
    return a - b;
}

template <class T>
inline T Mul(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a && b;
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(Wrapping<T>(a) * Wrapping<T>(b));
  else if constexpr (kIsComplex<T>)
    return T(a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real());
  else
    return a * b;
}

// True division. Complex: both scaled by the divisor's larger part, so that squares neither overflow nor
// vanish.
template <class T>
inline T Div(T a, T b) {
  static_assert(!std::is_integral_v<T>);
  if constexpr (kIsComplex<T>) {
    using R = typename T::value_type;
    const R c = std::abs(b.real()), d = std::abs(b.imag()), scale = R(1) / (c > d ? c : d);
    const R x = a.real() * scale, y = a.imag() * scale, u = b.real() * scale, v = b.imag() * scale;
    const R norm = u * u + v * v;
    return T((x * u + y * v) / norm, (y * u - x * v) / norm);
  } else {
    return a / b;
  }
}

// Integer quotient, rounded towards zero. Division by zero gives -1 (all ones) and the smallest integer
// divided by -1 wraps: nothing traps. Types of up to 32 bits divide as doubles, which is exact and
// vectorises.
template <class T>
inline T DivTruncated(T a, T b) {
  static_assert(std::is_integral_v<T>);
  if constexpr (sizeof(T) < 8) {
    const double q = static_cast<double>(a) / static_cast<double>(b == 0 ? T(1) : b);
    const T t = static_cast<T>(static_cast<std::conditional_t<(sizeof(T) < 4), int32_t, int64_t>>(q));
    return b == 0 ? static_cast<T>(-1) : t;
  } else {
    if (b == 0) return static_cast<T>(-1);
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return Sub(T(0), a);
    return a / b;
  }
}

// a - DivTruncated(a, b) * b: the sign of a; a itself when b is zero.
template <class T>
inline T RemTruncated(T a, T b) {
  if constexpr (sizeof(T) < 8) {
    return b == 0 ? a : Sub(a, Mul(DivTruncated(a, b), b));
  } else {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return 0;
    return a % b;
  }
}

// Quotient rounded down, and the remainder that belongs to it: the sign of b.
template <class T>
inline T DivFloor(T a, T b) {
  const T q = DivTruncated(a, b);
  if constexpr (std::is_unsigned_v<T>)
    return q;
  else
    return b != 0 && (a < 0) != (b < 0) && Mul(q, b) != a ? static_cast<T>(q - 1) : q;
}
template <class T>
inline T RemFloor(T a, T b) {
  const T r = RemTruncated(a, b);
  if constexpr (std::is_unsigned_v<T>)
    return r;
  else
    return b != 0 && r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
}

// Integer power by squaring. Negative exponents: 1 and -1 have a value, all else rounds to 0.
template <class T>
inline T IntegerPower(T base, T exponent) {
  if constexpr (std::is_signed_v<T>) {
    if (exponent < 0) {
      if (base == 1) return 1;
      if (base == -1) return exponent % 2 == 0 ? 1 : -1;
      return 0;
    }
  }
  T result = 1;
  for (; exponent != 0; exponent = static_cast<T>(exponent >> 1)) {
    if (exponent & 1) result = Mul(result, base);
    base = Mul(base, base);
  }
  return result;
}

template <class T>
inline T Pow(T a, T b) {
  if constexpr (std::is_same_v<T, bool>)
    return a || !b;
  else if constexpr (std::is_integral_v<T>)
    return IntegerPower(a, b);
  else if constexpr (kIsComplex<T>)
    return std::pow(a, b);
  else
    return math::Pow(a, b);
}

// Quotients and remainders by way of double, which vectorise. float: a quotient below 2^29 has an exact
// product with the divisor, and the subtraction is exact as well. int64: the quotient of numbers below 2^52
// can't round up to the next integer. HardDivision() is true where that does not hold, and for zero divisors,
// infinities and NaN.
template <class T>
inline constexpr bool kFastDivision = std::is_same_v<T, float> || std::is_same_v<T, int64_t>;

inline double TruncatedQuotient(float a, float b) {
  return std::trunc(static_cast<double>(a) / static_cast<double>(b));
}
inline bool HardDivision(float a, float b) {
  return !((std::abs(TruncatedQuotient(a, b)) < 0x1p29) &
           (std::abs(b) < std::numeric_limits<float>::infinity()));
}
inline float FastRemainder(float a, float b) {
  const double r = static_cast<double>(a) - TruncatedQuotient(a, b) * static_cast<double>(b);
  return std::copysign(static_cast<float>(r), a);
}

inline bool HardDivision(int64_t a, int64_t b) {
  constexpr uint64_t kHalf = uint64_t{1} << 52;
  return ((static_cast<uint64_t>(a) + kHalf) | (static_cast<uint64_t>(b) + kHalf)) >> 53 != 0 || b == 0;
}
inline int64_t FastQuotient(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<double>(a) / static_cast<double>(b));
}
inline int64_t FastRemainder(int64_t a, int64_t b) { return a - FastQuotient(a, b) * b; }

// From the truncated remainder, or the truncated quotient, to the floored: where the signs differ.
template <class T>
inline T FloorRemainderFrom(T r, T b) {
  if constexpr (std::is_unsigned_v<T>) {
    return r;
  } else {
    const T moved = Add(r, b);
    return (r != 0) & ((r < 0) != (b < 0)) ? moved : r;
  }
}

// Larger and smaller of two; a NaN wins. As two selections: g++ 12 vectorises those, but not a condition with
// "or".
template <class T>
inline T Max(T a, T b) {
  const T larger = a > b ? a : b;
  if constexpr (std::is_floating_point_v<T>)
    return a != a ? a : larger;
  else
    return larger;
}
template <class T>
inline T Min(T a, T b) {
  const T smaller = a < b ? a : b;
  if constexpr (std::is_floating_point_v<T>)
    return a != a ? a : smaller;
  else
    return smaller;
}

// start + weight * (end - start), from whichever end is nearer: exact at both.
template <class T>
inline T Lerp(T start, T end, T weight) {
  const T d = end - start;
  if constexpr (kIsComplex<T>)
    return std::norm(weight) < 0.25 ? start + Mul(weight, d) : end - Mul(d, T(1) - weight);
  else
    return std::abs(weight) < T(0.5) ? start + weight * d : end - d * (T(1) - weight);
}

}  // namespace anycann::arithmetic
