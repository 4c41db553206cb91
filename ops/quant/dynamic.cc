// Dynamic quantisation: each row gets the scale (and offset) that its own values need.
#include <algorithm>
#include <atomic>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"
#include "ops/quant/quantize_row.h"

namespace anycann {
namespace {

struct At3 {
  int x, smooth, y, scale, offset;
};

Status RunRows(const char* op, const At3& at, const Run& t) {
  const TensorView& shape = t[at.x];
  const int64_t n = shape.dims[shape.rank - 1], rows = shape.numel() / n;
  const DenseInput x(shape);
  const DenseOutput y(t[at.y]);
  const Values<float> smooth = at.smooth >= 0 ? Values<float>(t[at.smooth]) : Values<float>();
  const Scratch<float> scale(rows), offset(rows);
  if (!x.ok() || !y.ok() || !smooth.ok() || !scale.ok() || !offset.ok()) return ScratchFailed(op);
  const DenseReader<float> reader(x.view());
  int8_t* out = y.view().ptr<int8_t>();
  std::atomic<bool> failed{false};
  ParallelFor(rows, std::max<int64_t>(1, 16384 / n), [&](int64_t b, int64_t e) {
    const Scratch<float> row(n);
    if (!row.ok()) {
      failed = true;
      return;
    }
    for (int64_t r = b; r < e; ++r) {
      const float* p = reader.Read(r * n, n, row.get());
      for (int64_t i = 0; i < n; ++i) row[i] = smooth.get() ? p[i] * smooth[i] : p[i];
      QuantizeRow(row.get(), n, at.offset < 0, &scale[r], &offset[r], out + r * n);
    }
  });
  if (failed) return ScratchFailed(op);
  y.Finish();
  StoreValues(t[at.scale], scale.get());
  if (at.offset >= 0) StoreValues(t[at.offset], offset.get());
  return Status();
}

Status Launch(Call& call, const aclTensor* x, const aclTensor* smooth, const aclTensor* y,
              const aclTensor* scale, const aclTensor* offset) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 1, kMaxRank));
  if (!IsFloating(x->view.dtype))
    return call.Invalid("x has type {}, expected a floating-point type", Name(x->view.dtype));
  RETURN_IF_ERROR(call.RequireSameShape(y, "yOut", x, "x"));
  RETURN_IF_ERROR(call.RequireDType(y, "yOut", DType::kInt8));
  const int64_t n = x->view.dims[x->view.rank - 1], rows = n == 0 ? 0 : x->view.numel() / n;
  if (smooth != nullptr && smooth->view.numel() != n)
    return call.Invalid("smoothScalesOptional has shape {}, expected [{}]", ShapeString(smooth->view), n);
  for (const aclTensor* p : {scale, offset})
    if (p != nullptr && p->view.numel() != rows)
      return call.Invalid("scaleOut or offsetOut has shape {}, expected one value for each of {} rows",
                          ShapeString(p->view), rows);
  if (x->view.empty()) return call.Nothing();
  Operands o;
  const At3 at = {o.Input(x), o.Input(smooth), o.Output(y), o.Output(scale), o.Output(offset)};
  const char* op = call.op();
  return call.Launch(o.list(), Cost{4.0 * static_cast<double>(x->view.numel()), o.bytes()},
                     [op, at](const Run& t) { return RunRows(op, at, t); });
}

}  // namespace

Status aclnn::DynamicQuant(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                           const aclTensor* yOut, const aclTensor* scaleOut) {
  return Launch(call, x, smoothScalesOptional, yOut, scaleOut, nullptr);
}

Status aclnn::DynamicQuantV2(Call& call, const aclTensor* x, const aclTensor* smoothScalesOptional,
                             const aclTensor* groupIndexOptional, int64_t dstType, const aclTensor* yOut,
                             const aclTensor* scaleOut, const aclTensor* offsetOut) {
  if (groupIndexOptional != nullptr)
    return call.Invalid("groupIndexOptional is given, which is not supported: quantise each group alone");
  if (dstType != static_cast<int64_t>(DType::kInt8))
    return call.Invalid("dstType is {}, expected {} (int8)", dstType, 2);
  return Launch(call, x, smoothScalesOptional, yOut, scaleOut, offsetOut);
}

}  // namespace anycann
