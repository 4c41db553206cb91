// A product of two vectors of floats, for engines that have few rows and read the other operand where it
// lies.
#pragma once

#include <cstdint>

#include "base/vector_math.h"

namespace anycann {

inline float DotProduct(const float* a, const float* b, int64_t n) {
  float lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int l = 0; l < 16; ++l) lanes[l] = math::detail::Fma(a[i + l], b[i + l], lanes[l]);
  float sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (float lane : lanes) sum += lane;
  return sum;
}

}  // namespace anycann
