// Routing of tokens: each token's row is copied once for each of its experts, all rows of one expert
// together.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

constexpr int64_t kAnyExpert = -1;

// Pair p of `rows` * `k` is token p / k and its (p % k)-th expert. A slot is a row of the output.
struct Routing {
  int64_t k = 1, width = 0, slots = 0;
  int64_t first = 0, last = kAnyExpert;  // experts that count: [first, last), or all
  int64_t capacity = 0;                  // slots of each expert; 0: as many as come
  bool index_by_slot = false;            // the index output: pair of each slot, not slot of each pair
  enum Counts { kNone, kCumulative, kPerExpert, kPairs } counts = kNone;
  int quant = -1;  // -1: as they are, 0: with given scale and offset, 1: each row with its own
  float static_scale = 1, static_offset = 0;  // where no tensor gives them
};

struct RoutingOperands {
  int x = -1, expert = -1, row = -1, scale = -1, offset = -1;
  int y = -1, index = -1, sorted_expert = -1, counts = -1, before_capacity = -1, y_scale = -1;
};

// Pairs in the order of their experts, stable; those that don't count come last. Returns how many count;
// counts[e - first]: pairs of each expert, for a bounded range.
int64_t SortPairs(const Routing& r, const int32_t* expert, int64_t pairs, int32_t* order, int64_t* counts) {
  if (r.last == kAnyExpert) {
    std::iota(order, order + pairs, 0);
    std::stable_sort(order, order + pairs, [expert](int32_t a, int32_t b) { return expert[a] < expert[b]; });
    return pairs;
  }
  const int64_t experts = r.last - r.first;
  const auto counted = [&r](int32_t e) { return e >= r.first && e < r.last; };
  std::fill_n(counts, experts, 0);
  for (int64_t p = 0; p < pairs; ++p)
    if (counted(expert[p])) ++counts[expert[p] - r.first];
  const int64_t total = std::accumulate(counts, counts + experts, int64_t{0});
  int64_t rest = total, start = 0;
  for (int64_t e = 0; e < experts; ++e) start += std::exchange(counts[e], start);  // where each begins
  for (int64_t p = 0; p < pairs; ++p)
    order[counted(expert[p]) ? counts[expert[p] - r.first]++ : rest++] = static_cast<int32_t>(p);
  for (int64_t e = experts - 1; e > 0; --e) counts[e] -= counts[e - 1];  // ends to counts
  return total;
}

// pair_of[slot], -1 for one that stays empty.
void FillSlots(const Routing& r, const int32_t* expert, const int32_t* order, int64_t counted,
               int32_t* pair_of) {
  if (r.capacity == 0) {
    for (int64_t s = 0; s < r.slots; ++s) pair_of[s] = s < counted ? order[s] : -1;
    return;
  }
  std::fill_n(pair_of, r.slots, -1);
  for (int64_t i = 0, rank = 0; i < counted; ++i) {
    rank = i > 0 && expert[order[i]] == expert[order[i - 1]] ? rank + 1 : 0;
    if (rank < r.capacity) pair_of[(expert[order[i]] - r.first) * r.capacity + rank] = order[i];
  }
}

void StoreCounts(const Routing& r, const int64_t* counts, const TensorView& out) {
  const int64_t experts = r.last - r.first;
  std::vector<int64_t> values(static_cast<size_t>(out.numel()), 0);
  if (r.counts == Routing::kPairs) {  // {expert, count} of those that have pairs; a pair of zeros ends them
    for (int64_t e = 0, at = 0; e < experts; ++e)
      if (counts[e] > 0) {
        values[at++] = r.first + e;
        values[at++] = counts[e];
      }
  } else {
    for (int64_t e = 0; e < experts; ++e)
      values[e] = counts[e] + (r.counts == Routing::kCumulative && e > 0 ? values[e - 1] : 0);
  }
  StoreValues(out, values.data());
}

struct Slot {
  int32_t token = -1;  // -1: the slot stays empty
  int32_t expert = 0;  // within the range
};

// Rows of x into their slots, zeros into empty ones. `scale`, one for each token, goes along.
Status CopyRows(const Run& t, const Routing& r, const RoutingOperands& at, const Slot* slots) {
  const DenseInput x(t[at.x]);
  const DenseOutput y(t[at.y]);
  const Values<float> scale(t, at.scale);
  const Scratch<float> scales(r.slots);
  if (!x.ok() || !y.ok() || !scale.ok() || !scales.ok()) return ScratchFailed(t.plan().name);
  const int64_t bytes = r.width * SizeOf(y.view().dtype);
  ParallelFor(r.slots, std::max<int64_t>(1, 65536 / (bytes + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int32_t token = slots[s].token;
      char* to = y.view().bytes() + s * bytes;
      if (token < 0)
        std::memset(to, 0, bytes);
      else
        std::memcpy(to, x.view().bytes() + token * bytes, bytes);
      scales[s] = token >= 0 && scale.get() != nullptr ? scale[token] : 0;
    }
  });
  y.Finish();
  if (at.y_scale >= 0 && at.scale >= 0) StoreValues(t[at.y_scale], scales.get());
  return Status();
}

// The same as 8-bit integers: with the given scale and offset, or each row with its own scale, after the
// smoothing scales of its expert or of all.
Status QuantiseRows(const Run& t, const Routing& r, const RoutingOperands& at, const Slot* slots) {
  const DenseInput x(t[at.x]);
  const RowFormat format{r.slots, r.width};
  const QuantRows y(format, t[at.y]);
  const Values<float> scale(t, at.scale);
  const Values<float> offset(t, at.offset);
  const Scratch<float> scales(r.slots);
  if (!x.ok() || !y.ok() || !scale.ok() || !offset.ok() || !scales.ok()) return ScratchFailed(t.plan().name);
  const DenseReader<float> reader(x.view());
  const float factor = scale.get() != nullptr ? scale[0] : r.static_scale;
  const float shift = offset.get() != nullptr ? offset[0] : r.static_offset;
  const int64_t step = at.scale >= 0 && t[at.scale].numel() != r.width ? r.width : 0;
  const int64_t n = r.width;
  const bool ok = ForEachRow(r.slots, n, [&](int64_t s, float* row) {
    const Slot& slot = slots[s];
    scales[s] = 0;
    if (slot.token < 0) {
      std::fill_n(row, n, 0.0f);
      return y.Store(s, row);
    }
    const float* from = reader.Read(slot.token * n, n, row);
    const float* smooth = scale.get() == nullptr ? nullptr : scale.get() + slot.expert * step;
    for (int64_t i = 0; i < n; ++i)
      row[i] = r.quant == 0 ? from[i] * factor + shift : smooth != nullptr ? from[i] * smooth[i] : from[i];
    if (r.quant == 1 && n > 0) {
      scales[s] = RowScale::Of(row, n).Scale(format, true);
      RowScale::Apply(row, n, scales[s], 0);
    }
    y.Store(s, row);
  });
  if (!ok) return ScratchFailed(t.plan().name);
  y.Finish();
  if (at.y_scale >= 0 && r.quant == 1) StoreValues(t[at.y_scale], scales.get());
  return Status();
}

Status MoveRows(const Run& t, const Routing& r, const RoutingOperands& at, const Slot* slots) {
  return r.quant < 0 ? CopyRows(t, r, at, slots) : QuantiseRows(t, r, at, slots);
}

Status RunRouting(const Run& t, const Routing& r, const RoutingOperands& at) {
  const int64_t pairs = t[at.expert].numel();
  const Values<int32_t> expert(t[at.expert]);
  const Scratch<int32_t> order(pairs), pair_of(r.slots), index(pairs);
  const Scratch<int64_t> counts(r.last == kAnyExpert ? 0 : r.last - r.first);
  if (!expert.ok() || !order.ok() || !pair_of.ok() || !index.ok() || !counts.ok())
    return ScratchFailed(t.plan().name);
  const int64_t counted = SortPairs(r, expert.get(), pairs, order.get(), counts.get());
  FillSlots(r, expert.get(), order.get(), counted, pair_of.get());
  if (r.index_by_slot) {
    std::copy_n(order.get(), pairs, index.get());
  } else {
    std::fill_n(index.get(), pairs, -1);
    if (r.capacity == 0)  // beyond the slots too: who combines the rows leaves those out
      for (int64_t i = 0; i < counted; ++i) index[order[i]] = static_cast<int32_t>(i);
    else
      for (int64_t s = 0; s < r.slots; ++s)
        if (pair_of[s] >= 0) index[pair_of[s]] = static_cast<int32_t>(s);
  }
  StoreValues(t[at.index], index.get());
  if (at.counts >= 0) StoreCounts(r, counts.get(), t[at.counts]);
  if (at.before_capacity >= 0) StoreValues(t[at.before_capacity], counts.get());
  const Scratch<Slot> slots(r.slots);
  if (!slots.ok()) return ScratchFailed(t.plan().name);
  for (int64_t s = 0; s < r.slots; ++s) {
    const int32_t pair = pair_of[s];
    slots[s] = pair < 0
                   ? Slot()
                   : Slot{static_cast<int32_t>(pair / r.k), expert[pair] - static_cast<int32_t>(r.first)};
  }
  return MoveRows(t, r, at, slots.get());
}

// The first version: each pair brings its own number, rowIdx, a multiple of the number of tokens plus its
// token; the index output says in which slot the pair of each number is.
Status RunNumberedRouting(const Run& t, const Routing& r, const RoutingOperands& at) {
  const int64_t pairs = t[at.expert].numel(), tokens = t[at.x].dims[0];
  const Values<int32_t> expert(t[at.expert]), number(t[at.row]);
  const Scratch<int32_t> order(pairs), index(pairs), sorted(pairs);
  const Scratch<Slot> slots(r.slots);
  if (!expert.ok() || !number.ok() || !order.ok() || !index.ok() || !sorted.ok() || !slots.ok())
    return ScratchFailed(t.plan().name);
  SortPairs(r, expert.get(), pairs, order.get(), nullptr);
  std::fill_n(index.get(), pairs, -1);
  for (int64_t i = 0; i < pairs; ++i) {
    const int32_t n = number[order[i]];
    if (n < 0 || n >= pairs)
      return Error(kParamInvalid, "{}: rowIdx has {}, expected 0 to {}", t.plan().name, n, pairs - 1);
    index[n] = static_cast<int32_t>(i);
    sorted[i] = expert[order[i]];
    if (i < r.slots) slots[i] = Slot{static_cast<int32_t>(n % tokens), 0};
  }
  StoreValues(t[at.index], index.get());
  StoreValues(t[at.sorted_expert], sorted.get());
  return MoveRows(t, r, at, slots.get());
}

// What all versions share: x [tokens, width], expert [tokens, k], y [slots, width] or [experts, capacity,
// width], index one for each pair.
Status CheckRouting(Call& call, const aclTensor* x, const aclTensor* expert, const aclTensor* y,
                    const aclTensor* index, Routing* r) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(expert, "expertIdx", 1, 2));
  const TensorView& e = expert->view;
  if (!IsInteger(e.dtype)) return call.Invalid("expertIdx has type {}, expected int32", Name(e.dtype));
  if (e.dims[0] != x->view.dims[0])
    return call.Invalid("expertIdx has shape {}, expected {} rows as x has", ShapeString(e), x->view.dims[0]);
  if (e.numel() > std::numeric_limits<int32_t>::max())
    return call.Invalid("expertIdx has shape {}: more pairs than int32 counts", ShapeString(e));
  r->k = e.rank == 2 ? e.dims[1] : 1;
  r->width = x->view.dims[1];
  RETURN_IF_ERROR(call.RequireRank(y, "expandedXOut", 2, 3));
  const TensorView& v = y->view;
  if (v.dims[v.rank - 1] != r->width)
    return call.Invalid("expandedXOut has shape {}, expected rows of {} as x has", ShapeString(v), r->width);
  r->slots = v.dims[0] * (v.rank == 3 ? v.dims[1] : 1);
  if (r->capacity > r->slots || (r->capacity > 0 && r->slots != (r->last - r->first) * r->capacity))
    return call.Invalid("expandedXOut has shape {}, expected [{},{},{}]", ShapeString(v), r->last - r->first,
                        r->capacity, r->width);
  if (r->capacity == 0 && r->slots > e.numel())
    return call.Invalid("expandedXOut has shape {}, expected at most {} rows", ShapeString(v), e.numel());
  if (index->view.numel() != e.numel() || index->view.dtype != DType::kInt32)
    return call.Invalid("expandedRowIdxOut has shape {} and type {}, expected [{}] of int32",
                        ShapeString(index->view), Name(index->view.dtype), e.numel());
  const DType expected = r->quant < 0 ? x->view.dtype : DType::kInt8;
  RETURN_IF_ERROR(call.RequireDType(y, "expandedXOut", expected));
  if (r->quant >= 0 && !IsFloating(x->view.dtype))
    return call.Invalid("x has type {}, expected a floating-point type for quantMode {}", Name(x->view.dtype),
                        r->quant);
  return Status();
}

using RoutingKernel = Status (*)(const Run&, const Routing&, const RoutingOperands&);

Status LaunchRouting(Call& call, const Routing& r, Operands& o, const RoutingOperands& at,
                     RoutingKernel kernel = RunRouting) {
  return call.Launch(o.list(), Cost{o.bytes(), o.bytes()},
                     [r, at, kernel](const Run& t) { return kernel(t, r, at); });
}

// Every id counts, y is a copy of rows.
Status LaunchPlainRouting(Call& call, const aclTensor* x, const aclTensor* expert, const aclTensor* y,
                          const aclTensor* index) {
  Routing r;
  RETURN_IF_ERROR(CheckRouting(call, x, expert, y, index, &r));
  Operands o;
  RoutingOperands at;
  at.x = o.Input(x);
  at.expert = o.Input(expert);
  at.y = o.Output(y);
  at.index = o.Output(index);
  return LaunchRouting(call, r, o, at);
}

// `scale` and `offset`: of the static quantisation, which quant = 0 asks for.
Status LaunchNumberedRouting(Call& call, const aclTensor* x, const aclTensor* row, const aclTensor* expert,
                             int64_t active, int quant, const aclTensor* y, const aclTensor* index,
                             const aclTensor* sorted, double scale, double offset) {
  Routing r;
  r.quant = quant;
  r.static_scale = static_cast<float>(scale);
  r.static_offset = static_cast<float>(offset);
  if (active < 0) return call.Invalid("activeNum is {}, expected 0 or more", active);
  RETURN_IF_ERROR(CheckRouting(call, x, expert, y, index, &r));
  RETURN_IF_ERROR(call.RequireSameShape(row, "rowIdx", expert, "expertIdx"));
  for (const auto& [t, name] : {std::pair{row, "rowIdx"}, std::pair{sorted, "expandedExpertIdxOut"}})
    if (t->view.dtype != DType::kInt32 || t->view.numel() != expert->view.numel())
      return call.Invalid("{} has shape {} and type {}, expected {} numbers of int32", name,
                          ShapeString(t->view), Name(t->view.dtype), expert->view.numel());
  if (expert->view.empty()) return call.Nothing();
  Operands o;
  RoutingOperands at;
  at.x = o.Input(x);
  at.expert = o.Input(expert);
  at.row = o.Input(row);
  at.y = o.Output(y);
  at.index = o.Output(index);
  at.sorted_expert = o.Output(sorted);
  return LaunchRouting(call, r, o, at, RunNumberedRouting);
}

// The versions with a range of experts. `capacity` counts in the padded mode alone.
Status LaunchRangedRouting(Call& call, const aclTensor* x, const aclTensor* expert, const aclTensor* scale,
                           const aclTensor* offset, int64_t experts, int64_t pad_mode, int64_t capacity,
                           const aclTensor* y, const aclTensor* index, const aclTensor* counts,
                           const aclTensor* before_capacity, const aclTensor* y_scale, Routing r) {
  if (pad_mode != 0 && pad_mode != 1)
    return call.Invalid(
        "dropPadMode is {}, expected 0 (no token is dropped) or 1 (every expert has its capacity)", pad_mode);
  if (pad_mode == 1 && capacity <= 0)
    return call.Invalid("expertCapacity is {}, expected 1 or more with dropPadMode 1", capacity);
  if (experts < 0 || experts > (1 << 20))
    return call.Invalid("expertNum is {}, expected 0 to {}", experts, 1 << 20);
  if (r.first < 0 || r.last < r.first || r.last > experts)
    return call.Invalid("activeExpertRange is [{},{}), expected a range inside [0,{})", r.first, r.last,
                        experts);
  if (r.quant < -1 || r.quant > 1)
    return call.Invalid("quantMode is {}, expected -1 (none), 0 (static) or 1 (dynamic, int8)", r.quant);
  r.capacity = pad_mode == 1 ? capacity : 0;
  RETURN_IF_ERROR(CheckRouting(call, x, expert, y, index, &r));
  const int64_t range = r.last - r.first;
  if (r.quant == 0 && (scale == nullptr || scale->view.numel() < 1))
    return call.Invalid("scaleOptional is absent, expected [1] with quantMode 0");
  if (scale != nullptr && r.quant == 1 && scale->view.numel() != r.width &&
      scale->view.numel() != range * r.width)
    return call.Invalid("scaleOptional has shape {}, expected [1,{}] or [{},{}] with quantMode 1",
                        ShapeString(scale->view), r.width, range, r.width);
  if (scale != nullptr && r.quant == -1 && scale->view.numel() != x->view.dims[0])
    return call.Invalid("scaleOptional has shape {}, expected [{}], one for each row of x",
                        ShapeString(scale->view), x->view.dims[0]);
  if (offset != nullptr && r.quant == 0 && offset->view.numel() < 1)
    return call.Invalid("offsetOptional has shape {}, expected [1]", ShapeString(offset->view));
  if (r.counts == Routing::kNone || (counts != nullptr && counts->view.empty())) counts = nullptr;
  if (before_capacity != nullptr && before_capacity->view.empty()) before_capacity = nullptr;
  if (y_scale != nullptr && y_scale->view.empty()) y_scale = nullptr;
  const int64_t expected = r.counts == Routing::kPairs ? 2 * experts : range;
  if (counts != nullptr && counts->view.numel() != expected)
    return call.Invalid("the output of expert tokens has shape {}, expected {} numbers",
                        ShapeString(counts->view), expected);
  if (before_capacity != nullptr && before_capacity->view.numel() != range)
    return call.Invalid("expertTokensBeforeCapacityOutOptional has shape {}, expected [{}]",
                        ShapeString(before_capacity->view), range);
  if (y_scale != nullptr && (r.quant == 1 || scale != nullptr) && y_scale->view.numel() != r.slots)
    return call.Invalid("the output of scales has shape {}, expected [{}]", ShapeString(y_scale->view),
                        r.slots);
  Operands o;
  RoutingOperands at;
  at.x = o.Input(x);
  at.expert = o.Input(expert);
  at.scale = o.Input(scale);
  at.offset = o.Input(offset);
  at.y = o.Output(y);
  at.index = o.Output(index);
  at.counts = o.Output(counts);
  at.before_capacity = o.Output(before_capacity);
  at.y_scale = o.Output(y_scale);
  return LaunchRouting(call, r, o, at);
}

}  // namespace

Status aclnn::MoeInitRoutingV3(Call& call, const aclTensor* x, const aclTensor* expertIdx,
                               const aclTensor* scaleOptional, const aclTensor* offsetOptional,
                               int64_t activeNum, int64_t expertCapacity, int64_t expertNum,
                               int64_t dropPadMode, int64_t expertTokensNumType, bool expertTokensNumFlag,
                               int64_t quantMode, const aclIntArray* activeExpertRangeOptional,
                               int64_t rowIdxType, const aclTensor* expandedXOut,
                               const aclTensor* expandedRowIdxOut,
                               const aclTensor* expertTokensCountOrCumsumOut,
                               const aclTensor* expandedScaleOut) {
  (void)activeNum;  // the shape of expandedXOut says it
  if (expertTokensNumType < 0 || expertTokensNumType > 2)
    return call.Invalid("expertTokensNumType is {}, expected 0 (cumulative), 1 (counts) or 2 (pairs)",
                        expertTokensNumType);
  if (rowIdxType != 0 && rowIdxType != 1)
    return call.Invalid("rowIdxType is {}, expected 0 (slot of each pair) or 1 (pair of each slot)",
                        rowIdxType);
  Routing r;
  r.last = expertNum;
  if (const aclIntArray* range = activeExpertRangeOptional; range != nullptr && range->size > 0) {
    if (range->size != 2)
      return call.Invalid("activeExpertRangeOptional has {} numbers, expected 2", range->size);
    r.first = range->values[0];
    r.last = range->values[1];
  }
  r.index_by_slot = rowIdxType == 1 && dropPadMode == 0;
  r.counts = !expertTokensNumFlag ? Routing::kNone
             : dropPadMode == 1   ? Routing::kPerExpert
                                  : std::array{Routing::kCumulative, Routing::kPerExpert,
                                             Routing::kPairs}[expertTokensNumType];
  r.quant = static_cast<int>(std::clamp<int64_t>(quantMode, -2, 2));
  return LaunchRangedRouting(call, x, expertIdx, scaleOptional, offsetOptional, expertNum, dropPadMode,
                             expertCapacity, expandedXOut, expandedRowIdxOut, expertTokensCountOrCumsumOut,
                             nullptr, expandedScaleOut, r);
}

Status aclnn::MoeInitRoutingQuantV2(Call& call, const aclTensor* x, const aclTensor* expertIdx,
                                    const aclTensor* scaleOptional, const aclTensor* offsetOptional,
                                    int64_t activeNum, int64_t expertCapacity, int64_t expertNum,
                                    int64_t dropPadMode, int64_t expertTokensCountOrCumsumFlag,
                                    bool expertTokensBeforeCapacityFlag, int64_t quantMode,
                                    const aclTensor* expandedXOut, const aclTensor* expandedRowIdxOut,
                                    const aclTensor* expertTokensCountOrCumsumOutOptional,
                                    const aclTensor* expertTokensBeforeCapacityOutOptional,
                                    const aclTensor* dynamicQuantScaleOutOptional) {
  (void)activeNum;  // the shape of expandedXOut says it
  const int64_t flag = expertTokensCountOrCumsumFlag;
  if (flag < 0 || flag > 2)
    return call.Invalid(
        "expertTokensCountOrCumsumFlag is {}, expected 0 (none), 1 (cumulative) or 2 (counts)", flag);
  if (quantMode != 0 && quantMode != 1)
    return call.Invalid("quantMode is {}, expected 0 (static) or 1 (dynamic)", quantMode);
  Routing r;
  r.last = expertNum;
  r.quant = static_cast<int>(quantMode);
  r.counts = std::array{Routing::kNone, Routing::kCumulative, Routing::kPerExpert}[flag];
  return LaunchRangedRouting(call, x, expertIdx, scaleOptional, offsetOptional, expertNum, dropPadMode,
                             expertCapacity, expandedXOut, expandedRowIdxOut,
                             expertTokensCountOrCumsumOutOptional,
                             expertTokensBeforeCapacityFlag ? expertTokensBeforeCapacityOutOptional : nullptr,
                             dynamicQuantScaleOutOptional, r);
}

Status aclnn::MoeInitRoutingV2(Call& call, const aclTensor* x, const aclTensor* expertIdx,
                               int64_t activeNumOptional, int64_t expertCapacityOptional,
                               int64_t expertNumOptional, int64_t dropPadModeOptional,
                               int64_t expertTokensCountOrCumsumFlagOptional,
                               bool expertTokensBeforeCapacityFlagOptional, const aclTensor* expandedXOut,
                               const aclTensor* expandedRowIdxOut,
                               const aclTensor* expertTokensCountOrCumsumOutOptional,
                               const aclTensor* expertTokensBeforeCapacityOutOptional) {
  (void)activeNumOptional;  // the shape of expandedXOut says it
  const int64_t flag = expertTokensCountOrCumsumFlagOptional;
  if (flag < 0 || flag > 2)
    return call.Invalid(
        "expertTokensCountOrCumsumFlag is {}, expected 0 (none), 1 (cumulative) or 2 (counts)", flag);
  if (expertNumOptional < 0)
    return call.Invalid("expertNumOptional is {}, expected 0 or more", expertNumOptional);
  Routing r;
  // Without a number of experts and without anything that needs it, every id counts.
  r.last = expertNumOptional == 0 && flag == 0 && dropPadModeOptional == 0 ? kAnyExpert : expertNumOptional;
  r.counts = std::array{Routing::kNone, Routing::kCumulative, Routing::kPerExpert}[flag];
  if (r.last == kAnyExpert) return LaunchPlainRouting(call, x, expertIdx, expandedXOut, expandedRowIdxOut);
  return LaunchRangedRouting(
      call, x, expertIdx, nullptr, nullptr, expertNumOptional, dropPadModeOptional, expertCapacityOptional,
      expandedXOut, expandedRowIdxOut, expertTokensCountOrCumsumOutOptional,
      expertTokensBeforeCapacityFlagOptional ? expertTokensBeforeCapacityOutOptional : nullptr, nullptr, r);
}

Status aclnn::MoeInitRouting(Call& call, const aclTensor* x, const aclTensor* rowIdx,
                             const aclTensor* expertIdx, int64_t activeNum, const aclTensor* expandedXOut,
                             const aclTensor* expandedRowIdxOut, const aclTensor* expandedExpertIdxOut) {
  return LaunchNumberedRouting(call, x, rowIdx, expertIdx, activeNum, -1, expandedXOut, expandedRowIdxOut,
                               expandedExpertIdxOut, 1, 0);
}

Status aclnn::MoeInitRoutingQuant(Call& call, const aclTensor* x, const aclTensor* rowIdx,
                                  const aclTensor* expertIdx, int64_t activeNum, double scale, double offset,
                                  const aclTensor* expandedXOut, const aclTensor* expandedRowIdxOut,
                                  const aclTensor* expandedExpertIdxOut) {
  return LaunchNumberedRouting(call, x, rowIdx, expertIdx, activeNum, 0, expandedXOut, expandedRowIdxOut,
                               expandedExpertIdxOut, scale, offset);
}

Status aclnn::MoeTokenPermute(Call& call, const aclTensor* tokens, const aclTensor* indices,
                              int64_t numOutTokens, bool paddedMode, const aclTensor* permuteTokensOut,
                              const aclTensor* sortedIndicesOut) {
  (void)numOutTokens;  // the shape of permuteTokensOut says it
  if (paddedMode) return call.Invalid("paddedMode is true, which is not supported: pass false");
  return LaunchPlainRouting(call, tokens, indices, permuteTokensOut, sortedIndicesOut);
}

// For each expert, how many of the sorted ids are its own or a smaller expert's.
Status aclnn::MoeComputeExpertTokens(Call& call, const aclTensor* sortedExperts, int64_t numExperts,
                                     const aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(sortedExperts, "sortedExperts", 1, 1));
  if (!IsInteger(sortedExperts->view.dtype))
    return call.Invalid("sortedExperts has type {}, expected int32", Name(sortedExperts->view.dtype));
  if (numExperts < 0) return call.Invalid("numExperts is {}, expected 0 or more", numExperts);
  RETURN_IF_ERROR(call.RequireShape(out, "out", &numExperts, 1));
  RETURN_IF_ERROR(call.RequireCastable(DType::kInt32, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch(
      {In(sortedExperts), Out(out)}, Cost{static_cast<double>(sortedExperts->view.numel()), 0},
      [](const Run& t) -> Status {
        const Values<int32_t> ids(t[0]);
        const Scratch<int32_t> ends(t[1].numel());
        if (!ids.ok() || !ends.ok()) return ScratchFailed(t.plan().name);
        const int32_t *begin = ids.get(), *end = begin + t[0].numel();
        for (int64_t e = 0; e < t[1].numel(); ++e)
          ends[e] = static_cast<int32_t>(std::upper_bound(begin, end, static_cast<int32_t>(e)) - begin);
        StoreValues(t[1], ends.get());
        return Status();
      });
}

}  // namespace anycann
