// Boxes of object detection: differences between anchors and truths, which anchors answer for a truth, and
// bits.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "aclop_operators.h"
#include "base/parallel.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {
namespace {

// f(a, b, out) on every row of `columns` numbers of two tensors of one shape [N, columns].
template <class F>
Status ByRow(Call& call, Arguments& a, int64_t columns, F f) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const TensorView& x = a.In(0)->view;
  if (x.rank != 2 || x.dims[1] != columns)
    return call.Invalid("input 0 has shape {}, expected [N,{}]", ShapeString(x), columns);
  RETURN_IF_ERROR(call.RequireSameShape(a.In(1), "input 1", a.In(0), "input 0"));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "the output", a.In(0), "input 0"));
  return call.Launch({In(a.In(0)), In(a.In(1)), Out(a.Out(0))},
                     Cost{40.0 * static_cast<double>(x.dims[0]), 0}, [columns, f](const Run& t) -> Status {
                       const Dense p(t[0], DType::kDouble, Dense::kRead),
                           q(t[1], DType::kDouble, Dense::kRead);
                       Dense out(t[2], DType::kDouble, Dense::kWrite);
                       ParallelFor(t[0].dims[0], 256, [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin * columns; i < end * columns; i += columns)
                           f(p.ptr<double>() + i, q.ptr<double>() + i, out.ptr<double>() + i);
                       });
                       out.Commit();
                       return Status();
                     });
}

struct Scaling {
  double mean[5] = {}, deviation[5] = {1, 1, 1, 1, 1};
};

Status ReadScaling(Arguments& a, Scaling* s) {
  const Value means = a.Attr("means", std::vector<double>{0, 0, 0, 0}),
              deviations = a.Attr("stds", std::vector<double>{1, 1, 1, 1});
  RETURN_IF_ERROR(a.status());
  if (means.size() != 4 || deviations.size() != 4)
    return a.call().Invalid("means are {} and stds {}, expected 4 numbers each", means.Show(),
                            deviations.Show());
  for (size_t i = 0; i < 4; ++i) s->mean[i] = means.Real(i), s->deviation[i] = deviations.Real(i);
  return Status();
}

// A box's centre and size; `pixel` is 1 where its last pixel belongs to it.
struct Extent {
  double x, y, w, h;
  Extent(const double* corners, double pixel)
      : x((corners[0] + corners[2]) / 2),
        y((corners[1] + corners[3]) / 2),
        w(corners[2] - corners[0] + pixel),
        h(corners[3] - corners[1] + pixel) {}
};

double Radians(double degrees) { return degrees * std::numbers::pi / 180; }

// Boxes of [B, 5, N]: two corners and an angle in degrees. f(a, b, out) on every box.
template <class F>
Status ByRotatedBox(Call& call, Arguments& a, F f) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const TensorView& x = a.In(0)->view;
  if (x.rank != 3 || x.dims[1] != 5)
    return call.Invalid("input 0 has shape {}, expected [B,5,N]", ShapeString(x));
  RETURN_IF_ERROR(call.RequireSameShape(a.In(1), "input 1", a.In(0), "input 0"));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "the output", a.In(0), "input 0"));
  Value weights = a.Attr("weight", std::vector<double>{1, 1, 1, 1, 1});
  RETURN_IF_ERROR(a.status());
  if (weights.size() != 5) return call.Invalid("weight is {}, expected 5 numbers", weights.Show());
  std::array<double, 5> weight;
  for (size_t k = 0; k < 5; ++k) weight[k] = weights.Real(k);
  return call.Launch({In(a.In(0)), In(a.In(1)), Out(a.Out(0))},
                     Cost{10.0 * static_cast<double>(x.numel()), 0}, [weight, f](const Run& t) -> Status {
                       const Dense p(t[0], DType::kDouble, Dense::kRead),
                           q(t[1], DType::kDouble, Dense::kRead);
                       Dense out(t[2], DType::kDouble, Dense::kWrite);
                       const int64_t n = t[0].dims[2];
                       ParallelFor(t[0].dims[0] * n, 256, [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i) {
                           const int64_t first = i / n * 5 * n + i % n;
                           double u[5], v[5], y[5];
                           for (int k = 0; k < 5; ++k) {
                             u[k] = p.ptr<double>()[first + k * n];
                             v[k] = q.ptr<double>()[first + k * n];
                           }
                           f(u, v, weight, y);
                           for (int k = 0; k < 5; ++k) out.ptr<double>()[first + k * n] = y[k];
                         }
                       });
                       out.Commit();
                       return Status();
                     });
}

}  // namespace

// anchor_box, ground_truth_box.
Status BoundingBoxEncode(Call& call, Arguments& a) {
  Scaling s;
  RETURN_IF_ERROR(ReadScaling(a, &s));
  return ByRow(call, a, 4, [s](const double* anchor, const double* truth, double* out) {
    const Extent p(anchor, 1), g(truth, 1);
    const double delta[4] = {(g.x - p.x) / p.w, (g.y - p.y) / p.h, std::log(std::abs(g.w / p.w)),
                             std::log(std::abs(g.h / p.h))};
    for (int k = 0; k < 4; ++k) out[k] = (delta[k] - s.mean[k]) / s.deviation[k];
  });
}

// rois, deltas; within the image.
Status BoundingBoxDecode(Call& call, Arguments& a) {
  Scaling s;
  RETURN_IF_ERROR(ReadScaling(a, &s));
  const Value shape = a.Attr("max_shape");
  const double limit = std::abs(std::log(a.Number("wh_ratio_clip", 0.016)));
  RETURN_IF_ERROR(a.status());
  if (shape.size() != 2) return call.Invalid("max_shape is {}, expected [height,width]", shape.Show());
  const double height = shape.Real(0), width = shape.Real(1);
  return ByRow(call, a, 4, [=](const double* roi, const double* deltas, double* out) {
    const Extent p(roi, 1);
    double d[4];
    for (int k = 0; k < 4; ++k) d[k] = deltas[k] * s.deviation[k] + s.mean[k];
    const double w = p.w * std::exp(std::clamp(d[2], -limit, limit)),
                 h = p.h * std::exp(std::clamp(d[3], -limit, limit));
    const double x = p.x + p.w * d[0], y = p.y + p.h * d[1];
    out[0] = std::clamp(x - w / 2 + 0.5, 0.0, width - 1);
    out[1] = std::clamp(y - h / 2 + 0.5, 0.0, height - 1);
    out[2] = std::clamp(x + w / 2 - 0.5, 0.0, width - 1);
    out[3] = std::clamp(y + h / 2 - 0.5, 0.0, height - 1);
  });
}

Status RotatedBoxEncode(Call& call, Arguments& a) {
  return ByRotatedBox(call, a,
                      [](const double* anchor, const double* truth, const auto& weight, double* out) {
                        const Extent p(anchor, 0), g(truth, 0);
                        out[0] = (g.x - p.x) / p.w * weight[0];
                        out[1] = (g.y - p.y) / p.h * weight[1];
                        out[2] = std::log(g.w / p.w) * weight[2];
                        out[3] = std::log(g.h / p.h) * weight[3];
                        out[4] = (std::tan(Radians(truth[4])) - std::tan(Radians(anchor[4]))) * weight[4];
                      });
}

Status RotatedBoxDecode(Call& call, Arguments& a) {
  return ByRotatedBox(
      call, a, [](const double* anchor, const double* delta, const auto& weight, double* out) {
        const Extent p(anchor, 0);
        const double x = p.x + delta[0] / weight[0] * p.w, y = p.y + delta[1] / weight[1] * p.h;
        const double w = p.w * std::exp(delta[2] / weight[2]), h = p.h * std::exp(delta[3] / weight[3]);
        out[0] = x - w / 2, out[1] = y - h / 2, out[2] = x + w / 2, out[3] = y + h / 2;
        out[4] = std::atan(std::tan(Radians(anchor[4])) + delta[4] / weight[4]) * 180 / std::numbers::pi;
      });
}

// anchor_boxes, gt_bboxes, stride: the centre within its cell, and the logarithm of the size's ratio.
Status YoloBoxesEncode(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const TensorView& x = a.In(0)->view;
  const int64_t n = x.rank == 2 ? x.dims[0] : -1;
  if (n < 0 || x.dims[1] != 4 || a.In(2)->view.numel() != n)
    return call.Invalid("anchor_boxes has shape {} and stride {}, expected [N,4] and [N]", ShapeString(x),
                        ShapeString(a.In(2)->view));
  RETURN_IF_ERROR(call.RequireSameShape(a.In(1), "gt_bboxes", a.In(0), "anchor_boxes"));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "encoded_bboxes", a.In(0), "anchor_boxes"));
  return call.Launch({In(a.In(0)), In(a.In(1)), In(a.In(2)), Out(a.Out(0))},
                     Cost{40.0 * static_cast<double>(n), 0}, [n](const Run& t) -> Status {
                       constexpr double kEps = 1e-6;
                       const Dense anchors(t[0], DType::kDouble, Dense::kRead),
                           truths(t[1], DType::kDouble, Dense::kRead),
                           strides(t[2], DType::kDouble, Dense::kRead);
                       Dense out(t[3], DType::kDouble, Dense::kWrite);
                       for (int64_t i = 0; i < n; ++i) {
                         const Extent p(anchors.ptr<double>() + 4 * i, 0), g(truths.ptr<double>() + 4 * i, 0);
                         const double stride = strides.ptr<double>()[i];
                         double* y = out.ptr<double>() + 4 * i;
                         y[0] = std::clamp((g.x - p.x) / stride + 0.5, kEps, 1 - kEps);
                         y[1] = std::clamp((g.y - p.y) / stride + 0.5, kEps, 1 - kEps);
                         y[2] = std::log(std::max(g.w / p.w, kEps));
                         y[3] = std::log(std::max(g.h / p.h, kEps));
                       }
                       out.Commit();
                       return Status();
                     });
}

// The anchors of the cells in which a truth's centre lies.
Status AnchorResponseFlags(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const Value size = a.Attr("featmap_size"), strides = a.Attr("strides");
  const int64_t anchors = a.Integer(a.Attr("num_base_anchors"));
  RETURN_IF_ERROR(a.status());
  const TensorView& x = a.In(0)->view;
  if (size.size() != 2 || strides.size() != 2 || x.rank != 2 || x.dims[1] != 4 || anchors < 0 ||
      size.Integer(0) < 0 || size.Integer(1) < 0 || strides.Real(0) <= 0 || strides.Real(1) <= 0 ||
      a.Out(0)->view.numel() != size.Integer(0) * size.Integer(1) * anchors)
    return call.Invalid(
        "gt_bboxes has shape {}, flags {}, featmap_size is {} and strides {}, expected [N,4], height * width "
        "* "
        "num_base_anchors flags and two numbers each",
        ShapeString(x), ShapeString(a.Out(0)->view), size.Show(), strides.Show());
  const int64_t height = size.Integer(0), width = size.Integer(1);
  const double step_w = strides.Real(0), step_h = strides.Real(1);
  return call.Launch(
      {In(a.In(0)), Out(a.Out(0))}, Cost{static_cast<double>(a.Out(0)->view.numel()), 0},
      [=](const Run& t) -> Status {
        const Dense boxes(t[0], DType::kDouble, Dense::kRead);
        Dense flags(t[1], DType::kUint8, Dense::kWrite);
        std::fill(flags.ptr<uint8_t>(), flags.ptr<uint8_t>() + flags.view().numel(), uint8_t{0});
        for (int64_t i = 0; i < t[0].dims[0]; ++i) {
          const Extent g(boxes.ptr<double>() + 4 * i, 0);
          const double column = std::floor(g.x / step_w), row = std::floor(g.y / step_h);
          if (!(column >= 0 && column < static_cast<double>(width) && row >= 0 &&
                row < static_cast<double>(height)))
            continue;
          uint8_t* cell = flags.ptr<uint8_t>() +
                          (static_cast<int64_t>(row) * width + static_cast<int64_t>(column)) * anchors;
          std::fill(cell, cell + anchors, uint8_t{1});
        }
        flags.Commit();
        return Status();
      });
}

// The signs of floats as bits, the first one lowest; missing ones count as negative.
Status SignBitsPack(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const int64_t n = a.In(0)->view.numel(), bytes = (n + 7) / 8;
  if (a.Out(0)->view.numel() != bytes || a.Out(0)->view.dtype != DType::kUint8)
    return call.Invalid("y has shape {} and type {}, expected {} of uint8", ShapeString(a.Out(0)->view),
                        Name(a.Out(0)->view.dtype), bytes);
  return call.Launch({In(a.In(0)), Out(a.Out(0))}, Cost{static_cast<double>(n), 0},
                     [n, bytes](const Run& t) -> Status {
                       const Dense x(t[0], DType::kFloat, Dense::kRead);
                       Dense y(t[1], Dense::kWrite);
                       ParallelFor(bytes, 4096, [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i) {
                           unsigned bits = 0;
                           for (int64_t k = 0; k < std::min<int64_t>(8, n - 8 * i); ++k)
                             bits |= static_cast<unsigned>(x.ptr<float>()[8 * i + k] >= 0) << k;
                           y.ptr<uint8_t>()[i] = static_cast<uint8_t>(bits);
                         }
                       });
                       y.Commit();
                       return Status();
                     });
}

Status SignBitsUnpack(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const int64_t bytes = a.In(0)->view.numel();
  if (a.Out(0)->view.numel() != 8 * bytes || a.In(0)->view.dtype != DType::kUint8)
    return call.Invalid("x has {} bytes of type {} and y shape {}, expected uint8 and {} elements", bytes,
                        Name(a.In(0)->view.dtype), ShapeString(a.Out(0)->view), 8 * bytes);
  return call.Launch({In(a.In(0)), Out(a.Out(0))}, Cost{8.0 * static_cast<double>(bytes), 0},
                     [bytes](const Run& t) -> Status {
                       const Dense x(t[0], Dense::kRead);
                       Dense y(t[1], DType::kFloat, Dense::kWrite);
                       ParallelFor(bytes, 1024, [&](int64_t begin, int64_t end) {
                         for (int64_t i = 8 * begin; i < 8 * end; ++i)
                           y.ptr<float>()[i] = (x.ptr<uint8_t>()[i / 8] >> (i % 8) & 1) != 0 ? 1.0f : -1.0f;
                       });
                       y.Commit();
                       return Status();
                     });
}

}  // namespace anycann::aclop
