#include "ops/copy/rows.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/parallel.h"
#include "ops/operand.h"
#include "ops/walk.h"

namespace anycann {
namespace {

struct Dim {
  int64_t size, dst, src;  // strides in elements
};

// The common dimensions without those of size 1, the fastest of dst last, neighbours merged.
int Normalise(const TensorView& dst, const TensorView& src, Dim* dims) {
  int rank = 0;
  for (int i = 0; i < dst.rank; ++i) {
    if (dst.dims[i] == 1) continue;
    const Dim d{dst.dims[i], dst.strides[i], src.strides[i]};
    int k = rank++;
    const auto before = [](const Dim& a, const Dim& b) {
      const int64_t x = std::abs(a.dst), y = std::abs(b.dst);
      return x != y ? x > y : std::abs(a.src) > std::abs(b.src);
    };
    for (; k > 0 && before(d, dims[k - 1]); --k) dims[k] = dims[k - 1];
    dims[k] = d;
  }
  int n = rank > 0 ? 1 : 0;
  for (int i = 1; i < rank; ++i) {
    Dim& last = dims[n - 1];
    if (last.dst == dims[i].dst * dims[i].size && last.src == dims[i].src * dims[i].size)
      last = {last.size * dims[i].size, dims[i].dst, dims[i].src};
    else
      dims[n++] = dims[i];
  }
  return n;
}

template <class T>
void CopyLine(T* __restrict dst, int64_t dst_stride, const T* __restrict src, int64_t src_stride, int64_t n) {
  if (dst_stride == 1 && src_stride == 1) {
    if (n < 16) {
      for (int64_t i = 0; i < n; ++i) dst[i] = src[i];
    } else {
      std::memcpy(static_cast<void*>(dst), src, static_cast<size_t>(n) * sizeof(T));
    }
  } else if (dst_stride == 1 && src_stride == 0) {
    const T value = src[0];
    for (int64_t i = 0; i < n; ++i) dst[i] = value;
  } else if (dst_stride == 1) {
    for (int64_t i = 0; i < n; ++i) dst[i] = src[i * src_stride];
  } else if (src_stride == 1) {
    for (int64_t i = 0; i < n; ++i) dst[i * dst_stride] = src[i];
  } else {
    for (int64_t i = 0; i < n; ++i) dst[i * dst_stride] = src[i * src_stride];
  }
}

// Rows [0, rows) of `a` elements; `b` steps over the rows.
template <class T>
void CopyPlane(T* dst, const T* src, const Dim& a, const Dim& b, int64_t rows) {
  if (a.size >= 16 || a.size >= rows) {
    for (int64_t i = 0; i < rows; ++i) CopyLine(dst + i * b.dst, a.dst, src + i * b.src, a.src, a.size);
    return;
  }
  // Short rows: along the other dimension, in blocks that stay in the cache while each column is written.
  constexpr int64_t kBlock = 512;
  for (int64_t i = 0; i < rows; i += kBlock)
    for (int64_t k = 0; k < a.size; ++k)
      CopyLine(dst + i * b.dst + k * a.dst, b.dst, src + i * b.src + k * a.src, b.src,
               std::min(kBlock, rows - i));
}

template <class T>
void Copy(T* dst, const T* src, const Dim* dims, int rank) {
  const Dim a = dims[rank - 1];
  const int second = rank - 2;
  const Dim b = dims[second];
  Walk<2> outer;
  for (int i = 0; i < second; ++i) outer.Add(dims[i].size, {dims[i].dst, dims[i].src});
  const int64_t row_bytes = a.size * static_cast<int64_t>(sizeof(T));
  ParallelFor(outer.numel() * b.size, std::max<int64_t>(1, (int64_t{64} << 10) / row_bytes),
              [&](int64_t begin, int64_t end) {
                Walk<2> walk = outer;
                walk.Seek(begin / b.size);
                for (int64_t from = begin % b.size; begin < end; walk.Next(), from = 0) {
                  const int64_t rows = std::min(b.size - from, end - begin);
                  T* to = dst + walk.offset[0] + from * b.dst;
                  const T* source = src + walk.offset[1] + from * b.src;
                  CopyPlane(to, source, a, b, rows);
                  begin += rows;
                }
              });
}

}  // namespace

bool CopyRows(const TensorView& dst, const TensorView& src) {
  if (dst.empty()) return false;
  Dim dims[kMaxRank];
  const int rank = Normalise(dst, src, dims);
  if (rank == 0) return false;
  if (rank > 1) {
    VisitBytes(SizeOf(dst.dtype), [&](auto x) {
      using T = decltype(x);
      Copy(dst.ptr<T>(), src.ptr<const T>(), dims, rank);
    });
    return true;
  }
  if (dims[0].dst == 1 && (dims[0].src == 1 || dims[0].src == 0)) return false;
  // One dimension, as blocks of it.
  VisitBytes(SizeOf(dst.dtype), [&](auto x) {
    using T = decltype(x);
    ParallelFor(dims[0].size, 16384, [&](int64_t begin, int64_t end) {
      CopyLine(dst.ptr<T>() + begin * dims[0].dst, dims[0].dst, src.ptr<const T>() + begin * dims[0].src,
               dims[0].src, end - begin);
    });
  });
  return true;
}

}  // namespace anycann
