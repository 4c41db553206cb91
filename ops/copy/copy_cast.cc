// CopyCast: the copy of any layout and type to any other. Four ways: both contiguous, one pass of memcpy or
// Convert; transposed, tile by tile through a buffer in the first-level cache, so that every cache line of
// both sides is touched once; types equal, row by row (rows.cc); anything else, the elementwise engine.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/parallel.h"
#include "ops/convert.h"
#include "ops/copy/rows.h"

namespace anycann {
namespace {

constexpr int64_t kTile = 32;
constexpr int64_t kPiece = 32768;  // elements for which another thread pays

void CopyContiguous(const TensorView& dst, const TensorView& src) {
  const int64_t to = SizeOf(dst.dtype), from = SizeOf(src.dtype);
  ParallelFor(dst.numel(), kPiece, [&](int64_t begin, int64_t end) {
    Convert(dst.bytes() + begin * to, dst.dtype, src.bytes() + begin * from, src.dtype, end - begin);
  });
}

// The fastest dimension of a view: the smallest stride among dimensions of more than one element; -1 if none.
int Fastest(const TensorView& v) {
  int best = -1;
  for (int i = 0; i < v.rank; ++i)
    if (v.dims[i] > 1 && (best < 0 || std::abs(v.strides[i]) < std::abs(v.strides[best]))) best = i;
  return best;
}

template <class T>
void TransposeTile(T* __restrict to, const T* __restrict from, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < columns; ++i)
    for (int64_t j = 0; j < rows; ++j) to[i * kTile + j] = from[j * kTile + i];
}
struct Bytes16 {
  uint64_t a, b;
};
void TransposeTile(void* to, const void* from, int64_t rows, int64_t columns, int64_t size) {
  switch (size) {
    case 1:
      return TransposeTile(static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from), rows, columns);
    case 2:
      return TransposeTile(static_cast<uint16_t*>(to), static_cast<const uint16_t*>(from), rows, columns);
    case 4:
      return TransposeTile(static_cast<uint32_t*>(to), static_cast<const uint32_t*>(from), rows, columns);
    case 8:
      return TransposeTile(static_cast<uint64_t*>(to), static_cast<const uint64_t*>(from), rows, columns);
    default:
      return TransposeTile(static_cast<Bytes16*>(to), static_cast<const Bytes16*>(from), rows, columns);
  }
}

// A copy whose source runs fastest along dimension `q` and whose destination along `p`.
class TiledCopy {
 public:
  TiledCopy(const TensorView& dst, const TensorView& src, int p, int q) : dst_(dst), src_(src), p_(p), q_(q) {
    tiles_p_ = (dst.dims[p] + kTile - 1) / kTile;
    tiles_q_ = (dst.dims[q] + kTile - 1) / kTile;
    tasks_ = tiles_p_ * tiles_q_;
    for (int i = 0; i < dst.rank; ++i)
      if (i != p && i != q) tasks_ *= dst.dims[i];
  }

  void Run() const {
    ParallelFor(tasks_, kPiece / (kTile * kTile), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) Tile(task);
    });
  }

 private:
  void Tile(int64_t task) const {
    const int64_t from = SizeOf(src_.dtype), to = SizeOf(dst_.dtype);
    const int64_t p0 = task % tiles_p_ * kTile, q0 = task / tiles_p_ % tiles_q_ * kTile;
    int64_t at_src = p0 * src_.strides[p_] + q0 * src_.strides[q_],
            at_dst = p0 * dst_.strides[p_] + q0 * dst_.strides[q_];
    int64_t outer = task / (tiles_p_ * tiles_q_);
    for (int i = dst_.rank - 1; i >= 0; --i) {
      if (i == p_ || i == q_) continue;
      at_src += outer % dst_.dims[i] * src_.strides[i];
      at_dst += outer % dst_.dims[i] * dst_.strides[i];
      outer /= dst_.dims[i];
    }
    const int64_t np = std::min(kTile, dst_.dims[p_] - p0), nq = std::min(kTile, dst_.dims[q_] - q0);
    alignas(64) char rows[kTile * kTile * 16], columns[kTile * kTile * 16], cast[kTile * 16];
    for (int64_t j = 0; j < np; ++j)
      PackStrided(rows + j * kTile * from, src_.bytes() + (at_src + j * src_.strides[p_]) * from,
                  src_.strides[q_], nq, from);
    TransposeTile(columns, rows, np, nq, from);
    for (int64_t i = 0; i < nq; ++i) {
      const char* column = columns + i * kTile * from;
      char* target = dst_.bytes() + (at_dst + i * dst_.strides[q_]) * to;
      if (dst_.dtype == src_.dtype) {
        UnpackStrided(target, dst_.strides[p_], column, np, to);
      } else if (dst_.strides[p_] == 1) {
        Convert(target, dst_.dtype, column, src_.dtype, np);
      } else {
        Convert(cast, dst_.dtype, column, src_.dtype, np);
        UnpackStrided(target, dst_.strides[p_], cast, np, to);
      }
    }
  }

  const TensorView &dst_, &src_;
  int p_, q_;
  int64_t tiles_p_, tiles_q_, tasks_;
};

}  // namespace

void CopyCast(const TensorView& dst, const TensorView& src) {
  if (dst.empty()) return;
  if (dst.contiguous() && src.contiguous()) return CopyContiguous(dst, src);
  const int p = Fastest(dst), q = Fastest(src);
  // Broadcast sources have stride 0: the engine reads them once. Small dimensions make poor tiles.
  if (p >= 0 && q >= 0 && p != q && src.strides[q] != 0 && std::min(dst.dims[p], dst.dims[q]) >= 8 &&
      dst.numel() >= kTile * kTile)
    return TiledCopy(dst, src, p, q).Run();
  if (dst.dtype == src.dtype && CopyRows(dst, src)) return;
  RunElementwise(CopyKernel(dst.dtype), {dst}, {src}, nullptr);
}

}  // namespace anycann
