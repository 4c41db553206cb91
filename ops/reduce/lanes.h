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

}  // namespace anycann
