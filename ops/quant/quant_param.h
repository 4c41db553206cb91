// Quantisation parameters of 64 bits, as TransQuantParam packs them: a float32 scale in the low half, its
// last 13 bits zero, an offset of 9 bits from bit 37, and bit 46 set.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "ops/dense.h"

namespace anycann {

inline uint64_t PackQuantParam(float scale, float offset, bool nearest) {
  uint32_t bits = std::bit_cast<uint32_t>(scale);
  // Half of what is dropped, and the last bit kept: ties go to even.
  if (nearest && std::isfinite(scale)) bits += 0xfffu + (bits >> 13 & 1);
  bits &= 0xffffe000u;
  const float whole = std::isnan(offset) ? 0.0f : std::clamp(std::nearbyint(offset), -256.0f, 255.0f);
  const uint64_t low_bits = static_cast<uint64_t>(static_cast<int64_t>(whole)) & 0x1ff;
  return uint64_t{bits} | low_bits << 37 | uint64_t{1} << 46;
}
inline float ScaleOfParam(uint64_t param) { return std::bit_cast<float>(static_cast<uint32_t>(param)); }
inline float OffsetOfParam(uint64_t param) {
  return static_cast<float>(static_cast<int64_t>(param << 18) >> 55);
}

inline bool IsQuantParam(DType t) { return t == DType::kInt64 || t == DType::kUint64; }

// Scales as a client gives them, floats or packed, as dense floats in row-major order.
class QuantScales {
 public:
  QuantScales() = default;
  explicit QuantScales(const TensorView& v) {
    if (!IsQuantParam(v.dtype)) {
      plain_ = Values<float>(v);
      return;
    }
    const int64_t n = v.numel();
    const Values<int64_t> params(AsInt64(v));
    packed_ = Scratch<float>(n);
    offset_ = Scratch<float>(n);
    ok_ = params.ok() && packed_.ok() && offset_.ok();
    for (int64_t i = 0; ok_ && i < n; ++i) {
      packed_[i] = ScaleOfParam(static_cast<uint64_t>(params[i]));
      offset_[i] = OffsetOfParam(static_cast<uint64_t>(params[i]));
    }
  }
  bool ok() const { return ok_ && plain_.ok(); }
  const float* get() const { return packed_.ok() ? packed_.get() : plain_.get(); }
  const float* offsets() const { return offset_.get(); }  // nullptr unless packed

 private:
  static TensorView AsInt64(TensorView v) {
    v.dtype = DType::kInt64;
    return v;
  }
  bool ok_ = true;
  Values<float> plain_;
  Scratch<float> packed_, offset_;
};

}  // namespace anycann
