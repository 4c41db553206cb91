// Selection by a mask: Nonzero, MaskedSelect, MaskedScatter, MaskedScale.
#include <algorithm>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/elementwise/map.h"
#include "ops/indexing/nonzero.h"
#include "ops/overlap.h"

namespace anycann {
namespace {

constexpr int64_t kBlock = 16384;  // elements counted together

int64_t CountBlock(const uint8_t* mask, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += mask[i] != 0;
  return count;
}

// How many elements of each block of kBlock are set, as exclusive prefix sums; the last entry is the total.
std::vector<int64_t> BlockStarts(const uint8_t* mask, int64_t n) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<int64_t> starts(static_cast<size_t>(blocks + 1), 0);
  ParallelFor(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      starts[static_cast<size_t>(b + 1)] = CountBlock(mask + b * kBlock, std::min(kBlock, n - b * kBlock));
  });
  for (size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];
  return starts;
}

constexpr int64_t kPart = 1024;

// Appends the positions in [begin, end) that are set, at most kPart of them, without a branch for each.
int64_t* AppendSet(const uint8_t* mask, int64_t begin, int64_t end, int64_t* out) {
  int64_t part[kPart + 1];
  int64_t count = 0;
  for (int64_t i = begin; i < end; ++i) {
    part[count] = i;
    count += mask[i] != 0;
  }
  std::copy(part, part + count, out);
  return out + count;
}

template <class T>
void SelectBlock(const T* values, const uint8_t* mask, int64_t n, T* out) {
  for (int64_t i = 0; i < n; ++i)
    if (mask[i]) *out++ = values[i];
}
// Without branches, for masks that are neither nearly empty nor nearly full; writes one element past the
// last.
template <class T>
void SelectBlockDense(const T* values, const uint8_t* mask, int64_t n, int64_t count, T* out) {
  int64_t k = 0;
  for (int64_t i = 0; i < n && k < count; ++i) {
    out[k] = values[i];
    k += mask[i] != 0;
  }
}

// Expands self and mask to their common shape and checks it.
Status ExpandBoth(Call& call, const aclTensor* self, const aclTensor* mask, TensorView* s, TensorView* m) {
  int64_t dims[kMaxRank];
  int rank = 0;
  BroadcastShapes(dims, &rank, self->view.dims, self->view.rank);
  if (!BroadcastShapes(dims, &rank, mask->view.dims, mask->view.rank))
    return call.Invalid("self {} and mask {} can't be broadcast together", ShapeString(self->view),
                        ShapeString(mask->view));
  BroadcastTo(self->view, dims, rank, s);
  BroadcastTo(mask->view, dims, rank, m);
  return Status();
}

Status RequireMask(Call& call, const aclTensor* mask) {
  if (mask->view.dtype == DType::kBool || mask->view.dtype == DType::kUint8) return Status();
  return call.Invalid("mask has type {}, expected bool", Name(mask->view.dtype));
}

// Where the coordinates of a non-zero element go: [count, rank], or [rank, count] when `columns`. Positions
// ascend, so most differ from the one before in the last coordinate only.
void StoreCoordinates(const int64_t* linear, int64_t count, const TensorView& v, bool columns, int64_t* out) {
  if (v.rank == 0) return;
  const int last = v.rank - 1;
  const int64_t width = v.dims[last], step = columns ? count : 1;
  ParallelFor(count, 8192, [&](int64_t begin, int64_t end) {
    int64_t at[kMaxRank] = {}, row_start = 0;
    bool known = false;
    for (int64_t i = begin; i < end; ++i) {
      if (!known || linear[i] - row_start >= width) {
        int64_t rest = linear[i] / width;
        row_start = rest * width;
        known = true;
        for (int d = last - 1; d >= 0; --d) {
          at[d] = d == 0 ? rest : rest % v.dims[d];
          rest /= v.dims[d];
        }
      }
      at[last] = linear[i] - row_start;
      int64_t* to = out + (columns ? i : i * v.rank);
      for (int d = 0; d <= last; ++d) to[d * step] = at[d];
    }
  });
}

// The client allocates out for the most elements that there can be.
Status RequireRoom(const char* op, const TensorView& out, int64_t count) {
  if (count <= out.numel()) return Status();
  return Error(kRuntimeError, "{}: out has room for {} elements ({}), but the result has {}", op, out.numel(),
               ShapeString(out), count);
}

Status FindNonzero(Call& call, const aclTensor* self, aclTensor* out, bool columns) {
  RETURN_IF_ERROR(call.RequireRank(out, "out", 2, 2));
  if (out->view.dims[columns ? 0 : 1] != self->view.rank)
    return call.Invalid("out has shape {}, expected {} in dimension {} (self {})", ShapeString(out->view),
                        self->view.rank, columns ? 0 : 1, ShapeString(self->view));
  if (out->view.dtype != DType::kInt64 && out->view.dtype != DType::kInt32)
    return call.Invalid("out has type {}, expected int64", Name(out->view.dtype));
  if (!out->view.contiguous()) return call.Invalid("out is not contiguous");
  // An empty tensor is run too: the client reads the shape afterwards.
  return call.Launch({In(self), Out(out)}, Cost{0, static_cast<double>(self->view.nbytes())},
                     [columns, shape = TensorRef(out)](const Run& t) -> Status {
                       int64_t count;
                       const Buffer<int64_t> linear = NonzeroPositions(t[0], &count);
                       RETURN_IF_ERROR(RequireRoom(t.plan().name, t[1], count * t[0].rank));
                       const int64_t dims[] = {columns ? t[0].rank : count, columns ? count : t[0].rank};
                       TensorView result = TensorView::Contiguous(t[1].data, t[1].dtype, dims, 2);
                       Dense coordinates(result, DType::kInt64, Dense::kWrite);
                       StoreCoordinates(linear.get(), count, t[0], columns, coordinates.ptr<int64_t>());
                       coordinates.Commit();
                       shape.SetShape(dims, 2);
                       return Status();
                     });
}

Status Select(const Run& t, const TensorRef& shape) {
  const Dense mask(t[1], DType::kBool, Dense::kRead);
  const Dense self(t[0], Dense::kRead);
  const int64_t n = mask.view().numel();
  const std::vector<int64_t> starts = BlockStarts(mask.ptr<uint8_t>(), n);
  const int64_t count = starts.back();
  RETURN_IF_ERROR(RequireRoom(t.plan().name, t[2], count));
  const TensorView result = TensorView::Contiguous(t[2].data, t[2].dtype, &count, 1);
  Dense out(result, self.view().dtype, Dense::kWrite);
  VisitBytes(SizeOf(self.view().dtype), [&](auto x) {
    using T = decltype(x);
    ParallelFor(static_cast<int64_t>(starts.size()) - 1, 2, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t from = b * kBlock, m = std::min(kBlock, n - from), k = starts[static_cast<size_t>(b)];
        const int64_t chosen = starts[static_cast<size_t>(b + 1)] - k;
        const T* values = self.ptr<const T>() + from;
        const uint8_t* set = mask.ptr<const uint8_t>() + from;
        if (chosen == 0) continue;
        if (chosen > m / 32 && chosen < m - m / 32)
          SelectBlockDense(values, set, m, chosen, out.ptr<T>() + k);
        else
          SelectBlock(values, set, m, out.ptr<T>() + k);
      }
    });
  });
  out.Commit();
  shape.SetShape(&count, 1);
  return Status();
}

Status ScatterMasked(const Run& t) {
  const Dense mask(t[0], DType::kBool, Dense::kRead);
  const Dense source(t[1], t[2].dtype, Dense::kRead);
  Dense target(t[2], Dense::kUpdate);
  const int64_t n = mask.view().numel();
  const std::vector<int64_t> starts = BlockStarts(mask.ptr<uint8_t>(), n);
  if (starts.back() > source.view().numel())
    return Error(kRuntimeError, "{}: source has {} elements, but mask selects {}", t.plan().name,
                 source.view().numel(), starts.back());
  VisitBytes(SizeOf(t[2].dtype), [&](auto x) {
    using T = decltype(x);
    ParallelFor(static_cast<int64_t>(starts.size()) - 1, 2, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t from = b * kBlock, m = std::min(kBlock, n - from);
        const T* values = source.ptr<const T>() + starts[static_cast<size_t>(b)];
        const uint8_t* set = mask.ptr<const uint8_t>() + from;
        T* to = target.ptr<T>() + from;
        for (int64_t i = 0; i < m; ++i)
          if (set[i]) to[i] = *values++;
      }
    });
  });
  target.Commit();
  return Status();
}

template <class T>
struct ScaleMasked {
  T scale;
  T operator()(T x, T mask) const { return x * mask * scale; }
};

}  // namespace

Buffer<int64_t> NonzeroPositions(const TensorView& v, int64_t* count) {
  const Dense mask(v, DType::kBool, Dense::kRead);
  const int64_t n = v.numel();
  const std::vector<int64_t> starts = BlockStarts(mask.ptr<uint8_t>(), n);
  *count = starts.back();
  Buffer<int64_t> positions = NewBuffer<int64_t>(*count);
  ParallelFor(static_cast<int64_t>(starts.size()) - 1, 2, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      int64_t* out = positions.get() + starts[static_cast<size_t>(b)];
      const int64_t last = std::min(n, (b + 1) * kBlock);
      for (int64_t i = b * kBlock; i < last; i += kPart)
        out = AppendSet(mask.ptr<const uint8_t>(), i, std::min(last, i + kPart), out);
    }
  });
  return positions;
}

Status aclnn::Nonzero(Call& call, const aclTensor* self, aclTensor* out) {
  return FindNonzero(call, self, out, false);
}
// The transposed result: a row for each dimension.
Status aclnn::NonzeroV2(Call& call, const aclTensor* self, aclTensor* out) {
  return FindNonzero(call, self, out, true);
}

Status aclnn::MaskedSelect(Call& call, const aclTensor* self, const aclTensor* mask, aclTensor* out) {
  RETURN_IF_ERROR(RequireMask(call, mask));
  TensorView s, m;
  RETURN_IF_ERROR(ExpandBoth(call, self, mask, &s, &m));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (!out->view.contiguous()) return call.Invalid("out is not contiguous");
  RETURN_IF_ERROR(RequireApart(call, out, "out", self, "self"));
  RETURN_IF_ERROR(RequireApart(call, out, "out", mask, "mask"));
  return call.Launch({In(self, s), In(mask, m), Out(out)}, Cost{0, static_cast<double>(2 * s.nbytes())},
                     [shape = TensorRef(out)](const Run& t) -> Status { return Select(t, shape); });
}

Status aclnn::InplaceMaskedScatter(Call& call, aclTensor* selfRef, const aclTensor* mask,
                                   const aclTensor* source) {
  RETURN_IF_ERROR(RequireMask(call, mask));
  TensorView m;
  if (!BroadcastTo(mask->view, selfRef->view.dims, selfRef->view.rank, &m))
    return call.Invalid("mask {} can't be broadcast to selfRef {}", ShapeString(mask->view),
                        ShapeString(selfRef->view));
  if (selfRef->view.empty()) return call.Nothing();
  return call.Launch({In(mask, m), In(source), Out(selfRef)},
                     Cost{0, 2.0 * static_cast<double>(selfRef->view.nbytes())}, ScatterMasked);
}

Status aclnn::MaskedScale(Call& call, const aclTensor* self, const aclTensor* mask, float scale,
                          aclTensor* out) {
  return MapBinary<kFloatTypes>(call, self, mask, out, self->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return ScaleMasked<T>{static_cast<T>(scale)};
  });
}

}  // namespace anycann
