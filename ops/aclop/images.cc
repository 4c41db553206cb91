// Legacy operators on images: regions cut out and resized, pixels as numbers in [0,1], and JPEG data decoded.
#include <algorithm>
#include <cmath>

#include "aclop_operators.h"
#include "base/parallel.h"
#include "ops/aclop/jpeg.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {
namespace {

// Where `count` samples lie along [first, last] of a side of `size` pixels: corners are pixel centres.
double Place(double first, double last, int64_t size, int64_t count, int64_t i) {
  const double end = static_cast<double>(size - 1);
  if (count == 1) return 0.5 * (first + last) * end;
  return (first + (last - first) * static_cast<double>(i) / static_cast<double>(count - 1)) * end;
}

}  // namespace

// x (images), boxes [K, 4] (y1, x1, y2, x2; 1 is the last pixel), box_index [K], crop_size -> K regions of
// that size. Channels come first or last: y's shape says which, first where both would do.
Status CropAndResizeV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  const TensorView &x = a.In(0)->view, &y = a.Out(0)->view, &boxes = a.In(1)->view;
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "x", 4, 4));
  RETURN_IF_ERROR(call.RequireRank(a.Out(0), "y", 4, 4));
  const Value size = a.Constant(3);
  const double outside = a.Number("extrapolation_value", 0);
  const bool nearest = a.Flag(a.Index(a.Attr("method", "bilinear"), {"bilinear", "nearest"}));
  RETURN_IF_ERROR(a.status());
  if (boxes.rank != 2 || boxes.dims[1] != 4 || a.In(2)->view.numel() != boxes.dims[0] || size.size() != 2)
    return call.Invalid(
        "boxes has shape {}, box_index {} and crop_size is {}, expected [K,4], [K] and two numbers",
        ShapeString(boxes), ShapeString(a.In(2)->view), size.Show());
  const int64_t k = boxes.dims[0], height = size.Integer(0), width = size.Integer(1);
  const auto is = [&](int64_t d1, int64_t d2, int64_t d3) {
    return y.dims[0] == k && y.dims[1] == d1 && y.dims[2] == d2 && y.dims[3] == d3;
  };
  const bool channels_first = is(x.dims[1], height, width);
  if (height <= 0 || width <= 0 || (!channels_first && !is(height, width, x.dims[3])))
    return call.Invalid("y has shape {}, expected [{},{},{},{}] or [{},{},{},{}]", ShapeString(y), k,
                        x.dims[1], height, width, k, height, width, x.dims[3]);
  const auto planes = [&](const TensorView& v) {
    return channels_first ? v : v.Transpose(2, 3).Transpose(1, 2);
  };
  if (y.empty()) return call.Nothing();
  return call.Launch(
      {In(a.In(0), planes(x)), In(a.In(1)), In(a.In(2)), Out(a.Out(0), planes(y))},
      Cost{20.0 * static_cast<double>(y.numel()), 0}, [outside, nearest](const Run& t) -> Status {
        const Dense in(t[0], DType::kDouble, Dense::kRead), boxes(t[1], DType::kDouble, Dense::kRead),
            images(t[2], DType::kInt64, Dense::kRead);
        Dense out(t[3], DType::kDouble, Dense::kWrite);
        const bool whole = IsInteger(t[3].dtype);
        const int64_t c = t[0].dims[1], h = t[0].dims[2], w = t[0].dims[3], rows = t[3].dims[2],
                      columns = t[3].dims[3];
        for (int64_t k = 0; k < t[3].dims[0]; ++k) {
          const int64_t image = images.ptr<int64_t>()[k];
          if (image < 0 || image >= t[0].dims[0])
            return Error(kParamInvalid, "CropAndResizeV2: box_index is {}, expected a value in [0,{})", image,
                         t[0].dims[0]);
          const double* box = boxes.ptr<double>() + 4 * k;
          ParallelFor(c * rows, 16, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              const double* plane = in.ptr<double>() + (image * c + i / rows) * h * w;
              const double v = Place(box[0], box[2], h, rows, i % rows);
              for (int64_t j = 0; j < columns; ++j) {
                const double u = Place(box[1], box[3], w, columns, j);
                double value = outside;
                if (v >= 0 && v <= static_cast<double>(h - 1) && u >= 0 && u <= static_cast<double>(w - 1)) {
                  const auto at = [&](double row, double column) {
                    return plane[static_cast<int64_t>(row) * w + static_cast<int64_t>(column)];
                  };
                  const double top = std::floor(v), left = std::floor(u), bottom = std::ceil(v),
                               right = std::ceil(u);
                  value = nearest
                              ? at(std::round(v), std::round(u))
                              : (at(top, left) * (1 - (u - left)) + at(top, right) * (u - left)) *
                                        (1 - (v - top)) +
                                    (at(bottom, left) * (1 - (u - left)) + at(bottom, right) * (u - left)) *
                                        (v - top);
                }
                out.ptr<double>()[((k * c + i / rows) * rows + i % rows) * columns + j] =
                    whole ? std::nearbyint(value) : value;
              }
            }
          });
        }
        out.Commit();
        return Status();
      });
}

// x (bytes) -> y = x / 255.
Status ImgToTensor(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  RETURN_IF_ERROR(call.RequireDType(a.In(0), "x", DType::kUint8));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "y", a.In(0), "x"));
  return Pointwise<1, 1>(call, {a.In(0)}, {a.Out(0)},
                         [](const double(&x)[1], double(&y)[1]) { y[0] = x[0] / 255; });
}

// contents (a string, or the bytes of one) -> the image's bytes, [H, W, C] or [C, H, W].
Status DecodeJpeg(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  JpegSettings s;
  const int64_t channels = a.Integer(a.Attr("channels", int64_t{0})),
                ratio = a.Integer(a.Attr("ratio", int64_t{1}));
  s.fancy_upscaling = a.Flag(a.Attr("fancy_upscaling", true));
  s.acceptable = a.Flag(a.Attr("try_recover_truncated", false)) ? a.Number("acceptable_fraction", 1) : 2;
  s.fast = a.Integer(a.Index(a.Attr("dct_method", ""), {"", "INTEGER_ACCURATE", "INTEGER_FAST"})) == 2;
  const bool channels_first = a.Flag(a.Index(a.Attr("dst_img_format", "HWC"), {"HWC", "CHW"}));
  RETURN_IF_ERROR(a.status());
  if (channels != 0 && channels != 1 && channels != 3)
    return call.Invalid("channels is {}, expected 0 (as in the data), 1 or 3", channels);
  if (ratio != 1 && ratio != 2 && ratio != 4 && ratio != 8)
    return call.Invalid("ratio is {}, expected 1, 2, 4 or 8", ratio);
  RETURN_IF_ERROR(call.RequireRank(a.Out(0), "image", 3, 3));
  RETURN_IF_ERROR(call.RequireDType(a.Out(0), "image", DType::kUint8));
  const TensorView &image = a.Out(0)->view,
                   rows = channels_first ? image.Transpose(0, 1).Transpose(1, 2) : image;
  s.channels = rows.dims[2], s.ratio = ratio;
  if (s.channels != 1 && s.channels != 3)
    return call.Invalid("image has {} channels, expected 1 or 3", s.channels);
  if (channels != 0 && channels != s.channels)
    return call.Invalid("channels is {}, but image has {}", channels, s.channels);
  return call.Launch({In(a.In(0)), Out(a.Out(0), rows)}, Cost{20.0 * static_cast<double>(image.numel()), 0},
                     [s](const Run& t) -> Status {
                       const Dense data(t[0], DType::kUint8, Dense::kRead);
                       Dense out(t[1], DType::kUint8, Dense::kWrite);
                       RETURN_IF_ERROR(DecodeJpegTo(s, data.ptr<uint8_t>(), data.view().numel(), t[1].dims[0],
                                                    t[1].dims[1], out.ptr<uint8_t>()));
                       out.Commit();
                       return Status();
                     });
}

}  // namespace anycann::aclop
