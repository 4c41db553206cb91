// Binary cross entropy of logits, with weights of elements and of the positive class; its gradients.
#include <cmath>

#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/loss/mapped_sum.h"

namespace anycann {
namespace {

template <class T>
T SoftPlus(T x) {  // log(1 + e^x) without overflow
  return std::max(x, T(0)) + math::Log1p(math::Exp(-std::abs(x)));
}
template <class T>
T Logistic(T x) {
  const T e = math::Exp(-std::abs(x));
  return (x >= 0 ? T(1) : e) / (1 + e);
}

// w: weight of the element, p: of the positive class.
template <class T>
struct LogitsLoss {
  T operator()(T x, T t, T w, T p) const { return ((1 - t) * x + ((p - 1) * t + 1) * SoftPlus(-x)) * w; }
};
template <class T>
struct LogitsGradient {
  T scale;
  T operator()(T g, T x, T t, T w, T p) const {
    const T positive = p * t;
    return ((positive + 1 - t) * Logistic(x) - positive) * w * (g * scale);
  }
};
template <class T>
struct LogitsTargetGradient {
  T scale;
  T operator()(T g, T x, T, T w, T p) const { return (SoftPlus(-x) * (p - 1) - x) * w * (g * scale); }
};

// An absent weight is a constant 1 of stride 0, which costs no memory traffic. The kernel's operands must be
// tensors of the client, so `stand_in` takes its place and the kernel replaces it.
struct Weights {
  const aclTensor *weight, *positive;
};

template <class F, class T, int leading>
Status Launch(Call& call, std::initializer_list<const aclTensor*> tensors, Weights weights,
              const aclTensor* out, Reduction reduction, const F& f) {
  constexpr int kInputs = leading + 2;
  const aclTensor* inputs[kInputs];
  std::copy(tensors.begin(), tensors.end(), inputs);
  const aclTensor* self = inputs[leading - 2];
  inputs[leading] = weights.weight ? weights.weight : self;
  inputs[leading + 1] = weights.positive ? weights.positive : self;
  Arg args[kInputs + 1];
  if (reduction == Reduction::kNone)
    RETURN_IF_ERROR(BroadcastInputs(call, inputs, out, std::span(args, kInputs)));
  else
    RETURN_IF_ERROR(CheckMappedSum(call, inputs, out, std::span(args, kInputs)));
  const double n = static_cast<double>(args[0].view.numel());
  if (n == 0 && reduction == Reduction::kNone) return call.Nothing();
  args[kInputs] = Out(out);
  ElementwiseKernel kernel;
  if constexpr (leading == 2)
    kernel = KernelOf<F, T, T, T, T>(20);
  else
    kernel = KernelOf<F, T, T, T, T, T>(20);
  const bool no_weight = !weights.weight, no_positive = !weights.positive;
  return call.Launch(
      std::span<const Arg>(args), Cost{20 * n, 4 * n * sizeof(T)}, [=](const Run& t) -> Status {
        static constexpr T kOne = 1;
        TensorView in[kInputs];
        for (int i = 0; i < kInputs; ++i) in[i] = t[i];
        for (int i = leading; i < kInputs; ++i) {
          if (i == leading ? !no_weight : !no_positive) continue;
          in[i].data = const_cast<T*>(&kOne);
          in[i].dtype = kDTypeOf<T>;
          for (int k = 0; k < in[i].rank; ++k) in[i].strides[k] = 0;
        }
        if (reduction != Reduction::kNone)
          return RunMappedSum(kernel, in, t[kInputs], reduction == Reduction::kMean ? n : 1, &f);
        RunElementwise(kernel, std::span(&t[kInputs], 1), in, &f);
        return Status();
      });
}

template <template <class> class F>
Status Backward(Call& call, const aclTensor* grad, const aclTensor* self, const aclTensor* target,
                Weights weights, int64_t reduction, aclTensor* out) {
  Reduction r;
  RETURN_IF_ERROR(ToReduction(call, reduction, &r));
  const double scale = r == Reduction::kMean ? 1.0 / static_cast<double>(out->view.numel()) : 1;
  const DType compute = Promote(self->view.dtype, target->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(compute, out, "out"));
  Status status;
  if (!VisitCompute<kFloatTypes>(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = Launch<F<T>, T, 3>(call, {grad, self, target}, weights, out, Reduction::kNone,
                                    F<T>{static_cast<T>(scale)});
      }))
    return Unsupported(call, compute);
  return status;
}

}  // namespace

Status aclnn::BinaryCrossEntropyWithLogits(Call& call, const aclTensor* self, const aclTensor* target,
                                           const aclTensor* weightOptional,
                                           const aclTensor* posWeightOptional, int64_t reduction,
                                           aclTensor* out) {
  Reduction r;
  RETURN_IF_ERROR(ToReduction(call, reduction, &r));
  const DType compute = Promote(self->view.dtype, target->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(compute, out, "out"));
  Status status;
  if (!VisitCompute<kFloatTypes>(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = Launch<LogitsLoss<T>, T, 2>(call, {self, target}, {weightOptional, posWeightOptional}, out,
                                             r, LogitsLoss<T>{});
      }))
    return Unsupported(call, compute);
  return status;
}
Status aclnn::BinaryCrossEntropyWithLogitsBackward(Call& call, const aclTensor* gradOutput,
                                                   const aclTensor* self, const aclTensor* target,
                                                   const aclTensor* weightOptional,
                                                   const aclTensor* posWeightOptional, int64_t reduction,
                                                   aclTensor* out) {
  return Backward<LogitsGradient>(call, gradOutput, self, target, {weightOptional, posWeightOptional},
                                  reduction, out);
}
Status aclnn::BinaryCrossEntropyWithLogitsTargetBackward(Call& call, const aclTensor* gradOutput,
                                                         const aclTensor* self, const aclTensor* target,
                                                         const aclTensor* weightOptional,
                                                         const aclTensor* posWeightOptional,
                                                         int64_t reduction, aclTensor* gradTarget) {
  return Backward<LogitsTargetGradient>(call, gradOutput, self, target, {weightOptional, posWeightOptional},
                                        reduction, gradTarget);
}

}  // namespace anycann
