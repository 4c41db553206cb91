// self * log(other), 0 where self is 0; NaN where other is NaN.
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
T XLogYOf(T x, T y) {
  const T r = x * math::Log(y);
  return (x == 0) & (y == y) ? T(0) : r;
}
template <class T>
struct XLogYTensors {
  T operator()(T x, T y) const { return XLogYOf(x, y); }
};
template <class T>
struct XLogYConstant {
  T y;
  T operator()(T x) const { return XLogYOf(x, y); }
};
template <class T>
struct ConstantXLogY {
  T x;
  T operator()(T y) const { return XLogYOf(x, y); }
};

}  // namespace

Status aclnn::XLogYTensor(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return MapBinary<kFloatTypes>(
      call, self, other, out, ToFloating(Promote(self->view.dtype, other->view.dtype)),
      [](auto tag) { return XLogYTensors<typename decltype(tag)::type>{}; }, 15);
}
Status aclnn::XLogYScalarOther(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return MapUnary<kFloatTypes>(
      call, self, out, ToFloating(PromoteScalar(self->view.dtype, other->value.dtype)),
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return XLogYConstant<T>{other->value.To<T>()};
      },
      15);
}
Status aclnn::XLogYScalarSelf(Call& call, const aclScalar* self, const aclTensor* other, aclTensor* out) {
  return MapUnary<kFloatTypes>(
      call, other, out, ToFloating(PromoteScalar(other->view.dtype, self->value.dtype)),
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return ConstantXLogY<T>{self->value.To<T>()};
      },
      15);
}

}  // namespace anycann
