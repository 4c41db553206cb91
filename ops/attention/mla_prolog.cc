// MlaProlog: what multi-head latent attention computes before its scores: the query through two low-rank
// projections, with its rotary part, and the row of the caches that each token gets. As torch_npu documents
// npu_mla_prolog to npu_mla_prolog_v3.
#include <algorithm>
#include <cstring>
#include <string_view>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/cache/cache_target.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"
#include "ops/quant/integer_matrix.h"
#include "ops/quant/row_quant.h"
#include "ops/quant/scaled_product.h"

namespace anycann {
namespace {

// How a token finds its row of the caches.
enum class Places { kIndex, kBlockIndex, kInOrder };

struct Parameters {
  const aclTensor *x, *w_dq, *w_uq_qr, *w_uk, *w_dkv_kr, *gamma_cq, *gamma_ckv, *sin, *cos, *index;
  const aclTensor *kv_cache, *kr_cache;
  const aclTensor *scale_x, *scale_w_dq, *scale_w_uq_qr, *scale_w_dkv_kr, *scale_ckv, *scale_ckr, *smooth;
  const aclTensor *lengths = nullptr, *clip_alpha = nullptr;
  double epsilon_cq = 0, epsilon_ckv = 0;
  const char* cache_mode = nullptr;
  int64_t tile = 0;  // > 0: kv_cache has 8-bit rows with a scale for each tile, and the rotary part behind
  double query_scale = 1, key_scale = 1;
  const aclTensor *query, *query_rope, *query_levels_scale = nullptr, *norm = nullptr,
                                       *norm_levels_scale = nullptr;
};

struct Weight {
  IntegerMatrix matrix;
  int operand = -1;
  bool integers() const { return matrix.view.dtype == DType::kInt8; }
};

struct MlaPrologPlan {
  int64_t tokens = 0, batches = 0, heads = 0, hidden = 0;
  int64_t low_query = 0, plain = 0, rotary = 0, low_key = 0;  // Hcq, D, Dr, Hckv
  Weight w_dq, w_uq_qr, w_dkv_kr;
  float epsilon_cq = 0, epsilon_ckv = 0, query_scale = 1, key_scale = 1;
  Places places = Places::kIndex;
  int64_t tile = 0;
  PagedCache kv, kr;
  int x = -1, w_uk = -1, gamma_cq = -1, gamma_ckv = -1, sin = -1, cos = -1, index = -1, lengths = -1;
  int scale_x = -1, scale_w_dq = -1, scale_w_uq_qr = -1, scale_w_dkv_kr = -1, scale_ckv = -1, scale_ckr = -1,
      smooth = -1, clip_alpha = -1;
  int kv_cache = -1, kr_cache = -1, query = -1, query_rope = -1, query_levels_scale = -1, norm = -1,
      norm_levels_scale = -1;

  int64_t head_width() const { return plain + rotary; }
  int64_t key_width() const { return low_key + rotary; }
  int64_t tiles() const { return (low_key + tile - 1) / tile; }
};

TensorView Floats(const Scratch<float>& s, int64_t rows, int64_t columns) {
  return TensorView::Contiguous(s.get(), DType::kFloat, {rows, columns});
}

// x @ w as floats; integers with their scales. row_scale: one for each row, nullptr without.
Status Project(const Run& t, const TensorView& x, const Weight& w, const float* row_scale, int column_scale,
               const TensorView& y) {
  Buffer<int8_t> memory;
  TensorView numbers;
  RETURN_IF_ERROR(ResolveWeight(t.plan().name, w.matrix, t[w.operand], &memory, &numbers));
  if (!w.integers()) return Gemm(MakeGemm(x, numbers, y, nullptr));
  const Values<float> column(t[column_scale]);
  if (!column.ok()) return ScratchFailed(t.plan().name);
  ProductScales s;
  s.column = column.get();
  s.per_column = true;
  s.row = row_scale;
  s.row_count = y.dims[0];
  return RunScaledProduct(t.plan().name, x, numbers, y, s);
}

// Rows [rows, n] of floats as 8-bit levels, each row by its own largest value.
bool Quantise(float* values, int64_t rows, int64_t n, const float* smooth, const TensorView& levels,
              float* scales) {
  const RowFormat format{rows, n};
  const QuantRows to(format, levels);
  return ForEachRow(rows, n, [&](int64_t r, float* row) {
    std::copy_n(values + r * n, n, row);
    for (int64_t i = 0; i < n && smooth != nullptr; ++i) row[i] *= smooth[i];
    scales[r] = n > 0 ? RowScale::Of(row, n).Scale(format, true) : 0;
    RowScale::Apply(row, n, scales[r], 0);
    to.Store(r, row);
  });
}

Status ReadSlots(const Run& t, const MlaPrologPlan& p, int64_t* slots) {
  const int64_t page = p.kv.page, most = p.kv.slots();
  if (p.places == Places::kInOrder) {
    for (int64_t i = 0; i < p.tokens; ++i) slots[i] = i;
    return Status();
  }
  const Values<int64_t> index(t[p.index]);
  const Values<int64_t> ends(t, p.lengths);
  if (!index.ok() || !ends.ok()) return ScratchFailed(t.plan().name);
  const int64_t entries = t[p.index].numel();
  const int64_t batches = p.lengths >= 0 ? t[p.lengths].numel() : p.batches;
  std::fill_n(slots, p.tokens, -1);
  int64_t token = 0, entry = 0;
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t end = std::min(p.tokens, p.lengths >= 0 ? ends[b] : (b + 1) * (p.tokens / p.batches));
    const int64_t begin = token;
    for (; token < end; ++token) {
      const bool blocks = p.places == Places::kBlockIndex;
      const int64_t at = blocks ? entry + (token - begin) / page : token;
      if (at >= entries)
        return Error(kParamInvalid, "{}: cacheIndex has {} values, too few for {} tokens", t.plan().name,
                     entries, p.tokens);
      if (index[at] >= (blocks ? p.kv.pages : most))
        return Error(kParamInvalid, "{}: cacheIndex has {}, expected a value below {}", t.plan().name,
                     index[at], blocks ? p.kv.pages : most);
      if (index[at] < 0) continue;
      slots[token] = blocks ? index[at] * page + (token - begin) % page : index[at];
    }
    if (page > 0) entry += (token - begin + page - 1) / page;
  }
  return Status();
}

// A row of 8-bit levels, the rotary part as it is (bfloat16), and the scales of the tiles.
void StoreTiles(const MlaPrologPlan& p, char* data, DType rotary_type, int64_t slot, const float* key,
                const float* turned, float alpha, float* buffer) {
  char* at = data + slot * p.kv.width;
  char* scales = at + p.low_key + p.rotary * SizeOf(rotary_type);
  for (int64_t i = 0, n; i < p.low_key; i += n) {
    n = std::min(p.tile, p.low_key - i);
    const float scale = RowScale::Of(key + i, n).Scale(RowFormat{1, n}, true) * alpha;
    std::copy_n(key + i, n, buffer);
    RowScale::Apply(buffer, n, scale, 0);
    for (int64_t j = 0; j < n; ++j)
      at[i + j] = static_cast<char>(std::clamp(std::nearbyint(buffer[j]), -128.0f, 127.0f));
    std::memcpy(scales + i / p.tile * sizeof(float), &scale, sizeof(float));
  }
  Convert(at + p.low_key, rotary_type, turned, DType::kFloat, p.rotary);
}

// Values as a client's device keeps them between steps, where it keeps half precision.
void RoundTo(DType type, float* v, int64_t n) {
  if (!IsReduced(type)) return;
  constexpr int64_t kPart = 1024;
  ParallelFor((n + kPart - 1) / kPart, 8, [&](int64_t begin, int64_t end) {
    uint16_t half[kPart];
    for (int64_t i = begin * kPart; i < std::min(n, end * kPart); i += kPart) {
      const int64_t count = std::min(kPart, n - i);
      Convert(half, type, v + i, DType::kFloat, count);
      Convert(v + i, DType::kFloat, half, type, count);
    }
  });
}

struct Angles {
  const float *sin, *cos;
};

// The key's side: a row of each cache.
Status RunKey(const Run& t, const MlaPrologPlan& p, const TensorView& x, const float* scale_x,
              const Angles& angles) {
  const bool plain = p.tile == 0;
  if (p.kv_cache < 0 && p.kr_cache < 0) return Status();
  const Scratch<float> low(p.tokens * p.key_width());
  const Scratch<int64_t> slots(p.tokens);
  const Values<float> gamma(t[p.gamma_ckv]), clip(t, p.clip_alpha);
  if (!low.ok() || !slots.ok() || !gamma.ok() || !clip.ok()) return ScratchFailed(t.plan().name);
  RETURN_IF_ERROR(ReadSlots(t, p, slots.get()));
  RETURN_IF_ERROR(Project(t, x, p.w_dkv_kr, scale_x, p.scale_w_dkv_kr, Floats(low, p.tokens, p.key_width())));
  std::vector<CacheTarget> targets;
  if (plain && p.kv_cache >= 0) targets.emplace_back(t, p.kv, p.kv_cache, p.scale_ckv, -1, -1, p.low_key);
  if (plain && p.kr_cache >= 0) targets.emplace_back(t, p.kr, p.kr_cache, p.scale_ckr, -1, -1, p.rotary);
  for (const CacheTarget& target : targets)
    if (!target.ok()) return ScratchFailed(t.plan().name);
  const float alpha = clip.get() != nullptr ? clip[0] : 1.0f;
  const DType rotary_type = t[p.query_rope].dtype;
  const bool ok = ForEachRow(p.tokens, 2 * p.key_width(), [&](int64_t i, float* row) {
    if (slots[i] < 0) return;
    const float* from = low.get() + i * p.key_width();
    float *key = row, *turned = row + p.low_key, *buffer = row + p.key_width();
    NormaliseRow(from, gamma.get(), p.epsilon_ckv, p.low_key, key);
    for (int64_t j = 0; j < p.low_key && p.key_scale != 1; ++j) key[j] *= p.key_scale;
    RotatePairs(from + p.low_key, angles.cos + i * p.rotary, angles.sin + i * p.rotary, p.rotary, turned);
    if (!plain)
      return StoreTiles(p, t[p.kv_cache].bytes(), rotary_type, slots[i], key, turned, alpha, buffer);
    size_t target = 0;
    if (p.kv_cache >= 0) targets[target++].Store(i, slots[i], key, buffer);
    if (p.kr_cache >= 0) targets[target].Store(i, slots[i], turned, buffer);
  });
  return ok ? Status() : ScratchFailed(t.plan().name);
}

// norm [T,Hcq] through weight_uq_qr, as floats [T,N*(D+Dr)]; what was quantised for it goes out where asked.
Status ProjectUp(const Run& t, const MlaPrologPlan& p, const Scratch<float>& norm, const TensorView& both) {
  const TensorView rows = Floats(norm, p.tokens, p.low_query);
  if (!p.w_uq_qr.integers()) {
    if (p.norm >= 0) StoreValues(t[p.norm], norm.get());
    return Project(t, rows, p.w_uq_qr, nullptr, -1, both);
  }
  const Values<float> smooth(t, p.smooth);
  const Scratch<int8_t> levels(p.tokens * p.low_query);
  const Scratch<float> scales(p.tokens);
  if (!smooth.ok() || !levels.ok() || !scales.ok()) return ScratchFailed(t.plan().name);
  const TensorView numbers = TensorView::Contiguous(levels.get(), DType::kInt8, {p.tokens, p.low_query});
  if (!Quantise(norm.get(), p.tokens, p.low_query, smooth.get(), numbers, scales.get()))
    return ScratchFailed(t.plan().name);
  if (p.norm >= 0) StoreValues(t[p.norm], levels.get());
  if (p.norm_levels_scale >= 0) StoreValues(t[p.norm_levels_scale], scales.get());
  return Project(t, numbers, p.w_uq_qr, scales.get(), p.scale_w_uq_qr, both);
}

// The plain part of each head through weight_uk: [T,N,Hckv]. With levels, `scales` gets one for each row.
Status RunQueryPlain(const Run& t, const MlaPrologPlan& p, const TensorView& heads, float* scales) {
  const TensorView plain = heads.Narrow(2, 0, p.plain).Transpose(0, 1);
  const DenseOutput query(t[p.query]);
  if (!query.ok()) return ScratchFailed(t.plan().name);
  const auto rows = [&](void* data, DType dtype) {
    return TensorView::Contiguous(data, dtype, {p.tokens, p.heads, p.low_key});
  };
  if (t[p.query].dtype != DType::kInt8) {
    const TensorView to = rows(query.view().data, query.view().dtype);
    RETURN_IF_ERROR(Gemm(MakeGemm(plain, t[p.w_uk], to.Transpose(0, 1), nullptr)));
  } else {
    const int64_t count = p.tokens * p.heads;
    const Scratch<float> values(count * p.low_key);
    if (!values.ok()) return ScratchFailed(t.plan().name);
    const TensorView to = rows(values.get(), DType::kFloat);
    RETURN_IF_ERROR(Gemm(MakeGemm(plain, t[p.w_uk], to.Transpose(0, 1), nullptr)));
    RoundTo(t[p.query_rope].dtype, values.get(), count * p.low_key);
    if (!Quantise(values.get(), count, p.low_key, nullptr, query.view(), scales))
      return ScratchFailed(t.plan().name);
    if (p.query_levels_scale >= 0) StoreValues(t[p.query_levels_scale], scales);
  }
  query.Finish();
  return Status();
}

// The query's side. The rotary part of a quantised query is in units of its levels times those of the cache.
Status RunQuery(const Run& t, const MlaPrologPlan& p, const TensorView& x, const float* scale_x,
                const Angles& angles) {
  const int64_t width = p.heads * p.head_width(), count = p.tokens * p.heads;
  const Scratch<float> low(p.tokens * p.low_query), both(p.tokens * width), scales(count);
  const Values<float> gamma(t[p.gamma_cq]), cache_scale(t, p.scale_ckv);
  const DenseOutput turned(t[p.query_rope]);
  if (!low.ok() || !both.ok() || !scales.ok() || !gamma.ok() || !cache_scale.ok() || !turned.ok())
    return ScratchFailed(t.plan().name);
  RETURN_IF_ERROR(Project(t, x, p.w_dq, scale_x, p.scale_w_dq, Floats(low, p.tokens, p.low_query)));
  RoundTo(x.dtype, low.get(), p.tokens * p.low_query);
  ParallelFor(p.tokens, std::max<int64_t>(1, 8192 / p.low_query), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = low.get() + i * p.low_query;
      NormaliseRow(row, gamma.get(), p.epsilon_cq, p.low_query, row);
      for (int64_t j = 0; j < p.low_query && p.query_scale != 1; ++j) row[j] *= p.query_scale;
    }
  });
  const bool floats = !p.w_uq_qr.integers();
  if (floats) RoundTo(x.dtype, low.get(), p.tokens * p.low_query);
  RETURN_IF_ERROR(ProjectUp(t, p, low, Floats(both, p.tokens, width)));
  if (floats) RoundTo(x.dtype, both.get(), p.tokens * width);
  for (int64_t r = 0; r < count && !floats; ++r)
    RoundTo(t[p.w_uk].dtype, both.get() + r * p.head_width(), p.plain);
  const TensorView heads =
      TensorView::Contiguous(both.get(), DType::kFloat, {p.tokens, p.heads, p.head_width()});
  RETURN_IF_ERROR(RunQueryPlain(t, p, heads, scales.get()));
  const DenseWriter<float> writer(turned.view());
  const bool levels = t[p.query].dtype == DType::kInt8;
  const bool ok = ForEachRow(count, p.rotary, [&](int64_t r, float* buffer) {
    const int64_t i = r / p.heads;
    float* y = writer.Begin(r * p.rotary, buffer);
    RotatePairs(both.get() + r * p.head_width() + p.plain, angles.cos + i * p.rotary,
                angles.sin + i * p.rotary, p.rotary, y);
    if (levels) {
      RoundTo(turned.view().dtype, y, p.rotary);
      const float unit = scales[r] == 0 ? 0 : (cache_scale.get() != nullptr ? cache_scale[0] : 1) / scales[r];
      for (int64_t j = 0; j < p.rotary; ++j) y[j] *= unit;
    }
    writer.End(r * p.rotary, p.rotary, y);
  });
  if (!ok) return ScratchFailed(t.plan().name);
  turned.Finish();
  return Status();
}

Status RunMlaProlog(const Run& t, const MlaPrologPlan& p) {
  const DenseInput x(t[p.x]);
  const Values<float> scale_x(t, p.scale_x), sin(t[p.sin]), cos(t[p.cos]);
  if (!x.ok() || !scale_x.ok() || !sin.ok() || !cos.ok()) return ScratchFailed(t.plan().name);
  const TensorView rows = TensorView::Contiguous(x.view().data, x.view().dtype, {p.tokens, p.hidden});
  const Angles angles{sin.get(), cos.get()};
  RETURN_IF_ERROR(RunQuery(t, p, rows, scale_x.get(), angles));
  return RunKey(t, p, rows, scale_x.get(), angles);
}

Status RequireElements(Call& call, const aclTensor* t, const char* name, int64_t elements) {
  if (t->view.numel() == elements) return Status();
  return call.Invalid("{} has shape {}, expected {} elements", name, ShapeString(t->view), elements);
}
Status ReadSizes(Call& call, const Parameters& in, MlaPrologPlan* p) {
  RETURN_IF_ERROR(call.RequireRank(in.x, "tokenX", 2, 3));
  RETURN_IF_ERROR(call.RequireRank(in.w_dq, "weightDq", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(in.w_uk, "weightUk", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(in.w_dkv_kr, "weightDkvKr", 2, 2));
  const TensorView &x = in.x->view, &uk = in.w_uk->view;
  p->hidden = in.w_dq->view.dims[0];
  p->heads = uk.dims[0], p->plain = uk.dims[1], p->low_key = uk.dims[2];
  p->low_query = in.w_dq->view.dims[1];
  p->rotary = in.w_dkv_kr->view.dims[1] - p->low_key;
  p->tokens = x.numel() / std::max<int64_t>(x.dims[x.rank - 1], 1);
  p->batches = x.rank == 3 ? x.dims[0] : 1;
  if (p->hidden < 1 || x.dims[x.rank - 1] != p->hidden || p->rotary < 0 || p->rotary % 2 != 0 ||
      p->heads < 1 || p->low_query < 1 || p->low_key < 1)
    return call.Invalid(
        "tokenX has shape {}, weightDq {}, weightUk {} and weightDkvKr {}: they don't fit together",
        ShapeString(x), ShapeString(in.w_dq->view), ShapeString(uk), ShapeString(in.w_dkv_kr->view));
  const int64_t uq_qr[] = {p->low_query, p->heads * p->head_width()}, dkv_kr[] = {p->hidden, p->key_width()};
  RETURN_IF_ERROR(call.RequireShape(in.w_uq_qr, "weightUqQr", uq_qr, 2));
  RETURN_IF_ERROR(call.RequireShape(in.w_dkv_kr, "weightDkvKr", dkv_kr, 2));
  RETURN_IF_ERROR(call.RequireFloats(in.w_uk, "weightUk", uk.numel()));
  RETURN_IF_ERROR(call.RequireFloats(in.gamma_cq, "rmsnormGammaCq", p->low_query));
  RETURN_IF_ERROR(call.RequireFloats(in.gamma_ckv, "rmsnormGammaCkv", p->low_key));
  RETURN_IF_ERROR(call.RequireFloats(in.sin, "ropeSin", p->tokens * p->rotary));
  RETURN_IF_ERROR(call.RequireFloats(in.cos, "ropeCos", p->tokens * p->rotary));
  RETURN_IF_ERROR(RequireElements(call, in.query, "queryOut", p->tokens * p->heads * p->low_key));
  return call.RequireFloats(in.query_rope, "queryRopeOut", p->tokens * p->heads * p->rotary);
}

// A weight of integers comes with the scales of its columns, and x of integers with those of its rows.
Status CheckWeight(Call& call, const aclTensor* w, const char* name, const aclTensor* scale,
                   const char* scale_name, int64_t columns) {
  const bool integers = w->view.dtype == DType::kInt8;
  if (!integers && !IsFloating(w->view.dtype))
    return call.Invalid("{} has type {}, expected int8 or a floating type", name, Name(w->view.dtype));
  if (integers != (scale != nullptr))
    return call.Invalid("{} is {} and {} is {}: int8 goes with a scale", name, Describe(w), scale_name,
                        scale == nullptr ? "absent" : "given");
  return integers ? call.RequireFloats(scale, scale_name, columns) : Status();
}

Status CheckQuantisation(Call& call, const Parameters& in, const MlaPrologPlan& p) {
  RETURN_IF_ERROR(
      CheckWeight(call, in.w_dq, "weightDq", in.scale_w_dq, "dequantScaleWDqOptional", p.low_query));
  RETURN_IF_ERROR(CheckWeight(call, in.w_dkv_kr, "weightDkvKr", in.scale_w_dkv_kr,
                              "dequantScaleWDkvKrOptional", p.key_width()));
  RETURN_IF_ERROR(CheckWeight(call, in.w_uq_qr, "weightUqQr", in.scale_w_uq_qr, "dequantScaleWUqQrOptional",
                              in.w_uq_qr->view.dims[1]));
  RETURN_IF_ERROR(CheckWeight(call, in.x, "tokenX", in.scale_x, "dequantScaleXOptional", p.tokens));
  for (const auto& [w, name] : {std::pair{in.w_dq, "weightDq"}, std::pair{in.w_dkv_kr, "weightDkvKr"}})
    if ((w->view.dtype == DType::kInt8) != (in.x->view.dtype == DType::kInt8))
      return call.Invalid("tokenX is {} and {} {}: both are int8, or none", Describe(in.x), name,
                          Describe(w));
  if (in.smooth != nullptr) {
    if (in.w_uq_qr->view.dtype != DType::kInt8)
      return call.Invalid("smoothScalesCqOptional is given, but weightUqQr is {}: only an int8 one has it",
                          Describe(in.w_uq_qr));
    RETURN_IF_ERROR(call.RequireFloats(in.smooth, "smoothScalesCqOptional", p.low_query));
  }
  const DType query = in.query->view.dtype;
  if (query != DType::kInt8 && !IsFloating(query))
    return call.Invalid("queryOut has type {}, expected int8 or a floating type", Name(query));
  if (query == DType::kInt8) {
    if (in.query_levels_scale == nullptr)
      return call.Invalid("queryOut is int8, but dequantScaleQNopeOutOptional is absent");
    RETURN_IF_ERROR(
        call.RequireFloats(in.query_levels_scale, "dequantScaleQNopeOutOptional", p.tokens * p.heads));
  }
  if (in.norm == nullptr) return Status();
  RETURN_IF_ERROR(RequireElements(call, in.norm, "queryNormOutOptional", p.tokens * p.low_query));
  const bool levels = in.w_uq_qr->view.dtype == DType::kInt8;
  if (levels ? in.norm->view.dtype != DType::kInt8 : !IsFloating(in.norm->view.dtype))
    return call.Invalid("queryNormOutOptional has type {} with weightUqQr {}", Name(in.norm->view.dtype),
                        Describe(in.w_uq_qr));
  if (levels && in.norm_levels_scale != nullptr)
    return call.RequireFloats(in.norm_levels_scale, "dequantScaleQNormOutOptional", p.tokens);
  return Status();
}

// A cache of rows of `width`, with a scale where it has 8 bits. An empty one is left alone.
Status ReadCache(Call& call, const aclTensor* t, const char* name, int64_t width, bool pieces,
                 const aclTensor* scale, const char* scale_name, PagedCache* cache) {
  if (t->view.empty()) return Status();
  RETURN_IF_ERROR(pieces ? ReadHiddenPieces(call, t, name, width, cache)
                         : ReadPagedRows(call, t, name, width, cache));
  RETURN_IF_ERROR(CheckWeight(call, t, name, scale, scale_name, scale == nullptr ? 0 : scale->view.numel()));
  if (scale == nullptr || scale->view.numel() == 1) return Status();
  return RequireElements(call, scale, scale_name, width);
}

Status ReadCaches(Call& call, const Parameters& in, MlaPrologPlan* p) {
  const std::string_view mode = in.cache_mode == nullptr || *in.cache_mode == 0 ? "PA_BSND" : in.cache_mode;
  const bool pieces = mode == "PA_NZ" || mode == "PA_BLK_NZ";
  if (mode == "BSND" || mode == "TND")
    p->places = Places::kInOrder;
  else if (mode == "PA_BLK_BSND" || mode == "PA_BLK_NZ")
    p->places = Places::kBlockIndex;
  else if (mode != "PA_BSND" && mode != "PA_NZ")
    return call.Invalid(
        "cacheModeOptional is {}, expected PA_BSND, PA_NZ, PA_BLK_BSND, PA_BLK_NZ, BSND or TND", mode);
  p->tile = std::min(in.tile, p->low_key);
  if (p->tile > 0) {
    if (pieces) return call.Invalid("cacheModeOptional is {}, but a cache with tiles has whole rows", mode);
    if (in.kv_cache->view.dtype != DType::kInt8)
      return call.Invalid("kvCacheRef has type {}, expected int8 with kvCacheQuantMode 3",
                          Name(in.kv_cache->view.dtype));
    const int64_t width = p->low_key + p->rotary * SizeOf(in.query_rope->view.dtype) +
                          p->tiles() * static_cast<int64_t>(sizeof(float));
    if (!in.kv_cache->view.empty())
      RETURN_IF_ERROR(ReadPagedRows(call, in.kv_cache, "kvCacheRef", width, &p->kv));
  } else {
    RETURN_IF_ERROR(ReadCache(call, in.kv_cache, "kvCacheRef", p->low_key, pieces, in.scale_ckv,
                              "quantScaleCkvOptional", &p->kv));
    RETURN_IF_ERROR(ReadCache(call, in.kr_cache, "krCacheRef", p->rotary, pieces, in.scale_ckr,
                              "quantScaleCkrOptional", &p->kr));
    if (p->kv.slots() > 0 && p->kr.slots() > 0 && (p->kv.pages != p->kr.pages || p->kv.page != p->kr.page))
      return call.Invalid("kvCacheRef {} and krCacheRef {} have other blocks", ShapeString(in.kv_cache->view),
                          ShapeString(in.kr_cache->view));
    if (p->kv.slots() == 0) p->kv.pages = p->kr.pages, p->kv.page = p->kr.page;
  }
  if (p->kv.slots() == 0) return Status();
  if (p->places == Places::kInOrder) {
    if (p->kv.slots() != p->tokens)
      return call.Invalid("kvCacheRef has shape {}, expected a row for each of {} tokens with {}",
                          ShapeString(in.kv_cache->view), p->tokens, mode);
    return Status();
  }
  if (in.index == nullptr) return call.Invalid("cacheIndexOptional is absent, but {} needs it", mode);
  if (!IsInteger(in.index->view.dtype))
    return call.Invalid("cacheIndex has type {}, expected int64", Name(in.index->view.dtype));
  if (p->places == Places::kIndex) return RequireElements(call, in.index, "cacheIndex", p->tokens);
  if (in.lengths != nullptr && !IsInteger(in.lengths->view.dtype))
    return call.Invalid("actualSeqLenOptional has type {}, expected int32", Name(in.lengths->view.dtype));
  return Status();
}

Status Launch(Call& call, Parameters in) {
  for (const aclTensor** t : {&in.scale_x, &in.scale_w_dq, &in.scale_w_uq_qr, &in.scale_w_dkv_kr,
                              &in.scale_ckv, &in.scale_ckr, &in.smooth, &in.lengths, &in.clip_alpha})
    if (*t != nullptr && (*t)->view.empty()) *t = nullptr;
  MlaPrologPlan p;
  RETURN_IF_ERROR(ReadSizes(call, in, &p));
  if (in.x->view.dtype != DType::kInt8) in.scale_x = nullptr;
  if (p.tokens == 0) return call.Nothing();
  RETURN_IF_ERROR(CheckQuantisation(call, in, p));
  RETURN_IF_ERROR(ReadCaches(call, in, &p));
  if (in.clip_alpha != nullptr) RETURN_IF_ERROR(call.RequireFloats(in.clip_alpha, "kNopeClipAlpha", 1));
  p.epsilon_cq = static_cast<float>(in.epsilon_cq), p.epsilon_ckv = static_cast<float>(in.epsilon_ckv);
  p.query_scale = static_cast<float>(in.query_scale), p.key_scale = static_cast<float>(in.key_scale);
  Operands o;
  p.x = o.Input(in.x);
  const auto weight = [&](const aclTensor* t, const char* name, Weight* w) -> Status {
    Arg arg = In(t);
    RETURN_IF_ERROR(ReadWeight(call, t, name, false, &w->matrix, &arg));
    w->operand = o.Input(arg);
    return Status();
  };
  RETURN_IF_ERROR(weight(in.w_dq, "weightDq", &p.w_dq));
  RETURN_IF_ERROR(weight(in.w_uq_qr, "weightUqQr", &p.w_uq_qr));
  RETURN_IF_ERROR(weight(in.w_dkv_kr, "weightDkvKr", &p.w_dkv_kr));
  p.w_uk = o.Input(in.w_uk);
  p.gamma_cq = o.Input(in.gamma_cq), p.gamma_ckv = o.Input(in.gamma_ckv);
  p.sin = o.Input(in.sin), p.cos = o.Input(in.cos);
  p.index = o.Input(p.places == Places::kInOrder ? nullptr : in.index);
  p.lengths = o.Input(p.places == Places::kBlockIndex ? in.lengths : nullptr);
  p.scale_x = o.Input(in.scale_x), p.scale_w_dq = o.Input(in.scale_w_dq);
  p.scale_w_uq_qr = o.Input(in.scale_w_uq_qr), p.scale_w_dkv_kr = o.Input(in.scale_w_dkv_kr);
  const bool levels = in.query->view.dtype == DType::kInt8;
  // A quantised query has one unit for all of the cache: the first value, as op-plugin's reference takes it.
  if (levels && in.scale_ckv != nullptr)
    p.scale_ckv = o.Input(In(in.scale_ckv, in.scale_ckv->view.Narrow(in.scale_ckv->view.rank - 1, 0, 1)));
  else
    p.scale_ckv = o.Input(in.scale_ckv);
  p.scale_ckr = o.Input(in.scale_ckr);
  p.smooth = o.Input(in.smooth), p.clip_alpha = o.Input(in.clip_alpha);
  p.kv_cache = o.Output(in.kv_cache->view.empty() ? nullptr : in.kv_cache);
  p.kr_cache = o.Output(in.kr_cache->view.empty() || p.tile > 0 ? nullptr : in.kr_cache);
  p.query = o.Output(in.query), p.query_rope = o.Output(in.query_rope);
  p.query_levels_scale = o.Output(levels ? in.query_levels_scale : nullptr);
  p.norm = o.Output(in.norm);
  p.norm_levels_scale = o.Output(p.norm >= 0 && p.w_uq_qr.integers() ? in.norm_levels_scale : nullptr);
  const double flops = 2.0 * static_cast<double>(p.tokens) *
                       static_cast<double>(p.hidden * (p.low_query + p.key_width()) +
                                           p.heads * (p.low_query * p.head_width() + p.plain * p.low_key));
  return call.Launch(o.list(), Cost{flops, o.bytes()}, [p](const Run& t) { return RunMlaProlog(t, p); });
}

}  // namespace

Status aclnn::MlaPrologV2WeightNz(
    Call& call, const aclTensor* tokenX, const aclTensor* weightDq, const aclTensor* weightUqQr,
    const aclTensor* weightUk, const aclTensor* weightDkvKr, const aclTensor* rmsnormGammaCq,
    const aclTensor* rmsnormGammaCkv, const aclTensor* ropeSin, const aclTensor* ropeCos,
    const aclTensor* cacheIndex, aclTensor* kvCacheRef, aclTensor* krCacheRef,
    const aclTensor* dequantScaleXOptional, const aclTensor* dequantScaleWDqOptional,
    const aclTensor* dequantScaleWUqQrOptional, const aclTensor* dequantScaleWDkvKrOptional,
    const aclTensor* quantScaleCkvOptional, const aclTensor* quantScaleCkrOptional,
    const aclTensor* smoothScalesCqOptional, double rmsnormEpsilonCq, double rmsnormEpsilonCkv,
    char* cacheModeOptional, const aclTensor* queryOut, const aclTensor* queryRopeOut,
    const aclTensor* dequantScaleQNopeOutOptional) {
  return Launch(call, {.x = tokenX,
                       .w_dq = weightDq,
                       .w_uq_qr = weightUqQr,
                       .w_uk = weightUk,
                       .w_dkv_kr = weightDkvKr,
                       .gamma_cq = rmsnormGammaCq,
                       .gamma_ckv = rmsnormGammaCkv,
                       .sin = ropeSin,
                       .cos = ropeCos,
                       .index = cacheIndex,
                       .kv_cache = kvCacheRef,
                       .kr_cache = krCacheRef,
                       .scale_x = dequantScaleXOptional,
                       .scale_w_dq = dequantScaleWDqOptional,
                       .scale_w_uq_qr = dequantScaleWUqQrOptional,
                       .scale_w_dkv_kr = dequantScaleWDkvKrOptional,
                       .scale_ckv = quantScaleCkvOptional,
                       .scale_ckr = quantScaleCkrOptional,
                       .smooth = smoothScalesCqOptional,
                       .epsilon_cq = rmsnormEpsilonCq,
                       .epsilon_ckv = rmsnormEpsilonCkv,
                       .cache_mode = cacheModeOptional,
                       .query = queryOut,
                       .query_rope = queryRopeOut,
                       .query_levels_scale = dequantScaleQNopeOutOptional});
}

Status aclnn::MlaProlog(Call& call, const aclTensor* tokenX, const aclTensor* weightDq,
                        const aclTensor* weightUqQr, const aclTensor* weightUk, const aclTensor* weightDkvKr,
                        const aclTensor* rmsnormGammaCq, const aclTensor* rmsnormGammaCkv,
                        const aclTensor* ropeSin, const aclTensor* ropeCos, const aclTensor* cacheIndex,
                        aclTensor* kvCacheRef, aclTensor* krCacheRef, const aclTensor* dequantScaleXOptional,
                        const aclTensor* dequantScaleWDqOptional, const aclTensor* dequantScaleWUqQrOptional,
                        const aclTensor* dequantScaleWDkvKrOptional, const aclTensor* quantScaleCkvOptional,
                        const aclTensor* quantScaleCkrOptional, const aclTensor* smoothScalesCqOptional,
                        double rmsnormEpsilonCq, double rmsnormEpsilonCkv, char* cacheModeOptional,
                        const aclTensor* queryOut, const aclTensor* queryRopeOut) {
  return MlaPrologV2WeightNz(call, tokenX, weightDq, weightUqQr, weightUk, weightDkvKr, rmsnormGammaCq,
                             rmsnormGammaCkv, ropeSin, ropeCos, cacheIndex, kvCacheRef, krCacheRef,
                             dequantScaleXOptional, dequantScaleWDqOptional, dequantScaleWUqQrOptional,
                             dequantScaleWDkvKrOptional, quantScaleCkvOptional, quantScaleCkrOptional,
                             smoothScalesCqOptional, rmsnormEpsilonCq, rmsnormEpsilonCkv, cacheModeOptional,
                             queryOut, queryRopeOut, nullptr);
}

Status aclnn::MlaPrologV3WeightNz(
    Call& call, const aclTensor* tokenX, const aclTensor* weightDq, const aclTensor* weightUqQr,
    const aclTensor* weightUk, const aclTensor* weightDkvKr, const aclTensor* rmsnormGammaCq,
    const aclTensor* rmsnormGammaCkv, const aclTensor* ropeSin, const aclTensor* ropeCos,
    aclTensor* kvCacheRef, aclTensor* krCacheRef, const aclTensor* cacheIndexOptional,
    const aclTensor* dequantScaleXOptional, const aclTensor* dequantScaleWDqOptional,
    const aclTensor* dequantScaleWUqQrOptional, const aclTensor* dequantScaleWDkvKrOptional,
    const aclTensor* quantScaleCkvOptional, const aclTensor* quantScaleCkrOptional,
    const aclTensor* smoothScalesCqOptional, const aclTensor* actualSeqLenOptional,
    const aclTensor* kNopeClipAlphaOptional, double rmsnormEpsilonCq, double rmsnormEpsilonCkv,
    char* cacheModeOptional, int64_t weightQuantMode, int64_t kvCacheQuantMode, int64_t queryQuantMode,
    int64_t ckvkrRepoMode, int64_t quantScaleRepoMode, int64_t tileSize, double qcQrScale, double kcScale,
    const aclTensor* queryOut, const aclTensor* queryRopeOut, const aclTensor* dequantScaleQNopeOutOptional,
    const aclTensor* queryNormOutOptional, const aclTensor* dequantScaleQNormOutOptional) {
  if (weightQuantMode < 0 || weightQuantMode > 2)
    return call.Invalid(
        "weightQuantMode is {}, expected 0 (none), 1 (weightUqQr is int8) or 2 (tokenX and all weights but "
        "weightUk are int8)",
        weightQuantMode);
  if (kvCacheQuantMode < 0 || kvCacheQuantMode > 3)
    return call.Invalid("kvCacheQuantMode is {}, expected 0 (none), 1 (tensor), 2 (channel) or 3 (tile)",
                        kvCacheQuantMode);
  const bool tiles = kvCacheQuantMode == 3;
  if (tiles != (ckvkrRepoMode == 1) || tiles != (quantScaleRepoMode == 1))
    return call.Invalid(
        "kvCacheQuantMode is {}, ckvkrRepoMode {} and quantScaleRepoMode {}: rows with tiles (3) have all in "
        "one (1 and 1), the others apart (0 and 0)",
        kvCacheQuantMode, ckvkrRepoMode, quantScaleRepoMode);
  if (tiles && tileSize < 1) return call.Invalid("tileSize is {}, expected a positive number", tileSize);
  if ((queryQuantMode == 1) != (queryOut->view.dtype == DType::kInt8))
    return call.Invalid("queryQuantMode is {} with queryOut of {}, expected 1 for int8 and 0 for the others",
                        queryQuantMode, Name(queryOut->view.dtype));
  return Launch(call, {.x = tokenX,
                       .w_dq = weightDq,
                       .w_uq_qr = weightUqQr,
                       .w_uk = weightUk,
                       .w_dkv_kr = weightDkvKr,
                       .gamma_cq = rmsnormGammaCq,
                       .gamma_ckv = rmsnormGammaCkv,
                       .sin = ropeSin,
                       .cos = ropeCos,
                       .index = cacheIndexOptional,
                       .kv_cache = kvCacheRef,
                       .kr_cache = krCacheRef,
                       .scale_x = dequantScaleXOptional,
                       .scale_w_dq = dequantScaleWDqOptional,
                       .scale_w_uq_qr = dequantScaleWUqQrOptional,
                       .scale_w_dkv_kr = dequantScaleWDkvKrOptional,
                       .scale_ckv = quantScaleCkvOptional,
                       .scale_ckr = quantScaleCkrOptional,
                       .smooth = smoothScalesCqOptional,
                       .lengths = actualSeqLenOptional,
                       .clip_alpha = kNopeClipAlphaOptional,
                       .epsilon_cq = rmsnormEpsilonCq,
                       .epsilon_ckv = rmsnormEpsilonCkv,
                       .cache_mode = cacheModeOptional,
                       .tile = tiles ? tileSize : 0,
                       .query_scale = qcQrScale,
                       .key_scale = kcScale,
                       .query = queryOut,
                       .query_rope = queryRopeOut,
                       .query_levels_scale = dequantScaleQNopeOutOptional,
                       .norm = queryNormOutOptional,
                       .norm_levels_scale = dequantScaleQNormOutOptional});
}

}  // namespace anycann
