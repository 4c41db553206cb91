// To integers: ceil, floor, round (half to even), trunc, frac; to decimals.
#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
struct CeilOf {
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::ceil(x);
    else
      return x;
  }
};
template <class T>
struct FloorOf {
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::floor(x);
    else
      return x;
  }
};
template <class T>
struct RoundOf {
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::rint(x);
    else
      return x;
  }
};
template <class T>
struct TruncOf {
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::trunc(x);
    else
      return x;
  }
};
template <class T>
struct FracOf {
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return x - std::trunc(x);
    else
      return T(0);
  }
};
template <class T>
struct RoundDecimalsOf {
  T power;  // 10^|decimals|
  bool negative;
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return negative ? std::rint(x / power) * power : std::rint(x * power) / power;
    else
      return x;
  }
};

}  // namespace

bool FindCeil(DType t, ElementwiseKernel* k) { return FindUnary<CeilOf, kRealTypes>(t, k, 1); }
bool FindFloor(DType t, ElementwiseKernel* k) { return FindUnary<FloorOf, kRealTypes>(t, k, 1); }
bool FindRound(DType t, ElementwiseKernel* k) { return FindUnary<RoundOf, kRealTypes>(t, k, 1); }
bool FindTrunc(DType t, ElementwiseKernel* k) { return FindUnary<TruncOf, kRealTypes>(t, k, 1); }
bool FindFrac(DType t, ElementwiseKernel* k) { return FindUnary<FracOf, kRealTypes>(t, k, 1); }

Status aclnn::Ceil(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindCeil, self, out);
}
Status aclnn::Floor(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindFloor, self, out);
}
Status aclnn::Round(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindRound, self, out);
}
Status aclnn::Trunc(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindTrunc, self, out);
}
Status aclnn::Frac(Call& call, const aclTensor* input, aclTensor* out) {
  return UnaryExact(call, FindFrac, input, out);
}

Status aclnn::RoundDecimals(Call& call, const aclTensor* self, int64_t decimals, aclTensor* out) {
  return MapUnary<kRealTypes>(call, self, out, self->view.dtype, [decimals](auto tag) {
    using T = typename decltype(tag)::type;
    RoundDecimalsOf<T> f{T(1), decimals < 0};
    if constexpr (std::is_floating_point_v<T>)
      f.power = std::pow(T(10), static_cast<T>(std::fabs(static_cast<double>(decimals))));
    return f;
  });
}

}  // namespace anycann
