// The gated unit swish(a) * b between a product of integers, which may be scaled back first, and integers for
// the next product: y = quantise(swiglu(dequantise(x))), with parameters for groups of rows.
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/norm/operands.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

// How a row of 2 n splits into a (which swish takes) and b, and what bounds them.
struct Gate {
  bool interleaved = false;  // even and odd numbers instead of halves
  bool left = false;         // the first half is a
  bool clamped = false;      // a at most limit, b within limit; swish with alpha; b + bias
  float limit = 0, alpha = 1, bias = 0;
};

// v [2 n] to its first n.
void ApplyGate(const Gate& g, int64_t n, float* v) {
  const auto run = [&](auto at_a, auto at_b) {
    for (int64_t i = 0; i < n; ++i) {
      float a = v[at_a(i)], b = v[at_b(i)];
      if (g.clamped) {
        a = std::min(a, g.limit);
        b = std::max(-g.limit, std::min(b, g.limit)) + g.bias;
      }
      v[i] = a * math::Sigmoid(g.alpha * a) * b;
    }
  };
  const auto first = [](int64_t i) { return i; };
  const auto second = [n](int64_t i) { return n + i; };
  if (g.interleaved) return run([](int64_t i) { return 2 * i; }, [](int64_t i) { return 2 * i + 1; });
  if (g.left) return run(first, second);
  run(second, first);
}

struct SwigluHandles {
  const aclTensor *x, *weight_scale = nullptr, *activation_scale = nullptr, *bias = nullptr,
                      *quant_scale = nullptr, *quant_offset = nullptr, *groups = nullptr, *y = nullptr,
                      *scale = nullptr;
  const char* quant_scale_name = "quantScaleOptional";
  const char* quant_offset_name = "quantOffsetOptional";
  const char* mode = nullptr;
  int64_t dst_type = -1;
};

struct SwigluQuant {
  RowFormat format;  // of y
  Gate gate;
  bool dynamic = false;
  bool divide = false;      // static: value / scale + offset, otherwise value * scale + offset
  bool reciprocal = false;  // scaleOut holds 127 / maximum, otherwise maximum / 127
  bool sizes = true;        // groups are sizes, otherwise ends
};

struct SwigluPlaces {
  int x, weight_scale, activation_scale, bias, quant_scale, quant_offset, groups, y, scale;
};

Status RunSwiglu(const Run& t, const SwigluQuant& s, const SwigluPlaces& at) {
  const char* op = t.plan().name;
  const RowFormat& f = s.format;
  const int64_t wide = 2 * f.n, count = at.groups >= 0 ? t[at.groups].numel() : 1;
  RowGroups groups;
  if (at.groups >= 0) RETURN_IF_ERROR(groups.Read(op, "groupIndexOptional", t[at.groups], s.sizes, f.rows));
  const auto values = [&](int i, int64_t n) { return i >= 0 ? GroupValues(t[i], count, n) : GroupValues(); };
  const DenseInput x(t[at.x]);
  const QuantRows y(f, t[at.y]);
  const GroupValues weight = values(at.weight_scale, wide), bias = values(at.bias, wide),
                    scale = values(at.quant_scale, f.n), offset = values(at.quant_offset, f.n);
  const Values<float> activation(t, at.activation_scale);
  const Scratch<float> scales(f.rows);
  if (!x.ok() || !y.ok() || !weight.ok() || !bias.ok() || !scale.ok() || !offset.ok() || !activation.ok() ||
      !scales.ok())
    return ScratchFailed(op);
  const bool integers = t[at.x].dtype == DType::kInt32;
  const bool bias_first = at.bias >= 0 && t[at.bias].dtype == DType::kInt32;
  const DenseReader<float> reader(x.view());
  const auto times = [](float a, float b) { return a * b; };
  const auto plus = [](float a, float b) { return a + b; };
  const bool ok = ForEachRow(f.rows, wide, [&](int64_t r, float* v) {
    scales[r] = 0;
    const int64_t g = groups[r];
    if (g < 0) {  // after the last group
      std::fill_n(v, f.n, 0.0f);
      return y.Store(r, v);
    }
    const float* p = reader.Read(r * wide, wide, v);
    if (p != v) std::copy_n(p, wide, v);
    if (integers) {
      if (bias && bias_first) bias.Apply(g, wide, v, plus);
      if (weight) weight.Apply(g, wide, v, times);
      if (activation.get() != nullptr)
        for (int64_t i = 0; i < wide; ++i) v[i] *= activation[r];
      if (bias && !bias_first) bias.Apply(g, wide, v, plus);
    }
    ApplyGate(s.gate, f.n, v);
    if (s.dynamic) {
      if (scale) scale.Apply(g, f.n, v, times);
      const RowScale range = RowScale::Of(v, f.n);
      scales[r] = range.Scale(f, true);
      RowScale::Apply(v, f.n, scales[r], 0);
      if (s.reciprocal && scales[r] != 0) scales[r] = 1.0f / scales[r];
    } else {
      if (scale && s.divide) scale.Apply(g, f.n, v, [](float a, float b) { return a / b; });
      if (scale && !s.divide) scale.Apply(g, f.n, v, times);
      if (offset) offset.Apply(g, f.n, v, plus);
    }
    y.Store(r, v);
  });
  if (!ok) return ScratchFailed(op);
  y.Finish();
  if (at.scale >= 0) StoreValues(t[at.scale], scales.get());
  return Status();
}

Status LaunchSwiglu(Call& call, const SwigluHandles& h, SwigluQuant s) {
  const TensorView& x = h.x->view;
  RETURN_IF_ERROR(call.RequireRank(h.x, "x", 2, kMaxRank));
  if (!IsFloating(x.dtype) && x.dtype != DType::kInt32)
    return call.Invalid("x has type {}, expected int32 or a floating type", Name(x.dtype));
  const std::string_view mode = h.mode == nullptr ? "static" : h.mode;
  if (mode != "static" && mode != "dynamic")
    return call.Invalid("quantModeOptional is \"{}\", expected \"static\" or \"dynamic\"", mode);
  s.dynamic = mode == "dynamic";
  int64_t dims[kMaxRank];
  std::copy_n(x.dims, x.rank, dims);
  if (dims[x.rank - 1] % 2 != 0)
    return call.Invalid("x has shape {}, expected an even last dimension", ShapeString(x));
  dims[x.rank - 1] /= 2;
  RETURN_IF_ERROR(ReadRowFormat(call, h.y, "yOut", dims, x.rank, h.dst_type, &s.format));
  const int64_t n = s.format.n, rows = s.format.rows;
  int64_t groups = 1;
  if (h.groups != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(h.groups, "groupIndexOptional", 1, 1));
    if (h.groups->view.dtype != DType::kInt32 && h.groups->view.dtype != DType::kInt64)
      return call.Invalid("groupIndexOptional has type {}, expected int32 or int64",
                          Name(h.groups->view.dtype));
    groups = h.groups->view.numel();
  }
  RETURN_IF_ERROR(GroupValues::Check(call, h.weight_scale, "weightScaleOptional", groups, 2 * n));
  RETURN_IF_ERROR(GroupValues::Check(call, h.bias, "biasOptional", groups, 2 * n));
  RETURN_IF_ERROR(GroupValues::Check(call, h.quant_scale, h.quant_scale_name, groups, n));
  RETURN_IF_ERROR(GroupValues::Check(call, h.quant_offset, h.quant_offset_name, groups, n));
  if (const aclTensor* a = h.activation_scale;
      a != nullptr && (a->view.numel() != rows || !IsFloating(a->view.dtype)))
    return call.Invalid("activationScaleOptional is {}, expected one value for each of {} rows", Describe(a),
                        rows);
  // A static call has no use for scaleOut, whatever its shape.
  const aclTensor* scale = h.scale != nullptr && h.scale->view.numel() == rows ? h.scale : nullptr;
  if (s.dynamic && (scale == nullptr || !IsFloating(scale->view.dtype)))
    return call.Invalid("scaleOut is {}, expected one value for each of {} rows", Describe(h.scale), rows);
  if (scale != nullptr && !IsFloating(scale->view.dtype)) scale = nullptr;
  if (x.empty()) return call.Nothing();
  Operands o;
  const SwigluPlaces at = {o.Input(h.x),      o.Input(h.weight_scale), o.Input(h.activation_scale),
                           o.Input(h.bias),   o.Input(h.quant_scale),  o.Input(h.quant_offset),
                           o.Input(h.groups), o.Output(h.y),           o.Output(scale)};
  return call.Launch(o.list(), Cost{20.0 * static_cast<double>(x.numel()), o.bytes()},
                     [s, at](const Run& t) { return RunSwiglu(t, s, at); });
}

}  // namespace

Status aclnn::SwiGluQuant(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                          const aclTensor* offsetsOptional, const aclTensor* groupIndexOptional,
                          bool activateLeft, char* quantModeOptional, const aclTensor* yOut,
                          const aclTensor* scaleOut) {
  return SwiGluQuantV2(call, x, smoothScalesOptional, offsetsOptional, groupIndexOptional, activateLeft,
                       quantModeOptional, 0, static_cast<int64_t>(yOut->view.dtype), yOut, scaleOut);
}

Status aclnn::SwiGluQuantV2(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                            const aclTensor* offsetsOptional, const aclTensor* groupIndexOptional,
                            bool activateLeft, char* quantModeOptional, int64_t groupListType,
                            int64_t dstType, const aclTensor* yOut, const aclTensor* scaleOut) {
  if (groupListType != 0 && groupListType != 1)
    return call.Invalid("groupListType is {}, expected 0 (ends) or 1 (sizes)", groupListType);
  SwigluHandles h{.x = x};
  h.quant_scale = smoothScalesOptional, h.quant_offset = offsetsOptional, h.groups = groupIndexOptional;
  h.quant_scale_name = "smoothScalesOptional", h.quant_offset_name = "offsetsOptional";
  h.y = yOut, h.scale = scaleOut, h.mode = quantModeOptional, h.dst_type = dstType;
  SwigluQuant s;
  s.gate.left = activateLeft, s.reciprocal = true, s.sizes = groupListType == 1;
  RETURN_IF_ERROR(call.RequireFloating(x, "x"));
  return LaunchSwiglu(call, h, s);
}

Status aclnn::DequantSwigluQuant(Call& call, const aclTensor* x, const aclTensor* weightScaleOptional,
                                 const aclTensor* activationScaleOptional, const aclTensor* biasOptional,
                                 const aclTensor* quantScaleOptional, const aclTensor* quantOffsetOptional,
                                 const aclTensor* groupIndexOptional, bool activateLeft,
                                 char* quantModeOptional, const aclTensor* yOut, const aclTensor* scaleOut) {
  return DequantSwigluQuantV2(call, x, weightScaleOptional, activationScaleOptional, biasOptional,
                              quantScaleOptional, quantOffsetOptional, groupIndexOptional, activateLeft,
                              quantModeOptional, static_cast<int64_t>(yOut->view.dtype), nullptr, -1, 0, 7, 1,
                              0, yOut, scaleOut);
}

Status aclnn::DequantSwigluQuantV2(Call& call, const aclTensor* x, const aclTensor* weightScaleOptional,
                                   const aclTensor* activationScaleOptional, const aclTensor* biasOptional,
                                   const aclTensor* quantScaleOptional, const aclTensor* quantOffsetOptional,
                                   const aclTensor* groupIndexOptional, bool activateLeft,
                                   char* quantModeOptional, int64_t dstType, char* roundModeOptional,
                                   int64_t activateDim, int64_t swigluMode, double clampLimit,
                                   double gluAlpha, double gluBias, const aclTensor* yOut,
                                   const aclTensor* scaleOut) {
  int dim;
  RETURN_IF_ERROR(call.WrapDim(activateDim, x->view.rank, "activateDim", &dim));
  if (dim != x->view.rank - 1)
    return call.Invalid("activateDim is {}, expected the last dimension: others are not supported",
                        activateDim);
  if (swigluMode < 0 || swigluMode > 2)
    return call.Invalid("swigluMode is {}, expected 0, 1 or 2", swigluMode);
  SwigluQuant s;
  RETURN_IF_ERROR(ReadRounding(call, roundModeOptional, "roundModeOptional", &s.format));
  s.gate.left = activateLeft, s.gate.interleaved = swigluMode == 1, s.gate.clamped = swigluMode != 0;
  if (s.gate.clamped) {
    if (!(clampLimit > 0)) return call.Invalid("clampLimit is {}, expected more than 0", clampLimit);
    s.gate.limit = static_cast<float>(clampLimit), s.gate.alpha = static_cast<float>(gluAlpha);
    s.gate.bias = static_cast<float>(gluBias);
  }
  s.divide = true;
  SwigluHandles h{.x = x};
  h.weight_scale = weightScaleOptional, h.activation_scale = activationScaleOptional;
  h.bias = biasOptional, h.quant_scale = quantScaleOptional, h.quant_offset = quantOffsetOptional;
  h.groups = groupIndexOptional, h.y = yOut, h.scale = scaleOut, h.mode = quantModeOptional;
  h.dst_type = dstType;
  return LaunchSwiglu(call, h, s);
}

// The gated unit alone: y = swish(a) * (b + bias) of the first rows, as many as the groups have together.
Status aclnn::ClippedSwiglu(Call& call, const aclTensor* x, const aclTensor* groupIndexOptional, int64_t dim,
                            double alpha, double limit, double bias, bool interleaved, const aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 1, kMaxRank));
  const TensorView& v = x->view;
  int axis;
  RETURN_IF_ERROR(call.WrapDim(dim, v.rank, "dim", &axis));
  if (!IsFloating(v.dtype) || !IsFloating(out->view.dtype))
    return call.Invalid("x or out has type {}, expected floating types",
                        Name(IsFloating(v.dtype) ? out->view.dtype : v.dtype));
  if (v.dims[axis] % 2 != 0)
    return call.Invalid("x has shape {}, expected an even dimension {}", ShapeString(v), axis);
  int64_t dims[kMaxRank];
  std::copy_n(v.dims, v.rank, dims);
  dims[axis] /= 2;
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, v.rank));
  if (const aclTensor* g = groupIndexOptional;
      g != nullptr &&
      (g->view.rank != 1 || (g->view.dtype != DType::kInt64 && g->view.dtype != DType::kInt32)))
    return call.Invalid("groupIndexOptional is {}, expected one dimension of int64", Describe(g));
  if (v.empty()) return call.Nothing();
  // Rows: the dimensions before `dim`; a row is [2 n, inner], and swish runs along 2 n for each of inner.
  int64_t rows = 1, inner = 1;
  for (int i = 0; i < axis; ++i) rows *= v.dims[i];
  for (int i = axis + 1; i < v.rank; ++i) inner *= v.dims[i];
  const int64_t n = dims[axis];
  const Gate gate{interleaved,
                  true,
                  true,
                  static_cast<float>(limit),
                  static_cast<float>(alpha),
                  static_cast<float>(bias)};
  Operands o;
  const int at_x = o.Input(x), at_groups = o.Input(groupIndexOptional), at_out = o.Output(out);
  return call.Launch(
      o.list(), Cost{20.0 * static_cast<double>(v.numel()), o.bytes()}, [=](const Run& t) -> Status {
        const char* op = t.plan().name;
        RowGroups groups;
        if (at_groups >= 0) RETURN_IF_ERROR(groups.Read(op, "groupIndexOptional", t[at_groups], true, rows));
        const DenseInput from(t[at_x]);
        const DenseOutput to(t[at_out]);
        if (!from.ok() || !to.ok()) return ScratchFailed(op);
        const DenseReader<float> reader(from.view());
        const DenseWriter<float> writer(to.view());
        // With an inner dimension the row is read, and each column gathered behind it.
        const int64_t whole = 2 * n * inner;
        const bool ok = ForEachRow(rows, inner == 1 ? whole : 2 * whole, [&](int64_t r, float* row) {
          const float* p = reader.Read(r * whole, whole, row);
          if (p != row) std::copy_n(p, whole, row);
          float* result = row;
          if (groups[r] < 0) {
            std::fill_n(row, whole, 0.0f);
          } else if (inner == 1) {
            ApplyGate(gate, n, row);
          } else {
            float* column = row + whole;
            for (int64_t i = 0; i < inner; ++i) {
              for (int64_t j = 0; j < 2 * n; ++j) column[j] = row[j * inner + i];
              ApplyGate(gate, n, column);
              for (int64_t j = 0; j < n; ++j) row[j * inner + i] = column[j];
            }
          }
          float* target = writer.Begin(r * n * inner, result);
          if (target != result) std::copy_n(result, n * inner, target);
          writer.End(r * n * inner, n * inner, result);
        });
        if (!ok) return ScratchFailed(op);
        to.Finish();
        return Status();
      });
}

}  // namespace anycann
