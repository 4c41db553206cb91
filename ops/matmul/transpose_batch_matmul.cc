// Batched products between transposed layouts: y = (x1 with its dimensions permuted @ x2 with its own)
// permuted; optionally split into parts of its columns, or quantised to int8.
#include <memory>

#include "aclnn_ops.h"
#include "ops/matmul/fractal_nz.h"
#include "ops/matmul/gemm.h"
#include "ops/operand.h"
#include "ops/quant/scale_rows.h"

namespace anycann {
namespace {

TensorView Permute(const TensorView& v, const int64_t* order) {
  TensorView p = v;
  for (int i = 0; i < 3; ++i) {
    p.dims[i] = v.dims[order[i]];
    p.strides[i] = v.strides[order[i]];
  }
  return p;
}

Status ReadOrder(Call& call, const aclIntArray* perm, const char* name, int64_t* order) {
  bool seen[3] = {};
  bool valid = perm->size == 3;
  for (uint64_t i = 0; valid && i < 3; ++i) {
    order[i] = (*perm)[i];
    valid = order[i] >= 0 && order[i] < 3 && !seen[order[i]];
    if (valid) seen[order[i]] = true;
  }
  return valid ? Status() : call.Invalid("{} is not an order of 0, 1 and 2", name);
}

struct TransposedProduct {
  TensorView weight;  // the view, for a weight in NZ
  bool nz = false, nz_transposed = false, quantised = false;
  int64_t y_order[3] = {0, 1, 2};
  int64_t order1[3], order2[3];
  int64_t parts = 1;
  int64_t dims[3] = {0, 0, 0};  // batch, rows, columns
};

Status RunTransposed(const Run& t, const TransposedProduct& p) {
  const TensorView a = Permute(t[0], p.order1);
  const TensorView stored = p.nz ? FractalNz::Unpack(t[1], p.weight, p.nz_transposed) : t[1];
  if (stored.data == nullptr && !stored.empty())
    return Error(kBadAlloc, "{}: no memory to unpack the weight", t.plan().name);
  const TensorView b = Permute(stored, p.order2);
  const TensorView& out = t[2];
  const auto back = [&](const TensorView& v) {  // y as [batch, rows, columns]
    TensorView w = v;
    for (int i = 0; i < 3; ++i) {
      w.dims[p.y_order[i]] = v.dims[i];
      w.strides[p.y_order[i]] = v.strides[i];
    }
    return w;
  };
  if (p.parts == 1 && !p.quantised) return Gemm(MakeGemm(a, b, back(out), nullptr));
  // [rows, batch * columns] in memory of its own.
  const int64_t rows = p.dims[1], wide = p.dims[0] * p.dims[2];
  const DType type = p.quantised ? DType::kFloat : out.dtype;
  const Buffer<char> memory = NewBuffer<char>(rows * wide * SizeOf(type));
  const TensorView all = TensorView::Contiguous(memory.get(), type, {rows, p.dims[0], p.dims[2]});
  RETURN_IF_ERROR(Gemm(MakeGemm(a, b, all.Transpose(0, 1), nullptr)));
  if (p.quantised) return ScaleRows(t.plan().name, reinterpret_cast<const float*>(memory.get()), t[3], out);
  const TensorView split = TensorView::Contiguous(memory.get(), type, {rows, p.parts, wide / p.parts});
  CopyCast(out, split.Transpose(0, 1));
  return Status();
}

Status LaunchTransposed(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* bias,
                        const aclTensor* scale, const aclIntArray* perm1, const aclIntArray* perm2,
                        const aclIntArray* perm_y, int32_t parts, const aclTensor* out) {
  if (bias != nullptr) return call.Invalid("bias is given, which is not supported: add it afterwards");
  TransposedProduct p;
  RETURN_IF_ERROR(call.RequireRank(x1, "x1", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(x2, "x2", 3, 3));
  RETURN_IF_ERROR(ReadOrder(call, perm1, "permX1", p.order1));
  RETURN_IF_ERROR(ReadOrder(call, perm2, "permX2", p.order2));
  RETURN_IF_ERROR(ReadOrder(call, perm_y, "permY", p.y_order));
  for (const auto& [t, name] : {std::pair{x1, "x1"}, std::pair{x2, "x2"}})
    if (!IsFloating(t->view.dtype) || t->view.dtype == DType::kDouble)
      return call.Invalid("{} has type {}, expected float16, bfloat16 or float32", name, Name(t->view.dtype));
  FractalNz nz;
  p.nz = FractalNz::Of(x2, &nz);
  p.nz_transposed = p.nz && nz.transposed;
  if (p.nz && !nz.Holds(x2->view))
    return call.Invalid("x2 has shape {}, which its storage {} in FRACTAL_NZ doesn't hold",
                        ShapeString(x2->view), ShapeString(nz.storage));
  p.weight = x2->view;
  const TensorView a = Permute(x1->view, p.order1), b = Permute(x2->view, p.order2);
  if (a.dims[2] != b.dims[1] || a.dims[0] != b.dims[0])
    return call.Invalid("x1 {} and x2 {} after permX1 and permX2 don't match as products", ShapeString(a),
                        ShapeString(b));
  p.dims[0] = a.dims[0], p.dims[1] = a.dims[1], p.dims[2] = b.dims[2];
  p.quantised = scale != nullptr, p.parts = parts;
  const int64_t wide = p.dims[0] * p.dims[2];
  const bool usual = p.y_order[0] == 1 && p.y_order[1] == 0;
  if (parts < 1 || wide % parts != 0 || (parts > 1 && (!usual || scale != nullptr)))
    return call.Invalid(
        "batchSplitFactor is {}, expected a divisor of {} columns, and 1 with scale or another permY than "
        "[1,0,2]",
        parts, wide);
  int64_t dims[3];
  for (int i = 0; i < 3; ++i) dims[i] = p.dims[p.y_order[i]];
  if (parts > 1) dims[0] = parts, dims[1] = p.dims[1], dims[2] = wide / parts;
  if (scale != nullptr) {
    dims[0] = p.dims[1], dims[1] = 1, dims[2] = wide;
    if (!usual) return call.Invalid("permY with scale is not [1,0,2]");
    RETURN_IF_ERROR(CheckRowScale(call, scale, "scale", wide));
    if (out->view.dtype != DType::kInt8 && !IsFloating(out->view.dtype))
      return call.Invalid("out has type {}, expected int8 or a floating type", Name(out->view.dtype));
  } else if (!IsFloating(out->view.dtype)) {
    return call.Invalid("out has type {}, expected a floating type", Name(out->view.dtype));
  }
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, 3));
  if (out->view.empty()) return call.Nothing();
  Arg args[4] = {In(x1), p.nz ? In(x2, nz.storage) : In(x2), Out(out), Out(out)};
  if (scale != nullptr) args[3] = In(scale);
  const double work =
      2.0 * static_cast<double>(p.dims[1]) * static_cast<double>(wide) * static_cast<double>(a.dims[2]);
  const double bytes = static_cast<double>(a.nbytes() + b.nbytes() + out->view.nbytes());
  auto shared = std::make_shared<const TransposedProduct>(p);
  return call.Launch(std::span<const Arg>(args, scale != nullptr ? 4 : 3), Cost{work, bytes},
                     [shared](const Run& t) { return RunTransposed(t, *shared); });
}

}  // namespace

Status aclnn::TransposeBatchMatMul(Call& call, const aclTensor* x1, const aclTensor* x2,
                                   const aclTensor* bias, const aclTensor* scale, const aclIntArray* permX1,
                                   const aclIntArray* permX2, const aclIntArray* permY, int8_t,
                                   const int32_t batchSplitFactor, aclTensor* out) {
  return LaunchTransposed(call, x1, x2, bias, scale, permX1, permX2, permY, batchSplitFactor, out);
}

Status aclnn::TransposeBatchMatMulWeightNz(Call& call, const aclTensor* x1, const aclTensor* x2,
                                           const aclTensor* bias, const aclTensor* scale,
                                           const aclIntArray* permX1, const aclIntArray* permX2,
                                           const aclIntArray* permY, int8_t, const int32_t batchSplitFactor,
                                           aclTensor* out) {
  return LaunchTransposed(call, x1, x2, bias, scale, permX1, permX2, permY, batchSplitFactor, out);
}

}  // namespace anycann
