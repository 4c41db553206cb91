// Taps: how one dimension is resampled. Every coordinate of the result is a weighted sum of a few of the
// source.
#pragma once

#include <cstdint>
#include <vector>

namespace anycann {

enum class Filter { kLinear, kCubic, kSmoothLinear, kSmoothCubic };  // smooth: antialiased

// [result coordinate][tap], padded with weight 0 to the same number of taps.
struct Taps {
  int64_t source = 1, result = 1, count = 1;
  std::vector<int32_t> index = {0};
  std::vector<double> weight = {1.0};

  static Taps Identity(int64_t size);
  // The same map from the result back to the source: what a gradient needs.
  Taps Transposed() const;
  bool identity() const;
};

// torch's coordinates: `scale` is the factor that the caller gave, or not positive to take it from the sizes.
Taps MakeTaps(Filter filter, int64_t source, int64_t result, bool align_corners, double scale);

// `whole`: enlarging by one or two ignores the scale, as torch does in two dimensions.
// The coordinate of the source that the nearest neighbour of each result coordinate has.
std::vector<int64_t> NearestMap(int64_t source, int64_t result, double scale, bool exact, bool whole);

}  // namespace anycann
