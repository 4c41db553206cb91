// RopeWithSinCosCache: rotary embedding whose cosines and sines are looked up by position, one position for a
// token or one for each of its sections (time, height and width of a picture's token).
#include <algorithm>
#include <array>
#include <atomic>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"

namespace anycann {
namespace {

struct CachedRope {
  int64_t tokens = 0, head = 0, rotated = 0, lines = 0;  // lines: of the cache
  bool pairs_of_halves = true;                           // (i, i + rotated / 2), or (2i, 2i + 1)
  std::vector<int64_t> section;                          // whose position each angle follows
};

// Operands: positions, cache, then in and out of query and of key.
Status RunCachedRope(const Run& t, const CachedRope& r) {
  const Values<int64_t> positions(t[0]);
  const Values<float> cache(t[1]);
  if (!positions.ok() || !cache.ok()) return ScratchFailed(t.plan().name);
  for (int64_t i = 0; i < t[0].numel(); ++i)
    if (positions[i] < 0 || positions[i] >= r.lines)
      return Error(kParamInvalid, "{}: positions has {}, expected 0 to {}, a row of cosSinCache",
                   t.plan().name, positions[i], r.lines - 1);
  const int64_t half = r.rotated / 2;
  const Scratch<float> angles(r.tokens * r.rotated);  // cosines, then sines, of each token
  if (!angles.ok()) return ScratchFailed(t.plan().name);
  for (int64_t i = 0; i < r.tokens; ++i)
    for (int64_t d = 0; d < half; ++d) {
      const float* line = cache.get() + positions[r.section[d] * r.tokens + i] * r.rotated;
      angles[i * r.rotated + d] = line[d];
      angles[i * r.rotated + half + d] = line[half + d];
    }
  for (int p = 2; p < 6; p += 2) {
    const DenseInput x(t[p]);
    const DenseOutput y(t[p + 1]);
    if (!x.ok() || !y.ok()) return ScratchFailed(t.plan().name);
    const DenseReader<float> reader(x.view());
    const DenseWriter<float> writer(y.view());
    const int64_t heads = x.view().numel() / (r.tokens * r.head);
    std::atomic<bool> failed{false};
    ParallelFor(r.tokens * heads, std::max<int64_t>(1, 8192 / r.head), [&](int64_t begin, int64_t end) {
      const Scratch<float> in(r.head), out(r.head);
      if (!in.ok() || !out.ok()) {
        failed = true;
        return;
      }
      for (int64_t i = begin; i < end; ++i) {
        const float* row = reader.Read(i * r.head, r.head, in.get());
        const float* c = &angles[i / heads * r.rotated];
        const float* s = c + half;
        std::copy_n(row, r.head, out.get());
        for (int64_t d = 0; d < half; ++d) {
          const int64_t a = r.pairs_of_halves ? d : 2 * d, b = r.pairs_of_halves ? half + d : 2 * d + 1;
          const float first = row[a], second = row[b];
          out[a] = first * c[d] - second * s[d];
          out[b] = second * c[d] + first * s[d];
        }
        float* to = writer.Begin(i * r.head, in.get());
        std::copy_n(out.get(), r.head, to);
        writer.End(i * r.head, r.head, to);
      }
    });
    if (failed) return ScratchFailed(t.plan().name);
    y.Finish();
  }
  return Status();
}

// The section of each angle. Mode 0: one after the other. Mode 1: by turns, as far as the sections go.
Status ReadSections(Call& call, const aclIntArray* sections, int64_t positions, int64_t mode, CachedRope* r) {
  const int64_t half = r->rotated / 2;
  r->section.assign(static_cast<size_t>(half), 0);
  if (positions == 1) return Status();
  if (sections == nullptr || static_cast<int64_t>(sections->size) != positions)
    return call.Invalid("mropeSection has {} numbers, expected {} as positions has rows",
                        sections == nullptr ? 0 : sections->size, positions);
  int64_t total = 0;
  for (const int64_t n : *sections) {
    if (n < 0 || n > half) return call.Invalid("mropeSection has {}, expected 0 to {}", n, half);
    total += n;
  }
  if (mode == 1) {
    for (int64_t d = 0; d < half && d < positions * (*sections)[1]; ++d) r->section[d] = d % positions;
    return Status();
  }
  if (total != half) return call.Invalid("mropeSection adds up to {}, expected {}", total, half);
  int64_t d = 0;
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t i = 0; i < (*sections)[p]; ++i) r->section[d++] = p;
  return Status();
}

Status LaunchCachedRope(Call& call, const aclTensor* positions, const aclTensor* query, const aclTensor* key,
                        const aclTensor* cache, const aclIntArray* sections, int64_t head, bool neox,
                        int64_t mode, const aclTensor* query_out, const aclTensor* key_out) {
  if (mode != 0 && mode != 1)
    return call.Invalid("cacheMode is {}, expected 0 (sections one after the other) or 1 (by turns)", mode);
  RETURN_IF_ERROR(call.RequireRank(positions, "positions", 1, 2));
  RETURN_IF_ERROR(call.RequireRank(cache, "cosSinCache", 2, 2));
  if (!IsInteger(positions->view.dtype))
    return call.Invalid("positions has type {}, expected int64", Name(positions->view.dtype));
  const TensorView& p = positions->view;
  const int64_t rows = p.rank == 2 ? p.dims[0] : 1;
  CachedRope r;
  r.tokens = p.dims[p.rank - 1];
  r.head = head;
  r.lines = cache->view.dims[0];
  r.rotated = cache->view.dims[1];
  r.pairs_of_halves = neox;
  if (head < 1 || r.rotated < 2 || r.rotated % 2 != 0 || r.rotated > head)
    return call.Invalid("cosSinCache has shape {}, expected rows of an even number up to headSize {}",
                        ShapeString(cache->view), head);
  if (rows < 1 || rows > 4)
    return call.Invalid("positions has shape {}, expected 1 to 4 rows", ShapeString(p));
  RETURN_IF_ERROR(ReadSections(call, sections, rows, mode, &r));
  for (const auto& [x, y, name] :
       {std::tuple{query, query_out, "queryIn"}, std::tuple{key, key_out, "keyIn"}}) {
    RETURN_IF_ERROR(call.RequireRank(x, name, 2, 3));
    const TensorView& v = x->view;
    if (!IsFloating(v.dtype) || !IsFloating(cache->view.dtype))
      return call.Invalid("{} has type {} and cosSinCache {}, expected floating types", name, Name(v.dtype),
                          Name(cache->view.dtype));
    const int64_t width = v.dims[1] * (v.rank == 3 ? v.dims[2] : 1);
    if (v.dims[0] != r.tokens || width % head != 0 || (v.rank == 3 && v.dims[2] != head))
      return call.Invalid("{} has shape {}, expected [{},heads * {}]", name, ShapeString(v), r.tokens, head);
    RETURN_IF_ERROR(call.RequireSameShape(y, "the output", x, name));
    RETURN_IF_ERROR(call.RequireCastable(DType::kFloat, y, "the output"));
  }
  if (r.tokens == 0 || query->view.empty() || key->view.empty()) {
    if (r.tokens == 0 || (query->view.empty() && key->view.empty())) return call.Nothing();
    return call.Invalid("queryIn has shape {} and keyIn {}, expected both to have heads",
                        ShapeString(query->view), ShapeString(key->view));
  }
  return call.Launch({In(positions), In(cache), In(query), Out(query_out), In(key), Out(key_out)},
                     Cost{6.0 * static_cast<double>(query->view.numel() + key->view.numel()), 0},
                     [r = std::move(r)](const Run& t) { return RunCachedRope(t, r); });
}

}  // namespace

Status aclnn::RopeWithSinCosCache(Call& call, const aclTensor* positions, const aclTensor* queryIn,
                                  const aclTensor* keyIn, const aclTensor* cosSinCache,
                                  const aclIntArray* mropeSection, int64_t headSize, bool isNeoxStyle,
                                  aclTensor* queryOut, aclTensor* keyOut) {
  return LaunchCachedRope(call, positions, queryIn, keyIn, cosSinCache, mropeSection, headSize, isNeoxStyle,
                          0, queryOut, keyOut);
}

Status aclnn::RopeWithSinCosCacheV2(Call& call, const aclTensor* positions, const aclTensor* queryIn,
                                    const aclTensor* keyIn, const aclTensor* cosSinCache,
                                    const aclIntArray* mropeSection, int64_t headSize, bool isNeoxStyle,
                                    int64_t cacheMode, aclTensor* queryOut, aclTensor* keyOut) {
  return LaunchCachedRope(call, positions, queryIn, keyIn, cosSinCache, mropeSection, headSize, isNeoxStyle,
                          cacheMode, queryOut, keyOut);
}

}  // namespace anycann
