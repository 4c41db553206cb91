// Sums of contiguous values in blocks: float32 adds 64 values a lane, the blocks meet in float64.
#pragma once

#include <algorithm>
#include <type_traits>

#include "base/dtype.h"
#include "ops/reduce/lanes.h"

namespace anycann {

// The type that adds: float32 in blocks that meet in float64, integers in int64.
template <class T>
struct SumOf {
  using type = std::conditional_t<std::is_integral_v<T>, int64_t,
                                  std::conditional_t<std::is_same_v<T, float>, double, T>>;
};
template <>
struct SumOf<Complex64> {
  using type = Complex128;
};

template <bool skip_nan, class V>
inline V Term(V x) {
  if constexpr (skip_nan)
    return x == x ? x : V{};
  else
    return x;
}

constexpr int64_t kSumBlock =
    4096;  // values that are added in T before they meet the accumulator: 64 per lane

template <class T, bool skip_nan>
inline typename SumOf<T>::type SumBlock(const T* x, int64_t n) {
  using V = Lanes<T>;
  constexpr int64_t w = sizeof(V) / sizeof(T);
  V a{}, b{}, c{}, d{};
  int64_t i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    a += Term<skip_nan>(LoadLanes<V>(x + i));
    b += Term<skip_nan>(LoadLanes<V>(x + i + w));
    c += Term<skip_nan>(LoadLanes<V>(x + i + 2 * w));
    d += Term<skip_nan>(LoadLanes<V>(x + i + 3 * w));
  }
  for (; i + w <= n; i += w) a += Term<skip_nan>(LoadLanes<V>(x + i));
  a = (a + b) + (c + d);
  typename SumOf<T>::type sum = SumOfLanes<T>(a);
  for (; i < n; ++i) sum += Term<skip_nan>(x[i]);
  return sum;
}

// The sum of x[0, n) for a floating T.
template <class T>
inline double SumOfValues(const T* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i += kSumBlock) sum += SumBlock<T, false>(x + i, std::min(kSumBlock, n - i));
  return sum;
}

// The sum of a[i] * b[i], for a floating T.
template <class T>
inline double DotOfValues(const T* a, const T* b, int64_t n) {
  using V = Lanes<T>;
  constexpr int64_t w = sizeof(V) / sizeof(T);
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumBlock) {
    const int64_t end = std::min(n, begin + kSumBlock);
    V s{}, t{}, u{}, v{};
    int64_t i = begin;
    for (; i + 4 * w <= end; i += 4 * w) {
      s += LoadLanes<V>(a + i) * LoadLanes<V>(b + i);
      t += LoadLanes<V>(a + i + w) * LoadLanes<V>(b + i + w);
      u += LoadLanes<V>(a + i + 2 * w) * LoadLanes<V>(b + i + 2 * w);
      v += LoadLanes<V>(a + i + 3 * w) * LoadLanes<V>(b + i + 3 * w);
    }
    for (; i + w <= end; i += w) s += LoadLanes<V>(a + i) * LoadLanes<V>(b + i);
    s = (s + t) + (u + v);
    sum += SumOfLanes<T>(s);
    for (; i < end; ++i) sum += static_cast<double>(a[i]) * b[i];
  }
  return sum;
}

}  // namespace anycann
