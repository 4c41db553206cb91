#include "ops/indexing/along_dim.h"

#include <algorithm>

#include "base/parallel.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"
#include "ops/walk.h"

namespace anycann {
namespace {

// The index's shape as lines: `line` elements that are adjacent in the last dimension, of which the last one
// may be `dim` itself. Operands of the walk: the index (dense), the tensor without `dim`, the other side (out
// or src).
struct Lines {
  Walk<3> outer;                             // all dimensions but `dim` and the last one
  int64_t along = 1;                         // the index's size in `dim`; 1 when `dim` is the last dimension
  int64_t along_index = 0, along_other = 0;  // strides in `dim`
  int64_t line = 1;                          // elements of a line
  int64_t line_tensor = 0;  // stride of the tensor along a line; 0 when the line runs along `dim`
  int64_t line_other = 0;
  int64_t dim_stride = 0;  // the tensor's stride in `dim`

  Lines(const TensorView& tensor, int dim, const TensorView& index, const TensorView& other) {
    const int last = index.rank - 1;
    for (int d = 0; d < last; ++d)
      if (d != dim) outer.Add(index.dims[d], {index.strides[d], tensor.strides[d], other.strides[d]});
    if (dim != last) {
      along = index.dims[dim];
      along_index = index.strides[dim];
      along_other = other.strides[dim];
      line_tensor = tensor.strides[last];
    }
    line = index.dims[last];
    line_other = other.strides[last];
    dim_stride = tensor.strides[dim];
  }
};

constexpr int64_t kBlock = PositionReader::kBlock;

template <class T>
void GatherLine(const T* __restrict tensor, const int64_t* __restrict position, int64_t n,
                int64_t line_stride, T* __restrict out, int64_t out_stride) {
  if (line_stride == 0 && out_stride == 1) {
    for (int64_t i = 0; i < n; ++i) out[i] = tensor[position[i]];
  } else {
    for (int64_t i = 0; i < n; ++i) out[i * out_stride] = tensor[position[i] + i * line_stride];
  }
}

// Those of n positions that lie in [low, high): without branches, which random positions would mispredict.
int64_t Choose(const int64_t* position, int64_t n, int64_t low, int64_t high, int32_t* chosen) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    chosen[count] = static_cast<int32_t>(i);
    count += (position[i] >= low) & (position[i] < high);
  }
  return count;
}

// What every piece of a scatter has in common. Positions are offsets in the tensor along `dim`.
template <class T, class Combine>
struct LineScatter {
  const Lines& lines;
  PositionReader& reader;
  const Combine& combine;

  // n elements of one line, from element `index` of the index on; only positions in [low, high) when
  // `choose`. False after a bad index.
  bool operator()(T* tensor, int64_t index, const T* src, int64_t n, bool choose, int64_t low,
                  int64_t high) const {
    int64_t buffer[kBlock];
    int32_t chosen[kBlock];
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t m = std::min(kBlock, n - i);
      const int64_t* position = reader.Read(index + i, m, buffer);
      if (position == nullptr) return false;
      T* to = tensor + i * lines.line_tensor;
      const T* from = src + i * lines.line_other;
      const auto put = [&](int64_t k) {
        T& target = to[position[k] + k * lines.line_tensor];
        target = combine(target, from[k * lines.line_other]);
      };
      if (!choose) {
        if (lines.line_tensor == 0 && lines.line_other == 1) {
          for (int64_t k = 0; k < m; ++k) to[position[k]] = combine(to[position[k]], from[k]);
        } else {
          for (int64_t k = 0; k < m; ++k) put(k);
        }
        continue;
      }
      const int64_t count = Choose(position, m, low, high, chosen);
      for (int64_t k = 0; k < count; ++k) put(chosen[k]);
    }
    return true;
  }
};

template <class T, class Combine>
void Scatter(const TensorView& target, int dim, const TensorView& index, PositionReader& reader,
             const TensorView& src, const Combine& combine) {
  const Lines lines(target, dim, index, src);
  const LineScatter<T, Combine> scatter{lines, reader, combine};
  const int64_t outer = lines.outer.numel();
  const bool dim_last = dim == index.rank - 1;
  ThreadPool* pool = ThreadPool::Current();
  const int64_t threads = pool == nullptr ? 1 : pool->threads();
  const bool small = threads == 1 || index.numel() < 16384;
  // A piece is one outer coordinate, a range of the line (unless it runs along dim), and a range of
  // destinations. The last cut makes every thread read all positions: it pays from four threads on.
  const int64_t ranges = dim_last || small ? 1 : std::clamp<int64_t>(lines.line / 64, 1, 4 * threads);
  const int64_t parts =
      small || threads < 4 || outer * ranges >= threads ? 1 : std::min(threads, target.dims[dim]);
  const int64_t width = (lines.line + ranges - 1) / ranges;
  const int64_t span = (target.dims[dim] + parts - 1) / parts * lines.dim_stride;
  const int64_t piece = std::max<int64_t>(1, lines.along * width);
  ParallelFor(outer * ranges * parts, std::max<int64_t>(1, 16384 / piece), [&](int64_t begin, int64_t end) {
    Walk<3> walk = lines.outer;
    walk.Seek(begin / (ranges * parts));
    for (int64_t k = begin; k < end; ++k) {
      const int64_t part = k % parts, from = k / parts % ranges * width;
      const int64_t n = std::min(width, lines.line - from);
      T* to = target.ptr<T>() + walk.offset[1] + from * lines.line_tensor;
      const T* values = src.ptr<const T>() + walk.offset[2] + from * lines.line_other;
      for (int64_t j = 0; j < lines.along && n > 0; ++j)
        if (!scatter(to, walk.offset[0] + from + j * lines.along_index, values + j * lines.along_other, n,
                     parts > 1, part * span, (part + 1) * span))
          return;
      if ((k + 1) % (ranges * parts) == 0) walk.Next();
    }
  });
}

template <class T>
T Maximum(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a != a || a > b ? a : b;
  else
    return a > b ? a : b;
}
template <class T>
T Minimum(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a != a || a < b ? a : b;
  else
    return a < b ? a : b;
}

template <class T>
bool ScatterReduce(const TensorView& target, int dim, const TensorView& index, PositionReader& reader,
                   const TensorView& src, ScatterReduction reduction) {
  switch (reduction) {
    case ScatterReduction::kAdd:
      Scatter<T>(target, dim, index, reader, src, [](T a, T b) -> T { return arithmetic::Add(a, b); });
      return true;
    case ScatterReduction::kMultiply:
      Scatter<T>(target, dim, index, reader, src, [](T a, T b) -> T { return arithmetic::Mul(a, b); });
      return true;
    default: break;
  }
  if constexpr (!std::is_same_v<T, Complex64> && !std::is_same_v<T, Complex128>) {
    if (reduction == ScatterReduction::kMaximum)
      Scatter<T>(target, dim, index, reader, src, Maximum<T>);
    else
      Scatter<T>(target, dim, index, reader, src, Minimum<T>);
    return true;
  }
  return false;
}

// True when the index depends on its coordinate in `dim` only (a one-dimensional index, expanded): whole
// slices move.
bool Expanded(const TensorView& index, int dim) {
  if (index.rank < 2) return false;
  for (int d = 0; d < index.rank; ++d)
    if (d != dim && index.dims[d] != 1 && index.strides[d] != 0) return false;
  return true;
}

// The tensor cut to index's sizes outside of `dim`, as slices, and the positions of the chosen ones.
Status ReadExpanded(const char* op, TensorView tensor, int dim, TensorView index, SliceSpace* space,
                    Buffer<int64_t>* positions) {
  for (int d = 0; d < tensor.rank; ++d)
    if (d != dim) tensor.dims[d] = index.dims[d], index.dims[d] = 1;
  *space = SliceSpace::Along(tensor, dim);
  const IndexOperand operand{index, dim, tensor.dims[dim], tensor.strides[dim]};
  return ResolvePositions(op, std::span(&operand, 1), false, positions);
}

}  // namespace

Status GatherAlong(const char* op, const TensorView& self, int dim, const TensorView& index,
                   const TensorView& out) {
  if (Expanded(index, dim) && out.contiguous()) {
    Buffer<int64_t> positions;
    SliceSpace space;
    RETURN_IF_ERROR(ReadExpanded(op, self, dim, index, &space, &positions));
    GatherSlices(self, space, positions.get(), index.dims[dim], out.data);
    return Status();
  }
  const IndexOperand operand{index, dim, self.dims[dim], self.strides[dim]};
  PositionReader reader(std::span(&operand, 1), false);
  const TensorView dense = TensorView::Contiguous(nullptr, DType::kInt64, index.dims, index.rank);
  const Lines lines(self, dim, dense, out);
  const int64_t count = lines.outer.numel() * lines.along;
  VisitBytes(SizeOf(self.dtype), [&](auto x) {
    using T = decltype(x);
    const int64_t cut = std::max<int64_t>(1, (lines.line + kBlock - 1) / kBlock),
                  width = (lines.line + cut - 1) / cut;
    ParallelFor(count * cut, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) {
      int64_t buffer[kBlock];
      Walk<3> walk = lines.outer;
      walk.Seek(begin / (lines.along * cut));
      for (int64_t k = begin; k < end; ++k) {
        const int64_t from = k % cut * width, j = k / cut % lines.along,
                      n = std::min(width, lines.line - from);
        if (n > 0) {
          const int64_t* position = reader.Read(walk.offset[0] + j * lines.along_index + from, n, buffer);
          if (position == nullptr) return;
          GatherLine(self.ptr<const T>() + walk.offset[1] + from * lines.line_tensor, position, n,
                     lines.line_tensor,
                     out.ptr<T>() + walk.offset[2] + j * lines.along_other + from * lines.line_other,
                     lines.line_other);
        }
        if ((k + 1) % (lines.along * cut) == 0) walk.Next();
      }
    });
  });
  return reader.status(op);
}

Status ScatterAlong(const char* op, const TensorView& target, int dim, const TensorView& index,
                    const TensorView& src, ScatterReduction reduction) {
  const bool simple = reduction == ScatterReduction::kSet || reduction == ScatterReduction::kAdd;
  if (simple && Expanded(index, dim) && src.contiguous()) {
    Buffer<int64_t> positions;
    SliceSpace space;
    RETURN_IF_ERROR(ReadExpanded(op, target, dim, index, &space, &positions));
    const int64_t count = index.dims[dim];
    if (reduction == ScatterReduction::kSet)
      PutSlices(target, space, positions.get(), count, src.data, false);
    else
      AccumulateSlices(target, space, positions.get(), count, src.data, false, nullptr, nullptr);
    return Status();
  }
  const IndexOperand operand{index, dim, target.dims[dim], target.strides[dim]};
  PositionReader reader(std::span(&operand, 1), false);
  const TensorView dense = TensorView::Contiguous(nullptr, DType::kInt64, index.dims, index.rank);
  if (reduction == ScatterReduction::kSet) {
    VisitBytes(SizeOf(target.dtype), [&](auto x) {
      using T = decltype(x);
      Scatter<T>(target, dim, dense, reader, src, [](T, T b) { return b; });
    });
    return reader.status(op);
  }
  bool known = false;
  VisitCompute<kAllTypes>(target.dtype, [&](auto tag) {
    known = ScatterReduce<typename decltype(tag)::type>(target, dim, dense, reader, src, reduction);
  });
  if (!known) return Error(kParamInvalid, "{}: type {} has no such reduction", op, Name(target.dtype));
  return reader.status(op);
}

}  // namespace anycann
