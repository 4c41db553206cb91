// Patches: the columns of a convolution, gathered from a padded image straight into the panels of the packed
// engine.
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <algorithm>

#include "base/scratch.h"
#include "ops/conv/correlation.h"
#include "ops/matmul/transpose.h"

namespace anycann {

// The grid of all images as one line of points, and the offsets of one group's (channel, tap) pairs.
class Patches {
 public:
  // `offsets`: channels * taps, from MakeOffsets. `images` of `padded` are used.
  Patches(const Padded& padded, const AxisTaps (&axes)[kAxes], const int64_t* offsets, int64_t images)
      : data_(padded.data), batch_stride_(padded.batch_stride), offsets_(offsets), images_(images) {
    row_ = axes[2].points;
    int64_t strides[2] = {axes[0].step * padded.axis_stride[0], axes[1].step * padded.axis_stride[1]};
    int64_t counts[2] = {axes[0].points, axes[1].points};
    // Rows that continue each other in memory count as one.
    for (int i = 1; i >= 0 && (counts[i] == 1 || strides[i] == row_); --i) {
      row_ *= counts[i];
      counts[i] = 1;
    }
    for (int i = 0; i < 2; ++i) {
      counts_[i] = counts[i];
      strides_[i] = strides[i];
    }
  }

  int64_t points() const { return counts_[0] * counts_[1] * row_; }  // of one image

  // Calls f(lane, element offset, run) for the runs of consecutive elements that points [first, first + n)
  // are.
  template <class F>
  void EachRun(int64_t first, int64_t n, F&& f) const {
    const int64_t per_image = points();
    int64_t image = first / per_image, rest = first % per_image;
    int64_t column = rest % row_;
    rest /= row_;
    int64_t y = rest % counts_[1], z = rest / counts_[1];
    for (int64_t lane = 0; lane < n;) {
      const int64_t run = std::min(n - lane, row_ - column);
      f(lane, image * batch_stride_ + z * strides_[0] + y * strides_[1] + column, run);
      lane += run;
      column = 0;
      if (++y == counts_[1]) {
        y = 0;
        if (++z == counts_[0]) z = 0, ++image;
      }
    }
  }

  const char* data() const { return data_; }
  const int64_t* offsets() const { return offsets_; }
  int64_t images() const { return images_; }

 private:
  const char* data_;
  int64_t batch_stride_;
  const int64_t* offsets_;
  int64_t images_;
  int64_t counts_[2], strides_[2], row_;
};

// Element offsets of the pairs (channel, tap), channels of one group from its first, in slot kTable. nullptr:
// no memory.
inline int64_t* MakeOffsets(const Padded& padded, const AxisTaps (&axes)[kAxes], int64_t channels) {
  const int64_t taps = axes[0].taps * axes[1].taps * axes[2].taps;
  // One more, so that pairs of units may read beyond an odd end.
  int64_t* table =
      static_cast<int64_t*>(ThreadScratch(ScratchSlot::kTable, static_cast<size_t>(channels * taps + 1) * 8));
  if (table == nullptr) return nullptr;
  int64_t* to = table;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t z = 0; z < axes[0].taps; ++z)
      for (int64_t y = 0; y < axes[1].taps; ++y)
        for (int64_t x = 0; x < axes[2].taps; ++x)
          *to++ = c * padded.channel_stride + padded.TapOffset(0, axes[0], z) +
                  padded.TapOffset(1, axes[1], y) + padded.TapOffset(2, axes[2], x);
  *to = 0;
  return table;
}

// A piece of a panel's row: up to 16 neighbouring points, consecutive in memory.
struct Chunk {
  int64_t lane, at;  // of the panel's row, and element of the padded image
  int count;
};
inline constexpr int kMostChunks = 64;

// Panel rows: to[(u - u0) * padded + lane + i] = source[at + offsets[u] + i] for every chunk. Chunks are in
// rising order of lanes and cover the row but for its padding.
template <class T>
void GatherPanel(T* to, int padded, const T* source, const int64_t* offsets, int64_t u0, int64_t u1,
                 const Chunk* chunks, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    // Whole vectors are stored: what one writes too much, the next chunk or row overwrites; the last row is
    // exact.
    const T* base[kMostChunks];
    __mmask16 mask[kMostChunks];
    for (int c = 0; c < count; ++c) {
      base[c] = source + chunks[c].at;
      mask[c] = static_cast<__mmask16>((1u << chunks[c].count) - 1);
    }
    for (int64_t u = u0; u < u1 - 1; ++u, to += padded) {
      const int64_t offset = offsets[u];
      for (int c = 0; c < count; ++c)
        _mm512_storeu_ps(to + chunks[c].lane, _mm512_maskz_loadu_ps(mask[c], base[c] + offset));
    }
    for (int c = 0; c < count; ++c)
      _mm512_mask_storeu_ps(to + chunks[c].lane, mask[c],
                            _mm512_maskz_loadu_ps(mask[c], base[c] + offsets[u1 - 1]));
    return;
  }
#endif
  for (int64_t u = u0; u < u1; ++u, to += padded) {
    for (int c = 0; c < count; ++c) {
      const T* s = source + chunks[c].at + offsets[u];
      for (int i = 0; i < chunks[c].count; ++i) to[chunks[c].lane + i] = s[i];
    }
  }
}

// The same with pairs of units of 2-byte elements; `end` is the number of elements, which may be odd.
inline void GatherPairPanel(uint32_t* to, int padded, const uint16_t* source, const int64_t* offsets,
                            int64_t u0, int64_t u1, int64_t end, const Chunk* chunks, int count) {
  for (int64_t u = u0; u < u1; ++u, to += padded) {
    const uint16_t* low = source + offsets[2 * u];
    const uint16_t* high = source + offsets[2 * u + 1];
    const uint32_t keep = 2 * u + 1 < end ? 0xffff0000u : 0;
    for (int c = 0; c < count; ++c) {
      uint32_t* p = to + chunks[c].lane;
#if defined(__AVX512BW__) && defined(__AVX512VL__)
      const __mmask16 mask = static_cast<__mmask16>((1u << chunks[c].count) - 1);
      const __m512i l = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low + chunks[c].at));
      const __m512i h =
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, high + chunks[c].at)), 16);
      const __m512i pair = _mm512_or_si512(l, _mm512_and_si512(h, _mm512_set1_epi32(static_cast<int>(keep))));
      if (u + 1 < u1)
        _mm512_storeu_si512(p, pair);
      else
        _mm512_mask_storeu_epi32(p, mask, pair);
#else
      const uint16_t* l = low + chunks[c].at;
      const uint16_t* h = high + chunks[c].at;
      for (int i = 0; i < chunks[c].count; ++i) p[i] = l[i] | ((static_cast<uint32_t>(h[i]) << 16) & keep);
#endif
    }
  }
}

// to[i * padded + j] = source[offsets[j] + i] for a run of points i and `lines` units j: the patches as rows
// of depth.
template <class T>
inline void GatherRows(T* to, int padded, const T* source, const int64_t* offsets, int lines, int64_t run) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    for (int64_t r = 0; r < run; r += 16) {
      const int n = static_cast<int>(std::min<int64_t>(16, run - r));
      const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
      for (int first = 0; first < lines; first += 16) {
        const int count = std::min(16, lines - first);
        __m512i square[16];
        if (count == 16) {
#pragma GCC unroll 16
          for (int j = 0; j < 16; ++j)
            square[j] = _mm512_maskz_loadu_epi32(mask, source + r + offsets[first + j]);
        } else {
          for (int j = 0; j < 16; ++j)
            square[j] = j < count ? _mm512_maskz_loadu_epi32(mask, source + r + offsets[first + j])
                                  : _mm512_setzero_si512();
        }
        TransposeSquare(square);
        const __mmask16 stored = static_cast<__mmask16>((1u << std::min(16, padded - first)) - 1);
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          if (i < n) _mm512_mask_storeu_epi32(to + (r + i) * padded + first, stored, square[i]);
      }
    }
    return;
  }
#endif
  for (int j = 0; j < lines; ++j) {
    const T* s = source + offsets[j];
    for (int64_t i = 0; i < run; ++i) to[i * padded + j] = s[i];
  }
}

}  // namespace anycann
