// Rows turned block by block with one matrix, then quantised by their own maximum.
#include "aclnn_ops.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

Status RunRotate(const Run& t, const RowFormat& f, int64_t block) {
  const char* op = t.plan().name;
  const DenseInput x(t[0]);
  const QuantRows y(f, t[2]);
  const Scratch<float> turned(f.rows * f.n), scale(f.rows);
  if (!x.ok() || !y.ok() || !turned.ok() || !scale.ok()) return ScratchFailed(op);
  const int64_t lines = f.rows * (f.n / block);
  RETURN_IF_ERROR(
      Gemm(MakeGemm(TensorView::Contiguous(x.view().data, t[0].dtype, {lines, block}), t[1],
                    TensorView::Contiguous(turned.get(), DType::kFloat, {lines, block}), nullptr)));
  const bool ok = ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
    std::copy_n(turned.get() + r * f.n, f.n, v);
    scale[r] = RowScale::Of(v, f.n).Scale(f, true);
    RowScale::Apply(v, f.n, scale[r], 0);
    y.Store(r, v);
  });
  if (!ok) return ScratchFailed(op);
  y.Finish();
  StoreValues(t[3], scale.get());
  return Status();
}

}  // namespace

Status aclnn::RotateQuant(Call& call, const aclTensor* x, const aclTensor* rotation, const aclTensor* alpha,
                          int64_t axis, char* roundMode, int64_t scaleAlg, double dstTypeMax, bool trans,
                          aclTensor* yOut, aclTensor* scaleOut) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 1, kMaxRank));
  RETURN_IF_ERROR(call.RequireRank(rotation, "rotation", 2, 2));
  if (alpha != nullptr) return call.Invalid("alpha is given, which is not supported: multiply x before");
  if (trans) return call.Invalid("trans is true, expected false");
  if (scaleAlg != 0 || dstTypeMax != 0)
    return call.Invalid("scaleAlg is {} and dstTypeMax {}, expected 0 for integers", scaleAlg, dstTypeMax);
  for (const aclTensor* t : {x, rotation})
    if (!IsFloating(t->view.dtype) || t->view.dtype == DType::kDouble)
      return call.Invalid("an input has type {}, expected float16, bfloat16 or float32", Name(t->view.dtype));
  const TensorView& v = x->view;
  int dim;
  RETURN_IF_ERROR(call.WrapDim(axis, v.rank, "axis", &dim));
  if (dim != v.rank - 1) return call.Invalid("axis is {}, expected the last dimension (-1)", axis);
  RowFormat f;
  RETURN_IF_ERROR(ReadRounding(call, roundMode, "roundMode", &f));
  RETURN_IF_ERROR(ReadRowFormat(call, yOut, "yOut", v.dims, v.rank, -1, &f));
  const int64_t block = rotation->view.dims[0];
  if (block < 1 || rotation->view.dims[1] != block || f.n % block != 0)
    return call.Invalid("rotation has shape {}, expected [k,k] with k a divisor of {}",
                        ShapeString(rotation->view), f.n);
  if (scaleOut->view.numel() != f.rows || !IsFloating(scaleOut->view.dtype))
    return call.Invalid("scaleOut is {}, expected one value for each of {} rows", Describe(scaleOut), f.rows);
  if (v.empty()) return call.Nothing();
  return call.Launch({In(x), In(rotation), Out(yOut), Out(scaleOut)},
                     Cost{2.0 * static_cast<double>(v.numel()) * static_cast<double>(block),
                          static_cast<double>(v.nbytes())},
                     [f, block](const Run& t) { return RunRotate(t, f, block); });
}

}  // namespace anycann
