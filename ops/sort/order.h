// Orders: every real type as an unsigned key whose order is torch's (NaN above all numbers, -0 equal to 0),
// packed with the element's position, so that sorting plain integers is a stable sort.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/dtype.h"

namespace anycann {

// In ascending order of keys lies ascending order of values.
inline uint32_t KeyOf(float x) {
  const uint32_t b = std::bit_cast<uint32_t>(x == 0 ? 0.0f : x);
  const uint32_t key = b ^ (static_cast<uint32_t>(static_cast<int32_t>(b) >> 31) | 0x80000000u);
  return x != x ? 0xffffffffu : key;
}
inline uint64_t KeyOf(double x) {
  const uint64_t b = std::bit_cast<uint64_t>(x == 0 ? 0.0 : x);
  const uint64_t key = b ^ (static_cast<uint64_t>(static_cast<int64_t>(b) >> 63) | 0x8000000000000000u);
  return x != x ? ~uint64_t{0} : key;
}
inline uint32_t KeyOf(int32_t x) { return static_cast<uint32_t>(x) ^ 0x80000000u; }
inline uint64_t KeyOf(int64_t x) { return static_cast<uint64_t>(x) ^ 0x8000000000000000u; }
inline uint64_t KeyOf(uint64_t x) { return x; }

// A key and, in the low bits, the position in the line.
template <class T>
struct Packing {
  using Key = decltype(KeyOf(T()));
  static constexpr bool kNarrow = sizeof(Key) == 4;
  __extension__ typedef unsigned __int128 Wide;
  using Packed = std::conditional_t<kNarrow, uint64_t, Wide>;
  static constexpr int kShift = kNarrow ? 32 : 64;
  // A line longer than the positions that are left beside the key can't be sorted.
  static constexpr int64_t kMaxLength = kNarrow ? int64_t{0xffffffff} : std::numeric_limits<int64_t>::max();

  static Packed Pack(T x, int64_t position, bool descending) {
    const Key key = KeyOf(x);
    return static_cast<Packed>(descending ? ~key : key) << kShift | static_cast<uint64_t>(position);
  }
  static int64_t Position(Packed p) {
    if constexpr (kNarrow)
      return static_cast<int64_t>(p & 0xffffffffu);
    else
      return static_cast<int64_t>(static_cast<uint64_t>(p));
  }
};

// Sorts packed elements that are in order of their positions. `other` has room for as many; the result is in
// `p`.
template <class T>
void SortPacked(typename Packing<T>::Packed* p, typename Packing<T>::Packed* other, int64_t n) {
  using Packed = typename Packing<T>::Packed;
  constexpr int kBits = 8, kDigits = 1 << kBits, kPasses = sizeof(typename Packing<T>::Key);
  constexpr int64_t kComparing = 512;  // shorter lines are sorted by comparing
  if (n <= kComparing) {
    std::sort(p, p + n);
    return;
  }
  int64_t count[kPasses][kDigits] = {};
  for (int64_t i = 0; i < n; ++i)
    for (int k = 0; k < kPasses; ++k)
      ++count[k][static_cast<uint8_t>(p[i] >> (Packing<T>::kShift + k * kBits))];
  Packed *from = p, *to = other;
  for (int k = 0; k < kPasses; ++k) {
    const int shift = Packing<T>::kShift + k * kBits;
    if (count[k][static_cast<uint8_t>(from[0] >> shift)] == n) continue;  // all have this digit
    int64_t offset[kDigits], next = 0;
    for (int d = 0; d < kDigits; ++d) {
      offset[d] = next;
      next += count[k][d];
    }
    for (int64_t i = 0; i < n; ++i) to[offset[static_cast<uint8_t>(from[i] >> shift)]++] = from[i];
    std::swap(from, to);
  }
  if (from != p) std::memcpy(p, from, static_cast<size_t>(n) * sizeof(Packed));
}

// Sorts n values of a 64-bit type whose keys lie close together by narrow packed elements, into positions;
// false when they don't. `scratch` has room for 2 * n words.
template <class T>
bool SortNarrow(const T* x, int64_t n, bool descending, uint64_t* scratch, int64_t* position) {
  if constexpr (Packing<T>::kNarrow) {
    return false;
  } else {
    uint64_t least = ~uint64_t{0}, greatest = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t key = KeyOf(x[i]);
      least = std::min(least, key);
      greatest = std::max(greatest, key);
    }
    if (n == 0 || greatest - least > 0xffffffffu || n > Packing<int32_t>::kMaxLength) return false;
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t key = KeyOf(x[i]);
      scratch[i] = (descending ? greatest - key : key - least) << 32 | static_cast<uint64_t>(i);
    }
    SortPacked<int32_t>(scratch, scratch + n, n);
    for (int64_t i = 0; i < n; ++i) position[i] = Packing<int32_t>::Position(scratch[i]);
    return true;
  }
}

// The k first of n values in order, sorted, into p[0, k); `p` has room for SelectRoom(n, k). Without sorting
// the rest: candidates beat the k-th best so far, which blocks of values are compared with first.
constexpr int64_t SelectRoom(int64_t n, int64_t k) { return std::min(n, k + std::max<int64_t>(k, 64)); }
template <class T>
void SelectFirst(const T* x, int64_t n, int64_t k, bool descending, typename Packing<T>::Packed* p) {
  using P = Packing<T>;
  constexpr int64_t kBlock = 32;
  const int64_t room = SelectRoom(n, k);
  if (k == 0) return;
  int64_t held = 0, i = 0;
  for (; i < room; ++i) p[held++] = P::Pack(x[i], i, descending);
  while (true) {
    if (held > k) std::nth_element(p, p + k - 1, p + held);
    held = std::min(held, k);
    if (i == n) break;
    const auto bound = p[k - 1];
    const T worst = x[P::Position(bound)];
    while (i < n && held < room) {
      if (i + kBlock <= n) {
        bool any = false;  // may be wrong for a NaN, never the other way
        for (int64_t j = i; j < i + kBlock; ++j) any |= descending ? !(x[j] <= worst) : !(x[j] >= worst);
        if (!any) {
          i += kBlock;
          continue;
        }
      }
      for (const int64_t end = std::min(n, i + kBlock); i < end && held < room; ++i) {
        p[held] = P::Pack(x[i], i, descending);
        held += p[held] < bound;
      }
    }
  }
  std::sort(p, p + k);
}

}  // namespace anycann
