// The discrete Fourier transform of several sequences at once, of any length.
//
// Sequences lie side by side: element i of sequence l is re[i * kLanes + l], im[...]. All arithmetic is then
// over whole vectors, whatever the length's factors. Mixed radix, self-sorting (Stockham); a prime factor p
// costs p^2.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

#include "ops/operand.h"

namespace anycann {

template <class T>
class FourierTransform {
 public:
  static constexpr int64_t kLanes = 64 / sizeof(T);

  explicit FourierTransform(int64_t n) : n_(n), cosine_(NewBuffer<T>(n)), sine_(NewBuffer<T>(n)) {
    for (int64_t i = 0; i < n; ++i) {
      const double angle = -2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(n);
      cosine_[i] = static_cast<T>(std::cos(angle));
      sine_[i] = static_cast<T>(std::sin(angle));
    }
    for (int64_t p : {4, 2, 3, 5})
      while (n % p == 0) factors_.push_back(p), n /= p;
    for (int64_t p = 7; n > 1; p += 2) {
      if (p * p > n) p = n;
      while (n % p == 0) factors_.push_back(p), n /= p;
    }
  }

  // Forward, unscaled. The result is in `re` and `im`; the others are scratch memory of the same size.
  void Run(T* re, T* im, T* re2, T* im2) const {
    T *x = re, *y = im, *u = re2, *v = im2;
    int64_t size = n_, stride = 1;
    for (int64_t p : factors_) {
      Stage(p, size / p, stride, x, y, u, v);
      size /= p;
      stride *= p;
      std::swap(x, u);
      std::swap(y, v);
    }
    if (x == re) return;
    std::copy(x, x + n_ * kLanes, re);
    std::copy(y, y + n_ * kLanes, im);
  }

 private:
  // u, v of output r: the sum over j of (x, y)[j] turned by j * r / p, times the twiddle of k * r.
  void Stage(int64_t p, int64_t m, int64_t stride, const T* x, const T* y, T* u, T* v) const {
    for (int64_t k = 0; k < m; ++k)
      for (int64_t q = 0; q < stride; ++q) {
        const int64_t from = (q + stride * k) * kLanes, step = stride * m * kLanes;
        const int64_t to = (q + stride * p * k) * kLanes;
        if (p == 2)
          Two(x + from, y + from, step, u + to, v + to, stride * kLanes, k * stride);
        else if (p == 4)
          Four(x + from, y + from, step, u + to, v + to, stride * kLanes, k * stride);
        else
          Any(p, x + from, y + from, step, u + to, v + to, stride * kLanes, k * stride);
      }
  }

  void Store(T* __restrict u, T* __restrict v, const T* re, const T* im, int64_t twiddle) const {
    const T c = cosine_[twiddle % n_], s = sine_[twiddle % n_];
    for (int64_t l = 0; l < kLanes; ++l) {
      u[l] = re[l] * c - im[l] * s;
      v[l] = re[l] * s + im[l] * c;
    }
  }

  void Two(const T* x, const T* y, int64_t step, T* u, T* v, int64_t out, int64_t twiddle) const {
    T a[kLanes], b[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      u[l] = x[l] + x[step + l], v[l] = y[l] + y[step + l];
      a[l] = x[l] - x[step + l], b[l] = y[l] - y[step + l];
    }
    Store(u + out, v + out, a, b, twiddle);
  }

  void Four(const T* x, const T* y, int64_t step, T* u, T* v, int64_t out, int64_t twiddle) const {
    T a[3][kLanes], b[3][kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      const T x0 = x[l], x1 = x[step + l], x2 = x[2 * step + l], x3 = x[3 * step + l];
      const T y0 = y[l], y1 = y[step + l], y2 = y[2 * step + l], y3 = y[3 * step + l];
      u[l] = (x0 + x2) + (x1 + x3), v[l] = (y0 + y2) + (y1 + y3);
      a[0][l] = (x0 - x2) + (y1 - y3), b[0][l] = (y0 - y2) - (x1 - x3);
      a[1][l] = (x0 + x2) - (x1 + x3), b[1][l] = (y0 + y2) - (y1 + y3);
      a[2][l] = (x0 - x2) - (y1 - y3), b[2][l] = (y0 - y2) + (x1 - x3);
    }
    for (int r = 1; r < 4; ++r) Store(u + r * out, v + r * out, a[r - 1], b[r - 1], r * twiddle);
  }

  void Any(int64_t p, const T* x, const T* y, int64_t step, T* u, T* v, int64_t out, int64_t twiddle) const {
    for (int64_t r = 0; r < p; ++r) {
      T a[kLanes] = {}, b[kLanes] = {};
      for (int64_t j = 0; j < p; ++j) {
        const int64_t w = j * r % p * (n_ / p);
        const T c = cosine_[w], s = sine_[w];
        for (int64_t l = 0; l < kLanes; ++l) {
          a[l] += x[j * step + l] * c - y[j * step + l] * s;
          b[l] += x[j * step + l] * s + y[j * step + l] * c;
        }
      }
      Store(u + r * out, v + r * out, a, b, r * twiddle);
    }
  }

  int64_t n_;
  Buffer<T> cosine_, sine_;  // of -2 pi i / n
  std::vector<int64_t> factors_;
};

}  // namespace anycann
