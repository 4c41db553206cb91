#include "ops/resample/taps.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace anycann {
namespace {

double Step(int64_t source, int64_t result, bool align_corners, double scale) {
  if (align_corners)
    return result > 1 ? static_cast<double>(source - 1) / static_cast<double>(result - 1) : 0;
  return scale > 0 ? 1 / scale : static_cast<double>(source) / static_cast<double>(result);
}

// Keys' cubic convolution.
double Cubic(double x, double a) {
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * x * a - 4 * a : 0;
}

void LinearTaps(double at, Taps* t, int64_t i) {
  at = std::max(at, 0.0);
  const int64_t low = std::min(static_cast<int64_t>(at), t->source - 1),
                high = std::min(low + 1, t->source - 1);
  const double w = std::clamp(at - static_cast<double>(low), 0.0, 1.0);
  const size_t k = static_cast<size_t>(2 * i);
  t->index[k] = static_cast<int32_t>(low);
  t->index[k + 1] = static_cast<int32_t>(high);
  t->weight[k] = 1 - w;
  t->weight[k + 1] = w;
}

void CubicTaps(double at, Taps* t, int64_t i) {
  const double floor = std::floor(at), w = at - floor;
  for (int64_t k = 0; k < 4; ++k) {
    const int64_t x = std::clamp<int64_t>(static_cast<int64_t>(floor) + k - 1, 0, t->source - 1);
    t->index[static_cast<size_t>(4 * i + k)] = static_cast<int32_t>(x);
    t->weight[static_cast<size_t>(4 * i + k)] = Cubic(w - static_cast<double>(k - 1), -0.75);
  }
}

// Antialiased: the filter is as wide as the source pixels that one result pixel covers, and normalised.
Taps SmoothTaps(Filter filter, Taps t, double step) {
  const bool cubic = filter == Filter::kSmoothCubic;
  const double wide = std::max(step, 1.0), support = (cubic ? 2.0 : 1.0) * wide;
  t.count = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  t.index.assign(static_cast<size_t>(t.result * t.count), 0);
  t.weight.assign(t.index.size(), 0);
  for (int64_t i = 0; i < t.result; ++i) {
    const double center = step * (static_cast<double>(i) + 0.5);
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), t.source);
    double total = 0;
    for (int64_t k = 0; k < t.count; ++k) {
      const size_t at = static_cast<size_t>(i * t.count + k);
      t.index[at] = static_cast<int32_t>(std::clamp<int64_t>(first + k, 0, t.source - 1));
      if (first + k >= last) continue;
      const double x = (static_cast<double>(first + k) - center + 0.5) / wide;
      t.weight[at] = cubic ? Cubic(x, -0.5) : std::max(0.0, 1 - std::abs(x));
      total += t.weight[at];
    }
    for (int64_t k = 0; k < t.count && total != 0; ++k)
      t.weight[static_cast<size_t>(i * t.count + k)] /= total;
  }
  return t;
}

}  // namespace

Taps Taps::Transposed() const {
  Taps t;
  t.source = result;
  t.result = source;
  std::vector<int64_t> used(static_cast<size_t>(source), 0);
  for (size_t k = 0; k < index.size(); ++k)
    if (weight[k] != 0) ++used[static_cast<size_t>(index[k])];
  t.count = std::max<int64_t>(1, used.empty() ? 1 : *std::max_element(used.begin(), used.end()));
  t.index.assign(static_cast<size_t>(source * t.count), 0);
  t.weight.assign(t.index.size(), 0);
  std::fill(used.begin(), used.end(), 0);
  for (size_t k = 0; k < index.size(); ++k) {
    if (weight[k] == 0) continue;
    const size_t s = static_cast<size_t>(index[k]),
                 at = s * static_cast<size_t>(t.count) + static_cast<size_t>(used[s]++);
    t.index[at] = static_cast<int32_t>(static_cast<int64_t>(k) / count);
    t.weight[at] = weight[k];
  }
  return t;
}

Taps Taps::Identity(int64_t size) {
  Taps t;
  t.source = t.result = size;
  t.index.resize(static_cast<size_t>(size));
  std::iota(t.index.begin(), t.index.end(), 0);
  t.weight.assign(t.index.size(), 1.0);
  return t;
}

bool Taps::identity() const {
  if (source != result || count != 1) return false;
  for (int64_t i = 0; i < result; ++i)
    if (index[static_cast<size_t>(i)] != i || weight[static_cast<size_t>(i)] != 1) return false;
  return true;
}

Taps MakeTaps(Filter filter, int64_t source, int64_t result, bool align_corners, double scale) {
  Taps t;
  t.source = source;
  t.result = result;
  const double step = Step(source, result, align_corners, scale);
  if (filter == Filter::kSmoothLinear || filter == Filter::kSmoothCubic)
    return SmoothTaps(filter, std::move(t), step);
  const bool cubic = filter == Filter::kCubic;
  t.count = cubic ? 4 : 2;
  t.index.resize(static_cast<size_t>(result * t.count));
  t.weight.resize(t.index.size());
  for (int64_t i = 0; i < result; ++i) {
    const double x = static_cast<double>(i), at = align_corners ? step * x : step * (x + 0.5) - 0.5;
    if (cubic)
      CubicTaps(at, &t, i);
    else
      LinearTaps(at, &t, i);
  }
  return t;
}

std::vector<int64_t> NearestMap(int64_t source, int64_t result, double scale, bool exact, bool whole) {
  // In float, as torch computes it: which neighbour is nearest depends on the rounding.
  const float step =
      scale > 0 ? static_cast<float>(1 / scale) : static_cast<float>(source) / static_cast<float>(result);
  std::vector<int64_t> map(static_cast<size_t>(result));
  for (int64_t i = 0; i < result; ++i) {
    int64_t x;
    if (whole && result == source)
      x = i;
    else if (whole && result == 2 * source)
      x = i / 2;
    else
      x = static_cast<int64_t>(std::floor((static_cast<float>(i) + (exact ? 0.5f : 0.0f)) * step));
    map[static_cast<size_t>(i)] = std::clamp<int64_t>(x, 0, source - 1);
  }
  return map;
}

}  // namespace anycann
