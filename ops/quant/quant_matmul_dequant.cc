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
  int x, weight_scale, bias, x_scale, smooth, groups, out, weight;
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
  RETURN_IF_ERROR(ResolveWeight(op, w, t[at.weight], &memory, &weight));
  const int64_t rows = t[at.x].dims[0], k = t[at.x].dims[1];
  const Scratch<int8_t> left(rows * k);
  const Scratch<float> row_scale(rows);
  const QuantScales column(t[at.weight_scale]);
  const Values<float> smooth(t, at.smooth);
  const Values<float> given(t, at.x_scale);
  if (!left.ok() || !row_scale.ok() || !column.ok() || !smooth.ok() || !given.ok()) return ScratchFailed(op);
  RETURN_IF_ERROR(QuantiseRows(op, t[at.x], smooth, given, at.x_scale >= 0 && t[at.x_scale].numel() == 1,
                               left.get(), row_scale.get()));
  const TensorView levels = TensorView::Contiguous(left.get(), DType::kInt8, {rows, k});
  const int64_t n = weight.dims[weight.rank - 1];
  // Rows [begin, end) times one weight. Packed scales hold x's scale already.
  const auto multiply = [&](int64_t begin, int64_t end, int64_t group, const TensorView& w) {
    ProductScales s;
    s.per_column = t[at.weight_scale].numel() != 1;
    s.column = column.get() + (s.per_column ? group * n : 0);
    if (!IsQuantParam(t[at.weight_scale].dtype)) s.row = row_scale.get() + begin, s.row_count = end - begin;
    const TensorView bias = at.bias < 0     ? TensorView()
                            : at.groups < 0 ? t[at.bias]
                                            : t[at.bias].Select(0, group);
    if (at.bias >= 0) s.bias = &bias;
    return RunScaledProduct(op, levels.Narrow(0, begin, end - begin), w,
                            t[at.out].Narrow(0, begin, end - begin), s);
  };
  if (at.groups < 0) return multiply(0, rows, 0, weight);
  const Values<int64_t> ends(t[at.groups]);
  if (!ends.ok()) return ScratchFailed(op);
  int64_t begin = 0;
  for (int64_t g = 0; g < t[at.groups].numel(); ++g) {
    if (ends[g] < begin || ends[g] > rows)
      return Error(kParamInvalid, "{}: groupList has {} after {}, expected a rising list up to {}", op,
                   ends[g], begin, rows);
    if (ends[g] > begin) RETURN_IF_ERROR(multiply(begin, ends[g], g, weight.Select(0, g)));
    begin = ends[g];
  }
  const uint64_t zero = 0;
  if (begin < rows) Fill(t[at.out].Narrow(0, begin, rows - begin), &zero);
  return Status();
}

Status LaunchDequant(Call& call, const aclTensor* x, const aclTensor* weight, const aclTensor* weightScale,
                     const aclTensor* group_list, const aclTensor* biasOptional,
                     const aclTensor* xScaleOptional, const aclTensor* xOffsetOptional,
                     const aclTensor* smoothScaleOptional, const char* xQuantMode, bool transposeWeight,
                     const aclTensor* out) {
  if (xOffsetOptional != nullptr)
    return call.Invalid("xOffsetOptional is given, which is not supported: quantise x without an offset");
  const std::string_view mode = xQuantMode == nullptr ? "pertoken" : xQuantMode;
  if (mode != "pertoken" && mode != "pertensor")
    return call.Invalid("xQuantMode is \"{}\", expected \"pertoken\" or \"pertensor\"", mode);
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 2));
  RETURN_IF_ERROR(call.RequireFloating(x, "x"));
  const int weight_rank = group_list == nullptr ? 2 : 3;
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", weight_rank, weight_rank));
  RETURN_IF_ERROR(call.RequireDType(weight, "weight", DType::kInt8));
  IntegerMatrix w;
  Arg weight_arg;
  RETURN_IF_ERROR(ReadIntegerMatrix(call, weight, "weight", transposeWeight, &w, &weight_arg));
  const int64_t rows = x->view.dims[0], k = x->view.dims[1], n = w.columns();
  if (w.rows() != k)
    return call.Invalid("x {} and weight {} don't match: {} columns, {} rows", ShapeString(x->view),
                        ShapeString(weight->view), k, w.rows());
  int64_t groups = 1;
  if (group_list != nullptr) {
    groups = weight->view.dims[0];
    RETURN_IF_ERROR(call.RequireShape(group_list, "groupList", &groups, 1));
    RETURN_IF_ERROR(call.RequireDType(group_list, "groupList", DType::kInt64));
  }
  const int64_t dims[] = {rows, n};
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, 2));
  RETURN_IF_ERROR(call.RequireFloating(out, "out"));
  const bool packed = IsQuantParam(weightScale->view.dtype);
  if ((!packed && !IsFloating(weightScale->view.dtype)) ||
      (weightScale->view.numel() != groups * n && weightScale->view.numel() != 1))
    return call.Invalid("weightScale is {}, expected {} of float32 or of int64", Describe(weightScale),
                        groups * n);
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
      b != nullptr &&
      (b->view.numel() != groups * n || b->view.rank > 2 || (groups > 1 && b->view.rank != 2) ||
       (b->view.dtype != DType::kInt32 && !IsFloating(b->view.dtype))))
    return call.Invalid("biasOptional is {}, expected {} of int32 or a floating type", Describe(b),
                        groups * n);
  if (out->view.empty()) return call.Nothing();
  Operands o;
  DequantPlaces at = {o.Input(x),
                      o.Input(weightScale),
                      o.Input(biasOptional),
                      o.Input(xScaleOptional),
                      o.Input(smoothScaleOptional),
                      o.Input(group_list),
                      o.Output(out),
                      0};
  Arg args[9];
  std::copy(o.list().begin(), o.list().end(), args);
  at.weight = static_cast<int>(o.list().size());
  args[at.weight] = weight_arg;
  auto matrix = std::make_shared<const IntegerMatrix>(w);
  return call.Launch(
      std::span<const Arg>(args, o.list().size() + 1),
      Cost{2.0 * static_cast<double>(rows) * static_cast<double>(n) * static_cast<double>(k), o.bytes()},
      [matrix, at](const Run& t) { return RunDequant(t, *matrix, at); });
}

}  // namespace

Status aclnn::QuantMatmulDequant(Call& call, const aclTensor* x, const aclTensor* weight,
                                 const aclTensor* weightScale, const aclTensor* biasOptional,
                                 const aclTensor* xScaleOptional, const aclTensor* xOffsetOptional,
                                 const aclTensor* smoothScaleOptional, char* xQuantMode, bool transposeWeight,
                                 const aclTensor* out) {
  return LaunchDequant(call, x, weight, weightScale, nullptr, biasOptional, xScaleOptional, xOffsetOptional,
                       smoothScaleOptional, xQuantMode, transposeWeight, out);
}

Status aclnn::QuantGroupedMatmulDequant(Call& call, const aclTensor* x, const aclTensor* weight,
                                        const aclTensor* weightScale, const aclTensor* groupList,
                                        const aclTensor* biasOptional, const aclTensor* xScaleOptional,
                                        const aclTensor* xOffsetOptional,
                                        const aclTensor* smoothScaleOptional, char* xQuantMode,
                                        bool transposeWeight, const aclTensor* out) {
  return LaunchDequant(call, x, weight, weightScale, groupList, biasOptional, xScaleOptional, xOffsetOptional,
                       smoothScaleOptional, xQuantMode, transposeWeight, out);
}

Status aclnn::QuantGroupedMatmulDequantWeightNZ(Call& call, const aclTensor* x, const aclTensor* weight,
                                                const aclTensor* weightScale, const aclTensor* groupList,
                                                const aclTensor* biasOptional,
                                                const aclTensor* xScaleOptional,
                                                const aclTensor* xOffsetOptional,
                                                const aclTensor* smoothScaleOptional, char* xQuantMode,
                                                bool transposeWeight, aclTensor* out) {
  return LaunchDequant(call, x, weight, weightScale, groupList, biasOptional, xScaleOptional, xOffsetOptional,
                       smoothScaleOptional, xQuantMode, transposeWeight, out);
}

}  // namespace anycann
