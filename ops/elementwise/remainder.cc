// Remainders: fmod (the sign of self) and remainder (the sign of other, as Python's %). Integers by zero give
// self.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

using arithmetic::FastFmod;
using arithmetic::HardRemainder;

// The sign of b: what fmod gives, plus b where the signs differ.
template <class T>
T WithSignOf(T b, T r) {
  const T moved = r + b;
  return (r != 0) & ((r < 0) != (b < 0)) ? moved : r;
}

template <class T>
struct Fmod {
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>)
      return arithmetic::RemTruncated(a, b);
    else if constexpr (std::is_same_v<T, float>)
      return FastFmod(a, b);
    else
      return std::fmod(a, b);
  }
  T Exact(T a, T b) const { return std::fmod(a, b); }
};

template <class T>
struct FloorRemainder {
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>)
      return arithmetic::RemFloor(a, b);
    else
      return WithSignOf(b, Fmod<T>{}(a, b));
  }
  T Exact(T a, T b) const { return WithSignOf(b, std::fmod(a, b)); }
};

template <template <class> class F, class T>
struct OfTensors : F<T> {};
template <template <class> class F>
struct OfTensors<F, float> : F<float> {
  bool Hard(float a, float b) const { return HardRemainder(a, b); }
};
template <template <class> class F, class T>
struct ByConstant {
  T divisor;
  T operator()(T a) const { return F<T>{}(a, divisor); }
};
template <template <class> class F>
struct ByConstant<F, float> {
  float divisor;
  float operator()(float a) const { return F<float>{}(a, divisor); }
  bool Hard(float a) const { return HardRemainder(a, divisor); }
  float Exact(float a) const { return F<float>{}.Exact(a, divisor); }
};
template <template <class> class F, class T>
struct OfConstant {
  T dividend;
  T operator()(T b) const { return F<T>{}(dividend, b); }
};
template <template <class> class F>
struct OfConstant<F, float> {
  float dividend;
  float operator()(float b) const { return F<float>{}(dividend, b); }
  bool Hard(float b) const { return HardRemainder(dividend, b); }
  float Exact(float b) const { return F<float>{}.Exact(dividend, b); }
};

// bool is computed as uint8: the result is an integer in torch, too.
DType NoBool(DType t) { return t == DType::kBool ? DType::kUint8 : t; }
double CostOf(DType t) { return t == DType::kDouble ? 100 : 8; }

template <template <class> class F>
Status Tensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  const DType compute = NoBool(Promote(self->view.dtype, other->view.dtype));
  return MapBinary<kRealTypes>(
      call, self, other, out, compute, [](auto tag) { return OfTensors<F, typename decltype(tag)::type>{}; },
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
