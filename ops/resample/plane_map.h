// PlaneMap: every element of the result is one element of the source, chosen coordinate by coordinate.
// Padding by reflection and replication, and interpolation by the nearest neighbour, are such maps; their
// gradients add back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/parallel.h"
#include "base/tensor_view.h"

namespace anycann {

// A dense tensor as planes of [depth][height][width]; fewer dimensions leave the first sizes 1.
struct Planes {
  int64_t count = 1, size[3] = {1, 1, 1};
  Planes(const TensorView& v, int dims) {
    for (int i = 0; i < v.rank; ++i) (i < v.rank - dims ? count : size[3 - v.rank + i]) *= v.dims[i];
  }
  int64_t plane() const { return size[0] * size[1] * size[2]; }
  int64_t rows() const { return size[0] * size[1]; }
};

// source[axis][coordinate of the result] = coordinate of the source.
struct PlaneMap {
  std::vector<int64_t> source[3];
};

template <class T>
void MapPlanes(const T* in, const Planes& from, const PlaneMap& m, const Planes& to, T* out) {
  const int64_t width = to.size[2];
  const int64_t* map = m.source[2].data();
  ParallelFor(to.count * to.rows(), std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
    const T* previous = nullptr;
    for (int64_t r = begin; r < end; ++r) {
      const int64_t plane = r / to.rows(), d = r / to.size[1] % to.size[0], h = r % to.size[1];
      const T* row =
          in + plane * from.plane() +
          (m.source[0][static_cast<size_t>(d)] * from.size[1] + m.source[1][static_cast<size_t>(h)]) *
              from.size[2];
      T* to_row = out + r * width;
      if (row == previous) {  // enlarging repeats rows
        std::memcpy(static_cast<void*>(to_row), to_row - width, static_cast<size_t>(width) * sizeof(T));
        continue;
      }
      for (int64_t w = 0; w < width; ++w) to_row[w] = row[map[w]];
      previous = row;
    }
  });
}

// grad: the result's gradient, summed into out, the source's.
template <class T>
void AccumulatePlanes(const T* grad, const Planes& result, const PlaneMap& m, const Planes& source, T* out) {
  const int64_t width = result.size[2];
  const int64_t* map = m.source[2].data();
  ParallelFor(result.count, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, result.plane())),
              [&](int64_t begin, int64_t end) {
                for (int64_t p = begin; p < end; ++p) {
                  T* plane = out + p * source.plane();
                  std::fill(plane, plane + source.plane(), T(0));
                  for (int64_t r = 0; r < result.rows(); ++r) {
                    const size_t d = static_cast<size_t>(r / result.size[1]),
                                 h = static_cast<size_t>(r % result.size[1]);
                    T* row = plane + (m.source[0][d] * source.size[1] + m.source[1][h]) * source.size[2];
                    const T* from = grad + (p * result.rows() + r) * width;
                    for (int64_t w = 0; w < width; ++w) row[map[w]] += from[w];
                  }
                }
              });
}

}  // namespace anycann
