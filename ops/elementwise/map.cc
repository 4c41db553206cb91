#include "ops/elementwise/map.h"

namespace anycann {

Status BroadcastInputs(Call& call, std::span<const aclTensor* const> inputs, const aclTensor* out, std::span<Arg> args) {
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
    return call.Invalid("out has shape {}, expected {} (inputs {})", ShapeString(o), ShapeString(dims, rank), shapes);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    args[i] = In(inputs[i]);
    BroadcastTo(inputs[i]->view, o.dims, o.rank, &args[i].view);
  }
  return Status();
}

}  // namespace anycann
