// Legacy operators that are short formulas on elements, or a choice between operators.
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {

// base^(scale * x + shift); a base of -1 means e.
Status Exp(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const double base = a.Number("base", -1), scale = a.Number("scale", 1), shift = a.Number("shift", 0);
  RETURN_IF_ERROR(a.status());
  if (base == -1 && scale == 1 && shift == 0) return aclnn::Exp(call, a.In(0), a.Out(0));
  const double logarithm = base == -1 ? 1 : std::log(base);
  return Pointwise<1, 1>(call, {a.In(0)}, {a.Out(0)}, [=](const double(&x)[1], double(&y)[1]) {
    y[0] = std::exp((scale * x[0] + shift) * logarithm);
  });
}

Status Log(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const double base = a.Number("base", -1), scale = a.Number("scale", 1), shift = a.Number("shift", 0);
  RETURN_IF_ERROR(a.status());
  if (scale == 1 && shift == 0) {
    if (base == -1) return aclnn::Log(call, a.In(0), a.Out(0));
    if (base == 2) return aclnn::Log2(call, a.In(0), a.Out(0));
    if (base == 10) return aclnn::Log10(call, a.In(0), a.Out(0));
  }
  const double logarithm = base == -1 ? 1 : std::log(base);
  return Pointwise<1, 1>(call, {a.In(0)}, {a.Out(0)}, [=](const double(&x)[1], double(&y)[1]) {
    y[0] = std::log(scale * x[0] + shift) / logarithm;
  });
}

Status LogAddExp(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const double base = a.Number("base", -1);
  if (a.Number("scale", 1) != 1 || a.Number("shift", 0) != 0 || (base != -1 && base != 2))
    return call.Invalid("base is {}, scale {} and shift {}, expected base -1 or 2, scale 1 and shift 0", base,
                        a.Number("scale", 1), a.Number("shift", 0));
  RETURN_IF_ERROR(a.status());
  return base == 2 ? aclnn::LogAddExp2(call, a.In(0), a.In(1), a.Out(0))
                   : aclnn::LogAddExp(call, a.In(0), a.In(1), a.Out(0));
}

// x * sigmoid(1.702 x), as aclnnFastGeluBackward differentiates it.
Status FastGelu(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  return Pointwise<1, 1>(call, {a.In(0)}, {a.Out(0)}, [](const double(&x)[1], double(&y)[1]) {
    y[0] = x[0] / (1 + std::exp(-1.702 * x[0]));
  });
}

Status ReduceProd(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const Value axes = a.Constant(1);
  const bool keep = a.Flag(a.Attr("keep_dims", false));
  RETURN_IF_ERROR(a.status());
  const aclTensor* x = a.In(0);
  const auto dtype = static_cast<aclDataType>(a.Out(0)->view.dtype);
  if (axes.size() == 0 || static_cast<int>(axes.size()) >= x->view.rank) {
    aclTensor* y = a.Reshape(a.Out(0), {});
    RETURN_IF_ERROR(a.status());
    return aclnn::Prod(call, x, dtype, y);
  }
  for (size_t i = 0; i + 1 < axes.size(); ++i) {
    int dim = 0;
    RETURN_IF_ERROR(call.WrapDim(axes.Integer(i), x->view.rank, "axes", &dim));
    std::vector<int64_t> dims(x->view.dims, x->view.dims + x->view.rank);
    dims[static_cast<size_t>(dim)] = 1;
    aclTensor* product = a.Temporary(a.Out(0)->view.dtype, dims);
    RETURN_IF_ERROR(a.status());
    RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::ProdDim(c, x, dim, true, dtype, product); }));
    x = product;
  }
  int dim = 0;
  RETURN_IF_ERROR(call.WrapDim(axes.Integer(axes.size() - 1), x->view.rank, "axes", &dim));
  if (keep || axes.size() == 1) return aclnn::ProdDim(call, x, dim, keep, dtype, a.Out(0));
  // The dimensions that are reduced already have size 1: y has the elements' order without them.
  std::vector<int64_t> dims(x->view.dims, x->view.dims + x->view.rank);
  dims[static_cast<size_t>(dim)] = 1;
  aclTensor* y =
      a.View(TensorView::Contiguous(a.Out(0)->view.data, a.Out(0)->view.dtype, dims.data(), x->view.rank));
  RETURN_IF_ERROR(a.status());
  if (y->view.numel() != a.Out(0)->view.numel())
    return call.Invalid("y has shape {}, expected {} elements", ShapeString(a.Out(0)->view), y->view.numel());
  return aclnn::ProdDim(call, x, dim, true, dtype, y);
}

// Channels of x1 and x2 from their offsets on, in blocks of 16 channels, added.
Status StrideAdd(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  constexpr int64_t kBlock = 16;
  const int64_t first1 = a.Integer(a.Attr("x1_c1_offset")), first2 = a.Integer(a.Attr("x2_c1_offset")),
                blocks = a.Integer(a.Attr("c1_len"));
  RETURN_IF_ERROR(a.status());
  const TensorView &x1 = a.In(0)->view, &x2 = a.In(1)->view, &y = a.Out(0)->view;
  if (x1.rank < 2 || x2.rank != x1.rank || y.rank != x1.rank)
    return call.Invalid("x1 has shape {}, x2 {} and y {}, expected [N,C,...]", ShapeString(x1),
                        ShapeString(x2), ShapeString(y));
  const int64_t n = std::min(y.dims[1], blocks > 0 ? blocks * kBlock : y.dims[1]);
  const auto part = [&](const TensorView& v, int64_t first) -> const aclTensor* {
    return first >= 0 && first <= (v.dims[1] - n) / kBlock && n <= v.dims[1]
               ? a.View(v.Narrow(1, first * kBlock, n))
               : nullptr;
  };
  const aclTensor *p1 = part(x1, first1), *p2 = part(x2, first2);
  aclTensor* out = a.View(y.Narrow(1, 0, n));
  if (p1 == nullptr || p2 == nullptr)
    return call.Invalid("{} channels from blocks {} and {} reach beyond x1 {} and x2 {}", n, first1, first2,
                        ShapeString(x1), ShapeString(x2));
  const aclScalar* one = a.Scalar(int64_t{1});
  RETURN_IF_ERROR(a.status());
  return aclnn::Add(call, p1, p2, one, out);
}

}  // namespace anycann::aclop
