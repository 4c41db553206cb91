// Rectifiers: relu, leaky relu, threshold, hardtanh, and relu(self + alpha * other).
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct ReluOf {
  T operator()(T x) const { return x < T(0) ? T(0) : x; }  // NaN stays
};
template <class T>
struct LeakyReluOf {
  T slope;
  T operator()(T x) const { return x > 0 ? x : x * slope; }
};
template <class T>
struct LeakyReluGrad {
  T slope;
  T operator()(T g, T x) const { return x > 0 ? g : g * slope; }
};
template <class T>
struct ThresholdOf {
  T threshold, value;
  T operator()(T x) const { return x <= threshold ? value : x; }
};
template <class T>
struct ThresholdGrad {
  T threshold;
  T operator()(T g, T x) const { return x <= threshold ? T(0) : g; }
};
template <class T>
struct HardtanhOf {
  T low, high;
  T operator()(T x) const {
    const T y = x < low ? low : x;
    return y > high ? high : y;
  }
};
template <class T>
struct HardtanhGrad {
  T low, high;
  T operator()(T g, T x) const { return x <= low || x >= high ? T(0) : g; }
};
template <class T>
struct AddReluOf {
  T alpha;
  T operator()(T a, T b) const { return ReluOf<T>{}(arithmetic::Add(a, arithmetic::Mul(alpha, b))); }
};

}  // namespace

Status aclnn::Relu(Call& call, const aclTensor* self, const aclTensor* out) {
  return MapUnary<kRealTypes>(call, self, out, self->view.dtype,
                              [](auto tag) { return ReluOf<typename decltype(tag)::type>{}; });
}

Status aclnn::LeakyRelu(Call& call, const aclTensor* self, const aclScalar* negativeSlope, aclTensor* out) {
  return MapUnary<kFloatTypes>(call, self, out, self->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return LeakyReluOf<T>{negativeSlope->value.To<T>()};
  });
}

// selfIsResult makes no difference: for the slopes that allow it (not negative), result and input have the
// same sign.
Status aclnn::LeakyReluBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                const aclScalar* negativeSlope, bool selfIsResult, aclTensor* out) {
  if (selfIsResult && negativeSlope->value.ToDouble() < 0)
    return call.Invalid("negativeSlope is {} with selfIsResult, expected a value that is not negative",
                        negativeSlope->value.ToDouble());
  return MapBinary<kFloatTypes>(call, gradOutput, self, out,
                                Promote(gradOutput->view.dtype, self->view.dtype), [&](auto tag) {
                                  using T = typename decltype(tag)::type;
                                  return LeakyReluGrad<T>{negativeSlope->value.To<T>()};
                                });
}

Status aclnn::Threshold(Call& call, const aclTensor* self, const aclScalar* threshold, const aclScalar* value,
                        aclTensor* out) {
  return MapUnary<kRealTypes>(call, self, out, self->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ThresholdOf<T>{threshold->value.To<T>(), value->value.To<T>()};
  });
}

Status aclnn::ThresholdBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                const aclScalar* threshold, aclTensor* out) {
  return MapBinary<kRealTypes>(call, gradOutput, self, out, Promote(gradOutput->view.dtype, self->view.dtype),
                               [&](auto tag) {
                                 using T = typename decltype(tag)::type;
                                 return ThresholdGrad<T>{threshold->value.To<T>()};
                               });
}

Status aclnn::Hardtanh(Call& call, const aclTensor* self, const aclScalar* clipValueMin,
                       const aclScalar* clipValueMax, aclTensor* out) {
  return MapUnary<kRealTypes>(call, self, out, self->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return HardtanhOf<T>{clipValueMin->value.To<T>(), clipValueMax->value.To<T>()};
  });
}

Status aclnn::HardtanhBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                               const aclScalar* min, const aclScalar* max, aclTensor* out) {
  return MapBinary<kFloatTypes>(call, gradOutput, self, out,
                                Promote(gradOutput->view.dtype, self->view.dtype), [&](auto tag) {
                                  using T = typename decltype(tag)::type;
                                  return HardtanhGrad<T>{min->value.To<T>(), max->value.To<T>()};
                                });
}

Status aclnn::AddRelu(Call& call, const aclTensor* self, const aclTensor* other, aclScalar* alpha,
                      aclTensor* out) {
  return MapBinary<kRealTypes>(call, self, other, out, Promote(self->view.dtype, other->view.dtype),
                               [&](auto tag) {
                                 using T = typename decltype(tag)::type;
                                 return AddReluOf<T>{alpha->value.To<T>()};
                               });
}

}  // namespace anycann
