// Exponential linear units: elu, celu, selu.
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

constexpr double kSeluAlpha = 1.6732632423543772848170429916717,
                 kSeluScale = 1.0507009873554804934193349852946;

template <class T>
struct EluOf {
  T negative, positive, inner;  // negative * (e^(inner x) - 1) below 0, positive * x above
  T operator()(T x) const { return x < 0 ? math::Expm1(x * inner) * negative : x * positive; }
};
template <class T>
struct EluGrad {
  T negative, positive, inner;
  T operator()(T g, T x) const { return x <= 0 ? g * inner * negative * math::Exp(x * inner) : g * positive; }
};
template <class T>
struct EluGradOfResult {
  T negative, positive, inner;
  T operator()(T g, T y) const { return y <= 0 ? g * inner * (y + negative) : g * positive; }
};

Status EluWith(Call& call, const aclTensor* self, double alpha, double scale, double inner,
               const aclTensor* out) {
  return MapUnary<kFloatTypes>(
      call, self, out, self->view.dtype,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return EluOf<T>{T(alpha * scale), T(scale), T(inner)};
      },
      4);
}

Status EluGradWith(Call& call, const aclTensor* grad, double alpha, double scale, double inner,
                   bool is_result, const aclTensor* x, const aclTensor* out) {
  const DType compute = Promote(grad->view.dtype, x->view.dtype);
  if (is_result)
    return MapBinary<kFloatTypes>(call, grad, x, out, compute, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return EluGradOfResult<T>{T(alpha * scale), T(scale), T(inner)};
    });
  return MapBinary<kFloatTypes>(
      call, grad, x, out, compute,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return EluGrad<T>{T(alpha * scale), T(scale), T(inner)};
      },
      4);
}

}  // namespace

Status aclnn::Elu(Call& call, const aclTensor* self, const aclScalar* alpha, const aclScalar* scale,
                  const aclScalar* inputScale, aclTensor* out) {
  return EluWith(call, self, alpha->value.ToDouble(), scale->value.ToDouble(), inputScale->value.ToDouble(),
                 out);
}
Status aclnn::EluBackward(Call& call, const aclTensor* gradOutput, const aclScalar* alpha,
                          const aclScalar* scale, const aclScalar* inputScale, bool isResult,
                          const aclTensor* selfOrResult, aclTensor* gradInput) {
  const double a = alpha->value.ToDouble();
  if (isResult && a < 0)
    return call.Invalid("alpha is {} with isResult, expected a value that is not negative", a);
  return EluGradWith(call, gradOutput, a, scale->value.ToDouble(), inputScale->value.ToDouble(), isResult,
                     selfOrResult, gradInput);
}
Status aclnn::Celu(Call& call, const aclTensor* self, const aclScalar* alpha, aclTensor* out) {
  const double a = alpha->value.ToDouble();
  if (a == 0) return call.Invalid("alpha is 0, expected another value");
  return EluWith(call, self, a, 1, 1 / a, out);
}
Status aclnn::Selu(Call& call, const aclTensor* self, aclTensor* out) {
  return EluWith(call, self, kSeluAlpha, kSeluScale, 1, out);
}
Status aclnn::SeluBackward(Call& call, const aclTensor* gradOutput, const aclTensor* result,
                           aclTensor* gradInput) {
  return EluGradWith(call, gradOutput, kSeluAlpha, kSeluScale, 1, true, result, gradInput);
}

}  // namespace anycann
