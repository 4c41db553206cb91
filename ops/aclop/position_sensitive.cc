// Position-sensitive pooling of regions (R-FCN): each bin of a region averages its own channel; and the
// gradient.
#include <algorithm>
#include <cmath>

#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

struct Settings {
  double scale;
  int64_t channels, group;
};

Status ReadSettings(Arguments& a, const TensorView& rois, Settings* s) {
  *s = {a.Real(a.Attr("spatial_scale")), a.Integer(a.Attr("output_dim")), a.Integer(a.Attr("group_size"))};
  RETURN_IF_ERROR(a.status());
  if (s->channels <= 0 || s->group <= 0 || s->group >= 128)
    return a.call().Invalid(
        "output_dim is {} and group_size {}, expected a positive number and one in [1,127]", s->channels,
        s->group);
  if (rois.rank != 3 || rois.dims[1] != 5)
    return a.call().Invalid("rois has shape {}, expected [batch,5,rois_num]", ShapeString(rois));
  return Status();
}

struct Bin {
  int64_t top, bottom, left, right;
  double area() const { return static_cast<double>((bottom - top) * (right - left)); }
};

// f(image, channel of the map, channel of the output, bin, number of the bin) for all bins that have pixels.
// rois: five rows of numbers for each of `batch`: image, x1, y1, x2, y2.
template <class F>
Status VisitBins(const Settings& s, const Dense& rois, int64_t images, int64_t height, int64_t width, F f) {
  const int64_t count = rois.view().dims[2];
  const auto pixel = [](double v, int64_t size) {
    return static_cast<int64_t>(std::clamp(v, 0.0, static_cast<double>(size)));
  };
  for (int64_t k = 0; k < rois.view().dims[0] * count; ++k) {
    const double* roi = rois.ptr<double>() + k / count * 5 * count + k % count;
    const auto edge = [&](int64_t i, double last) { return (std::round(roi[i * count]) + last) * s.scale; };
    const double x = edge(1, 0), y = edge(2, 0), w = std::max(edge(3, 1) - x, 0.1),
                 h = std::max(edge(4, 1) - y, 0.1);
    const double cell_w = w / static_cast<double>(s.group), cell_h = h / static_cast<double>(s.group);
    if (!std::isfinite(x + y + w + h)) continue;
    for (int64_t cell = 0; cell < s.group * s.group; ++cell) {
      const double row = static_cast<double>(cell / s.group), column = static_cast<double>(cell % s.group);
      const Bin bin{
          pixel(std::floor(y + row * cell_h), height), pixel(std::ceil(y + (row + 1) * cell_h), height),
          pixel(std::floor(x + column * cell_w), width), pixel(std::ceil(x + (column + 1) * cell_w), width)};
      if (bin.bottom <= bin.top || bin.right <= bin.left) continue;
      if (!(roi[0] >= 0 && roi[0] < static_cast<double>(images)))
        return Error(kParamInvalid, "PSROIPooling: a region is of image {}, expected a value in [0,{})",
                     roi[0], images);
      for (int64_t c = 0; c < s.channels; ++c)
        f(static_cast<int64_t>(roi[0]), c * s.group * s.group + cell,
          (k * s.channels + c) * s.group * s.group + cell, bin);
    }
  }
  return Status();
}

}  // namespace

// x [N, output_dim * group_size^2, H, W], rois -> [regions, output_dim, group_size, group_size]; 0 for a bin
// without pixels.
Status PSROIPoolingV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const TensorView& rois = a.In(1)->view;
  Settings s;
  RETURN_IF_ERROR(ReadSettings(a, rois, &s));
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "x", 4, 4));
  const int64_t *x = a.In(0)->view.dims, map[] = {x[0], s.channels * s.group * s.group, x[2], x[3]},
                out[] = {rois.dims[0] * rois.dims[2], s.channels, s.group, s.group};
  RETURN_IF_ERROR(call.RequireShape(a.In(0), "x", map, 4));
  RETURN_IF_ERROR(call.RequireShape(a.Out(0), "y", out, 4));
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0))}, Cost{10.0 * static_cast<double>(a.Out(0)->view.numel()), 0},
      [s](const Run& t) -> Status {
        const Dense in(t[0], DType::kDouble, Dense::kRead), rois(t[1], DType::kDouble, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite);
        const int64_t height = t[0].dims[2], width = t[0].dims[3];
        std::fill(out.ptr<double>(), out.ptr<double>() + out.view().numel(), 0.0);
        RETURN_IF_ERROR(VisitBins(s, rois, t[0].dims[0], height, width,
                                  [&](int64_t image, int64_t channel, int64_t to, const Bin& bin) {
                                    const double* plane =
                                        in.ptr<double>() + (image * t[0].dims[1] + channel) * height * width;
                                    double sum = 0;
                                    for (int64_t r = bin.top; r < bin.bottom; ++r)
                                      for (int64_t c = bin.left; c < bin.right; ++c)
                                        sum += plane[r * width + c];
                                    out.ptr<double>()[to] = sum / bin.area();
                                  }));
        out.Commit();
        return Status();
      });
}

// x (the gradient of the result), rois -> the gradient of the map, [N, output_dim * group_size^2, H, W].
Status PSROIPoolingGradV2D(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const TensorView& rois = a.In(1)->view;
  Settings s;
  RETURN_IF_ERROR(ReadSettings(a, rois, &s));
  RETURN_IF_ERROR(call.RequireRank(a.Out(0), "y", 4, 4));
  const Value size = a.Attr("input_size");
  RETURN_IF_ERROR(a.status());
  if (size.text() || size.size() < 2)
    return call.Invalid("input_size is {}, expected [height,width]", size.Show());
  const int64_t map[] = {a.Out(0)->view.dims[0], s.channels * s.group * s.group, size.Integer(0),
                         size.Integer(1)},
                out[] = {rois.dims[0] * rois.dims[2], s.channels, s.group, s.group};
  RETURN_IF_ERROR(call.RequireShape(a.Out(0), "y", map, 4));
  RETURN_IF_ERROR(call.RequireShape(a.In(0), "x", out, 4));
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0))}, Cost{10.0 * static_cast<double>(a.In(0)->view.numel()), 0},
      [s](const Run& t) -> Status {
        const Dense grad(t[0], DType::kDouble, Dense::kRead), rois(t[1], DType::kDouble, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite);
        const int64_t height = t[2].dims[2], width = t[2].dims[3];
        std::fill(out.ptr<double>(), out.ptr<double>() + out.view().numel(), 0.0);
        RETURN_IF_ERROR(VisitBins(s, rois, t[2].dims[0], height, width,
                                  [&](int64_t image, int64_t channel, int64_t from, const Bin& bin) {
                                    double* plane =
                                        out.ptr<double>() + (image * t[2].dims[1] + channel) * height * width;
                                    const double part = grad.ptr<double>()[from] / bin.area();
                                    for (int64_t r = bin.top; r < bin.bottom; ++r)
                                      for (int64_t c = bin.left; c < bin.right; ++c)
                                        plane[r * width + c] += part;
                                  }));
        out.Commit();
        return Status();
      });
}

}  // namespace anycann::aclop
