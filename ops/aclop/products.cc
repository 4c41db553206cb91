// Legacy matrix products, whose attributes transpose the operands and which may add a bias.
#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

Status Product(Call& call, Arguments& a, const char* first, const char* second, bool batches) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const aclTensor *x1 = a.In(0), *x2 = a.In(1), *bias = a.In(2);
  if (a.Flag(a.Attr(first, false))) x1 = a.Transposed(x1);
  if (a.Flag(a.Attr(second, false))) x2 = a.Transposed(x2);
  RETURN_IF_ERROR(a.status());
  if (a.Number("offset_x", 0) != 0)
    return call.Invalid("offset_x is {}, expected 0", a.Number("offset_x", 0));
  aclTensor* y = a.Out(0);
  if (bias == nullptr) return aclnn::Matmul(call, x1, x2, y, 0);
  const aclScalar* one = a.Scalar(int64_t{1});
  RETURN_IF_ERROR(a.status());
  if (!batches) return aclnn::Addmm(call, bias, x1, x2, one, one, y, 0);
  return y->view.rank == 3 ? aclnn::Baddbmm(call, bias, x1, x2, one, one, y, 0)
                           : aclnn::Addbmm(call, bias, x1, x2, one, one, y, 0);
}

}  // namespace

Status MatMul(Call& call, Arguments& a) { return Product(call, a, "transpose_x1", "transpose_x2", false); }
Status BatchMatMul(Call& call, Arguments& a) { return Product(call, a, "adj_x1", "adj_x2", true); }

Status MatrixTriangularSolve(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const bool lower = a.Flag(a.Attr("lower", true)), adjoint = a.Flag(a.Attr("adjoint", false));
  aclTensor* copy = a.TemporaryLike(a.In(0), a.In(0)->view.dtype);
  RETURN_IF_ERROR(a.status());
  return aclnn::TriangularSolve(call, a.In(1), a.In(0), !lower, adjoint, false, a.Out(0), copy);
}

// The gradient of a bias: the sum over all dimensions but that of the channels.
Status BiasAddGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const TensorView& x = a.In(0)->view;
  if (x.rank < 2) return call.Invalid("x has shape {}, expected at least 2 dimensions", ShapeString(x));
  const std::string order = a.Text("data_format", "NCHW");
  const int channels = order == "NHWC" || order == "NDHWC" ? x.rank - 1 : 1;
  std::vector<int64_t> dims;
  for (int d = 0; d < x.rank; ++d)
    if (d != channels) dims.push_back(d);
  const aclIntArray* axes = a.Integers(Value(dims));
  RETURN_IF_ERROR(a.status());
  return aclnn::ReduceSum(call, a.In(0), axes, false, static_cast<aclDataType>(a.Out(0)->view.dtype),
                          a.Out(0));
}

}  // namespace anycann::aclop
