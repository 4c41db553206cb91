#include "ops/quant/scale_rows.h"

#include "ops/quant/quant_param.h"
#include "ops/quant/scaled_product.h"

namespace anycann {

Status CheckRowScale(Call& call, const aclTensor* scale, const char* name, int64_t columns) {
  const TensorView& v = scale->view;
  if ((!IsQuantParam(v.dtype) && !IsFloating(v.dtype)) || v.numel() != columns)
    return call.Invalid("{} is {}, expected [{}] of int64 of TransQuantParam or a floating type", name,
                        Describe(scale), columns);
  return Status();
}

Status ScaleRows(const char* op, const float* rows, const TensorView& scale, const TensorView& y) {
  const QuantScales columns(scale);
  if (!columns.ok()) return ScratchFailed(op);
  ProductScales s;
  s.column = columns.get();
  s.per_column = s.per_column_offset = true;
  if (y.dtype == DType::kInt8) s.offset = columns.offsets();
  return ScaleSums(op, rows, y, s);
}

}  // namespace anycann
