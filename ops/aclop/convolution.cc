// Legacy convolutions. The shape that the client gives a result counts, also where it is smaller than the
// windows that fit: torch_npu's gradients of transposed convolutions leave the last ones out.
#include <algorithm>
#include <bit>

#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

struct Geometry {
  Value stride, pads, dilation;  // of the spatial dimensions
  int64_t groups;
  aclIntArray *strides, *padding, *dilations, *no_padding;
};

Status ReadGeometry(Arguments& a, const aclTensor* image, Geometry* g) {
  const Value order = a.Attr("data_format", "NCHW"),
              ones(std::vector<int64_t>(static_cast<size_t>(image->view.rank), 1));
  g->stride = a.Spatial(a.Attr("strides"), order, image);
  g->pads = a.Halves(a.Attr("pads"));
  g->dilation = a.Spatial(a.Attr("dilations", ones), order, image);
  g->groups = a.Integer(a.Attr("groups", int64_t{1}));
  RETURN_IF_ERROR(a.status());
  const size_t n = static_cast<size_t>(std::max(image->view.rank - 2, 0));
  if (n == 0 || g->stride.size() != n || g->pads.size() != n || g->dilation.size() != n)
    return a.call().Invalid(
        "an image has shape {}, strides are {}, pads {} and dilations {}: they don't fit together",
        ShapeString(image->view), g->stride.Show(), g->pads.Show(), g->dilation.Show());
  for (size_t i = 0; i < n; ++i)
    if (g->stride.Integer(i) <= 0)
      return a.call().Invalid("strides are {}, expected positive numbers", g->stride.Show());
  g->strides = a.Integers(g->stride), g->padding = a.Integers(g->pads),
  g->dilations = a.Integers(g->dilation);
  g->no_padding = a.Integers(Value(std::vector<int64_t>(n, 0)));
  return a.status();
}

// The shape of all windows of x that fit, with `channels` channels.
Status AllWindows(Call& call, const Geometry& g, const TensorView& x, const TensorView& filter,
                  int64_t channels, std::vector<int64_t>* dims) {
  if (filter.rank != x.rank)
    return call.Invalid("x has shape {} and filter {}", ShapeString(x), ShapeString(filter));
  *dims = {x.dims[0], channels};
  for (size_t i = 0; i < g.stride.size(); ++i) {
    const int64_t reach = g.dilation.Integer(i) * (filter.dims[i + 2] - 1) + 1,
                  room = x.dims[i + 2] + 2 * g.pads.Integer(i) - reach;
    dims->push_back(room < 0 ? 0 : room / g.stride.Integer(i) + 1);
  }
  return Status();
}

// The first windows of `all` that `some` has; false where it is not a part of it.
bool FirstWindows(const TensorView& all, const TensorView& some, TensorView* part) {
  *part = all;
  if (some.rank != all.rank || some.dims[0] != all.dims[0] || some.dims[1] != all.dims[1]) return false;
  for (int d = 2; d < all.rank; ++d) {
    if (some.dims[d] > all.dims[d]) return false;
    *part = part->Narrow(d, 0, some.dims[d]);
  }
  return true;
}

Status CopyStep(Arguments& a, const TensorView& to, const TensorView& from) {
  aclTensor *target = a.View(to), *source = a.View(from);
  RETURN_IF_ERROR(a.status());
  return a.Before([&](Call& c) { return aclnn::InplaceCopy(c, target, source); });
}

}  // namespace

// x, filter, bias.
Status Convolve(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Geometry g;
  RETURN_IF_ERROR(ReadGeometry(a, a.In(0), &g));
  const TensorView &x = a.In(0)->view, &filter = a.In(1)->view, &y = a.Out(0)->view;
  std::vector<int64_t> dims;
  RETURN_IF_ERROR(AllWindows(call, g, x, filter, filter.dims[0], &dims));
  TensorView part, all = TensorView::Contiguous(nullptr, y.dtype, dims.data(), static_cast<int>(dims.size()));
  if (all.SameShape(y) || !FirstWindows(all, y, &part))
    return aclnn::Convolution(call, a.In(0), a.In(1), a.In(2), g.strides, g.padding, g.dilations, false,
                              g.no_padding, g.groups, a.Out(0), 0);
  aclTensor* whole = a.Temporary(y.dtype, dims);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return aclnn::Convolution(c, a.In(0), a.In(1), a.In(2), g.strides, g.padding, g.dilations, false,
                              g.no_padding, g.groups, whole, 0);
  }));
  FirstWindows(whole->view, y, &part);
  aclTensor* source = a.View(part);
  RETURN_IF_ERROR(a.status());
  return aclnn::InplaceCopy(call, a.Out(0), source);
}

// x, filter_size, out_backprop.
Status ConvolveBackpropFilter(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Geometry g;
  RETURN_IF_ERROR(ReadGeometry(a, a.In(0), &g));
  const TensorView &grad = a.In(2)->view, &filter = a.Out(0)->view;
  const aclBoolArray* mask = a.Bools(Value(std::vector<int64_t>{0, 1, 0}));
  std::vector<int64_t> dims;
  RETURN_IF_ERROR(AllWindows(call, g, a.In(0)->view, filter, filter.dims[0], &dims));
  TensorView part,
      all = TensorView::Contiguous(nullptr, grad.dtype, dims.data(), static_cast<int>(dims.size()));
  const aclTensor* whole = a.In(2);
  if (!all.SameShape(grad) && FirstWindows(all, grad, &part)) {
    aclTensor* padded = a.Temporary(grad.dtype, dims);
    RETURN_IF_ERROR(a.status());
    RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::InplaceZero(c, padded); }));
    FirstWindows(padded->view, grad, &part);
    RETURN_IF_ERROR(CopyStep(a, part, grad));
    whole = padded;
  }
  RETURN_IF_ERROR(a.status());
  return aclnn::ConvolutionBackward(call, whole, a.In(0), a.Out(0), nullptr, g.strides, g.padding,
                                    g.dilations, false, g.no_padding, static_cast<int>(g.groups), mask, 0,
                                    nullptr, a.Out(0), nullptr);
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
        a.Integers(a.Spatial(a.Attr("dilations", ones), order, image)),
        a.Integers(Value(std::vector<int64_t>{0, 0})), 0};
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

TensorView As4d(const aclTensor* dense, const TensorView& like) {
  return TensorView::Contiguous(dense->view.data, like.dtype, like.dims, like.rank);
}

// The attributes, and input 1 as the engine's filter.
Status ReadWithFilter(Arguments& a, const aclTensor* image, Depthwise* d, aclTensor** filter) {
  RETURN_IF_ERROR(ReadDepthwise(a, image, d));
  RETURN_IF_ERROR(a.call().RequireRank(a.In(1), "filter", 4, 4));
  const TensorView by_channel = ByChannel(a.In(1)->view, d->channels);
  *filter = DepthwiseFilter(a, a.In(1)->view, d->channels);
  RETURN_IF_ERROR(a.status());
  return CopyStep(a, As4d(*filter, by_channel), by_channel);
}

}  // namespace

// x, filter, bias.
Status DepthwiseConv2D(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Depthwise d;
  aclTensor* filter;
  RETURN_IF_ERROR(ReadWithFilter(a, a.In(0), &d, &filter));
  return aclnn::Convolution(call, a.In(0), filter, a.In(2), d.stride, d.padding, d.dilation, false,
                            d.no_padding, d.channels, a.Out(0), 0);
}

// input_size, filter, out_backprop.
Status DepthwiseConv2DBackpropInput(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Depthwise d;
  aclTensor* filter;
  RETURN_IF_ERROR(ReadWithFilter(a, a.Out(0), &d, &filter));
  const aclBoolArray* mask = a.Bools(Value(std::vector<int64_t>{1, 0, 0}));
  RETURN_IF_ERROR(a.status());
  return aclnn::ConvolutionBackward(call, a.In(2), a.Out(0), filter, nullptr, d.stride, d.padding, d.dilation,
                                    false, d.no_padding, static_cast<int>(d.channels), mask, 0, a.Out(0),
                                    nullptr, nullptr);
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
    return call.Invalid("filter_grad has shape {}, expected [{},1,kH,kW]", ShapeString(a.Out(0)->view),
                        d.channels);
  return aclnn::ConvolutionBackward(call, a.In(2), a.In(0), a.Out(0), nullptr, d.stride, d.padding,
                                    d.dilation, false, d.no_padding, static_cast<int>(d.channels), mask, 0,
                                    nullptr, a.Out(0), nullptr);
}

// input_size, x, filter, bias. How far the result reaches beyond the last window is what its shape says:
// torch_npu's output_padding is not always right.
Status ConvTranspose(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Geometry g;
  RETURN_IF_ERROR(ReadGeometry(a, a.In(1), &g));
  const TensorView &x = a.In(1)->view, &filter = a.In(2)->view, &y = a.Out(0)->view;
  if (y.rank != x.rank || filter.rank != x.rank)
    return call.Invalid("x has shape {}, filter {} and y {}", ShapeString(x), ShapeString(filter),
                        ShapeString(y));
  std::vector<int64_t> beyond;
  for (size_t i = 0; i < g.stride.size(); ++i)
    beyond.push_back(y.dims[i + 2] - ((x.dims[i + 2] - 1) * g.stride.Integer(i) - 2 * g.pads.Integer(i) +
                                      g.dilation.Integer(i) * (filter.dims[i + 2] - 1) + 1));
  const aclIntArray* output_padding = a.Integers(Value(beyond));
  RETURN_IF_ERROR(a.status());
  return aclnn::Convolution(call, a.In(1), a.In(2), a.In(3), g.strides, g.padding, g.dilations, true,
                            output_padding, g.groups, a.Out(0), 0);
}

// x and filter (int8), scale (the bits of a float32 for each channel, in integers of 64 bits), bias (int32):
// the sums of products and bias, which are exact, times the scale.
Status QuantConv2D(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Geometry g;
  RETURN_IF_ERROR(ReadGeometry(a, a.In(0), &g));
  RETURN_IF_ERROR(call.RequireDType(a.In(0), "x", DType::kInt8));
  RETURN_IF_ERROR(call.RequireDType(a.In(1), "filter", DType::kInt8));
  RETURN_IF_ERROR(call.RequireDType(a.Out(0), "y", DType::kFloat16));
  RETURN_IF_ERROR(call.RequireRank(a.Out(0), "y", 4, 4));
  const TensorView &y = a.Out(0)->view, &scale = a.In(2)->view;
  const double zero_point = a.Number("offset_x", 0);
  RETURN_IF_ERROR(a.status());
  if (zero_point != 0 || a.In(4) != nullptr)
    return call.Invalid(
        "offset_x is {} and input 4, offset, is {}: AnyCANN has symmetric quantisation only, without them",
        zero_point, a.In(4) == nullptr ? "absent" : "given");
  if (SizeOf(scale.dtype) != 8 || (scale.numel() != 1 && scale.numel() != y.dims[1]))
    return call.Invalid("scale is {}, expected 1 or {} integers of 64 bits", Describe(a.In(2)), y.dims[1]);
  const aclTensor *x = a.As(a.In(0), DType::kInt64), *filter = a.As(a.In(1), DType::kInt64),
                  *bias = a.As(a.In(3), DType::kInt64);
  aclTensor* sums = a.TemporaryLike(a.Out(0), DType::kInt64);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return aclnn::Convolution(c, x, filter, bias, g.strides, g.padding, g.dilations, false, g.no_padding,
                              g.groups, sums, 0);
  }));
  return call.Launch({In(sums), In(a.In(2)), Out(a.Out(0))}, Cost{2.0 * static_cast<double>(y.numel()), 0},
                     [](const Run& t) -> Status {
                       const Dense in(t[0], Dense::kRead), bits(t[1], Dense::kRead);
                       Dense out(t[2], DType::kDouble, Dense::kWrite);
                       const int64_t plane = t[2].dims[2] * t[2].dims[3];
                       for (int64_t i = 0; i < out.view().numel(); ++i) {
                         const int64_t channel = bits.view().numel() == 1 ? 0 : i / plane % t[2].dims[1];
                         const auto low = static_cast<uint32_t>(bits.ptr<uint64_t>()[channel]);
                         out.ptr<double>()[i] = static_cast<double>(in.ptr<int64_t>()[i]) *
                                                static_cast<double>(std::bit_cast<float>(low));
                       }
                       out.Commit();
                       return Status();
                     });
}

}  // namespace anycann::aclop
