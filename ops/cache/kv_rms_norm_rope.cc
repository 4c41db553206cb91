// KvRmsNormRopeCache: each token's compressed row is normalised, its rotated part turned, and both go into
// caches and, if asked for, out.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/cache/cache_target.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

enum class CacheMode {
  kWhole,
  kSlots,
  kBlocks
};  // [B,1,length,..]; a slot for each token, or for each block

// kv [B,N,S,width]. Without v the row is the normalised part, which goes to `other`, and behind it the
// rotated part, which goes to `key`. With v the whole row is normalised, its first numbers are rotated, and
// all of it is the key; v goes to `other` as it is.
struct KvRope {
  int64_t batches = 0, tokens = 0, width = 0, normed = 0, rotated = 0, key_width = 0, other_width = 0;
  bool has_v = false;
  float epsilon = 0;
  CacheMode mode = CacheMode::kWhole;
  PagedCache key, other;
};

struct KvRopeOperands {
  int kv = -1, gamma = -1, cos = -1, sin = -1, index = -1, v = -1, key_scale = -1, other_scale = -1,
      key_offset = -1, other_offset = -1, key_cache = -1, other_cache = -1, key_out = -1, other_out = -1;
};

// The slot of each token, -1 for one that is left out.
Status ReadSlots(const Run& t, const KvRope& k, int index, std::vector<int64_t>* slots) {
  const Values<int64_t> values(t[index]);
  if (!values.ok()) return ScratchFailed(t.plan().name);
  const int64_t page = k.key.page, blocks = page > 0 ? (k.tokens + page - 1) / page : 0;
  for (int64_t b = 0; b < k.batches; ++b)
    for (int64_t s = 0; s < k.tokens; ++s) {
      int64_t slot = values[k.mode == CacheMode::kBlocks ? b * blocks + s / page : b * k.tokens + s];
      const int64_t most = k.mode == CacheMode::kWhole ? page : k.key.slots();
      if (slot >= most)
        return Error(kParamInvalid, "{}: index has {}, expected a value below {}", t.plan().name, slot, most);
      if (slot >= 0 && k.mode == CacheMode::kWhole) slot += b * page;
      if (slot >= 0 && k.mode == CacheMode::kBlocks) slot = slot / page * page + s % page;
      slots->push_back(std::max<int64_t>(slot, -1));
    }
  return Status();
}

Status RunKvRope(const Run& t, const KvRope& k, const KvRopeOperands& at) {
  std::vector<int64_t> slots;
  RETURN_IF_ERROR(ReadSlots(t, k, at.index, &slots));
  const DenseInput kv(t[at.kv]), cos(t[at.cos]), sin(t[at.sin]), v(t[at.v >= 0 ? at.v : at.kv]);
  const Values<float> gamma(t[at.gamma]);
  const CacheTarget key(t, k.key, at.key_cache, at.key_scale, at.key_offset, at.key_out, k.key_width);
  const CacheTarget other(t, k.other, at.other_cache, at.other_scale, at.other_offset, at.other_out,
                          k.other_width);
  if (!kv.ok() || !cos.ok() || !sin.ok() || !v.ok() || !gamma.ok() || !key.ok() || !other.ok())
    return ScratchFailed(t.plan().name);
  const DenseReader<float> rows(kv.view()), cosines(cos.view()), sines(sin.view()), values(v.view());
  const int64_t d = k.rotated, widest = std::max(k.width, k.other_width);
  std::atomic<bool> failed{false};
  ParallelFor(k.batches * k.tokens, std::max<int64_t>(1, 8192 / k.width), [&](int64_t begin, int64_t end) {
    const Scratch<float> x(k.width), y(k.width), angle(2 * d), value(widest), buffer(widest), part(widest);
    if (!x.ok() || !y.ok() || !angle.ok() || !value.ok() || !buffer.ok() || !part.ok()) {
      failed = true;
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      const float* row = rows.Read(i * k.width, k.width, x.get());
      const float* c = cosines.Read(i * d, d, angle.get());
      const float* s = sines.Read(i * d, d, angle.get() + d);
      NormaliseRow(row, gamma.get(), k.epsilon, k.normed, y.get());
      if (!k.has_v) {
        other.Store(i, slots[i], y.get(), buffer.get());
        RotatePairs(row + k.normed, c, s, d, part.get());
        key.Store(i, slots[i], part.get(), buffer.get());
        continue;
      }
      std::copy_n(y.get(), k.width, part.get());
      RotatePairs(y.get(), c, s, d, part.get());
      key.Store(i, slots[i], part.get(), buffer.get());
      other.Store(i, slots[i], values.Read(i * k.other_width, k.other_width, value.get()), buffer.get());
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  key.Finish();
  other.Finish();
  return Status();
}

// Norm: [B,1,length,width]; the rest: pages.
Status ReadCache(Call& call, const aclTensor* t, const char* name, bool pieces, const KvRope& k,
                 int64_t width, PagedCache* cache) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 4, 4));
  if (k.mode != CacheMode::kWhole)
    return pieces ? ReadHiddenPieces(call, t, name, width, cache)
                  : ReadPagedRows(call, t, name, width, cache);
  const TensorView& v = t->view;
  if (v.dims[0] != k.batches || v.dims[1] != 1 || v.dims[3] != width || !v.contiguous())
    return call.Invalid("{} has shape {}, expected a contiguous [{},1,length,{}]", name, ShapeString(v),
                        k.batches, width);
  *cache = {v.dims[0], v.dims[2], width, width, width, width, v.dims[2] * width, SizeOf(v.dtype)};
  return Status();
}

Status CheckQuantisation(Call& call, const aclTensor* cache, const char* name, const aclTensor* scale,
                         const aclTensor* offset, int64_t width) {
  const bool bytes = cache->view.dtype == DType::kInt8;
  if (bytes != (scale != nullptr))
    return call.Invalid("{} has type {}: a scale goes with int8, and int8 with a scale", name,
                        Name(cache->view.dtype));
  if (!bytes && !IsFloating(cache->view.dtype))
    return call.Invalid("{} has type {}, expected int8 or a floating type", name, Name(cache->view.dtype));
  for (const aclTensor* t : {scale, offset})
    if (t != nullptr && ((t->view.numel() != width && t->view.numel() != 1) || !IsFloating(t->view.dtype)))
      return call.Invalid("the scale or offset of {} has shape {}, expected [{}]", name, ShapeString(t->view),
                          width);
  return Status();
}

Status Launch(Call& call, const aclTensor* kv, const aclTensor* gamma, const aclTensor* cos,
              const aclTensor* sin, const aclTensor* index, const aclTensor* key_cache,
              const aclTensor* other_cache, const aclTensor* key_scale, const aclTensor* other_scale,
              const aclTensor* key_offset, const aclTensor* other_offset, const aclTensor* v, double epsilon,
              const char* mode_name, bool want_out, const aclTensor* key_out, const aclTensor* other_out) {
  RETURN_IF_ERROR(call.RequireRank(kv, "kv", 4, 4));
  v = Given(v);
  key_scale = Given(key_scale), other_scale = Given(other_scale);
  key_offset = Given(key_offset), other_offset = Given(other_offset);
  const TensorView& x = kv->view;
  KvRope k;
  k.batches = x.dims[0];
  k.tokens = x.dims[2];
  k.width = x.dims[3];
  k.normed = gamma->view.numel();
  k.rotated = cos->view.rank > 0 ? cos->view.dims[cos->view.rank - 1] : 0;
  k.has_v = v != nullptr;
  k.epsilon = static_cast<float>(epsilon);
  if (x.dims[1] != 1) return call.Invalid("kv has shape {}, expected one head: [B,1,S,D]", ShapeString(x));
  for (const auto& [t, name] :
       {std::pair{kv, "kv"}, std::pair{gamma, "gamma"}, std::pair{cos, "cos"}, std::pair{sin, "sin"}})
    RETURN_IF_ERROR(call.RequireFloating(t, name));
  if (k.rotated < 2 || k.rotated % 2 != 0 || k.normed < 1 ||
      (k.has_v ? k.normed != k.width || k.rotated > k.width : k.normed + k.rotated != k.width))
    return call.Invalid("kv has rows of {}, gamma {} numbers and cos {}: expected {}", k.width, k.normed,
                        k.rotated, k.has_v ? "gamma of kv's rows, and an even cos inside" : "their sum");
  for (const auto& [t, name] : {std::pair{cos, "cos"}, std::pair{sin, "sin"}})
    if (t->view.numel() != k.batches * k.tokens * k.rotated)
      return call.Invalid("{} has shape {}, expected [{},1,{},{}]", name, ShapeString(t->view), k.batches,
                          k.tokens, k.rotated);
  if (v != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(v, "v", 4, 4));
    if (v->view.dims[0] != k.batches || v->view.dims[1] != 1 || v->view.dims[2] != k.tokens ||
        !IsFloating(v->view.dtype))
      return call.Invalid("v has shape {}, expected [{},1,{},D]", ShapeString(v->view), k.batches, k.tokens);
  }
  k.key_width = k.has_v ? k.width : k.rotated;
  k.other_width = k.has_v ? v->view.dims[3] : k.normed;
  const std::string name = mode_name == nullptr || *mode_name == 0 ? "Norm" : mode_name;
  const bool pieces = name == "PA_NZ" || name == "PA_BLK_NZ";
  if (name == "PA_BLK_BNSD" || name == "PA_BLK_NZ")
    k.mode = CacheMode::kBlocks;
  else if (name == "PA" || name == "PA_BNSD" || name == "PA_NZ")
    k.mode = CacheMode::kSlots;
  else if (name != "Norm")
    return call.Invalid("cacheMode is {}, expected Norm, PA, PA_BNSD, PA_NZ, PA_BLK_BNSD or PA_BLK_NZ", name);
  RETURN_IF_ERROR(ReadCache(call, key_cache, "kCache", pieces, k, k.key_width, &k.key));
  RETURN_IF_ERROR(ReadCache(call, other_cache, "ckvCache", pieces, k, k.other_width, &k.other));
  if (k.key.page != k.other.page || k.key.pages != k.other.pages)
    return call.Invalid("kCache {} and ckvCache {} have other blocks", ShapeString(key_cache->view),
                        ShapeString(other_cache->view));
  RETURN_IF_ERROR(CheckQuantisation(call, key_cache, "kCache", key_scale, key_offset, k.key_width));
  RETURN_IF_ERROR(CheckQuantisation(call, other_cache, "ckvCache", other_scale, other_offset, k.other_width));
  const int64_t page = k.key.page;
  if (page < 1 && k.batches * k.tokens > 0) return call.Invalid("kCache has no rows");
  const int64_t indices =
      k.mode == CacheMode::kBlocks ? k.batches * ((k.tokens + page - 1) / page) : k.batches * k.tokens;
  if (index->view.numel() != indices || !IsInteger(index->view.dtype))
    return call.Invalid("index has shape {} and type {}, expected {} integers with cacheMode {}",
                        ShapeString(index->view), Name(index->view.dtype), indices, name);
  if (want_out)
    for (const auto& [t, what, width] :
         {std::tuple{key_out, "kRopeOut", k.key_width}, std::tuple{other_out, "cKvOut", k.other_width}})
      if (t == nullptr || t->view.numel() != k.batches * k.tokens * width || !IsFloating(t->view.dtype))
        return call.Invalid("{} has shape {}, expected [{},1,{},{}]", what,
                            t == nullptr ? "null" : ShapeString(t->view), k.batches, k.tokens, width);
  if (x.empty()) return call.Nothing();
  Operands o;
  KvRopeOperands at;
  at.kv = o.Input(kv);
  at.gamma = o.Input(gamma);
  at.cos = o.Input(cos);
  at.sin = o.Input(sin);
  at.index = o.Input(index);
  at.v = o.Input(v);
  at.key_scale = o.Input(key_scale);
  at.other_scale = o.Input(other_scale);
  at.key_offset = o.Input(key_offset);
  at.other_offset = o.Input(other_offset);
  at.key_cache = o.Output(key_cache);
  at.other_cache = o.Output(other_cache);
  at.key_out = o.Output(want_out ? key_out : nullptr);
  at.other_out = o.Output(want_out ? other_out : nullptr);
  return call.Launch(o.list(),
                     Cost{8.0 * static_cast<double>(x.numel()), static_cast<double>(2 * x.nbytes())},
                     [k, at](const Run& t) { return RunKvRope(t, k, at); });
}

}  // namespace

Status aclnn::KvRmsNormRopeCache(Call& call, const aclTensor* kv, const aclTensor* gamma,
                                 const aclTensor* cos, const aclTensor* sin, const aclTensor* index,
                                 aclTensor* kCacheRef, aclTensor* ckvCacheRef,
                                 const aclTensor* kRopeScaleOptional, const aclTensor* cKvScaleOptional,
                                 const aclTensor* kRopeOffsetOptional, const aclTensor* cKvOffsetOptional,
                                 double epsilon, char* cacheModeOptional, bool isOutputKv,
                                 const aclTensor* kRopeOut, const aclTensor* cKvOut) {
  return Launch(call, kv, gamma, cos, sin, index, kCacheRef, ckvCacheRef, kRopeScaleOptional,
                cKvScaleOptional, kRopeOffsetOptional, cKvOffsetOptional, nullptr, epsilon, cacheModeOptional,
                isOutputKv, kRopeOut, cKvOut);
}

Status aclnn::KvRmsNormRopeCacheV2(Call& call, const aclTensor* kv, const aclTensor* gamma,
                                   const aclTensor* cos, const aclTensor* sin, const aclTensor* index,
                                   aclTensor* kCacheRef, aclTensor* ckvCacheRef,
                                   const aclTensor* kRopeScaleOptional, const aclTensor* cKvScaleOptional,
                                   const aclTensor* kRopeOffsetOptional, const aclTensor* cKvOffsetOptional,
                                   const aclTensor* vOptional, double epsilon, char* cacheModeOptional,
                                   bool isOutputKv, const aclTensor* kRopeOut, const aclTensor* cKvOut) {
  return Launch(call, kv, gamma, cos, sin, index, kCacheRef, ckvCacheRef, kRopeScaleOptional,
                cKvScaleOptional, kRopeOffsetOptional, cKvOffsetOptional, vOptional, epsilon,
                cacheModeOptional, isOutputKv, kRopeOut, cKvOut);
}

}  // namespace anycann
