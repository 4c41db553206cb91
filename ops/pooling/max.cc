#include "ops/pooling/max.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <type_traits>

#include "base/parallel.h"
#include "ops/elementwise/arithmetic.h"

namespace anycann {
namespace {

// As wide as T, so that values and tap numbers share vector lanes.
template <class T>
using Tap = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

constexpr int64_t kMaxTable = 32768;  // entries of an offset table: 128 KiB
constexpr int64_t kChunk = 64;

template <class T>
constexpr T kLowest = std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity()
                                                  : std::numeric_limits<T>::lowest();

// The windows of all dimensions, and the tap's distance from the window's (maybe outside) origin.
struct Taps {
  Scratch<PoolWindow> d, h, w;
  Scratch<int64_t> distance;  // of tap k in the input's plane; fixed windows only

  explicit Taps(const PoolGeometry& g)
      : d(PoolWindows(g.d[0])), h(PoolWindows(g.d[1])), w(PoolWindows(g.d[2])) {
    distance = Scratch<int64_t>(g.taps());
    if (!distance.ok()) return;
    int64_t t = 0;
    for (int64_t i = 0; i < g.d[0].kernel; ++i)
      for (int64_t j = 0; j < g.d[1].kernel; ++j)
        for (int64_t k = 0; k < g.d[2].kernel; ++k, ++t)
          distance[t] =
              (i * g.d[0].dilation * g.d[1].in + j * g.d[1].dilation) * g.d[2].in + k * g.d[2].dilation;
  }
  bool ok() const { return d.ok() && h.ok() && w.ok() && distance.ok(); }
  // False when some window lies in the padding as a whole (a dilation that is larger than the input).
  bool all_inside(const PoolGeometry& g) const {
    const auto inside = [](const Scratch<PoolWindow>& windows, int64_t n) {
      return std::all_of(windows.get(), windows.get() + n, [](const PoolWindow& w) { return w.count > 0; });
    };
    return inside(d, g.d[0].out) && inside(h, g.d[1].out) && inside(w, g.d[2].out);
  }
};

// The origin of output row (od, oh)'s window in the plane, at width 0; may lie in the padding.
int64_t RowOrigin(const PoolGeometry& g, int64_t od, int64_t oh) {
  return ((od * g.d[0].stride - g.d[0].pad) * g.d[1].in + oh * g.d[1].stride - g.d[1].pad) * g.d[2].in -
         g.d[2].pad;
}

// Writes n places of one output row, given the taps.
template <class T>
void StorePlaces(const PoolGeometry& g, const Taps& taps, PoolPlace place, void* places, int64_t at,
                 int64_t origin, const Tap<T>* tap, int64_t n) {
  const int64_t stride = g.d[2].stride;
  const int64_t* distance = taps.distance.get();
  switch (place) {
    case PoolPlace::kNone: return;
    case PoolPlace::kTap8:
      for (int64_t j = 0; j < n; ++j) static_cast<uint8_t*>(places)[at + j] = static_cast<uint8_t>(tap[j]);
      return;
    case PoolPlace::kTap16:
      for (int64_t j = 0; j < n; ++j) static_cast<uint16_t*>(places)[at + j] = static_cast<uint16_t>(tap[j]);
      return;
    case PoolPlace::kIndex32:
      for (int64_t j = 0; j < n; ++j)
        static_cast<int32_t*>(places)[at + j] = static_cast<int32_t>(origin + j * stride + distance[tap[j]]);
      return;
    case PoolPlace::kIndex64:
      for (int64_t j = 0; j < n; ++j)
        static_cast<int64_t*>(places)[at + j] = origin + j * stride + distance[tap[j]];
      return;
  }
}

template <class T>
inline void TakeLarger(T x, Tap<T> k, T& best, Tap<T>& tap) {
  bool larger = x > best;
  if constexpr (std::is_floating_point_v<T>) larger = larger | (x != x);
  best = larger ? x : best;
  tap = larger ? k : tap;
}

// Positions [lo, hi) of an output row whose tap k of the width lies inside the input.
struct TapRange {
  int64_t lo, hi, base;  // in-position of output position j: base + j * stride
};
TapRange RangeOf(const PoolDim& w, int64_t k) {
  TapRange r;
  r.base = k * w.dilation - w.pad;
  r.lo = r.base < 0 ? std::min(w.out, (-r.base + w.stride - 1) / w.stride) : 0;
  r.hi = r.base >= w.in ? 0 : std::min(w.out, (w.in - 1 - r.base) / w.stride + 1);
  r.hi = std::max(r.hi, r.lo);
  return r;
}

template <class T, int kStride>
void TapLoop(const T* __restrict row, const TapRange& r, int64_t stride, Tap<T> k, T* __restrict best,
             Tap<T>* __restrict tap) {
  const int64_t s = kStride > 0 ? kStride : stride;
  const T* p = row + r.base;
  for (int64_t j = r.lo; j < r.hi; ++j) TakeLarger(p[j * s], k, best[j], tap[j]);
}

// One plane, a row of outputs at a time: vectorised along the width.
template <class T>
void PlaneByRows(const PoolGeometry& g, const Taps& taps, const TapRange* ranges, const T* in, T* best,
                 Tap<T>* tap, int64_t od, int64_t oh) {
  const PoolWindow &wd = taps.d[od], &wh = taps.h[oh];
  const PoolDim& w = g.d[2];
  const Tap<T> first = static_cast<Tap<T>>((wd.first * g.d[1].kernel + wh.first) * w.kernel);
  for (int64_t j = 0; j < w.out; ++j) {
    best[j] = kLowest<T>;
    tap[j] = first + taps.w[j].first;
  }
  for (int64_t i = 0; i < wd.count; ++i) {
    for (int64_t h = 0; h < wh.count; ++h) {
      const T* row =
          in + ((wd.start + i * g.d[0].dilation) * g.d[1].in + wh.start + h * g.d[1].dilation) * w.in;
      const Tap<T> base = static_cast<Tap<T>>(((wd.first + i) * g.d[1].kernel + wh.first + h) * w.kernel);
      for (int64_t k = 0; k < w.kernel; ++k) {
        const Tap<T> t = base + static_cast<Tap<T>>(k);
        if (w.stride == 1)
          TapLoop<T, 1>(row, ranges[k], 1, t, best, tap);
        else if (w.stride == 2)
          TapLoop<T, 2>(row, ranges[k], 2, t, best, tap);
        else
          TapLoop<T, 0>(row, ranges[k], w.stride, t, best, tap);
      }
    }
  }
}

// For small planes: the offset of every tap of every output position. A tap in the padding repeats the last
// one inside before it (or the first one inside), which can't change the result.
class OffsetTable {
 public:
  OffsetTable(const PoolGeometry& g, const Taps& taps) : positions_(g.out_plane()), count_(g.taps()) {
    offsets_ = Scratch<int32_t>(positions_ * count_);
    if (!offsets_.ok()) return;
    int64_t o = 0;
    for (int64_t a = 0; a < g.d[0].out; ++a)
      for (int64_t b = 0; b < g.d[1].out; ++b)
        for (int64_t c = 0; c < g.d[2].out; ++c, ++o) Fill(g, taps, a, b, c, o);
  }
  bool ok() const { return offsets_.ok(); }
  const int32_t* of_tap(int64_t k) const { return offsets_.get() + k * positions_; }

 private:
  void Fill(const PoolGeometry& g, const Taps& taps, int64_t a, int64_t b, int64_t c, int64_t o) {
    const PoolWindow &wd = taps.d[a], &wh = taps.h[b], &ww = taps.w[c];
    int64_t last = (wd.start * g.d[1].in + wh.start) * g.d[2].in + ww.start, t = 0;
    for (int64_t i = 0; i < g.d[0].kernel; ++i)
      for (int64_t j = 0; j < g.d[1].kernel; ++j)
        for (int64_t k = 0; k < g.d[2].kernel; ++k, ++t) {
          const int64_t p = i - wd.first, q = j - wh.first, r = k - ww.first;
          if (p >= 0 && p < wd.count && q >= 0 && q < wh.count && r >= 0 && r < ww.count)
            last =
                ((wd.start + p * g.d[0].dilation) * g.d[1].in + wh.start + q * g.d[1].dilation) * g.d[2].in +
                ww.start + r * g.d[2].dilation;
          offsets_[t * positions_ + o] = static_cast<int32_t>(last);
        }
  }

  int64_t positions_, count_;
  Scratch<int32_t> offsets_;
};

// The table where it pays; the shape alone decides, so that backward knows what forward's taps mean.
std::optional<OffsetTable> MakeTable(const PoolGeometry& g, const Taps& taps) {
  const bool small = g.d[2].kernel > 0 && g.d[2].out < 48 &&
                     g.taps() <= kMaxTable / std::max<int64_t>(1, g.out_plane()) && g.in_plane() < INT32_MAX;
  if (!small || !taps.all_inside(g)) return std::nullopt;
  return std::optional<OffsetTable>(std::in_place, g, taps);
}

template <class T>
void ChunkByTable(const OffsetTable& table, int64_t taps, const T* __restrict in, int64_t at, int64_t n,
                  T* __restrict best, Tap<T>* __restrict tap) {
  const int32_t* offset = table.of_tap(0) + at;
  for (int64_t j = 0; j < n; ++j) {
    best[j] = in[offset[j]];
    tap[j] = 0;
  }
  for (int64_t k = 1; k < taps; ++k) {
    offset = table.of_tap(k) + at;
    for (int64_t j = 0; j < n; ++j) TakeLarger(in[offset[j]], static_cast<Tap<T>>(k), best[j], tap[j]);
  }
}

// Turns the taps of a chunk of a plane into places.
template <class T>
void StoreChunk(const OffsetTable& table, PoolPlace place, void* places, int64_t at, int64_t position,
                const Tap<T>* tap, int64_t n) {
  switch (place) {
    case PoolPlace::kNone: return;
    case PoolPlace::kTap8:
      for (int64_t j = 0; j < n; ++j) static_cast<uint8_t*>(places)[at + j] = static_cast<uint8_t>(tap[j]);
      return;
    case PoolPlace::kTap16:
      for (int64_t j = 0; j < n; ++j) static_cast<uint16_t*>(places)[at + j] = static_cast<uint16_t>(tap[j]);
      return;
    case PoolPlace::kIndex32:
      for (int64_t j = 0; j < n; ++j)
        static_cast<int32_t*>(places)[at + j] = table.of_tap(tap[j])[position + j];
      return;
    case PoolPlace::kIndex64:
      for (int64_t j = 0; j < n; ++j)
        static_cast<int64_t*>(places)[at + j] = table.of_tap(tap[j])[position + j];
      return;
  }
}

// Adaptive windows: each output position on its own.
template <class T>
void AdaptivePlane(const PoolGeometry& g, const Taps& taps, const T* in, T* out, PoolPlace place,
                   void* places, int64_t at) {
  int64_t o = 0;
  for (int64_t a = 0; a < g.d[0].out; ++a)
    for (int64_t b = 0; b < g.d[1].out; ++b)
      for (int64_t c = 0; c < g.d[2].out; ++c, ++o) {
        const PoolWindow &wd = taps.d[a], &wh = taps.h[b], &ww = taps.w[c];
        T best = kLowest<T>;
        int64_t index = (static_cast<int64_t>(wd.start) * g.d[1].in + wh.start) * g.d[2].in + ww.start;
        for (int64_t i = wd.start; i < wd.start + wd.count; ++i)
          for (int64_t j = wh.start; j < wh.start + wh.count; ++j) {
            const int64_t row = (i * g.d[1].in + j) * g.d[2].in;
            for (int64_t k = row + ww.start; k < row + ww.start + ww.count; ++k)
              if (in[k] > best || in[k] != in[k]) best = in[k], index = k;
          }
        out[o] = best;
        if (place == PoolPlace::kIndex32) static_cast<int32_t*>(places)[at + o] = static_cast<int32_t>(index);
        if (place == PoolPlace::kIndex64) static_cast<int64_t*>(places)[at + o] = index;
      }
}

// Everything that the loop over planes needs.
template <class T>
struct Forward {
  const PoolGeometry& g;
  const Taps& taps;
  const OffsetTable* table;
  const TapRange* ranges;
  PoolPlace place;
  void* places;

  void Plane(const T* in, T* out, Tap<T>* tap, int64_t plane) const {
    const int64_t outputs = g.out_plane(), at = plane * outputs;
    if (g.d[2].kernel == 0) return AdaptivePlane(g, taps, in, out, place, places, at);
    if (table != nullptr) {
      for (int64_t j = 0; j < outputs; j += kChunk) {
        const int64_t n = std::min(kChunk, outputs - j);
        ChunkByTable(*table, g.taps(), in, j, n, out + j, tap);
        StoreChunk<T>(*table, place, places, at + j, j, tap, n);
      }
      return;
    }
    const int64_t width = g.d[2].out;
    for (int64_t r = 0; r < g.d[0].out * g.d[1].out; ++r) {
      const int64_t od = r / g.d[1].out, oh = r % g.d[1].out;
      PlaneByRows(g, taps, ranges, in, out + r * width, tap, od, oh);
      StorePlaces<T>(g, taps, place, places, at + r * width, RowOrigin(g, od, oh), tap, width);
    }
  }
};

// The index into the plane of output `o`, given as `place`; negative or too large when the memory holds
// nonsense.
template <class F>
void ForEachIndex(const PoolGeometry& g, const Taps& taps, const OffsetTable* table, PoolPlace place,
                  const void* places, int64_t plane, F&& f) {
  const int64_t outputs = g.out_plane(), at = plane * outputs;
  if (place == PoolPlace::kIndex32) {
    for (int64_t o = 0; o < outputs; ++o) f(o, static_cast<const int32_t*>(places)[at + o]);
    return;
  }
  if (place == PoolPlace::kIndex64) {
    for (int64_t o = 0; o < outputs; ++o) f(o, static_cast<const int64_t*>(places)[at + o]);
    return;
  }
  const int64_t width = g.d[2].out, stride = g.d[2].stride, count = g.taps();
  const auto tap = [place, places, at](int64_t o) -> int64_t {
    return place == PoolPlace::kTap8 ? static_cast<const uint8_t*>(places)[at + o]
                                     : static_cast<const uint16_t*>(places)[at + o];
  };
  if (table != nullptr) {
    for (int64_t o = 0; o < outputs; ++o)
      f(o, tap(o) < count ? int64_t{table->of_tap(tap(o))[o]} : int64_t{-1});
    return;
  }
  for (int64_t r = 0; r < g.d[0].out * g.d[1].out; ++r) {
    const int64_t origin = RowOrigin(g, r / g.d[1].out, r % g.d[1].out), o = r * width;
    for (int64_t j = 0; j < width; ++j) {
      const int64_t k = tap(o + j);
      f(o + j, k < count ? origin + j * stride + taps.distance[k] : int64_t{-1});
    }
  }
}

}  // namespace

template <class T>
Status RunMaxPool(const char* op, const PoolGeometry& g, PoolPlace place, const TensorView& in,
                  const TensorView& out, void* places) {
  const DenseInput input(in);
  const DenseOutput output(out);
  const Taps taps(g);
  if (!input.ok() || !output.ok() || !taps.ok()) return ScratchFailed(op);
  const std::optional<OffsetTable> table = MakeTable(g, taps);
  const Scratch<TapRange> ranges(g.d[2].kernel);
  if (!ranges.ok() || (table && !table->ok())) return ScratchFailed(op);
  for (int64_t k = 0; k < g.d[2].kernel; ++k) ranges[k] = RangeOf(g.d[2], k);
  const Forward<T> forward{g, taps, table ? &*table : nullptr, ranges.get(), place, places};
  const DenseReader<T> reader(input.view());
  const DenseWriter<T> writer(output.view());
  const int64_t inputs = g.in_plane(), outputs = g.out_plane();
  std::atomic<bool> failed{false};
  ParallelFor(g.planes, PlaneGrain(g), [&](int64_t b, int64_t e) {
    const Scratch<T> in_buffer(reader.direct() ? 0 : inputs), out_buffer(writer.direct() ? 0 : outputs);
    const Scratch<Tap<T>> tap(std::max(g.d[2].out, kChunk));
    if (!in_buffer.ok() || !out_buffer.ok() || !tap.ok()) {
      failed = true;
      return;
    }
    for (int64_t p = b; p < e; ++p) {
      T* to = writer.Begin(p * outputs, out_buffer.get());
      forward.Plane(reader.Read(p * inputs, inputs, in_buffer.get()), to, tap.get(), p);
      writer.End(p * outputs, outputs, to);
    }
  });
  if (failed) return ScratchFailed(op);
  output.Finish();
  return Status();
}

template <class T>
Status RunMaxPoolBackward(const char* op, const PoolGeometry& g, PoolPlace place, const TensorView& dout,
                          const void* places, const TensorView& din) {
  const DenseInput gradient(dout);
  const DenseOutput result(din);
  const Taps taps(g);
  if (!gradient.ok() || !result.ok() || !taps.ok()) return ScratchFailed(op);
  std::optional<OffsetTable> table;
  if (place == PoolPlace::kTap8 || place == PoolPlace::kTap16) table = MakeTable(g, taps);
  if (table && !table->ok()) return ScratchFailed(op);
  const DenseReader<T> reader(gradient.view());
  const DenseWriter<T> writer(result.view());
  const int64_t inputs = g.in_plane(), outputs = g.out_plane();
  std::atomic<bool> failed{false}, outside{false};
  ParallelFor(g.planes, PlaneGrain(g), [&](int64_t b, int64_t e) {
    const Scratch<T> in_buffer(writer.direct() ? 0 : inputs), out_buffer(reader.direct() ? 0 : outputs);
    if (!in_buffer.ok() || !out_buffer.ok()) {
      failed = true;
      return;
    }
    bool bad = false;
    for (int64_t p = b; p < e; ++p) {
      const T* from = reader.Read(p * outputs, outputs, out_buffer.get());
      T* to = writer.Begin(p * inputs, in_buffer.get());
      std::fill(to, to + inputs, T(0));
      ForEachIndex(g, taps, table ? &*table : nullptr, place, places, p, [&](int64_t o, int64_t index) {
        if (static_cast<uint64_t>(index) < static_cast<uint64_t>(inputs)) [[likely]]
          to[index] = arithmetic::Add(to[index], from[o]);
        else
          bad = true;
      });
      writer.End(p * inputs, inputs, to);
    }
    if (bad) outside = true;
  });
  if (failed) return ScratchFailed(op);
  result.Finish();
  if (outside)
    return Error(kParamInvalid,
                 "{}: indices point outside of the {} elements of a plane of the input: they don't come from "
                 "the same pooling",
                 op, inputs);
  return Status();
}

#define ANYCANN_INSTANTIATE(T)                                                                          \
  template Status RunMaxPool<T>(const char*, const PoolGeometry&, PoolPlace, const TensorView&,         \
                                const TensorView&, void*);                                              \
  template Status RunMaxPoolBackward<T>(const char*, const PoolGeometry&, PoolPlace, const TensorView&, \
                                        const void*, const TensorView&);
ANYCANN_INSTANTIATE(float)
ANYCANN_INSTANTIATE(double)
ANYCANN_INSTANTIATE(int64_t)
#undef ANYCANN_INSTANTIATE

}  // namespace anycann
