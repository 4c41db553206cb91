#include "ops/elementwise/unary.h"

namespace anycann {

Status LaunchUnary(Call& call, FindKernel find, DType compute, const aclTensor* self, const aclTensor* out) {
  ElementwiseKernel kernel;
  if (!find(compute, &kernel)) return Unsupported(call, compute);
  RETURN_IF_ERROR(call.RequireCastable(
      kernel.out_types[0] == kernel.in_types[0] ? compute : kernel.out_types[0], out, "out"));
  const aclTensor* inputs[] = {self};
  const aclTensor* outputs[] = {out};
  return LaunchElementwise(call, inputs, outputs, kernel, ElementwiseParams());
}

}  // namespace anycann
