// From a line kernel (lines.h) to an operator.
#pragma once

#include <algorithm>

#include "ops/call.h"
#include "ops/reduce/lines.h"

namespace anycann {

// Launches `kernel`; operands are given outputs first. Shapes are already checked. `params` is passed to the
// kernel.
template <class P>
Status LaunchLines(Call& call, std::initializer_list<Arg> operands, int dim, const LineKernel& kernel,
                   const P& params, double flops_per_element) {
  double bytes = 0;
  for (const Arg& a : operands) bytes += static_cast<double>(a.view.nbytes());
  const Cost cost{flops_per_element * static_cast<double>(operands.begin()[kernel.outputs].view.numel()),
                  bytes};
  return call.Launch(operands, cost, [kernel, params, dim](const Run& t) -> Status {
    TensorView views[kMaxLineInputs + kMaxLineOutputs];
    for (int i = 0; i < t.size(); ++i) views[i] = t[i];
    const std::span<const TensorView> all(views, t.size());
    return RunLines(kernel, all.first(kernel.outputs), all.subspan(kernel.outputs), dim, &params);
  });
}

}  // namespace anycann
