// Scores of one query row against a block of keys: scale, position bias, band and mask; and their
// exponentials.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/vector_math.h"
#include "ops/attention/attention.h"
#include "ops/matmul/panels.h"

namespace anycann {

// One batch item's rows.
struct SequencePair {
  int64_t q0, q_len, k0, k_len;
  int64_t drop_bit;  // of its first score
};

class Scores {
 public:
  static constexpr int64_t kBlockKeys = 256;
  // Rows of scores are worked on in steps of this many, at every instruction set; a product may end before.
  static constexpr int64_t kStep = 16;
  static constexpr int64_t Padded(int64_t n) { return RoundUp(n, std::max<int64_t>(kPanelWidth, kStep)); }
  static constexpr float kMasked = -std::numeric_limits<float>::infinity();

  explicit Scores(const Attention& a) : a_(a) {}

  SequencePair Pair(int64_t b) const {
    if (a_.q_ends == nullptr)
      return {0, a_.q_counts != nullptr ? a_.q_counts[b] : a_.q_len, 0,
              a_.k_counts != nullptr ? a_.k_counts[b] : a_.k_len, b * a_.heads * a_.q_len * a_.k_len};
    SequencePair p{0, 0, 0, 0, 0};
    for (int64_t i = 0; i <= b; ++i) {
      p.drop_bit += a_.heads * p.q_len * p.k_len;
      p.q0 += p.q_len;
      p.k0 += p.k_len;
      p.q_len = a_.q_ends[i] - p.q0;
      p.k_len = a_.k_ends != nullptr     ? a_.k_ends[i] - p.k0
                : a_.k_counts != nullptr ? a_.k_counts[i]
                                         : a_.k_len;
    }
    if (a_.k_ends == nullptr) p.k0 = 0;
    return p;
  }

  // Keys [begin, end) that query i may see at all; a prefix makes it [0, end) with a hole that Finish masks.
  void Range(int64_t b, const SequencePair& p, int64_t i, int64_t* begin, int64_t* end) const {
    *begin = 0;
    *end = p.k_len;
    if (!a_.banded) return;
    const int64_t shift = a_.from_lower_right ? p.k_len - p.q_len : 0;
    const int64_t low = std::max<int64_t>(0, i + shift - a_.before), high = i + shift + a_.after + 1;
    *begin = std::min(low, p.k_len);
    *end = std::clamp<int64_t>(high, 0, p.k_len);
    if (a_.prefix != nullptr && a_.prefix[b] > 0) {
      *begin = 0;
      *end = std::max(*end, std::min(a_.prefix[b], p.k_len));
    }
  }

  // s[0, n): products of query i (of head `head`) with keys [j0, j0 + n), turned into scores; [n, padded)
  // masked out. Returns their maximum.
  float Finish(float* s, int64_t b, int64_t head, const SequencePair& p, int64_t i, int64_t j0, int64_t n,
               int64_t padded) const;

  // s = exp(s - max) * factor; returns the sum. max is finite, n a multiple of kStep.
  static float Exponentials(float* s, int64_t n, float max, float factor) {
    float lanes[kStep] = {};
    for (int64_t j = 0; j < n; j += kStep) {
#pragma GCC ivdep
      for (int l = 0; l < kStep; ++l) s[j + l] = math::Exp(s[j + l] - max) * factor;
#pragma GCC ivdep
      for (int l = 0; l < kStep; ++l) lanes[l] += s[j + l];
    }
    float sum = 0;
    for (float lane : lanes) sum += lane;
    return sum;
  }

  // s[j] *= 1 / keep or 0, by the drop mask.
  void Drop(float* s, int64_t head, const SequencePair& p, int64_t i, int64_t j0, int64_t n) const {
    const float kept = static_cast<float>(1 / a_.keep);
    const int64_t bit = p.drop_bit + (head * p.q_len + i) * p.k_len + j0;
    for (int64_t j = 0; j < n; ++j) s[j] *= (a_.drop[(bit + j) >> 3] >> ((bit + j) & 7) & 1) ? kept : 0.0f;
  }

 private:
  void AddBias(float* s, int64_t b, int64_t head, const SequencePair& p, int64_t i, int64_t j0,
               int64_t n) const;

  const Attention& a_;
};

}  // namespace anycann
