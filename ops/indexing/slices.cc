#include "ops/indexing/slices.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/parallel.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"

namespace anycann {
namespace {

// A run of inner elements: where it starts in the tensor and in the dense slice, and how long it is.
struct Row {
  int64_t offset, dense, length;
};

// The inner dimensions as rows of at most `longest` elements of one stride.
struct Rows {
  std::vector<Row> rows;
  int64_t stride = 1;  // between a row's elements, in the tensor
  int64_t slice = 1;   // elements of a slice

  Rows(Walk<1> inner, int64_t longest) {
    slice = inner.numel();
    int64_t length = 1;
    if (inner.rank > 0) {
      length = inner.dims[inner.rank - 1];
      stride = inner.strides[0][inner.rank - 1];
      --inner.rank;
    }
    const int64_t count = inner.numel();
    inner.Seek(0);
    for (int64_t r = 0; r < count; ++r, inner.Next())
      for (int64_t i = 0; i < length; i += longest)
        rows.push_back({inner.offset[0] + i * stride, r * length + i, std::min(longest, length - i)});
  }
  int64_t count() const { return static_cast<int64_t>(rows.size()); }
};

std::vector<int64_t> OuterOffsets(Walk<1> outer) {
  std::vector<int64_t> offsets(static_cast<size_t>(outer.numel()));
  outer.Seek(0);
  for (int64_t& o : offsets) {
    o = outer.offset[0];
    outer.Next();
  }
  return offsets;
}

constexpr int64_t kGrainBytes = int64_t{64} << 10;

template <class T>
void GatherElements(const T* __restrict base, const int64_t* __restrict positions, int64_t n,
                    T* __restrict dense) {
  for (int64_t i = 0; i < n; ++i) dense[i] = base[positions[i]];
}

template <class T>
void Gather(const T* tensor, const SliceSpace& space, const int64_t* positions, int64_t count, T* dense) {
  const std::vector<int64_t> outer = OuterOffsets(space.outer);
  const Rows inner(space.inner, int64_t{1} << 16);
  if (inner.slice == 1) {
    ParallelFor(static_cast<int64_t>(outer.size()) * count, kGrainBytes / 8, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t o = begin / count, p = begin % count, n = std::min(count - p, end - begin);
        GatherElements(tensor + outer[static_cast<size_t>(o)], positions + p, n, dense + begin);
        begin += n;
      }
    });
    return;
  }
  const int64_t rows = inner.count(), stride = inner.stride;
  const int64_t total = static_cast<int64_t>(outer.size()) * count * rows;
  const int64_t row_bytes = inner.rows[0].length * static_cast<int64_t>(sizeof(T));
  ParallelFor(total, std::max<int64_t>(1, kGrainBytes / row_bytes), [&](int64_t begin, int64_t end) {
    int64_t r = begin % rows, slice = begin / rows;  // slice: outer * count + position
    int64_t o = slice / count, p = slice % count;
    for (int64_t k = begin; k < end; ++k) {
      const Row& row = inner.rows[static_cast<size_t>(r)];
      const T* from = tensor + outer[static_cast<size_t>(o)] + positions[p] + row.offset;
      T* to = dense + slice * inner.slice + row.dense;
      if (stride == 1) {
        std::memcpy(static_cast<void*>(to), from, static_cast<size_t>(row.length) * sizeof(T));
      } else {
        for (int64_t i = 0; i < row.length; ++i) to[i] = from[i * stride];
      }
      if (++r < rows) continue;
      r = 0;
      ++slice;
      if (++p == count) p = 0, ++o;
    }
  });
}

// Calls f(unit, low, high) for the pieces of a write: `unit` is a row of one outer index, and only positions
// with an offset in [low, high) belong to the piece. Each element of the tensor belongs to one piece, and a
// piece goes through the positions in order, so duplicates are resolved the same way however the work is cut.
template <class F>
void ForEachPiece(int64_t units, int64_t unit_elements, const int64_t* positions, int64_t count, F&& f) {
  ThreadPool* pool = ThreadPool::Current();
  const int64_t threads = pool == nullptr ? 1 : pool->threads();
  const int64_t work = units * unit_elements * count;
  if (threads < 4 || work < 16384 || units >= threads || count < 256) {
    ParallelFor(units, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, unit_elements * count)),
                [&](int64_t begin, int64_t end) {
                  for (int64_t u = begin; u < end; ++u) f(u, int64_t{0}, INT64_MAX);
                });
    return;
  }
  int64_t highest = 0;
  for (int64_t i = 0; i < count; ++i) highest = std::max(highest, positions[i]);
  const int64_t parts = threads, width = highest / parts + 1;
  // Every thread reads all positions here: it pays from four threads on.
  ParallelFor(units * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) f(k / parts, k % parts * width, (k % parts + 1) * width);
  });
}

// update(address, dense element or constant, length, position) for every row of every position, in pieces.
template <class T, class Update>
void Write(T* tensor, const SliceSpace& space, const int64_t* positions, int64_t count, const T* dense,
           bool constant, const Update& update) {
  const std::vector<int64_t> outer = OuterOffsets(space.outer);
  // Rows short enough that a few wide slices still give work to every thread.
  ThreadPool* pool = ThreadPool::Current();
  const int64_t elements = std::max<int64_t>(1, space.inner.numel()) * static_cast<int64_t>(outer.size());
  const int64_t longest = std::max<int64_t>(128, elements / (pool == nullptr ? 1 : pool->threads()));
  const Rows inner(space.inner, pool == nullptr ? INT64_MAX : (longest + 15) / 16 * 16);
  const int64_t rows = inner.count();
  ForEachPiece(static_cast<int64_t>(outer.size()) * rows, inner.rows[0].length, positions, count,
               [&](int64_t unit, int64_t low, int64_t high) {
                 const Row& row = inner.rows[static_cast<size_t>(unit % rows)];
                 const int64_t o = unit / rows;
                 T* base = tensor + outer[static_cast<size_t>(o)] + row.offset;
                 const T* values = dense + (constant ? 0 : o * count * inner.slice + row.dense);
                 const int64_t step = constant ? 0 : inner.slice;
                 for (int64_t p = 0; p < count; ++p) {
                   const int64_t at = positions[p];
                   if (at < low || at >= high) continue;
                   update(base + at, inner.stride, values + p * step, constant ? 0 : 1, row.length, p);
                 }
               });
}

template <class T>
struct Adder {
  bool scaled;
  T alpha;
  const T* scales;

  void operator()(T* to, int64_t stride, const T* from, int64_t from_stride, int64_t n, int64_t p) const {
    if (!scaled) {
      Each(to, stride, from, from_stride, n, [](T a, T b) -> T { return arithmetic::Add(a, b); });
      return;
    }
    const T factor = scales != nullptr ? scales[p] : alpha;
    Each(to, stride, from, from_stride, n,
         [factor](T a, T b) -> T { return arithmetic::Add(a, arithmetic::Mul(factor, b)); });
  }
  template <class F>
  static void Each(T* to, int64_t stride, const T* from, int64_t from_stride, int64_t n, const F& f) {
    if (stride == 1 && from_stride == 1) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) to[i] = f(to[i], from[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) to[i * stride] = f(to[i * stride], from[i * from_stride]);
    }
  }
};

}  // namespace

SliceSpace SliceSpace::Along(const TensorView& v, int dim) {
  SliceSpace s;
  for (int i = 0; i < dim; ++i) s.outer.Add(v.dims[i], {v.strides[i]});
  for (int i = dim + 1; i < v.rank; ++i) s.inner.Add(v.dims[i], {v.strides[i]});
  return s;
}

Status GatherIndexed(const char* op, const TensorView& tensor, const SliceSpace& space,
                     std::span<const IndexOperand> operands, bool wrap, void* dense) {
  const int64_t count = operands[0].view.numel();
  if (space.inner.numel() != 1 || space.outer.numel() != 1) {
    Buffer<int64_t> positions;
    RETURN_IF_ERROR(ResolvePositions(op, operands, wrap, &positions));
    GatherSlices(tensor, space, positions.get(), count, dense);
    return Status();
  }
  PositionReader reader(operands, wrap);
  VisitBytes(SizeOf(tensor.dtype), [&](auto x) {
    using T = decltype(x);
    ParallelFor(count, kGrainBytes / 8, [&](int64_t begin, int64_t end) {
      int64_t buffer[PositionReader::kBlock];
      for (int64_t i = begin; i < end; i += PositionReader::kBlock) {
        const int64_t n = std::min(PositionReader::kBlock, end - i);
        const int64_t* positions = reader.Read(i, n, buffer);
        if (positions == nullptr) return;
        GatherElements(tensor.ptr<const T>(), positions, n, static_cast<T*>(dense) + i);
      }
    });
  });
  return reader.status(op);
}

void GatherSlices(const TensorView& tensor, const SliceSpace& space, const int64_t* positions, int64_t count,
                  void* dense) {
  if (count == 0 || space.outer.numel() == 0 || space.inner.numel() == 0) return;
  VisitBytes(SizeOf(tensor.dtype), [&](auto x) {
    using T = decltype(x);
    Gather(tensor.ptr<const T>(), space, positions, count, static_cast<T*>(dense));
  });
}

void PutSlices(const TensorView& tensor, const SliceSpace& space, const int64_t* positions, int64_t count,
               const void* dense, bool constant) {
  if (count == 0 || space.outer.numel() == 0 || space.inner.numel() == 0) return;
  VisitBytes(SizeOf(tensor.dtype), [&](auto x) {
    using T = decltype(x);
    Write(tensor.ptr<T>(), space, positions, count, static_cast<const T*>(dense), constant,
          [](T* to, int64_t stride, const T* from, int64_t from_stride, int64_t n, int64_t) {
            if (stride == 1 && from_stride == 1) {
              std::memcpy(static_cast<void*>(to), from, static_cast<size_t>(n) * sizeof(T));
            } else {
              for (int64_t i = 0; i < n; ++i) to[i * stride] = from[i * from_stride];
            }
          });
  });
}

void AccumulateSlices(const TensorView& tensor, const SliceSpace& space, const int64_t* positions,
                      int64_t count, const void* dense, bool constant, const void* alpha,
                      const void* scales) {
  if (count == 0 || space.outer.numel() == 0 || space.inner.numel() == 0) return;
  VisitCompute<kAllTypes>(tensor.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    Adder<T> adder{alpha != nullptr || scales != nullptr, T(), static_cast<const T*>(scales)};
    if (alpha != nullptr) adder.alpha = *static_cast<const T*>(alpha);
    if (scales == nullptr && alpha != nullptr && adder.alpha == T(1)) adder.scaled = false;
    Write(tensor.ptr<T>(), space, positions, count, static_cast<const T*>(dense), constant, adder);
  });
}

}  // namespace anycann
