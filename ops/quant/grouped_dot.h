// The product of floats with a column of 8-bit or 4-bit numbers whose groups have scales of their own, read
// where they lie.
#pragma once

#include <cstdint>

#include "base/vector_math.h"

namespace anycann {

// Groups are whole multiples of it, or one group is the whole column.
inline constexpr int64_t kGroupStep = 32;

// x in the order in which GroupedDot meets it: for 4-bit numbers each 32 as their 16 even ones and their 16
// odd ones, as the halves of bytes lie. What is left over stays in its order.
inline void ArrangeForGroups(const float* x, int64_t k, bool four_bits, float* to) {
  int64_t i = 0;
  for (; four_bits && i + kGroupStep <= k; i += kGroupStep)
    for (int l = 0; l < 16; ++l) {
      to[i + l] = x[i + 2 * l];
      to[i + 16 + l] = x[i + 2 * l + 1];
    }
  for (; i < k; ++i) to[i] = x[i];
}

inline void SumGroups(const float* x, int64_t k, int64_t group, float* sums) {
  for (int64_t i = 0; i < k; ++sums) {
    *sums = 0;
    for (const int64_t end = i + group < k ? i + group : k; i < end; ++i) *sums += x[i];
  }
}

namespace internal {

// 32 products into 16 lanes. w: 32 or 16 bytes.
template <bool kFourBits>
inline void Multiply32(const int8_t* __restrict w, const float* __restrict x, float* __restrict lanes) {
  for (int l = 0; l < 16; ++l) {
    const int32_t byte = w[l];
    const int32_t first = kFourBits ? (byte << 28) >> 28 : byte, second = kFourBits ? byte >> 4 : w[16 + l];
    lanes[l] = math::detail::Fma(static_cast<float>(first), x[l], lanes[l]);
    lanes[l] = math::detail::Fma(static_cast<float>(second), x[16 + l], lanes[l]);
  }
}

template <bool kFourBits>
float GroupedDot(const int8_t* w, const float* x, int64_t k, int64_t group, const float* scale) {
  float total[16] = {};
  float rest = 0;
  for (int64_t i = 0; i < k; ++scale) {
    const int64_t end = i + group < k ? i + group : k;
    float lanes[16] = {};
    for (; i + kGroupStep <= end; i += kGroupStep)
      Multiply32<kFourBits>(kFourBits ? w + i / 2 : w + i, x + i, lanes);
    for (int l = 0; l < 16; ++l) total[l] = math::detail::Fma(lanes[l], *scale, total[l]);
    for (; i < end; ++i) {
      const int32_t number =
          kFourBits ? (i % 2 == 0 ? (int32_t{w[i / 2]} << 28) >> 28 : w[i / 2] >> 4) : w[i];
      rest += static_cast<float>(number) * x[i] * *scale;
    }
  }
  for (float lane : total) rest += lane;
  return rest;
}

}  // namespace internal

// Sum over i < k of w[i] * scale[i / group] * x[i], x as ArrangeForGroups left it. Two 4-bit numbers lie in a
// byte, the lower bits first.
inline float GroupedDot(const int8_t* w, bool four_bits, const float* x, int64_t k, int64_t group,
                        const float* scale) {
  return four_bits ? internal::GroupedDot<true>(w, x, k, group, scale)
                   : internal::GroupedDot<false>(w, x, k, group, scale);
}

}  // namespace anycann
