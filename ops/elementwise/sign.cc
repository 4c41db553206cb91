// Absolute value, negation, sign, phase.
#include <numbers>

#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
struct AbsOf {
  auto operator()(T x) const {
    if constexpr (kIsComplexType<T> || std::is_floating_point_v<T>)
      return std::abs(x);
    else if constexpr (std::is_unsigned_v<T>)
      return x;
    else
      return static_cast<T>(x < 0 ? arithmetic::Sub(T(0), x) : x);  // the least integer stays itself
  }
};
template <class T>
struct NegOf {
  T operator()(T x) const {
    // Through unsigned: the least integer stays itself.
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(x));
    else
      return -x;
  }
};
template <class T>
struct SignOf {
  T operator()(T x) const {
    if constexpr (kIsComplexType<T>)
      return x == T(0) ? T(0) : x / std::abs(x);
    else if constexpr (std::is_same_v<T, bool>)
      return x;
    else if constexpr (std::is_unsigned_v<T>)
      return x != 0 ? T(1) : T(0);
    else
      return static_cast<T>(static_cast<T>(x > 0) - static_cast<T>(x < 0));
  }
};
template <class T>
struct SignbitOf {
  bool operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::signbit(x);
    else if constexpr (std::is_unsigned_v<T>)
      return false;
    else
      return x < 0;
  }
};
template <class T>
struct AngleOf {
  auto operator()(T x) const {
    if constexpr (kIsComplexType<T>)
      return std::arg(x);
    else
      return x < 0 ? std::numbers::pi_v<T> : x == x ? T(0) : x;
  }
};

bool FindSignbit(DType t, ElementwiseKernel* k) {
  return FindUnary<SignbitOf, kRealTypes | kBoolType>(t, k, 1);
}
bool FindAngle(DType t, ElementwiseKernel* k) { return FindUnary<AngleOf, kFloatingTypes>(t, k, 2); }

}  // namespace

bool FindAbs(DType t, ElementwiseKernel* k) { return FindUnary<AbsOf, kAllTypes>(t, k, 1); }
bool FindNeg(DType t, ElementwiseKernel* k) { return FindUnary<NegOf, kNumberTypes>(t, k, 1); }
bool FindSign(DType t, ElementwiseKernel* k) { return FindUnary<SignOf, kAllTypes>(t, k, 1); }

Status aclnn::Abs(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindAbs, self, out);
}
Status aclnn::Neg(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindNeg, self, out);
}
Status aclnn::Sign(Call& call, const aclTensor* self, aclTensor* result) {
  return UnaryExact(call, FindSign, self, result);
}
Status aclnn::Signbit(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindSignbit, self, out);
}
Status aclnn::AngleV2(Call& call, const aclTensor* x, const aclTensor* out) {
  return UnaryFloating(call, FindAngle, x, out);
}

}  // namespace anycann
