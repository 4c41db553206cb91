// Remainders: fmod (the sign of self) and remainder (the sign of other, as Python's %). Integers by zero give
// self.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

using arithmetic::kFastDivision;

struct Fmod {
  template <class T>
  static T Exact(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      return arithmetic::RemTruncated(a, b);
    else
      return std::fmod(a, b);
  }
  template <class T>
  static T Fast(T a, T b) {
    if constexpr (kFastDivision<T>)
      return arithmetic::FastRemainder(a, b);
    else
      return Exact(a, b);
  }
};

struct FloorRemainder {
  template <class T>
  static T Exact(T a, T b) {
    return b == 0 ? Fmod::Exact(a, b) : arithmetic::FloorRemainderFrom(Fmod::Exact(a, b), b);
  }
  template <class T>
  static T Fast(T a, T b) {
    if constexpr (kFastDivision<T>)
      return arithmetic::FloorRemainderFrom(Fmod::Fast(a, b), b);
    else
      return Exact(a, b);
  }
};

template <class F, class T>
struct OfTensors {
  T operator()(T a, T b) const { return F::Fast(a, b); }
  bool Hard(T a, T b) const requires kFastDivision<T> { return arithmetic::HardDivision(a, b); }
  T Exact(T a, T b) const requires kFastDivision<T> { return F::Exact(a, b); }
};
template <class F, class T>
struct ByConstant {
  T divisor;
  T operator()(T a) const { return F::Fast(a, divisor); }
  bool Hard(T a) const requires kFastDivision<T> { return arithmetic::HardDivision(a, divisor); }
  T Exact(T a) const requires kFastDivision<T> { return F::Exact(a, divisor); }
};
template <class F, class T>
struct OfConstant {
  T dividend;
  T operator()(T b) const { return F::Fast(dividend, b); }
  bool Hard(T b) const requires kFastDivision<T> { return arithmetic::HardDivision(dividend, b); }
  T Exact(T b) const requires kFastDivision<T> { return F::Exact(dividend, b); }
};

// bool is computed as uint8: the result is an integer in torch, too.
DType NoBool(DType t) { return t == DType::kBool ? DType::kUint8 : t; }
double CostOf(DType t) { return t == DType::kDouble ? 100 : 8; }

template <class F>
Status Tensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  const DType compute = NoBool(Promote(self->view.dtype, other->view.dtype));
  return MapBinary<kRealTypes>(
      call, self, other, out, compute, [](auto tag) { return OfTensors<F, typename decltype(tag)::type>{}; },
      CostOf(compute));
}
template <class F>
Status TensorScalar(Call& call, const aclTensor* self, const aclScalar* other, const aclTensor* out) {
  const DType compute = NoBool(PromoteScalar(self->view.dtype, other->value.dtype));
  return MapUnary<kRealTypes>(
      call, self, out, compute,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return ByConstant<F, T>{other->value.To<T>()};
      },
      CostOf(compute));
}

}  // namespace

Status aclnn::FmodTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<Fmod>(call, self, other, out);
}
Status aclnn::FmodScalar(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return TensorScalar<Fmod>(call, self, other, out);
}
Status aclnn::RemainderTensorTensor(Call& call, const aclTensor* self, const aclTensor* other,
                                    aclTensor* out) {
  return Tensors<FloorRemainder>(call, self, other, out);
}
Status aclnn::RemainderTensorScalar(Call& call, const aclTensor* self, const aclScalar* other,
                                    aclTensor* out) {
  return TensorScalar<FloorRemainder>(call, self, other, out);
}
Status aclnn::RemainderScalarTensor(Call& call, const aclScalar* self, const aclTensor* other,
                                    aclTensor* out) {
  const DType compute = NoBool(PromoteScalar(other->view.dtype, self->value.dtype));
  return MapUnary<kRealTypes>(
      call, other, out, compute,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return OfConstant<FloorRemainder, T>{self->value.To<T>()};
      },
      CostOf(compute));
}

}  // namespace anycann
