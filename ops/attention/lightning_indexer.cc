// The lightning indexer: which keys each query should see. A key's score is the sum over the heads of
// max(0, q k) * weight; the keys with the highest scores are named, of equals the first. And its gradient.
#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/attention/sparse_attention.h"
#include "ops/matmul/dot.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

// query [.., N, D], key [.., 1, D], weights [.., N]; with scales: of each query's heads, and of each key.
struct Indexer {
  int64_t heads = 0, dim = 0, count = 0;  // count: keys that are named
  bool causal = false;
  SequenceRows queries, keys;
  int query = -1, key = -1, weights = -1, q_lengths = -1, k_lengths = -1, table = -1, query_scale = -1,
      key_scale = -1, index = -1, values = -1;
  int dy = -1, dq = -1, dk = -1, dweights = -1;
};

// Sequences of one run, their memory as floats.
struct IndexerRun {
  Values<float> query, weights, query_scale;
  DenseInput key;
  DenseReader<float> key_reader;
  Values<float> key_scale;
  Values<int32_t> table;
  SequenceRows queries, keys;
  std::vector<QueryToken> tokens;

  IndexerRun(const Run& t, const Indexer& x)
      : query(t[x.query]),
        weights(t[x.weights]),
        query_scale(t, x.query_scale),
        key(t[x.key]),
        key_reader(key.view()),
        key_scale(t, x.key_scale),
        table(t, x.table),
        queries(x.queries),
        keys(x.keys) {}
  bool ok() const {
    return query.ok() && weights.ok() && query_scale.ok() && key.ok() && key_scale.ok() && table.ok();
  }
  Status Read(const Run& t, const Indexer& x) {
    if (!ok()) return ScratchFailed(t.plan().name);
    keys.table = table.get();
    const auto read = [&](int i, SequenceRows* rows, const char* name) -> Status {
      if (i < 0) return rows->Read(t.plan().name, name, {});
      const Values<int64_t> v(t[i]);
      if (!v.ok()) return ScratchFailed(t.plan().name);
      return rows->Read(t.plan().name, name, {v.get(), static_cast<size_t>(t[i].numel())});
    };
    RETURN_IF_ERROR(read(x.q_lengths, &queries, "actualSeqLengthsQuery"));
    RETURN_IF_ERROR(read(x.k_lengths, &keys, "actualSeqLengthsKey"));
    if (queries.batches != keys.batches)
      return Error(kParamInvalid, "{}: actualSeqLengthsQuery names {} sequences, actualSeqLengthsKey {}",
                   t.plan().name, queries.batches, keys.batches);
    tokens = TokensOf(queries);
    return Status();
  }
  // How many keys a token may see.
  int64_t Visible(const Indexer& x, const QueryToken& t) const {
    const int64_t n = keys.counts[t.batch];
    return x.causal ? std::clamp<int64_t>(n - t.count + t.position + 1, 0, n) : n;
  }
  const float* Key(const Indexer& x, int64_t row, float* buffer) const {
    return key_reader.Read(row * x.dim, x.dim, buffer);
  }
};

Status RunIndexer(const Run& t, const Indexer& x) {
  IndexerRun r(t, x);
  RETURN_IF_ERROR(r.Read(t, x));
  const int64_t rows = x.queries.rows;
  const Scratch<int32_t> index(rows * x.count);
  const Scratch<float> values(x.values >= 0 ? rows * x.count : 0);
  if (!index.ok() || !values.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(index.get(), rows * x.count, -1);
  if (x.values >= 0) std::fill_n(values.get(), rows * x.count, -std::numeric_limits<float>::infinity());
  ParallelFor(static_cast<int64_t>(r.tokens.size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores, weights(static_cast<size_t>(x.heads)), buffer(static_cast<size_t>(x.dim));
    std::vector<int32_t> order;
    for (int64_t i = begin; i < end; ++i) {
      const QueryToken& token = r.tokens[i];
      const int64_t n = r.Visible(x, token);
      for (int64_t h = 0; h < x.heads; ++h) {
        const int64_t at = token.row * x.heads + h;
        weights[h] = r.weights[at] * (r.query_scale.get() != nullptr ? r.query_scale[at] : 1.0f);
      }
      scores.assign(static_cast<size_t>(n), -std::numeric_limits<float>::infinity());
      for (int64_t p = 0; p < n; ++p) {
        const int64_t row = r.keys.RowOf(token.batch, p);
        if (row < 0) continue;
        const float* k = r.Key(x, row, buffer.data());
        float sum = 0;
        for (int64_t h = 0; h < x.heads; ++h)
          sum += std::max(0.0f, DotProduct(r.query.get() + (token.row * x.heads + h) * x.dim, k, x.dim)) *
                 weights[h];
        scores[p] = sum * (r.key_scale.get() != nullptr ? r.key_scale[row] : 1.0f);
      }
      order.resize(static_cast<size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      const int64_t kept = std::min(n, x.count);
      std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
        return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
      });
      for (int64_t j = 0; j < kept; ++j) {
        index[token.row * x.count + j] = order[j];
        if (x.values >= 0) values[token.row * x.count + j] = scores[order[j]];
      }
    }
  });
  StoreValues(t[x.index], index.get());
  if (x.values >= 0) StoreValues(t[x.values], values.get());
  return Status();
}

// From the gradients of the named keys' scores.
Status RunIndexerGradient(const Run& t, const Indexer& x) {
  IndexerRun r(t, x);
  RETURN_IF_ERROR(r.Read(t, x));
  const Values<float> dy(t[x.dy]);
  const Values<int32_t> index(t[x.index]);
  const Scratch<float> dq(t[x.dq].numel()), dk(t[x.dk].numel()), dw(t[x.dweights].numel());
  if (!dy.ok() || !index.ok() || !dq.ok() || !dk.ok() || !dw.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(dq.get(), t[x.dq].numel(), 0.0f);
  std::fill_n(dk.get(), t[x.dk].numel(), 0.0f);
  std::fill_n(dw.get(), t[x.dweights].numel(), 0.0f);
  // A batch owns the keys that it adds to.
  ParallelFor(r.queries.batches, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> buffer(static_cast<size_t>(x.dim));
    for (const QueryToken& token : r.tokens) {
      if (token.batch < begin || token.batch >= end) continue;
      for (int64_t j = 0; j < x.count; ++j) {
        const int32_t p = index[token.row * x.count + j];
        const int64_t row = p < 0 || p >= r.keys.counts[token.batch] ? -1 : r.keys.RowOf(token.batch, p);
        if (row < 0) continue;
        const float* k = r.Key(x, row, buffer.data());
        const float g = dy[token.row * x.count + j];
        for (int64_t h = 0; h < x.heads; ++h) {
          const int64_t at = token.row * x.heads + h;
          const float* q = r.query.get() + at * x.dim;
          const float score = DotProduct(q, k, x.dim);
          if (!(score > 0)) continue;
          dw[at] += g * score;
          const float by = g * r.weights[at];
          for (int64_t d = 0; d < x.dim; ++d) {
            dq[at * x.dim + d] += by * k[d];
            dk[row * x.dim + d] += by * q[d];
          }
        }
      }
    }
  });
  StoreValues(t[x.dq], dq.get());
  StoreValues(t[x.dk], dk.get());
  StoreValues(t[x.dweights], dw.get());
  return Status();
}

struct IndexerTensors {
  const aclTensor *query, *key, *weights;
  const aclTensor *q_lengths = nullptr, *k_lengths = nullptr, *table = nullptr, *query_scale = nullptr,
                  *key_scale = nullptr;
  const char *q_layout = nullptr, *k_layout = nullptr;
  int64_t count = 0, sparse_mode = 0;
};

Status RequireType(Call& call, const aclTensor* t, const char* name, bool integers) {
  if (integers ? IsInteger(t->view.dtype) : IsFloating(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected {}", name, Name(t->view.dtype),
                      integers ? "integers" : "a floating type");
}

// `rows` numbers for each of `each`.
Status RequireNumbers(Call& call, const aclTensor* t, const char* name, int64_t rows, int64_t each) {
  if (t->view.numel() != rows * each)
    return call.Invalid("{} has shape {}, expected {} rows of {}", name, ShapeString(t->view), rows, each);
  return RequireType(call, t, name, false);
}

Status Prepare(Call& call, const IndexerTensors& in, Operands* o, Indexer* x) {
  RETURN_IF_ERROR(ReadRowLayout(call, in.q_layout, "layoutQuery", false, &x->queries.layout));
  RETURN_IF_ERROR(ReadRowLayout(call, in.k_layout, "layoutKey", true, &x->keys.layout));
  const auto rows = [&](const aclTensor* t, const char* name, SequenceRows* r) -> Status {
    const int rank = r->layout == RowLayout::kPacked ? 3 : 4;
    RETURN_IF_ERROR(call.RequireRank(t, name, rank, rank));
    const TensorView& v = t->view;
    r->rows = v.dims[0] * (rank == 4 ? v.dims[1] : 1);
    if (rank == 4) r->length = v.dims[1], r->batches = v.dims[0];
    return v.empty() ? call.Invalid("{} has shape {}: nothing in it", name, ShapeString(v)) : Status();
  };
  RETURN_IF_ERROR(rows(in.query, "query", &x->queries));
  RETURN_IF_ERROR(rows(in.key, "key", &x->keys));
  const TensorView &q = in.query->view, &k = in.key->view;
  x->heads = q.dims[q.rank - 2], x->dim = q.dims[q.rank - 1];
  if (k.dims[k.rank - 2] != 1 || k.dims[k.rank - 1] != x->dim)
    return call.Invalid("key has shape {}, expected one head of {}", ShapeString(k), x->dim);
  const bool levels = in.query_scale != nullptr;
  for (const auto& [t, name] : {std::pair{in.query, "query"}, std::pair{in.key, "key"}})
    if (levels ? t->view.dtype != DType::kInt8 : !IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected {}", name, Name(t->view.dtype),
                          levels ? "int8" : "a floating type");
  RETURN_IF_ERROR(RequireNumbers(call, in.weights, "weights", x->queries.rows, x->heads));
  if (levels) {
    RETURN_IF_ERROR(RequireNumbers(call, in.query_scale, "queryDequantScale", x->queries.rows, x->heads));
    RETURN_IF_ERROR(RequireNumbers(call, in.key_scale, "keyDequantScale", x->keys.rows, 1));
  }
  const aclTensor *table = Given(in.table), *q_lengths = Given(in.q_lengths),
                  *k_lengths = Given(in.k_lengths);
  if (x->keys.layout == RowLayout::kPages) {
    if (table == nullptr) return call.Invalid("blockTable is absent, but layoutKey is PA_BSND");
    RETURN_IF_ERROR(call.RequireRank(table, "blockTable", 2, 2));
    x->keys.columns = table->view.dims[1];
  }
  for (const auto& [t, name] : {std::pair{table, "blockTable"}, std::pair{q_lengths, "actualSeqLengthsQuery"},
                                std::pair{k_lengths, "actualSeqLengthsKey"}})
    if (t != nullptr) RETURN_IF_ERROR(RequireType(call, t, name, true));
  if (in.sparse_mode != 0 && in.sparse_mode != 3)
    return call.Invalid("sparseMode is {}, expected 0 (all) or 3 (up to the query's own position)",
                        in.sparse_mode);
  x->causal = in.sparse_mode == 3;
  x->count = in.count;
  x->query = o->Input(in.query), x->key = o->Input(in.key), x->weights = o->Input(in.weights);
  x->q_lengths = o->Input(q_lengths), x->k_lengths = o->Input(k_lengths), x->table = o->Input(table);
  x->query_scale = o->Input(in.query_scale), x->key_scale = o->Input(levels ? in.key_scale : nullptr);
  return Status();
}

Cost CostOf(const Indexer& x) {
  return {2.0 * static_cast<double>(x.queries.rows * x.heads) * static_cast<double>(x.keys.rows * x.dim), 0};
}

Status LaunchIndexer(Call& call, const IndexerTensors& in, const aclTensor* index, const aclTensor* values) {
  Indexer x;
  Operands o;
  RETURN_IF_ERROR(Prepare(call, in, &o, &x));
  if (x.count < 1) return call.Invalid("sparseCount is {}, expected 1 or more", x.count);
  for (const auto& [t, name] : {std::pair{index, "sparseIndices"}, std::pair{values, "sparseValues"}})
    if (t != nullptr && (t->view.empty() || t->view.numel() / x.queries.rows != x.count ||
                         t->view.numel() % x.queries.rows != 0))
      return call.Invalid("{} has shape {}, expected {} for each of {} queries", name, ShapeString(t->view),
                          x.count, x.queries.rows);
  RETURN_IF_ERROR(RequireType(call, index, "sparseIndices", true));
  if (values != nullptr) RETURN_IF_ERROR(RequireType(call, values, "sparseValues", false));
  x.index = o.Output(index), x.values = o.Output(values);
  return call.Launch(o.list(), CostOf(x), [x](const Run& t) { return RunIndexer(t, x); });
}

}  // namespace

Status aclnn::LightningIndexer(Call& call, const aclTensor* query, const aclTensor* key,
                               const aclTensor* weights, const aclTensor* actualSeqLengthsQueryOptional,
                               const aclTensor* actualSeqLengthsKeyOptional,
                               const aclTensor* blockTableOptional, char* layoutQueryOptional,
                               char* layoutKeyOptional, int64_t sparseCount, int64_t sparseMode, int64_t,
                               int64_t, bool returnValues, const aclTensor* sparseIndicesOut,
                               const aclTensor* sparseValuesOut) {
  return LaunchIndexer(call,
                       {.query = query,
                        .key = key,
                        .weights = weights,
                        .q_lengths = actualSeqLengthsQueryOptional,
                        .k_lengths = actualSeqLengthsKeyOptional,
                        .table = blockTableOptional,
                        .q_layout = layoutQueryOptional,
                        .k_layout = layoutKeyOptional,
                        .count = sparseCount,
                        .sparse_mode = sparseMode},
                       sparseIndicesOut, returnValues ? sparseValuesOut : nullptr);
}

Status aclnn::LightningIndexerVllm(Call& call, const aclTensor* query, const aclTensor* key,
                                   const aclTensor* weights, const aclTensor* actualSeqLengthsQueryOptional,
                                   const aclTensor* actualSeqLengthsKeyOptional,
                                   const aclTensor* blockTableOptional, const char* layoutQueryOptional,
                                   const char* layoutKeyOptional, int64_t sparseCount, int64_t sparseMode,
                                   const aclTensor* sparseIndicesOut) {
  return LightningIndexer(call, query, key, weights, actualSeqLengthsQueryOptional,
                          actualSeqLengthsKeyOptional, blockTableOptional,
                          const_cast<char*>(layoutQueryOptional), const_cast<char*>(layoutKeyOptional),
                          sparseCount, sparseMode, 0, 0, false, sparseIndicesOut, nullptr);
}

Status aclnn::QuantLightningIndexer(Call& call, const aclTensor* query, const aclTensor* key,
                                    const aclTensor* weights, const aclTensor* queryDequantScale,
                                    const aclTensor* keyDequantScale,
                                    const aclTensor* actualSeqLengthsQueryOptional,
                                    const aclTensor* actualSeqLengthsKeyOptional,
                                    const aclTensor* blockTableOptional, int64_t queryQuantMode,
                                    int64_t keyQuantMode, char* layoutQueryOptional, char* layoutKeyOptional,
                                    int64_t sparseCount, int64_t sparseMode, int64_t, int64_t,
                                    const aclTensor* out) {
  if (queryQuantMode != 0 || keyQuantMode != 0)
    return call.Invalid("queryQuantMode is {} and keyQuantMode {}, expected 0 (a scale for each head's row)",
                        queryQuantMode, keyQuantMode);
  return LaunchIndexer(call,
                       {.query = query,
                        .key = key,
                        .weights = weights,
                        .q_lengths = actualSeqLengthsQueryOptional,
                        .k_lengths = actualSeqLengthsKeyOptional,
                        .table = blockTableOptional,
                        .query_scale = queryDequantScale,
                        .key_scale = keyDequantScale,
                        .q_layout = layoutQueryOptional,
                        .k_layout = layoutKeyOptional,
                        .count = sparseCount,
                        .sparse_mode = sparseMode},
                       out, nullptr);
}

Status aclnn::LightningIndexerQuant(Call& call, const aclTensor* query, const aclTensor* key,
                                    const aclTensor* weights, const aclTensor* queryDequantScale,
                                    const aclTensor* keyDequantScale,
                                    const aclTensor* actualSeqLengthsQueryOptional,
                                    const aclTensor* actualSeqLengthsKeyOptional,
                                    const aclTensor* blockTableOptional, int64_t queryQuantMode,
                                    int64_t keyQuantMode, const char* layoutQueryOptional,
                                    const char* layoutKeyOptional, int64_t sparseCount, int64_t sparseMode,
                                    const aclTensor* sparseIndicesOut) {
  return QuantLightningIndexer(call, query, key, weights, queryDequantScale, keyDequantScale,
                               actualSeqLengthsQueryOptional, actualSeqLengthsKeyOptional, blockTableOptional,
                               queryQuantMode, keyQuantMode, const_cast<char*>(layoutQueryOptional),
                               const_cast<char*>(layoutKeyOptional), sparseCount, sparseMode, 0, 0,
                               sparseIndicesOut);
}

Status aclnn::LightningIndexerGrad(Call& call, const aclTensor* query, const aclTensor* key,
                                   const aclTensor* dy, const aclTensor* sparseIndices,
                                   const aclTensor* weights, const aclTensor* actualSeqQLenOptional,
                                   const aclTensor* actualSeqKvLenOptional, int64_t headNum,
                                   char* inputLayout, int64_t sparseMode, int64_t, int64_t, bool,
                                   const aclTensor* dqOut, const aclTensor* dkOut,
                                   const aclTensor* dweightsOut) {
  Indexer x;
  Operands o;
  RETURN_IF_ERROR(Prepare(call,
                          {.query = query,
                           .key = key,
                           .weights = weights,
                           .q_lengths = actualSeqQLenOptional,
                           .k_lengths = actualSeqKvLenOptional,
                           .q_layout = inputLayout,
                           .k_layout = inputLayout,
                           .sparse_mode = sparseMode},
                          &o, &x));
  if (headNum != 0 && headNum != x.heads)  // op-plugin passes 0
    return call.Invalid("headNum is {}, query {} has {} heads", headNum, ShapeString(query->view), x.heads);
  if (x.keys.layout == RowLayout::kPages)
    return call.Invalid("inputLayout is {}, expected BSND or TND", inputLayout);
  x.count = sparseIndices->view.numel() / x.queries.rows;
  if (x.count < 1 || sparseIndices->view.numel() % x.queries.rows != 0)
    return call.Invalid("sparseIndices has shape {}, expected as many keys for each of {} queries",
                        ShapeString(sparseIndices->view), x.queries.rows);
  RETURN_IF_ERROR(RequireType(call, sparseIndices, "sparseIndices", true));
  RETURN_IF_ERROR(RequireNumbers(call, dy, "dy", x.queries.rows, x.count));
  RETURN_IF_ERROR(RequireNumbers(call, dqOut, "dq", x.queries.rows, x.heads * x.dim));
  RETURN_IF_ERROR(RequireNumbers(call, dkOut, "dk", x.keys.rows, x.dim));
  RETURN_IF_ERROR(RequireNumbers(call, dweightsOut, "dweights", x.queries.rows, x.heads));
  x.index = o.Input(sparseIndices), x.dy = o.Input(dy);
  x.dq = o.Output(dqOut), x.dk = o.Output(dkOut), x.dweights = o.Output(dweightsOut);
  return call.Launch(o.list(), CostOf(x), [x](const Run& t) { return RunIndexerGradient(t, x); });
}

}  // namespace anycann
