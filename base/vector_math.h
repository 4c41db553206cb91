// Elementary functions for loops over arrays: branch-free inline code on scalars that g++ vectorises (-O3),
// with the special values of C's <cmath> (NaN, infinities, signed zeros, denormals) and errors of at most
//
//   Exp Exp2 Log           1 ULP
//   Log1p Log2 Log10 Expm1 Erf Sigmoid   2 ULP
//   Tanh Erfc              3 ULP
//   Sin Cos Tan Asin Acos Atan Atan2 Sinh Cosh Asinh Acosh Atanh Pow   0.51 ULP, computed in double and
//   rounded once
//
// for float (vector_math_test.cc checks the bounds against double precision). Sin, Cos and Tan
// are exact only up to |x| <= kTrigonometricLimit: beyond, a caller that meets such arguments takes
// std::sin(double). The overloads for double are libm's, so that templates can be written over both.
//
// The polynomials are minimax fits (Lawson iteration on 400 Chebyshev nodes, coefficients rounded one by
// one).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace anycann::math {

namespace detail {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// One rounding where the machine has the instruction; a call of libm's emulation would be slower than the
// whole function.
inline float Fma(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
inline double Fma(double a, double b, double c) {
#if defined(__FMA__)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// c0 + c1 x + c2 x^2 + ...
template <class T>
inline T Poly(T, T c0) {
  return c0;
}
template <class T, class... C>
inline T Poly(T x, T c0, C... rest) {
  return Fma(Poly(x, T(rest)...), x, c0);
}

inline float Bits(uint32_t b) { return std::bit_cast<float>(b); }
inline uint32_t Bits(float f) { return std::bit_cast<uint32_t>(f); }
inline double Bits(uint64_t b) { return std::bit_cast<double>(b); }
inline uint64_t Bits(double d) { return std::bit_cast<uint64_t>(d); }

// Adding one of these rounds to an integer n and leaves n in the low bits, plus the bias: 127 makes bits <<
// 23 the float 2^n; 254 makes (bits >> 1) << 23 and (bits - (bits >> 1)) << 23 two factors of 2^n, for n
// beyond the normal exponents.
inline constexpr float kRound127 = 12582912.0f + 127;
inline constexpr float kRound126 = 12582912.0f + 126;
inline constexpr float kRound254 = 12582912.0f + 254;
inline constexpr double kRoundDouble = 6755399441055744.0 + 1023;  // bits << 52 is 2^n

inline float ScaleTwice(float p, float rounded254) {
  const uint32_t b = Bits(rounded254), h = b >> 1;
  return p * Bits(h << 23) * Bits((b - h) << 23);
}

inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2Hi = 0.693145752f,
                       kLn2Lo = 1.42860682e-6f;  // kLn2Hi times an 8-bit integer is exact

// x - n ln 2
inline float ReduceLn2(float x, float n) { return Fma(n, -kLn2Lo, Fma(n, -kLn2Hi, x)); }

// e^r and e^r - 1 on |r| <= ln(2)/2
inline float ExpPoly(float r) {
  const float q = Poly(r, 0.49999994f, 0.166665211f, 0.0416682661f, 0.00836867746f, 0.00138207339f);
  return Fma(r * r, q, r) + 1.0f;
}
inline float Expm1Poly(float r) {
  const float q = Poly(r, 0.5f, 0.166666657f, 0.0416664928f, 0.00833354518f, 0.00139323308f, 0.000197625719f);
  return Fma(r * r, q, r);
}
// 2^r on |r| <= 1/2
inline float Exp2Poly(float r) {
  return Poly(r, 1.0f, 0.693147182f, 0.240226477f, 0.0555035956f, 0.00961849932f, 0.00133909693f,
              0.00015329264f);
}
// 2^x flushed to 0 below 2^-126, x <= 127
inline float Exp2Flushed(float x) {
  x = x < -127.0f ? -127.0f : x;
  const float t = x + kRound127;
  return Exp2Poly(x - (t - kRound127)) * Bits(Bits(t) << 23);
}

// x = 2^exponent * (1 + f), 1 + f in [sqrt(1/2), sqrt(2))
struct Parts {
  float exponent, f;
};
inline Parts Split(float x) {
  const bool tiny = x < 0x1p-126f;
  const float y = tiny ? x * 0x1p23f : x;
  const int32_t b = static_cast<int32_t>(Bits(y) - 0x3f3504f3u);
  const float m = Bits(static_cast<uint32_t>((b & 0x7fffff) + 0x3f3504f3));
  return {static_cast<float>(b >> 23) - (tiny ? 23.0f : 0.0f), m - 1.0f};
}
// log(1 + f) - f on the range of Parts::f
inline float LogTail(float f) {
  const float s = f * f;
  const float q = Poly(f, 0.333333135f, -0.250000089f, 0.200020716f, -0.166679904f, 0.142203629f,
                       -0.124062084f, 0.118834712f, -0.116701826f, 0.0674953908f);
  return Fma(-0.5f, s, s * f * q);
}
// What a logarithm answers for the x outside (0, inf), `r` elsewhere.
template <class T>
inline T LogSpecial(T x, T r) {
  r = x < std::numeric_limits<T>::infinity() ? r : x;
  return x > 0 ? r : x == 0 ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::quiet_NaN();
}

// ---- In double, to about 1e-11: for float results that round once.

inline double ExpCore(double x) {  // finite for |x| <= 700; beyond, 0 or more than float holds
  x = x < -700.0 ? -700.0 : x;
  x = x > 700.0 ? 700.0 : x;
  const double t = Fma(x, 0x1.71547652b82fep+0, kRoundDouble), n = t - kRoundDouble;
  const double r = Fma(n, -0x1.62e42fefa39efp-1, x);
  const double q =
      Poly(r, 0x1.0000000017292p-1, 0x1.55555573631d7p-3, 0x1.555554f3350c5p-5, 0x1.1110b1fa26e52p-7,
           0x1.6c1767131743ep-10, 0x1.a16fab106dbc0p-13, 0x1.a0038e3737c89p-16);
  return (Fma(r * r, q, r) + 1.0) * Bits(Bits(t) << 52);
}
inline double Expm1Core(double x) {  // x in [-40, 700]
  const double t = Fma(x, 0x1.71547652b82fep+0, kRoundDouble), n = t - kRoundDouble;
  const double r = Fma(n, -0x1.62e42fefa39efp-1, x);
  const double q =
      Poly(r, 0x1.0000000017292p-1, 0x1.55555573631d7p-3, 0x1.555554f3350c5p-5, 0x1.1110b1fa26e52p-7,
           0x1.6c1767131743ep-10, 0x1.a16fab106dbc0p-13, 0x1.a0038e3737c89p-16);
  const double s = Bits(Bits(t) << 52);
  return Fma(Fma(r * r, q, r), s, s - 1.0);
}
inline double Exp2Core(double x) {
  x = x < -1000.0 ? -1000.0 : x;
  x = x > 1000.0 ? 1000.0 : x;
  const double t = x + kRoundDouble, r = x - (t - kRoundDouble);
  return Poly(r, 0x1.ffffffffab9adp-1, 0x1.62e42ff116c39p-1, 0x1.ebfbe0a4f2fa8p-3, 0x1.c6b08aae4f7a2p-5,
              0x1.3b29dc1479aa2p-7, 0x1.5d8a711316ab3p-10, 0x1.446a43a585437p-13, 0x1.fe1744136e03ep-17) *
         Bits(Bits(t) << 52);
}

struct PartsDouble {
  double exponent, f;
};
inline PartsDouble Split(double x) {  // normal x only: every float is, in double
  const uint64_t b = Bits(x) + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
  const double m = Bits((b & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu);
  const double e = Bits((b >> 52) | 0x4330000000000000u) - (0x1p52 + 1023);
  return {e, m - 1.0};
}
// log(1 + f) by the series of atanh in f / (2 + f)
inline double Log1pPoly(double f) {
  const double s = f / (2.0 + f), z = s * s;
  return Fma(s * z,
             Poly(z, 0x1.555555561e659p-1, 0x1.999996a8e87d0p-2, 0x1.249412196750ep-2, 0x1.c62b05b0fdd72p-3,
                  0x1.911671be5aa3ep-3),
             2.0 * s);
}
// log(1 + x), the rounding of 1 + x repaired
inline double Log1pCore(double x) {
  const double u = 1.0 + x;
  const double c = std::fabs(x) < 1.0 ? x - (u - 1.0) : 1.0 - (u - x);
  const PartsDouble p = Split(u);
  const double f = Fma(c, Bits(Bits(kRoundDouble - p.exponent) << 52), p.f);  // c / 2^exponent
  return LogSpecial(u, Fma(p.exponent, 0x1.62e42fefa39efp-1, Log1pPoly(f)));
}

struct Quadrant {
  double r;    // |r| <= pi/4
  uint64_t k;  // x = r + k pi/2, the low two bits of k
};
inline Quadrant ReduceHalfPi(double x) {
  const double t = Fma(x, 0x1.45f306dc9c883p-1, 6755399441055744.0), n = t - 6755399441055744.0;
  return {Fma(-n, 0x1.0b4611a626331p-34, Fma(-n, 0x1.921fb54400000p+0, x)), Bits(t)};
}
inline double SinPoly(double r) {
  const double z = r * r;
  // As a product, so that -0 stays -0.
  return r * Poly(z, 1.0, -0x1.5555554cb903dp-3, 0x1.11110895a3085p-7, -0x1.a00f9d1df1ca8p-13,
                  0x1.6cd8379f7f5b7p-19);
}
inline double CosPoly(double r) {
  const double z = r * r;
  return Fma(z * z, Poly(z, 0x1.55554ab24f31ap-5, -0x1.6c0c8aa4c6899p-10, 0x1.9a0207e9a35dap-16),
             Fma(-0.5, z, 1.0));
}
inline double Negate(double x, uint64_t when) { return Bits(Bits(x) ^ (when << 63)); }
inline float SinQuadrant(Quadrant q) {
  const double s = SinPoly(q.r), c = CosPoly(q.r);
  return static_cast<float>(Negate((q.k & 1) ? c : s, (q.k >> 1) & 1));
}

inline double AtanPoly(double x) {  // |x| <= 1
  const double z = x * x;
  return Fma(x * z,
             Poly(z, -0x1.555555326fd2fp-2, 0x1.999985e9ed18cp-3, -0x1.2490574145147p-3, 0x1.c6eab99c82c5ep-4,
                  -0x1.72e40ddbd055ep-4, 0x1.33d4696067f70p-4, -0x1.f12532f7d6f5bp-5, 0x1.6b73996cb8524p-5,
                  -0x1.b6338254cdbb8p-6, 0x1.864b82545dd8bp-7, -0x1.baa6effc39adfp-9, 0x1.d7010a211c140p-12),
             x);
}
inline double AsinPoly(double x) {  // |x| <= 1/2
  const double z = x * x;
  return Fma(x * z,
             Poly(z, 0x1.555555478ee0ap-3, 0x1.333340c790895p-4, 0x1.6db24b5bbb51fp-5, 0x1.f283e45401a09p-6,
                  0x1.662fb809051e3p-6, 0x1.5290cd7755d01p-6, 0x1.fb0b7e6338f2bp-10, 0x1.0dfbcf5afe86dp-5),
             x);
}
inline constexpr double kPi = 0x1.921fb54442d18p+1, kHalfPi = 0x1.921fb54442d18p+0;

}  // namespace detail

inline constexpr float kTrigonometricLimit = 0x1p20f;

// ---- Exponentials

inline float Exp(float x) {
  using namespace detail;
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float t = Fma(x, kLog2E, kRound254);
  return ScaleTwice(ExpPoly(ReduceLn2(x, t - kRound254)), t);
}
// e^x for x <= 88, with results below 2^-126 flushed to zero: for softmax and the like, where they don't
// matter.
inline float ExpFlushed(float x) {
  using namespace detail;
  x = x < -88.0f ? -88.0f : x;
  const float t = Fma(x, kLog2E, kRound127);
  return ExpPoly(ReduceLn2(x, t - kRound127)) * Bits(Bits(t) << 23);
}
inline float Exp2(float x) {
  using namespace detail;
  x = x < -151.0f ? -151.0f : x;
  x = x > 129.0f ? 129.0f : x;
  const float t = x + kRound254;
  return ScaleTwice(Exp2Poly(x - (t - kRound254)), t);
}
inline float Expm1(float x) {
  using namespace detail;
  float y = x < -20.0f ? -20.0f : x;
  y = y > 89.0f ? 89.0f : y;
  const float t = Fma(y, kLog2E, kRound126);  // half the scale, so that e^88.7 does not overflow too early
  const float s = Bits(Bits(t) << 23);
  const float r = 2.0f * Fma(Expm1Poly(ReduceLn2(y, t - kRound126)), s, s - 0.5f);
  return std::fabs(x) < 0x1p-25f ? x : r;
}
inline float Sigmoid(float x) {
  const float e = Exp(-std::fabs(x));
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}
inline float Tanh(float x) {
  using namespace detail;
  float y = -2.0f * std::fabs(x);
  y = y < -20.0f ? -20.0f : y;
  const float t = Fma(y, kLog2E, kRound127);
  const float s = Bits(Bits(t) << 23);
  const float e = Fma(Expm1Poly(ReduceLn2(y, t - kRound127)), s, s - 1.0f);
  return std::copysign(e / (2.0f + e), x);
}

// ---- Logarithms

inline float Log(float x) {
  using namespace detail;
  const Parts p = Split(x);
  const float r = Fma(p.exponent, kLn2Hi, Fma(p.exponent, kLn2Lo, LogTail(p.f)) + p.f);
  return LogSpecial(x, r);
}
inline float Log1p(float x) {
  using namespace detail;
  const float u = 1.0f + x;
  const float c = std::fabs(x) < 1.0f ? x - (u - 1.0f) : 1.0f - (u - x);  // what 1 + x lost
  const Parts p = Split(u);
  const float e = p.exponent > 126.0f ? 126.0f : p.exponent;  // c / 2^exponent is nothing from 2^25 on
  const float f = Fma(c, Bits(Bits(kRound127 - e) << 23), p.f);
  const float r = Fma(p.exponent, kLn2Hi, Fma(p.exponent, kLn2Lo, LogTail(f)) + f);
  return x == 0 ? x : LogSpecial(u, r);
}
inline float Log2(float x) {
  using namespace detail;
  const Parts p = Split(x);
  const float tail = LogTail(p.f);
  // log2(e) = 1.4375 + 0.00519504072: the product with f is exact to about 2^-28.
  const float low = Fma(p.f, 0.00519504072f, tail * kLog2E);
  return LogSpecial(x, Fma(p.f, 1.4375f, low) + p.exponent);
}
inline float Log10(float x) {
  using namespace detail;
  const Parts p = Split(x);
  const float low = Fma(p.exponent, 4.60503898e-6f, Fma(p.f, 0.000700731903f, LogTail(p.f) * 0.434294482f));
  return LogSpecial(x, Fma(p.exponent, 0.301025391f, Fma(p.f, 0.43359375f, low)));
}

// ---- Error function

namespace detail {
// erf(x) for |x| <= 0.95
inline float ErfNear(float x) {
  return Fma(x,
             Poly(x * x, 0.128379166f, -0.376126289f, 0.112836257f, -0.0268557407f, 0.00519246049f,
                  -0.000805080403f, 8.00277485e-05f),
             x);
}
// y * y - w exactly, w being the rounded y * y
inline float SquareLost(float y, float w) {
#if defined(__FMA__)
  return Fma(y, y, -w);
#else
  const float high = Bits(Bits(y) & 0xfffff000u), low = y - high;
  return (high * high - w) + low * (y + high);
#endif
}
}  // namespace detail
inline float Erf(float x) {
  using namespace detail;
  const float t = std::fabs(x);
  const float y = t > 4.0f ? 4.0f : t;
  const float erfc = Exp2Flushed(Poly(y, -0.000353046635f, -1.62660253f, -0.919742763f, -0.149521217f,
                                      0.0318656415f, -0.00434038276f, 0.000277611543f));
  return t < 0.95f ? ErfNear(x) : std::copysign(1.0f - erfc, x);
}
inline float Erfc(float x) {
  using namespace detail;
  const float t = std::fabs(x), z = t * t;
  // e^(t^2) erfc(t) in u = (t - 3) / (t + 3), and e^-(t^2) with the rounding of t^2 repaired.
  const float y = t > 10.5f ? 10.5f : t;
  const float u = (y - 3.0f) / (y + 3.0f);
  const float g =
      Poly(u, 0.179001153f, -0.326233566f, 0.24560371f, -0.150115654f, 0.0716669336f, -0.0243951399f,
           0.00426422991f, 0.000716782059f, -0.000587185379f, 3.07484115e-05f, 5.43226779e-05f);
  const float w = y * y, lost = SquareLost(y, w);
  const float tail = Exp(-w) * Fma(-lost, g, g);
  const float far = x < 0 ? 2.0f - tail : x == x ? tail : x;
  return z < 0.4f ? 1.0f - ErfNear(x) : far;
}
// The normal distribution's Phi(-t) for t >= 0: what Gelu needs. Relative error below 1e-6 up to t = 3, below
// 3e-6 up to 5.5, growing to 1 % at 7, where it is 1e-12; 0 beyond 13.
inline float NormalTail(float t) {
  using namespace detail;
  return Exp2Flushed(Poly(t, -0.999999881f, -1.1511097f, -0.459180325f, -0.0525536574f, 0.00710063986f,
                          -0.000117272248f, -0.00022670516f, 6.20164501e-05f, -8.63815785e-06f,
                          6.54682708e-07f, -2.13527738e-08f));
}
inline float NormalCdf(float x) {
  const float q = NormalTail(std::fabs(x));
  return x > 0 ? 1.0f - q : q;
}

// ---- Trigonometric, hyperbolic, power

inline float Sin(float x) { return detail::SinQuadrant(detail::ReduceHalfPi(x)); }
inline float Cos(float x) {
  detail::Quadrant q = detail::ReduceHalfPi(x);
  ++q.k;
  return detail::SinQuadrant(q);
}
inline float Tan(float x) {
  using namespace detail;
  const Quadrant q = ReduceHalfPi(x);
  const double s = SinPoly(q.r), c = CosPoly(q.r);
  return static_cast<float>(Negate((q.k & 1) ? c / s : s / c, q.k & 1));
}
inline float Atan(float x) {
  using namespace detail;
  const double a = std::fabs(static_cast<double>(x));
  const double near = AtanPoly(a > 1 ? 1 / a : a);
  return std::copysign(static_cast<float>(a > 1 ? kHalfPi - near : near), x);
}
inline float Atan2(float y, float x) {
  using namespace detail;
  const double a = std::fabs(static_cast<double>(y)), b = std::fabs(static_cast<double>(x));
  const double low = a < b ? a : b, high = a < b ? b : a;
  const double q = high == 0 ? 0.0 : low == high ? 1.0 : low / high;  // both infinite is 1, both zero 0
  double r = AtanPoly(q);
  r = a > b ? kHalfPi - r : r;
  r = Bits(x) >> 31 ? kPi - r : r;
  return x != x || y != y ? kNaN : std::copysign(static_cast<float>(r), y);
}
inline float Asin(float x) {
  using namespace detail;
  const double a = std::fabs(static_cast<double>(x));
  const bool far = a > 0.5;
  const double p = AsinPoly(far ? std::sqrt((1 - a) * 0.5) : a);
  return std::copysign(static_cast<float>(far ? kHalfPi - 2 * p : p), x);
}
inline float Acos(float x) {
  using namespace detail;
  const double a = std::fabs(static_cast<double>(x));
  const bool far = a > 0.5;
  const double p = AsinPoly(far ? std::sqrt((1 - a) * 0.5) : static_cast<double>(x));
  const double q = x < 0 ? kPi - 2 * p : 2 * p;
  return static_cast<float>(far ? q : kHalfPi - p);
}
inline float Sinh(float x) {
  double a = std::fabs(static_cast<double>(x));
  a = a > 100 ? 100 : a;
  const double e = detail::Expm1Core(a);
  return std::copysign(static_cast<float>(0.5 * (e + e / (e + 1))), x);
}
inline float Cosh(float x) {
  const double e = detail::ExpCore(std::fabs(static_cast<double>(x)));
  return static_cast<float>(0.5 * e + 0.5 / e);
}
inline float Asinh(float x) {
  const double a = std::fabs(static_cast<double>(x));
  const double r = detail::Log1pCore(a + a * a / (1 + std::sqrt(1 + a * a)));
  return std::copysign(static_cast<float>(a < detail::kInf ? r : a), x);
}
inline float Acosh(float x) {
  const double t = static_cast<double>(x) - 1;
  const double r = detail::Log1pCore(t + std::sqrt(t * (t + 2)));
  return x < 1 ? detail::kNaN : static_cast<float>(r);
}
inline float Atanh(float x) {
  const double a = std::fabs(static_cast<double>(x));
  return std::copysign(static_cast<float>(0.5 * detail::Log1pCore(2 * a / (1 - a))), x);
}
inline float Pow(float x, float y) {
  using namespace detail;
  const float ax = std::fabs(x);
  const PartsDouble p = Split(static_cast<double>(ax));
  const double log2 =
      LogSpecial(static_cast<double>(ax), Fma(Log1pPoly(p.f), 0x1.71547652b82fep+0, p.exponent));
  const float r = static_cast<float>(Exp2Core(static_cast<double>(y) * log2));
  const float magnitude = y == 0 || x == 1 || (ax == 1 && y - y != 0 && y == y) ? 1.0f : r;
  const float half = y * 0.5f;
  const bool whole = std::floor(y) == y, odd = whole && std::floor(half) != half;
  const float with_sign = odd ? std::copysign(magnitude, x) : magnitude;
  return x < 0 && !whole && ax < kInf && y == y ? kNaN : with_sign;
}

// One exponent for many x: what depends on the exponent alone is decided once, so that a loop has no
// invariant conditions, which g++ would turn into branches. Not for exponents 0, infinity and NaN.
class PowerBy {
 public:
  explicit PowerBy(float y) : y_(y) {
    const bool whole = std::floor(y) == y, odd = whole && std::floor(y * 0.5f) != y * 0.5f;
    sign_ = odd ? 0x80000000u : 0;
    domain_ = whole ? -detail::kInf : 0.0f;
  }
  float operator()(float x) const {
    using namespace detail;
    const float ax = std::fabs(x);
    const PartsDouble p = Split(static_cast<double>(ax));
    const double log2 =
        LogSpecial(static_cast<double>(ax), Fma(Log1pPoly(p.f), 0x1.71547652b82fep+0, p.exponent));
    const float magnitude = static_cast<float>(Exp2Core(y_ * log2));
    const float with_sign = Bits(Bits(magnitude) | (Bits(x) & sign_));
    return (x < domain_) & (ax < kInf) ? kNaN : with_sign;
  }

 private:
  double y_;
  uint32_t sign_;  // the sign bit of x goes to the result: odd exponents
  float domain_;   // below it the result is NaN
};

// ---- double: libm's

inline double Exp(double x) { return std::exp(x); }
inline double ExpFlushed(double x) { return std::exp(x); }
inline double Exp2(double x) { return std::exp2(x); }
inline double Expm1(double x) { return std::expm1(x); }
inline double Sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}
inline double Tanh(double x) { return std::tanh(x); }
inline double Log(double x) { return std::log(x); }
inline double Log1p(double x) { return std::log1p(x); }
inline double Log2(double x) { return std::log2(x); }
inline double Log10(double x) { return std::log10(x); }
inline double Erf(double x) { return std::erf(x); }
inline double Erfc(double x) { return std::erfc(x); }
inline double NormalTail(double t) { return 0.5 * std::erfc(t * 0x1.6a09e667f3bcdp-1); }
inline double NormalCdf(double x) { return 0.5 * std::erfc(-x * 0x1.6a09e667f3bcdp-1); }
inline double Sin(double x) { return std::sin(x); }
inline double Cos(double x) { return std::cos(x); }
inline double Tan(double x) { return std::tan(x); }
inline double Atan(double x) { return std::atan(x); }
inline double Atan2(double y, double x) { return std::atan2(y, x); }
inline double Asin(double x) { return std::asin(x); }
inline double Acos(double x) { return std::acos(x); }
inline double Sinh(double x) { return std::sinh(x); }
inline double Cosh(double x) { return std::cosh(x); }
inline double Asinh(double x) { return std::asinh(x); }
inline double Acosh(double x) { return std::acosh(x); }
inline double Atanh(double x) { return std::atanh(x); }
inline double Pow(double x, double y) { return std::pow(x, y); }

}  // namespace anycann::math
