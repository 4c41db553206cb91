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
  return Status();
}

}  // namespace

Status Cdist(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  RETURN_IF_ERROR(CheckPoints(call, a, a.In(0), {1}));
  if (a.In(0)->view.empty())
    return aclnn::InplaceZero(call, a.Out(0));  // no points, or points without coordinates
  // Every point of x1 is a batch of its own: [..., P, 1, M] against [..., P, R, M].
  const TensorView &x1 = a.In(0)->view, &out = a.Out(0)->view;
  aclTensor *point = a.View(x1.Narrow(x1.rank - 2, 0, 1)), *result = a.View(out.Unsqueeze(out.rank - 1));
  RETURN_IF_ERROR(a.status());
  return aclnn::Cdist(call, point, a.In(1), Power(a), 0, result);
}

Status CdistGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  RETURN_IF_ERROR(CheckPoints(call, a, a.In(1), {0, 2, 3}));
  if (a.In(1)->view.empty()) return aclnn::InplaceZero(call, a.Out(0));
  const TensorView &x1 = a.In(1)->view, &out = a.Out(0)->view;
  const int rank = x1.rank;
  // As in Cdist. Where x1 was broadcast, its gradient is the sum over what it was broadcast to.
  const auto values = [rank](const TensorView& v) { return v.Select(rank - 1, 0).Unsqueeze(rank - 2); };
  const TensorView full = x1.Select(rank - 2, 0);
  aclTensor* y = a.Out(0);
  const bool summed = !out.SameShape(full);
  if (summed) y = a.Temporary(out.dtype, {full.dims, static_cast<size_t>(full.rank)});
  aclTensor *grad = a.View(values(a.In(0)->view)), *point = a.View(x1.Narrow(rank - 2, 0, 1)),
            *distances = a.View(values(a.In(3)->view)), *result = a.View(y->view.Unsqueeze(rank - 2));
  RETURN_IF_ERROR(a.status());
  const auto gradient = [&](Call& c) {
    return aclnn::CdistBackward(c, grad, point, a.In(2), distances, Power(a), result);
  };
  if (!summed) return gradient(call);
  RETURN_IF_ERROR(a.Before(gradient));
  std::vector<int64_t> axes;
  for (int d = 0; d < full.rank; ++d) {
    const int own = d - (full.rank - out.rank);
    if (own < 0 || (out.dims[own] == 1 && full.dims[d] != 1)) axes.push_back(d);
  }
  // Dimensions of size 1 that out lacks don't matter to the order of its elements.
  std::vector<int64_t> kept(full.dims, full.dims + full.rank);
  for (int64_t d : axes) kept[static_cast<size_t>(d)] = 1;
  aclTensor* sum = a.View(TensorView::Contiguous(out.data, out.dtype, kept.data(), full.rank));
  const aclIntArray* dims = a.Integers(Value(axes));
  RETURN_IF_ERROR(a.status());
  if (sum->view.numel() != out.numel())
    return call.Invalid("y has shape {}, expected one that broadcasts to {}", ShapeString(out),
                        ShapeString(full));
  return aclnn::ReduceSum(call, y, dims, true, static_cast<aclDataType>(out.dtype), sum);
}

}  // namespace anycann::aclop
