#include "ops/elementwise/map.h"

namespace anycann {

Status BroadcastInputs(Call& call, std::span<const aclTensor* const> inputs, const aclTensor* out,
                       std::span<Arg> args) {
  const TensorView& o = out->view;
  int64_t dims[kMaxRank];
  int rank = 0;
  bool match = true;
  for (const aclTensor* t : inputs) match = match && BroadcastShapes(dims, &rank, t->view.dims, t->view.rank);
  bool same = match && rank == o.rank;
  for (int i = 0; same && i < rank; ++i) same = dims[i] == o.dims[i];
  if (!same) [[unlikely]] {
    std::string shapes;
    for (const aclTensor* t : inputs) shapes += (shapes.empty() ? "" : ", ") + ShapeString(t->view);
    if (!match) return call.Invalid("the inputs' shapes {} can't be broadcast together", shapes);
    return call.Invalid("out has shape {}, expected {} (inputs {})", ShapeString(o), ShapeString(dims, rank),
                        shapes);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    args[i] = In(inputs[i]);
    BroadcastTo(inputs[i]->view, o.dims, o.rank, &args[i].view);
  }
  return Status();
}

Status LaunchElementwise(Call& call, std::span<const Arg> operands, const ElementwiseKernel& kernel,
                         const ElementwiseParams& params) {
  const TensorView& first = operands[0].view;
  if (first.empty()) return call.Nothing();
  const double n = static_cast<double>(first.numel());
  double bytes = 0;
  for (const Arg& a : operands) bytes += n * static_cast<double>(SizeOf(a.view.dtype));
  return call.Launch(operands, Cost{n * kernel.cost, bytes}, [kernel, params](const Run& t) -> Status {
    TensorView out[kMaxElementwiseOutputs], in[kMaxElementwiseInputs];
    for (int i = 0; i < kernel.inputs; ++i) in[i] = t[i];
    for (int i = 0; i < kernel.outputs; ++i) out[i] = t[kernel.inputs + i];
    RunElementwise(kernel, std::span<const TensorView>(out, kernel.outputs),
                   std::span<const TensorView>(in, kernel.inputs), params.bytes);
    return Status();
  });
}

Status LaunchElementwise(Call& call, std::span<const aclTensor* const> inputs,
                         std::span<const aclTensor* const> outputs, const ElementwiseKernel& kernel,
                         const ElementwiseParams& params) {
  Arg args[kMaxElementwiseInputs + kMaxElementwiseOutputs];
  RETURN_IF_ERROR(BroadcastInputs(call, inputs, outputs[0], std::span(args, inputs.size())));
  for (size_t i = 0; i < outputs.size(); ++i) args[inputs.size() + i] = Out(outputs[i]);
  return LaunchElementwise(call, std::span<const Arg>(args, inputs.size() + outputs.size()), kernel, params);
}

}  // namespace anycann
