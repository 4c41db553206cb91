// Maximum, minimum and clamp: a NaN in any operand is the result; a lower bound above the upper one gives the
// upper.
#include <limits>

#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

constexpr unsigned kOrdered = kRealTypes | kBoolType;

template <class T>
struct Larger {
  T operator()(T a, T b) const { return arithmetic::Max(a, b); }
};
template <class T>
struct Smaller {
  T operator()(T a, T b) const { return arithmetic::Min(a, b); }
};
// Bounds that are not NaN: a selection keeps a NaN of the tensor by itself.
template <class T>
struct AtLeast {
  T bound;
  T operator()(T a) const { return bound > a ? bound : a; }
};
template <class T>
struct AtMost {
  T bound;
  T operator()(T a) const { return bound < a ? bound : a; }
};
template <class T>
struct Between {
  T low, high;
  T operator()(T a) const {
    const T raised = low > a ? low : a;
    return high < raised ? high : raised;
  }
};
template <class T>
struct Constant {
  T value;
  T operator()(T) const { return value; }
};
template <class T>
struct Clamped {
  T operator()(T a, T low, T high) const { return arithmetic::Min(arithmetic::Max(a, low), high); }
};

template <template <class> class F>
Status Tensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  return MapBinary<kOrdered>(call, self, other, out, Promote(self->view.dtype, other->view.dtype),
                             [](auto tag) { return F<typename decltype(tag)::type>{}; });
}

bool IsNaN(const aclScalar* s) { return IsFloating(s->value.dtype) && s->value.d != s->value.d; }
// A bound that is NaN makes every element NaN, in floating types.
Status AllNaN(Call& call, const aclTensor* self, const aclTensor* out, DType compute) {
  return MapUnary<kOrdered>(call, self, out, compute, [](auto tag) {
    using T = typename decltype(tag)::type;
    return Constant<T>{std::numeric_limits<T>::quiet_NaN()};
  });
}

template <template <class> class F>
Status TensorScalar(Call& call, const aclTensor* self, const aclScalar* bound, const aclTensor* out) {
  const DType compute = PromoteScalar(self->view.dtype, bound->value.dtype);
  if (IsNaN(bound)) return AllNaN(call, self, out, compute);
  return MapUnary<kOrdered>(call, self, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return F<T>{bound->value.To<T>()};
  });
}

}  // namespace

Status aclnn::Maximum(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<Larger>(call, self, other, out);
}
Status aclnn::Minimum(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<Smaller>(call, self, other, out);
}

Status aclnn::Clamp(Call& call, const aclTensor* self, const aclScalar* clipValueMin,
                    const aclScalar* clipValueMax, aclTensor* out) {
  if (clipValueMin == nullptr && clipValueMax == nullptr)
    return call.Error(kParamNullptr,
                      "clipValueMin and clipValueMax are both null, expected at least one bound");
  if (clipValueMax == nullptr) return TensorScalar<AtLeast>(call, self, clipValueMin, out);
  if (clipValueMin == nullptr) return TensorScalar<AtMost>(call, self, clipValueMax, out);
  const DType compute =
      PromoteScalar(PromoteScalar(self->view.dtype, clipValueMin->value.dtype), clipValueMax->value.dtype);
  if (IsNaN(clipValueMin) || IsNaN(clipValueMax)) return AllNaN(call, self, out, compute);
  return MapUnary<kOrdered>(call, self, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return Between<T>{clipValueMin->value.To<T>(), clipValueMax->value.To<T>()};
  });
}
Status aclnn::ClampMin(Call& call, const aclTensor* self, const aclScalar* clipValueMin, aclTensor* out) {
  return TensorScalar<AtLeast>(call, self, clipValueMin, out);
}
Status aclnn::ClampMax(Call& call, const aclTensor* self, const aclScalar* clipValueMax, aclTensor* out) {
  return TensorScalar<AtMost>(call, self, clipValueMax, out);
}
Status aclnn::ClampMinTensor(Call& call, const aclTensor* self, const aclTensor* clipValueMin,
                             aclTensor* out) {
  return Tensors<Larger>(call, self, clipValueMin, out);
}
Status aclnn::ClampMaxTensor(Call& call, const aclTensor* self, const aclTensor* max, aclTensor* out) {
  return Tensors<Smaller>(call, self, max, out);
}
Status aclnn::ClampTensor(Call& call, const aclTensor* self, const aclTensor* clipValueMin,
                          const aclTensor* clipValueMax, aclTensor* out) {
  if (clipValueMax == nullptr && clipValueMin == nullptr)
    return call.Error(kParamNullptr,
                      "clipValueMin and clipValueMax are both null, expected at least one bound");
  if (clipValueMax == nullptr) return Tensors<Larger>(call, self, clipValueMin, out);
  if (clipValueMin == nullptr) return Tensors<Smaller>(call, self, clipValueMax, out);
  const DType compute =
      Promote(Promote(self->view.dtype, clipValueMin->view.dtype), clipValueMax->view.dtype);
  return MapTernary<kOrdered>(call, self, clipValueMin, clipValueMax, out, compute,
                              [](auto tag) { return Clamped<typename decltype(tag)::type>{}; });
}

}  // namespace anycann
