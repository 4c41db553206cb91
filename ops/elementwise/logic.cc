// Logical operators (any type, "is not zero"), bitwise operators and shifts (integers and bool).
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

constexpr unsigned kBits = kIntTypes | kBoolType;

template <class T>
struct And {
  T operator()(T a, T b) const { return a & b; }
};
template <class T>
struct Or {
  T operator()(T a, T b) const { return a | b; }
};
template <class T>
struct Xor {
  T operator()(T a, T b) const { return a ^ b; }
};
template <class T>
struct Not {
  T operator()(T a) const {
    if constexpr (std::is_same_v<T, bool>)
      return !a;
    else
      return static_cast<T>(~a);
  }
};

// Shifts by a negative count or by the width and more: left gives 0, right gives what is left of the sign.
template <class T>
struct ShiftLeft {
  T operator()(T a, T bits) const {
    constexpr T kWidth = static_cast<T>(sizeof(T) * 8);
    using U = arithmetic::Wrapping<T>;
    const bool outside = bits < 0 || bits >= kWidth;
    const T shifted = static_cast<T>(static_cast<U>(a) << (outside ? T(0) : bits));
    return outside ? T(0) : shifted;
  }
};
template <class T>
struct ShiftRight {
  T operator()(T a, T bits) const {
    constexpr T kWidth = static_cast<T>(sizeof(T) * 8);
    const bool outside = bits < 0 || bits >= kWidth;
    const T shifted = static_cast<T>(a >> (outside ? static_cast<T>(kWidth - 1) : bits));
    if constexpr (std::is_unsigned_v<T>)
      return outside ? T(0) : shifted;
    else
      return shifted;
  }
};

template <template <class> class F, class T>
struct WithConstant {
  T b;
  T operator()(T a) const { return F<T>{}(a, b); }
};

Status Logical(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out, auto f) {
  // Read as bool whatever they are: the engine's conversion to bool is the test for zero.
  return LaunchMap<decltype(f), bool, bool>(call, {self, other}, out, f, 1);
}

template <template <class> class F>
Status Bitwise(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  return MapBinary<kBits>(call, self, other, out, Promote(self->view.dtype, other->view.dtype),
                          [](auto tag) { return F<typename decltype(tag)::type>{}; });
}
template <template <class> class F>
Status BitwiseScalar(Call& call, const aclTensor* self, const aclScalar* other, const aclTensor* out) {
  return MapUnary<kBits>(call, self, out, PromoteScalar(self->view.dtype, other->value.dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    return WithConstant<F, T>{other->value.To<T>()};
  });
}
// bool shifts as an integer in torch: its promotion with the other operand, or int8 when both are bool.
template <template <class> class F>
Status Shift(Call& call, const aclTensor* self, const aclTensor* bits, const aclTensor* out) {
  return MapBinary<kIntTypes>(call, self, bits, out, Promote(self->view.dtype, bits->view.dtype),
                              [](auto tag) { return F<typename decltype(tag)::type>{}; });
}

}  // namespace

Status aclnn::LogicalAnd(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Logical(call, self, other, out, And<bool>{});
}
Status aclnn::LogicalOr(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Logical(call, self, other, out, Or<bool>{});
}
Status aclnn::LogicalXor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Logical(call, self, other, out, Xor<bool>{});
}
Status aclnn::LogicalNot(Call& call, const aclTensor* self, aclTensor* out) {
  return LaunchMap<Not<bool>, bool>(call, {self}, out, Not<bool>{}, 1);
}

Status aclnn::BitwiseAndTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Bitwise<And>(call, self, other, out);
}
Status aclnn::BitwiseAndScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return BitwiseScalar<And>(call, self, other, out);
}
Status aclnn::BitwiseOrTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Bitwise<Or>(call, self, other, out);
}
Status aclnn::BitwiseOrScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return BitwiseScalar<Or>(call, self, other, out);
}
Status aclnn::BitwiseXorTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Bitwise<Xor>(call, self, other, out);
}
Status aclnn::BitwiseXorScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return BitwiseScalar<Xor>(call, self, other, out);
}
Status aclnn::BitwiseNot(Call& call, const aclTensor* self, aclTensor* out) {
  return MapUnary<kBits>(call, self, out, self->view.dtype,
                         [](auto tag) { return Not<typename decltype(tag)::type>{}; });
}

Status aclnn::LeftShift(Call& call, const aclTensor* self, const aclTensor* shiftBits, aclTensor* out) {
  return Shift<ShiftLeft>(call, self, shiftBits, out);
}
Status aclnn::LeftShifts(Call& call, const aclTensor* self, const aclScalar* shiftBits, aclTensor* out) {
  return MapUnary<kIntTypes>(
      call, self, out, PromoteScalar(self->view.dtype, shiftBits->value.dtype), [&](auto tag) {
        using T = typename decltype(tag)::type;
        // A count that T can't hold is as far outside as the width.
        const int64_t bits = shiftBits->value.ToInt64();
        return WithConstant<ShiftLeft, T>{static_cast<T>(bits < 0 || bits > 64 ? 8 * sizeof(T) : bits)};
      });
}
Status aclnn::RightShift(Call& call, const aclTensor* input, const aclTensor* shiftBits, aclTensor* out) {
  return Shift<ShiftRight>(call, input, shiftBits, out);
}

}  // namespace anycann
