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

// Where a map goes on by one for long: padding shows the source itself there.
struct StraightRun {
  int64_t begin = 0, end = 0;
  explicit StraightRun(const std::vector<int64_t>& map) {
    for (size_t i = 0, j; i < map.size(); i = j) {
      for (j = i + 1; j < map.size() && map[j] == map[j - 1] + 1;) ++j;
      if (static_cast<int64_t>(j - i) > end - begin)
        begin = static_cast<int64_t>(i), end = static_cast<int64_t>(j);
    }
    if (end - begin < 8) begin = end = 0;
  }
};

template <class T>
void MapPlanes(const T* in, const Planes& from, const PlaneMap& m, const Planes& to, T* out) {
  const int64_t width = to.size[2];
  const int64_t* map = m.source[2].data();
  const StraightRun run(m.source[2]);
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
      for (int64_t w = 0; w < run.begin; ++w) to_row[w] = row[map[w]];
      if (run.end > run.begin)
        std::memcpy(static_cast<void*>(to_row + run.begin), row + map[run.begin],
                    static_cast<size_t>(run.end - run.begin) * sizeof(T));
      for (int64_t w = run.end; w < width; ++w) to_row[w] = row[map[w]];
      previous = row;
    }
  });
}

// Adds a row of the result's gradient to the source row.
template <class T>
void AccumulateRow(const T* __restrict from, const int64_t* map, int64_t width, const StraightRun& run,
                   T* __restrict row) {
  for (int64_t w = 0; w < run.begin; ++w) row[map[w]] += from[w];
  T* straight = row + (run.end > run.begin ? map[run.begin] - run.begin : 0);
  for (int64_t w = run.begin; w < run.end; ++w) straight[w] += from[w];
  for (int64_t w = run.end; w < width; ++w) row[map[w]] += from[w];
}

// grad: the result's gradient, summed into out, the source's.
template <class T>
void AccumulatePlanes(const T* grad, const Planes& result, const PlaneMap& m, const Planes& source, T* out) {
  const int64_t width = result.size[2];
  const StraightRun run(m.source[2]);
  ParallelFor(result.count, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, result.plane())),
              [&](int64_t begin, int64_t end) {
                std::vector<T> sum(static_cast<size_t>(width));
                for (int64_t p = begin; p < end; ++p) {
                  T* plane = out + p * source.plane();
                  std::fill(plane, plane + source.plane(), T(0));
                  const auto row_of = [&](int64_t r) {
                    const size_t d = static_cast<size_t>(r / result.size[1]),
                                 h = static_cast<size_t>(r % result.size[1]);
                    return plane + (m.source[0][d] * source.size[1] + m.source[1][h]) * source.size[2];
                  };
                  for (int64_t r = 0; r < result.rows();) {
                    // Rows in a row that go to the same one are added up first.
                    T* row = row_of(r);
                    const T* from = grad + (p * result.rows() + r) * width;
                    if (++r < result.rows() && row_of(r) == row) {
                      std::copy(from, from + width, sum.begin());
                      for (from = sum.data(); r < result.rows() && row_of(r) == row; ++r) {
                        const T* next = grad + (p * result.rows() + r) * width;
                        for (int64_t w = 0; w < width; ++w) sum[static_cast<size_t>(w)] += next[w];
                      }
                    }
                    AccumulateRow(from, m.source[2].data(), width, run, row);
                  }
                }
              });
}

}  // namespace anycann
