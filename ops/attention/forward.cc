// Forward: a task is a block of query rows of one key/value head (the heads of a group side by side); it
// walks over blocks of keys with a running maximum and sum. Keys and values are packed once and shared by the
// tasks.
#include <algorithm>
#include <atomic>

#include "base/parallel.h"
#include "base/scratch.h"
#include "ops/attention/scores.h"
#include "ops/convert.h"
#include "ops/matmul/dot.h"
#include "ops/matmul/panels.h"

namespace anycann {
namespace {

constexpr int64_t kBlockRows = 4 * kTileRows;
constexpr int64_t kBlockKeys = Scores::kBlockKeys;
constexpr int64_t kFewRows = 4;                      // fewer: keys and values are read where they lie
constexpr int64_t kPackedBytes = int64_t{32} << 20;  // of keys and values at a time

// A row of the block: which query.
struct Row {
  int64_t head, i;
};

struct Packed {
  float* k;  // right panels, columns are keys, depth is dim
  float* v;  // right panels, columns are value dims, depth is keys
};

class Forward {
 public:
  explicit Forward(const Attention& a) : a_(a), scores_(a) {
    for (int64_t b = 0; b < a.batches; ++b) {
      const SequencePair p = scores_.Pair(b);
      q_most_ = std::max(q_most_, p.q_len);
      k_most_ = std::max(k_most_, p.k_len);
      if (a.q_ends == nullptr && a.q_counts == nullptr && a.k_counts == nullptr) break;
    }
    rows_ = a.group() * q_most_;
    value_width_ = RoundUp(a.value_dim, kPanelWidth);
    k_floats_ = RightPanelFloats(k_most_, a.dim);
    v_floats_ = value_width_ * k_most_;
  }

  bool Run() {
    if (rows_ <= kFewRows) return RunFewRows();
    const int64_t items = a_.batches * a_.kv_heads, bytes = (k_floats_ + v_floats_) * 4;
    const int64_t piece = std::clamp<int64_t>(kPackedBytes / std::max<int64_t>(1, bytes), 1, items);
    float* packed =
        static_cast<float*>(ThreadScratch(ScratchSlot::kShared, static_cast<size_t>(piece * bytes)));
    if (packed == nullptr) return false;
    std::atomic<bool> ok{true};
    const int64_t blocks = (rows_ + kBlockRows - 1) / kBlockRows;
    for (int64_t first = 0; first < items; first += piece) {
      const int64_t count = std::min(piece, items - first);
      const auto at = [&](int64_t item) {
        float* k = packed + item * (k_floats_ + v_floats_);
        return Packed{k, k + k_floats_};
      };
      ParallelFor(count, std::max<int64_t>(1, (64 << 10) / (bytes + 1)), [&](int64_t b, int64_t e) {
        for (int64_t item = b; item < e; ++item)
          if (!Pack(first + item, at(item))) ok.store(false, std::memory_order_relaxed);
      });
      if (!ok) return false;
      const int64_t work = kBlockRows * k_most_ * (a_.dim + a_.value_dim);
      ParallelFor(count * blocks, std::max<int64_t>(1, 500000 / (work + 1)), [&](int64_t b, int64_t e) {
        for (int64_t t = b; t < e; ++t)
          if (!Block(first + t / blocks, t % blocks * kBlockRows, at(t / blocks)))
            ok.store(false, std::memory_order_relaxed);
      });
    }
    return ok.load();
  }

 private:
  bool Pack(int64_t item, const Packed& to) const {
    const int64_t b = item / a_.kv_heads, n = item % a_.kv_heads;
    const SequencePair p = scores_.Pair(b);
    if (a_.rows != nullptr) return PackRows(b, n, p.k_len, to);
    PackRightPanels(to.k, Lines{a_.k.At(b, n, p.k0), a_.k.dtype, a_.k.sequence, a_.k.dim}, p.k_len, a_.dim);
    PackRightPanels(to.v, Lines{a_.v.At(b, n, p.k0), a_.v.dtype, a_.v.dim, a_.v.sequence}, a_.value_dim,
                    p.k_len);
    return true;
  }

  // The same from rows that are made block by block.
  bool PackRows(int64_t b, int64_t n, int64_t k_len, const Packed& to) const {
    float* block = RowBuffer();
    if (block == nullptr) return false;
    const auto lines = [](const float* from, int64_t column, int64_t depth) {
      return Lines{reinterpret_cast<const char*>(from), DType::kFloat, column, depth};
    };
    for (int64_t j = 0; j < k_len; j += kBlockKeys) {
      const int64_t count = std::min(kBlockKeys, k_len - j);
      a_.rows->Keys(b, n, j, count, block);
      PackRightPanels(to.k + j * a_.dim, lines(block, a_.dim, 1), count, a_.dim);
      a_.rows->Values(b, n, j, count, block);
      for (int64_t d = 0; d < a_.value_dim; d += kPanelWidth)
        PackRightPanels(to.v + d * k_len + j * kPanelWidth, lines(block + d, 1, a_.value_dim),
                        std::min<int64_t>(kPanelWidth, a_.value_dim - d), count);
    }
    return true;
  }

  // A block of keys or values as floats.
  float* RowBuffer() const {
    return static_cast<float*>(ThreadScratch(
        ScratchSlot::kRight, static_cast<size_t>(kBlockKeys * std::max(a_.dim, a_.value_dim)) * 4));
  }

  Row RowAt(int64_t kv_head, const SequencePair& p, int64_t row) const {
    return {kv_head * a_.group() + row / p.q_len, row % p.q_len};
  }

  void LoadQuery(float* to, int64_t b, const SequencePair& p, const Row& r) const {
    const char* q = a_.q.At(b, r.head, p.q0 + r.i);
    if (a_.q.dim == 1) return Convert(to, DType::kFloat, q, a_.q.dtype, a_.dim);
    for (int64_t d = 0; d < a_.dim; ++d)
      Convert(to + d, DType::kFloat, q + d * a_.q.dim * SizeOf(a_.q.dtype), a_.q.dtype, 1);
  }

  // What one block of rows works on; all of it in one piece of scratch.
  struct Work {
    float* query;  // [rows][dim]
    float* left;   // packed queries, later packed probabilities
    float* s;      // [rows][kBlockKeys]
    float* sums;   // [rows][value_width]
    float max[kBlockRows], sum[kBlockRows];
    Row rows[kBlockRows];
    int64_t begin[kBlockRows], end[kBlockRows];
    int64_t count, first_key, last_key;
  };

  bool Prepare(Work* w, int64_t b, int64_t kv_head, const SequencePair& p, int64_t row0) const {
    const int64_t left = kBlockRows * (a_.dim + kBlockKeys);
    float* memory = static_cast<float*>(
        ThreadScratch(ScratchSlot::kOuter,
                      static_cast<size_t>(kBlockRows * (a_.dim + kBlockKeys + value_width_) + left) * 4));
    if (memory == nullptr) return false;
    w->query = memory;
    w->s = memory + kBlockRows * a_.dim;
    w->sums = w->s + kBlockRows * kBlockKeys;
    w->left = w->sums + kBlockRows * value_width_;
    w->first_key = p.k_len;
    w->last_key = 0;
    for (int64_t r = 0; r < w->count; ++r) {
      w->rows[r] = RowAt(kv_head, p, row0 + r);
      LoadQuery(w->query + r * a_.dim, b, p, w->rows[r]);
      w->max[r] = Scores::kMasked;
      w->sum[r] = 0;
      scores_.Range(b, p, w->rows[r].i, &w->begin[r], &w->end[r]);
      w->first_key = std::min(w->first_key, w->begin[r]);
      w->last_key = std::max(w->last_key, w->end[r]);
    }
    w->first_key = w->first_key / kPanelWidth * kPanelWidth;
    std::fill_n(w->sums, w->count * value_width_, 0.0f);
    PackLeftPanels(w->left, Lines{reinterpret_cast<const char*>(w->query), DType::kFloat, a_.dim, 1},
                   w->count, a_.dim);
    return true;
  }

  bool Block(int64_t item, int64_t row0, const Packed& packed) const {
    const int64_t b = item / a_.kv_heads, kv_head = item % a_.kv_heads;
    const SequencePair p = scores_.Pair(b);
    Work w;
    w.count = std::min(kBlockRows, a_.group() * p.q_len - row0);
    if (w.count <= 0) return true;
    if (!Prepare(&w, b, kv_head, p, row0)) return false;
    float* probabilities = w.left + kBlockRows * a_.dim;
    for (int64_t j = w.first_key; j < w.last_key; j += kBlockKeys) {
      const int64_t n = std::min(kBlockKeys, w.last_key - j), padded = Scores::Padded(n);
      MultiplyPanels(w.left, a_.dim, w.count, packed.k + j * a_.dim, a_.dim, n, a_.dim, w.s, kBlockKeys,
                     false);
      for (int64_t r = 0; r < w.count; ++r) Softmax(&w, r, b, p, j, n, padded);
      PackLeftPanels(probabilities, Lines{reinterpret_cast<const char*>(w.s), DType::kFloat, kBlockKeys, 1},
                     w.count, n);
      MultiplyPanels(probabilities, n, w.count, packed.v + j * kPanelWidth, p.k_len, a_.value_dim, n, w.sums,
                     value_width_, true);
    }
    for (int64_t r = 0; r < w.count; ++r)
      Finish(b, p, w.rows[r], w.max[r], w.sum[r], w.sums + r * value_width_);
    return true;
  }

  // Turns row r's products into probabilities relative to the running maximum, and rescales what was summed
  // so far.
  void Softmax(Work* w, int64_t r, int64_t b, const SequencePair& p, int64_t j, int64_t n,
               int64_t padded) const {
    float* s = w->s + r * kBlockKeys;
    if (w->begin[r] >= j + n || w->end[r] <= j) return std::fill_n(s, padded, 0.0f), void();
    const Row& row = w->rows[r];
    const float block_max = scores_.Finish(s, b, row.head, p, row.i, j, n, padded);
    const float max = std::max(w->max[r], block_max);
    if (max == Scores::kMasked) {
      for (int64_t i = 0; i < padded; ++i) s[i] = s[i] == Scores::kMasked ? 0.0f : s[i];  // NaN stays
      return;
    }
    if (max > w->max[r] && w->max[r] != Scores::kMasked) {
      const float factor = math::Exp(w->max[r] - max);
      w->sum[r] *= factor;
      float* sums = w->sums + r * value_width_;
      for (int64_t d = 0; d < value_width_; ++d) sums[d] *= factor;
    }
    w->max[r] = max;
    w->sum[r] += Scores::Exponentials(s, padded, max, 1.0f);
    if (a_.drop != nullptr) scores_.Drop(s, row.head, p, row.i, j, n);
  }

  // `sums` is overwritten.
  void Finish(int64_t b, const SequencePair& p, const Row& row, float max, float sum, float* sums) const {
    if (a_.sink != nullptr) {
      const float sink = a_.sink[row.head], top = std::max(max, sink);
      const float factor = max == Scores::kMasked ? 0.0f : math::Exp(max - top);
      sum = sum * factor + math::Exp(sink - top);
      for (int64_t d = 0; d < a_.value_dim; ++d) sums[d] *= factor;
      max = top;
    }
    if (sum != 0)
      for (int64_t d = 0; d < a_.value_dim; ++d) sums[d] /= sum;
    char* out = a_.out.At(b, row.head, p.q0 + row.i);
    if (a_.out.dim == 1) {
      Convert(out, a_.out.dtype, sums, DType::kFloat, a_.value_dim);
    } else {
      const int64_t size = SizeOf(a_.out.dtype);
      for (int64_t d = 0; d < a_.value_dim; ++d)
        Convert(out + d * a_.out.dim * size, a_.out.dtype, sums + d, DType::kFloat, 1);
    }
    for (const auto& [view, value] : {std::pair{&a_.max, max}, std::pair{&a_.sum, sum}})
      if (view->data != nullptr)
        std::fill_n(reinterpret_cast<float*>(view->At(b, row.head, p.q0 + row.i)), view->dim, value);
  }

  bool RunFewRows() const;
  bool FewRows(int64_t item) const;
  // `count` rows of k or v from key j as floats, stride `dim`; in place when they lie so.
  const float* Rows(const HeadView& view, int64_t b, int64_t n, int64_t key, int64_t count, int64_t dim,
                    float* buffer) const {
    const char* from = view.At(b, n, key);
    if (view.dtype == DType::kFloat && view.dim == 1 && view.sequence == dim)
      return reinterpret_cast<const float*>(from);
    for (int64_t j = 0; j < count; ++j, from += view.sequence * SizeOf(view.dtype)) {
      if (view.dim == 1) {
        Convert(buffer + j * dim, DType::kFloat, from, view.dtype, dim);
      } else {
        for (int64_t d = 0; d < dim; ++d)
          Convert(buffer + j * dim + d, DType::kFloat, from + d * view.dim * SizeOf(view.dtype), view.dtype,
                  1);
      }
    }
    return buffer;
  }

  const Attention& a_;
  const Scores scores_;
  int64_t q_most_ = 0, k_most_ = 0, rows_, value_width_, k_floats_, v_floats_;
};

bool Forward::RunFewRows() const {
  const int64_t work = rows_ * k_most_ * (a_.dim + a_.value_dim);
  std::atomic<bool> ok{true};
  ParallelFor(a_.batches * a_.kv_heads, std::max<int64_t>(1, 50000 / (work + 1)),
              [&](int64_t begin, int64_t end) {
                for (int64_t item = begin; item < end; ++item)
                  if (!FewRows(item)) ok.store(false, std::memory_order_relaxed);
              });
  return ok.load();
}

// One key/value head against a handful of queries: one token being generated.
bool Forward::FewRows(int64_t item) const {
  const int64_t b = item / a_.kv_heads, kv_head = item % a_.kv_heads;
  const SequencePair p = scores_.Pair(b);
  Work w;
  w.count = a_.group() * p.q_len;
  if (w.count == 0) return true;
  if (!Prepare(&w, b, kv_head, p, 0)) return false;
  float* buffer = RowBuffer();
  if (buffer == nullptr) return false;
  for (int64_t j = w.first_key; j < w.last_key; j += kBlockKeys) {
    const int64_t n = std::min(kBlockKeys, w.last_key - j), padded = Scores::Padded(n);
    const float* k = buffer;
    if (a_.rows != nullptr)
      a_.rows->Keys(b, kv_head, j, n, buffer);
    else
      k = Rows(a_.k, b, kv_head, p.k0 + j, n, a_.dim, buffer);
    for (int64_t t = 0; t < n; ++t)
      for (int64_t r = 0; r < w.count; ++r)
        w.s[r * kBlockKeys + t] = DotProduct(w.query + r * a_.dim, k + t * a_.dim, a_.dim);
    for (int64_t r = 0; r < w.count; ++r) Softmax(&w, r, b, p, j, n, padded);
    const float* v = buffer;
    if (a_.rows != nullptr)
      a_.rows->Values(b, kv_head, j, n, buffer);
    else
      v = Rows(a_.v, b, kv_head, p.k0 + j, n, a_.value_dim, buffer);
    for (int64_t t = 0; t < n; ++t) {
      for (int64_t r = 0; r < w.count; ++r) {
        const float x = w.s[r * kBlockKeys + t];
        float* sums = w.sums + r * value_width_;
        const float* value = v + t * a_.value_dim;
        for (int64_t d = 0; d < a_.value_dim; ++d) sums[d] = math::detail::Fma(x, value[d], sums[d]);
      }
    }
  }
  for (int64_t r = 0; r < w.count; ++r)
    Finish(b, p, w.rows[r], w.max[r], w.sum[r], w.sums + r * value_width_);
  return true;
}

}  // namespace

Status AttentionForward(const Attention& a) {
  return Forward(a).Run()
             ? Status()
             : Error(kBadAlloc, "no memory for the packed keys and values of an attention over {} keys",
                     a.k_len);
}

}  // namespace anycann
