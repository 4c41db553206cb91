// Sampling on a grid: AffineGrid, GridSampler2D and GridSampler3D with their gradients.
#include <algorithm>
#include <cmath>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"

namespace anycann {
namespace {

enum class Interpolation { kBilinear, kNearest, kBicubic };
enum class Border { kZeros, kBorder, kReflection };

struct Sampling {
  Interpolation mode;
  Border border;
  bool align_corners;
};

// A coordinate and its derivative by the grid's value.
template <class T>
struct Coordinate {
  T at, slope;
};

// The grid's [-1, 1] to pixels.
template <class T>
Coordinate<T> Unnormalise(T x, int64_t size, bool align) {
  const T n = static_cast<T>(size);
  return align ? Coordinate<T>{(x + 1) / 2 * (n - 1), (n - 1) / 2}
               : Coordinate<T>{((x + 1) * n - 1) / 2, n / 2};
}

template <class T>
Coordinate<T> Clip(Coordinate<T> c, int64_t size) {
  const T last = static_cast<T>(size - 1);
  if (!(c.at > 0)) return {0, 0};
  return c.at >= last ? Coordinate<T>{last, 0} : c;
}

// Reflects between `low` / 2 and `high` / 2.
template <class T>
Coordinate<T> Reflect(Coordinate<T> c, int64_t low, int64_t high) {
  if (low == high) return {0, 0};
  const T least = static_cast<T>(low) / 2, span = static_cast<T>(high - low) / 2;
  T x = c.at - least, sign = 1;
  if (x < 0) x = -x, sign = -1;
  const T rest = std::fmod(x, span), flips = std::floor(x / span);
  if (std::fmod(flips, T(2)) == 0) return {rest + least, sign * c.slope};
  return {span - rest + least, -sign * c.slope};
}

// Applies the border's rule to a pixel coordinate.
template <class T>
Coordinate<T> Place(Coordinate<T> c, int64_t size, const Sampling& s) {
  if (s.border == Border::kReflection)
    c = s.align_corners ? Reflect(c, int64_t{0}, 2 * (size - 1)) : Reflect(c, int64_t{-1}, 2 * size - 1);
  if (s.border != Border::kZeros) c = Clip(c, size);
  // Far outside, and NaN: nothing there, and safe to convert to an integer.
  if (!(c.at > T(-1e9) && c.at < T(1e9))) c.at = -100;
  return c;
}

// The pixels that one output point reads. kTaps of them in `axes` dimensions; offset -1 is outside.
template <class T>
struct Point {
  static constexpr int kMaxTaps = 16;
  int64_t offset[kMaxTaps];
  T weight[kMaxTaps];
  T slope[3][kMaxTaps];  // of the weight by the grid's value of each axis, x first
};

// One axis of a point: taps of pixel coordinates, weights and slopes.
template <class T>
struct Axis {
  int64_t pixel[4];
  T weight[4], slope[4];
};

template <class T>
void CubicWeights(T t, T* w, T* dw) {
  const T a = T(-0.75), x[4] = {t + 1, t, 1 - t, 2 - t};
  for (int i = 0; i < 4; ++i) {
    const T d = x[i], sign = i < 2 ? T(1) : T(-1);
    if (i == 1 || i == 2) {
      w[i] = ((a + 2) * d - (a + 3)) * d * d + 1;
      dw[i] = sign * (3 * (a + 2) * d - 2 * (a + 3)) * d;
    } else {
      w[i] = ((d - 5) * d + 8) * d * a - 4 * a;
      dw[i] = sign * ((3 * d - 10) * d + 8) * a;
    }
  }
}

template <class T>
void ReadAxis(T grid, int64_t size, const Sampling& s, Axis<T>* axis) {
  Coordinate<T> c = Unnormalise(grid, size, s.align_corners);
  if (s.mode == Interpolation::kBicubic) {
    if (!(c.at > T(-1e9) && c.at < T(1e9))) c.at = -100;
    const T floor = std::floor(c.at);
    CubicWeights(c.at - floor, axis->weight, axis->slope);
    for (int i = 0; i < 4; ++i) {
      axis->slope[i] *= c.slope;
      axis->pixel[i] =
          static_cast<int64_t>(Place(Coordinate<T>{floor + static_cast<T>(i - 1), 0}, size, s).at);
    }
    return;
  }
  c = Place(c, size, s);
  if (s.mode == Interpolation::kNearest) {
    axis->pixel[0] = static_cast<int64_t>(std::nearbyint(c.at));
    axis->weight[0] = 1;
    axis->slope[0] = 0;
    return;
  }
  const T floor = std::floor(c.at);
  axis->pixel[0] = static_cast<int64_t>(floor);
  axis->pixel[1] = axis->pixel[0] + 1;
  axis->weight[1] = c.at - floor;
  axis->weight[0] = 1 - axis->weight[1];
  axis->slope[0] = -c.slope;
  axis->slope[1] = c.slope;
}

// size, stride: of the input's spatial dimensions, x (the last one) first, as the grid's values are. Slopes
// only where a gradient asks for them.
template <class T, int axes, bool slopes>
int ReadPoint(const T* grid, const int64_t* size, const int64_t* stride, const Sampling& s, Point<T>* p) {
  Axis<T> axis[axes];
  const int bits = s.mode == Interpolation::kNearest ? 0 : s.mode == Interpolation::kBilinear ? 1 : 2;
  for (int a = 0; a < axes; ++a) ReadAxis(grid[a], size[a], s, &axis[a]);
  const int taps = 1 << (bits * axes), mask = (1 << bits) - 1;
  for (int k = 0; k < taps; ++k) {
    int64_t offset = 0;
    bool inside = true;
    T w[axes], d[axes], product = 1;
    for (int a = 0; a < axes; ++a) {
      const int i = k >> (bits * a) & mask;
      inside &= static_cast<uint64_t>(axis[a].pixel[i]) < static_cast<uint64_t>(size[a]);
      offset += axis[a].pixel[i] * stride[a];
      w[a] = axis[a].weight[i];
      d[a] = axis[a].slope[i];
      product *= w[a];
    }
    p->offset[k] = inside ? offset : -1;
    p->weight[k] = product;
    if constexpr (slopes) {
      for (int a = 0; a < axes; ++a) {
        T slope = d[a];
        for (int b = 0; b < axes; ++b) slope *= b == a ? T(1) : w[b];
        p->slope[a][k] = slope;
      }
    }
  }
  return taps;
}

// The shapes of a call: input [n][c][pixels], output [n][c][points], grid [n][points][axes].
struct Shape {
  int64_t batch, channels, pixels, points;
  int64_t size[3], stride[3];  // x first
};

// The taps of a block of points, tap by tap: loops over channels run through them in order.
template <class T>
struct PointBlock {
  static constexpr int64_t kPoints = 64;
  int taps = 0;
  int32_t offset[Point<T>::kMaxTaps]
                [kPoints];  // 0 where the pixel is outside, and then its weight is not used
  bool inside[Point<T>::kMaxTaps][kPoints];
  T weight[Point<T>::kMaxTaps][kPoints];

  void Set(int64_t i, const Point<T>& p, int count) {
    taps = count;
    for (int t = 0; t < count; ++t) {
      inside[t][i] = p.offset[t] >= 0;
      offset[t][i] = inside[t][i] ? static_cast<int32_t>(p.offset[t]) : 0;
      weight[t][i] = p.weight[t];
    }
  }
  void Apply(const T* __restrict plane, int64_t n, T* __restrict out) const {
    for (int64_t i = 0; i < n; ++i) out[i] = 0;
    for (int t = 0; t < taps; ++t)
      for (int64_t i = 0; i < n; ++i) out[i] += inside[t][i] ? weight[t][i] * plane[offset[t][i]] : T(0);
  }
};

template <class T, int axes>
void Sample(const T* in, const T* grid, const Shape& s, const Sampling& how, T* out) {
  constexpr int64_t kPoints = PointBlock<T>::kPoints;
  const int64_t blocks = (s.points + kPoints - 1) / kPoints;
  ParallelFor(s.batch * blocks, std::max<int64_t>(1, 256 / s.channels), [&](int64_t begin, int64_t end) {
    PointBlock<T> block;
    Point<T> p;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t n = k / blocks, from = k % blocks * kPoints, count = std::min(kPoints, s.points - from);
      for (int64_t i = 0; i < count; ++i)
        block.Set(
            i, p,
            ReadPoint<T, axes, false>(grid + (n * s.points + from + i) * axes, s.size, s.stride, how, &p));
      for (int64_t c = n * s.channels; c < (n + 1) * s.channels; ++c)
        block.Apply(in + c * s.pixels, count, out + c * s.points + from);
    }
  });
}

// One plane after another, so that the order of the additions is fixed.
template <class T, int axes>
void SampleInputGradient(const T* grad, const T* grid, const Shape& s, const Sampling& how, T* out) {
  ParallelFor(s.batch * s.channels, 1, [&](int64_t begin, int64_t end) {
    Point<T> p;
    for (int64_t k = begin; k < end; ++k) {
      T* plane = out + k * s.pixels;
      std::fill(plane, plane + s.pixels, T(0));
      const T* points = grid + k / s.channels * s.points * axes;
      for (int64_t at = 0; at < s.points; ++at) {
        const int taps = ReadPoint<T, axes, false>(points + at * axes, s.size, s.stride, how, &p);
        const T g = grad[k * s.points + at];
        for (int t = 0; t < taps; ++t)
          if (p.offset[t] >= 0) plane[p.offset[t]] += p.weight[t] * g;
      }
    }
  });
}

template <class T, int axes>
void SampleGridGradient(const T* grad, const T* in, const T* grid, const Shape& s, const Sampling& how,
                        T* out) {
  ParallelFor(s.batch * s.points, 4096 / std::clamp<int64_t>(s.channels, 1, 4096),
              [&](int64_t begin, int64_t end) {
                Point<T> p;
                for (int64_t k = begin; k < end; ++k) {
                  const int64_t n = k / s.points, at = k % s.points;
                  const int taps = ReadPoint<T, axes, true>(grid + k * axes, s.size, s.stride, how, &p);
                  T sums[axes] = {};
                  for (int64_t c = 0; c < s.channels; ++c) {
                    const T* plane = in + (n * s.channels + c) * s.pixels;
                    const T g = grad[(n * s.channels + c) * s.points + at];
                    for (int t = 0; t < taps; ++t) {
                      if (p.offset[t] < 0) continue;
                      const T v = g * plane[p.offset[t]];
                      for (int a = 0; a < axes; ++a) sums[a] += p.slope[a][t] * v;
                    }
                  }
                  for (int a = 0; a < axes; ++a) out[k * axes + a] = sums[a];
                }
              });
}

Status ReadSampling(Call& call, int64_t mode, int64_t padding, bool align, int axes, Sampling* s) {
  if (mode < 0 || mode > (axes == 2 ? 2 : 1))
    return call.Invalid("interpolationMode is {}, expected 0 (bilinear), 1 (nearest){}", mode,
                        axes == 2 ? " or 2 (bicubic)" : "");
  if (padding < 0 || padding > 2)
    return call.Invalid("paddingMode is {}, expected 0 (zeros), 1 (border) or 2 (reflection)", padding);
  *s = {static_cast<Interpolation>(mode), static_cast<Border>(padding), align};
  return Status();
}

Status ReadShape(Call& call, const aclTensor* input, const aclTensor* grid, const aclTensor* output,
                 const char* name, int axes, Shape* s) {
  RETURN_IF_ERROR(call.RequireRank(input, "input", axes + 2, axes + 2));
  RETURN_IF_ERROR(call.RequireRank(grid, "grid", axes + 2, axes + 2));
  const TensorView &in = input->view, &g = grid->view;
  if (g.dims[0] != in.dims[0] || g.dims[axes + 1] != axes)
    return call.Invalid("grid has shape {}, expected {} first and {} last (input {})", ShapeString(g),
                        in.dims[0], axes, ShapeString(in));
  int64_t expected[kMaxRank] = {in.dims[0], in.dims[1]};
  *s = {in.dims[0], in.dims[1], 1, 1, {}, {}};
  for (int i = 0; i < axes; ++i) {
    expected[2 + i] = g.dims[1 + i];
    s->points *= g.dims[1 + i];
    if (in.dims[2 + i] == 0) return call.Invalid("input has shape {}: nothing to sample", ShapeString(in));
    s->size[i] = in.dims[axes + 1 - i];
    s->stride[i] = s->pixels;
    s->pixels *= s->size[i];
  }
  if (s->pixels > INT32_MAX) return call.Invalid("input has shape {}, too large an image", ShapeString(in));
  RETURN_IF_ERROR(call.RequireShape(output, name, expected, axes + 2));
  if (!IsFloating(in.dtype))
    return call.Invalid("input has type {}, expected a floating one", Name(in.dtype));
  return Status();
}

Cost CostOf(const Shape& s, double taps) {
  const double n = static_cast<double>(s.batch * s.channels * s.points);
  return {2 * taps * n, 4 * (taps + 1) * n};
}

template <int axes>
Status LaunchSampler(Call& call, const aclTensor* input, const aclTensor* grid, int64_t mode, int64_t padding,
                     bool align, const aclTensor* out) {
  Sampling how;
  Shape s;
  RETURN_IF_ERROR(ReadSampling(call, mode, padding, align, axes, &how));
  RETURN_IF_ERROR(ReadShape(call, input, grid, out, "out", axes, &s));
  RETURN_IF_ERROR(call.RequireCastable(input->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const DType compute = ComputeType(input->view.dtype);
  return call.Launch({In(input), In(grid), Out(out)}, CostOf(s, 1 << axes), [=](const Run& t) -> Status {
    const Dense in(t[0], compute, Dense::kRead), points(t[1], compute, Dense::kRead);
    Dense result(t[2], compute, Dense::kWrite);
    VisitCompute<kFloatTypes>(compute, [&](auto tag) {
      using T = typename decltype(tag)::type;
      Sample<T, axes>(in.ptr<const T>(), points.ptr<const T>(), s, how, result.ptr<T>());
    });
    result.Commit();
    return Status();
  });
}

template <int axes>
Status LaunchSamplerGradient(Call& call, const aclTensor* grad, const aclTensor* input, const aclTensor* grid,
                             int64_t mode, int64_t padding, bool align, const aclBoolArray* mask,
                             const aclTensor* input_grad, const aclTensor* grid_grad) {
  Sampling how;
  Shape s;
  RETURN_IF_ERROR(ReadSampling(call, mode, padding, align, axes, &how));
  RETURN_IF_ERROR(ReadShape(call, input, grid, grad, "gradOutput", axes, &s));
  if (mask->size != 2) return call.Invalid("outputMask has {} values, expected 2", mask->size);
  const bool for_input = (*mask)[0], for_grid = (*mask)[1];
  if (for_input) RETURN_IF_ERROR(call.RequireSameShape(input_grad, "inputGrad", input, "input"));
  if (for_grid) RETURN_IF_ERROR(call.RequireSameShape(grid_grad, "gridGrad", grid, "grid"));
  if (input->view.empty() && (!for_grid || grid->view.empty())) return call.Nothing();
  const DType compute = ComputeType(input->view.dtype);
  return call.Launch(
      {In(grad), In(input), In(grid), Out(for_input ? input_grad : input), Out(for_grid ? grid_grad : grid)},
      CostOf(s, 3 << axes), [=](const Run& t) -> Status {
        const Dense grad(t[0], compute, Dense::kRead), in(t[1], compute, Dense::kRead);
        const Dense points(t[2], compute, Dense::kRead);
        VisitCompute<kFloatTypes>(compute, [&](auto tag) {
          using T = typename decltype(tag)::type;
          if (for_input) {
            Dense result(t[3], compute, Dense::kWrite);
            SampleInputGradient<T, axes>(grad.ptr<const T>(), points.ptr<const T>(), s, how, result.ptr<T>());
            result.Commit();
          }
          if (for_grid) {
            Dense result(t[4], compute, Dense::kWrite);
            SampleGridGradient<T, axes>(grad.ptr<const T>(), in.ptr<const T>(), points.ptr<const T>(), s, how,
                                        result.ptr<T>());
            result.Commit();
          }
        });
        return Status();
      });
}

// grid[n][point] = theta[n] * (x, y(, z), 1), x first, for the points of an image of these sizes.
template <class T>
void AffinePoints(const T* theta, int64_t batch, int axes, const int64_t* sizes, bool align, T* out) {
  int64_t points = 1;
  for (int a = 0; a < axes; ++a) points *= sizes[a];
  const auto base = [&](int64_t i, int64_t n) -> T {
    if (n <= 1) return 0;
    const T linear = T(-1) + T(2) * static_cast<T>(i) / static_cast<T>(n - 1);
    return align ? linear : linear * static_cast<T>(n - 1) / static_cast<T>(n);
  };
  ParallelFor(batch * points, 2048, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      T x[4];
      int64_t rest = k % points;
      for (int a = 0; a < axes; ++a) {  // x is the last dimension
        x[a] = base(rest % sizes[axes - 1 - a], sizes[axes - 1 - a]);
        rest /= sizes[axes - 1 - a];
      }
      x[axes] = 1;
      const T* matrix = theta + k / points * axes * (axes + 1);
      for (int r = 0; r < axes; ++r) {
        T sum = 0;
        for (int c = 0; c <= axes; ++c) sum += matrix[r * (axes + 1) + c] * x[c];
        out[k * axes + r] = sum;
      }
    }
  });
}

}  // namespace

Status aclnn::AffineGrid(Call& call, const aclTensor* theta, const aclIntArray* size, bool alignCorners,
                         aclTensor* out) {
  if (size->size != 4 && size->size != 5)
    return call.Invalid("size has {} values, expected 4 or 5", size->size);
  const int axes = static_cast<int>(size->size) - 2;
  const int64_t matrix[] = {(*size)[0], axes, axes + 1};
  RETURN_IF_ERROR(call.RequireShape(theta, "theta", matrix, 3));
  if (!IsFloating(theta->view.dtype)) return Unsupported(call, theta->view.dtype);
  struct Sizes {
    int64_t values[3];
  } sizes;
  int64_t expected[5] = {(*size)[0]};
  for (int a = 0; a < axes; ++a) expected[1 + a] = sizes.values[a] = (*size)[static_cast<uint64_t>(2 + a)];
  expected[1 + axes] = axes;
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, axes + 2));
  RETURN_IF_ERROR(call.RequireCastable(theta->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const DType compute = ComputeType(theta->view.dtype);
  return call.Launch(
      {In(theta), Out(out)},
      Cost{8.0 * static_cast<double>(out->view.numel()), static_cast<double>(out->view.nbytes())},
      [=](const Run& t) -> Status {
        const Dense theta(t[0], compute, Dense::kRead);
        Dense result(t[1], compute, Dense::kWrite);
        VisitCompute<kFloatTypes>(compute, [&](auto tag) {
          using T = typename decltype(tag)::type;
          AffinePoints(theta.ptr<const T>(), t[0].dims[0], axes, sizes.values, alignCorners, result.ptr<T>());
        });
        result.Commit();
        return Status();
      });
}

Status aclnn::GridSampler2D(Call& call, const aclTensor* input, const aclTensor* grid,
                            int64_t interpolationMode, int64_t paddingMode, bool alignCorners,
                            aclTensor* out) {
  return LaunchSampler<2>(call, input, grid, interpolationMode, paddingMode, alignCorners, out);
}
Status aclnn::GridSampler3D(Call& call, const aclTensor* input, const aclTensor* grid,
                            int64_t interpolationMode, int64_t paddingMode, bool alignCorners,
                            aclTensor* out) {
  return LaunchSampler<3>(call, input, grid, interpolationMode, paddingMode, alignCorners, out);
}
Status aclnn::GridSampler2DBackward(Call& call, const aclTensor* gradOutput, const aclTensor* input,
                                    const aclTensor* grid, int64_t interpolationMode, int64_t paddingMode,
                                    bool alignCorners, const aclBoolArray* outputMask, aclTensor* inputGrad,
                                    aclTensor* gridGrad) {
  return LaunchSamplerGradient<2>(call, gradOutput, input, grid, interpolationMode, paddingMode, alignCorners,
                                  outputMask, inputGrad, gridGrad);
}
Status aclnn::GridSampler3DBackward(Call& call, const aclTensor* gradOutput, const aclTensor* input,
                                    const aclTensor* grid, int64_t interpolationMode, int64_t paddingMode,
                                    bool alignCorners, const aclBoolArray* outputMask, aclTensor* inputGrad,
                                    aclTensor* gridGrad) {
  return LaunchSamplerGradient<3>(call, gradOutput, input, grid, interpolationMode, paddingMode, alignCorners,
                                  outputMask, inputGrad, gridGrad);
}

}  // namespace anycann
