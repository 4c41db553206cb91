#include "ops/cache/paged_cache.h"

namespace anycann {
namespace {

Status RequireDense(Call& call, const aclTensor* t, const char* name) {
  if (t->view.contiguous()) return Status();
  return call.Invalid("{} has shape {} with gaps, expected a contiguous cache", name, ShapeString(t->view));
}

}  // namespace

Status ReadPagedRows(Call& call, const aclTensor* t, const char* name, int64_t width, PagedCache* cache) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 2, kMaxRank));
  RETURN_IF_ERROR(RequireDense(call, t, name));
  const TensorView& v = t->view;
  int64_t inner = 1;
  for (int i = 2; i < v.rank; ++i) inner *= v.dims[i];
  if (inner != width || width < 1 || v.dims[1] < 1)
    return call.Invalid("{} has shape {}, expected [blocks,blockSize,..] with rows of {}", name,
                        ShapeString(v), width);
  *cache = {v.dims[0], v.dims[1], width, width, width, width, v.dims[1] * width, SizeOf(v.dtype)};
  return Status();
}

Status ReadPagedPieces(Call& call, const aclTensor* t, const char* name, int64_t width, PagedCache* cache) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 4, 4));
  RETURN_IF_ERROR(RequireDense(call, t, name));
  const TensorView& v = t->view;
  const int64_t page = v.dims[2], piece = v.dims[3];
  if (width < 1 || page < 1 || piece < 1 || v.dims[1] * piece != width)
    return call.Invalid("{} has shape {}, expected [blocks,{} / n,blockSize,n]", name, ShapeString(v), width);
  *cache = {v.dims[0], page, width, piece, page * piece, piece, page * width, SizeOf(v.dtype)};
  return Status();
}

Status ReadHiddenPieces(Call& call, const aclTensor* t, const char* name, int64_t width, PagedCache* cache) {
  RETURN_IF_ERROR(ReadPagedRows(call, t, name, width, cache));
  const int64_t piece = 32 / cache->size;
  if (width % piece != 0)
    return call.Invalid("{} has shape {}, expected rows of a multiple of {} numbers for an NZ cache", name,
                        ShapeString(t->view), piece);
  cache->piece = piece;
  cache->stride = cache->page * piece;
  cache->row = piece;
  return Status();
}

}  // namespace anycann
