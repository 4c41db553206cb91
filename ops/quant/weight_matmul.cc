// Products with quantised weights: y = x @ ((weight + offset) * scale) + bias, weights of 8 or 4 bits, scales
// for all, for each column, or for each group of rows of each column.
#include <atomic>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/matmul/dot.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"
#include "ops/operand.h"

namespace anycann {
namespace {

// A weight [k, n] as the client stores it.
struct QuantisedWeight {
  int64_t k = 0, n = 0;
  bool four_bits = false;
  int64_t packed = 1;          // columns in one element of the view: 8 where int32 holds 4-bit numbers
  bool columns_first = false;  // neighbours in memory are rows of one column: a transposed weight

  int64_t lines() const { return columns_first ? n : k; }
  int64_t length() const { return columns_first ? k : n; }
};

Status ReadWeight(Call& call, const aclTensor* weight, QuantisedWeight* w) {
  const TensorView& v = weight->view;
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 2, 2));
  if (v.dtype != DType::kInt8 && v.dtype != DType::kInt4 && v.dtype != DType::kInt32)
    return call.Invalid("weight has type {}, expected int8, int4 or int32 (eight int4)", Name(v.dtype));
  w->four_bits = v.dtype != DType::kInt8;
  w->columns_first = v.strides[0] == 1 && v.strides[1] != 1;
  w->packed = v.dtype == DType::kInt32 ? 8 : 1;
  w->k = v.dims[0] * (w->columns_first ? w->packed : 1);
  w->n = v.dims[1] * (w->columns_first ? 1 : w->packed);
  const int64_t line = v.strides[w->columns_first ? 1 : 0], fast = v.strides[w->columns_first ? 0 : 1];
  const int64_t length = v.dims[w->columns_first ? 0 : 1];
  if ((fast != 1 && length > 1) || (w->four_bits && v.dtype == DType::kInt4 && (line % 2 != 0)))
    return call.Invalid("weight has strides [{},{}], expected rows or columns without gaps, of whole bytes",
                        v.strides[0], v.strides[1]);
  return Status();
}

// Scales and offsets: the group of row `row` of the weight is row / rows_per_group.
struct Groups {
  int64_t count = 1, rows = 1;
  bool per_column = false;
};

Status ReadGroups(Call& call, const aclTensor* scale, const QuantisedWeight& w, int64_t group, Groups* g) {
  const TensorView& v = scale->view;
  if (!IsFloating(v.dtype))
    return call.Invalid("antiquantScale has type {}, expected a floating type", Name(v.dtype));
  g->count = group > 0 ? (w.k + group - 1) / group : 1;
  g->rows = group > 0 ? group : std::max<int64_t>(1, w.k);
  g->per_column = v.numel() != 1 || w.n == 1;
  const bool fits = v.rank == 2 ? v.dims[0] == g->count && v.dims[1] == w.n
                                : v.rank == 1 && g->count == 1 && v.dims[0] == w.n;
  if (!fits && !(v.numel() == 1 && group <= 0))
    return call.Invalid(
        "antiquantScale has shape {}, expected [1], [{}], [1,{}] or, with antiquantGroupSize, [{},{}]",
        ShapeString(v), w.n, w.n, g->count, w.n);
  return Status();
}

// One line of the weight as floats, before scales.
void Unpack(const QuantisedWeight& w, const TensorView& v, int64_t line, float* to) {
  const int64_t n = w.length(), at = line * v.strides[w.columns_first ? 1 : 0];
  if (!w.four_bits) return Convert(to, DType::kFloat, v.bytes() + at, DType::kInt8, n);
  const int8_t* from = static_cast<const int8_t*>(v.data) + (v.dtype == DType::kInt32 ? at * 4 : at / 2);
  // Two numbers from each byte, the lower bits first; shifts extend the sign.
  for (int64_t i = 0; i < n / 2; ++i) {
    const int byte = from[i];
    to[2 * i] = static_cast<float>(static_cast<int8_t>(byte << 4) >> 4);
    to[2 * i + 1] = static_cast<float>(byte >> 4);
  }
  if (n % 2 != 0) to[n - 1] = static_cast<float>(static_cast<int8_t>(from[n / 2] << 4) >> 4);
}

// to[i] = (to[i] + offset) * scale for one line. scale, offset: [groups][n], or one value; offset may be
// nullptr.
void Scale(const QuantisedWeight& w, const Groups& g, int64_t line, const float* scale, const float* offset,
           float* to) {
  const int64_t columns = g.per_column ? w.n : 1;
  if (!w.columns_first) {
    const int64_t group = line / g.rows * columns;
    for (int64_t i = 0; i < w.n; ++i) {
      const int64_t j = g.per_column ? group + i : 0;
      to[i] = (to[i] + (offset != nullptr ? offset[j] : 0.0f)) * scale[j];
    }
    return;
  }
  for (int64_t begin = 0; begin < w.k; begin += g.rows) {
    const int64_t j = g.per_column ? begin / g.rows * columns + line : 0;
    const float s = scale[j], o = offset != nullptr ? offset[j] : 0.0f;
    for (int64_t i = begin; i < std::min(w.k, begin + g.rows); ++i) to[i] = (to[i] + o) * s;
  }
}

struct WeightOperands {
  int x, weight, scale, offset, bias, y;
};

constexpr int64_t kFewRows = 4;

// A few rows of x: each column of the weight is unpacked and multiplied at once, so that memory gives only
// what is stored.
Status RunFewRows(const Run& t, const QuantisedWeight& w, const Groups& g, const WeightOperands& at,
                  const float* scale, const float* offset) {
  const Dense x(t[at.x], DType::kFloat, Dense::kRead);
  Dense y(t[at.y], DType::kFloat, Dense::kWrite);
  const Values<float> bias = at.bias >= 0 ? Values<float>(t[at.bias]) : Values<float>();
  if (!bias.ok()) return ScratchFailed(t.plan().name);
  const int64_t rows = y.view().numel() / w.n;
  std::atomic<bool> failed{false};
  ParallelFor(w.n, std::max<int64_t>(1, 16384 / (w.k + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> column(w.k);
    if (!column.ok()) {
      failed = true;
      return;
    }
    for (int64_t j = begin; j < end; ++j) {
      Unpack(w, t[at.weight], j, column.get());
      Scale(w, g, j, scale, offset, column.get());
      for (int64_t r = 0; r < rows; ++r)
        y.ptr<float>()[r * w.n + j] = DotProduct(x.ptr<float>() + r * w.k, column.get(), w.k) +
                                      (bias.get() != nullptr ? bias[j] : 0.0f);
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  y.Commit();
  return Status();
}

Status RunWeightMatmul(const Run& t, const QuantisedWeight& w, const Groups& g, const WeightOperands& at) {
  const char* op = t.plan().name;
  const TensorView& weight = t[at.weight];
  const Values<float> scale(t[at.scale]);
  const Values<float> offset = at.offset >= 0 ? Values<float>(t[at.offset]) : Values<float>();
  if (!scale.ok() || !offset.ok()) return ScratchFailed(op);
  if (w.columns_first && t[at.y].numel() <= kFewRows * w.n)
    return RunFewRows(t, w, g, at, scale.get(), offset.get());
  const Scratch<float> plain(w.k * w.n);
  if (!plain.ok()) return ScratchFailed(op);
  ParallelFor(w.lines(), std::max<int64_t>(1, 16384 / (w.length() + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      float* to = plain.get() + line * w.length();
      Unpack(w, weight, line, to);
      Scale(w, g, line, scale.get(), offset.get(), to);
    }
  });
  TensorView b = TensorView::Contiguous(plain.get(), DType::kFloat, {w.lines(), w.length()});
  if (w.columns_first) b = b.Transpose(0, 1);
  return Gemm(MakeGemm(t[at.x], b, t[at.y], at.bias >= 0 ? &t[at.bias] : nullptr));
}

}  // namespace

Status aclnn::WeightQuantBatchMatmulV2(Call& call, const aclTensor* x, const aclTensor* weight,
                                       const aclTensor* antiquantScale,
                                       const aclTensor* antiquantOffsetOptional,
                                       const aclTensor* quantScaleOptional,
                                       const aclTensor* quantOffsetOptional, const aclTensor* biasOptional,
                                       int antiquantGroupSize, const aclTensor* y) {
  if (quantScaleOptional != nullptr || quantOffsetOptional != nullptr)
    return call.Invalid("quantScaleOptional is given: y of 8 bits is not supported yet");
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, kMaxRank));
  for (const auto& [t, name] : {std::pair{x, "x"}, std::pair{y, "y"}})
    if (!IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected a floating type", name, Name(t->view.dtype));
  QuantisedWeight w;
  RETURN_IF_ERROR(ReadWeight(call, weight, &w));
  if (antiquantGroupSize < 0)
    return call.Invalid("antiquantGroupSize is {}, expected 0 or more", antiquantGroupSize);
  Groups g;
  RETURN_IF_ERROR(ReadGroups(call, antiquantScale, w, antiquantGroupSize, &g));
  if (const aclTensor* offset = antiquantOffsetOptional; offset != nullptr) {
    RETURN_IF_ERROR(
        call.RequireSameShape(offset, "antiquantOffsetOptional", antiquantScale, "antiquantScale"));
    if (!IsFloating(offset->view.dtype))
      return call.Invalid("antiquantOffsetOptional has type {}, expected a floating type",
                          Name(offset->view.dtype));
  }
  const TensorView& v = x->view;
  if (v.dims[v.rank - 1] != w.k)
    return call.Invalid("x {} and weight {} don't match: {} columns, {} rows", ShapeString(v),
                        ShapeString(weight->view), v.dims[v.rank - 1], w.k);
  int64_t expected[kMaxRank];
  std::copy_n(v.dims, v.rank, expected);
  expected[v.rank - 1] = w.n;
  RETURN_IF_ERROR(call.RequireShape(y, "y", expected, v.rank));
  if (biasOptional != nullptr && (biasOptional->view.numel() != w.n || biasOptional->view.rank > 2))
    return call.Invalid("biasOptional has shape {}, expected [{}] or [1,{}]", ShapeString(biasOptional->view),
                        w.n, w.n);
  if (y->view.empty()) return call.Nothing();
  Operands o;
  const WeightOperands at = {o.Input(x),
                             o.Input(weight),
                             o.Input(antiquantScale),
                             o.Input(antiquantOffsetOptional),
                             o.Input(biasOptional),
                             o.Output(y)};
  const double product = 2.0 * static_cast<double>(y->view.numel()) * static_cast<double>(w.k);
  return call.Launch(o.list(), Cost{product, o.bytes()},
                     [w, g, at](const Run& t) -> Status { return RunWeightMatmul(t, w, g, at); });
}

}  // namespace anycann
