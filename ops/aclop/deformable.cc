// DeformableOffsets: the samples that a deformable convolution takes, laid out so that an ordinary one with
// the kernel as its stride finishes it; and the gradient. Each sample is bilinear, moved by offsets and
// scaled by a modulation.
#include <algorithm>
#include <cmath>

#include "aclop_operators.h"
#include "base/parallel.h"

namespace anycann::aclop {
namespace {

struct Geometry {
  int64_t kernel[2], stride[2], pad[2], dilation[2];  // rows, columns; pad: before the image
  int64_t groups, parts;  // parts: offsets of columns, of rows, and the modulation if there is one
  bool channels_last;
  int64_t taps() const { return kernel[0] * kernel[1]; }
};

// The view as [N, H, W, C].
TensorView ChannelsLast(const Geometry& g, const TensorView& v) {
  return g.channels_last ? v : v.Transpose(1, 3).Transpose(1, 2);
}

Status ReadGeometry(Arguments& a, Geometry* g) {
  const std::string order = a.Text("data_format", "NCHW");
  g->channels_last = order == "NHWC";
  if (order != "NCHW" && !g->channels_last)
    return a.call().Invalid("data_format is {}, expected NCHW or NHWC", order);
  const Value kernel = a.Attr("ksize"), strides = a.Attr("strides"), pads = a.Attr("pads"),
              dilations = a.Attr("dilations", std::vector<int64_t>{1, 1, 1, 1});
  g->groups = a.Integer(a.Attr("deformable_groups", int64_t{1}));
  g->parts = a.Flag(a.Attr("modulated", true)) ? 3 : 2;
  RETURN_IF_ERROR(a.status());
  if (kernel.text() || kernel.size() != 2 || strides.text() || strides.size() != 4 || pads.text() ||
      pads.size() != 4 || dilations.text() || dilations.size() != 4)
    return a.call().Invalid(
        "ksize is {}, strides {}, pads {} and dilations {}, expected 2, 4, 4 and 4 numbers", kernel.Show(),
        strides.Show(), pads.Show(), dilations.Show());
  const size_t first = g->channels_last ? 1 : 2;  // of the spatial dimensions
  constexpr int64_t kMost = int64_t{1} << 20;
  for (size_t i = 0; i < 2; ++i) {
    g->kernel[i] = kernel.Integer(i), g->stride[i] = strides.Integer(first + i);
    g->pad[i] = pads.Integer(2 * i), g->dilation[i] = dilations.Integer(first + i);
    for (const int64_t v : {g->kernel[i], g->stride[i], g->dilation[i]})
      if (v <= 0 || v > kMost)
        return a.call().Invalid("ksize is {}, strides {} and dilations {}, expected values in [1,{}]",
                                kernel.Show(), strides.Show(), dilations.Show(), kMost);
    if (g->pad[i] < 0 || g->pad[i] > kMost)
      return a.call().Invalid("pads are {}, expected values in [0,{}]", pads.Show(), kMost);
  }
  return Status();
}

// x [N, H, W, C], offsets [N, Ho, Wo, parts * groups * taps], samples [N, Ho * kernel, Wo * kernel, C], by
// their views.
Status CheckShapes(Call& call, const Geometry& g, const TensorView& x, const TensorView& offsets,
                   const TensorView& samples) {
  const int64_t* o = offsets.dims;
  const bool fit = g.groups > 0 && g.groups <= x.dims[3] && x.dims[3] % g.groups == 0 && o[0] == x.dims[0] &&
                   o[3] % (g.parts * g.taps()) == 0 && o[3] / (g.parts * g.taps()) == g.groups &&
                   samples.dims[0] == x.dims[0] && samples.dims[3] == x.dims[3] &&
                   samples.dims[1] == o[1] * g.kernel[0] && samples.dims[2] == o[2] * g.kernel[1];
  if (fit) return Status();
  return call.Invalid(
      "by [N,H,W,C], x has shape {}, offsets {} and the samples {}: for {} groups and a kernel of {} x {} "
      "they don't fit "
      "together",
      ShapeString(x), ShapeString(offsets), ShapeString(samples), g.groups, g.kernel[0], g.kernel[1]);
}

// One sample: its place in the image, its modulation, and where the three numbers stand in `offsets` (and in
// their gradient).
struct Tap {
  double y, x, modulation;
  int64_t column_offset, row_offset, modulation_offset;
};

// f(row of samples, column of samples, group, tap) for every sample of one image. offsets: [Ho, Wo, parts *
// groups * taps].
template <class F>
void VisitTaps(const Geometry& g, const double* offsets, int64_t ho, int64_t wo, F f) {
  const int64_t taps = g.taps(), part = g.groups * taps;
  for (int64_t place = 0; place < ho * wo; ++place)
    for (int64_t group = 0; group < g.groups; ++group)
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t row = k / g.kernel[1], column = k % g.kernel[1],
                      at = place * g.parts * part + group * taps + k;
        Tap t;
        t.column_offset = at, t.row_offset = at + part, t.modulation_offset = at + 2 * part;
        t.y = static_cast<double>(place / wo * g.stride[0] - g.pad[0] + row * g.dilation[0]) +
              offsets[t.row_offset];
        t.x = static_cast<double>(place % wo * g.stride[1] - g.pad[1] + column * g.dilation[1]) + offsets[at];
        t.modulation = g.parts == 3 ? offsets[t.modulation_offset] : 1;
        f(place / wo * g.kernel[0] + row, place % wo * g.kernel[1] + column, group, t);
      }
}

// f(pixel, weight, its derivative by the row, by the column) for each neighbour of the tap that is in the
// image.
template <class F>
void VisitNeighbours(const Tap& t, int64_t height, int64_t width, F f) {
  if (!(t.y > -1 && t.y < static_cast<double>(height) && t.x > -1 && t.x < static_cast<double>(width)))
    return;
  const double low_y = std::floor(t.y), low_x = std::floor(t.x);
  for (int corner = 0; corner < 4; ++corner) {
    const bool down = corner / 2 != 0, right = corner % 2 != 0;
    const int64_t row = static_cast<int64_t>(low_y) + down, column = static_cast<int64_t>(low_x) + right;
    if (row < 0 || row >= height || column < 0 || column >= width) continue;
    const double wy = down ? t.y - low_y : 1 - (t.y - low_y), wx = right ? t.x - low_x : 1 - (t.x - low_x);
    f(row * width + column, wy * wx, (down ? 1 : -1) * wx, (right ? 1 : -1) * wy);
  }
}

}  // namespace

// x, offsets -> y.
Status DeformableOffsets(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Geometry g;
  RETURN_IF_ERROR(ReadGeometry(a, &g));
  for (const aclTensor* t : {a.In(0), a.In(1), a.Out(0)})
    RETURN_IF_ERROR(call.RequireRank(t, "a tensor", 4, 4));
  const TensorView x = ChannelsLast(g, a.In(0)->view), offsets = ChannelsLast(g, a.In(1)->view),
                   y = ChannelsLast(g, a.Out(0)->view);
  RETURN_IF_ERROR(CheckShapes(call, g, x, offsets, y));
  if (y.empty()) return call.Nothing();
  return call.Launch(
      {In(a.In(0), x), In(a.In(1), offsets), Out(a.Out(0), y)},
      Cost{10.0 * static_cast<double>(y.numel()), 0}, [g](const Run& t) -> Status {
        const Dense in(t[0], DType::kDouble, Dense::kRead), moves(t[1], DType::kDouble, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite);
        const int64_t *x = t[0].dims, *o = t[1].dims, height = x[1], width = x[2], c = x[3],
                      part = c / g.groups;
        ParallelFor(x[0], 1, [&](int64_t begin, int64_t end) {
          for (int64_t n = begin; n < end; ++n) {
            const double* image = in.ptr<double>() + n * height * width * c;
            double* samples = out.ptr<double>() + n * o[1] * o[2] * g.taps() * c;
            VisitTaps(g, moves.ptr<double>() + n * o[1] * o[2] * o[3], o[1], o[2],
                      [&](int64_t row, int64_t column, int64_t group, const Tap& tap) {
                        double* y = samples + (row * o[2] * g.kernel[1] + column) * c + group * part;
                        std::fill(y, y + part, 0.0);
                        VisitNeighbours(tap, height, width,
                                        [&](int64_t pixel, double weight, double, double) {
                                          const double* v = image + pixel * c + group * part;
                                          for (int64_t i = 0; i < part; ++i)
                                            y[i] += v[i] * weight * tap.modulation;
                                        });
                      });
          }
        });
        out.Commit();
        return Status();
      });
}

// grad (of y), x, offsets -> grad_x, grad_offsets.
Status DeformableOffsetsGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 2));
  Geometry g;
  RETURN_IF_ERROR(ReadGeometry(a, &g));
  for (const aclTensor* t : {a.In(0), a.In(1), a.In(2)})
    RETURN_IF_ERROR(call.RequireRank(t, "a tensor", 4, 4));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "grad_x", a.In(1), "x"));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(1), "grad_offsets", a.In(2), "offsets"));
  const TensorView dy = ChannelsLast(g, a.In(0)->view), x = ChannelsLast(g, a.In(1)->view),
                   offsets = ChannelsLast(g, a.In(2)->view);
  RETURN_IF_ERROR(CheckShapes(call, g, x, offsets, dy));
  return call.Launch(
      {In(a.In(0), dy), In(a.In(1), x), In(a.In(2), offsets), Out(a.Out(0), ChannelsLast(g, a.Out(0)->view)),
       Out(a.Out(1), ChannelsLast(g, a.Out(1)->view))},
      Cost{30.0 * static_cast<double>(dy.numel()), 0}, [g](const Run& t) -> Status {
        const Dense grad(t[0], DType::kDouble, Dense::kRead), in(t[1], DType::kDouble, Dense::kRead),
            moves(t[2], DType::kDouble, Dense::kRead);
        Dense image_grad(t[3], DType::kDouble, Dense::kWrite), move_grad(t[4], DType::kDouble, Dense::kWrite);
        const int64_t *x = t[1].dims, *o = t[2].dims, height = x[1], width = x[2], c = x[3],
                      part = c / g.groups;
        ParallelFor(x[0], 1, [&](int64_t begin, int64_t end) {
          for (int64_t n = begin; n < end; ++n) {
            const double* image = in.ptr<double>() + n * height * width * c;
            const double* dy = grad.ptr<double>() + n * o[1] * o[2] * g.taps() * c;
            double* dx = image_grad.ptr<double>() + n * height * width * c;
            double* doffsets = move_grad.ptr<double>() + n * o[1] * o[2] * o[3];
            std::fill(dx, dx + height * width * c, 0.0);
            VisitTaps(g, moves.ptr<double>() + n * o[1] * o[2] * o[3], o[1], o[2],
                      [&](int64_t row, int64_t column, int64_t group, const Tap& tap) {
                        const double* d = dy + (row * o[2] * g.kernel[1] + column) * c + group * part;
                        double by_row = 0, by_column = 0, by_modulation = 0;
                        VisitNeighbours(tap, height, width,
                                        [&](int64_t pixel, double weight, double down, double right) {
                                          const int64_t at = pixel * c + group * part;
                                          double along = 0;  // of the gradient and the pixel
                                          for (int64_t i = 0; i < part; ++i) {
                                            along += d[i] * image[at + i];
                                            dx[at + i] += d[i] * weight * tap.modulation;
                                          }
                                          by_row += along * down, by_column += along * right;
                                          by_modulation += along * weight;
                                        });
                        doffsets[tap.column_offset] = by_column * tap.modulation;
                        doffsets[tap.row_offset] = by_row * tap.modulation;
                        if (g.parts == 3) doffsets[tap.modulation_offset] = by_modulation;
                      });
          }
        });
        image_grad.Commit();
        move_grad.Commit();
        return Status();
      });
}

}  // namespace anycann::aclop
