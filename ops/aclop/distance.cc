// CdistGrad: the gradient of cdist's first operand, from tensors that were broadcast to [..., P, R, M].
#include <limits>

#include "aclnn_ops.h"
#include "ops/aclop/operators.h"

namespace anycann::aclop {
namespace {

// A handle over a view, for the length of phase one.
class Handle {
 public:
  explicit Handle(const TensorView& v)
      : t_(handles::CreateTensor(v.dims, static_cast<uint64_t>(v.rank), v.dtype, v.strides, 0, 2, v.dims,
                                 static_cast<uint64_t>(v.rank), v.data)) {}
  Handle(const Handle&) = delete;
  ~Handle() {
    if (t_ != nullptr) handles::Destroy(t_);
  }
  aclTensor* get() const { return t_; }

 private:
  aclTensor* t_;
};

}  // namespace

Status CdistGrad(Call& call, const Arguments& a) {
  RETURN_IF_ERROR(RequireTensors(call, a, 4, 1));
  const TensorView &x1 = a.Input(1)->view, &out = a.Output(0)->view;
  RETURN_IF_ERROR(call.RequireRank(a.Input(1), "x1", 3, kMaxRank));
  for (size_t i : {0, 2, 3}) RETURN_IF_ERROR(call.RequireSameShape(a.Input(i), "an input", a.Input(1), "x1"));
  const int rank = x1.rank;
  if (x1.dims[rank - 2] == 0 || x1.dims[rank - 1] == 0)
    return call.Invalid("x1 has shape {}, expected no empty rows", ShapeString(x1));
  // Every point of x1 is a batch of its own: [..., P, 1, M] against [..., P, R, M].
  const auto values = [rank](const TensorView& v) { return v.Select(rank - 1, 0).Unsqueeze(rank - 2); };
  TensorView y = out;
  if (out.rank == rank - 1) y = out.Unsqueeze(rank - 2);
  const double p = a.Number("p", 2);
  const Handle grad(values(a.Input(0)->view)), point(x1.Narrow(rank - 2, 0, 1)),
      distances(values(a.Input(3)->view)), result(y);
  if (!grad.get() || !point.get() || !distances.get() || !result.get()) return call.NoMemory();
  return aclnn::CdistBackward(call, grad.get(), point.get(), a.Input(2), distances.get(),
                              p < 0 ? std::numeric_limits<float>::infinity() : static_cast<float>(p),
                              result.get());
}

}  // namespace anycann::aclop
