// Powers. Floats go through pow, with the exponents that have something cheaper written out as torch does;
// integers multiply (and wrap).
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

using arithmetic::Pow;

template <class T>
struct Power {
  T operator()(T a, T b) const { return Pow(a, b); }
};
template <class T>
struct PowerOfConstant {
  T base;
  T operator()(T b) const { return Pow(base, b); }
};
template <class T>
struct PowerByConstant {
  T exponent;
  T operator()(T a) const { return Pow(a, exponent); }
};
struct PowerByExponent {
  math::PowerBy power;
  float operator()(float a) const { return power(a); }
};
template <class T>
struct PowerOfTwo {
  T operator()(T b) const { return math::Exp2(b); }
};

enum class Exponent { kOne, kTwo, kThree, kHalf, kMinusHalf, kMinusOne, kMinusTwo };

template <class T, Exponent e>
struct SimplePower {
  T operator()(T a) const {
    if constexpr (e == Exponent::kOne)
      return a;
    else if constexpr (e == Exponent::kTwo)
      return arithmetic::Mul(a, a);
    else if constexpr (e == Exponent::kThree)
      return arithmetic::Mul(arithmetic::Mul(a, a), a);
    else if constexpr (e == Exponent::kHalf)
      return std::sqrt(a);
    else if constexpr (e == Exponent::kMinusHalf)
      return T(1) / std::sqrt(a);
    else if constexpr (e == Exponent::kMinusOne)
      return T(1) / a;
    else
      return T(1) / (a * a);
  }
};

template <unsigned types, Exponent e>
Status Simple(Call& call, const aclTensor* self, const aclTensor* out, DType compute) {
  return MapUnary<types>(call, self, out, compute,
                         [](auto tag) { return SimplePower<typename decltype(tag)::type, e>{}; });
}

Status ByScalar(Call& call, const aclTensor* self, const aclScalar* exponent, const aclTensor* out) {
  const DType compute = PromoteScalar(self->view.dtype, exponent->value.dtype);
  if (IsInteger(compute) && exponent->value.ToDouble() < 0)
    return call.Invalid("exponent is {}, expected at least 0 for {} self: the result would not be an integer",
                        exponent->value.ToInt64(), Name(self->view.dtype));
  if (!exponent->value.IsComplex()) {
    const double e = exponent->value.ToDouble();
    if (e == 1) return Simple<kAllTypes, Exponent::kOne>(call, self, out, compute);
    if (e == 2) return Simple<kAllTypes, Exponent::kTwo>(call, self, out, compute);
    if (e == 3) return Simple<kAllTypes, Exponent::kThree>(call, self, out, compute);
    if (IsFloating(compute)) {
      if (e == 0.5) return Simple<kFloatTypes, Exponent::kHalf>(call, self, out, compute);
      if (e == -0.5) return Simple<kFloatTypes, Exponent::kMinusHalf>(call, self, out, compute);
      if (e == -1) return Simple<kFloatTypes, Exponent::kMinusOne>(call, self, out, compute);
      if (e == -2) return Simple<kFloatTypes, Exponent::kMinusTwo>(call, self, out, compute);
    }
  }
  if (ComputeType(compute) == DType::kFloat) {
    const float e = exponent->value.To<float>();
    if (std::isfinite(e) && e != 0) {
      RETURN_IF_ERROR(call.RequireCastable(compute, out, "out"));
      return LaunchMap<PowerByExponent, float>(call, {self}, out, PowerByExponent{math::PowerBy(e)}, 10);
    }
  }
  return MapUnary<kAllTypes>(
      call, self, out, compute,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return PowerByConstant<T>{exponent->value.To<T>()};
      },
      20);
}

Status ByTensor(Call& call, const aclTensor* self, const aclTensor* exponent, const aclTensor* out) {
  return MapBinary<kAllTypes>(
      call, self, exponent, out, Promote(self->view.dtype, exponent->view.dtype),
      [](auto tag) { return Power<typename decltype(tag)::type>{}; }, 20);
}

}  // namespace

Status aclnn::PowTensorScalar(Call& call, const aclTensor* self, const aclScalar* exponent,
                              const aclTensor* out) {
  return ByScalar(call, self, exponent, out);
}
Status aclnn::InplacePowTensorScalar(Call& call, const aclTensor* self, const aclScalar* exponent) {
  return ByScalar(call, self, exponent, self);
}
Status aclnn::PowTensorTensor(Call& call, const aclTensor* self, const aclTensor* exponent, aclTensor* out) {
  return ByTensor(call, self, exponent, out);
}
Status aclnn::InplacePowTensorTensor(Call& call, const aclTensor* self, const aclTensor* exponent) {
  return ByTensor(call, self, exponent, self);
}
Status aclnn::PowScalarTensor(Call& call, const aclScalar* self, const aclTensor* exponent,
                              const aclTensor* out) {
  const DType compute = PromoteScalar(exponent->view.dtype, self->value.dtype);
  if (IsFloating(compute) && self->value.ToDouble() == 2)
    return MapUnary<kFloatTypes>(
        call, exponent, out, compute, [](auto tag) { return PowerOfTwo<typename decltype(tag)::type>{}; },
        10);
  return MapUnary<kAllTypes>(
      call, exponent, out, compute,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return PowerOfConstant<T>{self->value.To<T>()};
      },
      20);
}

}  // namespace anycann
