// Convolutions with one input channel per group: nothing is shared between channels, so there is nothing to
// pack. Points of a row are computed side by side, straight from the padded image.
#pragma once

#include "ops/conv/correlation_problem.h"

namespace anycann {

// `n` <= kLanes values; the rest of the register is zero.
template <class L>
inline typename L::Register LoadPart(const typename L::Element* p, int64_t n) {
  using R = typename L::Register;
  typedef R Unaligned __attribute__((aligned(alignof(typename L::Element)), may_alias));
  if (n >= L::kLanes) return *reinterpret_cast<const Unaligned*>(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(typename L::Element) == 4)
    return (R)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#endif
  R r = {};
  for (int64_t i = 0; i < n; ++i) r[i] = p[i];
  return r;
}

// to[i] = sum over u of weights[u] * source[offsets[u] + i]; `to` has room for whole registers.
template <class L>
void DepthwiseRun(typename L::Element* to, const typename L::Element* source, const int64_t* offsets,
                  const typename L::Element* weights, int64_t taps, int64_t run) {
  using R = typename L::Register;
  typedef R Unaligned __attribute__((aligned(alignof(typename L::Element)), may_alias));
  int64_t i = 0;
  for (; i + 4 * L::kLanes <= run; i += 4 * L::kLanes) {
    R sum[4] = {};
    for (int64_t u = 0; u < taps; ++u) {
      const R w = weights[u] - R{};
      const typename L::Element* s = source + offsets[u] + i;
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v)
        sum[v] = L::MultiplyAdd(w, *reinterpret_cast<const Unaligned*>(s + v * L::kLanes), sum[v]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) *reinterpret_cast<Unaligned*>(to + i + v * L::kLanes) = sum[v];
  }
  for (; i < run; i += L::kLanes) {
    R even = {}, odd = {};  // two chains: a run of one register is bound by the latency
    int64_t u = 0;
    for (; u + 2 <= taps; u += 2) {
      even = L::MultiplyAdd(weights[u] - R{}, LoadPart<L>(source + offsets[u] + i, run - i), even);
      odd = L::MultiplyAdd(weights[u + 1] - R{}, LoadPart<L>(source + offsets[u + 1] + i, run - i), odd);
    }
    if (u < taps)
      even = L::MultiplyAdd(weights[u] - R{}, LoadPart<L>(source + offsets[u] + i, run - i), even);
    *reinterpret_cast<Unaligned*>(to + i) = even + odd;
  }
}

inline constexpr int kGradientTaps = 9;  // at a time: their sums stay in registers along a row

// sum[t] += grad[i] * source[offsets[t] + i], lane by lane.
template <class L>
void DepthwiseGradientRun(typename L::Register (&sum)[kGradientTaps], const typename L::Element* grad,
                          const typename L::Element* source, const int64_t* offsets, int count, int64_t run) {
  using R = typename L::Register;
  const typename L::Element* from[kGradientTaps];
  for (int t = 0; t < kGradientTaps; ++t) from[t] = source + offsets[std::min(t, count - 1)];
  for (int64_t i = 0; i < run; i += L::kLanes) {
    const R g = LoadPart<L>(grad + i, run - i);
#pragma GCC unroll 9
    for (int t = 0; t < kGradientTaps; ++t)
      sum[t] = L::MultiplyAdd(g, LoadPart<L>(from[t] + i, run - i), sum[t]);
  }
}

// Tasks are pieces of one output channel's points over all images.
template <class Arithmetic>
bool RunDepthwise(const Correlation& c, int64_t begin, int64_t end, const Padded& padded) {
  using L = typename Arithmetic::Lanes;
  using T = typename L::Element;
  constexpr int64_t kPiece = 1024;
  const int64_t* offsets = MakeOffsets(padded, c.axes, 1);
  if (offsets == nullptr) return false;
  const Patches patches(padded, c.axes, offsets, end - begin);
  const int64_t points = patches.points() * (end - begin), pieces = (points + kPiece - 1) / kPiece,
                taps = c.taps();
  const int64_t rows = c.out.channels / c.groups;
  std::atomic<bool> ok{true};
  const int64_t grain = std::max<int64_t>(1, (256 << 10) / (std::min(points, kPiece) * taps));
  ParallelFor(c.out.channels * pieces, grain, [&](int64_t b, int64_t e) {
    T* weights = static_cast<T*>(ThreadScratch(ScratchSlot::kLeft, static_cast<size_t>(taps) * sizeof(T)));
    if (weights == nullptr) return ok.store(false, std::memory_order_relaxed);
    alignas(64) T sums[kPiece + L::kLanes];
    for (int64_t t = b; t < e; ++t) {
      const int64_t channel = t / pieces, first = t % pieces * kPiece, n = std::min(kPiece, points - first);
      const CorrelationProblem<Arithmetic> problem(c, channel / rows, begin, patches, padded);
      if (t == b || first == 0) problem.PackLeft(weights, channel % rows, 1, 0, taps);
      patches.EachRun(first, n, [&](int64_t lane, int64_t at, int64_t run) {
        DepthwiseRun<L>(sums + lane, problem.source() + at, offsets, weights, taps, run);
      });
      problem.Store(sums, kPiece, channel % rows, 1, first, n);
    }
  });
  return ok.load();
}

// Tasks are output channels and groups of taps.
template <class Arithmetic>
bool AddDepthwiseGradient(const FilterGradient& f, int64_t begin, int64_t end, const Padded& padded) {
  using L = typename Arithmetic::Lanes;
  using T = typename L::Element;
  constexpr int64_t kPiece = 1024;
  const int64_t* offsets = MakeOffsets(padded, f.axes, 1);
  if (offsets == nullptr) return false;
  const Patches patches(padded, f.axes, offsets, end - begin);
  const int64_t pixels = f.grad.pixels(), points = pixels * (end - begin), taps = f.taps();
  const int64_t rows = f.grad.channels / f.groups;
  const int64_t chunks = (taps + kGradientTaps - 1) / kGradientTaps;
  const int64_t grain = std::max<int64_t>(1, (256 << 10) / (points * kGradientTaps + 1));
  ParallelFor(f.grad.channels * chunks, grain, [&](int64_t b, int64_t e) {
    alignas(64) T buffer[kPiece];
    for (int64_t task = b; task < e; ++task) {
      const int64_t channel = task / chunks, u = task % chunks * kGradientTaps;
      const int count = static_cast<int>(std::min<int64_t>(kGradientTaps, taps - u));
      const T* source = reinterpret_cast<const T*>(padded.data) + channel / rows * padded.channel_stride;
      typename L::Register sum[kGradientTaps] = {};
      for (int64_t first = 0; first < points;) {
        const int64_t image = first / pixels, p = first % pixels, n = std::min(kPiece, pixels - p);
        const Image& g = f.grad;
        const Lines l{
            g.data + ((begin + image) * g.batch_stride + channel * g.channel_stride + p) * SizeOf(g.dtype),
            g.dtype, 0, 1};
        const T* grad = buffer;
        if (g.dtype == Arithmetic::kAccumulator)
          grad = reinterpret_cast<const T*>(l.data);
        else
          Pack(buffer, 1, l, 1, n);
        patches.EachRun(first, n, [&](int64_t lane, int64_t at, int64_t run) {
          DepthwiseGradientRun<L>(sum, grad + lane, source + at, offsets + u, count, run);
        });
        first += n;
      }
      T* sums = static_cast<T*>(f.sums) + channel * taps + u;
      for (int t = 0; t < count; ++t)
        for (int lane = 0; lane < L::kLanes; ++lane) sums[t] += sum[t][lane];
    }
  });
  return true;
}

}  // namespace anycann
