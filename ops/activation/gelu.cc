// Gelu and its gradients.
#include "ops/activation/gelu.h"

#include <string_view>

#include "aclnn_ops.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
struct GeluExactGrad {
  T operator()(T g, T x) const { return g * GeluExact<T>::Derivative(x); }
};
template <class T>
struct GeluTanhGrad {
  T operator()(T g, T x) const { return g * GeluTanh<T>::Derivative(x); }
};
// x sigmoid(1.702 x)
template <class T>
struct FastGeluOf {
  T operator()(T x) const { return x * math::Sigmoid(T(1.702) * x); }
};
template <class T>
struct FastGeluGrad {
  T operator()(T g, T x) const {
    const T s = math::Sigmoid(T(1.702) * x);
    return g * s * (1 + T(1.702) * x * (1 - s));
  }
};

bool FindExact(DType t, ElementwiseKernel* k) { return FindUnary<GeluExact, kFloatTypes>(t, k, 3); }
bool FindTanhForm(DType t, ElementwiseKernel* k) { return FindUnary<GeluTanh, kFloatTypes>(t, k, 4); }
bool FindFast(DType t, ElementwiseKernel* k) { return FindUnary<FastGeluOf, kFloatTypes>(t, k, 3); }

template <template <class> class F>
Status Gradient(Call& call, const aclTensor* g, const aclTensor* x, const aclTensor* out) {
  return MapBinary<kFloatTypes>(
      call, g, x, out, Promote(g->view.dtype, x->view.dtype),
      [](auto tag) { return F<typename decltype(tag)::type>{}; }, 5);
}

}  // namespace

Status aclnn::Gelu(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindExact, self, out);
}
Status aclnn::GeluV2(Call& call, const aclTensor* x, int64_t approximate, aclTensor* y) {
  if (approximate != 0 && approximate != 1)
    return call.Invalid("approximate is {}, expected 0 (none) or 1 (tanh)", approximate);
  return UnaryExact(call, approximate == 1 ? FindTanhForm : FindExact, x, y);
}
Status aclnn::GeluBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                           const aclTensor* gradInput) {
  return Gradient<GeluExactGrad>(call, gradOutput, self, gradInput);
}
Status aclnn::GeluBackwardV2(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                             char* approximate, aclTensor* gradInput) {
  const std::string_view form = approximate;
  if (form == "none") return Gradient<GeluExactGrad>(call, gradOutput, self, gradInput);
  if (form == "tanh") return Gradient<GeluTanhGrad>(call, gradOutput, self, gradInput);
  return call.Invalid("approximate is \"{}\", expected \"none\" or \"tanh\"", form);
}
Status aclnn::FastGelu(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindFast, self, out);
}
Status aclnn::FastGeluBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                               aclTensor* gradInput) {
  return Gradient<FastGeluGrad>(call, gradOutput, self, gradInput);
}

}  // namespace anycann
