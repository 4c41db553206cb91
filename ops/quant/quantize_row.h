// One row of floats as 8-bit integers with the scale (and offset) that its own values need.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace anycann {

// y = round(v / scale + offset). Symmetric: scale = max |v| / 127, offset = 0. Otherwise scale =
// (max - min) / 255 and offset = 127 - max / scale. n > 0.
inline void QuantizeRow(const float* __restrict v, int64_t n, bool symmetric, float* scale, float* offset,
                        int8_t* __restrict y) {
  float low = v[0], high = v[0];
  for (int64_t i = 0; i < n; ++i) {
    low = std::min(low, v[i]);
    high = std::max(high, v[i]);
  }
  *scale = symmetric ? std::max(-low, high) / 127.0f : (high - low) / 255.0f;
  *offset = symmetric || *scale == 0 ? 0.0f : 127.0f - high / *scale;
  const float inverse = *scale == 0 ? 0.0f : 1.0f / *scale, shift = *offset;
  for (int64_t i = 0; i < n; ++i)
    y[i] = static_cast<int8_t>(std::clamp(std::nearbyint(v[i] * inverse + shift), -128.0f, 127.0f));
}

}  // namespace anycann
