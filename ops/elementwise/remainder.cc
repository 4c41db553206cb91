// Remainders: fmod (the sign of self) and remainder (the sign of other, as Python's %). Integers by zero give
// self.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct Fmod {
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      return arithmetic::RemTruncated(a, b);
    } else {
      return std::fmod(a, b);
    }
  }
};

template <class T>
struct FloorRemainder {
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      return arithmetic::RemFloor(a, b);
    } else {
      const T r = std::fmod(a, b);
      return r != 0 && (r < 0) != (b < 0) ? r + b : r;
    }
  }
};

template <template <class> class F, class T>
struct ByConstant {
  T divisor;
  T operator()(T a) const { return F<T>{}(a, divisor); }
};
template <template <class> class F, class T>
struct OfConstant {
  T dividend;
  T operator()(T b) const { return F<T>{}(dividend, b); }
};

// bool is computed as uint8: the result is an integer in torch, too.
DType NoBool(DType t) { return t == DType::kBool ? DType::kUint8 : t; }
double CostOf(DType t) { return IsFloating(t) ? 40 : 8; }

template <template <class> class F>
Status Tensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  const DType compute = NoBool(Promote(self->view.dtype, other->view.dtype));
  return MapBinary<kRealTypes>(
      call, self, other, out, compute, [](auto tag) { return F<typename decltype(tag)::type>{}; },
      CostOf(compute));
}
template <template <class> class F>
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
