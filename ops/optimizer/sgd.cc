// Stochastic gradient descent with momentum: one pass over parameter, gradient and momentum.
//
//   g = (maximize ? -grad : grad) + weight_decay * p
//   momentum: buffer = first step ? g : momentum * buffer + (1 - dampening) * g
//             g = nesterov ? g + momentum * buffer : buffer
//   p -= lr * g
#include "aclnn_ops.h"
#include "ops/convert.h"
#include "ops/foreach/foreach.h"
#include "ops/optimizer/unscale.h"

namespace anycann {
namespace {

struct Step {
  float sign, weight_decay, momentum, lr;
  double weight;  // of the gradient in the buffer
  bool nesterov;
};

enum class Momentum { kNone, kFirst, kLater };  // what the buffer holds on the first step doesn't count

// in: p, grad (, buffer); out: p (, buffer).
template <class T, Momentum kind>
void SgdLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  constexpr bool kBuffer = kind != Momentum::kNone;
  const Step& s = *static_cast<const Step*>(params);
  const T sign = s.sign, decay = s.weight_decay, momentum = s.momentum, weight = static_cast<T>(s.weight),
          lr = s.lr;
  const T direct = s.nesterov ? T(1) : T(0), through_buffer = s.nesterov ? momentum : T(1);
  const T *p = static_cast<const T*>(in[0]), *grad = static_cast<const T*>(in[1]),
          *buffer = kBuffer ? static_cast<const T*>(in[2]) : nullptr;
  T *p_out = static_cast<T*>(out[0]), *buffer_out = kBuffer ? static_cast<T*>(out[1]) : nullptr;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    T g = sign * grad[i] + decay * p[i];
    if constexpr (kBuffer) {
      T b = g;
      if constexpr (kind == Momentum::kLater) b = momentum * buffer[i] + weight * g;
      buffer_out[i] = b;
      g = direct * g + through_buffer * b;
    }
    p_out[i] = p[i] - lr * g;
  }
}

template <class T>
ElementwiseKernel KernelFor(Momentum kind) {
  ElementwiseKernel k;
  k.inputs = kind == Momentum::kNone ? 2 : 3;
  k.outputs = k.inputs - 1;
  for (DType& t : k.in_types) t = kDTypeOf<T>;
  for (DType& t : k.out_types) t = kDTypeOf<T>;
  k.loop = kind == Momentum::kNone    ? &SgdLoop<T, Momentum::kNone>
           : kind == Momentum::kFirst ? &SgdLoop<T, Momentum::kFirst>
                                      : &SgdLoop<T, Momentum::kLater>;
  k.cost = 2;
  return k;
}

}  // namespace

Status aclnn::FusedSgd(Call& call, const aclTensorList* paramsRef, const aclTensorList* gradsRef,
                       const aclTensorList* momentumBufferListOptionalRef, const aclTensor* gradScaleOptional,
                       float weightDecay, float momentum, float lr, float dampening, bool nesterov,
                       bool maximize, bool isFirstStep) {
  if (paramsRef->size == 0) return call.Nothing();
  const bool buffers = momentumBufferListOptionalRef != nullptr && momentumBufferListOptionalRef->size > 0;
  const TensorSpan buffer = buffers ? TensorsOf(momentumBufferListOptionalRef) : TensorSpan();
  const NamedTensors in[] = {{"paramsRef", TensorsOf(paramsRef)},
                             {"gradsRef", TensorsOf(gradsRef)},
                             {"momentumBufferListOptionalRef", buffer}};
  const NamedTensors out[] = {in[0], in[2]};
  std::vector<Arg> operands;
  Cost cost;
  RETURN_IF_ERROR(ForeachOperands(call, std::span(in, buffers ? 3 : 2), std::span(out, buffers ? 2 : 1),
                                  &operands, &cost));
  const DType type = paramsRef->values[0]->view.dtype;
  if (!IsFloating(type)) return call.Invalid("paramsRef has type {}, expected a floating type", Name(type));
  int scale = -1;
  if (gradScaleOptional != nullptr) {
    if (gradScaleOptional->view.numel() != 1)
      return call.Invalid("gradScaleOptional has shape {}, expected one element",
                          ShapeString(gradScaleOptional->view));
    scale = static_cast<int>(operands.size());
    operands.push_back(In(gradScaleOptional));
    for (const aclTensor* g : TensorsOf(gradsRef)) operands.push_back(Out(g));
  }
  const Step step{maximize ? -1.0f : 1.0f, weightDecay, momentum, lr, 1.0 - dampening, nesterov};
  const Momentum kind = !buffers ? Momentum::kNone : isFirstStep ? Momentum::kFirst : Momentum::kLater;
  ElementwiseKernel kernel = KernelFor<float>(kind);
#ifndef ANYCANN_FEW_TYPES
  if (type == DType::kDouble) kernel = KernelFor<double>(kind);
#endif
  const int count = static_cast<int>(paramsRef->size);
  return call.Launch(operands, cost, [=](const Run& t) -> Status {
    if (scale >= 0) UnscaleGradients(t, scale + 1, count, ReadDouble(t[scale]));
    RunForeach(kernel, {kernel.inputs, kernel.outputs, count}, t, &step, 0);
    return Status();
  });
}

}  // namespace anycann
