// x is quantised to int8, each row by its own maximum or with scales that are given, multiplied with an int8
// weight, and scaled back.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <string_view>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/norm/operands.h"
#include "ops/quant/integer_matrix.h"
#include "ops/quant/quant_param.h"
#include "ops/quant/scaled_product.h"

namespace anycann {
namespace {

struct DequantPlaces {
  int x, weight_scale, bias, x_scale, smooth, out, weight;
};

// Rows of x as int8 and the scale of each.
Status QuantiseRows(const char* op, const TensorView& v, const Values<float>& smooth,
                    const Values<float>& given, bool one, int8_t* to, float* scale) {
  const int64_t rows = v.dims[0], k = v.dims[1];
  const DenseInput x(v);
  if (!x.ok()) return ScratchFailed(op);
  const DenseReader<float> reader(x.view());
  std::atomic<bool> failed{false};
  ParallelFor(rows, std::max<int64_t>(1, 16384 / (k + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> row(k);
    if (!row.ok()) {
      failed = true;
      return;
    }
    for (int64_t r = begin; r < end; ++r) {
      const float* p = reader.Read(r * k, k, row.get());
      float* __restrict q = row.get();
      float high = 0;
      for (int64_t i = 0; i < k; ++i) {
        q[i] = smooth.get() != nullptr ? p[i] * smooth[i] : p[i];
        high = std::max(high, std::fabs(q[i]));
      }
      scale[r] = given.get() != nullptr ? given[one ? 0 : r] : high / 127.0f;
      const float inverse = scale[r] == 0 ? 0.0f : 1.0f / scale[r];
      for (int64_t i = 0; i < k; ++i)
        to[r * k + i] =
            static_cast<int8_t>(std::min(127.0f, std::max(-128.0f, std::nearbyint(q[i] * inverse))));
    }
  });
  return failed ? ScratchFailed(op) : Status();
}

Status RunDequant(const Run& t, const IntegerMatrix& w, const DequantPlaces& at) {
  const char* op = t.plan().name;
  Buffer<int8_t> memory;
  TensorView weight;
  RETURN_IF_ERROR(ResolveIntegerMatrix(op, w, t[at.weight], &memory, &weight));
  const int64_t rows = t[at.x].dims[0], k = t[at.x].dims[1];
  const Scratch<int8_t> left(rows * k);
  const Scratch<float> row_scale(rows);
  const QuantScales column(t[at.weight_scale]);
  const Values<float> smooth = at.smooth >= 0 ? Values<float>(t[at.smooth]) : Values<float>();
  const Values<float> given = at.x_scale >= 0 ? Values<float>(t[at.x_scale]) : Values<float>();
  if (!left.ok() || !row_scale.ok() || !column.ok() || !smooth.ok() || !given.ok()) return ScratchFailed(op);
  RETURN_IF_ERROR(QuantiseRows(op, t[at.x], smooth, given, at.x_scale >= 0 && t[at.x_scale].numel() == 1,
                               left.get(), row_scale.get()));
  ProductScales s;
  s.column = column.get();
  s.per_column = t[at.weight_scale].numel() != 1;
  // Packed scales hold x's scale already.
  if (!IsQuantParam(t[at.weight_scale].dtype)) s.row = row_scale.get(), s.row_count = rows;
  if (at.bias >= 0) s.bias = &t[at.bias];
  return RunScaledProduct(op, TensorView::Contiguous(left.get(), DType::kInt8, {rows, k}), weight, t[at.out],
                          s);
}

}  // namespace

Status aclnn::QuantMatmulDequant(Call& call, const aclTensor* x, const aclTensor* weight,
                                 const aclTensor* weightScale, const aclTensor* biasOptional,
                                 const aclTensor* xScaleOptional, const aclTensor* xOffsetOptional,
                                 const aclTensor* smoothScaleOptional, char* xQuantMode, bool transposeWeight,
                                 const aclTensor* out) {
  if (xOffsetOptional != nullptr)
    return call.Invalid("xOffsetOptional is given, which is not supported: quantise x without an offset");
  const std::string_view mode = xQuantMode == nullptr ? "pertoken" : xQuantMode;
  if (mode != "pertoken" && mode != "pertensor")
    return call.Invalid("xQuantMode is \"{}\", expected \"pertoken\" or \"pertensor\"", mode);
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 2));
  if (!IsFloating(x->view.dtype))
    return call.Invalid("x has type {}, expected a floating type", Name(x->view.dtype));
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 2, 2));
  RETURN_IF_ERROR(call.RequireDType(weight, "weight", DType::kInt8));
  IntegerMatrix w;
  Arg weight_arg;
  RETURN_IF_ERROR(ReadIntegerMatrix(call, weight, "weight", transposeWeight, &w, &weight_arg));
  const int64_t rows = x->view.dims[0], k = x->view.dims[1], n = w.columns();
  if (w.rows() != k)
    return call.Invalid("x {} and weight {} don't match: {} columns, {} rows", ShapeString(x->view),
                        ShapeString(weight->view), k, w.rows());
  const int64_t dims[] = {rows, n};
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, 2));
  if (!IsFloating(out->view.dtype))
    return call.Invalid("out has type {}, expected a floating type", Name(out->view.dtype));
  const bool packed = IsQuantParam(weightScale->view.dtype);
  if ((!packed && !IsFloating(weightScale->view.dtype)) ||
      (weightScale->view.numel() != n && weightScale->view.numel() != 1))
    return call.Invalid("weightScale is {}, expected [{}] of float32 or of int64", Describe(weightScale), n);
  if (const aclTensor* s = xScaleOptional; s != nullptr) {
    const int64_t count = mode == "pertensor" ? 1 : rows;
    if ((s->view.numel() != count && s->view.numel() != 1) || !IsFloating(s->view.dtype))
      return call.Invalid("xScaleOptional is {}, expected [{}] of a floating type", Describe(s), count);
  } else if (packed || mode == "pertensor") {
    return call.Invalid("xScaleOptional is absent, which xQuantMode \"pertensor\" and packed scales need");
  }
  if (const aclTensor* s = smoothScaleOptional;
      s != nullptr && (s->view.numel() != k || !IsFloating(s->view.dtype)))
    return call.Invalid("smoothScaleOptional is {}, expected [{}] of a floating type", Describe(s), k);
  if (const aclTensor* b = biasOptional;
      b != nullptr && (b->view.numel() != n || b->view.rank > 2 ||
                       (b->view.dtype != DType::kInt32 && !IsFloating(b->view.dtype))))
    return call.Invalid("biasOptional is {}, expected [{}] of int32 or a floating type", Describe(b), n);
  if (out->view.empty()) return call.Nothing();
  Operands o;
  DequantPlaces at = {o.Input(x),
                      o.Input(weightScale),
                      o.Input(biasOptional),
                      o.Input(xScaleOptional),
                      o.Input(smoothScaleOptional),
                      o.Output(out),
                      0};
  Arg args[8];
  std::copy(o.list().begin(), o.list().end(), args);
  at.weight = static_cast<int>(o.list().size());
  args[at.weight] = weight_arg;
  auto matrix = std::make_shared<const IntegerMatrix>(w);
  return call.Launch(
      std::span<const Arg>(args, o.list().size() + 1),
      Cost{2.0 * static_cast<double>(rows) * static_cast<double>(n) * static_cast<double>(k), o.bytes()},
      [matrix, at](const Run& t) { return RunDequant(t, *matrix, at); });
}

}  // namespace anycann
