// Adam and AdamW: one pass over parameter, gradient and moments.
//
//   g = maximize ? -grad : grad;  Adam: g += weight_decay * p;  AdamW: p *= 1 - lr * weight_decay
//   m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g^2;  amsgrad: vmax = max(vmax, v), used for v
//   below p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
#include <cmath>

#include "aclnn_ops.h"
#include "ops/convert.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/foreach/foreach.h"
#include "ops/optimizer/unscale.h"

namespace anycann {
namespace {

// What stays the same over the elements of one tensor.
template <class T>
struct Step {
  T sign, weight1, beta2, weight2, decay, l2, step_size, scale, eps;  // scale: 1 / sqrt(1 - beta2^t)
};

struct Settings {
  double lr, beta1, beta2, weight_decay, eps;
  bool decoupled;  // AdamW
  bool amsgrad, maximize;
};

template <class T>
Step<T> StepOf(const Settings& s, double correction1, double correction2) {
  Step<T> r;
  r.sign = T(s.maximize ? -1 : 1);
  r.weight1 = T(1 - s.beta1);
  r.beta2 = T(s.beta2);
  r.weight2 = T(1 - s.beta2);
  r.decay = T(s.decoupled ? 1 - s.lr * s.weight_decay : 1);
  r.l2 = T(s.decoupled ? 0 : s.weight_decay);
  r.step_size = T(s.lr / correction1);
  r.scale = T(1 / std::sqrt(correction2));
  r.eps = T(s.eps);
  return r;
}

// in: p, grad, m, v (, vmax); out: p, m, v (, vmax).
template <class T, bool decoupled, bool amsgrad>
void AdamLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  const Step<T> s = *static_cast<const Step<T>*>(params);
  const T *p = static_cast<const T*>(in[0]), *grad = static_cast<const T*>(in[1]),
          *m = static_cast<const T*>(in[2]), *v = static_cast<const T*>(in[3]),
          *vmax = amsgrad ? static_cast<const T*>(in[4]) : nullptr;
  T *p_out = static_cast<T*>(out[0]), *m_out = static_cast<T*>(out[1]), *v_out = static_cast<T*>(out[2]),
    *vmax_out = amsgrad ? static_cast<T*>(out[3]) : nullptr;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    T x = p[i], g = s.sign * grad[i];
    if constexpr (decoupled)
      x *= s.decay;
    else
      g += s.l2 * x;
    const T first = m[i] + s.weight1 * (g - m[i]);
    const T second = s.beta2 * v[i] + s.weight2 * g * g;
    m_out[i] = first;
    v_out[i] = second;
    T largest = second;
    if constexpr (amsgrad) {
      largest = arithmetic::Max(vmax[i], second);
      vmax_out[i] = largest;
    }
    p_out[i] = x - s.step_size * first / (std::sqrt(largest) * s.scale + s.eps);
  }
}

template <class T>
InnerLoop LoopOf(bool decoupled, bool amsgrad) {
  if (decoupled) return amsgrad ? &AdamLoop<T, true, true> : &AdamLoop<T, true, false>;
  return amsgrad ? &AdamLoop<T, false, true> : &AdamLoop<T, false, false>;
}

template <class T>
ElementwiseKernel KernelFor(const Settings& s) {
  ElementwiseKernel k;
  k.inputs = s.amsgrad ? 5 : 4;
  k.outputs = s.amsgrad ? 4 : 3;
  for (DType& t : k.in_types) t = kDTypeOf<T>;
  for (DType& t : k.out_types) t = kDTypeOf<T>;
  k.loop = LoopOf<T>(s.decoupled, s.amsgrad);
  k.cost = 4;
  return k;
}

struct State {
  TensorSpan p, grad, m, v, vmax;
};
struct StateNames {
  const char *p, *grad, *m, *v, *vmax;
};

// `extra`: operands of one element that are read when the Plan runs; they follow the state's. `with_scale`:
// the last of them is the loss scale, and the gradients are divided by it first. corrections(t, first_extra,
// i, settings) gives the two bias corrections of tensor i and may change the settings; when it is false
// nothing happens.
template <class Corrections>
Status LaunchAdam(Call& call, const State& state, const StateNames& names, const Settings& s,
                  TensorSpan extra, bool with_scale, Corrections corrections) {
  const NamedTensors in[] = {{names.p, state.p},
                             {names.grad, state.grad},
                             {names.m, state.m},
                             {names.v, state.v},
                             {names.vmax, state.vmax}};
  const NamedTensors out[] = {
      {names.p, state.p}, {names.m, state.m}, {names.v, state.v}, {names.vmax, state.vmax}};
  const size_t rest = s.amsgrad ? 0 : 1;
  std::vector<Arg> operands;
  Cost cost;
  RETURN_IF_ERROR(ForeachOperands(call, std::span(in, 5 - rest), std::span(out, 4 - rest), &operands, &cost));
  for (const NamedTensors& list : in)
    if (!list.tensors.empty() && !IsFloating(list.tensors[0]->view.dtype))
      return call.Invalid("{} has type {}, expected a floating type", list.name,
                          Name(list.tensors[0]->view.dtype));
  const int count = static_cast<int>(state.p.size()), first_extra = static_cast<int>(operands.size());
  for (const aclTensor* t : extra) {
    if (t == nullptr || t->view.numel() != 1)
      return call.Invalid("a step, flag or setting has shape {}, expected one element",
                          t == nullptr ? "null" : ShapeString(t->view));
    operands.push_back(In(t));
  }
  const int scale = with_scale ? static_cast<int>(operands.size()) - 1 : -1;
  if (with_scale)
    for (const aclTensor* t : state.grad) operands.push_back(Out(t));
  cost.flops *= 5;
  const auto launch = [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ElementwiseKernel kernel = KernelFor<T>(s);
    return call.Launch(operands, cost, [=](const Run& t) -> Status {
      std::vector<Step<T>> steps(static_cast<size_t>(count));
      for (int i = 0; i < count; ++i) {
        Settings now = s;
        double c1, c2;
        if (!corrections(t, first_extra, i, &now, &c1, &c2)) return Status();
        steps[static_cast<size_t>(i)] = StepOf<T>(now, c1, c2);
      }
      if (scale >= 0) UnscaleGradients(t, scale + 1, count, ReadDouble(t[scale]));
      RunForeach(kernel, {kernel.inputs, kernel.outputs, count}, t, steps.data(), sizeof(Step<T>));
      return Status();
    });
  };
#ifndef ANYCANN_FEW_TYPES
  if (state.p[0]->view.dtype == DType::kDouble) return launch(TypeTag<double>{});
#endif
  return launch(TypeTag<float>{});
}

void BiasCorrections(const Settings& s, double t, double* c1, double* c2) {
  *c1 = 1 - std::pow(s.beta1, t);
  *c2 = 1 - std::pow(s.beta2, t);
}

TensorSpan One(const aclTensor* const& t) { return {&t, 1}; }

}  // namespace

// `step` counts from 0: the steps that were made before.
Status aclnn::ApplyAdamWV2(Call& call, aclTensor* varRef, aclTensor* mRef, aclTensor* vRef,
                           aclTensor* maxGradNormOptionalRef, const aclTensor* grad, const aclTensor* step,
                           float lr, float beta1, float beta2, float weightDecay, float eps, bool amsgrad,
                           bool maximize) {
  if (amsgrad && maxGradNormOptionalRef == nullptr)
    return call.Error(kParamNullptr,
                      "maxGradNormOptionalRef is null, expected the largest second moments (amsgrad)");
  const Settings s{lr, beta1, beta2, weightDecay, eps, true, amsgrad, maximize};
  const aclTensor *p = varRef, *m = mRef, *v = vRef, *vmax = maxGradNormOptionalRef;
  return LaunchAdam(call, {One(p), One(grad), One(m), One(v), amsgrad ? One(vmax) : TensorSpan()},
                    {"varRef", "grad", "mRef", "vRef", "maxGradNormOptionalRef"}, s, One(step), false,
                    [](const Run& t, int extra, int, Settings* now, double* c1, double* c2) {
                      BiasCorrections(*now, ReadDouble(t[extra]) + 1, c1, c2);
                      return true;
                    });
}

Status aclnn::ApplyAdamW(Call& call, aclTensor* varRef, aclTensor* mRef, aclTensor* vRef,
                         const aclTensor* beta1Power, const aclTensor* beta2Power, const aclTensor* lr,
                         const aclTensor* weightDecay, const aclTensor* beta1, const aclTensor* beta2,
                         const aclTensor* eps, const aclTensor* grad, const aclTensor* maxGradNormOptional,
                         bool amsgrad, bool maximize) {
  if (amsgrad && maxGradNormOptional == nullptr)
    return call.Error(kParamNullptr,
                      "maxGradNormOptional is null, expected the largest second moments (amsgrad)");
  const Settings s{0, 0, 0, 0, 0, true, amsgrad, maximize};
  const aclTensor *p = varRef, *m = mRef, *v = vRef;
  const aclTensor* settings[] = {beta1Power, beta2Power, lr, weightDecay, beta1, beta2, eps};
  return LaunchAdam(call,
                    {One(p), One(grad), One(m), One(v), amsgrad ? One(maxGradNormOptional) : TensorSpan()},
                    {"varRef", "grad", "mRef", "vRef", "maxGradNormOptional"}, s, settings, false,
                    [](const Run& t, int extra, int, Settings* now, double* c1, double* c2) {
                      now->lr = ReadDouble(t[extra + 2]);
                      now->weight_decay = ReadDouble(t[extra + 3]);
                      now->beta1 = ReadDouble(t[extra + 4]);
                      now->beta2 = ReadDouble(t[extra + 5]);
                      now->eps = ReadDouble(t[extra + 6]);
                      *c1 = 1 - ReadDouble(t[extra]);
                      *c2 = 1 - ReadDouble(t[extra + 1]);
                      return true;
                    });
}

// Steps count from 0, as in ApplyAdamWV2. Nothing changes when foundInf is set.
Status aclnn::FusedAdam(Call& call, const aclTensorList* paramsRef, const aclTensorList* gradsRef,
                        const aclTensorList* expAvgsRef, const aclTensorList* expAvgSqsRef,
                        const aclTensorList* maxExpAvgSqsRef, const aclTensorList* stateSteps,
                        const aclTensor* gradScaleOptional, const aclTensor* foundInfOptional, double lr,
                        double beta1, double beta2, double weightDecay, double eps, bool amsgrad,
                        bool maximize) {
  if (paramsRef->size == 0) return call.Nothing();
  if (stateSteps->size != paramsRef->size)
    return call.Invalid("stateSteps has {} tensors, expected {}", stateSteps->size, paramsRef->size);
  if (amsgrad && maxExpAvgSqsRef == nullptr)
    return call.Error(kParamNullptr,
                      "maxExpAvgSqsRef is null, expected the largest second moments (amsgrad)");
  const Settings s{lr, beta1, beta2, weightDecay, eps, false, amsgrad, maximize};
  const bool check = foundInfOptional != nullptr;
  std::vector<const aclTensor*> extra(stateSteps->begin(), stateSteps->end());
  if (check) extra.push_back(foundInfOptional);
  if (gradScaleOptional != nullptr) extra.push_back(gradScaleOptional);
  const int count = static_cast<int>(paramsRef->size);
  return LaunchAdam(call,
                    {TensorsOf(paramsRef), TensorsOf(gradsRef), TensorsOf(expAvgsRef),
                     TensorsOf(expAvgSqsRef), amsgrad ? TensorsOf(maxExpAvgSqsRef) : TensorSpan()},
                    {"paramsRef", "gradsRef", "expAvgsRef", "expAvgSqsRef", "maxExpAvgSqsRef"}, s, extra,
                    gradScaleOptional != nullptr,
                    [check, count](const Run& t, int first, int i, Settings* now, double* c1, double* c2) {
                      if (check && ReadDouble(t[first + count]) != 0) return false;
                      BiasCorrections(*now, ReadDouble(t[first + i]) + 1, c1, c2);
                      return true;
                    });
}

}  // namespace anycann
