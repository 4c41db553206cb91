// Affine quantisation with given scales and zero points: to integers, back, and both at once (fake
// quantisation).
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

#include "aclnn_ops.h"
#include "ops/elementwise/engine.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

enum class Rounding { kNearest, kFloor, kCeil, kTrunc };

// What the inner loops need; copied into the Plan.
struct Affine {
  double low = 0, high = 0;  // bounds of the quantised value
  Rounding rounding = Rounding::kNearest;
  bool divide = false;  // x / scale, otherwise x * scale
  bool square = false;  // the scale is applied twice
  bool enabled = true;  // fake quantisation happens at all
};

// A parameter of one element, or of one per index of dimension `axis` of x, as a view of x's shape.
Status AlongAxis(Call& call, const aclTensor* p, const char* name, const aclTensor* x, int axis,
                 TensorView* out) {
  const int64_t n = p->view.numel();
  *out = x->view;
  out->data = p->view.data;
  out->dtype = p->view.dtype;
  for (int i = 0; i < out->rank; ++i) out->strides[i] = 0;
  if (n == 1) return Status();
  int longest = 0;
  for (int i = 1; i < p->view.rank; ++i)
    if (p->view.dims[i] > p->view.dims[longest]) longest = i;
  if (x->view.rank == 0 || p->view.dims[longest] != n || x->view.dims[axis] != n)
    return call.Invalid("{} has shape {}, expected 1 element or {} (dimension {} of the input)", name,
                        ShapeString(p->view), x->view.rank == 0 ? 1 : x->view.dims[axis], axis);
  out->strides[axis] = p->view.strides[longest];
  return Status();
}

// q = clamp(round(x op scale) + zero)
void QuantizeLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  const Affine& a = *static_cast<const Affine*>(params);
  const float *x = static_cast<const float*>(in[0]), *scale = static_cast<const float*>(in[1]),
              *zero = static_cast<const float*>(in[2]);
  double* y = static_cast<double*>(out[0]);
  const auto run = [&](auto apply, auto round) {
    for (int64_t i = 0; i < n; ++i) {
      const double v = round(apply(x[i], scale[i], zero[i]));
      y[i] = v < a.low ? a.low : v > a.high ? a.high : v;
    }
  };
  const auto nearest = [](float v) { return std::nearbyint(v); };
  if (a.divide) return run([](float v, float s, float z) { return std::nearbyint(v / s) + z; }, nearest);
  const auto apply = [&a](float v, float s, float z) { return (a.square ? v * s * s : v * s) + z; };
  switch (a.rounding) {
    case Rounding::kNearest: return run(apply, nearest);
    case Rounding::kFloor: return run(apply, [](float v) { return std::floor(v); });
    case Rounding::kCeil: return run(apply, [](float v) { return std::ceil(v); });
    case Rounding::kTrunc: return run(apply, [](float v) { return std::trunc(v); });
  }
}

// y = (x + zero) * scale
void DequantizeLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  const Affine& a = *static_cast<const Affine*>(params);
  const float *x = static_cast<const float*>(in[0]), *scale = static_cast<const float*>(in[1]),
              *zero = static_cast<const float*>(in[2]);
  float* y = static_cast<float*>(out[0]);
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] + zero[i]) * (a.square ? scale[i] * scale[i] : scale[i]);
}

// y = (clamp(round(x / scale) + zero) - zero) * scale, and whether the clamp did nothing.
void FakeLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  const Affine& a = *static_cast<const Affine*>(params);
  const float *x = static_cast<const float*>(in[0]), *scale = static_cast<const float*>(in[1]),
              *zero = static_cast<const float*>(in[2]);
  float* y = static_cast<float*>(out[0]);
  bool* mask = static_cast<bool*>(out[1]);
  if (!a.enabled) {
    std::memmove(y, x, static_cast<size_t>(n) * sizeof(float));
    std::memset(mask, 1, static_cast<size_t>(n));
    return;
  }
  const float low = static_cast<float>(a.low), high = static_cast<float>(a.high);
  for (int64_t i = 0; i < n; ++i) {
    const float q = std::nearbyint(x[i] * (1.0f / scale[i])) + zero[i];
    mask[i] = q >= low && q <= high;
    const float bounded = q < low ? low : q > high ? high : q;
    y[i] = (bounded - zero[i]) * scale[i];
  }
}

// Launches a loop over x, its scale and its zero point (absent: 0).
Status Launch(Call& call, InnerLoop loop, DType out_type, const Affine& a, const aclTensor* x,
              const aclTensor* scale, const char* scale_name, const aclTensor* zero, const char* zero_name,
              int axis, const aclTensor* out, const aclTensor* mask = nullptr) {
  RETURN_IF_ERROR(call.RequireSameShape(out, "the output", x, "the input"));
  if (mask != nullptr) RETURN_IF_ERROR(call.RequireSameShape(mask, "mask", x, "the input"));
  if (x->view.empty()) return call.Nothing();
  TensorView scale_view, zero_view;
  RETURN_IF_ERROR(AlongAxis(call, scale, scale_name, x, axis, &scale_view));
  if (zero != nullptr) RETURN_IF_ERROR(AlongAxis(call, zero, zero_name, x, axis, &zero_view));
  Arg args[5] = {In(x), In(scale, scale_view), zero ? In(zero, zero_view) : In(scale, scale_view), Out(out)};
  int count = 4;
  if (mask != nullptr) args[count++] = Out(mask);
  ElementwiseKernel k;
  k.loop = loop;
  k.inputs = 3;
  k.outputs = count - 3;
  for (DType& t : std::span(k.in_types, 3)) t = DType::kFloat;
  k.out_types[0] = out_type;
  k.out_types[1] = DType::kBool;
  k.cost = 4;
  const bool has_zero = zero != nullptr;
  return call.Launch(std::span<const Arg>(args, count),
                     Cost{6.0 * static_cast<double>(x->view.numel()),
                          static_cast<double>(x->view.nbytes() + out->view.nbytes())},
                     [k, a, has_zero, count](const Run& t) -> Status {
                       static const float none = 0;
                       TensorView in[3] = {t[0], t[1], t[2]};
                       if (!has_zero) {
                         in[2].data = const_cast<float*>(&none);
                         in[2].dtype = DType::kFloat;
                         for (int i = 0; i < in[2].rank; ++i) in[2].strides[i] = 0;
                       }
                       TensorView out[2] = {t[3], t[count - 1]};
                       RunElementwise(k, std::span<const TensorView>(out, count - 3),
                                      std::span<const TensorView>(in, 3), &a);
                       return Status();
                     });
}

// The range of the integer type of a quantised tensor.
Status Range(Call& call, const aclTensor* out, const char* name, Affine* a) {
  switch (out->view.dtype) {
    case DType::kInt8: a->low = -128, a->high = 127; return Status();
    case DType::kUint8: a->low = 0, a->high = 255; return Status();
    case DType::kInt32:
      a->low = std::numeric_limits<int32_t>::min(), a->high = std::numeric_limits<int32_t>::max();
      return Status();
    default:
      return call.Invalid("{} has type {}, expected int8, uint8 or int32", name, Name(out->view.dtype));
  }
}

Status Quant(Call& call, const aclTensor* x, const aclTensor* scale, const aclTensor* offset, bool square,
             const char* round_mode, int32_t type, int64_t axis, const aclTensor* y) {
  Affine a;
  const std::string_view mode = round_mode == nullptr ? "" : round_mode;
  if (mode == "floor")
    a.rounding = Rounding::kFloor;
  else if (mode == "ceil")
    a.rounding = Rounding::kCeil;
  else if (mode == "trunc")
    a.rounding = Rounding::kTrunc;
  else if (mode != "" && mode != "round")
    return call.Invalid("roundMode is \"{}\", expected \"round\", \"floor\", \"ceil\" or \"trunc\"", mode);
  if (type != static_cast<int32_t>(y->view.dtype))
    return call.Invalid("dstType is {}, but y has type {} ({})", type, Name(y->view.dtype),
                        static_cast<int>(y->view.dtype));
  if (y->view.dtype == DType::kInt32)
    return call.Invalid("y has type int32 (packed int4), which is not supported: use int8");
  RETURN_IF_ERROR(Range(call, y, "y", &a));
  a.square = square;
  int dim;
  RETURN_IF_ERROR(call.WrapDim(axis, x->view.rank, "axis", &dim));
  return Launch(call, QuantizeLoop, DType::kDouble, a, x, scale, "scale", offset, "offset", dim, y);
}

}  // namespace

Status aclnn::FakeQuantPerTensorAffineCachemask(Call& call, const aclTensor* self, const aclTensor* scale,
                                                const aclTensor* zeroPoint, float fakeQuantEnabled,
                                                int64_t quantMin, int64_t quantMax, aclTensor* out,
                                                aclTensor* mask) {
  if (quantMin > quantMax)
    return call.Invalid("quantMin is {}, expected at most quantMax {}", quantMin, quantMax);
  if (scale->view.numel() != 1 || zeroPoint->view.numel() != 1)
    return call.Invalid("scale and zeroPoint have shapes {} and {}, expected one element",
                        ShapeString(scale->view), ShapeString(zeroPoint->view));
  Affine a;
  a.low = static_cast<double>(quantMin), a.high = static_cast<double>(quantMax),
  a.enabled = fakeQuantEnabled > 0;
  return Launch(call, FakeLoop, DType::kFloat, a, self, scale, "scale", zeroPoint, "zeroPoint", 0, out, mask);
}
Status aclnn::FakeQuantPerChannelAffineCachemask(Call& call, const aclTensor* self, const aclTensor* scale,
                                                 const aclTensor* zeroPoint, int64_t axis, int64_t quantMin,
                                                 int64_t quantMax, aclTensor* out, aclTensor* mask) {
  if (quantMin > quantMax)
    return call.Invalid("quantMin is {}, expected at most quantMax {}", quantMin, quantMax);
  int dim;
  RETURN_IF_ERROR(call.WrapDim(axis, self->view.rank, "axis", &dim));
  Affine a;
  a.low = static_cast<double>(quantMin), a.high = static_cast<double>(quantMax);
  return Launch(call, FakeLoop, DType::kFloat, a, self, scale, "scale", zeroPoint, "zeroPoint", dim, out,
                mask);
}

Status aclnn::Quantize(Call& call, const aclTensor* x, const aclTensor* scales, const aclTensor* zeroPoints,
                       aclDataType dtype, int32_t axis, aclTensor* out) {
  if (static_cast<int32_t>(dtype) != static_cast<int32_t>(out->view.dtype))
    return call.Invalid("dtype is {}, but out has type {} ({})", static_cast<int>(dtype),
                        Name(out->view.dtype), static_cast<int>(out->view.dtype));
  Affine a;
  RETURN_IF_ERROR(Range(call, out, "out", &a));
  a.divide = true;
  int dim;
  RETURN_IF_ERROR(call.WrapDim(axis, x->view.rank, "axis", &dim));
  return Launch(call, QuantizeLoop, DType::kDouble, a, x, scales, "scales", zeroPoints, "zeroPoints", dim,
                out);
}

Status aclnn::AscendQuant(Call& call, const aclTensor* x, const aclTensor* scale, const aclTensor* offset,
                          bool sqrtMode, const char* roundMode, int32_t dstType, const aclTensor* y) {
  return Quant(call, x, scale, offset, sqrtMode, roundMode, dstType, -1, y);
}
Status aclnn::AscendQuantV3(Call& call, const aclTensor* x, const aclTensor* scale, const aclTensor* offset,
                            bool sqrtMode, const char* roundMode, int32_t dstType, int32_t axis,
                            const aclTensor* y) {
  return Quant(call, x, scale, offset, sqrtMode, roundMode, dstType, axis, y);
}

Status aclnn::AscendAntiQuant(Call& call, const aclTensor* x, const aclTensor* scale, const aclTensor* offset,
                              int64_t dstType, bool sqrtMode, const aclTensor* y) {
  if (dstType != static_cast<int64_t>(y->view.dtype) || !IsFloating(y->view.dtype))
    return call.Invalid("dstType is {}, but y has type {}, expected a floating-point type", dstType,
                        Name(y->view.dtype));
  if (x->view.dtype != DType::kInt8) return call.Invalid("x has type {}, expected int8", Name(x->view.dtype));
  Affine a;
  a.square = sqrtMode;
  return Launch(call, DequantizeLoop, DType::kFloat, a, x, scale, "scale", offset, "offset",
                std::max(0, x->view.rank - 1), y);
}

}  // namespace anycann
