// ApplyTopKTopP: of each row of logits only the k largest stay, and of those only the likeliest that together
// reach the probability p; the others become minus infinity.
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

constexpr float kOut = -std::numeric_limits<float>::infinity();

// Which of the n logits stay. order: memory for n numbers.
void Filter(const float* x, int64_t n, int64_t k, float p, int32_t* order, float* y) {
  std::copy_n(x, n, y);
  std::iota(order, order + n, 0);
  // Ascending, of equals the first first; NaN is the largest.
  std::stable_sort(order, order + n,
                   [x](int32_t a, int32_t b) { return std::isnan(x[b]) ? !std::isnan(x[a]) : x[a] < x[b]; });
  const float least = x[order[n - k]];  // equals of the k-th largest stay too
  double sum = 0;
  const float high = x[order[n - 1]];
  for (int64_t i = 0; i < n; ++i)
    if (x[i] < least)
      y[i] = kOut;
    else
      sum += std::exp(static_cast<double>(x[i]) - high);
  if (p >= 1) return;
  double passed = 0;
  for (int64_t i = 0; i + 1 < n; ++i) {  // the largest stays always
    if (y[order[i]] == kOut) continue;
    passed += std::exp(static_cast<double>(x[order[i]]) - high) / sum;
    if (passed <= 1.0 - p) y[order[i]] = kOut;
  }
}

}  // namespace

Status aclnn::ApplyTopKTopP(Call& call, const aclTensor* logits, const aclTensor* p, const aclTensor* k,
                            aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(logits, "logits", 2, 2));
  const TensorView& v = logits->view;
  if (!IsFloating(v.dtype))
    return call.Invalid("logits has type {}, expected a floating-point type", Name(v.dtype));
  for (const auto& [t, name] : {std::pair{p, "p"}, std::pair{k, "k"}})
    if (t != nullptr) RETURN_IF_ERROR(call.RequireShape(t, name, v.dims, 1));
  if (p != nullptr && !IsFloating(p->view.dtype))
    return call.Invalid("p has type {}, expected a floating-point type", Name(p->view.dtype));
  if (k != nullptr && !IsInteger(k->view.dtype))
    return call.Invalid("k has type {}, expected int32", Name(k->view.dtype));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", logits, "logits"));
  RETURN_IF_ERROR(call.RequireCastable(DType::kFloat, out, "out"));
  if (v.dims[1] > std::numeric_limits<int32_t>::max())
    return call.Invalid("logits has shape {}: rows of more than int32 counts", ShapeString(v));
  if (v.empty()) return call.Nothing();
  Operands o;
  const int x_at = o.Input(logits), p_at = o.Input(p), k_at = o.Input(k), y_at = o.Output(out);
  return call.Launch(o.list(), Cost{40.0 * static_cast<double>(v.numel()), o.bytes()},
                     [x_at, p_at, k_at, y_at](const Run& t) -> Status {
                       const int64_t rows = t[x_at].dims[0], n = t[x_at].dims[1];
                       const DenseInput x(t[x_at]);
                       const DenseOutput y(t[y_at]);
                       const Values<float> p(t, p_at);
                       const Values<int64_t> k(t, k_at);
                       if (!x.ok() || !y.ok() || !p.ok() || !k.ok()) return ScratchFailed(t.plan().name);
                       const DenseReader<float> reader(x.view());
                       const DenseWriter<float> writer(y.view());
                       std::atomic<bool> failed{false};
                       ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
                         const Scratch<float> in(n), kept(n);
                         const Scratch<int32_t> order(n);
                         if (!in.ok() || !kept.ok() || !order.ok()) {
                           failed = true;
                           return;
                         }
                         for (int64_t r = begin; r < end; ++r) {
                           const float* row = reader.Read(r * n, n, in.get());
                           const int64_t most = k.get() != nullptr ? std::clamp<int64_t>(k[r], 1, n) : n;
                           Filter(row, n, most, p.get() != nullptr ? p[r] : 1.0f, order.get(), kept.get());
                           float* to = writer.Begin(r * n, in.get());
                           std::copy_n(kept.get(), n, to);
                           writer.End(r * n, n, to);
                         }
                       });
                       if (failed) return ScratchFailed(t.plan().name);
                       y.Finish();
                       return Status();
                     });
}

}  // namespace anycann
