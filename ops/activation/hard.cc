// Piecewise linear activations: hardsigmoid, hardswish, hardshrink, softshrink.
#include "aclnn_ops.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
T Clamp06(T x) {
  const T y = x < 0 ? T(0) : x;
  return y > 6 ? T(6) : y;
}

template <class T>
struct HardsigmoidOf {
  T operator()(T x) const { return Clamp06(x + 3) / 6; }
};
template <class T>
struct HardsigmoidGrad {
  T operator()(T g, T x) const { return x > -3 && x < 3 ? g / 6 : T(0); }
};
template <class T>
struct HardswishOf {
  T operator()(T x) const { return x * Clamp06(x + 3) / 6; }
};
template <class T>
struct HardswishGrad {
  // Exact up to the division where it crosses zero, at -3/2.
  T operator()(T g, T x) const { return x <= -3 ? T(0) : x < 3 ? g * ((2 * x + 3) / 6) : g; }
};
// Both shrinks: towards zero by `shift` beyond the threshold, zero within.
template <class T>
struct ShrinkOf {
  T threshold, shift;
  T operator()(T x) const {
    const T y = x > threshold ? x - shift : x + shift;
    return x >= -threshold && x <= threshold ? T(0) : x == x ? y : x;
  }
};
template <class T>
struct ShrinkGrad {
  T threshold;
  T operator()(T g, T x) const { return x >= -threshold && x <= threshold ? T(0) : g; }
};

template <template <class> class F>
Status Forward(Call& call, const aclTensor* self, const aclTensor* out) {
  return MapUnary<kFloatTypes>(call, self, out, self->view.dtype,
                               [](auto tag) { return F<typename decltype(tag)::type>{}; });
}
template <template <class> class F>
Status Backward(Call& call, const aclTensor* g, const aclTensor* x, const aclTensor* out) {
  return MapBinary<kFloatTypes>(call, g, x, out, Promote(g->view.dtype, x->view.dtype),
                                [](auto tag) { return F<typename decltype(tag)::type>{}; });
}

Status ShrinkWith(Call& call, const aclTensor* self, const aclScalar* threshold, double shift,
                  const aclTensor* out) {
  return MapUnary<kFloatTypes>(call, self, out, self->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ShrinkOf<T>{threshold->value.To<T>(), T(shift)};
  });
}
Status ShrinkGradWith(Call& call, const aclTensor* g, const aclTensor* x, const aclScalar* threshold,
                      const aclTensor* out) {
  return MapBinary<kFloatTypes>(call, g, x, out, Promote(g->view.dtype, x->view.dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ShrinkGrad<T>{threshold->value.To<T>()};
  });
}

}  // namespace

Status aclnn::Hardsigmoid(Call& call, const aclTensor* self, aclTensor* out) {
  return Forward<HardsigmoidOf>(call, self, out);
}
Status aclnn::HardsigmoidBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                  aclTensor* out) {
  return Backward<HardsigmoidGrad>(call, gradOutput, self, out);
}
Status aclnn::Hardswish(Call& call, const aclTensor* self, const aclTensor* out) {
  return Forward<HardswishOf>(call, self, out);
}
Status aclnn::HardswishBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                aclTensor* out) {
  return Backward<HardswishGrad>(call, gradOutput, self, out);
}
Status aclnn::HardswishBackwardV2(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                  aclTensor* out) {
  return Backward<HardswishGrad>(call, gradOutput, self, out);
}

Status aclnn::Hardshrink(Call& call, const aclTensor* self, const aclScalar* lambd, aclTensor* out) {
  return ShrinkWith(call, self, lambd, 0, out);
}
Status aclnn::HardshrinkBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                 const aclScalar* lambd, aclTensor* gradInput) {
  return ShrinkGradWith(call, gradOutput, self, lambd, gradInput);
}
Status aclnn::Softshrink(Call& call, const aclTensor* self, const aclScalar* lambd, aclTensor* out) {
  const double l = lambd->value.ToDouble();
  if (!(l >= 0)) return call.Invalid("lambd is {}, expected a value that is not negative", l);
  return ShrinkWith(call, self, lambd, l, out);
}
Status aclnn::SoftshrinkBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                 const aclScalar* lambda, aclTensor* gradInput) {
  return ShrinkGradWith(call, gradOutput, self, lambda, gradInput);
}
Status aclnn::Shrink(Call& call, const aclTensor* self, const aclScalar* lambd, const aclScalar* bias,
                     aclTensor* out) {
  return ShrinkWith(call, self, lambd, bias->value.ToDouble(), out);
}

}  // namespace anycann
