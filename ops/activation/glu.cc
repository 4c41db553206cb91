// Gated units: one half of a dimension, activated, times the other half.
#include <string_view>

#include "aclnn_ops.h"
#include "ops/activation/gelu.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

// First and second half of a dimension.
struct Halves {
  TensorView left, right;
};

Status Split(Call& call, const aclTensor* t, const char* name, int64_t dim, Halves* halves) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, t->view.rank, "dim", &d));
  if (t->view.rank == 0) return call.Invalid("{} has no dimensions, expected one to halve", name);
  const int64_t size = t->view.dims[d];
  if (size % 2 != 0)
    return call.Invalid("{} has shape {}, expected an even size of dimension {}", name, ShapeString(t->view),
                        d);
  halves->left = t->view.Narrow(d, 0, size / 2);
  halves->right = t->view.Narrow(d, size / 2, size / 2);
  return Status();
}

Status RequireHalf(Call& call, const aclTensor* t, const char* name, const Halves& halves) {
  return call.RequireShape(t, name, halves.left.dims, halves.left.rank);
}

// act(a) * b, a and b in the order of memory or reversed.
template <class T>
struct SiluTimes {
  T operator()(T a, T b) const { return a * math::Sigmoid(a) * b; }
};
template <class T>
struct SigmoidTimes {
  T operator()(T a, T b) const { return math::Sigmoid(a) * b; }
};
template <class T>
struct GeluExactTimes {
  T operator()(T a, T b) const { return GeluExact<T>{}(a)*b; }
};
template <class T>
struct GeluTanhTimes {
  T operator()(T a, T b) const { return GeluTanh<T>{}(a)*b; }
};
template <template <class> class Gelu, class T>
struct GeluBoth {
  std::array<T, 2> operator()(T a, T b) const {
    const T y = Gelu<T>{}(a);
    return {y * b, y};
  }
};
template <class T>
using GeluExactBoth = GeluBoth<GeluExact, T>;
template <class T>
using GeluTanhBoth = GeluBoth<GeluTanh, T>;
template <class T>
struct FatRelu {
  T operator()(T a, T b, T threshold) const { return (a > threshold ? a : T(0)) * b; }
};

// Gradients of act(a) * b by a and b, from g.
template <class T>
struct SiluTimesGrad {
  std::array<T, 2> operator()(T g, T a, T b) const {
    const T s = math::Sigmoid(a), y = a * s;
    return {g * b * s * (1 + a * (1 - s)), g * y};
  }
};
template <class T>
struct SigmoidTimesGrad {
  std::array<T, 2> operator()(T g, T a, T b) const {
    const T s = math::Sigmoid(a);
    return {g * b * s * (1 - s), g * s};
  }
};
template <template <class> class Gelu, class T>
struct GeluTimesGrad {
  std::array<T, 2> operator()(T g, T a, T b, T y) const { return {g * b * Gelu<T>::Derivative(a), g * y}; }
};
template <class T>
using GeluExactTimesGrad = GeluTimesGrad<GeluExact, T>;
template <class T>
using GeluTanhTimesGrad = GeluTimesGrad<GeluTanh, T>;

// Kernel of a functor over `inputs` operands of one float type.
template <template <class> class F, int inputs>
bool FindGate(DType t, ElementwiseKernel* kernel) {
  return VisitCompute<kFloatTypes>(t, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (inputs == 2)
      *kernel = KernelOf<F<T>, T, T>(4);
    else if constexpr (inputs == 3)
      *kernel = KernelOf<F<T>, T, T, T>(6);
    else
      *kernel = KernelOf<F<T>, T, T, T, T>(6);
  });
}

Status Launch(Call& call, FindKernel find, DType compute, std::initializer_list<Arg> operands) {
  ElementwiseKernel kernel;
  if (!find(compute, &kernel)) return Unsupported(call, compute);
  for (const Arg& a : operands)
    if (a.output) RETURN_IF_ERROR(call.RequireCastable(compute, a.handle, "the output"));
  return LaunchElementwise(call, std::span<const Arg>(operands.begin(), operands.size()), kernel,
                           ElementwiseParams());
}

// out = act(one half of self) * the other
Status Gate(Call& call, FindKernel find, const aclTensor* self, const char* name, int64_t dim,
            bool activate_left, const aclTensor* out) {
  Halves x;
  RETURN_IF_ERROR(Split(call, self, name, dim, &x));
  RETURN_IF_ERROR(RequireHalf(call, out, "out", x));
  return Launch(
      call, find, self->view.dtype,
      {In(self, activate_left ? x.left : x.right), In(self, activate_left ? x.right : x.left), Out(out)});
}

Status GateGrad(Call& call, FindKernel find, const aclTensor* g, const char* g_name, const aclTensor* self,
                const char* name, int64_t dim, bool activate_left, const aclTensor* out) {
  Halves x, r;
  RETURN_IF_ERROR(call.RequireSameShape(out, "the gradient", self, name));
  RETURN_IF_ERROR(Split(call, self, name, dim, &x));
  RETURN_IF_ERROR(Split(call, out, "the gradient", dim, &r));
  RETURN_IF_ERROR(RequireHalf(call, g, g_name, x));
  return Launch(
      call, find, Promote(g->view.dtype, self->view.dtype),
      {In(g), In(self, activate_left ? x.left : x.right), In(self, activate_left ? x.right : x.left),
       Out(out, activate_left ? r.left : r.right), Out(out, activate_left ? r.right : r.left)});
}

Status RequireForm(Call& call, int64_t approximate) {
  if (approximate == 0 || approximate == 1) return Status();
  return call.Invalid("approximate is {}, expected 0 (none) or 1 (tanh)", approximate);
}

}  // namespace

Status aclnn::Glu(Call& call, const aclTensor* self, int64_t dim, const aclTensor* out) {
  return Gate(call, FindGate<SigmoidTimes, 2>, self, "self", dim, false, out);
}
Status aclnn::GluBackward(Call& call, const aclTensor* gradOut, const aclTensor* self, int64_t dim,
                          const aclTensor* out) {
  return GateGrad(call, FindGate<SigmoidTimesGrad, 3>, gradOut, "gradOut", self, "self", dim, false, out);
}
Status aclnn::SwiGlu(Call& call, const aclTensor* x, int64_t dim, const aclTensor* out) {
  return Gate(call, FindGate<SiluTimes, 2>, x, "x", dim, true, out);
}
Status aclnn::SwiGluGrad(Call& call, const aclTensor* yGrad, const aclTensor* x, int64_t dim,
                         const aclTensor* out) {
  return GateGrad(call, FindGate<SiluTimesGrad, 3>, yGrad, "yGrad", x, "x", dim, true, out);
}

Status aclnn::GeGluV3(Call& call, const aclTensor* self, int64_t dim, int64_t approximate, bool activateLeft,
                      aclTensor* out, aclTensor* outGelu) {
  Halves x;
  RETURN_IF_ERROR(RequireForm(call, approximate));
  RETURN_IF_ERROR(Split(call, self, "self", dim, &x));
  RETURN_IF_ERROR(RequireHalf(call, out, "out", x));
  RETURN_IF_ERROR(RequireHalf(call, outGelu, "outGelu", x));
  return Launch(call, approximate ? FindGate<GeluTanhBoth, 2> : FindGate<GeluExactBoth, 2>, self->view.dtype,
                {In(self, activateLeft ? x.left : x.right), In(self, activateLeft ? x.right : x.left),
                 Out(out), Out(outGelu)});
}
Status aclnn::GeGlu(Call& call, const aclTensor* self, int64_t dim, int64_t approximate, aclTensor* out,
                    aclTensor* outGelu) {
  return GeGluV3(call, self, dim, approximate, false, out, outGelu);
}
Status aclnn::GeGluV3Backward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                              const aclTensor* gelu, int64_t dim, int64_t approximate, bool activateLeft,
                              aclTensor* gradInput) {
  Halves x, r;
  RETURN_IF_ERROR(RequireForm(call, approximate));
  RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", self, "self"));
  RETURN_IF_ERROR(Split(call, self, "self", dim, &x));
  RETURN_IF_ERROR(Split(call, gradInput, "gradInput", dim, &r));
  RETURN_IF_ERROR(RequireHalf(call, gradOutput, "gradOutput", x));
  RETURN_IF_ERROR(RequireHalf(call, gelu, "gelu", x));
  return Launch(
      call, approximate ? FindGate<GeluTanhTimesGrad, 4> : FindGate<GeluExactTimesGrad, 4>,
      Promote(gradOutput->view.dtype, self->view.dtype),
      {In(gradOutput), In(self, activateLeft ? x.left : x.right), In(self, activateLeft ? x.right : x.left),
       In(gelu), Out(gradInput, activateLeft ? r.left : r.right),
       Out(gradInput, activateLeft ? r.right : r.left)});
}
Status aclnn::GeGluBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                            const aclTensor* gelu, int64_t dim, int64_t approximate, aclTensor* gradInput) {
  return GeGluV3Backward(call, gradOutput, self, gelu, dim, approximate, false, gradInput);
}

Status aclnn::GeluMul(Call& call, const aclTensor* input, char* approximateOptional, const aclTensor* out) {
  const std::string_view form = approximateOptional ? approximateOptional : "none";
  if (form != "none" && form != "tanh")
    return call.Invalid("approximateOptional is \"{}\", expected \"none\" or \"tanh\"", form);
  return Gate(call, form == "tanh" ? FindGate<GeluTanhTimes, 2> : FindGate<GeluExactTimes, 2>, input, "input",
              -1, true, out);
}
Status aclnn::FatreluMul(Call& call, const aclTensor* input, const aclTensor* threshold,
                         const aclTensor* out) {
  Halves x;
  RETURN_IF_ERROR(Split(call, input, "input", -1, &x));
  RETURN_IF_ERROR(RequireHalf(call, out, "out", x));
  if (threshold->view.numel() != 1)
    return call.Invalid("threshold has shape {}, expected one element", ShapeString(threshold->view));
  TensorView scalar = threshold->view, one;
  scalar.rank = 0;
  BroadcastTo(scalar, x.left.dims, x.left.rank, &one);
  return Launch(call, FindGate<FatRelu, 3>, input->view.dtype,
                {In(input, x.left), In(input, x.right), In(threshold, one), Out(out)});
}

}  // namespace anycann
