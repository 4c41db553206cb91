// Exponentials of contiguous values and their sum: the inner loops of softmax.
#pragma once

#include "base/vector_math.h"
#include "ops/reduce/block_sum.h"

namespace anycann {

inline constexpr int64_t kExpBlock = 1024;  // values in the first-level cache at once

// to[i] = exp(x[i] - shift), and their sum; `to` may be x.
template <class T>
double ExpAndSum(T* to, const T* x, int64_t n, T shift) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kExpBlock) {
    const int64_t m = std::min(kExpBlock, n - begin);
    const T* from = x + begin;
    T* t = to + begin;
#pragma GCC ivdep
    for (int64_t i = 0; i < m; ++i) t[i] = math::Exp(from[i] - shift);
    sum += SumBlock<T, false>(t, m);
  }
  return sum;
}

template <class T>
double SumOfExp(const T* x, int64_t n, T shift) {
  alignas(64) T block[kExpBlock];
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kExpBlock)
    sum += ExpAndSum(block, x + begin, std::min(kExpBlock, n - begin), shift);
  return sum;
}

}  // namespace anycann
