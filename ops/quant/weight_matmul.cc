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
#include "ops/quant/grouped_dot.h"
#include "ops/quant/level_dot.h"
#include "ops/quant/widen.h"

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

// Where one line of the weight begins.
const int8_t* LineBytes(const QuantisedWeight& w, const TensorView& v, int64_t line) {
  const int64_t at = line * v.strides[w.columns_first ? 1 : 0];
  return static_cast<const int8_t*>(v.data) + (!w.four_bits               ? at
                                               : v.dtype == DType::kInt32 ? at * 4
                                                                          : at / 2);
}

// One line of the weight as floats, before scales.
void Unpack(const QuantisedWeight& w, const TensorView& v, int64_t line, float* to) {
  const int64_t n = w.length();
  const int8_t* from = LineBytes(w, v, line);
  int64_t i = 0;
  if (!w.four_bits) {
    for (; i + 16 <= n; i += 16) StoreFloats16(to + i, Widen16(Load16(from + i)));
    for (; i < n; ++i) to[i] = from[i];
    return;
  }
  // Two numbers from each byte, the lower bits first.
  for (; i + 32 <= n; i += 32) {
    const __m128i bytes = Load16(from + i / 2), even = LowerHalves(bytes), odd = UpperHalves(bytes);
    StoreFloats16(to + i, Widen16(_mm_unpacklo_epi8(even, odd)));
    StoreFloats16(to + i + 16, Widen16(_mm_unpackhi_epi8(even, odd)));
  }
  for (; i < n; ++i) to[i] = static_cast<float>(Nibble(from, i));
}

// to[i] = (to[i] + offset) * scale for one column; scale, offset: one for each group. offset may be nullptr.
void ScaleColumn(const QuantisedWeight& w, const Groups& g, const float* scale, const float* offset,
                 float* to) {
  for (int64_t i = 0, group = 0; i < w.k; ++group) {
    const float s = scale[group], o = offset != nullptr ? offset[group] : 0.0f;
    for (const int64_t end = std::min(w.k, i + g.rows); i < end; ++i) to[i] = (to[i] + o) * s;
  }
}

// The same for one row; scale, offset: one for each column, or one.
void ScaleRow(const QuantisedWeight& w, const Groups& g, const float* scale, const float* offset, float* to) {
  for (int64_t i = 0; i < w.n; ++i) {
    const int64_t j = g.per_column ? i : 0;
    to[i] = (to[i] + (offset != nullptr ? offset[j] : 0.0f)) * scale[j];
  }
}

struct WeightOperands {
  int x, weight, scale, offset, bias, y;
};

constexpr int64_t kFewRows = 4;
constexpr int64_t kUnpackedFloats = 1 << 18;  // 1 MiB: what the second-level cache holds

// Scales or offsets [groups, n] as [n, groups].
TensorView ByColumn(const TensorView& v) { return v.rank == 2 ? v.Transpose(0, 1) : v; }

// A few rows of x: each column of the weight is multiplied where it lies, so that memory gives only what is
// stored: in integers by LevelDot, whole groups of kGroupStep by GroupedDot, others unpacked first.
Status RunFewRows(const Run& t, const QuantisedWeight& w, const Groups& g, const WeightOperands& at) {
  const Dense x(t[at.x], DType::kFloat, Dense::kRead);
  Dense y(t[at.y], DType::kFloat, Dense::kWrite);
  const Values<float> bias(t, at.bias);
  const DenseInput scale(ByColumn(t[at.scale]));
  const DenseInput offset(ByColumn(t[at.offset >= 0 ? at.offset : at.scale]));  // read only where given
  const int64_t rows = y.view().numel() / w.n;
  const bool grouped = g.count == 1 || g.rows % kGroupStep == 0;
  const Scratch<float> lanes(grouped ? rows * w.k : 0), sums(rows * g.count);
  if (!bias.ok() || !scale.ok() || !offset.ok() || !lanes.ok() || !sums.ok())
    return ScratchFailed(t.plan().name);
  for (int64_t r = 0; grouped && r < rows; ++r) {
    ArrangeForGroups(x.ptr<float>() + r * w.k, w.k, w.four_bits, lanes.get() + r * w.k);
    if (at.offset >= 0) SumGroups(x.ptr<float>() + r * w.k, w.k, g.rows, sums.get() + r * g.count);
  }
  // Half precision in integers, where the machine has the instructions and the rows are finite.
  bool levels = IsReduced(t[at.x].dtype) && HasLevelDot(w.four_bits, w.k, g.rows);
  const int64_t level_bytes = levels ? LevelBytes(w.four_bits, w.k) : 0;
  const Scratch<char> level_rows(rows * level_bytes);
  if (!level_rows.ok()) return ScratchFailed(t.plan().name);
  for (int64_t r = 0; levels && r < rows; ++r)
    levels = ToLevels(x.ptr<float>() + r * w.k, w.four_bits, w.k, level_rows.get() + r * level_bytes);
  const DenseReader<float> scales(scale.view()), offsets(offset.view());
  std::atomic<bool> failed{false};
  ParallelFor(w.n, std::max<int64_t>(1, 16384 / (w.k + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> column(grouped ? 0 : w.k), buffer(2 * g.count);
    if (!column.ok() || !buffer.ok()) {
      failed = true;
      return;
    }
    for (int64_t j = begin; j < end; ++j) {
      const int64_t first = g.per_column ? j * g.count : 0;
      const float* s = scales.Read(first, g.count, buffer.get());
      const float* o = at.offset >= 0 ? offsets.Read(first, g.count, buffer.get() + g.count) : nullptr;
      if (!grouped) {
        Unpack(w, t[at.weight], j, column.get());
        ScaleColumn(w, g, s, o, column.get());
      }
      for (int64_t r = 0; r < rows; ++r) {
        float sum = levels    ? LevelDot(LineBytes(w, t[at.weight], j), w.four_bits,
                                         level_rows.get() + r * level_bytes, w.k, g.rows, s)
                    : grouped ? GroupedDot(LineBytes(w, t[at.weight], j), w.four_bits, lanes.get() + r * w.k,
                                           w.k, g.rows, s)
                              : DotProduct(x.ptr<float>() + r * w.k, column.get(), w.k);
        if (grouped && o != nullptr)
          for (int64_t i = 0; i < g.count; ++i) sum += s[i] * o[i] * sums[r * g.count + i];
        y.ptr<float>()[r * w.n + j] = sum + (bias.get() != nullptr ? bias[j] : 0.0f);
      }
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  y.Commit();
  return Status();
}

// Many rows: some columns at a time are unpacked, as many as the cache holds, and multiplied.
Status RunWeightMatmul(const Run& t, const QuantisedWeight& w, const Groups& g, const WeightOperands& at) {
  if (w.columns_first && t[at.y].numel() <= kFewRows * w.n) return RunFewRows(t, w, g, at);
  const Values<float> scale(w.columns_first ? ByColumn(t[at.scale]) : t[at.scale]);
  const Values<float> offset = at.offset >= 0
                                   ? Values<float>(w.columns_first ? ByColumn(t[at.offset]) : t[at.offset])
                                   : Values<float>();
  const int64_t step = w.columns_first ? std::clamp<int64_t>(kUnpackedFloats / (w.k + 1), 64, w.n) : w.n;
  const Scratch<float> plain(w.k * step);
  if (!scale.ok() || !offset.ok() || !plain.ok()) return ScratchFailed(t.plan().name);
  const auto line_of = [&](const float* p, int64_t line) {
    if (p == nullptr || !g.per_column) return p;
    return p + (w.columns_first ? line * g.count : line / g.rows * w.n);
  };
  for (int64_t first = 0; first < w.n; first += step) {
    const int64_t columns = std::min(step, w.n - first), lines = w.columns_first ? columns : w.k;
    ParallelFor(lines, std::max<int64_t>(1, 16384 / (w.length() + 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t line = w.columns_first ? first + i : i;
        float* to = plain.get() + i * w.length();
        Unpack(w, t[at.weight], line, to);
        (w.columns_first ? ScaleColumn : ScaleRow)(w, g, line_of(scale.get(), line),
                                                   line_of(offset.get(), line), to);
      }
    });
    TensorView b = TensorView::Contiguous(plain.get(), DType::kFloat, {lines, w.length()});
    if (w.columns_first) b = b.Transpose(0, 1);
    const auto slice = [&](const TensorView& v) {
      const int d = v.rank - 1;
      return v.dims[d] == w.n ? v.Narrow(d, first, columns) : v;
    };
    const TensorView bias = at.bias >= 0 ? slice(t[at.bias]) : TensorView();
    RETURN_IF_ERROR(Gemm(MakeGemm(t[at.x], b, slice(t[at.y]), at.bias >= 0 ? &bias : nullptr)));
  }
  return Status();
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
    RETURN_IF_ERROR(call.RequireFloating(t, name));
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

Status aclnn::WeightQuantBatchMatmulV3(Call& call, const aclTensor* x, const aclTensor* weight,
                                       const aclTensor* antiquantScale,
                                       const aclTensor* antiquantOffsetOptional,
                                       const aclTensor* quantScaleOptional,
                                       const aclTensor* quantOffsetOptional, const aclTensor* biasOptional,
                                       int antiquantGroupSize, int, const aclTensor* y) {
  return WeightQuantBatchMatmulV2(call, x, weight, antiquantScale, antiquantOffsetOptional,
                                  quantScaleOptional, quantOffsetOptional, biasOptional, antiquantGroupSize,
                                  y);
}

}  // namespace anycann
