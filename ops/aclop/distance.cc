// CdistGrad: the gradient of cdist's first operand, from tensors that were broadcast to [..., P, R, M].
#include <limits>

#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {
Status CdistGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  const TensorView &x1 = a.In(1)->view, &out = a.Out(0)->view;
  RETURN_IF_ERROR(call.RequireRank(a.In(1), "x1", 3, kMaxRank));
  for (size_t i : {0, 2, 3}) RETURN_IF_ERROR(call.RequireSameShape(a.In(i), "an input", a.In(1), "x1"));
  const int rank = x1.rank;
  if (x1.dims[rank - 2] == 0 || x1.dims[rank - 1] == 0)
    return call.Invalid("x1 has shape {}, expected no empty rows", ShapeString(x1));
  // Every point of x1 is a batch of its own: [..., P, 1, M] against [..., P, R, M].
  const auto values = [rank](const TensorView& v) { return v.Select(rank - 1, 0).Unsqueeze(rank - 2); };
  TensorView y = out;
  if (out.rank == rank - 1) y = out.Unsqueeze(rank - 2);
  const double p = a.Number("p", 2);
  aclTensor *grad = a.View(values(a.In(0)->view)), *point = a.View(x1.Narrow(rank - 2, 0, 1)),
            *distances = a.View(values(a.In(3)->view)), *result = a.View(y);
  RETURN_IF_ERROR(a.status());
  return aclnn::CdistBackward(call, grad, point, a.In(2), distances,
                              p < 0 ? std::numeric_limits<float>::infinity() : static_cast<float>(p), result);
}

}  // namespace anycann::aclop
