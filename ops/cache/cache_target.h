// Rows on their way into a cache: normalised, turned, quantised where the cache has 8 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/cache/paged_cache.h"
#include "ops/dense.h"

namespace anycann {

// n even and odd numbers apart, turned: y = [even, odd] * cos + [-odd, even] * sin.
inline void RotatePairs(const float* x, const float* cos, const float* sin, int64_t n, float* y) {
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; ++i) {
    y[i] = x[2 * i] * cos[i] - x[2 * i + 1] * sin[i];
    y[half + i] = x[2 * i + 1] * cos[half + i] + x[2 * i] * sin[half + i];
  }
}

// Pairs (i, i + n / 2) turned: y = x * cos + [-second half, first half] * sin.
inline void RotateHalves(const float* x, const float* cos, const float* sin, int64_t n, float* y) {
  const int64_t half = n / 2;
  for (int64_t i = 0; i < half; ++i) {
    y[i] = x[i] * cos[i] - x[half + i] * sin[i];
    y[half + i] = x[half + i] * cos[half + i] + x[i] * sin[half + i];
  }
}

inline void NormaliseRow(const float* x, const float* gamma, float epsilon, int64_t n, float* y) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const float factor = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + epsilon));
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor * gamma[i];
}

// Where the rows of one of the caches go.
class CacheTarget {
 public:
  CacheTarget(const Run& t, const PagedCache& cache, int place, int scale, int offset, int out, int64_t width,
              bool divide = false)
      : cache_(cache), width_(width), divide_(divide), data_(t[place].bytes()), dtype_(t[place].dtype) {
    if (scale >= 0) scale_ = Values<float>(t[scale]), scale_step_ = t[scale].numel() > 1;
    if (offset >= 0) offset_ = Values<float>(t[offset]), offset_step_ = t[offset].numel() > 1;
    if (out >= 0) out_.emplace_back(t[out]);
  }
  bool ok() const { return scale_.ok() && offset_.ok() && (out_.empty() || out_[0].ok()); }
  // buffer: for width floats.
  void Store(int64_t token, int64_t slot, const float* row, float* buffer) const {
    if (!out_.empty()) {
      const TensorView& v = out_[0].view();
      Convert(v.bytes() + token * width_ * SizeOf(v.dtype), v.dtype, row, DType::kFloat, width_);
    }
    if (slot < 0) return;
    for (int64_t i = 0; i < width_ && scale_.get() != nullptr; ++i) {
      const float shift = offset_.get() != nullptr ? offset_[offset_step_ * i] : 0.0f;
      const float scale = scale_[scale_step_ * i];
      buffer[i] =
          std::clamp(std::nearbyint((divide_ ? row[i] / scale : row[i] * scale) + shift), -128.0f, 127.0f);
    }
    const float* from = scale_.get() != nullptr ? buffer : row;
    cache_.ForEachPiece(data_, slot, [&](int64_t i, char* at) {
      Convert(at, dtype_, from + i, DType::kFloat, cache_.piece);
    });
  }
  void Finish() const {
    if (!out_.empty()) out_[0].Finish();
  }

 private:
  PagedCache cache_;
  int64_t width_, scale_step_ = 0, offset_step_ = 0;
  bool divide_;  // by the scale
  char* data_;
  DType dtype_;
  Values<float> scale_, offset_;
  std::vector<DenseOutput> out_;
};

}  // namespace anycann
