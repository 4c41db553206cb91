// Root-mean-square normalisation whose result is quantised, alone and after an addition: rows are normalised
// by the rows engine into floats, then become integers with given scales or with those they need.
#include "aclnn_ops.h"
#include "ops/norm/operands.h"
#include "ops/norm/rows.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

// One quantised output.
struct Target {
  const aclTensor *y = nullptr, *scale = nullptr, *offset = nullptr, *scale_out = nullptr;
  const char *y_name = "yOut", *scale_name = "scale", *offset_name = "offset";
};

struct RmsQuantHandles {
  const aclTensor *x = nullptr, *residual = nullptr, *gamma = nullptr, *beta = nullptr, *sum = nullptr,
                  *rstd = nullptr, *norm = nullptr;
  Target targets[2];
  double eps = 0;
  bool dynamic = false;
  bool divide = false;
  int64_t dst_type = -1;
};

struct TargetPlaces {
  int y = -1, scale = -1, offset = -1, scale_out = -1;
};
struct RmsQuantPlaces {
  int x, residual, gamma, beta, sum, rstd, norm;
  TargetPlaces targets[2];
};
struct RmsQuant {
  RowFormat format;
  double eps;
  bool dynamic, divide;
};

Status Quantise(const Run& t, const RmsQuant& q, const TargetPlaces& at, const float* rows) {
  const char* op = t.plan().name;
  const RowFormat& f = q.format;
  const QuantRows y(f, t[at.y]);
  const GroupValues scale = at.scale >= 0 ? GroupValues(t[at.scale], 1, f.n) : GroupValues();
  const GroupValues offset = at.offset >= 0 ? GroupValues(t[at.offset], 1, f.n) : GroupValues();
  const Scratch<float> scales(f.rows);
  if (!y.ok() || !scale.ok() || !offset.ok() || !scales.ok()) return ScratchFailed(op);
  const bool ok = ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
    std::copy_n(rows + r * f.n, f.n, v);
    if (scale && q.divide) scale.Apply(0, f.n, v, [](float a, float b) { return a / b; });
    if (scale && !q.divide) scale.Apply(0, f.n, v, [](float a, float b) { return a * b; });
    if (offset) offset.Apply(0, f.n, v, [](float a, float b) { return a + b; });
    if (q.dynamic) {
      scales[r] = RowScale::Of(v, f.n).Scale(f, true);
      RowScale::Apply(v, f.n, scales[r], 0);
    }
    y.Store(r, v);
  });
  if (!ok) return ScratchFailed(op);
  y.Finish();
  if (at.scale_out >= 0) StoreValues(t[at.scale_out], scales.get());
  return Status();
}

Status RunRmsQuant(const Run& t, const RmsQuant& q, const RmsQuantPlaces& at) {
  const int64_t rows = q.format.rows, n = q.format.n;
  const Scratch<float> floats(rows * n);
  if (!floats.ok()) return ScratchFailed(t.plan().name);
  const TensorView norm = TensorView::Contiguous(floats.get(), DType::kFloat, t[at.x].dims, t[at.x].rank);
  RowNormForward f;
  f.x = At(t, at.x), f.residual = At(t, at.residual), f.gamma = At(t, at.gamma), f.beta = At(t, at.beta);
  f.y = &norm, f.rstd = At(t, at.rstd), f.sum = At(t, at.sum), f.y2 = At(t, at.norm);
  const RowNorm rms{.rows = rows, .n = n, .eps = q.eps, .centred = false};
  RETURN_IF_ERROR(RunRowNorm<float>(t.plan().name, rms, f));
  for (const TargetPlaces& target : at.targets)
    if (target.y >= 0) RETURN_IF_ERROR(Quantise(t, q, target, floats.get()));
  return Status();
}

Status CheckTarget(Call& call, const RmsQuantHandles& h, const Target& target, RowFormat* format) {
  if (target.y == nullptr) return Status();
  const TensorView& x = h.x->view;
  RETURN_IF_ERROR(ReadRowFormat(call, target.y, target.y_name, x.dims, x.rank, h.dst_type, format));
  RETURN_IF_ERROR(GroupValues::Check(call, target.scale, target.scale_name, 1, format->n));
  RETURN_IF_ERROR(GroupValues::Check(call, target.offset, target.offset_name, 1, format->n));
  if (h.dynamic && (target.scale_out == nullptr || target.scale_out->view.numel() != format->rows ||
                    !IsFloating(target.scale_out->view.dtype)))
    return call.Invalid("the scale of {} is absent or hasn't one value for each of {} rows", target.y_name,
                        format->rows);
  return Status();
}

Status LaunchRmsQuant(Call& call, const RmsQuantHandles& h) {
  RETURN_IF_ERROR(call.RequireRank(h.x, "the input", 1, kMaxRank));
  const TensorView& x = h.x->view;
  const int64_t n = x.dims[x.rank - 1], rows = n == 0 ? 0 : x.numel() / n, all = x.numel();
  const struct {
    const aclTensor* t;
    const char* role;
    int64_t count;
  } floats[] = {{h.x, "the input", all}, {h.residual, "the second input", all},
                {h.gamma, "gamma", n},   {h.beta, "beta", n},
                {h.sum, "xOut", all},    {h.norm, "the normalised output", all},
                {h.rstd, "rstd", rows}};
  // By role, not by handle: a client may give one tensor in two roles.
  for (const auto& [t, role, count] : floats) {
    if (t == nullptr) continue;
    if (!IsFloating(t->view.dtype) || t->view.dtype == DType::kDouble)
      return call.Invalid("{} has type {}, expected float16, bfloat16 or float32", role, Name(t->view.dtype));
    if (t->view.numel() != count)
      return call.Invalid("{} has shape {}, expected {} elements", role, ShapeString(t->view), count);
  }
  for (const auto& [t, role] : {std::pair{h.residual, "the second input"}, std::pair{h.sum, "xOut"},
                                std::pair{h.norm, "the normalised output"}})
    if (t != nullptr) RETURN_IF_ERROR(call.RequireSameShape(t, role, h.x, "the input"));
  RmsQuant q{.format = {}, .eps = h.eps, .dynamic = h.dynamic, .divide = h.divide};
  for (const Target& target : h.targets) RETURN_IF_ERROR(CheckTarget(call, h, target, &q.format));
  if (h.targets[0].y != nullptr && h.targets[1].y != nullptr &&
      h.targets[0].y->view.dtype != h.targets[1].y->view.dtype)
    return call.Invalid("the two quantised outputs have types {} and {}, expected the same",
                        Name(h.targets[0].y->view.dtype), Name(h.targets[1].y->view.dtype));
  q.format.rows = rows, q.format.n = n;
  if (x.empty()) return call.Nothing();
  Operands o;
  RmsQuantPlaces at = {o.Input(h.x),    o.Input(h.residual), o.Input(h.gamma), o.Input(h.beta),
                       o.Output(h.sum), o.Output(h.rstd),    o.Output(h.norm), {}};
  for (int i = 0; i < 2; ++i) {
    const Target& target = h.targets[i];
    if (target.y == nullptr) continue;
    at.targets[i] = {o.Output(target.y), o.Input(target.scale), o.Input(target.offset),
                     o.Output(h.dynamic ? target.scale_out : nullptr)};
  }
  return call.Launch(o.list(), Cost{12.0 * static_cast<double>(x.numel()), o.bytes()},
                     [q, at](const Run& t) { return RunRmsQuant(t, q, at); });
}

// A tensor without elements, or a 0-d one in place of an output that isn't wanted.
bool Wanted(const aclTensor* t, const aclTensor* x) {
  return t != nullptr && !(t->view.numel() <= 1 && x->view.numel() != t->view.numel());
}

Status AddQuant(Call& call, RmsQuantHandles h, int64_t axis, double eps, bool divide) {
  int dim;
  RETURN_IF_ERROR(call.WrapDim(axis, h.x->view.rank, "axis", &dim));
  if (dim != h.x->view.rank - 1) return call.Invalid("axis is {}, expected the last dimension (-1)", axis);
  h.targets[0].y_name = "y1Out", h.targets[0].scale_name = "scales1";
  h.targets[0].offset_name = "zeroPoints1Optional";
  h.targets[1].y_name = "y2Out", h.targets[1].scale_name = "scales2Optional";
  h.targets[1].offset_name = "zeroPoints2Optional";
  if (h.targets[1].scale == nullptr) h.targets[1] = {};
  h.eps = eps, h.divide = divide;
  return LaunchRmsQuant(call, h);
}

}  // namespace

Status aclnn::RmsNormQuant(Call& call, const aclTensor* x, const aclTensor* gamma, const aclTensor* beta,
                           const aclTensor* scale, const aclTensor* offset, double epsilon, aclTensor* y) {
  return RmsNormQuantV3(call, x, gamma, scale, offset, beta, epsilon, false, false, y, nullptr);
}

Status aclnn::RmsNormQuantV3(Call& call, const aclTensor* x, const aclTensor* gamma, const aclTensor* scale,
                             const aclTensor* offset, const aclTensor* beta, double epsilon, bool divMode,
                             bool outputRstd, aclTensor* y, aclTensor* rstd) {
  if (outputRstd && rstd == nullptr) return call.Invalid("rstd is absent, which outputRstd needs");
  RmsQuantHandles h;
  h.x = x, h.gamma = gamma, h.beta = beta, h.rstd = outputRstd ? rstd : nullptr;
  h.targets[0] = {.y = y, .scale = scale, .offset = offset, .y_name = "y"};
  h.eps = epsilon, h.divide = divMode;
  return LaunchRmsQuant(call, h);
}

Status aclnn::RmsNormDynamicQuant(Call& call, const aclTensor* x, const aclTensor* gamma,
                                  const aclTensor* smoothScalesOptional, const aclTensor* betaOptional,
                                  double epsilon, int64_t dstType, const aclTensor* yOut,
                                  const aclTensor* scaleOut) {
  RmsQuantHandles h;
  h.x = x, h.gamma = gamma, h.beta = betaOptional;
  h.targets[0] = {.y = yOut, .scale = smoothScalesOptional, .scale_out = scaleOut};
  h.targets[0].scale_name = "smoothScalesOptional";
  h.eps = epsilon, h.dynamic = true, h.dst_type = dstType;
  return LaunchRmsQuant(call, h);
}

Status aclnn::AddRmsNormQuant(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* gamma,
                              const aclTensor* scales1, const aclTensor* scales2Optional,
                              const aclTensor* zeroPoints1Optional, const aclTensor* zeroPoints2Optional,
                              int64_t axis, double epsilon, bool divMode, aclTensor* y1Out, aclTensor* y2Out,
                              aclTensor* xOut) {
  return AddRmsNormQuantV2(call, x1, x2, gamma, scales1, scales2Optional, zeroPoints1Optional,
                           zeroPoints2Optional, nullptr, axis, epsilon, divMode, y1Out, y2Out, xOut, nullptr);
}

Status aclnn::AddRmsNormQuantV2(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* gamma,
                                const aclTensor* scales1, const aclTensor* scales2Optional,
                                const aclTensor* zeroPoints1Optional, const aclTensor* zeroPoints2Optional,
                                const aclTensor* betaOptional, int64_t axis, double epsilon, bool divMode,
                                aclTensor* y1Out, aclTensor* y2Out, aclTensor* xOut, aclTensor* rmsNormOut) {
  RmsQuantHandles h;
  h.x = x1, h.residual = x2, h.gamma = gamma, h.beta = betaOptional, h.sum = xOut;
  h.norm = Wanted(rmsNormOut, x1) ? rmsNormOut : nullptr;
  h.targets[0] = {.y = y1Out, .scale = scales1, .offset = zeroPoints1Optional};
  h.targets[1] = {.y = y2Out, .scale = scales2Optional, .offset = zeroPoints2Optional};
  return AddQuant(call, h, axis, epsilon, divMode);
}

Status aclnn::AddRmsNormDynamicQuant(Call& call, const aclTensor* x1, const aclTensor* x2,
                                     const aclTensor* gamma, const aclTensor* smoothScale1Optional,
                                     const aclTensor* smoothScale2Optional, double epsilon, aclTensor* y1Out,
                                     aclTensor* y2Out, aclTensor* xOut, aclTensor* scale1Out,
                                     aclTensor* scale2Out) {
  return AddRmsNormDynamicQuantV2(call, x1, x2, gamma, smoothScale1Optional, smoothScale2Optional, nullptr,
                                  epsilon, nullptr, y1Out, y2Out, xOut, scale1Out, scale2Out);
}

Status aclnn::AddRmsNormDynamicQuantV2(Call& call, const aclTensor* x1, const aclTensor* x2,
                                       const aclTensor* gamma, const aclTensor* smoothScale1Optional,
                                       const aclTensor* smoothScale2Optional, const aclTensor* betaOptional,
                                       double epsilon, const aclBoolArray* outputMask, aclTensor* y1Out,
                                       aclTensor* y2Out, aclTensor* xOut, aclTensor* scale1Out,
                                       aclTensor* scale2Out) {
  if (outputMask != nullptr && outputMask->size != 2 && outputMask->size != 0)
    return call.Invalid("outputMask has {} values, expected 2", outputMask->size);
  const bool masked = outputMask != nullptr && outputMask->size == 2;
  const bool first = masked ? (*outputMask)[0] : true;
  const bool second =
      masked ? (*outputMask)[1] : smoothScale1Optional != nullptr && smoothScale2Optional != nullptr;
  if (!first && !second) return call.Invalid("outputMask is false twice, expected one output at least");
  RmsQuantHandles h;
  h.x = x1, h.residual = x2, h.gamma = gamma, h.beta = betaOptional, h.sum = xOut;
  if (first) {
    h.targets[0] = {.y = y1Out, .scale = smoothScale1Optional, .scale_out = scale1Out};
    h.targets[0].y_name = "y1Out", h.targets[0].scale_name = "smoothScale1Optional";
  }
  if (second) {
    h.targets[1] = {.y = y2Out, .scale = smoothScale2Optional, .scale_out = scale2Out};
    h.targets[1].y_name = "y2Out", h.targets[1].scale_name = "smoothScale2Optional";
  }
  h.eps = epsilon, h.dynamic = true;
  return LaunchRmsQuant(call, h);
}

}  // namespace anycann
