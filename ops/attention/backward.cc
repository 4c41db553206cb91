// The gradient, from the forward's output, maximum and sum. A task is one key/value head with its query
// heads: it recomputes the probabilities block by block and adds to its own gradients, so that nothing is
// shared between tasks.
//   P = exp(score - max) / sum,  dP = dropout(dout v^T),  dS = P (dP - rowsum(dout out)),
//   dv = dropout(P)^T dout,  dq = scale dS k,  dk = scale dS^T q
#include <algorithm>
#include <atomic>

#include "base/parallel.h"
#include "base/scratch.h"
#include "ops/attention/scores.h"
#include "ops/convert.h"
#include "ops/matmul/panels.h"

namespace anycann {
namespace {

constexpr int64_t kBlockRows = 4 * kTileRows;
constexpr int64_t kBlockKeys = Scores::kBlockKeys;

Lines FloatRows(const float* p, int64_t stride) {
  return {reinterpret_cast<const char*>(p), DType::kFloat, stride, 1};
}
Lines FloatColumns(const float* p, int64_t stride) {
  return {reinterpret_cast<const char*>(p), DType::kFloat, 1, stride};
}

void LoadRow(float* to, const HeadView& v, const char* from, int64_t dim) {
  if (v.dim == 1) return Convert(to, DType::kFloat, from, v.dtype, dim);
  for (int64_t d = 0; d < dim; ++d)
    Convert(to + d, DType::kFloat, from + d * v.dim * SizeOf(v.dtype), v.dtype, 1);
}
void StoreRow(const HeadView& v, char* to, const float* from, int64_t dim) {
  if (v.dim == 1) return Convert(to, v.dtype, from, DType::kFloat, dim);
  for (int64_t d = 0; d < dim; ++d)
    Convert(to + d * v.dim * SizeOf(v.dtype), v.dtype, from + d, DType::kFloat, 1);
}

class Backward {
 public:
  Backward(const Attention& a, const AttentionGradients& g) : a_(a), g_(g), scores_(a) {
    for (int64_t b = 0; b < a.batches; ++b) {
      k_most_ = std::max(k_most_, scores_.Pair(b).k_len);
      if (a.q_ends == nullptr) break;
    }
    dim_width_ = RoundUp(a.dim, kPanelWidth);
    value_width_ = RoundUp(a.value_dim, kPanelWidth);
    key_floats_ = RoundUp(k_most_, kPanelWidth);
  }

  bool Run() {
    // Position biases and sinks are shared by batches and maybe heads: their tasks are run in order.
    const bool shares = g_.dpse.data != nullptr || g_.dsink != nullptr;
    const int64_t items = a_.batches * a_.kv_heads;
    if (shares) {
      for (int64_t item = 0; item < items; ++item)
        if (!Group(item)) return false;
      return true;
    }
    std::atomic<bool> ok{true};
    ParallelFor(items, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item)
        if (!Group(item)) ok.store(false, std::memory_order_relaxed);
    });
    return ok.load();
  }

 private:
  struct Work {
    float *k, *v;     // right panels with keys as columns: for scores and for dP
    float* k_rows;    // right panels with dims as columns, depth keys: for dq
    float *dk, *dv;   // [keys][dim_width], [keys][value_width]
    float *q, *dout;  // [rows][dim], [rows][value_dim]
    float *q_left, *dout_left;
    float *q_right, *dout_right;  // columns are dims, depth rows
    float *p, *ds;                // [rows][kBlockKeys]
    float* left;                  // packed p or ds, either way
    float* dq;                    // [rows][dim_width]
    float delta[kBlockRows];
  };

  // The key/value head `item`: all query heads of its group, one after the other, into one dk and dv.
  bool Group(int64_t item) const;
  bool Allocate(Work* w) const;
  void LoadRows(Work* w, int64_t b, int64_t head, const SequencePair& p, int64_t i0, int64_t rows) const;
  void Block(Work* w, int64_t b, int64_t head, const SequencePair& p, int64_t i0, int64_t rows) const;
  void Probabilities(Work* w, int64_t b, int64_t head, const SequencePair& p, int64_t i, int64_t r, int64_t j,
                     int64_t n, int64_t padded) const;
  void AddBiasGradient(const float* ds, int64_t b, int64_t head, const SequencePair& p, int64_t i, int64_t j,
                       int64_t n) const;
  void AddSinkGradient(const Work& w, int64_t b, int64_t head, const SequencePair& p, int64_t i0,
                       int64_t rows) const;
  float Max(int64_t b, int64_t head, int64_t row) const {
    return *reinterpret_cast<const float*>(a_.max.At(b, head, row));
  }
  float Sum(int64_t b, int64_t head, int64_t row) const {
    return *reinterpret_cast<const float*>(a_.sum.At(b, head, row));
  }

  const Attention& a_;
  const AttentionGradients& g_;
  const Scores scores_;
  int64_t k_most_ = 0, dim_width_, value_width_, key_floats_;
};

bool Backward::Allocate(Work* w) const {
  const int64_t keys = key_floats_, rows = kBlockRows;
  const int64_t sizes[] = {keys * a_.dim,       keys * a_.value_dim,
                           keys * dim_width_,   keys * dim_width_,
                           keys * value_width_, rows * a_.dim,
                           rows * a_.value_dim, rows * a_.dim,
                           rows * a_.value_dim, rows * dim_width_,
                           rows * value_width_, rows * kBlockKeys,
                           rows * kBlockKeys,   RoundUp(kBlockKeys, kTileRows) * RoundUp(rows, kTileRows),
                           rows * dim_width_};
  float** pointers[] = {&w->k,          &w->v,    &w->k_rows, &w->dk,        &w->dv,
                        &w->q,          &w->dout, &w->q_left, &w->dout_left, &w->q_right,
                        &w->dout_right, &w->p,    &w->ds,     &w->left,      &w->dq};
  int64_t total = 0;
  for (int64_t s : sizes) total += RoundUp(s, 16);
  float* memory = static_cast<float*>(ThreadScratch(ScratchSlot::kOuter, static_cast<size_t>(total) * 4));
  if (memory == nullptr) return false;
  for (size_t i = 0; i < std::size(sizes); ++i) {
    *pointers[i] = memory;
    memory += RoundUp(sizes[i], 16);
  }
  return true;
}

bool Backward::Group(int64_t item) const {
  const int64_t b = item / a_.kv_heads, n = item % a_.kv_heads;
  const SequencePair p = scores_.Pair(b);
  Work w;
  if (!Allocate(&w)) return false;
  const Lines k{a_.k.At(b, n, p.k0), a_.k.dtype, a_.k.sequence, a_.k.dim};
  const Lines v{a_.v.At(b, n, p.k0), a_.v.dtype, a_.v.sequence, a_.v.dim};
  PackRightPanels(w.k, k, p.k_len, a_.dim);
  PackRightPanels(w.v, v, p.k_len, a_.value_dim);
  PackRightPanels(w.k_rows, Lines{k.data, k.dtype, k.k_stride, k.line_stride}, a_.dim, p.k_len);
  std::fill_n(w.dk, key_floats_ * dim_width_, 0.0f);
  std::fill_n(w.dv, key_floats_ * value_width_, 0.0f);
  for (int64_t head = n * a_.group(); head < (n + 1) * a_.group(); ++head) {
    for (int64_t i = 0; i < p.q_len; i += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, p.q_len - i);
      LoadRows(&w, b, head, p, i, rows);
      Block(&w, b, head, p, i, rows);
      if (g_.dsink != nullptr) AddSinkGradient(w, b, head, p, i, rows);
      const float scale = static_cast<float>(a_.scale);
      for (int64_t r = 0; r < rows && g_.dq.data != nullptr; ++r) {
        float* dq = w.dq + r * dim_width_;
        for (int64_t d = 0; d < a_.dim; ++d) dq[d] *= scale;
        StoreRow(g_.dq, g_.dq.At(b, head, p.q0 + i + r), dq, a_.dim);
      }
    }
  }
  const float scale = static_cast<float>(a_.scale);
  for (int64_t j = 0; j < p.k_len; ++j) {
    float* dk = w.dk + j * dim_width_;
    for (int64_t d = 0; d < a_.dim; ++d) dk[d] *= scale;
    if (g_.dk.data != nullptr) StoreRow(g_.dk, g_.dk.At(b, n, p.k0 + j), dk, a_.dim);
    if (g_.dv.data != nullptr)
      StoreRow(g_.dv, g_.dv.At(b, n, p.k0 + j), w.dv + j * value_width_, a_.value_dim);
  }
  return true;
}

void Backward::LoadRows(Work* w, int64_t b, int64_t head, const SequencePair& p, int64_t i0,
                        int64_t rows) const {
  alignas(64) float out[1024];
  for (int64_t r = 0; r < rows; ++r) {
    float* q = w->q + r * a_.dim;
    float* dout = w->dout + r * a_.value_dim;
    LoadRow(q, a_.q, a_.q.At(b, head, p.q0 + i0 + r), a_.dim);
    LoadRow(dout, g_.dout, g_.dout.At(b, head, p.q0 + i0 + r), a_.value_dim);
    double delta = 0;
    for (int64_t d = 0; d < a_.value_dim; d += 1024) {
      const int64_t n = std::min<int64_t>(1024, a_.value_dim - d);
      LoadRow(out, a_.out, a_.out.At(b, head, p.q0 + i0 + r) + d * a_.out.dim * SizeOf(a_.out.dtype), n);
      for (int64_t i = 0; i < n; ++i) delta += static_cast<double>(out[i]) * static_cast<double>(dout[d + i]);
    }
    w->delta[r] = static_cast<float>(delta);
  }
  PackLeftPanels(w->q_left, FloatRows(w->q, a_.dim), rows, a_.dim);
  PackLeftPanels(w->dout_left, FloatRows(w->dout, a_.value_dim), rows, a_.value_dim);
  PackRightPanels(w->q_right, FloatColumns(w->q, a_.dim), a_.dim, rows);
  PackRightPanels(w->dout_right, FloatColumns(w->dout, a_.value_dim), a_.value_dim, rows);
  std::fill_n(w->dq, rows * dim_width_, 0.0f);
}

// Row r of w->p holds products q k^T and of w->ds dout v^T; on return P (dropped) and dS.
void Backward::Probabilities(Work* w, int64_t b, int64_t head, const SequencePair& p, int64_t i, int64_t r,
                             int64_t j, int64_t n, int64_t padded) const {
  float* s = w->p + r * kBlockKeys;
  float* ds = w->ds + r * kBlockKeys;
  const float max = Max(b, head, p.q0 + i), sum = Sum(b, head, p.q0 + i);
  scores_.Finish(s, b, head, p, i, j, n, padded);
  if (sum == 0 || max == Scores::kMasked) {
    std::fill_n(s, padded, 0.0f);
    std::fill_n(ds, padded, 0.0f);
    return;
  }
  Scores::Exponentials(s, padded, max, 1 / sum);
  if (a_.drop != nullptr) scores_.Drop(ds, head, p, i, j, n);
  const float delta = w->delta[r];
  for (int64_t t = 0; t < padded; ++t) ds[t] = s[t] * (ds[t] - delta);
  if (a_.drop != nullptr) scores_.Drop(s, head, p, i, j, n);
  if (g_.dpse.data != nullptr) AddBiasGradient(ds, b, head, p, i, j, n);
}

void Backward::Block(Work* w, int64_t b, int64_t head, const SequencePair& p, int64_t i0,
                     int64_t rows) const {
  int64_t first = p.k_len, last = 0;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t begin, end;
    scores_.Range(b, p, i0 + r, &begin, &end);
    first = std::min(first, begin);
    last = std::max(last, end);
  }
  first = first / kPanelWidth * kPanelWidth;
  for (int64_t j = first; j < last; j += kBlockKeys) {
    const int64_t n = std::min(kBlockKeys, last - j), padded = Scores::Padded(n);
    MultiplyPanels(w->q_left, a_.dim, rows, w->k + j * a_.dim, a_.dim, n, a_.dim, w->p, kBlockKeys, false);
    MultiplyPanels(w->dout_left, a_.value_dim, rows, w->v + j * a_.value_dim, a_.value_dim, n, a_.value_dim,
                   w->ds, kBlockKeys, false);
    for (int64_t r = 0; r < rows; ++r) Probabilities(w, b, head, p, i0 + r, r, j, n, padded);
    PackLeftPanels(w->left, FloatColumns(w->p, kBlockKeys), n, rows);
    MultiplyPanels(w->left, rows, n, w->dout_right, rows, a_.value_dim, rows, w->dv + j * value_width_,
                   value_width_, true);
    PackLeftPanels(w->left, FloatColumns(w->ds, kBlockKeys), n, rows);
    MultiplyPanels(w->left, rows, n, w->q_right, rows, a_.dim, rows, w->dk + j * dim_width_, dim_width_,
                   true);
    PackLeftPanels(w->left, FloatRows(w->ds, kBlockKeys), rows, n);
    MultiplyPanels(w->left, n, rows, w->k_rows + j * kPanelWidth, p.k_len, a_.dim, n, w->dq, dim_width_,
                   true);
  }
}

void Backward::AddBiasGradient(const float* ds, int64_t b, int64_t head, const SequencePair&, int64_t i,
                               int64_t j, int64_t n) const {
  const float scale = a_.pse_kind == PositionBias::kScaledBefore ? static_cast<float>(a_.scale) : 1.0f;
  float* to = reinterpret_cast<float*>(g_.dpse.At(b, head, i)) + j * g_.dpse.dim;
  for (int64_t t = 0; t < n; ++t) to[t * g_.dpse.dim] += ds[t] * scale;
}

// The sink's probability takes part in the softmax with the value 0: its gradient is -P delta.
void Backward::AddSinkGradient(const Work& w, int64_t b, int64_t head, const SequencePair& p, int64_t i0,
                               int64_t rows) const {
  for (int64_t r = 0; r < rows; ++r) {
    const float max = Max(b, head, p.q0 + i0 + r), sum = Sum(b, head, p.q0 + i0 + r);
    g_.dsink[head] -= math::Exp(a_.sink[head] - max) / sum * w.delta[r];
  }
}

}  // namespace

Status AttentionBackward(const Attention& a, const AttentionGradients& g) {
  return Backward(a, g).Run()
             ? Status()
             : Error(kBadAlloc, "no memory for the gradient of an attention over {} keys", a.k_len);
}

}  // namespace anycann
