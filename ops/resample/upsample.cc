// Interpolation: the Upsample operators, by the nearest neighbour (here) and by linear and cubic filters,
// with their gradients. Scales are the factors that the caller gave; not positive means: take them from the
// sizes.
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"
#include "ops/resample/plane_map.h"
#include "ops/resample/resample.h"

namespace anycann {
namespace {

// What all of them share: [n][c] and then `dims` sizes, which outputSize gives for the enlarged tensor.
struct Sizes {
  int dims;
  int64_t source[3] = {1, 1, 1}, result[3] = {1, 1, 1};
  double scale[3] = {0, 0, 0};
};

// source: the tensor of the smaller side (self, or the gradient's result), result: the other one.
Status ReadSizes(Call& call, const aclTensor* source, const char* source_name, const aclTensor* result,
                 const char* result_name, const aclIntArray* output_size, const aclIntArray* input_size,
                 std::initializer_list<double> scales, Sizes* s) {
  s->dims = static_cast<int>(scales.size());
  const TensorView &a = source->view, &b = result->view;
  RETURN_IF_ERROR(call.RequireRank(source, source_name, s->dims + 2, s->dims + 2));
  if (output_size->size != scales.size())
    return call.Invalid("outputSize has {} values, expected {}", output_size->size, s->dims);
  int64_t expected[kMaxRank] = {a.dims[0], a.dims[1]};
  for (int i = 0; i < s->dims; ++i) {
    expected[2 + i] = (*output_size)[static_cast<uint64_t>(i)];
    if (expected[2 + i] <= 0)
      return call.Invalid("outputSize[{}] is {}, expected at least 1", i, expected[2 + i]);
    if (a.dims[2 + i] == 0)
      return call.Invalid("{} has shape {}: nothing to interpolate", source_name, ShapeString(a));
    if (expected[2 + i] > INT32_MAX || a.dims[2 + i] > INT32_MAX)
      return call.Invalid("dimension {} is larger than {}", 2 + i, INT32_MAX);
    s->source[3 - s->dims + i] = a.dims[2 + i];
    s->result[3 - s->dims + i] = expected[2 + i];
    s->scale[3 - s->dims + i] = scales.begin()[i];
  }
  RETURN_IF_ERROR(call.RequireShape(result, result_name, expected, a.rank));
  if (input_size != nullptr) {
    bool same = input_size->size == static_cast<uint64_t>(a.rank);
    for (int i = 0; same && i < a.rank; ++i) same = (*input_size)[static_cast<uint64_t>(i)] == a.dims[i];
    if (!same)
      return call.Invalid("inputSize is {}, expected the shape of {}, {}",
                          ShapeString(input_size->values, static_cast<int>(input_size->size)), source_name,
                          ShapeString(a));
  }
  return b.empty() ? Status() : call.RequireCastable(b.dtype, source, source_name);
}

Cost CostOf(const TensorView& a, const TensorView& b, double taps) {
  return {taps * static_cast<double>(std::max(a.numel(), b.numel())),
          static_cast<double>(a.nbytes() + b.nbytes())};
}

// torch takes the shortcut of whole factors in gradients, and in two dimensions forwards too.
PlaneMap NearestMaps(const Sizes& s, bool exact, bool gradient) {
  PlaneMap m;
  for (int i = 0; i < 3; ++i)
    m.source[i] =
        NearestMap(s.source[i], s.result[i], s.scale[i], exact, !exact && (gradient || s.dims == 2));
  return m;
}

Status Nearest(Call& call, const aclTensor* self, const aclIntArray* output_size,
               std::initializer_list<double> scales, bool exact, const aclTensor* out) {
  Sizes s;
  RETURN_IF_ERROR(ReadSizes(call, self, "self", out, "out", output_size, nullptr, scales, &s));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch(
      {In(self), Out(out)}, CostOf(self->view, out->view, 0), [s, exact](const Run& t) -> Status {
        const PlaneMap map = NearestMaps(s, exact, false);
        const Dense in(t[0], t[1].dtype, Dense::kRead);
        Dense result(t[1], Dense::kWrite);
        VisitBytes(SizeOf(t[1].dtype), [&](auto x) {
          using T = decltype(x);
          MapPlanes(in.ptr<const T>(), Planes(t[0], s.dims), map, Planes(t[1], s.dims), result.ptr<T>());
        });
        result.Commit();
        return Status();
      });
}

Status NearestGradient(Call& call, const aclTensor* grad, const aclIntArray* output_size,
                       const aclIntArray* input_size, std::initializer_list<double> scales, bool exact,
                       const aclTensor* out) {
  Sizes s;
  RETURN_IF_ERROR(ReadSizes(call, out, "gradInput", grad, "gradOutput", output_size, input_size, scales, &s));
  const DType compute = ComputeType(grad->view.dtype);
  if (!IsFloating(compute) && !IsComplex(compute)) return Unsupported(call, compute);
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(grad), Out(out)}, CostOf(grad->view, out->view, 1), [=](const Run& t) -> Status {
    const PlaneMap map = NearestMaps(s, exact, true);
    const Dense grad(t[0], compute, Dense::kRead);
    Dense result(t[1], compute, Dense::kWrite);
    VisitCompute<kFloatingTypes>(compute, [&](auto tag) {
      using T = typename decltype(tag)::type;
      AccumulatePlanes(grad.ptr<const T>(), Planes(t[0], s.dims), map, Planes(t[1], s.dims), result.ptr<T>());
    });
    result.Commit();
    return Status();
  });
}

// Where torch copies a dimension of unchanged size whatever the scale: linear filters always, smooth ones
// forwards, the cubic one in the gradient when no size changes.
bool Unchanged(const Sizes& s, int i, Filter filter, bool gradient) {
  if (s.source[i] != s.result[i]) return false;
  if (filter == Filter::kLinear) return true;
  if (filter != Filter::kCubic) return !gradient;
  return gradient && std::equal(s.source, s.source + 3, s.result);
}

// Filters in the last dims; the others are left as they are.
void MakeAllTaps(const Sizes& s, Filter filter, bool align_corners, bool transposed, Taps taps[3]) {
  for (int i = 3 - s.dims; i < 3; ++i) {
    if (Unchanged(s, i, filter, transposed)) {
      taps[i] = Taps::Identity(s.source[i]);
      continue;
    }
    taps[i] = MakeTaps(filter, s.source[i], s.result[i], align_corners, s.scale[i]);
    if (transposed) taps[i] = taps[i].Transposed();
  }
}

// Values of a uint8 image: computed in float32, rounded to the nearest, cut to the range (cubic filters
// overshoot).
void RoundToBytes(float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = std::clamp(std::nearbyint(values[i]), 0.0f, 255.0f);
}

Status LaunchFilter(Call& call, const aclTensor* in, const aclTensor* out, const Sizes& s, Filter filter,
                    bool align_corners, bool transposed) {
  const bool bytes = in->view.dtype == DType::kUint8 && !transposed;
  const DType compute = bytes ? DType::kFloat : ComputeType(in->view.dtype);
  if (!IsFloating(compute)) return Unsupported(call, compute);
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(in), Out(out)}, CostOf(in->view, out->view, 4), [=](const Run& t) -> Status {
    Taps taps[3];
    MakeAllTaps(s, filter, align_corners, transposed, taps);
    const Dense source(t[0], compute, Dense::kRead);
    Dense result(t[1], compute, Dense::kWrite);
    Resample(source.ptr<void>(), t[0].dims[0] * t[0].dims[1], taps, result.ptr<void>(), compute);
    if (bytes && t[1].dtype == DType::kUint8) RoundToBytes(result.ptr<float>(), t[1].numel());
    result.Commit();
    return Status();
  });
}

Status Interpolate(Call& call, const aclTensor* self, const aclIntArray* output_size, Filter filter,
                   bool align_corners, std::initializer_list<double> scales, const aclTensor* out) {
  Sizes s;
  RETURN_IF_ERROR(ReadSizes(call, self, "self", out, "out", output_size, nullptr, scales, &s));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  return LaunchFilter(call, self, out, s, filter, align_corners, false);
}

Status InterpolateGradient(Call& call, const aclTensor* grad, const aclIntArray* output_size,
                           const aclIntArray* input_size, Filter filter, bool align_corners,
                           std::initializer_list<double> scales, const aclTensor* out) {
  Sizes s;
  RETURN_IF_ERROR(ReadSizes(call, out, "gradInput", grad, "gradOutput", output_size, input_size, scales, &s));
  return LaunchFilter(call, grad, out, s, filter, align_corners, true);
}

}  // namespace

Status aclnn::UpsampleBicubic2d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                const bool alignCorners, const double scalesH, const double scalesW,
                                aclTensor* out) {
  return Interpolate(call, self, outputSize, Filter::kCubic, alignCorners, {scalesH, scalesW}, out);
}
Status aclnn::UpsampleBicubic2dAA(Call& call, const aclTensor* x, const aclIntArray* outputSize,
                                  const bool alignCorners, const double scalesH, const double scalesW,
                                  aclTensor* out) {
  return Interpolate(call, x, outputSize, Filter::kSmoothCubic, alignCorners, {scalesH, scalesW}, out);
}
Status aclnn::UpsampleBicubic2dAAGrad(Call& call, const aclTensor* gradOutput, const aclIntArray* outputSize,
                                      const aclIntArray* inputSize, bool alignCorners, double scalesH,
                                      double scalesW, aclTensor* out) {
  return InterpolateGradient(call, gradOutput, outputSize, inputSize, Filter::kSmoothCubic, alignCorners,
                             {scalesH, scalesW}, out);
}
Status aclnn::UpsampleBicubic2dBackward(Call& call, const aclTensor* gradOut, const aclIntArray* outputSize,
                                        const aclIntArray* inputSize, const bool alignCorners, double scalesH,
                                        double scalesW, aclTensor* gradInput) {
  return InterpolateGradient(call, gradOut, outputSize, inputSize, Filter::kCubic, alignCorners,
                             {scalesH, scalesW}, gradInput);
}
Status aclnn::UpsampleBilinear2d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                 const bool alignCorners, const double scalesH, const double scalesW,
                                 aclTensor* out) {
  return Interpolate(call, self, outputSize, Filter::kLinear, alignCorners, {scalesH, scalesW}, out);
}
Status aclnn::UpsampleBilinear2dAA(Call& call, const aclTensor* input, const aclIntArray* outputSize,
                                   bool alignCorners, double scalesH, double scalesW, aclTensor* out) {
  return Interpolate(call, input, outputSize, Filter::kSmoothLinear, alignCorners, {scalesH, scalesW}, out);
}
Status aclnn::UpsampleBilinear2dAABackward(Call& call, const aclTensor* gradOutput,
                                           const aclIntArray* outputSize, const aclIntArray* inputSize,
                                           bool alignCorners, double scalesH, double scalesW,
                                           aclTensor* out) {
  return InterpolateGradient(call, gradOutput, outputSize, inputSize, Filter::kSmoothLinear, alignCorners,
                             {scalesH, scalesW}, out);
}
Status aclnn::UpsampleBilinear2dBackward(Call& call, const aclTensor* gradOut, const aclIntArray* outputSize,
                                         const aclIntArray* inputSize, bool alignCorners, double scalesH,
                                         double scalesW, aclTensor* out) {
  return InterpolateGradient(call, gradOut, outputSize, inputSize, Filter::kLinear, alignCorners,
                             {scalesH, scalesW}, out);
}
Status aclnn::UpsampleBilinear2dBackwardV2(Call& call, const aclTensor* gradOut,
                                           const aclIntArray* outputSize, const aclIntArray* inputSize,
                                           bool alignCorners, double scalesH, double scalesW,
                                           aclTensor* out) {
  return InterpolateGradient(call, gradOut, outputSize, inputSize, Filter::kLinear, alignCorners,
                             {scalesH, scalesW}, out);
}
Status aclnn::UpsampleLinear1d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                               const bool alignCorners, const double scale, aclTensor* out) {
  return Interpolate(call, self, outputSize, Filter::kLinear, alignCorners, {scale}, out);
}
Status aclnn::UpsampleLinear1dBackward(Call& call, const aclTensor* gradOut, const aclIntArray* outputSize,
                                       const aclIntArray* inputSize, bool alignCorners, double scales,
                                       aclTensor* out) {
  return InterpolateGradient(call, gradOut, outputSize, inputSize, Filter::kLinear, alignCorners, {scales},
                             out);
}
Status aclnn::UpsampleNearest1d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                aclTensor* out) {
  return Nearest(call, self, outputSize, {0}, false, out);
}
Status aclnn::UpsampleNearest1dBackward(Call& call, const aclTensor* gradOut, const aclIntArray* outputSize,
                                        const aclIntArray* inputSize, double scales, aclTensor* out) {
  return NearestGradient(call, gradOut, outputSize, inputSize, {scales}, false, out);
}
Status aclnn::UpsampleNearest1dV2(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                  float scaleL, aclTensor* out) {
  return Nearest(call, self, outputSize, {scaleL}, false, out);
}
Status aclnn::UpsampleNearest2d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                aclTensor* out) {
  return Nearest(call, self, outputSize, {0, 0}, false, out);
}
Status aclnn::UpsampleNearest2dBackward(Call& call, const aclTensor* gradOut, const aclIntArray* outputSize,
                                        const aclIntArray* inputSize, double scalesH, double scalesW,
                                        aclTensor* gradInput) {
  return NearestGradient(call, gradOut, outputSize, inputSize, {scalesH, scalesW}, false, gradInput);
}
Status aclnn::UpsampleNearest2dV2(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                  float scalesH, float scalesW, aclTensor* out) {
  return Nearest(call, self, outputSize, {scalesH, scalesW}, false, out);
}
Status aclnn::UpsampleNearest3d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                double scalesD, double scalesH, double scalesW, aclTensor* out) {
  return Nearest(call, self, outputSize, {scalesD, scalesH, scalesW}, false, out);
}
Status aclnn::UpsampleNearest3dBackward(Call& call, const aclTensor* gradOut, const aclIntArray* outputSize,
                                        const aclIntArray* inputSize, double scalesD, double scalesH,
                                        double scalesW, aclTensor* gradInput) {
  return NearestGradient(call, gradOut, outputSize, inputSize, {scalesD, scalesH, scalesW}, false, gradInput);
}
Status aclnn::UpsampleNearestExact1d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                     double scales, aclTensor* out) {
  return Nearest(call, self, outputSize, {scales}, true, out);
}
Status aclnn::UpsampleNearestExact1dBackward(Call& call, const aclTensor* gradOutput,
                                             const aclIntArray* outputSize, const aclIntArray* inputSize,
                                             double scales, aclTensor* out) {
  return NearestGradient(call, gradOutput, outputSize, inputSize, {scales}, true, out);
}
Status aclnn::UpsampleNearestExact2d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                     double scalesH, double scalesW, aclTensor* out) {
  return Nearest(call, self, outputSize, {scalesH, scalesW}, true, out);
}
Status aclnn::UpsampleNearestExact2dBackward(Call& call, const aclTensor* gradOutput,
                                             const aclIntArray* outputSize, const aclIntArray* inputSize,
                                             double scalesH, double scalesW, aclTensor* out) {
  return NearestGradient(call, gradOutput, outputSize, inputSize, {scalesH, scalesW}, true, out);
}
Status aclnn::UpsampleNearestExact3d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                     double scalesD, double scalesH, double scalesW, aclTensor* out) {
  return Nearest(call, self, outputSize, {scalesD, scalesH, scalesW}, true, out);
}
Status aclnn::UpsampleNearestExact3dBackward(Call& call, const aclTensor* gradOut,
                                             const aclIntArray* outputSize, const aclIntArray* inputSize,
                                             double scalesD, double scalesH, double scalesW,
                                             aclTensor* gradInput) {
  return NearestGradient(call, gradOut, outputSize, inputSize, {scalesD, scalesH, scalesW}, true, gradInput);
}
Status aclnn::UpsampleTrilinear3d(Call& call, const aclTensor* self, const aclIntArray* outputSize,
                                  bool alignCorners, double scalesD, double scalesH, double scalesW,
                                  aclTensor* out) {
  return Interpolate(call, self, outputSize, Filter::kLinear, alignCorners, {scalesD, scalesH, scalesW}, out);
}
Status aclnn::UpsampleTrilinear3dBackward(Call& call, const aclTensor* gradOut, const aclIntArray* outputSize,
                                          const aclIntArray* inputSize, bool alignCorners, double scalesD,
                                          double scalesH, double scalesW, aclTensor* gradInput) {
  return InterpolateGradient(call, gradOut, outputSize, inputSize, Filter::kLinear, alignCorners,
                             {scalesD, scalesH, scalesW}, gradInput);
}

}  // namespace anycann
