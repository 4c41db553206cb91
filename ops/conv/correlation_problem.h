// The packed engine's Problems of convolution: a correlation and a filter gradient, for one group.
#pragma once

#include "ops/conv/patches.h"
#include "ops/matmul/epilogue.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/packed_engine.h"

namespace anycann {

// Arithmetic says: Lanes, Storage (of the padded image), kAccumulator.
template <class Arithmetic>
class CorrelationProblem {
 public:
  using Lanes = typename Arithmetic::Lanes;
  using Element = typename Lanes::Element;
  using Accumulator = typename Lanes::Accumulator;
  using Storage = typename Arithmetic::Storage;
  static constexpr bool kPairs = sizeof(Storage) == 2;

  CorrelationProblem(const Correlation& c, int64_t group, int64_t first_image, const Patches& patches,
                     const Padded& padded)
      : m(c.out.channels / c.groups),
        n(patches.points() * patches.images()),
        units(kPairs ? (c.depth() + 1) / 2 : c.depth()),
        depth_(c.depth()),
        patches_(patches) {
    filter_ = c.filter;
    filter_.data += group * c.filter.group * SizeOf(filter_.dtype);
    taps_ = c.taps();
    source_ = reinterpret_cast<const Storage*>(patches.data()) +
              group * (c.in.channels / c.groups) * padded.channel_stride;
    const Image& out = c.out;
    // Runs of points that are evenly spaced in out: a row, or everything when rows continue each other.
    run_ = out.size[2];
    for (int i = 1; i >= 0 && (out.size[i] == 1 || out.stride[i] == run_ * out.stride[2]); --i)
      run_ *= out.size[i];
    out_ = &out;
    epilogue_.addend = c.bias ? c.bias + group * m * c.bias_stride * SizeOf(c.bias_type) : nullptr;
    epilogue_.out_type = out.dtype;
    epilogue_.addend_type = c.bias ? c.bias_type : Arithmetic::kAccumulator;
    epilogue_.accumulator = Arithmetic::kAccumulator;
    epilogue_.out_row = out.channel_stride;
    epilogue_.out_column = out.stride[2];
    epilogue_.addend_row = c.bias_stride;
    epilogue_.addend_column = 0;
    epilogue_.scaled = false;
    origin_ =
        out.data + (first_image * out.batch_stride + group * m * out.channel_stride) * SizeOf(out.dtype);
  }

  void PackLeft(Element* to, int64_t first, int lines, int64_t u0, int64_t u1) const {
    const char* data = filter_.data + first * filter_.row * SizeOf(filter_.dtype);
    constexpr int64_t kElements = kPairs ? 2 : 1;  // of a unit
    const int64_t begin = kElements * u0, end = std::min(depth_, kElements * u1);
    if (filter_.Flat(taps_)) {
      const Lines l{data + begin * SizeOf(filter_.dtype), filter_.dtype, filter_.row, 1};
      if constexpr (kPairs)
        PackPairs(to, lines, l, lines, end - begin);
      else
        Pack(to, lines, l, lines, end - begin);
      return;
    }
    if (taps_ == 1 && !kPairs) {
      const Lines l{data + begin * filter_.channel * SizeOf(filter_.dtype), filter_.dtype, filter_.row,
                    filter_.channel};
      if constexpr (!kPairs) Pack(to, lines, l, lines, end - begin);
      return;
    }
    switch (filter_.dtype) {
      case DType::kFloat: return GatherFilter<float>(to, data, lines, begin, end);
      case DType::kFloat16: return GatherFilter<Half>(to, data, lines, begin, end);
      case DType::kBFloat16: return GatherFilter<BFloat16>(to, data, lines, begin, end);
      case DType::kInt64: return GatherFilter<int64_t>(to, data, lines, begin, end);
      default: return GatherFilter<double>(to, data, lines, begin, end);
    }
  }

  void PackRight(Element* to, int padded, int64_t first, int lines, int64_t u0, int64_t u1) const {
    if (u0 == u1) return;
    Chunk chunks[kMostChunks];
    int count = 0;
    patches_.EachRun(first, lines, [&](int64_t lane, int64_t at, int64_t run) {
      for (int64_t i = 0; i < run; i += 16)
        chunks[count++] = {lane + i, at + i, static_cast<int>(std::min<int64_t>(16, run - i))};
    });
    if constexpr (kPairs)
      GatherPairPanel(to, padded, source_, patches_.offsets(), u0, u1, depth_, chunks, count);
    else
      GatherPanel(to, padded, source_, patches_.offsets(), u0, u1, chunks, count);
    if (lines < padded)
      for (int64_t u = 0; u < u1 - u0; ++u)
        std::fill(to + u * padded + lines, to + (u + 1) * padded, Element());
  }

  Accumulator* Direct(int64_t*) const { return nullptr; }
  const Storage* source() const { return source_; }

  void Store(const Accumulator* acc, int64_t ld, int64_t row, int64_t rows, int64_t column,
             int64_t columns) const {
    const int64_t pixels = out_->pixels(), size = SizeOf(out_->dtype);
    Epilogue e = epilogue_;
    for (int64_t done = 0; done < columns;) {
      const int64_t point = column + done, image = point / pixels, p = point % pixels;
      const int64_t count = std::min(columns - done, run_ - p % run_);
      const int64_t start = p / run_ * run_;  // the run's first point
      const int64_t x = start % out_->size[2], y = start / out_->size[2] % out_->size[1],
                    z = start / out_->size[2] / out_->size[1];
      e.out = origin_ +
              (image * out_->batch_stride + z * out_->stride[0] + y * out_->stride[1] + x * out_->stride[2]) *
                  size;
      e.Store(acc + done, ld, row, rows, p % run_, count);
      done += count;
    }
  }

  const int64_t m, n, units;

 private:
  const int64_t depth_;
  // Elements [begin, end) of the depth, one (channel, tap) pair after the other.
  template <class From>
  void GatherFilter(Element* to, const char* data, int lines, int64_t begin, int64_t end) const {
    const From* from = reinterpret_cast<const From*>(data);
    const int64_t row = filter_.row;
    for (int64_t u = begin; u < end; ++u) {
      const From* p = from + filter_.Offset(u);
      if constexpr (!kPairs) {
        for (int r = 0; r < lines; ++r) to[r] = static_cast<Element>(p[r * row]);
        to += lines;
      } else if constexpr (std::is_same_v<From, BFloat16>) {
        const bool low = (u - begin) % 2 == 0;
        for (int r = 0; r < lines; ++r)
          to[r] = low ? p[r * row].bits : to[r] | static_cast<uint32_t>(p[r * row].bits) << 16;
        if (!low) to += lines;
      }
    }
  }

  const Patches& patches_;
  Filter filter_;
  int64_t taps_;
  const Storage* source_;
  const Image* out_;
  int64_t run_;
  Epilogue epilogue_ = {};
  char* origin_;
};

// Rows are output channels, columns (channel, tap) pairs, the depth all points of all images.
template <class Arithmetic>
class FilterGradientProblem {
 public:
  using Lanes = typename Arithmetic::Lanes;
  using Element = typename Lanes::Element;
  using Accumulator = typename Lanes::Accumulator;
  using Storage = typename Arithmetic::Storage;

  FilterGradientProblem(const FilterGradient& f, int64_t group, int64_t first_image, const Patches& patches,
                        const Padded& padded)
      : m(f.grad.channels / f.groups),
        n(f.in.channels / f.groups * f.taps()),
        units(patches.points() * patches.images()),
        patches_(patches),
        pixels_(f.grad.pixels()),
        batch_stride_(f.grad.batch_stride) {
    const Image& g = f.grad;
    grad_ = {g.data + (first_image * g.batch_stride + group * m * g.channel_stride) * SizeOf(g.dtype),
             g.dtype, g.channel_stride, 1};
    source_ = reinterpret_cast<const Storage*>(patches.data()) +
              group * (f.in.channels / f.groups) * padded.channel_stride;
    sums_ = static_cast<Accumulator*>(f.sums) + group * m * n;
  }

  void PackLeft(Element* to, int64_t first, int lines, int64_t u0, int64_t u1) const {
    for (int64_t u = u0; u < u1;) {
      const int64_t image = u / pixels_, p = u % pixels_, count = std::min(u1 - u, pixels_ - p);
      Lines l = grad_.Skip(first);
      l.data += (image * batch_stride_ + p) * SizeOf(l.dtype);
      Pack(to + (u - u0) * lines, lines, l, lines, count);
      u += count;
    }
  }
  void PackRight(Element* to, int padded, int64_t first, int lines, int64_t u0, int64_t u1) const {
    patches_.EachRun(u0, u1 - u0, [&](int64_t lane, int64_t at, int64_t run) {
      GatherRows(to + lane * padded, padded, source_ + at, patches_.offsets() + first, lines, run);
    });
    if (lines < padded)
      for (int64_t u = 0; u < u1 - u0; ++u)
        std::fill(to + u * padded + lines, to + (u + 1) * padded, Element());
  }
  Accumulator* Direct(int64_t*) const { return nullptr; }
  void Store(const Accumulator* acc, int64_t ld, int64_t row, int64_t rows, int64_t column,
             int64_t columns) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) sums_[(row + i) * n + column + j] += acc[i * ld + j];
  }

  const int64_t m, n, units;

 private:
  const Patches& patches_;
  const int64_t pixels_, batch_stride_;
  Lines grad_;
  const Storage* source_;
  Accumulator* sums_;
};

template <class Problem, class Description>
bool RunGroups(const Description& d, int64_t groups, int64_t begin, int64_t end, int64_t channels,
               const Padded& padded, bool deep) {
  using Engine = PackedEngine<Problem>;
  const int64_t* offsets = MakeOffsets(padded, d.axes, channels);
  if (offsets == nullptr) return false;
  const Patches patches(padded, d.axes, offsets, end - begin);
  const Problem first(d, 0, begin, patches, padded);
  if (groups == 1 || !Engine::Small(first)) {
    for (int64_t g = 0; g < groups; ++g) {
      const Problem problem(d, g, begin, patches, padded);
      if (!(deep ? Engine(problem).RunDeep() : Engine(problem).Run(false))) return false;
    }
    return true;
  }
  std::atomic<bool> ok{true};
  ParallelFor(groups, Engine::ItemGrain(first), [&](int64_t b, int64_t e) {
    for (int64_t g = b; g < e; ++g) {
      const Problem problem(d, g, begin, patches, padded);
      const bool done = deep ? Engine(problem).RunDeep() : Engine(problem).Run(true);
      if (!done) ok.store(false, std::memory_order_relaxed);
    }
  });
  return ok.load();
}

}  // namespace anycann
