// From a reducer class (engine.h: ReducerOf) to an operator.
#pragma once

#include "ops/call.h"
#include "ops/elementwise/map.h"
#include "ops/reduce/engine.h"

namespace anycann {

// Which dimensions of a tensor of `rank` an operator reduces: those of `dims`, or all when it is null or
// empty. `name` is the parameter's. A bit per dimension.
Status ReducedDims(const Call& call, const aclIntArray* dims, int rank, const char* name, uint32_t* mask);
// The same for a single dimension; a 0-d tensor has none to reduce.
Status ReducedDim(const Call& call, int64_t dim, int rank, const char* name, uint32_t* mask);
constexpr uint32_t AllDims(int rank) { return (1u << rank) - 1; }

// out must have self's shape without the reduced dimensions, or with them of size 1 when keepdim.
Status RequireReducedShape(const Call& call, const aclTensor* self, uint32_t mask, bool keepdim,
                           const aclTensor* out, const char* name);
// Reductions without a value for "nothing" (max, min) refuse a tensor whose reduced dimensions are empty.
Status RequireValues(const Call& call, const aclTensor* self, uint32_t mask);

// Integers are read as int32, int64 or uint64 and bool as int32, which keeps the number of compiled loops
// down.
constexpr DType WideType(DType t) {
  switch (t) {
    case DType::kBool:
    case DType::kInt8:
    case DType::kUint8:
    case DType::kInt16:
    case DType::kUint16: return DType::kInt32;
    case DType::kUint32: return DType::kInt64;
    default: return ComputeType(t);
  }
}
// Calls f with the tag of WideType(t), complex ones only if `set` holds kComplexTypes; false otherwise.
template <unsigned set, class F>
bool VisitWide(DType t, F&& f) {
  switch (WideType(t)) {
    case DType::kInt64: f(TypeTag<int64_t>{}); return true;
#ifndef ANYCANN_FEW_TYPES
    case DType::kInt32: f(TypeTag<int32_t>{}); return true;
    case DType::kUint64: f(TypeTag<uint64_t>{}); return true;
#endif
    default: return VisitCompute<set & kFloatingTypes>(t, f);
  }
}

int64_t ReducedCount(const TensorView& v, uint32_t mask);

// Launches reducer r over `in`, a view of self; out's shapes are already checked.
template <class R>
Status LaunchReduce(Call& call, const Arg& in, uint32_t mask, std::initializer_list<const aclTensor*> outs,
                    const R& r, double flops_per_element = 1) {
  const Reducer* table = ReducerOf<R>();
  const TensorView& v = in.view;
  Arg args[1 + kMaxReduceOutputs] = {in};
  int n = 1;
  for (const aclTensor* out : outs) {
    if (out->view.empty()) return call.Nothing();
    args[n++] = Out(out, KeepDims(out->view, v.rank, mask));
  }
  const Cost cost{flops_per_element * static_cast<double>(v.numel()),
                  static_cast<double>(v.nbytes() + args[1].view.nbytes())};
  return call.Launch(std::span<const Arg>(args, n), cost, [table, mask, r](const Run& t) -> Status {
    TensorView outputs[kMaxReduceOutputs];
    for (int k = 1; k < t.size(); ++k) outputs[k - 1] = t[k];
    return RunReduce(*table, std::span<const TensorView>(outputs, t.size() - 1), t[0], mask, &r);
  });
}
template <class R>
Status LaunchReduce(Call& call, const aclTensor* self, uint32_t mask,
                    std::initializer_list<const aclTensor*> outs, const R& r, double flops_per_element = 1) {
  return LaunchReduce(call, In(self), mask, outs, r, flops_per_element);
}

}  // namespace anycann
