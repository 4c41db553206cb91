// The bounds that vector_math.h states: every 2039th float of all 2^32 and the special values, against libm
// in double.
#include "base/vector_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace anycann {
namespace {

constexpr double kWrong = 1e30;

// Distance in units of the last place of the float that is nearest to `want`.
double Ulp(float got, double want) {
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got) ? 0 : kWrong;
  const float nearest = static_cast<float>(want);
  if (got == nearest) return got != 0 || std::signbit(got) == std::signbit(want) ? 0 : kWrong;
  if (std::isinf(got) || std::isinf(nearest))
    return std::max(std::fabs(want), std::fabs(double{got})) > 3.4028e38 &&
                   std::min(std::fabs(want), std::fabs(double{got})) > 3.4028e38
               ? 1
               : kWrong;
  if (want == 0) return kWrong;
  int exponent;
  std::frexp(want, &exponent);
  return std::fabs(got - want) / std::ldexp(1.0, std::max(exponent - 24, -149));
}

template <class V, class R>
void Check(const char* name, double bound, V&& vector, R&& reference, float limit = HUGE_VALF) {
  constexpr uint64_t kStride = 2039;
  constexpr int64_t kBatch = 4096;
  std::vector<float> x(kBatch), r(kBatch);
  double worst = 0;
  float where = 0;
  const auto batch = [&] {
    for (int64_t i = 0; i < kBatch; ++i) r[i] = vector(x[i]);
    for (int64_t i = 0; i < kBatch; ++i) {
      const double error = Ulp(r[i], reference(double{x[i]}));
      if (error > worst) worst = error, where = x[i];
    }
  };
  for (uint64_t base = 0; base < uint64_t{1} << 32; base += kBatch * kStride) {
    for (int64_t i = 0; i < kBatch; ++i) {
      x[i] = std::bit_cast<float>(static_cast<uint32_t>(base + i * kStride));
      if (std::fabs(x[i]) > limit) x[i] = limit;
    }
    batch();
  }
  const float special[] = {0.0f,
                           -0.0f,
                           HUGE_VALF,
                           -HUGE_VALF,
                           NAN,
                           1.0f,
                           -1.0f,
                           0x1p-149f,
                           -0x1p-149f,
                           0x1p-126f,
                           0x1.fffffep-127f,
                           0x1.fffffep127f,
                           -0x1.fffffep127f,
                           0x1p23f,
                           88.72284f,
                           -103.97f};
  for (int64_t i = 0; i < kBatch; ++i) {
    x[i] = special[i % std::size(special)];
    if (std::isfinite(x[i]) && std::fabs(x[i]) > limit) x[i] = limit;
  }
  batch();
  EXPECT_LE(worst, bound) << name << "(" << where << ") is " << vector(where) << ", expected "
                          << reference(double{where});
}

#define CHECK_UNARY(name, bound, reference, ...)                                                         \
  Check(                                                                                                 \
      #name, bound, [](float x) { return math::name(x); }, [](double x) -> double { return reference; }, \
      ##__VA_ARGS__)

TEST(VectorMath, Exponentials) {
  CHECK_UNARY(Exp, 1.0, std::exp(x));
  CHECK_UNARY(Exp2, 2.0, std::exp2(x));
  CHECK_UNARY(Expm1, 2.0, std::expm1(x));
  CHECK_UNARY(Sigmoid, 3.0, x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)));
  CHECK_UNARY(Tanh, 3.0, std::tanh(x));
}

TEST(VectorMath, FlushedExponentialOfNormalResults) {
  for (float x = -87.3f; x < 88.0f; x += 0.0009765f)
    ASSERT_LE(Ulp(math::ExpFlushed(x), std::exp(double{x})), 1.0) << x;
  EXPECT_EQ(math::ExpFlushed(-HUGE_VALF), 0.0f);
  EXPECT_EQ(math::ExpFlushed(-1e30f), 0.0f);
  EXPECT_TRUE(std::isnan(math::ExpFlushed(NAN)));
}

TEST(VectorMath, Logarithms) {
  CHECK_UNARY(Log, 1.0, std::log(x));
  CHECK_UNARY(Log1p, 2.0, std::log1p(x));
  CHECK_UNARY(Log2, 2.0, std::log2(x));
  CHECK_UNARY(Log10, 2.0, std::log10(x));
  for (int i = -149; i < 128; ++i) EXPECT_EQ(math::Log2(std::ldexp(1.0f, i)), static_cast<float>(i));
}

TEST(VectorMath, ErrorFunction) {
  CHECK_UNARY(Erf, 2.0, std::erf(x));
  CHECK_UNARY(Erfc, 4.0, std::erfc(x));
  for (float t = 0; t < 5.5f; t += 0.0001f) {
    const double want = 0.5 * std::erfc(double{t} * 0x1.6a09e667f3bcdp-1);
    ASSERT_NEAR(math::NormalTail(t) / want, 1.0, t < 3 ? 1e-6 : 3e-6) << t;
  }
  EXPECT_EQ(math::NormalTail(HUGE_VALF), 0.0f);
  EXPECT_TRUE(std::isnan(math::NormalTail(NAN)));
}

TEST(VectorMath, Trigonometric) {
  CHECK_UNARY(Sin, 0.51, std::sin(x), math::kTrigonometricLimit);
  CHECK_UNARY(Cos, 0.51, std::cos(x), math::kTrigonometricLimit);
  CHECK_UNARY(Tan, 0.51, std::tan(x), math::kTrigonometricLimit);
  CHECK_UNARY(Asin, 0.51, std::asin(x));
  CHECK_UNARY(Acos, 0.51, std::acos(x));
  CHECK_UNARY(Atan, 0.51, std::atan(x));
}

TEST(VectorMath, Hyperbolic) {
  CHECK_UNARY(Sinh, 0.51, std::sinh(x));
  CHECK_UNARY(Cosh, 0.51, std::cosh(x));
  CHECK_UNARY(Asinh, 0.51, std::asinh(x));
  CHECK_UNARY(Acosh, 0.51, std::acosh(x));
  CHECK_UNARY(Atanh, 0.51, std::atanh(x));
}

// Pairs of special values and of random ones.
TEST(VectorMath, TwoArguments) {
  const float special[] = {0.0f,  -0.0f,  1.0f,        -1.0f,       0.5f,      -0.5f,
                           2.0f,  -2.0f,  3.0f,        -3.0f,       2.5f,      -2.5f,
                           1e10f, -1e10f, 16777216.0f, 16777217.0f, 0x1p-149f, -0x1p-149f,
                           3e38f, -3e38f, HUGE_VALF,   -HUGE_VALF,  NAN};
  for (float x : special)
    for (float y : special) {
      EXPECT_LE(Ulp(math::Pow(x, y), std::pow(double{x}, double{y})), 0.51)
          << x << "^" << y << " is " << math::Pow(x, y);
      if (std::isfinite(y) && y != 0) {
        EXPECT_LE(Ulp(math::PowerBy(y)(x), std::pow(double{x}, double{y})), 0.51)
            << x << "^" << y << " is " << math::PowerBy(y)(x);
      }
      EXPECT_LE(Ulp(math::Atan2(x, y), std::atan2(double{x}, double{y})), 0.51) << "atan2 " << x << " " << y;
    }
  uint64_t state = 1;
  const auto next = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 32);
  };
  for (int i = 0; i < 1000000; ++i) {
    const float x = std::bit_cast<float>(next()), y = std::bit_cast<float>(next());
    ASSERT_LE(Ulp(math::Atan2(x, y), std::atan2(double{x}, double{y})), 0.51) << x << " " << y;
    const float base = std::fabs(x),
                exponent =
                    std::log2(base) == 0 ? 1 : static_cast<int32_t>(next()) * 0x1p-25f / std::log2(base);
    ASSERT_LE(Ulp(math::Pow(base, exponent), std::pow(double{base}, double{exponent})), 0.51)
        << base << " " << exponent;
    ASSERT_LE(Ulp(math::PowerBy(exponent)(base), std::pow(double{base}, double{exponent})), 0.51)
        << base << " " << exponent;
  }
}

}  // namespace
}  // namespace anycann
