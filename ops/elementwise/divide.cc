// Division: true (integers give float32), rounded towards zero, rounded down. Integers divided by zero give
// -1.
#include <limits>

#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

enum class Rounding { kNone = 0, kTruncate = 1, kFloor = 2 };

// The floor of a / b as Python defines it: from the remainder `mod`, so that it agrees with the floored
// remainder. torch's rules for results that round up to the next integer. b is not zero.
template <class T>
T FloorFrom(T mod, T a, T b) {
  const T exact = (a - mod) / b;
  const T div = (mod != 0) & ((b < 0) != (mod < 0)) ? exact - 1 : exact;
  const T floor = std::floor(div), next = floor + 1;
  const T nearest = div - floor > T(0.5) ? next : floor;
  const T zero = std::copysign(T(0), a / b);
  return div == 0 ? zero : nearest;
}
inline int64_t FloorFrom(int64_t mod, int64_t a, int64_t b) {
  const int64_t q = arithmetic::FastQuotient(a, b);
  return (mod != 0) & ((b < 0) != (mod < 0)) ? q - 1 : q;
}

template <class T, Rounding rounding>
T ExactQuotient(T a, T b) {
  if constexpr (rounding == Rounding::kNone)
    return arithmetic::Div(a, b);
  else if constexpr (std::is_integral_v<T>)
    return rounding == Rounding::kFloor ? arithmetic::DivFloor(a, b) : arithmetic::DivTruncated(a, b);
  else if constexpr (rounding == Rounding::kTruncate)
    return std::trunc(a / b);
  else
    return b == 0 ? a / b : FloorFrom(std::fmod(a, b), a, b);
}
// Where division has a fast form that does not serve all operands.
template <class T, Rounding rounding>
inline constexpr bool kFast = (std::is_same_v<T, float> && rounding == Rounding::kFloor) ||
                              (std::is_same_v<T, int64_t> && rounding != Rounding::kNone);
template <class T, Rounding rounding>
T QuotientOf(T a, T b) {
  if constexpr (!kFast<T, rounding>)
    return ExactQuotient<T, rounding>(a, b);
  else if constexpr (rounding == Rounding::kFloor)
    return FloorFrom(arithmetic::FastRemainder(a, b), a, b);
  else
    return arithmetic::FastQuotient(a, b);
}

template <class T, Rounding rounding>
struct Quotient {
  T operator()(T a, T b) const { return QuotientOf<T, rounding>(a, b); }
  bool Hard(T a, T b) const requires(kFast<T, rounding>) { return arithmetic::HardDivision(a, b); }
  T Exact(T a, T b) const requires(kFast<T, rounding>) { return ExactQuotient<T, rounding>(a, b); }
};
template <class T, Rounding rounding>
struct QuotientByConstant {
  T divisor;
  T operator()(T a) const { return QuotientOf<T, rounding>(a, divisor); }
  bool Hard(T a) const requires(kFast<T, rounding>) { return arithmetic::HardDivision(a, divisor); }
  T Exact(T a) const requires(kFast<T, rounding>) { return ExactQuotient<T, rounding>(a, divisor); }
};

template <Rounding rounding>
constexpr unsigned kQuotientTypes = rounding == Rounding::kNone ? kFloatingTypes : kRealTypes;

// bool divides as uint8 where the quotient stays an integer.
template <Rounding rounding>
DType QuotientType(DType t) {
  if (rounding == Rounding::kNone) return ToFloating(t);
  return t == DType::kBool ? DType::kUint8 : t;
}
template <Rounding rounding>
double CostOf(DType t) {
  return rounding == Rounding::kFloor && IsFloating(t) ? (t == DType::kDouble ? 100 : 8)
         : IsInteger(t)                                ? 8
                                                       : 1;
}

template <Rounding rounding>
Status DivideTensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  const DType compute = QuotientType<rounding>(Promote(self->view.dtype, other->view.dtype));
  return MapBinary<kQuotientTypes<rounding>>(
      call, self, other, out, compute,
      [](auto tag) { return Quotient<typename decltype(tag)::type, rounding>{}; }, CostOf<rounding>(compute));
}

template <Rounding rounding>
Status DivideByScalar(Call& call, const aclTensor* self, const aclScalar* other, const aclTensor* out) {
  const DType compute = QuotientType<rounding>(PromoteScalar(self->view.dtype, other->value.dtype));
  return MapUnary<kQuotientTypes<rounding>>(
      call, self, out, compute,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return QuotientByConstant<T, rounding>{other->value.To<T>()};
      },
      CostOf<rounding>(compute));
}

Status BadMode(Call& call, int mode) {
  return call.Invalid("mode is {}, expected 0 (true division), 1 (rounded towards zero) or 2 (rounded down)",
                      mode);
}

}  // namespace

Status aclnn::Div(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return DivideTensors<Rounding::kNone>(call, self, other, out);
}
Status aclnn::Divs(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return DivideByScalar<Rounding::kNone>(call, self, other, out);
}
Status aclnn::DivMod(Call& call, const aclTensor* self, const aclTensor* other, int mode, aclTensor* out) {
  switch (static_cast<Rounding>(mode)) {
    case Rounding::kNone: return DivideTensors<Rounding::kNone>(call, self, other, out);
    case Rounding::kTruncate: return DivideTensors<Rounding::kTruncate>(call, self, other, out);
    case Rounding::kFloor: return DivideTensors<Rounding::kFloor>(call, self, other, out);
  }
  return BadMode(call, mode);
}
Status aclnn::DivMods(Call& call, const aclTensor* self, const aclScalar* other, int mode, aclTensor* out) {
  switch (static_cast<Rounding>(mode)) {
    case Rounding::kNone: return DivideByScalar<Rounding::kNone>(call, self, other, out);
    case Rounding::kTruncate: return DivideByScalar<Rounding::kTruncate>(call, self, other, out);
    case Rounding::kFloor: return DivideByScalar<Rounding::kFloor>(call, self, other, out);
  }
  return BadMode(call, mode);
}
Status aclnn::FloorDivide(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return DivideTensors<Rounding::kFloor>(call, self, other, out);
}
Status aclnn::FloorDivides(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return DivideByScalar<Rounding::kFloor>(call, self, other, out);
}

}  // namespace anycann
