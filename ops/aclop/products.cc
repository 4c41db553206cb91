// Legacy matrix products, whose attributes transpose the operands and which may add a bias, and depthwise convolution.
#include <algorithm>

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
  if (a.Number("offset_x", 0) != 0) return call.Invalid("offset_x is {}, expected 0", a.Number("offset_x", 0));
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

namespace {

// A depthwise filter comes as [multiplier, C, kH, kW]; the engine takes [C * multiplier, 1, kH, kW].
struct Depthwise {
  aclIntArray *stride, *padding, *dilation, *no_padding;
  int64_t channels;
};

Status ReadDepthwise(Arguments& a, const aclTensor* image, Depthwise* d) {
  const Value order = a.Attr("data_format", "NCHW"), ones(std::vector<int64_t>{1, 1, 1, 1});
  *d = {a.Integers(a.Spatial(a.Attr("strides"), order, image)), a.Integers(a.Halves(a.Attr("pads"))),
        a.Integers(a.Spatial(a.Attr("dilations", ones), order, image)), a.Integers(Value(std::vector<int64_t>{0, 0})), 0};
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.call().RequireRank(image, "an image", 4, 4));
  d->channels = image->view.dims[1];
  return Status();
}

// The view as [C, multiplier, kH, kW]: its first two dimensions change places unless they stand so.
TensorView ByChannel(const TensorView& filter, int64_t channels) {
  return filter.dims[0] == channels && filter.dims[1] != channels ? filter : filter.Transpose(0, 1);
}

aclTensor* DepthwiseFilter(Arguments& a, const TensorView& filter, int64_t channels) {
  const TensorView v = ByChannel(filter, channels);
  return a.Temporary(filter.dtype, std::vector<int64_t>{v.dims[0] * v.dims[1], 1, v.dims[2], v.dims[3]});
}

Status CopyStep(Arguments& a, const TensorView& to, const TensorView& from) {
  aclTensor *target = a.View(to), *source = a.View(from);
  RETURN_IF_ERROR(a.status());
  return a.Before([&](Call& c) { return aclnn::InplaceCopy(c, target, source); });
}

TensorView As4d(const aclTensor* dense, const TensorView& like) {
  return TensorView::Contiguous(dense->view.data, like.dtype, like.dims, like.rank);
}

}  // namespace

// x, filter, bias.
Status DepthwiseConv2D(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Depthwise d;
  RETURN_IF_ERROR(ReadDepthwise(a, a.In(0), &d));
  RETURN_IF_ERROR(call.RequireRank(a.In(1), "filter", 4, 4));
  const TensorView by_channel = ByChannel(a.In(1)->view, d.channels);
  aclTensor* filter = DepthwiseFilter(a, a.In(1)->view, d.channels);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(CopyStep(a, As4d(filter, by_channel), by_channel));
  return aclnn::Convolution(call, a.In(0), filter, a.In(2), d.stride, d.padding, d.dilation, false, d.no_padding,
                            d.channels, a.Out(0), 0);
}

// input_size, filter, out_backprop.
Status DepthwiseConv2DBackpropInput(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Depthwise d;
  RETURN_IF_ERROR(ReadDepthwise(a, a.Out(0), &d));
  RETURN_IF_ERROR(call.RequireRank(a.In(1), "filter", 4, 4));
  const TensorView by_channel = ByChannel(a.In(1)->view, d.channels);
  aclTensor* filter = DepthwiseFilter(a, a.In(1)->view, d.channels);
  const aclBoolArray* mask = a.Bools(Value(std::vector<int64_t>{1, 0, 0}));
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(CopyStep(a, As4d(filter, by_channel), by_channel));
  return aclnn::ConvolutionBackward(call, a.In(2), a.Out(0), filter, nullptr, d.stride, d.padding, d.dilation, false,
                                    d.no_padding, static_cast<int>(d.channels), mask, 0, a.Out(0), nullptr, nullptr);
}

// input, filter_size, out_backprop. torch_npu's gradient has torch's own shape, [C * multiplier, 1, kH, kW].
Status DepthwiseConv2DBackpropFilter(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Depthwise d;
  RETURN_IF_ERROR(ReadDepthwise(a, a.In(0), &d));
  RETURN_IF_ERROR(call.RequireRank(a.Out(0), "filter_grad", 4, 4));
  const aclBoolArray* mask = a.Bools(Value(std::vector<int64_t>{0, 1, 0}));
  RETURN_IF_ERROR(a.status());
  if (a.Out(0)->view.dims[1] != 1)
    return call.Invalid("filter_grad has shape {}, expected [{},1,kH,kW]", ShapeString(a.Out(0)->view), d.channels);
  return aclnn::ConvolutionBackward(call, a.In(2), a.In(0), a.Out(0), nullptr, d.stride, d.padding, d.dilation, false,
                                    d.no_padding, static_cast<int>(d.channels), mask, 0, nullptr, a.Out(0), nullptr);
}

// input_size, x, filter, bias. How far the result reaches beyond the last window is what its shape says:
// torch_npu's output_padding is not always right.
Status ConvTranspose(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const aclTensor *x = a.In(1), *filter = a.In(2);
  const TensorView& y = a.Out(0)->view;
  const Value order = a.Attr("data_format", "NCHW"), ones(std::vector<int64_t>(static_cast<size_t>(x->view.rank), 1));
  const Value strides = a.Spatial(a.Attr("strides"), order, x), pads = a.Halves(a.Attr("pads")),
              dilations = a.Spatial(a.Attr("dilations", ones), order, x);
  const int64_t groups = a.Integer(a.Attr("groups", int64_t{1}));
  RETURN_IF_ERROR(a.status());
  const size_t n = static_cast<size_t>(std::max(x->view.rank - 2, 0));
  if (strides.size() != n || pads.size() != n || dilations.size() != n || y.rank != x->view.rank || filter->view.rank != y.rank)
    return call.Invalid("x has shape {}, filter {}, y {}, strides are {}, pads {} and dilations {}: they don't fit together",
                        ShapeString(x->view), ShapeString(filter->view), ShapeString(y), strides.Show(), pads.Show(),
                        dilations.Show());
  std::vector<int64_t> beyond;
  for (size_t i = 0; i < n; ++i) {
    const size_t d = i + 2;
    beyond.push_back(y.dims[d] - ((x->view.dims[d] - 1) * strides.Integer(i) - 2 * pads.Integer(i) +
                                  dilations.Integer(i) * (filter->view.dims[d] - 1) + 1));
  }
  const aclIntArray *s = a.Integers(strides), *p = a.Integers(pads), *dilation = a.Integers(dilations), *b = a.Integers(Value(beyond));
  RETURN_IF_ERROR(a.status());
  return aclnn::Convolution(call, x, filter, a.In(3), s, p, dilation, true, b, groups, a.Out(0), 0);
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
  return aclnn::ReduceSum(call, a.In(0), axes, false, static_cast<aclDataType>(a.Out(0)->view.dtype), a.Out(0));
}

}  // namespace anycann::aclop
