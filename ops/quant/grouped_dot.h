// The product of floats with a column of 8-bit or 4-bit numbers whose groups have scales of their own, read
// where they lie.
#pragma once

#include <cstdint>

#include "ops/quant/widen.h"

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

// sum += 32 products. w: 32 or 16 bytes.
template <bool kFourBits>
inline void Multiply32(const int8_t* w, const float* x, Floats16* sum) {
  const __m128i bytes = Load16(w);
  const Floats16 first = Widen16(kFourBits ? LowerHalves(bytes) : bytes);
  const Floats16 second = Widen16(kFourBits ? UpperHalves(bytes) : Load16(w + 16));
  for (int i = 0; i < 16 / kRegisterFloats; ++i) {
    sum->part[i] = MultiplyAdd(first.part[i], LoadFloats(x + i * kRegisterFloats), sum->part[i]);
    sum->part[i] = MultiplyAdd(second.part[i], LoadFloats(x + 16 + i * kRegisterFloats), sum->part[i]);
  }
}

// total += scale * (the products from i up to end, as far as they are whole steps). Returns where it stopped.
template <bool kFourBits>
inline int64_t AddGroup(const int8_t* w, const float* x, int64_t i, int64_t end, float scale,
                        Floats16* total) {
  Floats16 sum = {};
  for (; i + kGroupStep <= end; i += kGroupStep)
    Multiply32<kFourBits>(kFourBits ? w + i / 2 : w + i, x + i, &sum);
  for (int p = 0; p < 16 / kRegisterFloats; ++p)
    total->part[p] = MultiplyAdd(sum.part[p], AllFloats(scale), total->part[p]);
  return i;
}

template <bool kFourBits>
float GroupedDot(const int8_t* w, const float* x, int64_t k, int64_t group, const float* scale) {
  Floats16 total = {};
  float rest = 0;
  int64_t i = 0;
  for (; group == kGroupStep && i + kGroupStep <= k; i += kGroupStep, ++scale)
    AddGroup<kFourBits>(w, x, i, i + kGroupStep, *scale, &total);
  for (; i < k; ++scale) {
    const int64_t end = i + group < k ? i + group : k;
    i = AddGroup<kFourBits>(w, x, i, end, *scale, &total);
    for (; i < end; ++i) {
      const int number = kFourBits ? Nibble(w, i) : w[i];
      rest += static_cast<float>(number) * x[i] * *scale;
    }
  }
  float lanes[16];
  StoreFloats16(lanes, total);
  for (float lane : lanes) rest += lane;
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
