// Training the lightning indexer: it is to choose keys as the attention weighs them. With
//   P of a query and key: the attention's softmax, averaged over the heads,
//   S: softmax of the indexer's score, sum over its heads of max(0, q k) * weight,
// the loss is the sum over queries and keys of P * (log P - log S), both at least 1e-8 within the logarithms,
// and the gradient of a score is S - P. Over all keys up to a query's position (dense), whose statistics of
// the second softmax are an operator of their own, or over those that each query names (sparse). Definition:
// op-plugin's own test of npu_dense_lightning_indexer_grad_kl_loss, torch_npu's documentation.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/attention/sparse_attention.h"
#include "ops/matmul/dot.h"
#include "ops/norm/operands.h"
#include "ops/quant/rounded.h"
#include "ops/reduce/exp_sum.h"

namespace anycann {
namespace {

constexpr float kLeast = 1e-8f;  // of a probability within a logarithm
constexpr int64_t kParts = 16;   // sums of the keys' gradients, however many threads there are

// The indexer's side: query [.., heads, dim], key [.., 1, dim], weights [.., heads].
struct IndexerSide {
  int64_t heads = 0, dim = 0;
  bool causal = false;
  SequenceRows queries, keys;
  std::vector<QueryToken> tokens;
  int query = -1, key = -1, weights = -1;

  int64_t Visible(const QueryToken& t) const {
    const int64_t n = keys.counts[t.batch];
    return causal ? std::clamp<int64_t>(n - t.count + t.position + 1, 0, n) : n;
  }
};

struct LossPlan {
  IndexerSide indexer;
  int64_t heads = 0, kv_heads = 0, dim = 0, rope = 0, count = 0;  // count: keys that a query names; 0: all
  float scale = 1;
  DType type = DType::kFloat;  // of queryIndex: scores' gradients are rounded to it, times the weights
  int q = -1, k = -1, q_rope = -1, k_rope = -1, max = -1, sum = -1, max_index = -1, sum_index = -1,
      named = -1;
  int dq = -1, dk = -1, dweights = -1, loss = -1;

  // Where the attention's statistics of a head are: [B,N2,S,G], packed [N2,T,G].
  int64_t Statistic(const QueryToken& t, int64_t head) const {
    const int64_t group = heads / kv_heads, kv = head / group, of = head % group;
    if (indexer.queries.layout == RowLayout::kPacked) return (kv * indexer.queries.rows + t.row) * group + of;
    const int64_t length = indexer.queries.length, batch = t.row / length;
    return ((batch * kv_heads + kv) * length + t.row % length) * group + of;
  }
};

// The indexer's products of a token with a row of keys, cut at 0, to relu[head * stride]; returns its score.
float Score(const IndexerSide& x, const float* query, const float* weights, const float* key, float* relu,
            int64_t stride) {
  float score = 0;
  for (int64_t h = 0; h < x.heads; ++h) {
    const float product = std::max(0.0f, DotProduct(query + h * x.dim, key, x.dim));
    relu[h * stride] = product;
    score += product * weights[h];
  }
  return score;
}

Status RunStatistics(const Run& t, const IndexerSide& x, int max, int sum) {
  const Values<float> query(t[x.query]), key(t[x.key]), weights(t[x.weights]);
  const int64_t rows = x.queries.rows;
  const Scratch<float> top(rows), total(rows);
  for (const Values<float>* v : {&query, &key, &weights})
    if (!v->ok()) return ScratchFailed(t.plan().name);
  if (!top.ok() || !total.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(top.get(), rows, -std::numeric_limits<float>::infinity());
  std::fill_n(total.get(), rows, 0.0f);
  ParallelFor(static_cast<int64_t>(x.tokens.size()), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores, relu(static_cast<size_t>(x.heads));
    for (int64_t i = begin; i < end; ++i) {
      const QueryToken& token = x.tokens[i];
      const int64_t n = x.Visible(token), at = token.row * x.heads;
      if (n == 0) continue;
      scores.resize(static_cast<size_t>(n));
      for (int64_t p = 0; p < n; ++p)
        scores[p] = Score(x, query.get() + at * x.dim, weights.get() + at,
                          key.get() + x.keys.RowOf(token.batch, p) * x.dim, relu.data(), 1);
      top[token.row] = *std::max_element(scores.begin(), scores.end());
      total[token.row] = static_cast<float>(SumOfExp(scores.data(), n, top[token.row]));
    }
  });
  StoreValues(t[max], top.get());
  StoreValues(t[sum], total.get());
  return Status();
}

struct LossRun {
  Values<float> q, k, q_rope, k_rope, max, sum, max_index, sum_index, query, key, weights;
  Values<int32_t> named;

  LossRun(const Run& t, const LossPlan& p)
      : q(t[p.q]),
        k(t[p.k]),
        q_rope(t, p.q_rope),
        k_rope(t, p.k_rope),
        max(t[p.max]),
        sum(t[p.sum]),
        max_index(t, p.max_index),
        sum_index(t, p.sum_index),
        query(t[p.indexer.query]),
        key(t[p.indexer.key]),
        weights(t[p.indexer.weights]),
        named(t, p.named) {}
  bool ok() const {
    for (const Values<float>* v :
         {&q, &k, &q_rope, &k_rope, &max, &sum, &max_index, &sum_index, &query, &key, &weights})
      if (!v->ok()) return false;
    return named.ok();
  }
  // The rows of keys that count for a token.
  void Keys(const LossPlan& p, const QueryToken& t, std::vector<int64_t>* rows) const {
    rows->clear();
    const int64_t n = p.indexer.Visible(t);
    for (int64_t j = 0; j < (p.named >= 0 ? p.count : n); ++j) {
      const int64_t position = p.named >= 0 ? named[t.row * p.count + j] : j;
      if (position >= 0 && position < n) rows->push_back(p.indexer.keys.RowOf(t.batch, position));
    }
  }
  // to[j]: the attention's weight of a token's key, averaged over the heads.
  void Attention(const LossPlan& p, const QueryToken& t, const std::vector<int64_t>& rows, float* to) const {
    std::fill_n(to, rows.size(), 0.0f);
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t at = t.row * p.heads + h, kv = h / (p.heads / p.kv_heads), s = p.Statistic(t, h);
      const float top = max[s], share = 1 / (sum[s] * static_cast<float>(p.heads));
      for (size_t j = 0; j < rows.size(); ++j) {
        const int64_t row = rows[j] * p.kv_heads + kv;
        float product = DotProduct(q.get() + at * p.dim, k.get() + row * p.dim, p.dim);
        if (p.rope > 0)
          product += DotProduct(q_rope.get() + at * p.rope, k_rope.get() + row * p.rope, p.rope);
        to[j] += std::exp(product * p.scale - top) * share;
      }
    }
  }
};

// A thread's memory for one token.
struct LossToken {
  std::vector<int64_t> rows;
  std::vector<float> attention, scores, relu;  // relu: [heads, rows]
};

// One token's part of the loss, the gradients of its query and weights; adds to those of the keys.
double AddToken(const LossRun& r, const LossPlan& p, const QueryToken& t, LossToken* w, float* dq, float* dk,
                float* dweights) {
  const IndexerSide& x = p.indexer;
  r.Keys(p, t, &w->rows);
  const auto n = static_cast<int64_t>(w->rows.size());
  if (n == 0) return 0;
  w->attention.resize(w->rows.size());
  w->scores.resize(w->rows.size());
  w->relu.resize(w->rows.size() * x.heads);
  r.Attention(p, t, w->rows, w->attention.data());
  const int64_t at = t.row * x.heads;
  const float *query = r.query.get() + at * x.dim, *weights = r.weights.get() + at;
  float* s = w->scores.data();
  for (int64_t j = 0; j < n; ++j)
    s[j] = Score(x, query, weights, r.key.get() + w->rows[j] * x.dim, w->relu.data() + j, n);
  const float top = p.max_index >= 0 ? r.max_index[t.row] : *std::max_element(s, s + n);
  const double own = ExpAndSum(s, s, n, top);
  const float share = static_cast<float>(1 / (p.sum_index >= 0 ? r.sum_index[t.row] : own));
  double loss = 0;
  for (int64_t j = 0; j < n; ++j) {
    const float chosen = s[j] * share, weighed = w->attention[j];
    loss += weighed * (std::log(std::max(weighed, kLeast)) - std::log(std::max(chosen, kLeast)));
    s[j] = chosen - weighed;  // the score's gradient
  }
  for (int64_t h = 0; h < x.heads; ++h) {
    const float *relu = w->relu.data() + h * n, *from = query + h * x.dim;
    float* to = dq + (at + h) * x.dim;
    for (int64_t j = 0; j < n; ++j) {
      if (!(relu[j] > 0)) continue;
      dweights[at + h] += s[j] * relu[j];
      const float by = Rounded(p.type, s[j] * weights[h]), *key = r.key.get() + w->rows[j] * x.dim;
      float* sum = dk + w->rows[j] * x.dim;
      for (int64_t d = 0; d < x.dim; ++d) {
        to[d] += by * key[d];
        sum[d] += by * from[d];
      }
    }
  }
  return loss;
}

Status RunLoss(const Run& t, const LossPlan& p) {
  const LossRun r(t, p);
  const IndexerSide& x = p.indexer;
  const int64_t q_size = t[p.dq].numel(), k_size = t[p.dk].numel(), w_size = t[p.dweights].numel();
  const Scratch<float> dq(q_size), dk(kParts * k_size), dweights(w_size);
  if (!r.ok() || !dq.ok() || !dk.ok() || !dweights.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(dq.get(), q_size, 0.0f);
  std::fill_n(dk.get(), kParts * k_size, 0.0f);
  std::fill_n(dweights.get(), w_size, 0.0f);
  double losses[kParts] = {};
  ParallelFor(kParts, 1, [&](int64_t begin, int64_t end) {
    LossToken work;
    // Every sixteenth token: later ones see more keys.
    for (int64_t part = begin; part < end; ++part)
      for (size_t i = static_cast<size_t>(part); i < x.tokens.size(); i += kParts)
        losses[part] +=
            AddToken(r, p, x.tokens[i], &work, dq.get(), dk.get() + part * k_size, dweights.get());
  });
  ParallelFor(k_size, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t part = 1; part < kParts; ++part)
      for (int64_t i = begin; i < end; ++i) dk[i] += dk[part * k_size + i];
  });
  double loss = 0;
  for (double part : losses) loss += part;
  const float whole = static_cast<float>(loss);
  StoreValues(t[p.dq], dq.get());
  StoreValues(t[p.dk], dk.get());
  StoreValues(t[p.dweights], dweights.get());
  StoreValues(t[p.loss], &whole);
  return Status();
}

Status RequireFloats(Call& call, const aclTensor* t, const char* name, int64_t numbers, const char* what) {
  RETURN_IF_ERROR(call.RequireFloating(t, name));
  if (t->view.numel() != numbers)
    return call.Invalid("{} has shape {}, expected {} numbers: {}", name, ShapeString(t->view), numbers,
                        what);
  return Status();
}

std::span<const int64_t> Given(const aclIntArray* a) {
  return a == nullptr ? std::span<const int64_t>() : std::span<const int64_t>(a->values, a->size);
}

// The indexer's tensors; the last dimensions are heads and numbers, the others rows.
Status Prepare(Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* weights,
               const aclIntArray* q_lengths, const aclIntArray* k_lengths, const char* layout, int64_t mode,
               Operands* o, IndexerSide* x) {
  RETURN_IF_ERROR(ReadRowLayout(call, layout, "layout", false, &x->queries.layout));
  x->keys.layout = x->queries.layout;
  const int rank = x->queries.layout == RowLayout::kPacked ? 3 : 4;
  const auto rows = [&](const aclTensor* t, const char* name, SequenceRows* r) -> Status {
    RETURN_IF_ERROR(call.RequireRank(t, name, rank, rank));
    const TensorView& v = t->view;
    if (v.empty()) return call.Invalid("{} has shape {}: nothing in it", name, ShapeString(v));
    r->rows = v.dims[0] * (rank == 4 ? v.dims[1] : 1);
    if (rank == 4) r->length = v.dims[1], r->batches = v.dims[0];
    return Status();
  };
  RETURN_IF_ERROR(rows(query, "queryIndex", &x->queries));
  RETURN_IF_ERROR(rows(key, "keyIndex", &x->keys));
  x->heads = query->view.dims[rank - 2], x->dim = query->view.dims[rank - 1];
  RETURN_IF_ERROR(
      RequireFloats(call, query, "queryIndex", x->queries.rows * x->heads * x->dim, "heads of rows"));
  if (key->view.dims[rank - 2] != 1 || key->view.dims[rank - 1] != x->dim)
    return call.Invalid("keyIndex has shape {}, expected one head of {}", ShapeString(key->view), x->dim);
  RETURN_IF_ERROR(RequireFloats(call, key, "keyIndex", x->keys.rows * x->dim, "one head of each row"));
  RETURN_IF_ERROR(RequireFloats(call, weights, "weights", x->queries.rows * x->heads, "one of each head"));
  if (mode != 0 && mode != 3)
    return call.Invalid("sparseMode is {}, expected 0 (all) or 3 (up to the query's own position)", mode);
  x->causal = mode == 3;
  RETURN_IF_ERROR(x->queries.Read(call.op(), "actualSeqLengthsQuery", Given(q_lengths)));
  RETURN_IF_ERROR(x->keys.Read(call.op(), "actualSeqLengthsKey", Given(k_lengths)));
  if (x->queries.batches != x->keys.batches)
    return call.Invalid("actualSeqLengthsQuery names {} sequences, actualSeqLengthsKey {}",
                        x->queries.batches, x->keys.batches);
  x->tokens = TokensOf(x->queries);
  x->query = o->Input(query), x->key = o->Input(key), x->weights = o->Input(weights);
  return Status();
}

struct LossTensors {
  const aclTensor *query, *key, *query_index, *key_index, *weights, *max, *sum;
  const aclTensor *max_index = nullptr, *sum_index = nullptr, *named = nullptr, *query_rope, *key_rope;
  const aclIntArray *q_lengths, *k_lengths;
  double scale;
  const char* layout;
  int64_t mode;
  const aclTensor *dq, *dk, *dweights, *loss;
};

Status LaunchLoss(Call& call, const LossTensors& in) {
  LossPlan p;
  Operands o;
  IndexerSide& x = p.indexer;
  RETURN_IF_ERROR(Prepare(call, in.query_index, in.key_index, in.weights, in.q_lengths, in.k_lengths,
                          in.layout, in.mode, &o, &x));
  const int rank = in.query_index->view.rank;
  const auto heads = [&](const aclTensor* t, const char* name, int64_t rows, int64_t* heads,
                         int64_t* dim) -> Status {
    RETURN_IF_ERROR(call.RequireRank(t, name, rank, rank));
    *heads = t->view.dims[rank - 2], *dim = t->view.dims[rank - 1];
    return RequireFloats(call, t, name, rows * *heads * *dim, "heads of as many rows as the indexer has");
  };
  int64_t dim = 0;
  RETURN_IF_ERROR(heads(in.query, "query", x.queries.rows, &p.heads, &p.dim));
  RETURN_IF_ERROR(heads(in.key, "key", x.keys.rows, &p.kv_heads, &dim));
  if (p.kv_heads < 1 || p.heads < 1 || p.heads % p.kv_heads != 0 || dim != p.dim)
    return call.Invalid("key has shape {}, expected heads of {} that divide query's {}",
                        ShapeString(in.key->view), p.dim, p.heads);
  if ((in.query_rope == nullptr) != (in.key_rope == nullptr))
    return call.Invalid("queryRope and keyRope belong together, but {} is absent",
                        in.query_rope == nullptr ? "queryRope" : "keyRope");
  if (in.query_rope != nullptr) {
    int64_t q_heads = 0, k_heads = 0;
    RETURN_IF_ERROR(heads(in.query_rope, "queryRope", x.queries.rows, &q_heads, &p.rope));
    RETURN_IF_ERROR(heads(in.key_rope, "keyRope", x.keys.rows, &k_heads, &dim));
    if (q_heads != p.heads || k_heads != p.kv_heads || dim != p.rope)
      return call.Invalid("keyRope has shape {} with queryRope {}, expected {} and {} heads of one width",
                          ShapeString(in.key_rope->view), ShapeString(in.query_rope->view), p.kv_heads,
                          p.heads);
  }
  for (const auto& [t, name] : {std::pair{in.max, "softmaxMax"}, std::pair{in.sum, "softmaxSum"}})
    RETURN_IF_ERROR(RequireFloats(call, t, name, x.queries.rows * p.heads, "one of each query's head"));
  for (const auto& [t, name] :
       {std::pair{in.max_index, "softmaxMaxIndex"}, std::pair{in.sum_index, "softmaxSumIndex"}})
    if (t != nullptr) RETURN_IF_ERROR(RequireFloats(call, t, name, x.queries.rows, "one of each query"));
  if (in.named != nullptr) {
    if (!IsInteger(in.named->view.dtype))
      return call.Invalid("sparseIndices has type {}, expected integers", Name(in.named->view.dtype));
    p.count = in.named->view.numel() / x.queries.rows;
    if (p.count < 1 || in.named->view.numel() % x.queries.rows != 0)
      return call.Invalid("sparseIndices has shape {}, expected as many for each of {} queries",
                          ShapeString(in.named->view), x.queries.rows);
  }
  RETURN_IF_ERROR(call.RequireSameShape(in.dq, "dQueryIndex", in.query_index, "queryIndex"));
  RETURN_IF_ERROR(call.RequireSameShape(in.dk, "dKeyIndex", in.key_index, "keyIndex"));
  RETURN_IF_ERROR(call.RequireSameShape(in.dweights, "dWeights", in.weights, "weights"));
  for (const auto& [t, name] :
       {std::pair{in.dq, "dQueryIndex"}, std::pair{in.dk, "dKeyIndex"}, std::pair{in.dweights, "dWeights"}})
    RETURN_IF_ERROR(RequireFloats(call, t, name, t->view.numel(), "a gradient"));
  RETURN_IF_ERROR(RequireFloats(call, in.loss, "loss", 1, "the sum"));
  p.scale = static_cast<float>(in.scale);
  p.type = in.query_index->view.dtype;
  p.q = o.Input(in.query), p.k = o.Input(in.key), p.max = o.Input(in.max), p.sum = o.Input(in.sum);
  p.q_rope = o.Input(in.query_rope), p.k_rope = o.Input(in.key_rope);
  p.max_index = o.Input(in.max_index), p.sum_index = o.Input(in.sum_index), p.named = o.Input(in.named);
  p.dq = o.Output(in.dq), p.dk = o.Output(in.dk), p.dweights = o.Output(in.dweights),
  p.loss = o.Output(in.loss);
  const double pairs = static_cast<double>(x.tokens.size()) *
                       static_cast<double>(p.count > 0 ? p.count : x.keys.rows / x.keys.batches);
  const double each = static_cast<double>(p.heads * (p.dim + p.rope) + 3 * x.heads * x.dim);
  return call.Launch(o.list(), Cost{2 * pairs * each, 0}, [p](const Run& t) { return RunLoss(t, p); });
}

}  // namespace

Status aclnn::DenseLightningIndexerSoftmaxLse(Call& call, const aclTensor* queryIndex,
                                              const aclTensor* keyIndex, const aclTensor* weight,
                                              const aclIntArray* actualSeqLengthsQueryOptional,
                                              const aclIntArray* actualSeqLengthsKeyOptional,
                                              char* layoutOptional, int64_t sparseMode, int64_t, int64_t,
                                              const aclTensor* softmaxMaxOut,
                                              const aclTensor* softmaxSumOut) {
  IndexerSide x;
  Operands o;
  RETURN_IF_ERROR(Prepare(call, queryIndex, keyIndex, weight, actualSeqLengthsQueryOptional,
                          actualSeqLengthsKeyOptional, layoutOptional, sparseMode, &o, &x));
  for (const auto& [t, name] :
       {std::pair{softmaxMaxOut, "softmaxMaxOut"}, std::pair{softmaxSumOut, "softmaxSumOut"}})
    RETURN_IF_ERROR(RequireFloats(call, t, name, x.queries.rows, "one of each query"));
  const int max = o.Output(softmaxMaxOut), sum = o.Output(softmaxSumOut);
  const double pairs =
      static_cast<double>(x.tokens.size()) * static_cast<double>(x.keys.rows / x.keys.batches);
  return call.Launch(o.list(), Cost{2 * pairs * static_cast<double>(x.heads * x.dim), 0},
                     [=](const Run& t) { return RunStatistics(t, x, max, sum); });
}

Status aclnn::DenseLightningIndexerGradKLLoss(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* queryIndex,
    const aclTensor* keyIndex, const aclTensor* weights, const aclTensor* softmaxMax,
    const aclTensor* softmaxSum, const aclTensor* softmaxMaxIndex, const aclTensor* softmaxSumIndex,
    const aclTensor* queryRope, const aclTensor* keyRope, const aclIntArray* actualSeqLengthsQuery,
    const aclIntArray* actualSeqLengthsKey, double scaleValue, char* layout, int64_t sparseMode, int64_t,
    int64_t, const aclTensor* dQueryIndex, const aclTensor* dKeyIndex, const aclTensor* dWeights,
    const aclTensor* loss) {
  return LaunchLoss(call, {.query = query,
                           .key = key,
                           .query_index = queryIndex,
                           .key_index = keyIndex,
                           .weights = weights,
                           .max = softmaxMax,
                           .sum = softmaxSum,
                           .max_index = softmaxMaxIndex,
                           .sum_index = softmaxSumIndex,
                           .query_rope = queryRope,
                           .key_rope = keyRope,
                           .q_lengths = actualSeqLengthsQuery,
                           .k_lengths = actualSeqLengthsKey,
                           .scale = scaleValue,
                           .layout = layout,
                           .mode = sparseMode,
                           .dq = dQueryIndex,
                           .dk = dKeyIndex,
                           .dweights = dWeights,
                           .loss = loss});
}

Status aclnn::SparseLightningIndexerGradKLLoss(Call& call, const aclTensor* query, const aclTensor* key,
                                               const aclTensor* queryIndex, const aclTensor* keyIndex,
                                               const aclTensor* weights, const aclTensor* sparseIndices,
                                               const aclTensor* softmaxMax, const aclTensor* softmaxSum,
                                               const aclTensor* queryRope, const aclTensor* keyRope,
                                               const aclIntArray* actualSeqLengthsQuery,
                                               const aclIntArray* actualSeqLengthsKey, double scaleValue,
                                               char* layout, int64_t sparseMode, int64_t, int64_t, bool,
                                               const aclTensor* dQueryIndex, const aclTensor* dKeyIndex,
                                               const aclTensor* dWeights, const aclTensor* loss) {
  return LaunchLoss(call, {.query = query,
                           .key = key,
                           .query_index = queryIndex,
                           .key_index = keyIndex,
                           .weights = weights,
                           .max = softmaxMax,
                           .sum = softmaxSum,
                           .named = sparseIndices,
                           .query_rope = queryRope,
                           .key_rope = keyRope,
                           .q_lengths = actualSeqLengthsQuery,
                           .k_lengths = actualSeqLengthsKey,
                           .scale = scaleValue,
                           .layout = layout,
                           .mode = sparseMode,
                           .dq = dQueryIndex,
                           .dk = dKeyIndex,
                           .dweights = dWeights,
                           .loss = loss});
}

}  // namespace anycann
