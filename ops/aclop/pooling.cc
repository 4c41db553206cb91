// Legacy pooling. Windows come as [1, kH, kW, 1] or [1, 1, kD, kH, kW], whatever the layout of the images.
#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

struct Windows {
  aclIntArray *size, *stride, *padding, *dilation;
};

// [1, a, b, 1] as [a, b].
Status PlaneWindows(Arguments& a, const char* dilation, Windows* w) {
  const auto inner = [&](const Value& v) -> aclIntArray* { return a.Integers(v.Range(1, 2)); };
  const Value ones(std::vector<int64_t>{1, 1, 1, 1});
  *w = {inner(a.Attr("ksize")), inner(a.Attr("strides")), inner(a.Attr("pads")),
        inner(a.Attr(dilation, ones))};
  return a.status();
}

// [C, H, W] as [1, C, H, W]: torch_npu mixes both in one call.
aclTensor* Images(Arguments& a, aclTensor* t) { return t->view.rank == 3 ? a.View(t->view.Unsqueeze(0)) : t; }

// The padding before each dimension; a larger one behind is how the client says ceil_mode.
Status VolumeWindows(Arguments& a, const Value& pads, bool* ceil, Windows* w) {
  if (pads.size() != 6) return a.call().Invalid("pads are {}, expected 6 numbers", pads.Show());
  for (size_t i = 0; i < 6; i += 2) *ceil |= pads.Integer(i + 1) > pads.Integer(i);
  const Value ones(std::vector<int64_t>{1, 1, 1, 1, 1});
  *w = {a.Integers(a.Tail(a.Attr("ksize"), 3)), a.Integers(a.Tail(a.Attr("strides"), 3)),
        a.Integers(pads.Range(0, 3, 2)), a.Integers(a.Tail(a.Attr("dilation", ones), 3))};
  return a.status();
}

}  // namespace

// argmax is a mask of bits that only the backward pass reads, and torch_npu casts it between private formats
// as if it held floats. It is zero here: the backward pass finds the places of the maxima anew.
Status MaxPoolWithArgmaxV1(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 2));
  Windows w;
  RETURN_IF_ERROR(PlaneWindows(a, "dilation", &w));
  const bool ceil = a.Flag(a.Attr("ceil_mode", false));
  aclTensor *x = Images(a, a.In(0)), *y = Images(a, a.Out(0)), *indices = a.TemporaryLike(y, DType::kInt32);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::InplaceZero(c, a.Out(1)); }));
  return aclnn::MaxPool2dWithIndices(call, x, w.size, w.stride, w.padding, w.dilation, ceil, y, indices);
}

// x, grad, argmax.
Status MaxPoolGradWithArgmaxV1(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Windows w;
  RETURN_IF_ERROR(PlaneWindows(a, "dilations", &w));
  const bool ceil = a.Flag(a.Attr("ceil_mode", false));
  aclTensor *x = Images(a, a.In(0)), *grad = Images(a, a.In(1)), *dx = Images(a, a.Out(0));
  aclTensor *y = a.TemporaryLike(grad, grad->view.dtype), *indices = a.TemporaryLike(grad, DType::kInt32);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return aclnn::MaxPool2dWithIndices(c, x, w.size, w.stride, w.padding, w.dilation, ceil, y, indices);
  }));
  return aclnn::MaxPool2dWithIndicesBackward(call, grad, x, indices, w.size, w.stride, w.padding, w.dilation,
                                             ceil, dx);
}

Status MaxPool3D(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  Windows w;
  bool ceil = a.Flag(a.Attr("ceil_mode", int64_t{0}));
  RETURN_IF_ERROR(VolumeWindows(a, a.Attr("pads"), &ceil, &w));
  aclTensor* indices = a.TemporaryLike(a.Out(0), DType::kInt32);
  RETURN_IF_ERROR(a.status());
  return aclnn::MaxPool3dWithArgmax(call, a.In(0), w.size, w.stride, w.padding, w.dilation, ceil, a.Out(0),
                                    indices);
}

// orig_x, orig_y, grads.
Status MaxPool3DGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  Windows w;
  bool ceil = false;
  RETURN_IF_ERROR(VolumeWindows(a, a.Attr("pads"), &ceil, &w));
  aclTensor *indices = a.TemporaryLike(a.In(2), DType::kInt32),
            *y = a.TemporaryLike(a.In(2), a.In(0)->view.dtype);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return aclnn::MaxPool3dWithArgmax(c, a.In(0), w.size, w.stride, w.padding, w.dilation, ceil, y, indices);
  }));
  return aclnn::MaxPool3dWithArgmaxBackward(call, a.In(2), a.In(0), indices, w.size, w.stride, w.padding,
                                            w.dilation, ceil, a.Out(0));
}

}  // namespace anycann::aclop
