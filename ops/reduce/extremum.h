// Largest and smallest of contiguous values. A NaN wins over every number, the first of equal values is the
// one meant.
#pragma once

#include <algorithm>
#include <limits>

#include "ops/reduce/lanes.h"

namespace anycann {

struct Greater {
  // Works on numbers and on Lanes: true where a stays although b came. NaN stays; otherwise the first of
  // equals does.
  template <class V>
  static auto Keeps(V a, V b) {
    return (a >= b) | (a != a);
  }
  template <class T>
  static constexpr T Worst() {
    return std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                : std::numeric_limits<T>::lowest();
  }
};
struct Less {
  template <class V>
  static auto Keeps(V a, V b) {
    return (a <= b) | (a != a);
  }
  template <class T>
  static constexpr T Worst() {
    return std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity()
                                                : std::numeric_limits<T>::max();
  }
};

// n > 0
template <class Order, class T>
inline T ExtremumOf(const T* x, int64_t n) {
  using V = Lanes<T>;
  constexpr int64_t w = sizeof(V) / sizeof(T);
  T best = x[0];
  int64_t i = 0;
  if (n >= w) {
    V a = LoadLanes<V>(x), b = a, c = a, d = a;
    const auto fold = [](V& m, V y) { m = Order::Keeps(m, y) ? m : y; };
    for (; i + 4 * w <= n; i += 4 * w) {
      fold(a, LoadLanes<V>(x + i));
      fold(b, LoadLanes<V>(x + i + w));
      fold(c, LoadLanes<V>(x + i + 2 * w));
      fold(d, LoadLanes<V>(x + i + 3 * w));
    }
    for (; i + w <= n; i += w) fold(a, LoadLanes<V>(x + i));
    fold(a, b);
    fold(c, d);
    fold(a, c);
    best = FoldLanes<T>(a, [](const auto& m, const auto& y) { return Order::Keeps(m, y) ? m : y; });
  }
  for (; i < n; ++i) best = Order::Keeps(best, x[i]) ? best : x[i];
  return best;
}

}  // namespace anycann
