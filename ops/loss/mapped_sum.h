// The loss engine: an elementwise function of several tensors, as it is, summed up or averaged over all
// elements. The sum never writes the single values to memory.
#pragma once

#include <algorithm>

#include "ops/elementwise/map.h"

namespace anycann {

enum class Reduction : int64_t { kNone = 0, kMean = 1, kSum = 2 };
Status ToReduction(const Call& call, int64_t value, Reduction* reduction);
Status ToReduction(const Call& call, const char* name,
                   Reduction* reduction);  // "none", "mean", "sum"; null is mean

// *out = sum of kernel(inputs...) / divisor. kernel writes one float or double; the inputs have one shape,
// any layout. Cut into pieces of fixed size: the result doesn't depend on the number of threads.
Status RunMappedSum(const ElementwiseKernel& kernel, std::span<const TensorView> inputs,
                    const TensorView& out, double divisor, const void* params);

// Checks that `out` is one element, and gives the inputs' common shape.
Status CheckMappedSum(Call& call, std::span<const aclTensor* const> inputs, const aclTensor* out,
                      std::span<Arg> args);

// Launches functor f over inputs, each read as type In.
template <class F, class... In>
Status LaunchLoss(Call& call, std::initializer_list<const aclTensor*> inputs, const aclTensor* out,
                  Reduction reduction, const F& f, double cost) {
  if (reduction == Reduction::kNone) return LaunchMap<F, In...>(call, inputs, out, f, cost);
  constexpr size_t kInputs = sizeof...(In);
  Arg args[kInputs + 1];
  RETURN_IF_ERROR(
      CheckMappedSum(call, std::span(inputs.begin(), inputs.size()), out, std::span(args, kInputs)));
  args[kInputs] = Out(out);
  const double n = static_cast<double>(args[0].view.numel());
  double bytes = 0;
  for (size_t i = 0; i < kInputs; ++i) bytes += static_cast<double>(args[i].view.nbytes());
  const ElementwiseKernel kernel = KernelOf<F, In...>(cost);
  const double divisor = reduction == Reduction::kMean ? n : 1;
  return call.Launch(
      std::span<const Arg>(args), Cost{n * cost, bytes}, [f, kernel, divisor](const Run& t) -> Status {
        TensorView in[kInputs];
        for (size_t i = 0; i < kInputs; ++i) in[i] = t[static_cast<int>(i)];
        return RunMappedSum(kernel, std::span<const TensorView>(in, kInputs), t[kInputs], divisor, &f);
      });
}

}  // namespace anycann
