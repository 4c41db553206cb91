// SparseFlashAttention: attention over the blocks of keys that an index names for each query, and its
// gradient.
#include <algorithm>
#include <cstring>
#include <limits>

#include "aclnn_ops.h"
#include "ops/attention/sparse_attention.h"
#include "ops/norm/operands.h"
#include "ops/quant/rounded.h"

namespace anycann {
namespace {

struct SparseFlash {
  SparseAttention attention;  // without memory
  bool causal = false, packed_statistics = false;
  int64_t block = 1, count = 0;  // keys in one block; blocks named for each query
  int query = -1, key = -1, value = -1, index = -1, table = -1, q_lengths = -1, k_lengths = -1,
      query_rope = -1, key_rope = -1, sinks = -1;
  int out = -1, max = -1, sum = -1, dout = -1;
  int dq = -1, dk = -1, dv = -1, dq_rope = -1, dk_rope = -1;
  // Rows of 8-bit levels, then a rotated part of the query's type, then a scale for each tile of levels.
  int64_t tile = 0, rotated = 0;

  // Statistics lie [B,N2,S,G] or [N2,T,G].
  int64_t StatisticAt(const QueryToken& t, int64_t head) const {
    const int64_t group = attention.group(), n = head / group, g = head % group;
    if (packed_statistics) return (n * attention.queries.rows + t.row) * group + g;
    return ((t.batch * attention.kv_heads + n) * attention.queries.length + t.position) * group + g;
  }
};

// The memory of one run.
struct SparseMemory {
  DenseInput query, key, value, query_rope, key_rope;
  Values<int32_t> index, table;
  Values<float> sinks;

  SparseMemory(const Run& t, const SparseFlash& s)
      : query(t[s.query]),
        key(t[s.key]),
        value(t[s.value]),
        query_rope(t[s.query_rope >= 0 ? s.query_rope : s.query]),
        key_rope(t[s.key_rope >= 0 ? s.key_rope : s.key]),
        index(t[s.index]),
        table(t, s.table),
        sinks(t, s.sinks) {}
  bool ok() const {
    return query.ok() && key.ok() && value.ok() && query_rope.ok() && key_rope.ok() && index.ok() &&
           table.ok() && sinks.ok();
  }
};

Status Bind(const Run& t, const SparseFlash& s, const SparseMemory& m, SparseAttention* a) {
  *a = s.attention;
  a->query = DenseReader<float>(m.query.view()), a->key = DenseReader<float>(m.key.view());
  a->value = DenseReader<float>(m.value.view());
  a->query_rope = DenseReader<float>(m.query_rope.view());
  a->key_rope = DenseReader<float>(m.key_rope.view());
  if (s.tile > 0) {
    const char* rows = m.key.view().bytes();
    const DType rotated_type = t[s.query].dtype;
    a->load = [a, &s, rows, rotated_type](int64_t row, float* to) {
      const int64_t n = a->value_dim, tail = s.rotated * SizeOf(rotated_type);
      const char* from =
          rows + row * (n + tail + (n + s.tile - 1) / s.tile * static_cast<int64_t>(sizeof(float)));
      Convert(to + n, DType::kFloat, from + n, rotated_type, s.rotated);
      for (int64_t i = 0; i < n; ++i) {
        float scale;
        std::memcpy(&scale, from + n + tail + i / s.tile * static_cast<int64_t>(sizeof(float)),
                    sizeof(float));
        to[i] = Rounded(rotated_type, static_cast<float>(static_cast<int8_t>(from[i])) * scale);
      }
    };
  }
  a->sinks = m.sinks.get();
  a->keys.table = m.table.get();
  const auto lengths = [&](int i, SequenceRows* rows, const char* name) -> Status {
    if (i < 0) return rows->Read(t.plan().name, name, {});
    const Values<int64_t> v(t[i]);
    if (!v.ok()) return ScratchFailed(t.plan().name);
    return rows->Read(t.plan().name, name, {v.get(), static_cast<size_t>(t[i].numel())});
  };
  RETURN_IF_ERROR(lengths(s.q_lengths, &a->queries, "actualSeqLengthsQuery"));
  RETURN_IF_ERROR(lengths(s.k_lengths, &a->keys, "actualSeqLengthsKv"));
  if (a->queries.batches != a->keys.batches)
    return Error(kParamInvalid, "{}: actualSeqLengthsQuery names {} sequences, actualSeqLengthsKv {}",
                 t.plan().name, a->queries.batches, a->keys.batches);
  a->tokens = TokensOf(a->queries);
  const int32_t* index = m.index.get();
  a->select = [a, &s, index](const QueryToken& token, int64_t kv_head, std::vector<int32_t>* positions) {
    const int64_t keys = a->keys.counts[token.batch];
    const int64_t end = s.causal ? std::min(keys, keys - token.count + token.position + 1) : keys;
    const int32_t* blocks = index + (token.row * a->kv_heads + kv_head) * s.count;
    for (int64_t i = 0; i < s.count && blocks[i] >= 0; ++i) {
      const int64_t first = blocks[i] * s.block, last = std::min(first + s.block, end);
      for (int64_t p = first; p < last; ++p) positions->push_back(static_cast<int32_t>(p));
    }
  };
  return Status();
}

Status RunForward(const Run& t, const SparseFlash& s) {
  const SparseMemory m(t, s);
  SparseAttention a;
  if (!m.ok()) return ScratchFailed(t.plan().name);
  RETURN_IF_ERROR(Bind(t, s, m, &a));
  const DenseOutput out(t[s.out]);
  const Scratch<float> max(s.max >= 0 ? t[s.max].numel() : 0), sum(s.sum >= 0 ? t[s.sum].numel() : 0);
  if (!out.ok() || !max.ok() || !sum.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(out.view().bytes(), out.view().nbytes(), char{0});
  if (s.max >= 0) std::fill_n(max.get(), t[s.max].numel(), -std::numeric_limits<float>::infinity());
  if (s.sum >= 0) std::fill_n(sum.get(), t[s.sum].numel(), 0.0f);
  const DenseWriter<float> writer(out.view());
  const bool ok = RunSparseAttention(a, [&](const SparseResult& r) {
    const int64_t first = r.kv_head * a.group(), n = a.group() * a.value_dim;
    const int64_t at = (r.token.row * a.heads + first) * a.value_dim;
    Convert(writer.data + at * writer.size, writer.dtype, r.out, DType::kFloat, n);
    for (int64_t g = 0; g < a.group() && s.max >= 0; ++g) max[s.StatisticAt(r.token, first + g)] = r.max[g];
    for (int64_t g = 0; g < a.group() && s.sum >= 0; ++g) sum[s.StatisticAt(r.token, first + g)] = r.sum[g];
  });
  if (!ok) return ScratchFailed(t.plan().name);
  out.Finish();
  if (s.max >= 0) StoreValues(t[s.max], max.get());
  if (s.sum >= 0) StoreValues(t[s.sum], sum.get());
  return Status();
}

Status RunGradient(const Run& t, const SparseFlash& s) {
  const SparseMemory m(t, s);
  SparseAttention a;
  const DenseInput out(t[s.out]), dout(t[s.dout]);
  const Values<float> max(t[s.max]), sum(t[s.sum]);
  if (!m.ok() || !out.ok() || !dout.ok() || !max.ok() || !sum.ok()) return ScratchFailed(t.plan().name);
  RETURN_IF_ERROR(Bind(t, s, m, &a));
  const auto memory = [&](int i) { return Scratch<float>(i >= 0 ? t[i].numel() : 0); };
  const Scratch<float> dq = memory(s.dq), dk = memory(s.dk), dv = memory(s.dv), dq_rope = memory(s.dq_rope),
                       dk_rope = memory(s.dk_rope);
  for (const Scratch<float>* p : {&dq, &dk, &dv, &dq_rope, &dk_rope})
    if (!p->ok()) return ScratchFailed(t.plan().name);
  SparseGradients g;
  g.out = DenseReader<float>(out.view()), g.dout = DenseReader<float>(dout.view());
  g.max = [&](const QueryToken& token, int64_t head) { return max[s.StatisticAt(token, head)]; };
  g.sum = [&](const QueryToken& token, int64_t head) { return sum[s.StatisticAt(token, head)]; };
  g.dq = dq.get(), g.dk = dk.get(), g.dv = dv.get(), g.dq_rope = dq_rope.get(), g.dk_rope = dk_rope.get();
  if (!RunSparseGradients(a, g)) return ScratchFailed(t.plan().name);
  StoreValues(t[s.dq], dq.get());
  StoreValues(t[s.dk], dk.get());
  StoreValues(t[s.dv], dv.get());
  if (s.dq_rope >= 0) StoreValues(t[s.dq_rope], dq_rope.get());
  if (s.dk_rope >= 0) StoreValues(t[s.dk_rope], dk_rope.get());
  return Status();
}

struct SparseTensors {
  const aclTensor *query, *key, *value, *index;
  const aclTensor *table = nullptr, *q_lengths = nullptr, *k_lengths = nullptr, *query_rope = nullptr,
                  *key_rope = nullptr, *sinks = nullptr;
  const char *q_layout = nullptr, *k_layout = nullptr;
  double scale = 1;
  int64_t block = 1, sparse_mode = 0;
  int64_t tile = 0, rotated = 0;  // of a quantised key
};

Status RequireFloats(Call& call, const aclTensor* t, const char* name) {
  if (t->view.dtype == DType::kFloat || IsReduced(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected float16, bfloat16 or float32", name, Name(t->view.dtype));
}

// Rows [.., N, D] of a layout; `dim`: 0 until known.
Status ReadRows(Call& call, const aclTensor* t, const char* name, bool levels, SequenceRows* rows,
                int64_t* heads, int64_t* dim) {
  const int rank = rows->layout == RowLayout::kPacked ? 3 : 4;
  RETURN_IF_ERROR(call.RequireRank(t, name, rank, rank));
  if (!levels) RETURN_IF_ERROR(RequireFloats(call, t, name));
  const TensorView& v = t->view;
  rows->rows = v.dims[0] * (rank == 4 ? v.dims[1] : 1);
  rows->length = rank == 4 ? v.dims[1] : 0;
  rows->batches = rank == 4 ? v.dims[0] : 0;
  *heads = v.dims[rank - 2], *dim = v.dims[rank - 1];
  if (rows->rows > 0 && *heads > 0 && *dim > 0) return Status();
  return call.Invalid("{} has shape {}: nothing in it", name, ShapeString(v));
}

// A tensor with `like`'s shape but for its last dimension.
Status RequireLike(Call& call, const aclTensor* t, const char* name, const aclTensor* like, int64_t last) {
  int64_t dims[kMaxRank];
  std::copy_n(like->view.dims, like->view.rank, dims);
  dims[like->view.rank - 1] = last;
  RETURN_IF_ERROR(call.RequireShape(t, name, dims, like->view.rank));
  return RequireFloats(call, t, name);
}

Status RequireIntegers(Call& call, const aclTensor* t, const char* name) {
  if (t == nullptr || IsInteger(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected int32", name, Name(t->view.dtype));
}

Status Prepare(Call& call, SparseTensors& x, Operands* o, SparseFlash* s) {
  SparseAttention& a = s->attention;
  RETURN_IF_ERROR(ReadRowLayout(call, x.q_layout, "layoutQuery", false, &a.queries.layout));
  RETURN_IF_ERROR(ReadRowLayout(call, x.k_layout, "layoutKv", true, &a.keys.layout));
  RETURN_IF_ERROR(ReadRows(call, x.query, "query", false, &a.queries, &a.heads, &a.dim));
  int64_t key_dim;
  RETURN_IF_ERROR(ReadRows(call, x.key, "key", x.tile > 0, &a.keys, &a.kv_heads, &key_dim));
  if (x.tile > 0) {
    s->tile = x.tile, s->rotated = x.rotated;
    a.value_dim = a.dim - x.rotated;
    if (a.value_dim < 1 || x.rotated < 0)
      return call.Invalid("ropeHeadDim is {}, query {} has heads of {}", x.rotated,
                          ShapeString(x.query->view), a.dim);
    const int64_t tiles = (a.value_dim + x.tile - 1) / x.tile;
    const int64_t bytes = a.value_dim + x.rotated * SizeOf(x.query->view.dtype) + 4 * tiles;
    if (x.key->view.dtype != DType::kInt8 || key_dim != bytes)
      return call.Invalid(
          "key is {}, expected rows of {} int8: {} levels, {} numbers of query's type and {} scales",
          Describe(x.key), bytes, a.value_dim, x.rotated, tiles);
    key_dim = a.dim;
  }
  if (key_dim != a.dim || a.heads % a.kv_heads != 0)
    return call.Invalid("query has shape {} and key {}: their heads don't fit each other",
                        ShapeString(x.query->view), ShapeString(x.key->view));
  if (x.tile == 0) {
    a.value_dim = x.value->view.rank > 0 ? x.value->view.dims[x.value->view.rank - 1] : 0;
    RETURN_IF_ERROR(RequireLike(call, x.value, "value", x.key, a.value_dim));
  }
  x.query_rope = Given(x.query_rope), x.key_rope = Given(x.key_rope), x.table = Given(x.table);
  if ((x.query_rope == nullptr) != (x.key_rope == nullptr))
    return call.Invalid("{} is absent, but {} is given", x.query_rope == nullptr ? "queryRope" : "keyRope",
                        x.query_rope == nullptr ? "keyRope" : "queryRope");
  if (x.query_rope != nullptr) {
    a.rope = x.query_rope->view.rank > 0 ? x.query_rope->view.dims[x.query_rope->view.rank - 1] : 0;
    RETURN_IF_ERROR(RequireLike(call, x.query_rope, "queryRope", x.query, a.rope));
    RETURN_IF_ERROR(RequireLike(call, x.key_rope, "keyRope", x.key, a.rope));
  }
  if (a.keys.layout == RowLayout::kPages) {
    if (x.table == nullptr) return call.Invalid("blockTable is absent, but layoutKv is PA_BSND");
    RETURN_IF_ERROR(call.RequireRank(x.table, "blockTable", 2, 2));
    a.keys.columns = x.table->view.dims[1];
  }
  const int index_rank = x.query->view.rank;
  s->count = x.index->view.rank > 0 ? x.index->view.dims[x.index->view.rank - 1] : 0;
  int64_t dims[kMaxRank];
  std::copy_n(x.query->view.dims, index_rank, dims);
  dims[index_rank - 2] = a.kv_heads, dims[index_rank - 1] = s->count;
  RETURN_IF_ERROR(call.RequireShape(x.index, "sparseIndices", dims, index_rank));
  for (const auto& [t, name] :
       {std::pair{x.index, "sparseIndices"}, std::pair{x.table, "blockTable"},
        std::pair{x.q_lengths, "actualSeqLengthsQuery"}, std::pair{x.k_lengths, "actualSeqLengthsKv"}})
    RETURN_IF_ERROR(RequireIntegers(call, t, name));
  if (x.block < 1 || x.block > (int64_t{1} << 20))
    return call.Invalid("sparseBlockSize is {}, expected 1 to {}", x.block, int64_t{1} << 20);
  if (x.sparse_mode != 0 && x.sparse_mode != 3)
    return call.Invalid("sparseMode is {}, expected 0 (all) or 3 (up to the query's own position)",
                        x.sparse_mode);
  if (x.sinks != nullptr) {
    RETURN_IF_ERROR(RequireFloats(call, x.sinks, "sinks"));
    RETURN_IF_ERROR(call.RequireShape(x.sinks, "sinks", &a.heads, 1));
  }
  s->block = x.block, s->causal = x.sparse_mode == 3;
  s->packed_statistics = a.queries.layout == RowLayout::kPacked;
  a.scale = static_cast<float>(x.scale);
  s->query = o->Input(x.query), s->key = o->Input(x.key), s->value = o->Input(x.value);
  s->index = o->Input(x.index), s->table = o->Input(x.table);
  s->q_lengths = o->Input(Given(x.q_lengths)), s->k_lengths = o->Input(Given(x.k_lengths));
  s->query_rope = o->Input(x.query_rope), s->key_rope = o->Input(x.key_rope), s->sinks = o->Input(x.sinks);
  return Status();
}

Status RequireStatistics(Call& call, const aclTensor* t, const char* name, const SparseFlash& s) {
  const SparseAttention& a = s.attention;
  if (t->view.numel() == a.queries.rows * a.heads && IsFloating(t->view.dtype)) return Status();
  return call.Invalid("{} has shape {}, expected [{},{}] with {} numbers", name, ShapeString(t->view),
                      s.packed_statistics ? "N2,T" : "B,N2,S", a.group(), a.queries.rows * a.heads);
}

Cost CostOf(const SparseFlash& s) {
  const SparseAttention& a = s.attention;
  return {2.0 * static_cast<double>(a.queries.rows * a.heads) * static_cast<double>(s.count * s.block) *
              static_cast<double>(a.width() + a.value_dim),
          0};
}

Status LaunchForward(Call& call, SparseTensors x, bool statistics, const aclTensor* out, const aclTensor* max,
                     const aclTensor* sum) {
  SparseFlash s;
  Operands o;
  RETURN_IF_ERROR(Prepare(call, x, &o, &s));
  RETURN_IF_ERROR(RequireLike(call, out, "attentionOut", x.query, s.attention.value_dim));
  if (statistics) {
    RETURN_IF_ERROR(RequireStatistics(call, max, "softmaxMax", s));
    RETURN_IF_ERROR(RequireStatistics(call, sum, "softmaxSum", s));
  }
  s.out = o.Output(out), s.max = o.Output(statistics ? max : nullptr);
  s.sum = o.Output(statistics ? sum : nullptr);
  return call.Launch(o.list(), CostOf(s), [s](const Run& t) { return RunForward(t, s); });
}

}  // namespace

Status aclnn::SparseFlashAttentionV2(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* sparseIndices, const aclTensor* blockTableOptional,
    const aclTensor* actualSeqLengthsQueryOptional, const aclTensor* actualSeqLengthsKvOptional,
    const aclTensor* queryRopeOptional, const aclTensor* keyRopeOptional, const aclTensor* sinksOptional,
    double scaleValue, int64_t sparseBlockSizeOptional, char* layoutQueryOptional, char* layoutKvOptional,
    int64_t sparseMode, int64_t, int64_t, int64_t, bool returnSoftmaxLse, const aclTensor* attentionOut,
    const aclTensor* softmaxMax, const aclTensor* softmaxSum) {
  return LaunchForward(call,
                       {.query = query,
                        .key = key,
                        .value = value,
                        .index = sparseIndices,
                        .table = blockTableOptional,
                        .q_lengths = actualSeqLengthsQueryOptional,
                        .k_lengths = actualSeqLengthsKvOptional,
                        .query_rope = queryRopeOptional,
                        .key_rope = keyRopeOptional,
                        .sinks = sinksOptional,
                        .q_layout = layoutQueryOptional,
                        .k_layout = layoutKvOptional,
                        .scale = scaleValue,
                        .block = sparseBlockSizeOptional,
                        .sparse_mode = sparseMode},
                       returnSoftmaxLse, attentionOut, softmaxMax, softmaxSum);
}

Status aclnn::SparseFlashAttention(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* sparseIndices, const aclTensor* blockTableOptional,
    const aclTensor* actualSeqLengthsQueryOptional, const aclTensor* actualSeqLengthsKvOptional,
    const aclTensor* queryRopeOptional, const aclTensor* keyRopeOptional, double scaleValue,
    int64_t sparseBlockSizeOptional, char* layoutQueryOptional, char* layoutKvOptional, int64_t sparseMode,
    int64_t preTokens, int64_t nextTokens, int64_t attentionMode, bool returnSoftmaxLse,
    const aclTensor* attentionOut, const aclTensor* softmaxMax, const aclTensor* softmaxSum) {
  return SparseFlashAttentionV2(call, query, key, value, sparseIndices, blockTableOptional,
                                actualSeqLengthsQueryOptional, actualSeqLengthsKvOptional, queryRopeOptional,
                                keyRopeOptional, nullptr, scaleValue, sparseBlockSizeOptional,
                                layoutQueryOptional, layoutKvOptional, sparseMode, preTokens, nextTokens,
                                attentionMode, returnSoftmaxLse, attentionOut, softmaxMax, softmaxSum);
}

Status aclnn::SparseFlashAttentionGrad(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* sparseIndices, const aclTensor* dOut, const aclTensor* out, const aclTensor* softmaxMax,
    const aclTensor* softmaxSum, const aclTensor* actualSeqLengthsQueryOptional,
    const aclTensor* actualSeqLengthsKvOptional, const aclTensor* queryRopeOptional,
    const aclTensor* keyRopeOptional, double scaleValue, int64_t sparseBlockSize, char* layoutOptional,
    int64_t sparseMode, int64_t, int64_t, bool, const aclTensor* dQueryOut, const aclTensor* dKeyOut,
    const aclTensor* dValueOut, const aclTensor* dQueryRopeOutOptional,
    const aclTensor* dKeyRopeOutOptional) {
  SparseTensors x{.query = query,
                  .key = key,
                  .value = value,
                  .index = sparseIndices,
                  .q_lengths = actualSeqLengthsQueryOptional,
                  .k_lengths = actualSeqLengthsKvOptional,
                  .query_rope = queryRopeOptional,
                  .key_rope = keyRopeOptional,
                  .q_layout = layoutOptional,
                  .k_layout = layoutOptional,
                  .scale = scaleValue,
                  .block = sparseBlockSize,
                  .sparse_mode = sparseMode};
  SparseFlash s;
  Operands o;
  RETURN_IF_ERROR(Prepare(call, x, &o, &s));
  if (s.attention.keys.layout == RowLayout::kPages)
    return call.Invalid("layoutOptional is {}, expected BSND or TND", layoutOptional);
  const int64_t dv = s.attention.value_dim, rope = s.attention.rope;
  RETURN_IF_ERROR(RequireLike(call, out, "out", query, dv));
  RETURN_IF_ERROR(RequireLike(call, dOut, "dOut", query, dv));
  RETURN_IF_ERROR(RequireStatistics(call, softmaxMax, "softmaxMax", s));
  RETURN_IF_ERROR(RequireStatistics(call, softmaxSum, "softmaxSum", s));
  RETURN_IF_ERROR(RequireLike(call, dQueryOut, "dQuery", query, s.attention.dim));
  RETURN_IF_ERROR(RequireLike(call, dKeyOut, "dKey", key, s.attention.dim));
  RETURN_IF_ERROR(RequireLike(call, dValueOut, "dValue", key, dv));
  if (rope > 0) {
    for (const auto& [t, name, like] : {std::tuple{dQueryRopeOutOptional, "dQueryRope", query},
                                        std::tuple{dKeyRopeOutOptional, "dKeyRope", key}}) {
      if (t == nullptr) return call.Invalid("{} is null, but queryRope is given", name);
      RETURN_IF_ERROR(RequireLike(call, t, name, like, rope));
    }
  }
  s.out = o.Input(out), s.dout = o.Input(dOut), s.max = o.Input(softmaxMax), s.sum = o.Input(softmaxSum);
  s.dq = o.Output(dQueryOut), s.dk = o.Output(dKeyOut), s.dv = o.Output(dValueOut);
  if (rope > 0) s.dq_rope = o.Output(dQueryRopeOutOptional), s.dk_rope = o.Output(dKeyRopeOutOptional);
  Cost cost = CostOf(s);
  cost.flops *= 2.5;
  return call.Launch(o.list(), cost, [s](const Run& t) { return RunGradient(t, s); });
}

Status aclnn::KvQuantSparseFlashAttentionV2(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* sparseIndices, const aclTensor*, const aclTensor*, const aclTensor* blockTableOptional,
    const aclTensor* actualSeqLengthsQueryOptional, const aclTensor* actualSeqLengthsKvOptional,
    const aclTensor* sinks, double scaleValue, int64_t keyQuantMode, int64_t valueQuantMode,
    int64_t sparseBlockSize, char* layoutQuery, char* layoutKv, int64_t sparseMode, int64_t, int64_t,
    int64_t attentionMode, int64_t quantScaleRepoMode, int64_t tileSize, int64_t ropeHeadDim,
    aclTensor* attentionOut) {
  if (keyQuantMode != 2 || valueQuantMode != 2 || quantScaleRepoMode != 1 || attentionMode != 2)
    return call.Invalid(
        "keyQuantMode is {}, valueQuantMode {}, quantScaleRepoMode {} and attentionMode {}, expected 2, 2, 1 "
        "and 2: "
        "tiles of 8-bit levels with their scales in each row, which is key and value",
        keyQuantMode, valueQuantMode, quantScaleRepoMode, attentionMode);
  if (tileSize < 1 || tileSize > (int64_t{1} << 20))
    return call.Invalid("tileSize is {}, expected 1 to {}", tileSize, int64_t{1} << 20);
  if (ropeHeadDim < 0 || ropeHeadDim > (int64_t{1} << 20))
    return call.Invalid("ropeHeadDim is {}, expected 0 to {}", ropeHeadDim, int64_t{1} << 20);
  return LaunchForward(call,
                       {.query = query,
                        .key = key,
                        .value = value,
                        .index = sparseIndices,
                        .table = blockTableOptional,
                        .q_lengths = actualSeqLengthsQueryOptional,
                        .k_lengths = actualSeqLengthsKvOptional,
                        .sinks = Given(sinks),
                        .q_layout = layoutQuery,
                        .k_layout = layoutKv,
                        .scale = scaleValue,
                        .block = sparseBlockSize,
                        .sparse_mode = sparseMode,
                        .tile = tileSize,
                        .rotated = ropeHeadDim},
                       false, attentionOut, nullptr, nullptr);
}

Status aclnn::KvQuantSparseFlashAttention(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* sparseIndices, const aclTensor* keyDequantScaleOptional,
    const aclTensor* valueDequantScaleOptional, const aclTensor* blockTableOptional,
    const aclTensor* actualSeqLengthsQueryOptional, const aclTensor* actualSeqLengthsKvOptional,
    double scaleValue, int64_t keyQuantMode, int64_t valueQuantMode, int64_t sparseBlockSize,
    const char* layoutQueryOptional, const char* layoutKvOptional, int64_t sparseMode, int64_t preTokens,
    int64_t nextTokens, int64_t attentionMode, int64_t quantScaleRepoMode, int64_t tileSize,
    int64_t ropeHeadDim, const aclTensor* attentionOutOut) {
  return KvQuantSparseFlashAttentionV2(
      call, query, key, value, sparseIndices, keyDequantScaleOptional, valueDequantScaleOptional,
      blockTableOptional, actualSeqLengthsQueryOptional, actualSeqLengthsKvOptional, nullptr, scaleValue,
      keyQuantMode, valueQuantMode, sparseBlockSize, const_cast<char*>(layoutQueryOptional),
      const_cast<char*>(layoutKvOptional), sparseMode, preTokens, nextTokens, attentionMode,
      quantScaleRepoMode, tileSize, ropeHeadDim, const_cast<aclTensor*>(attentionOutOut));
}

}  // namespace anycann
