// Legacy operators that are a formula on single elements and no engine's: computed in double, with
// broadcasting.
#pragma once

#include <array>

#include "base/parallel.h"
#include "ops/aclop/arguments.h"

namespace anycann::aclop {

// outs[k][i] = f(ins[..][i]) for every element of the outputs, which have one shape that the inputs are
// broadcast to. f: void(const double (&in)[kIn], double (&out)[kOut]).
template <size_t kIn, size_t kOut, class F>
Status Pointwise(Call& call, const std::array<const aclTensor*, kIn>& ins,
                 const std::array<aclTensor*, kOut>& outs, F f) {
  const TensorView& shape = outs[0]->view;
  std::vector<Arg> operands;
  for (const aclTensor* t : ins) {
    TensorView v;
    if (!BroadcastTo(t->view, shape.dims, shape.rank, &v))
      return call.Invalid("an input of shape {} can't be broadcast to {}", ShapeString(t->view),
                          ShapeString(shape));
    operands.push_back(In(t, v));
  }
  for (const aclTensor* t : outs) {
    RETURN_IF_ERROR(call.RequireSameShape(t, "an output", outs[0], "the first"));
    operands.push_back(Out(t));
  }
  if (shape.empty()) return call.Nothing();
  const double elements = static_cast<double>(shape.numel());
  return call.Launch(operands, Cost{elements * 20, elements * 8}, [f](const Run& t) -> Status {
    std::vector<Dense> in, out;
    for (size_t k = 0; k < kIn; ++k) in.emplace_back(t[static_cast<int>(k)], DType::kDouble, Dense::kRead);
    for (size_t k = 0; k < kOut; ++k)
      out.emplace_back(t[static_cast<int>(kIn + k)], DType::kDouble, Dense::kWrite);
    ParallelFor(out[0].view().numel(), 1024, [&](int64_t begin, int64_t end) {
      double x[kIn], y[kOut];
      for (int64_t i = begin; i < end; ++i) {
        for (size_t k = 0; k < kIn; ++k) x[k] = in[k].template ptr<double>()[i];
        f(x, y);
        for (size_t k = 0; k < kOut; ++k) out[k].template ptr<double>()[i] = y[k];
      }
    });
    for (Dense& d : out) d.Commit();
    return Status();
  });
}

}  // namespace anycann::aclop
