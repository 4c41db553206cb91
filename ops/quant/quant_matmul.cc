// Quantised products: y = (x1 @ x2 + bias) * x2Scale * x1Scale + offset of int8 and int4 matrices, scales for
// all, for each column and row, or for each group of rows of x2.
#include <algorithm>
#include <cmath>
#include <memory>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"
#include "ops/quant/integer_matrix.h"
#include "ops/quant/quant_param.h"
#include "ops/quant/scaled_product.h"

namespace anycann {
namespace {

struct QuantMatmulHandles {
  const aclTensor *x1 = nullptr, *x2 = nullptr, *x1_scale = nullptr, *x2_scale = nullptr,
                  *x2_offset = nullptr, *y_offset = nullptr, *bias = nullptr, *out = nullptr;
  const char* x1_scale_name = "x1Scale";
  const char* x2_scale_name = "x2Scale";
  const char* offset_name = "x2Offset";
  bool transpose1 = false, transpose2 = false;
  int64_t group_size = 0;
};

// An absent parameter may come as an empty tensor.
struct Groups {
  int64_t count = 0, rows = 0;  // count 0: none
};

struct Places {
  int x1, x2, x1_scale, x2_scale, x2_offset, y_offset, bias, out;
};

// The lines of groups of x2 as floats: (number - offset) * scale of its group.
void Dequantise(const TensorView& numbers, const Groups& g, const float* scale, const float* offset,
                bool columns_first, float* to) {
  const int64_t k = numbers.dims[0], n = numbers.dims[1];
  ParallelFor(columns_first ? n : k, std::max<int64_t>(1, 32768 / ((columns_first ? k : n) + 1)),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                  const int64_t length = columns_first ? k : n;
                  const int8_t* from = numbers.ptr<int8_t>() + i * numbers.strides[columns_first ? 1 : 0];
                  const int64_t step = numbers.strides[columns_first ? 0 : 1];
                  float* line = to + i * length;
                  for (int64_t j = 0; j < length; ++j) {
                    const int64_t at = columns_first ? j / g.rows * n + i : i / g.rows * n + j;
                    line[j] = (static_cast<float>(from[j * step]) - (offset != nullptr ? offset[at] : 0)) *
                              scale[at];
                  }
                }
              });
}

Status RunGroups(const Run& t, const Groups& g, const Places& at, const TensorView& a, const TensorView& b,
                 const QuantScales& x2_scale, ProductScales s) {
  const char* op = t.plan().name;
  const int64_t k = b.dims[0], n = b.dims[1];
  const bool columns_first = b.strides[0] == 1 && b.strides[1] != 1;
  const Scratch<float> weight(k * n), x(a.numel()), sums(t[at.out].numel());
  const QuantScales offset = at.x2_offset >= 0 ? QuantScales(t[at.x2_offset]) : QuantScales();
  const Values<float> y_offset(t, at.y_offset);
  if (!weight.ok() || !x.ok() || !sums.ok() || !offset.ok() || !y_offset.ok()) return ScratchFailed(op);
  Dequantise(b, g, x2_scale.get(), offset.get(), columns_first, weight.get());
  const TensorView left = TensorView::Contiguous(x.get(), DType::kFloat, a.dims, a.rank);
  CopyCast(left, a);
  TensorView right = columns_first
                         ? TensorView::Contiguous(weight.get(), DType::kFloat, {n, k}).Transpose(0, 1)
                         : TensorView::Contiguous(weight.get(), DType::kFloat, {k, n});
  const TensorView to = TensorView::Contiguous(sums.get(), DType::kFloat, t[at.out].dims, t[at.out].rank);
  // With yOffset x1 counts from 8: clients pass 8 * the sum of each scaled column to make up for it.
  if (y_offset.get() != nullptr)
    for (int64_t i = 0; i < a.numel(); ++i) x[i] -= 8;
  const TensorView addend = TensorView::Contiguous(const_cast<float*>(y_offset.get()), DType::kFloat, {n});
  RETURN_IF_ERROR(Gemm(MakeGemm(left, right, to, y_offset.get() != nullptr ? &addend : nullptr)));
  s.column = nullptr;
  return ScaleSums(op, sums.get(), t[at.out], s);
}

Status RunQuantMatmul(const Run& t, const IntegerMatrix& x1, const IntegerMatrix& x2, const Groups& g,
                      const Places& at) {
  const char* op = t.plan().name;
  Buffer<int8_t> left, right;
  TensorView a, b;
  RETURN_IF_ERROR(ResolveWeight(op, x2, t[at.x2], &right, &b));
  RETURN_IF_ERROR(ResolveWeight(op, x1, t[at.x1], &left, &a));
  const QuantScales x2_scale(t[at.x2_scale]);
  const Values<float> x1_scale(t, at.x1_scale);
  if (!x2_scale.ok() || !x1_scale.ok()) return ScratchFailed(op);
  ProductScales s;
  s.column = x2_scale.get();
  s.per_column = t[at.x2_scale].numel() != 1;
  s.row = x1_scale.get();
  s.row_count = at.x1_scale >= 0 ? t[at.x1_scale].numel() : 1;
  if (at.bias >= 0) s.bias = &t[at.bias];
  if (g.count > 0) return RunGroups(t, g, at, a, b, x2_scale, s);
  const Values<float> offset(t, at.x2_offset);
  if (!offset.ok()) return ScratchFailed(op);
  if (t[at.out].dtype == DType::kInt8) {
    s.offset = at.x2_offset >= 0 ? offset.get() : x2_scale.offsets();
    s.per_column_offset = at.x2_offset >= 0 ? t[at.x2_offset].numel() != 1 : s.per_column;
  }
  return RunScaledProduct(op, a, b, t[at.out], s);
}

Status CheckBias(Call& call, const aclTensor* bias, const int64_t* dims, int rank) {
  if (bias == nullptr) return Status();
  const TensorView& v = bias->view;
  const int64_t n = dims[rank - 1];
  const bool one = v.numel() == n && v.rank >= 1 && v.dims[v.rank - 1] == n && v.rank <= rank;
  const bool batched = rank == 3 && v.rank == 3 && v.dims[0] == dims[0] && v.dims[1] == 1 && v.dims[2] == n;
  if (!one && !batched)
    return call.Invalid("bias has shape {}, expected [{}] or, for three dimensions, [batch,1,{}]",
                        ShapeString(v), n, n);
  if (v.dtype != DType::kInt32 && !IsFloating(v.dtype))
    return call.Invalid("bias has type {}, expected int32 or a floating type", Name(v.dtype));
  return Status();
}

// Scales of x2: one, one for each column, or with groups [groups, columns].
Status CheckColumns(Call& call, const QuantMatmulHandles& h, const IntegerMatrix& x2, Groups* g) {
  const TensorView& v = h.x2_scale->view;
  if (!IsFloating(v.dtype) && !IsQuantParam(v.dtype))
    return call.Invalid("{} has type {}, expected a floating type, or int64 or uint64 of TransQuantParam",
                        h.x2_scale_name, Name(v.dtype));
  const int64_t k = x2.rows(), n = x2.columns(), group_n = h.group_size >> 16 & 0xffff,
                group_k = h.group_size & 0xffff;
  if (h.group_size < 0 || group_n > 1)
    return call.Invalid(
        "groupSize is {} (groups of {} columns), expected groups of rows of x2 alone: 1 column", h.group_size,
        group_n);
  const bool groups = (group_k > 0 && group_k < k) || h.y_offset != nullptr;
  if (!groups) {
    if (v.numel() != 1 && v.numel() != n)
      return call.Invalid("{} has shape {}, expected 1 or {} elements", h.x2_scale_name, ShapeString(v), n);
    return Status();
  }
  g->rows = group_k > 0 ? group_k : std::max<int64_t>(k, 1);
  g->count = std::max<int64_t>(1, (k + g->rows - 1) / g->rows);
  if (x2.view.rank != 2) return call.Invalid("x2 has {} dimensions, expected 2 with groups", x2.view.rank);
  if (v.numel() != g->count * n || v.rank > 2 || (v.rank == 2 && v.dims[1] != n))
    return call.Invalid("{} has shape {}, expected [{},{}] for groups of {} rows", h.x2_scale_name,
                        ShapeString(v), g->count, n, g->rows);
  return Status();
}

Status CheckRows(Call& call, const QuantMatmulHandles& h, const int64_t* dims, int rank) {
  if (h.x1_scale == nullptr) return Status();
  const TensorView& v = h.x1_scale->view;
  int64_t rows = 1;
  for (int i = 0; i + 1 < rank; ++i) rows *= dims[i];
  if (!IsFloating(v.dtype))
    return call.Invalid("{} has type {}, expected a floating type", h.x1_scale_name, Name(v.dtype));
  if (v.numel() != 1 && v.numel() != dims[rank - 2] && v.numel() != rows)
    return call.Invalid("{} has shape {}, expected one value for each of {} rows", h.x1_scale_name,
                        ShapeString(v), dims[rank - 2]);
  return Status();
}

Status CheckOffsets(Call& call, const QuantMatmulHandles& h, int64_t n, const Groups& g) {
  if (const aclTensor* t = h.x2_offset; t != nullptr) {
    if (!IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected a floating type", h.offset_name, Name(t->view.dtype));
    if (g.count > 0)
      RETURN_IF_ERROR(call.RequireSameShape(t, h.offset_name, h.x2_scale, h.x2_scale_name));
    else if (t->view.numel() != 1 && t->view.numel() != n)
      return call.Invalid("{} has shape {}, expected 1 or {} elements", h.offset_name, ShapeString(t->view),
                          n);
  }
  if (const aclTensor* t = h.y_offset; t != nullptr && (t->view.numel() != n || !IsFloating(t->view.dtype)))
    return call.Invalid("yOffset is {}, expected [{}] of a floating type", Describe(t), n);
  return Status();
}

// The shape of a @ b.
Status ProductDims(Call& call, const TensorView& a, const TensorView& b, int64_t* dims, int* rank) {
  *rank = std::max(a.rank, b.rank);
  if (a.dims[a.rank - 1] != b.dims[b.rank - 2])
    return call.Invalid("x1 {} and x2 {} don't match: {} columns, {} rows", ShapeString(a), ShapeString(b),
                        a.dims[a.rank - 1], b.dims[b.rank - 2]);
  for (int i = 0; i < *rank - 2; ++i) {
    const int ia = i - (*rank - a.rank), ib = i - (*rank - b.rank);
    const int64_t da = ia < 0 ? 1 : a.dims[ia], db = ib < 0 ? 1 : b.dims[ib];
    if (da != db && da != 1 && db != 1)
      return call.Invalid("x1 {} and x2 {} don't broadcast", ShapeString(a), ShapeString(b));
    dims[i] = da == 1 ? db : da;
  }
  dims[*rank - 2] = a.dims[a.rank - 2];
  dims[*rank - 1] = b.dims[b.rank - 1];
  return Status();
}

Status LaunchQuantMatmul(Call& call, const QuantMatmulHandles& h) {
  IntegerMatrix x1, x2;
  Arg args[8];
  RETURN_IF_ERROR(ReadIntegerMatrix(call, h.x1, "x1", h.transpose1, &x1, &args[0]));
  RETURN_IF_ERROR(ReadIntegerMatrix(call, h.x2, "x2", h.transpose2, &x2, &args[1]));
  if (h.x2_scale == nullptr)
    return call.Invalid("{} is empty, expected 1 element or one for each column", h.x2_scale_name);
  int64_t dims[kMaxRank];
  int rank;
  RETURN_IF_ERROR(ProductDims(call, x1.view, x2.view, dims, &rank));
  RETURN_IF_ERROR(call.RequireShape(h.out, "out", dims, rank));
  const DType type = h.out->view.dtype;
  if (type != DType::kInt8 && type != DType::kInt32 && !IsFloating(type))
    return call.Invalid("out has type {}, expected int8, int32 or a floating type", Name(type));
  Groups g;
  RETURN_IF_ERROR(CheckColumns(call, h, x2, &g));
  if (g.count > 0 && (type == DType::kInt32 || type == DType::kInt8))
    return call.Invalid("out has type {}, expected a floating type with groups", Name(type));
  RETURN_IF_ERROR(CheckRows(call, h, dims, rank));
  RETURN_IF_ERROR(CheckOffsets(call, h, dims[rank - 1], g));
  RETURN_IF_ERROR(CheckBias(call, h.bias, dims, rank));
  if (h.bias != nullptr && type == DType::kInt32 && h.bias->view.dtype != DType::kInt32)
    return call.Invalid("bias has type {}, expected int32 for out of int32", Name(h.bias->view.dtype));
  if (h.out->view.empty()) return call.Nothing();
  int count = 2;
  const auto add = [&](const aclTensor* t) {
    if (t == nullptr) return -1;
    args[count] = In(t);
    return count++;
  };
  const Places at = {0,           1,    add(h.x1_scale), add(h.x2_scale), add(h.x2_offset), add(h.y_offset),
                     add(h.bias), count};
  args[count] = Out(h.out);
  double bytes = 0;
  for (int i = 0; i <= count; ++i) bytes += static_cast<double>(args[i].view.nbytes());
  const double work = 2.0 * static_cast<double>(h.out->view.numel()) * static_cast<double>(x2.rows());
  struct Matrices {
    IntegerMatrix x1, x2;
  };
  auto matrices = std::make_shared<const Matrices>(Matrices{x1, x2});
  return call.Launch(
      std::span<const Arg>(args, static_cast<size_t>(at.out) + 1), Cost{work, bytes},
      [matrices, g, at](const Run& t) { return RunQuantMatmul(t, matrices->x1, matrices->x2, g, at); });
}

// V5 and its face for weights in NZ: IntegerMatrix sees the storage.
Status Latest(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* x1_scale,
              const aclTensor* x2_scale, const aclTensor* y_scale, const aclTensor* x1_offset,
              const aclTensor* x2_offset, const aclTensor* y_offset, const aclTensor* bias, bool transpose1,
              bool transpose2, int64_t group_size, const aclTensor* out) {
  if (Given(y_scale) != nullptr)
    return call.Invalid("yScale is given, which needs x1 of float8: not supported, quantise out afterwards");
  if (Given(x1_offset) != nullptr) return call.Invalid("x1Offset is given, expected none or an empty tensor");
  QuantMatmulHandles h;
  h.x1 = x1, h.x2 = x2, h.x1_scale = Given(x1_scale), h.x2_scale = Given(x2_scale);
  h.x2_offset = Given(x2_offset), h.y_offset = Given(y_offset), h.bias = Given(bias), h.out = out;
  h.transpose1 = transpose1, h.transpose2 = transpose2, h.group_size = group_size;
  return LaunchQuantMatmul(call, h);
}

}  // namespace

Status aclnn::QuantMatmulV3(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* scale,
                            const aclTensor* offset, const aclTensor* bias, bool transposeX1,
                            bool transposeX2, const aclTensor* out) {
  return QuantMatmulV4(call, x1, x2, scale, offset, nullptr, bias, transposeX1, transposeX2, out);
}

Status aclnn::QuantMatmulV4(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* scale,
                            const aclTensor* offset, const aclTensor* pertokenScaleOptional,
                            const aclTensor* bias, bool transposeX1, bool transposeX2, const aclTensor* out) {
  QuantMatmulHandles h;
  h.x1 = x1, h.x2 = x2, h.x1_scale = Given(pertokenScaleOptional), h.x2_scale = Given(scale);
  h.x2_offset = Given(offset), h.bias = Given(bias), h.out = out;
  h.x1_scale_name = "pertokenScaleOptional", h.x2_scale_name = "scale", h.offset_name = "offset";
  h.transpose1 = transposeX1, h.transpose2 = transposeX2;
  return LaunchQuantMatmul(call, h);
}

Status aclnn::QuantMatmulV5(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* x1Scale,
                            const aclTensor* x2Scale, const aclTensor* yScale, const aclTensor* x1Offset,
                            const aclTensor* x2Offset, const aclTensor* yOffset, const aclTensor* bias,
                            bool transposeX1, bool transposeX2, int64_t groupSize, aclTensor* out) {
  return Latest(call, x1, x2, x1Scale, x2Scale, yScale, x1Offset, x2Offset, yOffset, bias, transposeX1,
                transposeX2, groupSize, out);
}

Status aclnn::QuantMatmulWeightNz(Call& call, const aclTensor* x1, const aclTensor* x2,
                                  const aclTensor* x1Scale, const aclTensor* x2Scale, const aclTensor* yScale,
                                  const aclTensor* x1Offset, const aclTensor* x2Offset,
                                  const aclTensor* yOffset, const aclTensor* bias, bool transposeX1,
                                  bool transposeX2, int64_t groupSize, aclTensor* out) {
  return Latest(call, x1, x2, x1Scale, x2Scale, yScale, x1Offset, x2Offset, yOffset, bias, transposeX1,
                transposeX2, groupSize, out);
}

}  // namespace anycann
