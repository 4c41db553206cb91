#include "ops/attention/sparse_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "base/parallel.h"
#include "ops/matmul/dot.h"

namespace anycann {

Status ReadRowLayout(Call& call, const char* text, const char* name, bool pages, RowLayout* layout) {
  const std::string_view s = text == nullptr || *text == 0 ? "BSND" : text;
  if (s == "BSND" || s == "BSH")
    *layout = RowLayout::kBatches;
  else if (s == "TND")
    *layout = RowLayout::kPacked;
  else if (s == "PA_BSND" && pages)
    *layout = RowLayout::kPages;
  else
    return call.Invalid("{} is {}, expected BSND{}", name, s, pages ? ", TND or PA_BSND" : " or TND");
  return Status();
}

Status SequenceRows::Read(const char* op, const char* name, std::span<const int64_t> lengths) {
  if (lengths.empty() && layout != RowLayout::kBatches)
    return Error(kParamInvalid, "{}: {} is absent or empty, but this layout needs it", op, name);
  if (!lengths.empty()) {
    if (layout == RowLayout::kBatches && static_cast<int64_t>(lengths.size()) != batches)
      return Error(kParamInvalid, "{}: {} has {} values, expected one for each of {} batches", op, name,
                   lengths.size(), batches);
    batches = static_cast<int64_t>(lengths.size());
  }
  const int64_t most = layout == RowLayout::kBatches  ? length
                       : layout == RowLayout::kPacked ? rows
                                                      : columns * length;
  int64_t previous = 0;
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t n = lengths.empty() ? length : lengths[b];
    const bool packed = layout == RowLayout::kPacked;
    if (n < (packed ? previous : 0) || n > most)
      return Error(kParamInvalid, "{}: {} has {} for batch {}, expected {} to {}", op, name, n, b,
                   packed ? previous : 0, most);
    begins.push_back(packed ? previous : b * length);
    counts.push_back(packed ? n - previous : n);
    previous = n;
  }
  return Status();
}

std::vector<QueryToken> TokensOf(const SequenceRows& queries) {
  std::vector<QueryToken> tokens;
  for (int64_t b = 0; b < queries.batches; ++b)
    for (int64_t i = 0; i < queries.counts[b]; ++i)
      tokens.push_back({queries.begins[b] + i, b, i, queries.counts[b]});
  return tokens;
}

namespace {

// A head's row with its rotated part behind.
void LoadRow(const DenseReader<float>& plain, const DenseReader<float>& rope, int64_t row, int64_t dim,
             int64_t rope_dim, float* to) {
  const float* from = plain.Read(row * dim, dim, to);
  if (from != to) std::copy_n(from, dim, to);
  if (rope_dim == 0) return;
  from = rope.Read(row * rope_dim, rope_dim, to + dim);
  if (from != to + dim) std::copy_n(from, rope_dim, to + dim);
}

void AddScaled(float* __restrict to, const float* __restrict from, float by, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i] * by;
}

// A thread's memory for one token and key head.
struct Workspace {
  std::vector<float> queries, row, weights, out, max, sum;
  std::vector<int32_t> positions;
  std::vector<int64_t> rows;

  explicit Workspace(const SparseAttention& a)
      : queries(static_cast<size_t>(a.group() * a.width())),
        row(static_cast<size_t>(std::max(a.width(), a.value_dim))),
        out(static_cast<size_t>(a.group() * a.value_dim)),
        max(static_cast<size_t>(a.group())),
        sum(static_cast<size_t>(a.group())) {}

  // Positions, their rows, the queries, and in `weights` [group, positions] the scores.
  void Score(const SparseAttention& a, const QueryToken& t, int64_t kv_head) {
    positions.clear();
    a.select(t, kv_head, &positions);
    rows.clear();
    size_t kept = 0;
    for (const int32_t p : positions) {
      const int64_t row = p < 0 || p >= a.keys.counts[t.batch] ? -1 : a.keys.RowOf(t.batch, p);
      if (row < 0) continue;
      positions[kept++] = p;
      rows.push_back(row);
    }
    positions.resize(kept);
    const int64_t width = a.width(), n = static_cast<int64_t>(kept);
    for (int64_t g = 0; g < a.group(); ++g)
      LoadRow(a.query, a.query_rope, t.row * a.heads + kv_head * a.group() + g, a.dim, a.rope,
              queries.data() + g * width);
    weights.resize(static_cast<size_t>(a.group() * n));
    for (int64_t j = 0; j < n; ++j) {
      const int64_t at = rows[j] * a.kv_heads + kv_head;
      if (a.load)
        a.load(at, row.data());
      else
        LoadRow(a.key, a.key_rope, at, a.dim, a.rope, row.data());
      for (int64_t g = 0; g < a.group(); ++g)
        weights[g * n + j] = DotProduct(queries.data() + g * width, row.data(), width) * a.scale;
    }
  }

  const float* Value(const SparseAttention& a, int64_t at) {
    if (!a.load) return a.value.Read(at * a.value_dim, a.value_dim, row.data());
    a.load(at, row.data());
    return row.data();
  }
};

}  // namespace

bool RunSparseAttention(const SparseAttention& a, const std::function<void(const SparseResult&)>& store) {
  const int64_t items = static_cast<int64_t>(a.tokens.size()) * a.kv_heads;
  std::atomic<bool> failed{false};
  ParallelFor(items, 1, [&](int64_t begin, int64_t end) {
    try {
      Workspace w(a);
      for (int64_t i = begin; i < end; ++i) {
        const QueryToken& t = a.tokens[i / a.kv_heads];
        const int64_t kv_head = i % a.kv_heads;
        w.Score(a, t, kv_head);
        const int64_t n = static_cast<int64_t>(w.positions.size());
        for (int64_t g = 0; g < a.group(); ++g) {
          float* p = w.weights.data() + g * n;
          float top = -std::numeric_limits<float>::infinity();
          for (int64_t j = 0; j < n; ++j) top = std::max(top, p[j]);
          const float* sink = a.sinks != nullptr ? a.sinks + kv_head * a.group() + g : nullptr;
          if (sink != nullptr) top = std::max(top, *sink);
          double sum = sink != nullptr ? std::exp(*sink - top) : 0;
          for (int64_t j = 0; j < n; ++j) sum += p[j] = std::exp(p[j] - top);
          for (int64_t j = 0; j < n; ++j) p[j] = static_cast<float>(p[j] / sum);
          w.max[g] = top;
          w.sum[g] = static_cast<float>(sum);
        }
        std::fill(w.out.begin(), w.out.end(), 0.0f);
        for (int64_t j = 0; j < n; ++j) {
          const float* v = w.Value(a, w.rows[j] * a.kv_heads + kv_head);
          for (int64_t g = 0; g < a.group(); ++g)
            AddScaled(w.out.data() + g * a.value_dim, v, w.weights[g * n + j], a.value_dim);
        }
        store({t, kv_head, w.positions, w.out.data(), w.max.data(), w.sum.data(), w.weights.data()});
      }
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  });
  return !failed;
}

bool RunSparseGradients(const SparseAttention& a, const SparseGradients& g) {
  std::fill_n(g.dq, a.queries.rows * a.heads * a.dim, 0.0f);
  std::fill_n(g.dk, a.keys.rows * a.kv_heads * a.dim, 0.0f);
  std::fill_n(g.dv, a.keys.rows * a.kv_heads * a.value_dim, 0.0f);
  if (a.rope > 0) {
    std::fill_n(g.dq_rope, a.queries.rows * a.heads * a.rope, 0.0f);
    std::fill_n(g.dk_rope, a.keys.rows * a.kv_heads * a.rope, 0.0f);
  }
  // A batch and key head own what they add to.
  std::atomic<bool> failed{false};
  ParallelFor(a.queries.batches * a.kv_heads, 1, [&](int64_t begin, int64_t end) {
    try {
      Workspace w(a);
      std::vector<float> douts(static_cast<size_t>(a.group() * a.value_dim)),
          deltas(static_cast<size_t>(a.group()));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t batch = i / a.kv_heads, kv_head = i % a.kv_heads;
        for (const QueryToken& t : a.tokens) {
          if (t.batch != batch) continue;
          w.Score(a, t, kv_head);
          const int64_t n = static_cast<int64_t>(w.positions.size()), first = kv_head * a.group();
          for (int64_t h = 0; h < a.group(); ++h) {
            const int64_t at = (t.row * a.heads + first + h) * a.value_dim;
            float* dout = douts.data() + h * a.value_dim;
            const float* from = g.dout.Read(at, a.value_dim, dout);
            if (from != dout) std::copy_n(from, a.value_dim, dout);
            deltas[h] = DotProduct(g.out.Read(at, a.value_dim, w.row.data()), dout, a.value_dim);
            const float top = g.max(t, first + h), sum = g.sum(t, first + h);
            for (int64_t j = 0; j < n; ++j)
              w.weights[h * n + j] = sum > 0 ? std::exp(w.weights[h * n + j] - top) / sum : 0;
          }
          for (int64_t j = 0; j < n; ++j) {
            const int64_t row = w.rows[j] * a.kv_heads + kv_head;
            const float* v = a.value.Read(row * a.value_dim, a.value_dim, w.row.data());
            for (int64_t h = 0; h < a.group(); ++h) {  // the weight becomes the score's gradient
              float& p = w.weights[h * n + j];
              const float* dout = douts.data() + h * a.value_dim;
              AddScaled(g.dv + row * a.value_dim, dout, p, a.value_dim);
              p *= (DotProduct(dout, v, a.value_dim) - deltas[h]) * a.scale;
            }
            LoadRow(a.key, a.key_rope, row, a.dim, a.rope, w.row.data());
            for (int64_t h = 0; h < a.group(); ++h) {
              const float d = w.weights[h * n + j];
              const float* q = w.queries.data() + h * a.width();
              const int64_t query = t.row * a.heads + first + h;
              AddScaled(g.dq + query * a.dim, w.row.data(), d, a.dim);
              AddScaled(g.dk + row * a.dim, q, d, a.dim);
              if (a.rope == 0) continue;
              AddScaled(g.dq_rope + query * a.rope, w.row.data() + a.dim, d, a.rope);
              AddScaled(g.dk_rope + row * a.rope, q + a.dim, d, a.rope);
            }
          }
        }
      }
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  });
  return !failed;
}

}  // namespace anycann
