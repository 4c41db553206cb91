// A projection's rows of query, key and value: normalised or dequantised, query and key turned by their
// positions, key and value into caches. QkvRmsNormRopeCache and DequantRopeQuantKvcache.
#include <algorithm>
#include <atomic>
#include <string_view>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/cache/cache_target.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct QkvRope {
  int64_t tokens = 0, batches = 0, dim = 0;
  int64_t heads[3] = {0, 0, 0};  // of query, key and value
  int64_t angle_rows = 0;        // rows of cos: one for each token, or for each batch
  float epsilon = 0;
  bool from_starts = false;  // the index has where each batch begins in its own part of the cache
  PagedCache key, value;
  int x = -1, cos = -1, sin = -1, index = -1, query_gamma = -1, key_gamma = -1;
  int column_scale = -1, row_scale = -1, bias = -1;
  bool whole_bias = false;  // of integers: added before scaling
  int key_scale = -1, value_scale = -1, key_offset = -1, value_offset = -1;
  int query_out = -1, query_copy = -1, key_cache = -1, value_cache = -1, key_out = -1, value_out = -1;

  int64_t width(int part) const { return heads[part] * dim; }
  int64_t row() const { return width(0) + width(1) + width(2); }
};

Status ReadSlots(const Run& t, const QkvRope& q, std::vector<int64_t>* slots) {
  const Values<int64_t> index(t[q.index]);
  if (!index.ok()) return ScratchFailed(t.plan().name);
  const int64_t each = q.tokens / q.batches, page = q.key.page;
  const int64_t most = q.from_starts ? page - each + 1 : q.key.slots();
  for (int64_t i = 0; i < q.tokens; ++i) {
    const int64_t given = index[q.from_starts ? i / each : i];
    if (given >= most)
      return Error(kParamInvalid, "{}: the index has {}, expected a value below {}", t.plan().name, given,
                   most);
    slots->push_back(given < 0 ? -1 : q.from_starts ? i / each * page + given + i % each : given);
  }
  return Status();
}

// A row of the projection as floats.
class RowReader {
 public:
  RowReader(const Run& t, const QkvRope& q) : x_(t[q.x]), n_(q.row()), whole_bias_(q.whole_bias) {
    column_ = Values<float>(t, q.column_scale), row_ = Values<float>(t, q.row_scale),
    bias_ = Values<float>(t, q.bias);
    reader_ = DenseReader<float>(x_.view());
  }
  bool ok() const { return x_.ok() && column_.ok() && row_.ok() && bias_.ok(); }
  void Read(int64_t i, float* to) const {
    const float* from = reader_.Read(i * n_, n_, to);
    if (from != to) std::copy_n(from, n_, to);
    const float row = row_.get() != nullptr ? row_[i] : 1.0f;
    for (int64_t j = 0; j < n_ && whole_bias_; ++j) to[j] += bias_[j];
    for (int64_t j = 0; j < n_ && column_.get() != nullptr; ++j) to[j] *= column_[j] * row;
    for (int64_t j = 0; j < n_ && bias_.get() != nullptr && !whole_bias_; ++j) to[j] += bias_[j];
  }

 private:
  DenseInput x_;
  int64_t n_;
  bool whole_bias_;
  Values<float> column_, row_, bias_;
  DenseReader<float> reader_;
};

Status RunQkvRope(const Run& t, const QkvRope& q) {
  std::vector<int64_t> slots;
  RETURN_IF_ERROR(ReadSlots(t, q, &slots));
  const RowReader rows(t, q);
  const Values<float> cos(t[q.cos]), sin(t[q.sin]);
  const Values<float> gammas[2] = {Values<float>(t, q.query_gamma), Values<float>(t, q.key_gamma)};
  const DenseOutput query(t[q.query_out]);
  const CacheTarget key(t, q.key, q.key_cache, q.key_scale, q.key_offset, q.key_out, q.width(1), true),
      value(t, q.value, q.value_cache, q.value_scale, q.value_offset, q.value_out, q.width(2), true);
  if (!rows.ok() || !cos.ok() || !sin.ok() || !gammas[0].ok() || !gammas[1].ok() || !query.ok() ||
      !key.ok() || !value.ok())
    return ScratchFailed(t.plan().name);
  const DenseWriter<float> writer(query.view());
  const int64_t d = q.dim, n = q.row(), each = q.tokens / q.angle_rows;
  std::atomic<bool> failed{false};
  ParallelFor(q.tokens, std::max<int64_t>(1, 8192 / (n + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> row(n), made(n), buffer(n), head(d);
    if (!row.ok() || !made.ok() || !buffer.ok() || !head.ok()) {
      failed = true;
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      rows.Read(i, row.get());
      const float *c = cos.get() + i / each * d, *s = sin.get() + i / each * d;
      for (int64_t h = 0; h < q.heads[0] + q.heads[1]; ++h) {
        const float* from = row.get() + h * d;
        const Values<float>& gamma = gammas[h < q.heads[0] ? 0 : 1];
        if (gamma.get() != nullptr) {
          NormaliseRow(from, gamma.get(), q.epsilon, d, head.get());
          from = head.get();
        }
        RotateHalves(from, c, s, d, made.get() + h * d);
      }
      float* to = writer.Begin(i * q.width(0), buffer.get());
      std::copy_n(made.get(), q.width(0), to);
      writer.End(i * q.width(0), q.width(0), to);
      key.Store(i, slots[i], made.get() + q.width(0), buffer.get());
      value.Store(i, slots[i], row.get() + q.width(0) + q.width(1), buffer.get());
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  query.Finish();
  if (q.query_copy >= 0) CopyCast(t[q.query_copy], query.view());
  key.Finish();
  value.Finish();
  return Status();
}

// A cache of 8 bits has a scale; an offset goes with one.
Status CheckScales(Call& call, const aclTensor* cache, const char* name, const aclTensor* scale,
                   const aclTensor* offset, int64_t width) {
  const bool levels = cache->view.dtype == DType::kInt8;
  if ((!levels && !IsFloating(cache->view.dtype)) || levels != (scale != nullptr))
    return call.Invalid("{} is {} and its scale {}: int8 goes with a scale, a floating type without", name,
                        Describe(cache), scale == nullptr ? "absent" : "given");
  if (offset != nullptr && scale == nullptr) return call.Invalid("the offset of {} has no scale", name);
  for (const aclTensor* t : {scale, offset})
    if (t != nullptr && t->view.numel() != 1)
      RETURN_IF_ERROR(call.RequireFloats(t, "a scale or offset", width));
  return Status();
}

struct QkvTensors {
  const aclTensor *x, *cos, *sin, *index, *key_cache, *value_cache, *query;
  const aclTensor *key_scale, *value_scale, *key_offset, *value_offset;
  const aclTensor *query_copy = nullptr, *key_out = nullptr, *value_out = nullptr;
};

// What both have in common, and the operands of it.
Status Prepare(Call& call, QkvTensors& in, Operands* o, QkvRope* q) {
  if (in.x->view.numel() != q->tokens * q->row())
    return call.Invalid("the projection has shape {}, expected {} rows of {} ({}, {} and {} heads of {})",
                        ShapeString(in.x->view), q->tokens, q->row(), q->heads[0], q->heads[1], q->heads[2],
                        q->dim);
  q->angle_rows = in.cos->view.numel() == q->batches * q->dim ? q->batches : q->tokens;
  RETURN_IF_ERROR(call.RequireFloats(in.cos, "cos", q->angle_rows * q->dim));
  RETURN_IF_ERROR(call.RequireFloats(in.sin, "sin", q->angle_rows * q->dim));
  RETURN_IF_ERROR(call.RequireFloats(in.query, "qOut", q->tokens * q->width(0)));
  if (q->key.pages != q->value.pages || q->key.page != q->value.page)
    return call.Invalid("kCache {} and vCache {} have other blocks", ShapeString(in.key_cache->view),
                        ShapeString(in.value_cache->view));
  RETURN_IF_ERROR(CheckScales(call, in.key_cache, "kCache", in.key_scale, in.key_offset, q->width(1)));
  RETURN_IF_ERROR(CheckScales(call, in.value_cache, "vCache", in.value_scale, in.value_offset, q->width(2)));
  const int64_t indices = q->from_starts ? q->batches : q->tokens;
  if (in.index->view.numel() != indices || !IsInteger(in.index->view.dtype))
    return call.Invalid("the index has shape {} and type {}, expected {} integers",
                        ShapeString(in.index->view), Name(in.index->view.dtype), indices);
  if (in.query_copy != nullptr)
    RETURN_IF_ERROR(call.RequireFloats(in.query_copy, "qOutBeforeQuant", q->tokens * q->width(0)));
  if (in.key_out != nullptr)
    RETURN_IF_ERROR(call.RequireFloats(in.key_out, "the key's output", q->tokens * q->width(1)));
  if (in.value_out != nullptr)
    RETURN_IF_ERROR(call.RequireFloats(in.value_out, "the value's output", q->tokens * q->width(2)));
  q->x = o->Input(in.x), q->cos = o->Input(in.cos), q->sin = o->Input(in.sin), q->index = o->Input(in.index);
  q->key_scale = o->Input(in.key_scale), q->value_scale = o->Input(in.value_scale);
  q->key_offset = o->Input(in.key_offset), q->value_offset = o->Input(in.value_offset);
  q->query_out = o->Output(in.query), q->query_copy = o->Output(in.query_copy);
  q->key_cache = o->Output(in.key_cache), q->value_cache = o->Output(in.value_cache);
  q->key_out = o->Output(in.key_out), q->value_out = o->Output(in.value_out);
  return Status();
}

Status LaunchQkv(Call& call, const Operands& o, const QkvRope& q) {
  return call.Launch(o.list(), Cost{8.0 * static_cast<double>(q.tokens * q.row()), 0},
                     [q](const Run& t) { return RunQkvRope(t, q); });
}

}  // namespace

// qkv: [B*S, (Nq+Nk+Nv)*D]; cos, sin: a row of D for each token or each batch; caches of rows [N*D], whole
// (PA_BNSD: [blocks, page, N, D]) or in pieces (PA_NZ: [blocks, N*D/n, page, n]).
Status aclnn::QkvRmsNormRopeCache(Call& call, const aclTensor* qkv, const aclTensor* qGamma,
                                  const aclTensor* kGamma, const aclTensor* cos, const aclTensor* sin,
                                  const aclTensor* index, aclTensor* qOut, aclTensor* kCache,
                                  aclTensor* vCache, const aclTensor* kScaleOptional,
                                  const aclTensor* vScaleOptional, const aclTensor* kOffsetOptional,
                                  const aclTensor* vOffsetOptional, const aclIntArray* qkvSize,
                                  const aclIntArray* headNums, double epsilon, char* cacheModeOptional,
                                  const aclTensor* qOutBeforeQuant, const aclTensor* kOutBeforeQuant,
                                  const aclTensor* vOutBeforeQuant) {
  if (qkvSize->size != 4 || headNums->size != 3)
    return call.Invalid("qkvSize has {} values and headNums {}, expected [B,S,N,D] and [Nq,Nk,Nv]",
                        qkvSize->size, headNums->size);
  QkvRope q;
  const int64_t batches = (*qkvSize)[0], length = (*qkvSize)[1], dim = (*qkvSize)[3];
  const int64_t elements = qkv->view.numel();
  for (const int64_t v : *qkvSize)
    if (v < 0 || v > std::max<int64_t>(elements, 1))
      return call.Invalid("qkvSize has {}, which doesn't fit qkv {}", v, ShapeString(qkv->view));
  for (int i = 0; i < 3; ++i) {
    q.heads[i] = (*headNums)[i];
    if (q.heads[i] < 1 || q.heads[i] > (*qkvSize)[2])
      return call.Invalid("headNums has {}, expected 1 to qkvSize[2], {}", q.heads[i], (*qkvSize)[2]);
  }
  q.batches = batches, q.dim = dim;
  if (dim < 2 || dim % 2 != 0) return call.Invalid("qkvSize[3] is {}, expected an even number", dim);
  if (batches > 0 && length > elements / batches)
    return call.Invalid("qkvSize has {} and {}, more than qkv {} has", batches, length,
                        ShapeString(qkv->view));
  q.tokens = batches * length;
  if (q.tokens == 0) return call.Nothing();
  q.epsilon = static_cast<float>(epsilon);
  const std::string_view mode =
      cacheModeOptional == nullptr || *cacheModeOptional == 0 ? "PA_NZ" : cacheModeOptional;
  if (mode != "PA_NZ" && mode != "PA_BNSD" && mode != "PA")
    return call.Invalid("cacheModeOptional is {}, expected PA_NZ or PA_BNSD", mode);
  const auto read = mode == "PA_NZ" ? ReadPagedPieces : ReadPagedRows;
  RETURN_IF_ERROR(read(call, kCache, "kCache", q.width(1), &q.key));
  RETURN_IF_ERROR(read(call, vCache, "vCache", q.width(2), &q.value));
  RETURN_IF_ERROR(call.RequireFloats(qGamma, "qGamma", dim));
  RETURN_IF_ERROR(call.RequireFloats(kGamma, "kGamma", dim));
  RETURN_IF_ERROR(call.RequireFloats(qkv, "qkv", q.tokens * q.row()));
  QkvTensors in{qkv,
                cos,
                sin,
                index,
                kCache,
                vCache,
                qOut,
                Given(kScaleOptional),
                Given(vScaleOptional),
                Given(kOffsetOptional),
                Given(vOffsetOptional)};
  in.query_copy = Given(qOutBeforeQuant), in.key_out = Given(kOutBeforeQuant);
  in.value_out = Given(vOutBeforeQuant);
  Operands o;
  RETURN_IF_ERROR(Prepare(call, in, &o, &q));
  q.query_gamma = o.Input(qGamma), q.key_gamma = o.Input(kGamma);
  return LaunchQkv(call, o, q);
}

// x: [B,S,H] or [B,H], int32 sums with their scales, or floats. cacheMode "contiguous": caches [B,length,N,D]
// and in `indices` where each batch's rows go; "page": [blocks,page,N,D] and a slot for each token.
Status aclnn::DequantRopeQuantKvcache(Call& call, const aclTensor* x, const aclTensor* cos,
                                      const aclTensor* sin, aclTensor* kCacheRef, aclTensor* vCacheRef,
                                      const aclTensor* indices, const aclTensor* scaleK,
                                      const aclTensor* scaleV, const aclTensor* offsetKOptional,
                                      const aclTensor* offsetVOptional, const aclTensor* weightScaleOptional,
                                      const aclTensor* activationScaleOptional, const aclTensor* biasOptional,
                                      const aclIntArray* sizeSplits, char* quantModeOptional,
                                      char* layoutOptional, bool kvOutput, char* cacheModeOptional,
                                      const aclTensor* qOut, const aclTensor* kOut, const aclTensor* vOut) {
  const auto text = [](const char* s, const char* absent) {
    return std::string_view(s == nullptr || *s == 0 ? absent : s);
  };
  if (text(quantModeOptional, "static") != "static")
    return call.Invalid("quantModeOptional is {}, expected static", quantModeOptional);
  if (text(layoutOptional, "BSND") != "BSND")
    return call.Invalid("layoutOptional is {}, expected BSND", layoutOptional);
  const std::string_view mode = text(cacheModeOptional, "contiguous");
  if (mode != "contiguous" && mode != "page")
    return call.Invalid("cacheModeOptional is {}, expected contiguous or page", mode);
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 3));
  RETURN_IF_ERROR(call.RequireRank(kCacheRef, "kCacheRef", 4, 4));
  RETURN_IF_ERROR(call.RequireRank(vCacheRef, "vCacheRef", 4, 4));
  QkvRope q;
  q.batches = x->view.dims[0];
  q.tokens = q.batches * (x->view.rank == 3 ? x->view.dims[1] : 1);
  q.dim = vCacheRef->view.dims[3];
  q.from_starts = mode == "contiguous";
  if (q.dim < 2 || q.dim % 2 != 0 || kCacheRef->view.dims[3] != q.dim)
    return call.Invalid("kCacheRef has shape {} and vCacheRef {}, expected rows of the same even number",
                        ShapeString(kCacheRef->view), ShapeString(vCacheRef->view));
  if (sizeSplits->size != 3) return call.Invalid("sizeSplits has {} values, expected 3", sizeSplits->size);
  for (int i = 0; i < 3; ++i) {
    const int64_t n = (*sizeSplits)[i];
    if (n < q.dim || n % q.dim != 0 || n > x->view.dims[x->view.rank - 1])
      return call.Invalid("sizeSplits has {}, expected a multiple of {} within x's {}", n, q.dim,
                          x->view.dims[x->view.rank - 1]);
    q.heads[i] = n / q.dim;
  }
  if (q.tokens == 0) return call.Nothing();
  RETURN_IF_ERROR(ReadPagedRows(call, kCacheRef, "kCacheRef", q.width(1), &q.key));
  RETURN_IF_ERROR(ReadPagedRows(call, vCacheRef, "vCacheRef", q.width(2), &q.value));
  if (q.from_starts && q.key.pages != q.batches)
    return call.Invalid("kCacheRef has shape {}, expected a part for each of {} batches",
                        ShapeString(kCacheRef->view), q.batches);
  QkvTensors in{x,
                cos,
                sin,
                indices,
                kCacheRef,
                vCacheRef,
                qOut,
                Given(scaleK),
                Given(scaleV),
                Given(offsetKOptional),
                Given(offsetVOptional)};
  if (kvOutput) in.key_out = kOut, in.value_out = vOut;
  const bool sums = x->view.dtype == DType::kInt32;
  const aclTensor *column = Given(weightScaleOptional), *row = Given(activationScaleOptional),
                  *bias = Given(biasOptional);
  if (!sums && !IsFloating(x->view.dtype))
    return call.Invalid("x has type {}, expected int32 or a floating type", Name(x->view.dtype));
  if (sums != (column != nullptr) || (!sums && (row != nullptr || bias != nullptr)))
    return call.Invalid(
        "x is {} and weightScaleOptional {}: int32 goes with it, floats have no scales or bias", Describe(x),
        column == nullptr ? "absent" : "given");
  if (column != nullptr) RETURN_IF_ERROR(call.RequireFloats(column, "weightScaleOptional", q.row()));
  if (row != nullptr) RETURN_IF_ERROR(call.RequireFloats(row, "activationScaleOptional", q.tokens));
  if (bias != nullptr && bias->view.numel() != q.row())
    return call.Invalid("biasOptional has shape {}, expected [{}]", ShapeString(bias->view), q.row());
  Operands o;
  RETURN_IF_ERROR(Prepare(call, in, &o, &q));
  q.column_scale = o.Input(column), q.row_scale = o.Input(row), q.bias = o.Input(bias);
  q.whole_bias = bias != nullptr && IsInteger(bias->view.dtype);
  return LaunchQkv(call, o, q);
}

}  // namespace anycann
