// Rows into the slots of paged caches, and out of them.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/cache/paged_cache.h"
#include "ops/dense.h"

namespace anycann {
namespace {

// "Norm" or nothing: rows lie whole. "PA_NZ": in pieces.
Status ReadMode(Call& call, const char* mode, bool* pieces) {
  const std::string name = mode == nullptr ? "" : mode;
  *pieces = name == "PA_NZ";
  if (*pieces || name.empty() || name == "Norm") return Status();
  return call.Invalid("cacheMode is {}, expected Norm or PA_NZ", name);
}

struct Pair {
  const aclTensor *rows, *cache;
  const char *rows_name, *cache_name;
};

Status ReadPair(Call& call, const Pair& p, bool pieces, int64_t tokens, PagedCache* cache) {
  RETURN_IF_ERROR(call.RequireRank(p.rows, p.rows_name, 2, 3));
  const TensorView& v = p.rows->view;
  if (tokens >= 0 && v.dims[0] != tokens)
    return call.Invalid("{} has shape {}, expected {} rows", p.rows_name, ShapeString(v), tokens);
  RETURN_IF_ERROR(call.RequireDType(p.cache, p.cache_name, v.dtype));
  if (v.dtype == DType::kInt4) return call.Invalid("{} has type int4, expected whole bytes", p.rows_name);
  const int64_t width = v.dims[1] * (v.rank == 3 ? v.dims[2] : 1);
  return pieces ? ReadPagedPieces(call, p.cache, p.cache_name, width, cache)
                : ReadPagedRows(call, p.cache, p.cache_name, width, cache);
}

// Operands: slots, then rows and cache of each pair.
Status RunScatter(const Run& t, const std::vector<PagedCache>& caches) {
  const Values<int64_t> slots(t[0]);
  if (!slots.ok()) return ScratchFailed(t.plan().name);
  const int64_t tokens = t[0].numel();
  for (int64_t i = 0; i < tokens; ++i)
    for (const PagedCache& c : caches)
      if (slots[i] >= c.slots())
        return Error(kParamInvalid, "{}: slotMapping has {}, the cache has {} slots", t.plan().name, slots[i],
                     c.slots());
  for (size_t p = 0; p < caches.size(); ++p) {
    const DenseInput rows(t[1 + 2 * static_cast<int>(p)]);
    if (!rows.ok()) return ScratchFailed(t.plan().name);
    char* cache = t[2 + 2 * static_cast<int>(p)].bytes();
    const int64_t bytes = caches[p].width * caches[p].size;
    for (int64_t i = 0; i < tokens; ++i)  // in order: the last of equal slots stays
      if (slots[i] >= 0) caches[p].Write(cache, slots[i], rows.view().bytes() + i * bytes);
  }
  return Status();
}

Status LaunchScatter(Call& call, std::span<const Pair> pairs, const aclTensor* slots, const char* mode) {
  bool pieces = false;
  RETURN_IF_ERROR(ReadMode(call, mode, &pieces));
  RETURN_IF_ERROR(call.RequireRank(slots, "slotMapping", 1, 1));
  if (!IsInteger(slots->view.dtype))
    return call.Invalid("slotMapping has type {}, expected int32 or int64", Name(slots->view.dtype));
  std::vector<Arg> operands = {In(slots)};
  std::vector<PagedCache> caches(pairs.size());
  double bytes = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    RETURN_IF_ERROR(ReadPair(call, pairs[i], pieces, slots->view.dims[0], &caches[i]));
    operands.push_back(In(pairs[i].rows));
    operands.push_back(Out(pairs[i].cache));
    bytes += 2 * static_cast<double>(pairs[i].rows->view.nbytes());
  }
  if (slots->view.empty()) return call.Nothing();
  return call.Launch(operands, Cost{0, bytes},
                     [caches = std::move(caches)](const Run& t) { return RunScatter(t, caches); });
}

Status RefuseCompression(Call& call, const aclTensor* lengths, const aclTensor* offsets,
                         const aclTensor* sequences) {
  for (const aclTensor* t : {lengths, offsets, sequences})
    if (t != nullptr && !t->view.empty())
      return call.Invalid(
          "compressLens, compressSeqOffset or seqLens is given: compressed caches are not supported");
  return Status();
}

struct Gathering {
  PagedCache cache[2];
  int64_t batches = 0, table_row = 0, tokens = 0;
  bool cumulative = false, offsets = false;
};

// Operands: key cache, value cache, table, lengths, offsets if any, key, value.
Status RunGather(const Run& t, const Gathering& g) {
  const Values<int64_t> table(t[2]), lengths(t[3]);
  const Values<int64_t> offsets = g.offsets ? Values<int64_t>(t[4]) : Values<int64_t>();
  if (!table.ok() || !lengths.ok() || !offsets.ok()) return ScratchFailed(t.plan().name);
  std::vector<int64_t> slots;
  for (int64_t b = 0; b < g.batches; ++b) {
    const int64_t rest = g.tokens - static_cast<int64_t>(slots.size());
    int64_t count = g.cumulative ? lengths[b + 1] : lengths[b];
    if (g.cumulative) count = lengths[b] < 0 || count < lengths[b] ? -1 : count - lengths[b];
    const int64_t page = g.cache[0].page, first = g.offsets ? offsets[b] : 0;
    if (count < 0 || first < 0 || count > rest)
      return Error(kParamInvalid, "{}: sequence {} has {} tokens from {} on, key has {} in all",
                   t.plan().name, b, count, first, g.tokens);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = first / page + i / page;  // an offset counts whole blocks
      const int64_t block = at < g.table_row ? table[b * g.table_row + at] : -1;
      slots.push_back(block < 0 || block >= g.cache[0].pages ? -1 : block * page + i % page);
    }
  }
  const int first_output = g.offsets ? 5 : 4;
  for (int p = 0; p < 2; ++p) {
    const PagedCache& c = g.cache[p];
    char *cache = t[p].bytes(), *to = t[first_output + p].bytes();
    ParallelFor(static_cast<int64_t>(slots.size()), std::max<int64_t>(1, 65536 / (c.width * c.size)),
                [&](int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; ++i) {
                    char* row = to + i * c.width * c.size;
                    if (slots[i] >= 0)
                      c.Read(cache, slots[i], row);
                    else
                      std::memset(row, 0, c.width * c.size);  // of a block that isn't there
                  }
                });
  }
  return Status();
}

}  // namespace

Status aclnn::ScatterPaKvCache(Call& call, const aclTensor* key, aclTensor* keyCacheRef,
                               const aclTensor* slotMapping, const aclTensor* value, aclTensor* valueCacheRef,
                               const aclTensor* compressLensOptional,
                               const aclTensor* compressSeqOffsetOptional, const aclTensor* seqLensOptional,
                               char* cacheModeOptional, char* scatterModeOptional,
                               const aclIntArray* stridesOptional, const aclIntArray* offsetsOptional) {
  RETURN_IF_ERROR(RefuseCompression(call, compressLensOptional, compressSeqOffsetOptional, seqLensOptional));
  const std::string scatter = scatterModeOptional == nullptr ? "" : scatterModeOptional;
  if (!scatter.empty() && scatter != "None") return call.Invalid("scatterMode is {}, expected None", scatter);
  (void)stridesOptional, (void)offsetsOptional;  // of other scatter modes
  const Pair pairs[] = {{key, keyCacheRef, "key", "keyCache"}, {value, valueCacheRef, "value", "valueCache"}};
  return LaunchScatter(call, pairs, slotMapping, cacheModeOptional);
}

Status aclnn::ScatterPaCache(Call& call, const aclTensor* key, aclTensor* keyCacheRef,
                             const aclTensor* slotMapping, const aclTensor* compressLensOptional,
                             const aclTensor* compressSeqOffsetOptional, const aclTensor* seqLensOptional,
                             char* cacheMode) {
  RETURN_IF_ERROR(RefuseCompression(call, compressLensOptional, compressSeqOffsetOptional, seqLensOptional));
  const Pair pairs[] = {{key, keyCacheRef, "key", "keyCache"}};
  return LaunchScatter(call, pairs, slotMapping, cacheMode);
}

Status aclnn::GatherPaKvCache(Call& call, const aclTensor* keyCache, const aclTensor* valueCache,
                              const aclTensor* blockTables, const aclTensor* seqLens, aclTensor* keyRef,
                              aclTensor* valueRef, const aclTensor* seqOffsetOptional, char* cacheMode,
                              bool isSeqLensCumsum) {
  bool pieces = false;
  RETURN_IF_ERROR(ReadMode(call, cacheMode, &pieces));
  RETURN_IF_ERROR(call.RequireRank(blockTables, "blockTables", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(seqLens, "seqLens", 1, 1));
  for (const auto& [t, name] : {std::pair{blockTables, "blockTables"}, std::pair{seqLens, "seqLens"}})
    if (!IsInteger(t->view.dtype))
      return call.Invalid("{} has type {}, expected int32 or int64", name, Name(t->view.dtype));
  Gathering g;
  g.batches = blockTables->view.dims[0];
  g.table_row = blockTables->view.dims[1];
  g.cumulative = isSeqLensCumsum;
  if (seqLens->view.dims[0] != g.batches + (g.cumulative ? 1 : 0))
    return call.Invalid("seqLens has shape {}, expected [{}]", ShapeString(seqLens->view),
                        g.batches + (g.cumulative ? 1 : 0));
  const Pair pairs[] = {{keyRef, keyCache, "key", "keyCache"}, {valueRef, valueCache, "value", "valueCache"}};
  for (int i = 0; i < 2; ++i) {
    RETURN_IF_ERROR(ReadPair(call, pairs[i], pieces, i == 0 ? -1 : g.tokens, &g.cache[i]));
    if (!pairs[i].rows->view.contiguous())
      return call.Invalid("{} has gaps, expected a contiguous tensor", pairs[i].rows_name);
    g.tokens = pairs[i].rows->view.dims[0];
  }
  if (g.cache[0].page != g.cache[1].page || g.cache[0].pages != g.cache[1].pages)
    return call.Invalid("keyCache {} and valueCache {} have other blocks", ShapeString(keyCache->view),
                        ShapeString(valueCache->view));
  std::vector<Arg> operands = {In(keyCache), In(valueCache), In(blockTables), In(seqLens)};
  if (const aclTensor* t = seqOffsetOptional; t != nullptr && !t->view.empty()) {
    if (t->view.numel() != g.batches || !IsInteger(t->view.dtype))
      return call.Invalid("seqOffset has shape {}, expected [{}]", ShapeString(t->view), g.batches);
    g.offsets = true;
    operands.push_back(In(t));
  }
  operands.push_back(Out(keyRef));
  operands.push_back(Out(valueRef));
  return call.Launch(operands,
                     Cost{0, 2.0 * static_cast<double>(keyRef->view.nbytes() + valueRef->view.nbytes())},
                     [g](const Run& t) { return RunGather(t, g); });
}

}  // namespace anycann
