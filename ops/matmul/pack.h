// Packing: copies lines of a matrix (rows of A, columns of B) into panels in the order in which the tile
// kernel reads them, converting to its element type on the way.
//
// A panel holds `width` lines: element u of line i lies at dst[u * padded + i]; lines [width, padded) are
// zero.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace anycann {

struct Lines {
  const char* data;
  DType dtype;
  int64_t line_stride, k_stride;  // in elements

  Lines Skip(int64_t lines) const {
    Lines l = *this;
    l.data += lines * line_stride * SizeOf(dtype);
    return l;
  }
};

// To float: from float, float16, bfloat16. To double from the same and double. To integers from integers and
// bool.
void Pack(float* dst, int padded, const Lines& src, int width, int64_t k);
void Pack(double* dst, int padded, const Lines& src, int width, int64_t k);
void Pack(uint32_t* dst, int padded, const Lines& src, int width, int64_t k);
void Pack(uint64_t* dst, int padded, const Lines& src, int width, int64_t k);

// Pairs of bfloat16, the first in the low half: element u holds (2u, 2u + 1); an odd k is completed with
// zero.
void PackPairs(uint32_t* dst, int padded, const Lines& src, int width, int64_t k);

// A complex product is a real one of twice the depth: A's element becomes two units (real, imaginary) of one
// line, B's element two units of two lines, (real, imaginary) and (-imaginary, real). C's real columns are
// then C's memory.
template <class T>
void PackComplexLeft(T* dst, int padded, const Lines& src, int width, int64_t k);
template <class T>
void PackComplexRight(T* dst, int padded, const Lines& src, int width, int64_t k);  // width in complex lines

extern template void PackComplexLeft(float*, int, const Lines&, int, int64_t);
extern template void PackComplexLeft(double*, int, const Lines&, int, int64_t);
extern template void PackComplexRight(float*, int, const Lines&, int, int64_t);
extern template void PackComplexRight(double*, int, const Lines&, int, int64_t);

}  // namespace anycann
