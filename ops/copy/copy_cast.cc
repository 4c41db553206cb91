// CopyCast: the copy of any layout and type to any other. Four ways: both contiguous, one pass of memcpy or
// Convert; transposed, tile by tile through a buffer in the first-level cache, so that every cache line of
// both sides is touched once; types equal, row by row (rows.cc); anything else, the elementwise engine.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "base/parallel.h"
#include "ops/convert.h"
#include "ops/copy/rows.h"

namespace anycann {
namespace {

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

// to[i * to_stride + j] = from[j * from_stride + i] for i < columns, j < rows.
template <class T>
void TransposePlain(T* __restrict to, int64_t to_stride, const T* __restrict from, int64_t from_stride,
                    int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < columns; ++i)
    for (int64_t j = 0; j < rows; ++j) to[i * to_stride + j] = from[j * from_stride + i];
}

// The same for one square of kSquare<T> elements, in registers.
template <class T>
constexpr int64_t kSquare = 0;  // no such code
template <class T>
void TransposeSquare(T*, int64_t, const T*, int64_t) {}

#if defined(__AVX2__)
template <>
constexpr int64_t kSquare<uint32_t> = 8;
template <>
void TransposeSquare(uint32_t* to, int64_t to_stride, const uint32_t* from, int64_t from_stride) {
  __m256 r[8], t[8];
  for (int j = 0; j < 8; ++j) r[j] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + j * from_stride));
  for (int j = 0; j < 8; j += 4)
    for (int k = 0; k < 2; ++k) {
      const __m256 low = _mm256_unpacklo_ps(r[j + 2 * k], r[j + 2 * k + 1]);
      const __m256 high = _mm256_unpackhi_ps(r[j + 2 * k], r[j + 2 * k + 1]);
      t[j + 2 * k] = low;
      t[j + 2 * k + 1] = high;
    }
  for (int j = 0; j < 8; j += 4)
    for (int k = 0; k < 2; ++k) {
      r[j + 2 * k] = _mm256_shuffle_ps(t[j + k], t[j + 2 + k], 0x44);
      r[j + 2 * k + 1] = _mm256_shuffle_ps(t[j + k], t[j + 2 + k], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(reinterpret_cast<float*>(to + i * to_stride),
                     _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(reinterpret_cast<float*>(to + (i + 4) * to_stride),
                     _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
template <>
constexpr int64_t kSquare<uint64_t> = 4;
template <>
void TransposeSquare(uint64_t* to, int64_t to_stride, const uint64_t* from, int64_t from_stride) {
  __m256d r[4], t[4];
  for (int j = 0; j < 4; ++j) r[j] = _mm256_loadu_pd(reinterpret_cast<const double*>(from + j * from_stride));
  for (int k = 0; k < 2; ++k) {
    t[k] = _mm256_unpacklo_pd(r[2 * k], r[2 * k + 1]);
    t[k + 2] = _mm256_unpackhi_pd(r[2 * k], r[2 * k + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    _mm256_storeu_pd(reinterpret_cast<double*>(to + i * to_stride),
                     _mm256_permute2f128_pd(t[2 * i], t[2 * i + 1], 0x20));
    _mm256_storeu_pd(reinterpret_cast<double*>(to + (i + 2) * to_stride),
                     _mm256_permute2f128_pd(t[2 * i], t[2 * i + 1], 0x31));
  }
}
#endif
#if defined(__SSE2__)
template <>
constexpr int64_t kSquare<uint16_t> = 8;
template <>
void TransposeSquare(uint16_t* to, int64_t to_stride, const uint16_t* from, int64_t from_stride) {
  __m128i r[8], t[8];
  for (int j = 0; j < 8; ++j)
    r[j] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j * from_stride));
  // Three rounds of interleaving row j with row j + 4 turn columns into rows.
  for (int round = 0; round < 3; ++round) {
    for (int j = 0; j < 4; ++j) {
      t[2 * j] = _mm_unpacklo_epi16(r[j], r[j + 4]);
      t[2 * j + 1] = _mm_unpackhi_epi16(r[j], r[j + 4]);
    }
    for (int j = 0; j < 8; ++j) r[j] = t[j];
  }
  for (int i = 0; i < 8; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), r[i]);
}
#endif

template <class T>
void Transpose(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t rows, int64_t columns) {
  if constexpr (kSquare < T >> 0) {
    constexpr int64_t kSide = kSquare<T>;
    const int64_t whole_rows = rows / kSide * kSide, whole_columns = columns / kSide * kSide;
    for (int64_t j = 0; j < whole_rows; j += kSide)
      for (int64_t i = 0; i < whole_columns; i += kSide)
        TransposeSquare(to + i * to_stride + j, to_stride, from + j * from_stride + i, from_stride);
    if (whole_columns < columns)
      TransposePlain(to + whole_columns * to_stride, to_stride, from + whole_columns, from_stride, whole_rows,
                     columns - whole_columns);
    if (whole_rows < rows)
      TransposePlain(to + whole_rows, to_stride, from + whole_rows * from_stride, from_stride,
                     rows - whole_rows, columns);
  } else {
    TransposePlain(to, to_stride, from, from_stride, rows, columns);
  }
}

// A copy whose source runs fastest along dimension `q` and whose destination along `p`. A tile is kRows of p
// by kColumns of q; tiles follow each other along q, so that the source's cache lines are used up before they
// leave.
class TiledCopy {
 public:
  TiledCopy(const TensorView& dst, const TensorView& src, int p, int q) : dst_(dst), src_(src), p_(p), q_(q) {
    tiles_p_ = (dst.dims[p] + kRows - 1) / kRows;
    tiles_q_ = (dst.dims[q] + kColumns - 1) / kColumns;
    tasks_ = tiles_p_ * tiles_q_;
    for (int i = 0; i < dst.rank; ++i)
      if (i != p && i != q) tasks_ *= dst.dims[i];
    stream_ = dst.dtype == src.dtype && dst.strides[p] == 1 && dst.nbytes() >= kStreamBytes;
  }

  void Run() const {
    ParallelFor(tasks_, kPiece / (kRows * kColumns), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) Tile(task);
      if (stream_) StreamFence();
    });
  }

 private:
  static constexpr int64_t kRows = 64, kColumns = 32;
  static constexpr int64_t kStreamBytes = int64_t{16} << 20;

  void Tile(int64_t task) const {
    const int64_t from = SizeOf(src_.dtype), to = SizeOf(dst_.dtype);
    const int64_t q0 = task % tiles_q_ * kColumns, p0 = task / tiles_q_ % tiles_p_ * kRows;
    int64_t at_src = p0 * src_.strides[p_] + q0 * src_.strides[q_];
    int64_t at_dst = p0 * dst_.strides[p_] + q0 * dst_.strides[q_];
    int64_t outer = task / (tiles_p_ * tiles_q_);
    for (int i = dst_.rank - 1; i >= 0 && outer > 0; --i) {
      if (i == p_ || i == q_) continue;
      at_src += outer % dst_.dims[i] * src_.strides[i];
      at_dst += outer % dst_.dims[i] * dst_.strides[i];
      outer /= dst_.dims[i];
    }
    const int64_t rows = std::min(kRows, dst_.dims[p_] - p0),
                  columns = std::min(kColumns, dst_.dims[q_] - q0);
    alignas(64) char turned[kRows * kColumns * 16];
    Turn(src_.bytes() + at_src * from, turned, rows, columns);
    alignas(64) char cast[kRows * 16];
    for (int64_t i = 0; i < columns; ++i) {
      const char* line = turned + i * kRows * from;
      char* target = dst_.bytes() + (at_dst + i * dst_.strides[q_]) * to;
      if (stream_) {
        StreamCopy(target, line, rows * to);
      } else if (dst_.dtype == src_.dtype) {
        UnpackStrided(target, dst_.strides[p_], line, rows, to);
      } else if (dst_.strides[p_] == 1) {
        Convert(target, dst_.dtype, line, src_.dtype, rows);
      } else {
        Convert(cast, dst_.dtype, line, src_.dtype, rows);
        UnpackStrided(target, dst_.strides[p_], cast, rows, to);
      }
    }
  }

  // Column i of the tile to line i of `turned`.
  void Turn(const char* source, char* turned, int64_t rows, int64_t columns) const {
    const int64_t size = SizeOf(src_.dtype), row_stride = src_.strides[p_], step = src_.strides[q_];
    VisitBytes(size, [&](auto x) {
      using T = decltype(x);
      T* to = reinterpret_cast<T*>(turned);
      const T* from = reinterpret_cast<const T*>(source);
      if (step == 1) return Transpose(to, kRows, from, row_stride, rows, columns);
      for (int64_t j = 0; j < rows; ++j)
        for (int64_t i = 0; i < columns; ++i) to[i * kRows + j] = from[j * row_stride + i * step];
    });
  }

  const TensorView &dst_, &src_;
  int p_, q_;
  int64_t tiles_p_, tiles_q_, tasks_;
  bool stream_;
};

}  // namespace

void CopyCast(const TensorView& dst, const TensorView& src) {
  if (dst.empty()) return;
  if (dst.contiguous() && src.contiguous()) return CopyContiguous(dst, src);
  const int p = Fastest(dst), q = Fastest(src);
  // Broadcast sources have stride 0: the engine reads them once. Small dimensions make poor tiles.
  if (p >= 0 && q >= 0 && p != q && src.strides[q] != 0 && std::min(dst.dims[p], dst.dims[q]) >= 8 &&
      dst.numel() >= 1024)
    return TiledCopy(dst, src, p, q).Run();
  if (dst.dtype == src.dtype && CopyRows(dst, src)) return;
  RunElementwise(CopyKernel(dst.dtype), {dst}, {src}, nullptr);
}

}  // namespace anycann
