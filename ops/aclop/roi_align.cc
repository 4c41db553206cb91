// ROIAlign: averages of bilinear samples of a feature map within a region, and the gradient.
#include <algorithm>
#include <cmath>

#include "aclop_operators.h"
#include "base/parallel.h"

namespace anycann::aclop {
namespace {

struct Settings {
  double scale;
  int64_t height, width, samples;
  double last_pixel;  // 1: the region's end counts as a pixel of it
};

Status ReadSettings(Arguments& a, const aclTensor* rois, Settings* s) {
  *s = {a.Real(a.Attr("spatial_scale")), a.Integer(a.Attr("pooled_height")),
        a.Integer(a.Attr("pooled_width")), a.Integer(a.Attr("sample_num", int64_t{2})),
        a.Number("roi_end_mode", 1)};
  RETURN_IF_ERROR(a.status());
  if (s->last_pixel != 0 && s->last_pixel != 1)
    return a.call().Invalid("roi_end_mode is {}, expected 0 or 1", s->last_pixel);
  if (s->height <= 0 || s->width <= 0 || s->samples < 0)
    return a.call().Invalid(
        "pooled_height is {}, pooled_width {} and sample_num {}, expected positive numbers", s->height,
        s->width, s->samples);
  if (rois->view.rank != 2 || rois->view.dims[1] != 5)
    return a.call().Invalid("rois has shape {}, expected [N,5]", ShapeString(rois->view));
  return Status();
}

// The four neighbours of a sample and their weights; count 0: outside of the map.
struct Sample {
  int64_t at[4];
  double weight[4];
  int count = 0;
  Sample(double y, double x, int64_t height, int64_t width) {
    if (!(y >= -1 && y <= static_cast<double>(height) && x >= -1 && x <= static_cast<double>(width))) return;
    count = 4;
    y = std::max(y, 0.0), x = std::max(x, 0.0);
    int64_t y0 = std::min(static_cast<int64_t>(y), height - 1),
            x0 = std::min(static_cast<int64_t>(x), width - 1);
    const int64_t y1 = std::min(y0 + 1, height - 1), x1 = std::min(x0 + 1, width - 1);
    const double fy = y0 + 1 < height ? y - static_cast<double>(y0) : 0,
                 fx = x0 + 1 < width ? x - static_cast<double>(x0) : 0;
    const int64_t places[4] = {y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1};
    const double weights[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
    std::copy(places, places + 4, at);
    std::copy(weights, weights + 4, weight);
  }
};

// f(bin, sample, 1 / samples of the bin) for every sample of one region.
template <class F>
void VisitSamples(const Settings& s, const double* roi, int64_t height, int64_t width, F f) {
  const double x = roi[1] * s.scale, y = roi[2] * s.scale;
  const double w = std::max((roi[3] + s.last_pixel) * s.scale - x, 1.0),
               h = std::max((roi[4] + s.last_pixel) * s.scale - y, 1.0);
  const double bin_w = w / static_cast<double>(s.width), bin_h = h / static_cast<double>(s.height);
  // A region far larger than the map would ask for as many samples: none outside of it counts.
  const auto samples = [&](double bin, int64_t bound) {
    return s.samples > 0 ? s.samples
                         : static_cast<int64_t>(std::min(std::ceil(bin), static_cast<double>(bound) + 2));
  };
  const int64_t rows = samples(bin_h, height), columns = samples(bin_w, width);
  const double part = 1 / static_cast<double>(rows * columns);
  for (int64_t bin = 0; bin < s.height * s.width; ++bin)
    for (int64_t i = 0; i < rows * columns; ++i) {
      const double v = y + (static_cast<double>(bin / s.width) +
                            (static_cast<double>(i / columns) + 0.5) / static_cast<double>(rows)) *
                               bin_h;
      const double u = x + (static_cast<double>(bin % s.width) +
                            (static_cast<double>(i % columns) + 0.5) / static_cast<double>(columns)) *
                               bin_w;
      f(bin, Sample(v, u, height, width), part);
    }
}

Status BadImage(double image, int64_t images) {
  return Error(kParamInvalid, "ROIAlign: a region is of image {}, expected a value in [0,{})", image, images);
}

}  // namespace

// features [N, C, H, W], rois [K, 5] (image, x1, y1, x2, y2) -> [K, C, pooled_height, pooled_width].
Status RoiAlign(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Settings s;
  RETURN_IF_ERROR(ReadSettings(a, a.In(1), &s));
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "features", 4, 4));
  const TensorView& x = a.In(0)->view;
  const int64_t k = a.In(1)->view.dims[0], dims[] = {k, x.dims[1], s.height, s.width};
  RETURN_IF_ERROR(call.RequireShape(a.Out(0), "y", dims, 4));
  if (a.Out(0)->view.empty()) return call.Nothing();
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0))}, Cost{40.0 * static_cast<double>(a.Out(0)->view.numel()), 0},
      [s](const Run& t) -> Status {
        const Dense in(t[0], DType::kDouble, Dense::kRead), rois(t[1], DType::kDouble, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite);
        const int64_t n = t[0].dims[0], c = t[0].dims[1], plane = t[0].dims[2] * t[0].dims[3],
                      bins = s.height * s.width;
        std::fill(out.ptr<double>(), out.ptr<double>() + out.view().numel(), 0.0);
        for (int64_t k = 0; k < t[1].dims[0]; ++k) {
          const double* roi = rois.ptr<double>() + 5 * k;
          if (!(roi[0] >= 0 && roi[0] < static_cast<double>(n))) return BadImage(roi[0], n);
          const double* image = in.ptr<double>() + static_cast<int64_t>(roi[0]) * c * plane;
          double* y = out.ptr<double>() + k * c * bins;
          VisitSamples(s, roi, t[0].dims[2], t[0].dims[3], [&](int64_t bin, const Sample& p, double part) {
            for (int i = 0; i < p.count; ++i)
              for (int64_t j = 0; j < c; ++j)
                y[j * bins + bin] += image[j * plane + p.at[i]] * p.weight[i] * part;
          });
        }
        out.Commit();
        return Status();
      });
}

// ydiff [K, C, pooled_height, pooled_width], rois [K, 5] -> xdiff [N, C, H, W].
Status RoiAlignGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Settings s;
  RETURN_IF_ERROR(ReadSettings(a, a.In(1), &s));
  RETURN_IF_ERROR(call.RequireRank(a.Out(0), "xdiff", 4, 4));
  const int64_t k = a.In(1)->view.dims[0], dims[] = {k, a.Out(0)->view.dims[1], s.height, s.width};
  RETURN_IF_ERROR(call.RequireShape(a.In(0), "ydiff", dims, 4));
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0))}, Cost{40.0 * static_cast<double>(a.In(0)->view.numel()), 0},
      [s](const Run& t) -> Status {
        const Dense dy(t[0], DType::kDouble, Dense::kRead), rois(t[1], DType::kDouble, Dense::kRead);
        Dense dx(t[2], DType::kDouble, Dense::kWrite);
        const int64_t n = t[2].dims[0], c = t[2].dims[1], plane = t[2].dims[2] * t[2].dims[3],
                      bins = s.height * s.width;
        std::fill(dx.ptr<double>(), dx.ptr<double>() + dx.view().numel(), 0.0);
        for (int64_t k = 0; k < t[1].dims[0]; ++k) {
          const double* roi = rois.ptr<double>() + 5 * k;
          if (!(roi[0] >= 0 && roi[0] < static_cast<double>(n))) return BadImage(roi[0], n);
          double* image = dx.ptr<double>() + static_cast<int64_t>(roi[0]) * c * plane;
          const double* g = dy.ptr<double>() + k * c * bins;
          VisitSamples(s, roi, t[2].dims[2], t[2].dims[3], [&](int64_t bin, const Sample& p, double part) {
            for (int i = 0; i < p.count; ++i)
              for (int64_t j = 0; j < c; ++j)
                image[j * plane + p.at[i]] += g[j * bins + bin] * p.weight[i] * part;
          });
        }
        dx.Commit();
        return Status();
      });
}

}  // namespace anycann::aclop
