// Sums in vector lanes: the loops under every statistic of the normalisation engine.
//
// A sum of a block runs in several vectors of the compute type (so it is a sum of many short sums), is added
// up pairwise at the end, and blocks are combined in double by the callers. A block is at most kNormBlock
// elements.
#pragma once

#include <cstdint>
#include <cstring>

namespace anycann {

#if defined(__AVX512F__)
inline constexpr int kLaneBytes = 64;
#elif defined(__AVX__)
inline constexpr int kLaneBytes = 32;
#else
inline constexpr int kLaneBytes = 16;
#endif

// Elements that a block holds at most, in first-level cache with a second operand beside it.
template <class T>
inline constexpr int64_t kNormBlock = 8192 / sizeof(T);

template <class T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(kLaneBytes)));
  static constexpr int64_t kCount = kLaneBytes / sizeof(T);
  static Vector Load(const T* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void Store(T* p, Vector v) { std::memcpy(p, &v, sizeof v); }
};

// Sums f(p[i]...) over any number of pieces. f is called with vectors and, in tails, with single elements.
template <class T>
class LaneSum {
 public:
  template <class F, class... P>
  void Add(int64_t n, F f, const P*... p) {
    using L = Lanes<T>;
    constexpr int64_t k = L::kCount;
    typename L::Vector a0 = a_[0], a1 = a_[1], a2 = a_[2], a3 = a_[3];
    int64_t i = 0;
    for (; i + 4 * k <= n; i += 4 * k) {
      a0 += f(L::Load(p + i)...);
      a1 += f(L::Load(p + i + k)...);
      a2 += f(L::Load(p + i + 2 * k)...);
      a3 += f(L::Load(p + i + 3 * k)...);
    }
    for (; i + k <= n; i += k) a0 += f(L::Load(p + i)...);
    for (; i < n; ++i) tail_ += f(p[i]...);
    a_[0] = a0, a_[1] = a1, a_[2] = a2, a_[3] = a3;
  }
  double Total() const {
    const auto v = (a_[0] + a_[1]) + (a_[2] + a_[3]);
    T x[Lanes<T>::kCount];
    Lanes<T>::Store(x, v);
    for (int64_t step = Lanes<T>::kCount / 2; step > 0; step /= 2)
      for (int64_t i = 0; i < step; ++i) x[i] += x[i + step];
    return static_cast<double>(x[0]) + static_cast<double>(tail_);
  }

 private:
  typename Lanes<T>::Vector a_[4] = {};
  T tail_ = 0;
};

// The sums of f and g over the same elements, in one pass.
template <class T>
class LaneSumPair {
 public:
  template <class F, class... P>
  void Add(int64_t n, F f, const P*... p) {  // f(values..., &first, &second) adds its two terms
    using L = Lanes<T>;
    constexpr int64_t k = L::kCount;
    typename L::Vector a0 = a_[0], a1 = a_[1], b0 = b_[0], b1 = b_[1];
    int64_t i = 0;
    for (; i + 2 * k <= n; i += 2 * k) {
      f(L::Load(p + i)..., a0, b0);
      f(L::Load(p + i + k)..., a1, b1);
    }
    for (; i + k <= n; i += k) f(L::Load(p + i)..., a0, b0);
    for (; i < n; ++i) f(p[i]..., tail_a_, tail_b_);
    a_[0] = a0, a_[1] = a1, b_[0] = b0, b_[1] = b1;
  }
  double First() const { return Sum(a_) + static_cast<double>(tail_a_); }
  double Second() const { return Sum(b_) + static_cast<double>(tail_b_); }

 private:
  static double Sum(const typename Lanes<T>::Vector (&s)[2]) {
    const auto v = s[0] + s[1];
    T x[Lanes<T>::kCount];
    Lanes<T>::Store(x, v);
    for (int64_t step = Lanes<T>::kCount / 2; step > 0; step /= 2)
      for (int64_t i = 0; i < step; ++i) x[i] += x[i + step];
    return static_cast<double>(x[0]);
  }
  typename Lanes<T>::Vector a_[2] = {}, b_[2] = {};
  T tail_a_ = 0, tail_b_ = 0;
};

// Count, mean and sum of squared deviations of a set of values.
struct Moments {
  double count = 0, mean = 0, m2 = 0;

  // Of this set and another together (Chan, Golub and LeVeque).
  void Merge(const Moments& o) {
    if (o.count == 0) return;
    if (count == 0) {
      *this = o;
      return;
    }
    const double total = count + o.count, delta = o.mean - mean;
    mean += delta * (o.count / total);
    m2 += o.m2 + delta * delta * (count * o.count / total);
    count = total;
  }
  double Variance() const { return m2 / count; }  // biased
};

// Of one block in cache, in two passes.
template <class T>
Moments BlockMoments(const T* x, int64_t n) {
  LaneSum<T> sum;
  sum.Add(
      n, [](auto v) { return v; }, x);
  const double total = sum.Total();
  const T mean = static_cast<T>(total / static_cast<double>(n));
  LaneSumPair<T> deviation;
  deviation.Add(
      n,
      [mean](auto v, auto& squares, auto& rest) {
        const auto d = v - mean;
        squares += d * d;
        rest += d;
      },
      x);
  // The second sum is what rounding left of the mean: it corrects both moments.
  const double rest = deviation.Second() / static_cast<double>(n);
  return {static_cast<double>(n), mean + rest, deviation.First() - static_cast<double>(n) * rest * rest};
}

}  // namespace anycann
