#include "ops/attention/scores.h"

#include <algorithm>

#include "ops/convert.h"

namespace anycann {

void Scores::AddBias(float* s, int64_t b, int64_t head, const SequencePair& p, int64_t i, int64_t j0,
                     int64_t n) const {
  const float scale = static_cast<float>(a_.scale);
  if (a_.pse_kind >= PositionBias::kSlopes) {
    float slope;
    Convert(&slope, DType::kFloat, a_.pse.At(b, head, 0), a_.pse.dtype, 1);
    const bool root = a_.pse_kind == PositionBias::kRootSlopes;
    const float shift = static_cast<float>(i - j0 + a_.q_start - a_.k_start);
    (void)p;
    for (int64_t j = 0; j < n; ++j) {
      const float distance = std::fabs(shift - static_cast<float>(j));
      s[j] = s[j] * scale - (root ? std::sqrt(distance) : distance) * slope;
    }
    return;
  }
  alignas(64) float bias[kBlockKeys];
  alignas(64) char packed[kBlockKeys * 8];
  const char* from = a_.pse.At(b, head, i) + j0 * a_.pse.dim * SizeOf(a_.pse.dtype);
  if (a_.pse.dim != 1) {
    PackStrided(packed, from, a_.pse.dim, n, SizeOf(a_.pse.dtype));
    from = packed;
  }
  Convert(bias, DType::kFloat, from, a_.pse.dtype, n);
  if (a_.pse_kind == PositionBias::kScaledBefore) {
    for (int64_t j = 0; j < n; ++j) s[j] = (s[j] + bias[j]) * scale;
  } else {
    for (int64_t j = 0; j < n; ++j) s[j] = s[j] * scale + bias[j];
  }
}

float Scores::Finish(float* s, int64_t b, int64_t head, const SequencePair& p, int64_t i, int64_t j0,
                     int64_t n, int64_t padded) const {
  if (a_.pse.data != nullptr) {
    AddBias(s, b, head, p, i, j0, n);
  } else {
    const float scale = static_cast<float>(a_.scale);
    for (int64_t j = 0; j < n; ++j) s[j] *= scale;
  }
  if (a_.mask.data != nullptr) {
    const uint8_t* mask = reinterpret_cast<const uint8_t*>(a_.mask.At(b, head, i)) + j0 * a_.mask.dim;
    if (a_.mask.dim == 1) {
      for (int64_t j = 0; j < n; ++j) s[j] = mask[j] ? kMasked : s[j];
    } else {
      for (int64_t j = 0; j < n; ++j) s[j] = mask[j * a_.mask.dim] ? kMasked : s[j];
    }
  }
  if (a_.banded) {
    const int64_t shift = a_.from_lower_right ? p.k_len - p.q_len : 0;
    const int64_t prefix = a_.prefix ? a_.prefix[b] : 0;
    const int64_t low = std::clamp<int64_t>(i + shift - a_.before - j0, 0, n);
    const int64_t high = std::clamp<int64_t>(i + shift + a_.after + 1 - j0, 0, n);
    const int64_t seen = std::clamp<int64_t>(prefix - j0, 0, n);
    for (int64_t j = seen; j < low; ++j) s[j] = kMasked;
    for (int64_t j = std::max(high, seen); j < n; ++j) s[j] = kMasked;
  }
  std::fill(s + n, s + padded, kMasked);
  float lanes[kStep];
  std::fill_n(lanes, kStep, kMasked);
  for (int64_t j = 0; j < padded; j += kStep)
#pragma GCC ivdep
    for (int l = 0; l < kStep; ++l) lanes[l] = s[j + l] > lanes[l] ? s[j + l] : lanes[l];
  float max = lanes[0];
  for (float lane : lanes) max = lane > max ? lane : max;
  return max;
}

}  // namespace anycann
