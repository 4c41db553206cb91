// Each matrix between two others, p1 @ x @ p2 (a Kronecker product applied to its elements), quantised to 4
// bits by its own maximum.
#include "aclnn_ops.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

Status RunFlat(const Run& t, const RowFormat& f, float ratio) {
  const char* op = t.plan().name;
  const int64_t count = t[0].numel();
  const Scratch<float> half(count), whole(count), scale(f.rows);
  const QuantRows y(f, t[3]);
  if (!half.ok() || !whole.ok() || !scale.ok() || !y.ok()) return ScratchFailed(op);
  const TensorView first = TensorView::Contiguous(half.get(), DType::kFloat, t[0].dims, 3),
                   second = TensorView::Contiguous(whole.get(), DType::kFloat, t[0].dims, 3);
  RETURN_IF_ERROR(Gemm(MakeGemm(t[0], t[2], first, nullptr)));
  RETURN_IF_ERROR(Gemm(MakeGemm(t[1], first, second, nullptr)));
  const bool ok = ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
    std::copy_n(whole.get() + r * f.n, f.n, v);
    scale[r] = RowScale::Of(v, f.n).Scale(f, true) / ratio;
    RowScale::Apply(v, f.n, scale[r], 0);
    y.Store(r, v);
  });
  if (!ok) return ScratchFailed(op);
  y.Finish();
  StoreValues(t[4], scale.get());
  return Status();
}

}  // namespace

Status aclnn::FlatQuant(Call& call, const aclTensor* x, const aclTensor* kroneckerP1,
                        const aclTensor* kroneckerP2, double clipRatio, aclTensor* out,
                        aclTensor* quantScale) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 3, 3));
  const TensorView& v = x->view;
  const int64_t left[] = {v.dims[1], v.dims[1]}, right[] = {v.dims[2], v.dims[2]};
  RETURN_IF_ERROR(call.RequireShape(kroneckerP1, "kroneckerP1", left, 2));
  RETURN_IF_ERROR(call.RequireShape(kroneckerP2, "kroneckerP2", right, 2));
  for (const aclTensor* t : {x, kroneckerP1, kroneckerP2})
    if (!IsFloating(t->view.dtype) || t->view.dtype == DType::kDouble)
      return call.Invalid("an input has type {}, expected float16, bfloat16 or float32", Name(t->view.dtype));
  if (!(clipRatio > 0 && clipRatio <= 1))
    return call.Invalid("clipRatio is {}, expected more than 0 and at most 1", clipRatio);
  RowFormat f;
  RETURN_IF_ERROR(ReadRowFormat(call, out, "out", v.dims, 3, -1, &f));
  if (!f.four_bits) return call.Invalid("out has type int8, expected int4 or int32 (eight int4)");
  f.rows = v.dims[0], f.n = v.dims[1] * v.dims[2];
  if (quantScale->view.numel() != f.rows || !IsFloating(quantScale->view.dtype))
    return call.Invalid("quantScale is {}, expected [{}] of float32", Describe(quantScale), f.rows);
  if (v.empty()) return call.Nothing();
  const double work = 2.0 * static_cast<double>(v.numel()) * static_cast<double>(v.dims[1] + v.dims[2]);
  return call.Launch(
      {In(x), In(kroneckerP1), In(kroneckerP2), Out(out), Out(quantScale)},
      Cost{work, static_cast<double>(v.nbytes())},
      [f, ratio = static_cast<float>(clipRatio)](const Run& t) { return RunFlat(t, f, ratio); });
}

Status aclnn::FlatQuantV2(Call& call, const aclTensor* x, const aclTensor* kroneckerP1,
                          const aclTensor* kroneckerP2, double clipRatio, double dstTypeMax, aclTensor* out,
                          aclTensor* quantScale) {
  if (dstTypeMax != 0) return call.Invalid("dstTypeMax is {}, expected 0 for integers", dstTypeMax);
  return FlatQuant(call, x, kroneckerP1, kroneckerP2, clipRatio, out, quantScale);
}

}  // namespace anycann
