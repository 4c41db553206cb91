// TopKTopPSample: of each row of logits or probabilities the k largest, of those the likeliest that together
// reach p, of those the ones not far below the first; and one of them, by exponential noise or the largest.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

constexpr int64_t kMostChoices = 1024;  // of the k largest: more means all

struct Sampling {
  int64_t rows = 0, n = 0, most = kMostChoices;
  float epsilon = 0;
  bool are_logits = true;
  int logits = -1, k = -1, p = -1, q = -1, least = -1;
  int chosen = -1, kept = -1, order = -1, probabilities = -1;
};

// What is left of a row: indices into it, with their probabilities.
struct Choices {
  std::vector<int32_t> index;
  std::vector<float> probability;

  void Truncate(int64_t n) {
    index.resize(static_cast<size_t>(n));
    probability.resize(static_cast<size_t>(n));
  }
};

void Softmax(std::vector<float>* v) {
  const float top = *std::max_element(v->begin(), v->end());
  double sum = 0;
  for (float& x : *v) sum += x = std::exp(x - top);
  for (float& x : *v) x = static_cast<float>(x / sum);
}

void Choose(const Sampling& s, const float* x, int64_t k, float p, float least, Choices* c) {
  const bool by_count = k >= 1 && k <= std::min(s.most, s.n), by_sum = p < 1;
  c->index.resize(static_cast<size_t>(s.n));
  std::iota(c->index.begin(), c->index.end(), 0);
  if (by_count || by_sum || least >= 1) {  // NaN is the largest
    const auto before = [x](int32_t a, int32_t b) {
      return std::isnan(x[a]) ? !std::isnan(x[b]) : x[a] > x[b];
    };
    std::stable_sort(c->index.begin(), c->index.end(), before);
    if (by_count) c->index.resize(static_cast<size_t>(k));
  }
  c->probability.clear();
  for (const int32_t i : c->index) c->probability.push_back(x[i]);
  if (s.are_logits) Softmax(&c->probability);
  if (by_sum) {
    int64_t count = p <= 0 ? 1 : 0;
    double sum = 0;
    while (p > 0 && count < static_cast<int64_t>(c->index.size()) && sum < p) sum += c->probability[count++];
    c->Truncate(std::max<int64_t>(count, 1));
  }
  if (p <= 0 && s.are_logits) c->probability[0] = 1;
  if (least >= 1) c->Truncate(1);
  if (least > 0 && least < 1) {
    const float bound = *std::max_element(c->probability.begin(), c->probability.end()) * least;
    size_t kept = 0;
    for (size_t i = 0; i < c->index.size(); ++i)
      if (c->probability[i] >= bound) {
        c->index[kept] = c->index[i];
        c->probability[kept++] = c->probability[i];
      }
    c->Truncate(static_cast<int64_t>(std::max<size_t>(kept, 1)));
  }
}

Status RunSampling(const Run& t, const Sampling& s) {
  const Values<float> logits(t[s.logits]), p(t[s.p]);
  const Values<int64_t> k(t[s.k]);
  const Values<float> q(t, s.q), least(t, s.least);
  const auto memory = [&](int i) { return Scratch<float>(i >= 0 ? s.rows * s.n : 0); };
  const Scratch<float> kept = memory(s.kept), probabilities = memory(s.probabilities);
  const Scratch<int64_t> order(s.order >= 0 ? s.rows * s.n : 0), chosen(s.rows);
  if (!logits.ok() || !p.ok() || !k.ok() || !q.ok() || !least.ok() || !kept.ok() || !probabilities.ok() ||
      !order.ok() || !chosen.ok())
    return ScratchFailed(t.plan().name);
  const float out = s.are_logits ? -std::numeric_limits<float>::infinity() : 0.0f;
  ParallelFor(s.rows, 1, [&](int64_t begin, int64_t end) {
    Choices c;
    for (int64_t r = begin; r < end; ++r) {
      const float* x = logits.get() + r * s.n;
      Choose(s, x, k[r], p[r], least.get() != nullptr ? least[r] : -1.0f, &c);
      size_t best = 0;
      float highest = -std::numeric_limits<float>::infinity();
      for (size_t i = 0; i < c.index.size(); ++i) {
        const float v = q.get() != nullptr
                            ? c.probability[i] / (std::abs(q[r * s.n + static_cast<int64_t>(i)]) + s.epsilon)
                            : c.probability[i];
        if (v > highest) highest = v, best = i;
      }
      chosen[r] = c.index[best];
      if (s.kept >= 0) {
        std::fill_n(kept.get() + r * s.n, s.n, out);
        for (const int32_t i : c.index) kept[r * s.n + i] = x[i];
      }
      for (int64_t i = 0; i < s.n && s.order >= 0; ++i)
        order[r * s.n + i] = i < static_cast<int64_t>(c.index.size()) ? c.index[i] : 0;
      for (int64_t i = 0; i < s.n && s.probabilities >= 0; ++i)
        probabilities[r * s.n + i] = i < static_cast<int64_t>(c.index.size()) ? c.probability[i] : 0;
    }
  });
  StoreValues(t[s.chosen], chosen.get());
  if (s.kept >= 0) StoreValues(t[s.kept], kept.get());
  if (s.order >= 0) StoreValues(t[s.order], order.get());
  if (s.probabilities >= 0) StoreValues(t[s.probabilities], probabilities.get());
  return Status();
}

struct SamplingTensors {
  const aclTensor *logits, *k, *p, *q, *least, *chosen, *kept, *order, *probabilities;
};

Status LaunchSampling(Call& call, const SamplingTensors& x, Sampling s) {
  RETURN_IF_ERROR(call.RequireRank(x.logits, "logits", 2, 2));
  const int64_t* dims = x.logits->view.dims;
  s.rows = dims[0], s.n = dims[1];
  if (s.n > std::numeric_limits<int32_t>::max())
    return call.Invalid("logits has shape {}: rows of more than int32 counts", ShapeString(x.logits->view));
  const auto require = [&](const aclTensor* t, const char* name, int rank, bool integers) -> Status {
    if (t == nullptr) return Status();
    RETURN_IF_ERROR(call.RequireShape(t, name, dims, rank));
    if (integers ? IsInteger(t->view.dtype) : IsFloating(t->view.dtype)) return Status();
    return call.Invalid("{} has type {}, expected {}", name, Name(t->view.dtype),
                        integers ? "integers" : "a floating type");
  };
  RETURN_IF_ERROR(require(x.logits, "logits", 2, false));
  RETURN_IF_ERROR(require(x.k, "topK", 1, true));
  RETURN_IF_ERROR(require(x.p, "topP", 1, false));
  RETURN_IF_ERROR(require(x.q, "q", 2, false));
  RETURN_IF_ERROR(require(x.least, "minPs", 1, false));
  if (x.chosen->view.numel() != s.rows || !IsInteger(x.chosen->view.dtype))
    return call.Invalid("logitsSelectIdx is {}, expected {} integers", Describe(x.chosen), s.rows);
  RETURN_IF_ERROR(require(x.kept, "logitsTopKPSelect", 2, false));
  RETURN_IF_ERROR(require(x.order, "logitsIdx", 2, true));
  RETURN_IF_ERROR(require(x.probabilities, "logitsSortMasked", 2, false));
  if (s.rows == 0) return call.Nothing();
  if (s.n == 0)
    return call.Invalid("logits has shape {}: there's nothing to choose", ShapeString(x.logits->view));
  Operands o;
  s.logits = o.Input(x.logits), s.k = o.Input(x.k), s.p = o.Input(x.p), s.q = o.Input(x.q);
  s.least = o.Input(x.least);
  s.chosen = o.Output(x.chosen), s.kept = o.Output(x.kept), s.order = o.Output(x.order);
  s.probabilities = o.Output(x.probabilities);
  return call.Launch(o.list(), Cost{40.0 * static_cast<double>(s.rows * s.n), o.bytes()},
                     [s](const Run& t) { return RunSampling(t, s); });
}

}  // namespace

Status aclnn::TopKTopPSample(Call& call, const aclTensor* logits, const aclTensor* topK,
                             const aclTensor* topP, const aclTensor* q, double eps, bool isNeedLogits,
                             int64_t, const aclTensor* logitsSelectIdx, const aclTensor* logitsTopKPSelect) {
  Sampling s;
  s.epsilon = static_cast<float>(eps);
  return LaunchSampling(call,
                        {logits, topK, topP, Given(q), nullptr, logitsSelectIdx,
                         isNeedLogits ? logitsTopKPSelect : nullptr, nullptr, nullptr},
                        s);
}

Status aclnn::TopKTopPSampleV2(Call& call, const aclTensor* logits, const aclTensor* topK,
                               const aclTensor* topP, const aclTensor* q, const aclTensor* minPs, double eps,
                               bool isNeedLogits, int64_t, int64_t ksMax, bool inputIsLogits,
                               bool isNeedSampleResult, const aclTensor* logitsSelectIdx,
                               const aclTensor* logitsTopKPSelect, const aclTensor* logitsIdx,
                               const aclTensor* logitsSortMasked) {
  if (ksMax < 1 || ksMax > kMostChoices)
    return call.Invalid("ksMax is {}, expected 1 to {}", ksMax, kMostChoices);
  Sampling s;
  s.epsilon = static_cast<float>(eps);
  s.most = (ksMax + 7) / 8 * 8;
  s.are_logits = inputIsLogits;
  return LaunchSampling(call,
                        {logits, topK, topP, Given(q), Given(minPs), logitsSelectIdx,
                         isNeedLogits ? logitsTopKPSelect : nullptr, isNeedSampleResult ? logitsIdx : nullptr,
                         isNeedSampleResult ? logitsSortMasked : nullptr},
                        s);
}

}  // namespace anycann
