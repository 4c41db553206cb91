// Rows quantised after a Gaussian unit, or with the scales of groups of rows.
#include "aclnn_ops.h"
#include "ops/activation/gelu.h"
#include "ops/norm/operands.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

struct GeluPlaces {
  int x, scale, offset, y, scale_out;
};

Status RunGeluQuant(const Run& t, const RowFormat& f, GeluForm form, const GeluPlaces& at) {
  const char* op = t.plan().name;
  const DenseInput x(t[at.x]);
  const QuantRows y(f, t[at.y]);
  const GroupValues scale = at.scale >= 0 ? GroupValues(t[at.scale], 1, f.n) : GroupValues();
  const GroupValues offset = at.offset >= 0 ? GroupValues(t[at.offset], 1, f.n) : GroupValues();
  const bool dynamic = at.scale_out >= 0;
  const Scratch<float> scales(f.rows);
  if (!x.ok() || !y.ok() || !scale.ok() || !offset.ok() || !scales.ok()) return ScratchFailed(op);
  const DenseReader<float> reader(x.view());
  const bool ok = ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
    const float* p = reader.Read(r * f.n, f.n, v);
    if (form == GeluForm::kTanh)
      for (int64_t i = 0; i < f.n; ++i) v[i] = GeluTanh<float>()(p[i]);
    else
      for (int64_t i = 0; i < f.n; ++i) v[i] = GeluExact<float>()(p[i]);
    if (scale) scale.Apply(0, f.n, v, [](float a, float b) { return a * b; });
    if (offset && !dynamic) offset.Apply(0, f.n, v, [](float a, float b) { return a + b; });
    if (dynamic) {
      scales[r] = RowScale::Of(v, f.n).Scale(f, true);
      RowScale::Apply(v, f.n, scales[r], 0);
    }
    y.Store(r, v);
  });
  if (!ok) return ScratchFailed(op);
  y.Finish();
  if (dynamic) StoreValues(t[at.scale_out], scales.get());
  return Status();
}

struct GroupPlaces {
  int x, scale, groups, offset, y;
};

Status RunGroupQuant(const Run& t, const RowFormat& f, const GroupPlaces& at) {
  const char* op = t.plan().name;
  RowGroups groups;
  RETURN_IF_ERROR(groups.Read(op, "groupIndex", t[at.groups], false, f.rows));
  const DenseInput x(t[at.x]);
  const QuantRows y(f, t[at.y]);
  const GroupValues scale(t[at.scale], t[at.groups].numel(), f.n);
  const Values<float> offset(t, at.offset);
  if (!x.ok() || !y.ok() || !scale.ok() || !offset.ok()) return ScratchFailed(op);
  const float shift = offset.get() != nullptr ? offset[0] : 0.0f;
  const DenseReader<float> reader(x.view());
  const bool ok = ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
    const float* p = reader.Read(r * f.n, f.n, v);
    if (p != v) std::copy_n(p, f.n, v);
    if (groups[r] >= 0)
      scale.Apply(groups[r], f.n, v, [shift](float a, float b) { return a * b + shift; });
    else
      std::fill_n(v, f.n, 0.0f);
    y.Store(r, v);
  });
  if (!ok) return ScratchFailed(op);
  y.Finish();
  return Status();
}

}  // namespace

Status aclnn::GeluQuant(Call& call, const aclTensor* self, const aclTensor* inputScaleOptional,
                        const aclTensor* inputOffsetOptional, const char* approximate, const char* quantMode,
                        const char* roundMode, int64_t dstType, const aclTensor* y,
                        const aclTensor* outScaleOptional) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, kMaxRank));
  const TensorView& x = self->view;
  if (!IsFloating(x.dtype)) return call.Invalid("self has type {}, expected a floating type", Name(x.dtype));
  const std::string_view form = approximate, mode = quantMode;
  if (form != "none" && form != "tanh")
    return call.Invalid("approximate is \"{}\", expected \"none\" or \"tanh\"", form);
  if (mode != "static" && mode != "dynamic")
    return call.Invalid("quantMode is \"{}\", expected \"static\" or \"dynamic\"", mode);
  RowFormat f;
  RETURN_IF_ERROR(ReadRounding(call, roundMode, "roundMode", &f));
  RETURN_IF_ERROR(ReadRowFormat(call, y, "y", x.dims, x.rank, dstType, &f));
  RETURN_IF_ERROR(GroupValues::Check(call, inputScaleOptional, "inputScaleOptional", 1, f.n));
  RETURN_IF_ERROR(GroupValues::Check(call, inputOffsetOptional, "inputOffsetOptional", 1, f.n));
  const bool dynamic = mode == "dynamic";
  if (!dynamic && inputScaleOptional == nullptr)
    return call.Invalid("inputScaleOptional is absent, which quantMode \"static\" needs");
  if (dynamic && (outScaleOptional == nullptr || outScaleOptional->view.numel() != f.rows ||
                  !IsFloating(outScaleOptional->view.dtype)))
    return call.Invalid("outScaleOptional is absent or not one value for each of {} rows", f.rows);
  if (x.empty()) return call.Nothing();
  Operands o;
  const GeluPlaces at = {o.Input(self), o.Input(inputScaleOptional), o.Input(inputOffsetOptional),
                         o.Output(y), o.Output(dynamic ? outScaleOptional : nullptr)};
  const GeluForm kind = form == "tanh" ? GeluForm::kTanh : GeluForm::kExact;
  return call.Launch(o.list(), Cost{30.0 * static_cast<double>(x.numel()), o.bytes()},
                     [f, kind, at](const Run& t) { return RunGeluQuant(t, f, kind, at); });
}

Status aclnn::GroupQuant(Call& call, const aclTensor* x, const aclTensor* scale, const aclTensor* groupIndex,
                         const aclTensor* offsetOptional, int32_t dstType, aclTensor* y) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(scale, "scale", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(groupIndex, "groupIndex", 1, 1));
  if (!IsFloating(x->view.dtype) || !IsFloating(scale->view.dtype))
    return call.Invalid("x or scale has type {}, expected floating types",
                        Name(IsFloating(x->view.dtype) ? scale->view.dtype : x->view.dtype));
  if (groupIndex->view.dtype != DType::kInt32 && groupIndex->view.dtype != DType::kInt64)
    return call.Invalid("groupIndex has type {}, expected int32 or int64", Name(groupIndex->view.dtype));
  RowFormat f;
  RETURN_IF_ERROR(ReadRowFormat(call, y, "y", x->view.dims, 2, dstType, &f));
  const int64_t dims[] = {groupIndex->view.dims[0], f.n};
  RETURN_IF_ERROR(call.RequireShape(scale, "scale", dims, 2));
  if (offsetOptional != nullptr &&
      (offsetOptional->view.numel() != 1 || !IsFloating(offsetOptional->view.dtype)))
    return call.Invalid("offsetOptional is {}, expected [1] of a floating type", Describe(offsetOptional));
  if (x->view.empty()) return call.Nothing();
  Operands o;
  const GroupPlaces at = {o.Input(x), o.Input(scale), o.Input(groupIndex), o.Input(offsetOptional),
                          o.Output(y)};
  return call.Launch(o.list(), Cost{3.0 * static_cast<double>(x->view.numel()), o.bytes()},
                     [f, at](const Run& t) { return RunGroupQuant(t, f, at); });
}

}  // namespace anycann
