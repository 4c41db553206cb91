#include "ops/attention/cache_rows.h"

#include <algorithm>

#include "ops/convert.h"

namespace anycann {
namespace {

// `n` numbers that lie `stride` numbers apart.
void Load(const char* from, DType dtype, int64_t stride, int64_t n, float* to) {
  if (stride == 1) return Convert(to, DType::kFloat, from, dtype, n);
  for (int64_t d = 0; d < n; ++d) Convert(to + d, DType::kFloat, from + d * stride * SizeOf(dtype), dtype, 1);
}

}  // namespace

void CacheRows::Read(const CachePart& part, int64_t b, int64_t n, int64_t j, int64_t count, float* to,
                     int64_t stride) const {
  constexpr int64_t kPiece = 16;
  for (int64_t i = 0; i < count; ++i, to += stride) {
    int64_t row = j + i;
    if (row < prefix) {
      Load(part.prefix.At(0, n, row), part.prefix.dtype, part.prefix.dim, part.dims, to);
      continue;
    }
    row -= prefix;
    int64_t place = b;
    int64_t inside = row;
    if (table != nullptr) {
      place = table[b * table_row + row / page];
      inside = row % page;
    }
    const bool one = part.views.size() == 1;
    const HeadView& view = part.views[one ? 0 : b];
    const char* from = view.At(one ? place : 0, n, inside);
    if (part.nz)
      for (int64_t d = 0; d < part.dims; d += kPiece, from += part.piece * SizeOf(view.dtype))
        Load(from, view.dtype, 1, std::min(kPiece, part.dims - d), to + d);
    else
      Load(from, view.dtype, view.dim, part.dims, to);
    if (part.scale == nullptr) continue;
    const bool paged = part.scale->paged;
    const float* scale = part.scale->At(paged ? place : b, n, paged ? inside : row);
    const float* offset =
        part.offset != nullptr ? part.offset->At(paged ? place : b, n, paged ? inside : row) : nullptr;
    const int64_t step = part.scale->dim;
    for (int64_t d = 0; d < part.dims; ++d)
      to[d] = (to[d] + (offset != nullptr ? offset[d * step] : 0.0f)) * scale[d * step];
  }
}

}  // namespace anycann
