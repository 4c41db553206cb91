#include "ops/foreach/foreach.h"

#include <algorithm>

#include "base/parallel.h"
#include "ops/convert.h"

namespace anycann {
namespace {

Status CheckList(Call& call, const NamedTensors& list, size_t count) {
  const TensorSpan& tensors = list.tensors;
  if (tensors.size() != count)
    return call.Invalid("{} has {} tensors, expected {}", list.name, tensors.size(), count);
  for (size_t i = 0; i < count; ++i) {
    if (tensors[i] == nullptr) return call.Invalid("tensor {} of {} is null", i, list.name);
    const DType t = tensors[i]->view.dtype, first = tensors[0]->view.dtype;
    if (t != first)
      return call.Invalid("tensor {} of {} has type {}, expected that of the list's first, {}", i, list.name,
                          Name(t), Name(first));
  }
  return Status();
}

}  // namespace

Status ForeachOperands(Call& call, std::span<const NamedTensors> inputs,
                       std::span<const NamedTensors> outputs, std::vector<Arg>* operands, Cost* cost) {
  const TensorSpan& out = outputs[0].tensors;
  const size_t count = out.size();
  for (const NamedTensors& list : inputs) RETURN_IF_ERROR(CheckList(call, list, count));
  for (const NamedTensors& list : outputs) RETURN_IF_ERROR(CheckList(call, list, count));
  operands->reserve((inputs.size() + outputs.size()) * count + 1);
  for (const NamedTensors& list : inputs) {
    for (size_t i = 0; i < count; ++i) {
      const aclTensor* x = list.tensors[i];
      TensorView view;
      if (!BroadcastTo(x->view, out[i]->view.dims, out[i]->view.rank, &view))
        return call.Invalid("tensor {} of {} has shape {}, which can't be broadcast to {}'s, {}", i,
                            list.name, ShapeString(x->view), outputs[0].name, ShapeString(out[i]->view));
      operands->push_back(In(x, view));
      cost->bytes += static_cast<double>(x->view.nbytes());
    }
  }
  for (const NamedTensors& list : outputs) {
    for (size_t i = 0; i < count; ++i) {
      const aclTensor* x = list.tensors[i];
      if (!x->view.SameShape(out[i]->view))
        return call.Invalid("tensor {} of {} has shape {}, expected that of {}'s, {}", i, list.name,
                            ShapeString(x->view), outputs[0].name, ShapeString(out[i]->view));
      operands->push_back(Out(x));
      cost->bytes += static_cast<double>(x->view.nbytes());
      cost->flops += static_cast<double>(x->view.numel());
    }
  }
  return Status();
}

void RunForeach(const ElementwiseKernel& kernel, const ForeachLists& lists, const Run& t, const void* params,
                size_t params_stride) {
  const int first_output = lists.inputs * lists.count;
  std::vector<int64_t> ends(
      static_cast<size_t>(lists.count));  // of each tensor in the sequence of all elements
  int64_t total = 0;
  for (int i = 0; i < lists.count; ++i) ends[static_cast<size_t>(i)] = total += t[first_output + i].numel();
  ParallelFor(total, ParallelGrain(kernel), [&](int64_t begin, int64_t end) {
    int i = static_cast<int>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
    TensorView in[kMaxElementwiseInputs], out[kMaxElementwiseOutputs];
    for (; begin < end; ++i) {
      const int64_t size = t[first_output + i].numel(), start = ends[static_cast<size_t>(i)] - size;
      const int64_t stop = std::min(end, start + size);
      if (begin >= stop) continue;
      for (int k = 0; k < lists.inputs; ++k) in[k] = t[k * lists.count + i];
      for (int k = 0; k < lists.outputs; ++k) out[k] = t[first_output + k * lists.count + i];
      RunElementwiseRange(kernel, std::span<const TensorView>(out, static_cast<size_t>(lists.outputs)),
                          std::span<const TensorView>(in, static_cast<size_t>(lists.inputs)),
                          static_cast<const char*>(params) + static_cast<size_t>(i) * params_stride,
                          begin - start, stop - start);
      begin = stop;
    }
  });
}

DType ForeachType(std::span<const aclTensorList* const> inputs, const ForeachConstants& constants) {
  DType type = inputs[0]->values[0]->view.dtype;
  for (const aclTensorList* list : inputs) type = Promote(type, list->values[0]->view.dtype);
  if (constants.scalar != nullptr) type = PromoteScalar(type, constants.scalar->value.dtype);
  if (constants.scalars != nullptr)
    for (const aclScalar* s : *constants.scalars) type = PromoteScalar(type, s->value.dtype);
  if (constants.tensor != nullptr) type = PromoteScalar(type, constants.tensor->view.dtype);
  return type;
}

Status CheckConstants(Call& call, const ForeachConstants& constants, int count) {
  const int64_t n = constants.scalars != nullptr  ? static_cast<int64_t>(constants.scalars->size)
                    : constants.tensor != nullptr ? constants.tensor->view.numel()
                                                  : 1;
  if (n == 1 || n == count) return Status();
  return call.Invalid("there are {} constants, expected 1 or one for each of the {} tensors", n, count);
}

namespace {

using Bytes = std::vector<unsigned char>;

// The constants as elements of `type`, side by side.
Bytes ConstantsNow(const ForeachConstants& c, DType type) {
  const size_t size = static_cast<size_t>(SizeOf(type));
  Bytes bytes;
  const auto append = [&](const aclScalar* s) {
    const Element e = ElementOf(s->value, type);
    bytes.insert(bytes.end(), e.bytes, e.bytes + size);
  };
  if (c.scalar != nullptr) append(c.scalar);
  if (c.scalars != nullptr)
    for (const aclScalar* s : *c.scalars) append(s);
  if (bytes.empty()) bytes.resize(sizeof(Element));  // something for a functor without state to point at
  return bytes;
}
Bytes ConstantsOf(const TensorView& v, DType type) {
  Bytes bytes(static_cast<size_t>(v.numel() * SizeOf(type)));
  CopyCast(TensorView::Contiguous(bytes.data(), type, v.dims, v.rank), v);
  return bytes;
}

}  // namespace

Status LaunchForeach(Call& call, std::span<const aclTensorList* const> inputs,
                     const ForeachConstants& constants, const aclTensorList* out,
                     const ElementwiseKernel& kernel, DType compute) {
  static constexpr const char* kNames[] = {"x1", "x2", "x3"};
  NamedTensors in[3];
  for (size_t k = 0; k < inputs.size(); ++k) in[k] = {kNames[k], TensorsOf(inputs[k])};
  const NamedTensors outputs{"out", TensorsOf(out)};
  std::vector<Arg> operands;
  Cost cost;
  RETURN_IF_ERROR(
      ForeachOperands(call, std::span(in, inputs.size()), std::span(&outputs, 1), &operands, &cost));
  const int count = static_cast<int>(out->size);
  RETURN_IF_ERROR(CheckConstants(call, constants, count));
  const DType type = ComputeType(compute);
  RETURN_IF_ERROR(call.RequireCastable(kernel.out_types[0] == type ? compute : kernel.out_types[0],
                                       out->values[0], "the output list"));
  const ForeachLists lists{static_cast<int>(inputs.size()), 1, count};
  const bool deferred = constants.tensor != nullptr;
  if (deferred) operands.push_back(In(constants.tensor));
  return call.Launch(operands, cost, [=, bytes = ConstantsNow(constants, type)](const Run& t) -> Status {
    Bytes read;
    if (deferred) read = ConstantsOf(t[t.size() - 1], type);
    const Bytes& values = deferred ? read : bytes;
    const size_t size = static_cast<size_t>(SizeOf(type));
    RunForeach(kernel, lists, t, values.data(),
               values.size() == size * static_cast<size_t>(count) ? size : 0);
    return Status();
  });
}

}  // namespace anycann
