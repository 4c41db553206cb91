// Cdist and CdistGrad, the gradient of its first operand: of tensors that were broadcast to [..., P, R, M].
#include <limits>

#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

float Power(Arguments& a) {
  const double p = a.Number("p", 2);
  return p < 0 ? std::numeric_limits<float>::infinity() : static_cast<float>(p);
}

Status CheckPoints(Call& call, Arguments& a, const aclTensor* x1, std::initializer_list<size_t> others) {
  RETURN_IF_ERROR(call.RequireRank(x1, "x1", 3, kMaxRank));
  for (size_t i : others) RETURN_IF_ERROR(call.RequireSameShape(a.In(i), "an input", x1, "x1"));
  const TensorView& v = x1->view;
  if (v.dims[v.rank - 2] != 0 && v.dims[v.rank - 1] != 0) return Status();
  return call.Invalid("x1 has shape {}, expected no empty rows", ShapeString(v));
}

}  // namespace

Status Cdist(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  RETURN_IF_ERROR(CheckPoints(call, a, a.In(0), {1}));
  // Every point of x1 is a batch of its own: [..., P, 1, M] against [..., P, R, M].
  const TensorView &x1 = a.In(0)->view, &out = a.Out(0)->view;
  aclTensor *point = a.View(x1.Narrow(x1.rank - 2, 0, 1)), *result = a.View(out.Unsqueeze(out.rank - 1));
  RETURN_IF_ERROR(a.status());
  return aclnn::Cdist(call, point, a.In(1), Power(a), 0, result);
}

Status CdistGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  RETURN_IF_ERROR(CheckPoints(call, a, a.In(1), {0, 2, 3}));
  const TensorView &x1 = a.In(1)->view, &out = a.Out(0)->view;
  const int rank = x1.rank;
  // As in Cdist.
  const auto values = [rank](const TensorView& v) { return v.Select(rank - 1, 0).Unsqueeze(rank - 2); };
  TensorView y = out;
  if (out.rank == rank - 1) y = out.Unsqueeze(rank - 2);
  aclTensor *grad = a.View(values(a.In(0)->view)), *point = a.View(x1.Narrow(rank - 2, 0, 1)),
            *distances = a.View(values(a.In(3)->view)), *result = a.View(y);
  RETURN_IF_ERROR(a.status());
  return aclnn::CdistBackward(call, grad, point, a.In(2), distances, Power(a), result);
}

}  // namespace anycann::aclop
