// Lanes: the compiler's vectors of 64 bytes, which every instruction set gets as its own registers.
#pragma once

#include <cstdint>
#include <cstring>

namespace anycann {

template <class T, int n = 64 / sizeof(T)>
struct LanesOf {
  typedef T type __attribute__((vector_size(n * sizeof(T))));
};
template <class T, int n = 64 / sizeof(T)>
using Lanes = typename LanesOf<T, n>::type;

template <class V, class T>
inline V LoadLanes(const T* x) {
  V v;
  std::memcpy(&v, x, sizeof(V));
  return v;
}

// One value of all n lanes: halves are joined until one lane is left. join works on numbers and on Lanes.
template <class T, int n = 64 / sizeof(T), class F>
inline T FoldLanes(const Lanes<T, n>& v, const F& join) {
  if constexpr (n == 2) {
    return join(static_cast<T>(v[0]), static_cast<T>(v[1]));
  } else {
    Lanes<T, n / 2> low, high;
    std::memcpy(&low, &v, sizeof(low));
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof(low), sizeof(high));
    return FoldLanes<T, n / 2>(join(low, high), join);
  }
}
template <class T>
inline T SumOfLanes(const Lanes<T>& v) {
  return FoldLanes<T>(v, [](const auto& a, const auto& b) { return a + b; });
}

}  // namespace anycann
