// Legacy resizing whose sizes, modes and coordinates are attributes.
#include <cmath>

#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

struct Mode {
  std::string name;
  bool align_corners;
  double scale[2];  // 0: what the sizes say
};

Status ReadMode(Arguments& a, Mode* m) {
  m->name = a.Text("mode", "nearest");
  const std::string coordinates = a.Text("coordinate_transformation_mode", "half_pixel");
  m->align_corners = coordinates == "align_corners";
  if (coordinates != "align_corners" && coordinates != "half_pixel" && coordinates != "pytorch_half_pixel")
    return a.call().Invalid("coordinate_transformation_mode is \"{}\", expected align_corners or half_pixel",
                            coordinates);
  if (m->name == "cubic" && std::abs(a.Number("cubic_coeff_a", -0.75) + 0.75) > 1e-6)
    return a.call().Invalid("cubic_coeff_a is {}, expected -0.75", a.Number("cubic_coeff_a", -0.75));
  const Value scales = a.Attr("scales", std::vector<double>());
  for (size_t i = 0; i < 2; ++i) m->scale[i] = i < scales.size() ? scales.Real(i) : 0;
  return a.status();
}

// [N, C, 1, W] as [N, C, W].
aclTensor* Line(Arguments& a, const aclTensor* t) {
  const TensorView& v = t->view;
  return v.rank == 4 && v.dims[2] == 1 ? a.View(v.Select(2, 0)) : const_cast<aclTensor*>(t);
}

Status WrongMode(Call& call, const Mode& m, const aclTensor* t) {
  return call.Invalid(
      "mode is \"{}\" for a tensor of shape {}, expected \"cubic\" of [N,C,H,W] or \"linear\" of [N,C,1,W]",
      m.name, ShapeString(t->view));
}

}  // namespace

Status ResizeD(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  Mode m;
  RETURN_IF_ERROR(ReadMode(a, &m));
  const aclIntArray* sizes = a.Integers(a.Attr("sizes"));
  RETURN_IF_ERROR(a.status());
  if (m.name == "cubic" && a.In(0)->view.rank == 4)
    return aclnn::UpsampleBicubic2d(call, a.In(0), sizes, m.align_corners, m.scale[0], m.scale[1], a.Out(0));
  const aclTensor* x = Line(a, a.In(0));
  aclTensor* y = Line(a, a.Out(0));
  RETURN_IF_ERROR(a.status());
  if (m.name != "linear" || x->view.rank != 3) return WrongMode(call, m, a.In(0));
  return aclnn::UpsampleLinear1d(call, x, sizes, m.align_corners, m.scale[0], y);
}

Status ResizeGradD(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  Mode m;
  RETURN_IF_ERROR(ReadMode(a, &m));
  aclTensor *grads = a.In(0), *dx = a.Out(0);
  const Value size = a.Attr("original_size");
  if (a.Text("data_format", "NCHW") == "HWNC" && grads->view.rank == 4) {
    // y has the input's shape, but its memory the order that the format says.
    if (size.size() != 4 || dx->view.rank != 4)
      return call.Invalid("original_size is {}, expected 4 numbers", size.Show());
    const int64_t n = size.Integer(0), c = size.Integer(1), h = size.Integer(2), w = size.Integer(3);
    if (n * c * h * w != dx->view.numel())
      return call.Invalid("y has shape {}, expected {} elements", ShapeString(dx->view), size.Show());
    grads = a.View(grads->view.Transpose(0, 2).Transpose(1, 3));
    dx = a.View(
        TensorView::Contiguous(dx->view.data, dx->view.dtype, {h, w, n, c}).Transpose(0, 2).Transpose(1, 3));
  }
  RETURN_IF_ERROR(a.status());
  if (m.name == "cubic" && grads->view.rank == 4) {
    const aclIntArray *to = a.Integers(a.Tail(a.Dims(grads), 2)), *from = a.Integers(a.Dims(dx));
    RETURN_IF_ERROR(a.status());
    return aclnn::UpsampleBicubic2dBackward(call, grads, to, from, m.align_corners, m.scale[0], m.scale[1],
                                            dx);
  }
  grads = Line(a, grads);
  aclTensor* y = Line(a, a.Out(0));
  RETURN_IF_ERROR(a.status());
  if (m.name != "linear" || grads->view.rank != 3) return WrongMode(call, m, a.In(0));
  const aclIntArray *to = a.Integers(a.Tail(a.Dims(grads), 1)), *from = a.Integers(a.Dims(y));
  RETURN_IF_ERROR(a.status());
  return aclnn::UpsampleLinear1dBackward(call, grads, to, from, m.align_corners, m.scale[0], y);
}

namespace {

Status RequireFloor(Call& call, Arguments& a) {
  if (a.Text("mode", "nearest") == "nearest" && a.Text("nearest_mode", "round_prefer_floor") == "floor")
    return Status();
  return call.Invalid("mode is \"{}\" and nearest_mode \"{}\", expected \"nearest\" and \"floor\"",
                      a.Text("mode", "nearest"), a.Text("nearest_mode", "round_prefer_floor"));
}

}  // namespace

Status Resize(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  RETURN_IF_ERROR(RequireFloor(call, a));
  const aclIntArray* sizes = a.Integers(a.Tail(a.Dims(a.Out(0)), 2));
  RETURN_IF_ERROR(a.status());
  return aclnn::UpsampleNearest2d(call, a.In(0), sizes, a.Out(0));
}

Status ResizeGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  RETURN_IF_ERROR(RequireFloor(call, a));
  const aclIntArray *to = a.Integers(a.Tail(a.Dims(a.In(0)), 2)), *from = a.Integers(a.Dims(a.Out(0)));
  RETURN_IF_ERROR(a.status());
  return aclnn::UpsampleNearest2dBackward(call, a.In(0), to, from, 0, 0, a.Out(0));
}

}  // namespace anycann::aclop
