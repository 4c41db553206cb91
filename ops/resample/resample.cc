#include "ops/resample/resample.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "ops/operand.h"

namespace anycann {
namespace {

// The horizontal taps by tap, so that a loop over a row runs through memory in order.
template <class T>
struct Columns {
  int64_t width, count;
  std::vector<int32_t> index;  // [tap][column]
  std::vector<T> weight;

  explicit Columns(const Taps& t)
      : width(t.result), count(t.count), index(t.index.size()), weight(t.index.size()) {
    for (int64_t x = 0; x < width; ++x)
      for (int64_t k = 0; k < count; ++k) {
        index[static_cast<size_t>(k * width + x)] = t.index[static_cast<size_t>(x * count + k)];
        weight[static_cast<size_t>(k * width + x)] =
            static_cast<T>(t.weight[static_cast<size_t>(x * count + k)]);
      }
  }
  void Apply(const T* __restrict row, T* __restrict out) const {
    for (int64_t k = 0; k < count; ++k) {
      const int32_t* __restrict i = index.data() + k * width;
      const T* __restrict w = weight.data() + k * width;
      if (k == 0) {
        for (int64_t x = 0; x < width; ++x) out[x] = w[x] * row[i[x]];
      } else {
        for (int64_t x = 0; x < width; ++x) out[x] += w[x] * row[i[x]];
      }
    }
  }
};

// row = sum over the taps of (d, h) of weight * source row. The row itself where there is one tap of
// weight 1.
template <class T>
const T* BlendRows(const T* plane, const Taps taps[3], int64_t d, int64_t h, T* __restrict row) {
  const int64_t width = taps[2].source;
  bool first = true;
  for (int64_t i = 0; i < taps[0].count; ++i) {
    const size_t a = static_cast<size_t>(d * taps[0].count + i);
    if (taps[0].weight[a] == 0) continue;
    for (int64_t j = 0; j < taps[1].count; ++j) {
      const size_t b = static_cast<size_t>(h * taps[1].count + j);
      const double weight = taps[0].weight[a] * taps[1].weight[b];
      if (weight == 0) continue;
      const T* __restrict from = plane + (taps[0].index[a] * taps[1].source + taps[1].index[b]) * width;
      if (weight == 1 && taps[0].count == 1 && taps[1].count == 1) return from;
      const T w = static_cast<T>(weight);
      if (first) {
        for (int64_t x = 0; x < width; ++x) row[x] = w * from[x];
      } else {
        for (int64_t x = 0; x < width; ++x) row[x] += w * from[x];
      }
      first = false;
    }
  }
  if (first) std::fill(row, row + width, T(0));
  return row;
}

template <class T>
void ResamplePlanes(const T* in, int64_t planes, const Taps taps[3], T* out) {
  const Columns<T> columns(taps[2]);
  const bool same_width = taps[2].identity();
  const int64_t plane = taps[0].source * taps[1].source * taps[2].source,
                rows = taps[0].result * taps[1].result;
  const int64_t width = taps[2].result;
  const int64_t work = taps[2].source * taps[0].count * taps[1].count + width * taps[2].count;
  ParallelFor(planes * rows, std::max<int64_t>(1, 32768 / (work + 1)), [&](int64_t begin, int64_t end) {
    const Buffer<T> blended = NewBuffer<T>(taps[2].source);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t k = r % rows;
      const T* row =
          BlendRows(in + r / rows * plane, taps, k / taps[1].result, k % taps[1].result, blended.get());
      if (same_width)
        std::memcpy(out + r * width, row, static_cast<size_t>(width) * sizeof(T));
      else
        columns.Apply(row, out + r * width);
    }
  });
}

}  // namespace

void Resample(const void* in, int64_t planes, const Taps taps[3], void* out, DType type) {
  if (type == DType::kDouble)
    ResamplePlanes(static_cast<const double*>(in), planes, taps, static_cast<double*>(out));
  else
    ResamplePlanes(static_cast<const float*>(in), planes, taps, static_cast<float*>(out));
}

}  // namespace anycann
