// Native sparse attention: attention over compressed keys, which names the blocks of keys that matter, and
// attention over the blocks that were named, with a gradient. For packed sequences, and for the next tokens
// of sequences in pages.
#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>

#include "aclnn_ops.h"
#include "ops/attention/sparse_attention.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

// How blocks are rated: block i sums the weights of compressed keys ratio * i + ratio - j by how many of its
// rows' windows they are.
struct Rating {
  int64_t ratio = 1, overlap = 1;  // strides in a block, and in a window
  int64_t count = 0;               // blocks that are named
  std::vector<int64_t> blocks;     // of each sequence
  bool keep_ends = false;          // the first and the last two are always named, before the others

  void Rate(const float* weights, int64_t keys, int64_t n, float* scores) const {
    for (int64_t i = 0; i < n; ++i) {
      float sum = 0;
      for (int64_t j = 0; j < ratio + overlap - 1; ++j) {
        const int64_t key = ratio * (i + 1) - j;
        if (key < 0 || key >= keys) continue;
        sum += weights[key] * static_cast<float>(std::min({j + 1, ratio, overlap, ratio + overlap - 1 - j}));
      }
      scores[i] = sum;
    }
  }
};

struct Nsa {
  SparseAttention attention;
  Rating rating;
  int64_t block = 1, count = 0;  // of the attention over blocks
  enum Causal { kNo, kFromStart, kFromEnd } causal = kNo;
  std::vector<int64_t> q_lengths, k_lengths;
  int query = -1, key = -1, value = -1, index = -1, mask = -1, rating_mask = -1, table = -1;
  int max = -1, sum = -1, out = -1, named = -1, dout = -1, dq = -1, dk = -1, dv = -1;
};

struct NsaMemory {
  DenseInput query, key, value;
  Values<int32_t> index, table;
  Values<int8_t> mask, rating_mask;
  int64_t mask_columns = 0, rating_columns = 0, mask_rows = 0, rating_rows = 0;

  NsaMemory(const Run& t, const Nsa& n)
      : query(t[n.query]),
        key(t[n.key]),
        value(t[n.value]),
        index(t, n.index),
        table(t, n.table),
        mask(t, n.mask),
        rating_mask(t, n.rating_mask) {
    if (n.mask >= 0) mask_rows = t[n.mask].dims[0], mask_columns = t[n.mask].dims[1];
    if (n.rating_mask >= 0) rating_rows = t[n.rating_mask].dims[0], rating_columns = t[n.rating_mask].dims[1];
  }
  bool ok() const {
    return query.ok() && key.ok() && value.ok() && index.ok() && table.ok() && mask.ok() && rating_mask.ok();
  }
  bool Hidden(const Nsa& n, const SparseAttention& a, const QueryToken& t, int64_t p) const {
    if (n.causal == Nsa::kFromStart && p > t.position) return true;
    if (n.causal == Nsa::kFromEnd && p > t.position + a.keys.counts[t.batch] - t.count) return true;
    return mask.get() != nullptr && t.position < mask_rows && p < mask_columns &&
           mask[t.position * mask_columns + p] != 0;
  }
};

Status Bind(const Run& t, const Nsa& n, const NsaMemory& m, SparseAttention* a) {
  if (!m.ok()) return ScratchFailed(t.plan().name);
  *a = n.attention;
  a->query = DenseReader<float>(m.query.view()), a->key = DenseReader<float>(m.key.view());
  a->value = DenseReader<float>(m.value.view());
  a->keys.table = m.table.get();
  const char* op = t.plan().name;
  RETURN_IF_ERROR(a->queries.Read(op, "actualSeqQLen", n.q_lengths));
  RETURN_IF_ERROR(a->keys.Read(op, "actualSeqKvLen", n.k_lengths));
  if (a->queries.batches != a->keys.batches)
    return Error(kParamInvalid, "{}: {} sequences of queries and {} of keys", op, a->queries.batches,
                 a->keys.batches);
  a->tokens = TokensOf(a->queries);
  return Status();
}

// [T,N1,8] each.
class Statistics {
 public:
  Statistics(const Run& t, const Nsa& n) : t_(t), n_(n) {
    for (int i = 0; i < 2; ++i) {
      const int at = i == 0 ? n.max : n.sum;
      if (at >= 0) values_[i] = Scratch<float>(t[at].numel());
    }
    copies_ = n.max >= 0 ? t[n.max].dims[t[n.max].rank - 1] : 0;
    if (n.max >= 0 && ok()) {
      std::fill_n(values_[0].get(), t[n.max].numel(), -std::numeric_limits<float>::infinity());
      std::fill_n(values_[1].get(), t[n.sum].numel(), 0.0f);
    }
  }
  bool ok() const { return n_.max < 0 || (values_[0].ok() && values_[1].ok()); }
  void Set(int64_t row, float max, float sum) const {
    if (n_.max < 0) return;
    std::fill_n(values_[0].get() + row * copies_, copies_, max);
    std::fill_n(values_[1].get() + row * copies_, copies_, sum);
  }
  void Store() const {
    if (n_.max < 0) return;
    StoreValues(t_[n_.max], values_[0].get());
    StoreValues(t_[n_.sum], values_[1].get());
  }

 private:
  const Run& t_;
  const Nsa& n_;
  int64_t copies_ = 0;
  Scratch<float> values_[2];
};

Status RunForward(const Run& t, const Nsa& n) {
  const NsaMemory m(t, n);
  SparseAttention a;
  RETURN_IF_ERROR(Bind(t, n, m, &a));
  const DenseOutput out(t[n.out]);
  const Statistics statistics(t, n);
  const Scratch<int32_t> named(n.named >= 0 ? t[n.named].numel() : 0);
  if (!out.ok() || !statistics.ok() || !named.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(out.view().bytes(), out.view().nbytes(), char{0});
  if (n.named >= 0) std::fill_n(named.get(), t[n.named].numel(), -1);
  a.select = [&](const QueryToken& token, int64_t kv_head, std::vector<int32_t>* positions) {
    const int64_t keys = a.keys.counts[token.batch];
    if (n.index >= 0) {
      const int32_t* blocks = m.index.get() + (token.row * a.kv_heads + kv_head) * n.count;
      for (int64_t i = 0; i < n.count; ++i) {
        if (blocks[i] < 0) continue;
        const int64_t first = blocks[i] * n.block, last = std::min(keys, first + n.block);
        for (int64_t p = first; p < last; ++p)
          if (!m.Hidden(n, a, token, p)) positions->push_back(static_cast<int32_t>(p));
      }
      return;
    }
    for (int64_t p = 0; p < keys; ++p)
      if (!m.Hidden(n, a, token, p)) positions->push_back(static_cast<int32_t>(p));
    // A query that sees nothing sees all: what adding the same large number to all its scores comes to.
    for (int64_t p = 0; p < keys && static_cast<int64_t>(positions->size()) <= p; ++p)
      positions->push_back(static_cast<int32_t>(p));
  };
  const int64_t group = a.group();
  const bool ok = RunSparseAttention(a, [&](const SparseResult& r) {
    const int64_t first = r.token.row * a.heads + r.kv_head * group;
    const TensorView& o = out.view();
    Convert(o.bytes() + first * a.value_dim * SizeOf(o.dtype), o.dtype, r.out, DType::kFloat,
            group * a.value_dim);
    for (int64_t g = 0; g < group; ++g) statistics.Set(first + g, r.max[g], r.sum[g]);
    if (n.named < 0) return;
    const int64_t keys = a.keys.counts[r.token.batch], blocks = n.rating.blocks[r.token.batch];
    const int64_t seen = static_cast<int64_t>(r.positions.size());
    std::vector<float> weights(static_cast<size_t>(keys), 0.0f), scores(static_cast<size_t>(blocks));
    for (int64_t g = 0; g < group; ++g)
      for (int64_t j = 0; j < seen; ++j) weights[r.positions[j]] += r.weights[g * seen + j];
    n.rating.Rate(weights.data(), keys, blocks, scores.data());
    constexpr float kAlways = 23333.0f;  // above any sum of weights
    for (int64_t i = 0; i < blocks && m.rating_mask.get() != nullptr; ++i)
      if (r.token.position < m.rating_rows && i < m.rating_columns &&
          m.rating_mask[r.token.position * m.rating_columns + i] != 0)
        scores[i] = kAlways;
    if (n.rating.keep_ends)
      for (int64_t i = 0; i < blocks; ++i)
        if (i == 0 || i >= blocks - 2) scores[i] = std::numeric_limits<float>::infinity();
    std::vector<int32_t> order(static_cast<size_t>(blocks));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t x, int32_t y) { return scores[x] > scores[y]; });
    std::copy_n(order.begin(), std::min(blocks, n.rating.count),
                named.get() + (r.token.row * a.kv_heads + r.kv_head) * n.rating.count);
  });
  if (!ok) return ScratchFailed(t.plan().name);
  out.Finish();
  statistics.Store();
  if (n.named >= 0) StoreValues(t[n.named], named.get());
  return Status();
}

Status RunGradient(const Run& t, const Nsa& n) {
  const NsaMemory m(t, n);
  SparseAttention a;
  RETURN_IF_ERROR(Bind(t, n, m, &a));
  const DenseInput out(t[n.out]), dout(t[n.dout]);
  const Values<float> max(t[n.max]), sum(t[n.sum]);
  const Scratch<float> dq(t[n.dq].numel()), dk(t[n.dk].numel()), dv(t[n.dv].numel());
  if (!out.ok() || !dout.ok() || !max.ok() || !sum.ok() || !dq.ok() || !dk.ok() || !dv.ok())
    return ScratchFailed(t.plan().name);
  a.select = [&](const QueryToken& token, int64_t kv_head, std::vector<int32_t>* positions) {
    const int64_t keys = a.keys.counts[token.batch];
    const int32_t* blocks = m.index.get() + (token.row * a.kv_heads + kv_head) * n.count;
    for (int64_t i = 0; i < n.count; ++i) {
      if (blocks[i] < 0) continue;
      const int64_t first = blocks[i] * n.block, last = std::min(keys, first + n.block);
      for (int64_t p = first; p < last; ++p)
        if (!m.Hidden(n, a, token, p)) positions->push_back(static_cast<int32_t>(p));
    }
  };
  const int64_t copies = t[n.max].dims[t[n.max].rank - 1];
  SparseGradients g;
  g.out = DenseReader<float>(out.view()), g.dout = DenseReader<float>(dout.view());
  g.max = [&](const QueryToken& x, int64_t head) { return max[(x.row * a.heads + head) * copies]; };
  g.sum = [&](const QueryToken& x, int64_t head) { return sum[(x.row * a.heads + head) * copies]; };
  g.dq = dq.get(), g.dk = dk.get(), g.dv = dv.get();
  if (!RunSparseGradients(a, g)) return ScratchFailed(t.plan().name);
  StoreValues(t[n.dq], dq.get());
  StoreValues(t[n.dk], dk.get());
  StoreValues(t[n.dv], dv.get());
  return Status();
}

Status RequireFloats(Call& call, const aclTensor* t, const char* name) {
  if (t->view.dtype == DType::kFloat || IsReduced(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected float16, bfloat16 or float32", name, Name(t->view.dtype));
}
Status RequireMask(Call& call, const aclTensor* t, const char* name) {
  if (t == nullptr) return Status();
  RETURN_IF_ERROR(call.RequireRank(t, name, 2, 2));
  if (SizeOf(t->view.dtype) == 1) return Status();
  return call.Invalid("{} has type {}, expected bool", name, Name(t->view.dtype));
}
std::vector<int64_t> Copy(const aclIntArray* a) {
  return a == nullptr ? std::vector<int64_t>() : std::vector<int64_t>(a->begin(), a->end());
}

// Packed query, key and value [T,N,D].
Status ReadPacked(Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
                  const aclIntArray* q_ends, const aclIntArray* k_ends, int64_t heads, const char* layout,
                  double scale, Nsa* n) {
  if (layout == nullptr || std::string_view(layout) != "TND")
    return call.Invalid("inputLayout is {}, expected TND", layout == nullptr ? "null" : layout);
  for (const auto& [t, name] :
       {std::pair{query, "query"}, std::pair{key, "key"}, std::pair{value, "value"}}) {
    RETURN_IF_ERROR(call.RequireRank(t, name, 3, 3));
    RETURN_IF_ERROR(RequireFloats(call, t, name));
    if (t->view.empty()) return call.Invalid("{} has shape {}: nothing in it", name, ShapeString(t->view));
  }
  SparseAttention& a = n->attention;
  const TensorView &q = query->view, &k = key->view, &v = value->view;
  a.heads = q.dims[1], a.kv_heads = k.dims[1], a.dim = q.dims[2], a.value_dim = v.dims[2];
  a.scale = static_cast<float>(scale);
  if (a.heads != heads || a.heads % a.kv_heads != 0 || k.dims[2] != a.dim || v.dims[0] != k.dims[0] ||
      v.dims[1] != a.kv_heads)
    return call.Invalid("query {}, key {} and value {} don't match with headNum {}", ShapeString(q),
                        ShapeString(k), ShapeString(v), heads);
  a.queries.layout = a.keys.layout = RowLayout::kPacked;
  a.queries.rows = q.dims[0], a.keys.rows = k.dims[0];
  n->q_lengths = Copy(q_ends), n->k_lengths = Copy(k_ends);
  return Status();
}

// One query for each sequence [B,N,D], [B,1,N,D] or [B,1,H], and pages [blocks,page,N2*D] or [.., N2, D].
Status ReadPaged(Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
                 const aclTensor* table, const aclIntArray* k_lengths, int64_t heads, int64_t kv_heads,
                 int64_t page, double scale, Nsa* n) {
  RETURN_IF_ERROR(call.RequireRank(query, "query", 3, 4));
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0 || heads > query->view.numel())
    return call.Invalid("numHeads is {} and numKeyValueHeads {}, expected a multiple that query {} has",
                        heads, kv_heads, ShapeString(query->view));
  SparseAttention& a = n->attention;
  a.heads = heads, a.kv_heads = kv_heads;
  a.scale = static_cast<float>(scale);
  const int64_t batches = query->view.dims[0];
  if (batches < 1 || query->view.numel() % (batches * heads) != 0 || query->view.empty())
    return call.Invalid("query has shape {}, expected one row of {} heads for each sequence",
                        ShapeString(query->view), heads);
  if (query->view.rank == 4 && query->view.dims[1] != 1)
    return call.Invalid("query has shape {}, expected one row for each sequence", ShapeString(query->view));
  a.dim = query->view.numel() / (batches * heads);
  for (const auto& [t, name] : {std::pair{key, "key"}, std::pair{value, "value"}}) {
    RETURN_IF_ERROR(call.RequireRank(t, name, 3, 4));
    RETURN_IF_ERROR(RequireFloats(call, t, name));
    const TensorView& v = t->view;
    const int64_t each = v.dims[0] * v.dims[1];
    if (page < 1 || v.dims[1] != page || v.empty() || v.numel() % (each * kv_heads) != 0 ||
        (t == key && v.numel() / (each * kv_heads) != a.dim))
      return call.Invalid("{} has shape {}, expected pages of {} rows of {} heads{}", name, ShapeString(v),
                          page, kv_heads, t == key ? " as query's" : "");
    if (t == value) a.value_dim = v.numel() / (each * kv_heads);
  }
  if (value->view.dims[0] != key->view.dims[0])
    return call.Invalid("key has shape {} and value {}, expected as many pages", ShapeString(key->view),
                        ShapeString(value->view));
  RETURN_IF_ERROR(RequireFloats(call, query, "query"));
  if (table == nullptr) return call.Invalid("blockTable is absent, which pages need");
  RETURN_IF_ERROR(call.RequireRank(table, "blockTable", 2, 2));
  if (table->view.dims[0] < batches || !IsInteger(table->view.dtype))
    return call.Invalid("blockTable has shape {} and type {}, expected {} rows of int32",
                        ShapeString(table->view), Name(table->view.dtype), batches);
  n->k_lengths = Copy(k_lengths);
  if (static_cast<int64_t>(n->k_lengths.size()) != batches)
    return call.Invalid("the list of the keys' lengths has {} values, expected {}", n->k_lengths.size(),
                        batches);
  a.queries.layout = RowLayout::kBatches;
  a.queries.batches = a.queries.rows = batches, a.queries.length = 1;
  a.keys.layout = RowLayout::kPages;
  a.keys.length = page, a.keys.rows = key->view.dims[0] * page, a.keys.columns = table->view.dims[1];
  return Status();
}

Status RequireOut(Call& call, const aclTensor* t, const char* name, const Nsa& n) {
  RETURN_IF_ERROR(RequireFloats(call, t, name));
  const SparseAttention& a = n.attention;
  if (t->view.numel() == a.queries.rows * a.heads * a.value_dim) return Status();
  return call.Invalid("{} has shape {}, expected {} rows of {} heads of {}", name, ShapeString(t->view),
                      a.queries.rows, a.heads, a.value_dim);
}

Status RequireStatistics(Call& call, const aclTensor* max, const aclTensor* sum, const Nsa& n) {
  const SparseAttention& a = n.attention;
  for (const auto& [t, name] : {std::pair{max, "softmaxMax"}, std::pair{sum, "softmaxSum"}}) {
    RETURN_IF_ERROR(call.RequireRank(t, name, 3, 3));
    const TensorView& v = t->view;
    if (v.dims[0] != a.queries.rows || v.dims[1] != a.heads || v.dims[2] < 1 || v.dtype != DType::kFloat)
      return call.Invalid("{} has shape {}, expected [{},{},8] of float32", name, ShapeString(v),
                          a.queries.rows, a.heads);
  }
  return call.RequireSameShape(sum, "softmaxSum", max, "softmaxMax");
}

Status ReadNamed(Call& call, const aclTensor* index, const char* name, int64_t block, int64_t count,
                 const Nsa& n) {
  const SparseAttention& a = n.attention;
  if (block < 1 || block > (int64_t{1} << 20) || count < 1)
    return call.Invalid("the block size is {} and the number of blocks {}, expected 1 or more", block, count);
  if (IsInteger(index->view.dtype) && index->view.numel() % (a.queries.rows * a.kv_heads) == 0 &&
      index->view.numel() / (a.queries.rows * a.kv_heads) == count)
    return Status();
  return call.Invalid("{} has shape {}, expected {} blocks for {} rows and {} heads", name,
                      ShapeString(index->view), count, a.queries.rows, a.kv_heads);
}

Status ReadRating(Call& call, int64_t window, int64_t stride, int64_t block, int64_t count, Rating* r) {
  if (stride < 1 || window < stride || block < stride || block / stride > 4096 || window / stride > 4096)
    return call.Invalid(
        "compressBlockSize is {}, compressStride {} and selectBlockSize {}: the stride is the "
        "smallest",
        window, stride, block);
  r->ratio = block / stride, r->overlap = window / stride, r->count = count;
  return Status();
}

Status ReadMode(Call& call, int64_t mode, Nsa* n) {
  if (mode != 0 && mode != 1 && mode != 2 && mode != 3)
    return call.Invalid("sparseMode is {}, expected 0 or 1 (the mask), 2 or 3 (causal)", mode);
  n->causal = mode == 2 ? Nsa::kFromStart : mode == 3 ? Nsa::kFromEnd : Nsa::kNo;
  return Status();
}

Cost CostOf(const Nsa& n, int64_t keys) {
  const SparseAttention& a = n.attention;
  return {2.0 * static_cast<double>(a.queries.rows * a.heads) * static_cast<double>(keys) *
              static_cast<double>(a.dim + a.value_dim),
          0};
}

}  // namespace

Status aclnn::NsaCompressAttention(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* attenMaskOptional, const aclTensor* topkMaskOptional,
    const aclIntArray* actualSeqQLenOptional, const aclIntArray* actualCmpSeqKvLenOptional,
    const aclIntArray* actualSelSeqKvLenOptional, double scaleValue, int64_t headNum, char* inputLayout,
    int64_t sparseMode, int64_t compressBlockSize, int64_t compressStride, int64_t selectBlockSize,
    int64_t selectBlockCount, const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
    const aclTensor* attentionOutOut, const aclTensor* topkIndicesOut) {
  Nsa n;
  RETURN_IF_ERROR(ReadPacked(call, query, key, value, actualSeqQLenOptional, actualCmpSeqKvLenOptional,
                             headNum, inputLayout, scaleValue, &n));
  if (sparseMode != 0 && sparseMode != 1)
    return call.Invalid("sparseMode is {}, expected 0 or 1 (the mask)", sparseMode);
  RETURN_IF_ERROR(
      ReadRating(call, compressBlockSize, compressStride, selectBlockSize, selectBlockCount, &n.rating));
  const aclTensor *mask = Given(attenMaskOptional), *rating_mask = Given(topkMaskOptional);
  RETURN_IF_ERROR(RequireMask(call, mask, "attenMask"));
  RETURN_IF_ERROR(RequireMask(call, rating_mask, "topkMask"));
  const std::vector<int64_t> ends = Copy(actualSelSeqKvLenOptional);
  if (ends.size() != n.k_lengths.size())
    return call.Invalid("actualSelSeqKvLen has {} values, actualCmpSeqKvLen {}", ends.size(),
                        n.k_lengths.size());
  for (size_t b = 0; b < ends.size(); ++b) {
    const int64_t blocks = ends[b] - (b > 0 ? ends[b - 1] : 0);
    if (blocks < 0 || blocks > (int64_t{1} << 24))
      return call.Invalid("actualSelSeqKvLen has {} at {}, expected a rising list", ends[b], b);
    n.rating.blocks.push_back(blocks);
  }
  RETURN_IF_ERROR(ReadNamed(call, topkIndicesOut, "topkIndicesOut", selectBlockSize, selectBlockCount, n));
  RETURN_IF_ERROR(RequireOut(call, attentionOutOut, "attentionOut", n));
  RETURN_IF_ERROR(RequireStatistics(call, softmaxMaxOut, softmaxSumOut, n));
  Operands o;
  n.query = o.Input(query), n.key = o.Input(key), n.value = o.Input(value);
  n.mask = o.Input(mask), n.rating_mask = o.Input(rating_mask);
  n.max = o.Output(softmaxMaxOut), n.sum = o.Output(softmaxSumOut), n.out = o.Output(attentionOutOut);
  n.named = o.Output(topkIndicesOut);
  return call.Launch(o.list(), CostOf(n, n.attention.keys.rows),
                     [n](const Run& t) { return RunForward(t, n); });
}

Status aclnn::NsaCompressAttentionInfer(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* attentionMaskOptional, const aclTensor* blockTableOptional, const aclIntArray*,
    const aclIntArray* actualCmpKvSeqLenOptional, const aclIntArray*, const aclTensor* topKMaskOptional,
    int64_t numHeads, int64_t numKeyValueHeads, int64_t selectBlockSize, int64_t selectBlockCount,
    int64_t compressBlockSize, int64_t compressBlockStride, double scaleValue, char*, int64_t pageBlockSize,
    int64_t, const aclTensor* output, const aclTensor* topKOutput) {
  for (const auto& [t, name] : {std::pair{attentionMaskOptional, "attentionMaskOptional"},
                                std::pair{topKMaskOptional, "topKMaskOptional"}})
    if (Given(t) != nullptr) return call.Invalid("{} is not supported: one query sees all keys", name);
  Nsa n;
  RETURN_IF_ERROR(ReadPaged(call, query, key, value, blockTableOptional, actualCmpKvSeqLenOptional, numHeads,
                            numKeyValueHeads, pageBlockSize, scaleValue, &n));
  RETURN_IF_ERROR(
      ReadRating(call, compressBlockSize, compressBlockStride, selectBlockSize, selectBlockCount, &n.rating));
  n.rating.keep_ends = true;
  const int64_t most = n.attention.keys.columns * n.attention.keys.length;
  for (const int64_t keys : n.k_lengths) {
    if (keys < 1 || keys > most)
      return call.Invalid("actualCmpKvSeqLen has {}, expected 1 to {}", keys, most);
    n.rating.blocks.push_back(((keys - 1) * compressBlockStride + compressBlockSize + selectBlockSize - 1) /
                              selectBlockSize);
  }
  RETURN_IF_ERROR(ReadNamed(call, topKOutput, "topKOutput", selectBlockSize, selectBlockCount, n));
  RETURN_IF_ERROR(RequireOut(call, output, "output", n));
  Operands o;
  n.query = o.Input(query), n.key = o.Input(key), n.value = o.Input(value);
  n.table = o.Input(blockTableOptional);
  n.out = o.Output(output), n.named = o.Output(topKOutput);
  return call.Launch(o.list(), CostOf(n, most), [n](const Run& t) { return RunForward(t, n); });
}

Status aclnn::NsaSelectedAttention(Call& call, const aclTensor* query, const aclTensor* key,
                                   const aclTensor* value, const aclTensor* topkIndices,
                                   const aclTensor* attenMaskOptional,
                                   const aclIntArray* actualSeqQLenOptional,
                                   const aclIntArray* actualSeqKvLenOptional, double scaleValue,
                                   int64_t headNum, char* inputLayout, int64_t sparseMode,
                                   int64_t selectedBlockSize, int64_t selectedBlockCount,
                                   const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
                                   const aclTensor* attentionOut) {
  Nsa n;
  RETURN_IF_ERROR(ReadPacked(call, query, key, value, actualSeqQLenOptional, actualSeqKvLenOptional, headNum,
                             inputLayout, scaleValue, &n));
  RETURN_IF_ERROR(ReadMode(call, sparseMode, &n));
  const aclTensor* mask = n.causal == Nsa::kNo ? Given(attenMaskOptional) : nullptr;
  RETURN_IF_ERROR(RequireMask(call, mask, "attenMask"));
  RETURN_IF_ERROR(ReadNamed(call, topkIndices, "topkIndices", selectedBlockSize, selectedBlockCount, n));
  RETURN_IF_ERROR(RequireOut(call, attentionOut, "attentionOut", n));
  RETURN_IF_ERROR(RequireStatistics(call, softmaxMaxOut, softmaxSumOut, n));
  n.block = selectedBlockSize, n.count = selectedBlockCount;
  Operands o;
  n.query = o.Input(query), n.key = o.Input(key), n.value = o.Input(value), n.index = o.Input(topkIndices);
  n.mask = o.Input(mask);
  n.max = o.Output(softmaxMaxOut), n.sum = o.Output(softmaxSumOut), n.out = o.Output(attentionOut);
  return call.Launch(o.list(), CostOf(n, n.block * n.count), [n](const Run& t) { return RunForward(t, n); });
}

Status aclnn::NsaSelectedAttentionInfer(Call& call, const aclTensor* query, const aclTensor* key,
                                        const aclTensor* value, const aclTensor* topkIndices,
                                        const aclTensor* attenMaskOptional,
                                        const aclTensor* blockTableOptional, const aclIntArray*,
                                        const aclIntArray* actualKvSeqLenOptional, char*, int64_t numHeads,
                                        int64_t numKeyValueHeads, int64_t selectBlockSize,
                                        int64_t selectBlockCount, int64_t pageBlockSize, double scaleValue,
                                        int64_t, aclTensor* output) {
  if (Given(attenMaskOptional) != nullptr)
    return call.Invalid("attenMaskOptional is not supported: one query sees all the keys of its blocks");
  Nsa n;
  RETURN_IF_ERROR(ReadPaged(call, query, key, value, blockTableOptional, actualKvSeqLenOptional, numHeads,
                            numKeyValueHeads, pageBlockSize, scaleValue, &n));
  RETURN_IF_ERROR(ReadNamed(call, topkIndices, "topkIndices", selectBlockSize, selectBlockCount, n));
  RETURN_IF_ERROR(RequireOut(call, output, "output", n));
  n.block = selectBlockSize, n.count = selectBlockCount;
  Operands o;
  n.query = o.Input(query), n.key = o.Input(key), n.value = o.Input(value), n.index = o.Input(topkIndices);
  n.table = o.Input(blockTableOptional);
  n.out = o.Output(output);
  return call.Launch(o.list(), CostOf(n, n.block * n.count), [n](const Run& t) { return RunForward(t, n); });
}

Status aclnn::NsaSelectedAttentionGrad(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* attentionOut, const aclTensor* attentionOutGrad, const aclTensor* softmaxMax,
    const aclTensor* softmaxSum, const aclTensor* topkIndices, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, const aclTensor* attenMaskOptional, double scaleValue,
    int64_t selectedBlockSize, int64_t selectedBlockCount, int64_t headNum, char* inputLayout,
    int64_t sparseMode, const aclTensor* dqOut, const aclTensor* dkOut, const aclTensor* dvOut) {
  Nsa n;
  RETURN_IF_ERROR(ReadPacked(call, query, key, value, actualSeqQLenOptional, actualSeqKvLenOptional, headNum,
                             inputLayout, scaleValue, &n));
  RETURN_IF_ERROR(ReadMode(call, sparseMode, &n));
  const aclTensor* mask = n.causal == Nsa::kNo ? Given(attenMaskOptional) : nullptr;
  RETURN_IF_ERROR(RequireMask(call, mask, "attenMask"));
  RETURN_IF_ERROR(ReadNamed(call, topkIndices, "topkIndices", selectedBlockSize, selectedBlockCount, n));
  RETURN_IF_ERROR(RequireOut(call, attentionOut, "attentionOut", n));
  RETURN_IF_ERROR(RequireOut(call, attentionOutGrad, "attentionOutGrad", n));
  RETURN_IF_ERROR(RequireStatistics(call, softmaxMax, softmaxSum, n));
  for (const auto& [t, name, like, like_name] :
       {std::tuple{dqOut, "dq", query, "query"}, std::tuple{dkOut, "dk", key, "key"},
        std::tuple{dvOut, "dv", value, "value"}}) {
    RETURN_IF_ERROR(call.RequireSameShape(t, name, like, like_name));
    RETURN_IF_ERROR(RequireFloats(call, t, name));
  }
  n.block = selectedBlockSize, n.count = selectedBlockCount;
  Operands o;
  n.query = o.Input(query), n.key = o.Input(key), n.value = o.Input(value), n.index = o.Input(topkIndices);
  n.mask = o.Input(mask), n.out = o.Input(attentionOut), n.dout = o.Input(attentionOutGrad);
  n.max = o.Input(softmaxMax), n.sum = o.Input(softmaxSum);
  n.dq = o.Output(dqOut), n.dk = o.Output(dkOut), n.dv = o.Output(dvOut);
  return call.Launch(o.list(), CostOf(n, 3 * n.block * n.count),
                     [n](const Run& t) { return RunGradient(t, n); });
}

}  // namespace anycann
