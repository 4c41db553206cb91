// Gates of mixtures of experts: which k experts each token goes to, and with what weights.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct Gate {
  int64_t experts = 0, k = 0;
  bool sigmoid = false;          // of each score; otherwise the softmax of all
  bool softmax_of_kept = false;  // the softmax of the k best scores alone
  bool divide_by_sum = false;    // weights sum to `factor`
  float factor = 1, epsilon = 0;
  // The experts lie in `groups` groups of one size; only `kept_groups` of them, by their best or by the sum
  // of their two best, are looked at.
  int64_t groups = 1, kept_groups = 1;
  bool sum_of_two = false;
};

// Operands; -1 for absent ones. `finished` tokens go to the expert behind the last. `ids` and `table` name
// the experts of each token directly.
struct GateOperands {
  int x = -1, bias = -1, finished = -1, ids = -1, table = -1;
  int y = -1, expert = -1, row = -1, scores = -1;
};

void Softmax(const float* x, int64_t n, float* y) {
  const float high = *std::max_element(x, x + n);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += y[i] = std::exp(x[i] - high);
  for (int64_t i = 0; i < n; ++i) y[i] /= sum;
}

// The indices of the k largest of n, larger first, of equals the first first. NaN is smaller than any number.
void Largest(const float* values, int64_t n, int64_t k, int32_t* order) {
  std::iota(order, order + n, 0);
  const auto key = [values](int32_t i) {
    return std::isnan(values[i]) ? -std::numeric_limits<float>::infinity() : values[i];
  };
  std::partial_sort(order, order + k, order + n, [key](int32_t a, int32_t b) {
    const float x = key(a), y = key(b);
    return x > y || (x == y && a < b);
  });
}

// Experts outside the best groups become the worst. order: memory for `groups` numbers.
void KeepBestGroups(const Gate& gate, float* choice, float* group_scores, int32_t* order) {
  const int64_t size = gate.experts / gate.groups;
  for (int64_t g = 0; g < gate.groups; ++g) {
    float first = -std::numeric_limits<float>::infinity(), second = first;
    for (int64_t i = g * size; i < (g + 1) * size; ++i) {
      second = std::max(second, std::min(first, choice[i]));
      first = std::max(first, choice[i]);
    }
    group_scores[g] = gate.sum_of_two && size > 1 ? first + second : first;
  }
  Largest(group_scores, gate.groups, gate.kept_groups, order);
  std::sort(order + gate.kept_groups, order + gate.groups);
  for (int64_t g = gate.kept_groups; g < gate.groups; ++g)
    std::fill_n(choice + order[g] * size, size, -std::numeric_limits<float>::infinity());
}

// Weights of the chosen experts of one token. x: its scores as they came; scores: normalised.
void Weigh(const Gate& gate, const float* x, const float* scores, const int32_t* chosen, float* weights) {
  if (gate.softmax_of_kept) {
    for (int64_t j = 0; j < gate.k; ++j) weights[j] = x[chosen[j]];
    return Softmax(weights, gate.k, weights);
  }
  float sum = 0;
  for (int64_t j = 0; j < gate.k; ++j) sum += weights[j] = scores[chosen[j]];
  const float scale = gate.divide_by_sum ? gate.factor / (sum + gate.epsilon) : gate.factor;
  for (int64_t j = 0; j < gate.k; ++j) weights[j] *= scale;
}

Status RunGate(const Run& t, const Gate& gate, const GateOperands& at) {
  const int64_t n = gate.experts, k = gate.k, rows = t[at.x].numel() / n;
  const DenseInput x(t[at.x]);
  const Values<float> bias(t, at.bias);
  const Values<bool> finished(t, at.finished);
  const Values<int64_t> ids(t, at.ids);
  const Values<int64_t> table(t, at.table);
  const int64_t table_rows = at.table >= 0 ? t[at.table].dims[0] : 0;
  const Scratch<float> weights(rows * k), all(at.scores >= 0 ? rows * n : 0);
  const Scratch<int32_t> experts(rows * k);
  if (!x.ok() || !bias.ok() || !finished.ok() || !ids.ok() || !table.ok() || !weights.ok() || !all.ok() ||
      !experts.ok())
    return ScratchFailed(t.plan().name);
  const DenseReader<float> reader(x.view());
  std::atomic<bool> failed{false};
  std::atomic<int64_t> wrong{-1};  // a row whose expert or id is out of range
  ParallelFor(rows, std::max<int64_t>(1, 8192 / n), [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(n), scores(n), choice(n), group_scores(gate.groups);
    const Scratch<int32_t> order(std::max(n, gate.groups));
    if (!buffer.ok() || !scores.ok() || !choice.ok() || !group_scores.ok() || !order.ok()) {
      failed = true;
      return;
    }
    for (int64_t r = begin; r < end; ++r) {
      const float* row = reader.Read(r * n, n, buffer.get());
      if (gate.sigmoid)
        for (int64_t i = 0; i < n; ++i) scores[i] = 1.0f / (1.0f + std::exp(-row[i]));
      else
        Softmax(row, n, scores.get());
      int32_t* chosen = &experts[r * k];
      if (table.get() != nullptr) {
        const int64_t id = ids[r];
        for (int64_t j = 0; j < k; ++j) {
          const int64_t expert = id >= 0 && id < table_rows ? table[id * k + j] : -1;
          if (expert < 0 || expert >= n) {
            wrong = r;
            return;
          }
          chosen[j] = static_cast<int32_t>(expert);
        }
      } else {
        const float* from = gate.softmax_of_kept ? row : scores.get();
        for (int64_t i = 0; i < n; ++i) choice[i] = from[i] + (bias.get() != nullptr ? bias[i] : 0.0f);
        if (gate.kept_groups < gate.groups)
          KeepBestGroups(gate, choice.get(), group_scores.get(), order.get());
        Largest(choice.get(), n, k, order.get());
        std::copy_n(order.get(), k, chosen);
      }
      Weigh(gate, row, scores.get(), chosen, &weights[r * k]);
      if (all.get() != nullptr && at.scores >= 0) std::copy_n(scores.get(), n, &all[r * n]);
      if (finished.get() != nullptr && finished[r]) std::fill_n(chosen, k, static_cast<int32_t>(n));
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  if (wrong >= 0)
    return Error(kParamInvalid, "{}: inputIds or tid2eid is out of range at token {} ({} rows, {} experts)",
                 t.plan().name, wrong.load(), table_rows, n);
  StoreValues(t[at.y], weights.get());
  StoreValues(t[at.expert], experts.get());
  if (at.scores >= 0) StoreValues(t[at.scores], all.get());
  if (at.row >= 0) {
    for (int64_t i = 0; i < rows * k; ++i) experts[i] = static_cast<int32_t>(i % k * rows + i / k);
    StoreValues(t[at.row], experts.get());
  }
  return Status();
}

// x [.., experts]; y and expertIdx [.., k]. `scores` may be nullptr or empty: then nobody reads them.
Status LaunchGate(Call& call, const aclTensor* x, int64_t k, Gate gate, const aclTensor* bias,
                  const aclTensor* finished, const aclTensor* ids, const aclTensor* table, const aclTensor* y,
                  const aclTensor* expert, const aclTensor* row, const aclTensor* scores) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 1, kMaxRank));
  const TensorView& v = x->view;
  if (!IsFloating(v.dtype))
    return call.Invalid("x has type {}, expected a floating-point type", Name(v.dtype));
  gate.experts = v.dims[v.rank - 1];
  gate.k = k;
  if (gate.groups < 1 || gate.experts % gate.groups != 0)
    return call.Invalid("groupCount is {}, expected a divisor of {} experts", gate.groups, gate.experts);
  if (gate.kept_groups < 1 || gate.kept_groups > gate.groups)
    return call.Invalid("kGroup is {}, expected 1 to groupCount = {}", gate.kept_groups, gate.groups);
  if (k < 0 || k > gate.experts / gate.groups * gate.kept_groups)
    return call.Invalid("k is {}, expected 0 to {}, the experts in kGroup groups", k,
                        gate.experts / gate.groups * gate.kept_groups);
  int64_t dims[kMaxRank];
  std::copy_n(v.dims, v.rank, dims);
  if (scores != nullptr && scores->view.numel() > 0)
    RETURN_IF_ERROR(call.RequireShape(scores, "out", dims, v.rank));
  dims[v.rank - 1] = k;
  RETURN_IF_ERROR(call.RequireShape(y, "yOut", dims, v.rank));
  RETURN_IF_ERROR(call.RequireCastable(DType::kFloat, y, "yOut"));
  RETURN_IF_ERROR(call.RequireShape(expert, "expertIdxOut", dims, v.rank));
  RETURN_IF_ERROR(call.RequireDType(expert, "expertIdxOut", DType::kInt32));
  if (row != nullptr) {
    RETURN_IF_ERROR(call.RequireShape(row, "rowIdxOut", dims, v.rank));
    RETURN_IF_ERROR(call.RequireDType(row, "rowIdxOut", DType::kInt32));
  }
  if (finished != nullptr) {
    RETURN_IF_ERROR(call.RequireShape(finished, "finishedOptional", v.dims, v.rank - 1));
    RETURN_IF_ERROR(call.RequireDType(finished, "finishedOptional", DType::kBool));
  }
  if (bias != nullptr) {
    RETURN_IF_ERROR(call.RequireShape(bias, "biasOptional", &gate.experts, 1));
    if (!IsFloating(bias->view.dtype))
      return call.Invalid("biasOptional has type {}, expected a floating-point type", Name(bias->view.dtype));
  }
  if ((ids == nullptr) != (table == nullptr))
    return call.Invalid("only one of inputIdsOptional and tid2eidOptional is given, expected both or none");
  if (ids != nullptr) {
    const int64_t rows = gate.experts == 0 ? 0 : v.numel() / gate.experts;
    if (ids->view.numel() != rows || !IsInteger(ids->view.dtype))
      return call.Invalid("inputIdsOptional has shape {} and type {}, expected {} integers",
                          ShapeString(ids->view), Name(ids->view.dtype), rows);
    if (table->view.rank != 2 || table->view.dims[1] != k || !IsInteger(table->view.dtype))
      return call.Invalid("tid2eidOptional has shape {} and type {}, expected [tokens,{}] integers",
                          ShapeString(table->view), Name(table->view.dtype), k);
  }
  if (v.empty()) return call.Nothing();
  Operands o;
  GateOperands at;
  at.x = o.Input(x);
  at.bias = o.Input(bias);
  at.finished = o.Input(finished);
  at.ids = o.Input(ids);
  at.table = o.Input(table);
  at.y = o.Output(y);
  at.expert = o.Output(expert);
  at.row = o.Output(row);
  at.scores = scores != nullptr && scores->view.numel() > 0 ? o.Output(scores) : -1;
  return call.Launch(o.list(), Cost{20.0 * static_cast<double>(v.numel()), o.bytes()},
                     [gate, at](const Run& t) { return RunGate(t, gate, at); });
}

// The gate with groups; ids and table may be nullptr.
Status LaunchGroupedGate(Call& call, const aclTensor* x, const aclTensor* bias, const aclTensor* ids,
                         const aclTensor* table, int64_t k, int64_t kGroup, int64_t groupCount,
                         int64_t groupSelectMode, int64_t renorm, int64_t normType, bool outFlag,
                         double routedScalingFactor, double eps, const aclTensor* y, const aclTensor* expert,
                         const aclTensor* out) {
  if (normType != 0 && normType != 1)
    return call.Invalid("normType is {}, expected 0 (softmax) or 1 (sigmoid)", normType);
  if (groupSelectMode != 0 && groupSelectMode != 1)
    return call.Invalid("groupSelectMode is {}, expected 0 (the best) or 1 (the sum of the two best)",
                        groupSelectMode);
  if (renorm != 0 && renorm != 1) return call.Invalid("renorm is {}, expected 0 or 1", renorm);
  Gate gate;
  gate.sigmoid = normType == 1;
  gate.divide_by_sum = gate.sigmoid || renorm == 1;
  gate.factor = static_cast<float>(routedScalingFactor);
  gate.epsilon = static_cast<float>(eps);
  gate.groups = groupCount;
  gate.kept_groups = kGroup;
  gate.sum_of_two = groupSelectMode == 1;
  return LaunchGate(call, x, k, gate, bias, nullptr, ids, table, y, expert, nullptr, outFlag ? out : nullptr);
}

}  // namespace

Status aclnn::MoeGatingTopKSoftmax(Call& call, const aclTensor* x, const aclTensor* finishedOptional,
                                   int64_t k, const aclTensor* yOut, const aclTensor* expertIdxOut,
                                   const aclTensor* rowIdxOut) {
  return LaunchGate(call, x, k, Gate(), nullptr, finishedOptional, nullptr, nullptr, yOut, expertIdxOut,
                    rowIdxOut, nullptr);
}

Status aclnn::MoeGatingTopKSoftmaxV2(Call& call, const aclTensor* x, const aclTensor* finishedOptional,
                                     int64_t k, int64_t renorm, bool outputSoftmaxResultFlag,
                                     const aclTensor* yOut, const aclTensor* expertIdxOut,
                                     const aclTensor* softmaxResultOutOptional) {
  if (renorm != 0 && renorm != 1) return call.Invalid("renorm is {}, expected 0 or 1", renorm);
  Gate gate;
  gate.softmax_of_kept = renorm == 1;
  return LaunchGate(call, x, k, gate, nullptr, finishedOptional, nullptr, nullptr, yOut, expertIdxOut,
                    nullptr, renorm == 0 && outputSoftmaxResultFlag ? softmaxResultOutOptional : nullptr);
}

Status aclnn::MoeGatingTopK(Call& call, const aclTensor* x, const aclTensor* biasOptional, int64_t k,
                            int64_t kGroup, int64_t groupCount, int64_t groupSelectMode, int64_t renorm,
                            int64_t normType, bool outFlag, double routedScalingFactor, double eps,
                            const aclTensor* yOut, const aclTensor* expertIdxOut, const aclTensor* outOut) {
  return LaunchGroupedGate(call, x, biasOptional, nullptr, nullptr, k, kGroup, groupCount, groupSelectMode,
                           renorm, normType, outFlag, routedScalingFactor, eps, yOut, expertIdxOut, outOut);
}

Status aclnn::MoeGatingTopKV2(Call& call, const aclTensor* x, const aclTensor* biasOptional,
                              const aclTensor* inputIdsOptional, const aclTensor* tid2eidOptional, int64_t k,
                              int64_t kGroup, int64_t groupCount, int64_t groupSelectMode, int64_t renorm,
                              int64_t normType, bool outFlag, double routedScalingFactor, double eps,
                              const aclTensor* yOut, const aclTensor* expertIdxOut, const aclTensor* outOut) {
  return LaunchGroupedGate(call, x, biasOptional, inputIdsOptional, tid2eidOptional, k, kGroup, groupCount,
                           groupSelectMode, renorm, normType, outFlag, routedScalingFactor, eps, yOut,
                           expertIdxOut, outOut);
}

Status aclnn::MoeGatingTopKHash(Call& call, const aclTensor* x, const aclTensor* biasOptional,
                                const aclTensor* inputIdsOptional, const aclTensor* tid2eidOptional,
                                int64_t k, int64_t kGroup, int64_t groupCount, int64_t groupSelectMode,
                                int64_t renorm, int64_t normType, bool outFlag, double routedScalingFactor,
                                double eps, const aclTensor* yOut, const aclTensor* expertIdxOut,
                                const aclTensor* outOut) {
  return LaunchGroupedGate(call, x, biasOptional, inputIdsOptional, tid2eidOptional, k, kGroup, groupCount,
                           groupSelectMode, renorm, normType, outFlag, routedScalingFactor, eps, yOut,
                           expertIdxOut, outOut);
}

}  // namespace anycann
