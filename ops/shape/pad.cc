// Padding: ConstantPadNd, and the reflection and replication pads with their gradients.
#include <algorithm>
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"
#include "ops/overlap.h"
#include "ops/resample/plane_map.h"

namespace anycann {
namespace {

// The padding of each dimension of a tensor; negative cuts.
struct Padding {
  int64_t before[kMaxRank] = {}, after[kMaxRank] = {};
};

// `pad` lists pairs, those of the last dimension first.
Status ReadPadding(Call& call, const aclIntArray* pad, int rank, int pairs, Padding* p) {
  if (pad->size != static_cast<uint64_t>(2 * pairs))
    return call.Invalid("padding has {} values, expected {}", pad->size, 2 * pairs);
  for (int i = 0; i < pairs; ++i) {
    p->before[rank - 1 - i] = (*pad)[static_cast<uint64_t>(2 * i)];
    p->after[rank - 1 - i] = (*pad)[static_cast<uint64_t>(2 * i + 1)];
  }
  return Status();
}

Status CheckPadded(Call& call, const TensorView& self, const Padding& p, const aclTensor* out,
                   const char* name) {
  constexpr int64_t kMost = int64_t{1} << 60;  // sums of coordinates and paddings don't overflow below it
  int64_t expected[kMaxRank];
  for (int i = 0; i < self.rank; ++i) {
    if (std::max(p.before[i], p.after[i]) > kMost || std::min(p.before[i], p.after[i]) < -kMost ||
        __builtin_add_overflow(self.dims[i], p.before[i], &expected[i]) ||
        __builtin_add_overflow(expected[i], p.after[i], &expected[i]) || expected[i] < 0)
      return call.Invalid("padding {} and {} of dimension {} doesn't fit its size {}", p.before[i],
                          p.after[i], i, self.dims[i]);
  }
  return call.RequireShape(out, name, expected, self.rank);
}

// One pass over a contiguous out: rows are the value, or the value around a row of self.
template <class T>
void PadRows(const TensorView& out, const TensorView& in, const Padding& p, T value) {
  const int last = out.rank - 1;
  const int64_t width = out.dims[last], from = std::clamp<int64_t>(p.before[last], 0, width);
  const int64_t to = std::max(from, std::min(width, p.before[last] + in.dims[last]));
  int64_t rows = 1;
  for (int i = 0; i < last; ++i) rows *= out.dims[i];
  ParallelFor(rows, std::max<int64_t>(1, 32768 / width), [&](int64_t begin, int64_t end) {
    int64_t index[kMaxRank];
    for (int64_t rest = begin, i = last - 1; i >= 0; --i) {
      index[i] = rest % out.dims[i];
      rest /= out.dims[i];
    }
    for (int64_t r = begin; r < end; ++r) {
      T* to_row = out.ptr<T>() + r * width;
      const T* row = in.ptr<const T>();
      bool inside = true;
      for (int i = 0; i < last; ++i) {
        const int64_t k = index[i] - p.before[i];
        inside &= k >= 0 && k < in.dims[i];
        row += k * in.strides[i];
      }
      if (!inside) {
        std::fill(to_row, to_row + width, value);
      } else {
        std::fill(to_row, to_row + from, value);
        std::memmove(static_cast<void*>(to_row + from), row + from - p.before[last],
                     static_cast<size_t>(to - from) * sizeof(T));
        std::fill(to_row + to, to_row + width, value);
      }
      for (int i = last - 1; i >= 0 && ++index[i] == out.dims[i]; --i) index[i] = 0;
    }
  });
}

void PadConstant(const TensorView& out, const TensorView& in, const Padding& p, const Element& value) {
  const int last = out.rank - 1;
  if (out.contiguous() && in.dtype == out.dtype && !in.empty() &&
      (in.strides[last] == 1 || in.dims[last] == 1)) {
    VisitBytes(SizeOf(out.dtype), [&](auto x) {
      using T = decltype(x);
      T bits;
      std::memcpy(static_cast<void*>(&bits), value.bytes, sizeof(T));
      PadRows<T>(out, in, p, bits);
    });
    return;
  }
  Fill(out, value.bytes);
  TensorView to = out, from = in;
  for (int i = 0; i < out.rank; ++i) {
    const int64_t kept = in.dims[i] + std::min<int64_t>(p.before[i], 0) + std::min<int64_t>(p.after[i], 0);
    if (kept <= 0) return;  // so -before is less than the dimension
    to = to.Narrow(i, std::max<int64_t>(p.before[i], 0), kept);
    from = from.Narrow(i, std::max<int64_t>(-p.before[i], 0), kept);
  }
  CopyCast(to, from);
}

// What a padded edge shows.
enum class Edge { kReflect, kReplicate, kCircular };

// Which coordinate of self each coordinate of the padded tensor shows, in the last `count` dimensions.
PlaneMap MakeEdgeMap(const TensorView& self, const TensorView& padded, const Padding& p, int count,
                     Edge edge) {
  PlaneMap m;
  for (int i = 0; i < count; ++i) {
    const int d = self.rank - count + i;
    const int64_t n = self.dims[d];
    std::vector<int64_t>& source = m.source[3 - count + i];
    source.resize(static_cast<size_t>(padded.dims[d]));
    for (int64_t k = 0; k < padded.dims[d]; ++k) {
      int64_t s = k - p.before[d];
      if (edge == Edge::kReflect) s = s < 0 ? -s : s >= n ? 2 * (n - 1) - s : s;
      if (edge == Edge::kCircular) s = s < 0 ? s + n : s >= n ? s - n : s;
      source[static_cast<size_t>(k)] = std::clamp<int64_t>(s, 0, n - 1);
    }
  }
  for (int i = 0; i < 3 - count; ++i) m.source[i] = {0};
  return m;
}

Status CheckEdgePadding(Call& call, const TensorView& self, const aclIntArray* padding, int dims, Edge edge,
                        Padding* p) {
  if (self.rank != dims + 1 && self.rank != dims + 2)
    return call.Invalid("self has shape {}, expected {} or {} dimensions", ShapeString(self), dims + 1,
                        dims + 2);
  RETURN_IF_ERROR(ReadPadding(call, padding, self.rank, dims, p));
  for (int i = self.rank - dims; i < self.rank; ++i) {
    const int64_t most = std::max(p->before[i], p->after[i]);
    if (self.dims[i] == 0) return call.Invalid("self has shape {}: nothing to pad with", ShapeString(self));
    if (edge == Edge::kReflect && most >= self.dims[i])
      return call.Invalid("padding {} of dimension {} is not smaller than its size {}", most, i,
                          self.dims[i]);
    if (edge == Edge::kCircular && most > self.dims[i])
      return call.Invalid("padding {} of dimension {} is larger than its size {}", most, i, self.dims[i]);
  }
  return Status();
}

Status PadEdge(Call& call, const aclTensor* self, const aclIntArray* padding, aclTensor* out, int dims,
               Edge edge) {
  Padding p;
  RETURN_IF_ERROR(CheckEdgePadding(call, self->view, padding, dims, edge, &p));
  RETURN_IF_ERROR(CheckPadded(call, self->view, p, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch(
      {In(self), Out(out)}, Cost{0, static_cast<double>(self->view.nbytes() + out->view.nbytes())},
      [=](const Run& t) -> Status {
        const PlaneMap map = MakeEdgeMap(t[0], t[1], p, dims, edge);
        const Dense in(t[0], t[1].dtype, Dense::kRead);
        Dense result(t[1], Dense::kWrite);
        VisitBytes(SizeOf(t[1].dtype), [&](auto x) {
          using T = decltype(x);
          MapPlanes(in.ptr<const T>(), Planes(t[0], dims), map, Planes(t[1], dims), result.ptr<T>());
        });
        result.Commit();
        return Status();
      });
}

Status PadEdgeGradient(Call& call, const aclTensor* grad, const aclTensor* self, const aclIntArray* padding,
                       aclTensor* out, int dims, Edge edge) {
  Padding p;
  RETURN_IF_ERROR(CheckEdgePadding(call, self->view, padding, dims, edge, &p));
  RETURN_IF_ERROR(CheckPadded(call, self->view, p, grad, "gradOutput"));
  RETURN_IF_ERROR(call.RequireSameShape(out, "gradInput", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(grad->view.dtype, out, "gradInput"));
  if (out->view.empty()) return call.Nothing();
  const DType compute = ComputeType(grad->view.dtype);
  if (!IsFloating(compute) && !IsComplex(compute)) return Unsupported(call, compute);
  return call.Launch({In(grad), Out(out)},
                     Cost{static_cast<double>(grad->view.numel()),
                          static_cast<double>(grad->view.nbytes() + out->view.nbytes())},
                     [=](const Run& t) -> Status {
                       const PlaneMap map = MakeEdgeMap(t[1], t[0], p, dims, edge);
                       const Dense grad(t[0], compute, Dense::kRead);
                       Dense result(t[1], compute, Dense::kWrite);
                       VisitCompute<kFloatingTypes>(compute, [&](auto tag) {
                         using T = typename decltype(tag)::type;
                         AccumulatePlanes(grad.ptr<const T>(), Planes(t[0], dims), map, Planes(t[1], dims),
                                          result.ptr<T>());
                       });
                       result.Commit();
                       return Status();
                     });
}

}  // namespace

Status aclnn::ConstantPadNd(Call& call, const aclTensor* self, const aclIntArray* pad, const aclScalar* value,
                            aclTensor* out) {
  const TensorView& s = self->view;
  const int pairs = static_cast<int>(pad->size / 2);
  if (pad->size % 2 != 0 || pairs > s.rank)
    return call.Invalid("pad has {} values, expected an even number, at most {} (self {})", pad->size,
                        2 * s.rank, ShapeString(s));
  Padding p;
  RETURN_IF_ERROR(ReadPadding(call, pad, s.rank, pairs, &p));
  RETURN_IF_ERROR(CheckPadded(call, s, p, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(s.dtype, out, "out"));
  RETURN_IF_ERROR(RequireApart(call, out, "out", self, "self"));
  if (out->view.empty()) return call.Nothing();
  const Element element = ElementOf(value->value, out->view.dtype);
  return call.Launch({In(self), Out(out)}, Cost{0, static_cast<double>(s.nbytes() + out->view.nbytes())},
                     [=](const Run& t) -> Status {
                       if (t[1].rank == 0)
                         CopyCast(t[1], t[0]);
                       else
                         PadConstant(t[1], t[0], p, element);
                       return Status();
                     });
}

Status aclnn::ReflectionPad1d(Call& call, const aclTensor* self, const aclIntArray* padding, aclTensor* out) {
  return PadEdge(call, self, padding, out, 1, Edge::kReflect);
}
Status aclnn::ReflectionPad2d(Call& call, const aclTensor* self, const aclIntArray* padding, aclTensor* out) {
  return PadEdge(call, self, padding, out, 2, Edge::kReflect);
}
Status aclnn::ReflectionPad3d(Call& call, const aclTensor* self, const aclIntArray* padding, aclTensor* out) {
  return PadEdge(call, self, padding, out, 3, Edge::kReflect);
}
Status aclnn::ReplicationPad1d(Call& call, const aclTensor* self, const aclIntArray* padding,
                               aclTensor* out) {
  return PadEdge(call, self, padding, out, 1, Edge::kReplicate);
}
Status aclnn::ReplicationPad2d(Call& call, const aclTensor* self, const aclIntArray* padding,
                               aclTensor* out) {
  return PadEdge(call, self, padding, out, 2, Edge::kReplicate);
}
Status aclnn::ReplicationPad3d(Call& call, const aclTensor* self, const aclIntArray* padding,
                               aclTensor* out) {
  return PadEdge(call, self, padding, out, 3, Edge::kReplicate);
}
Status aclnn::ReflectionPad1dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                      const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 1, Edge::kReflect);
}
Status aclnn::ReflectionPad2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                      const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 2, Edge::kReflect);
}
Status aclnn::ReflectionPad3dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                      const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 3, Edge::kReflect);
}
Status aclnn::ReplicationPad1dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                       const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 1, Edge::kReplicate);
}
Status aclnn::ReplicationPad2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                       const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 2, Edge::kReplicate);
}
Status aclnn::ReplicationPad3dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                       const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 3, Edge::kReplicate);
}

Status aclnn::CircularPad2d(Call& call, const aclTensor* self, const aclIntArray* padding, aclTensor* out) {
  return PadEdge(call, self, padding, out, 2, Edge::kCircular);
}
Status aclnn::CircularPad2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                    const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 2, Edge::kCircular);
}
Status aclnn::CircularPad3d(Call& call, const aclTensor* self, const aclIntArray* padding, aclTensor* out) {
  return PadEdge(call, self, padding, out, 3, Edge::kCircular);
}
Status aclnn::CircularPad3dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                    const aclIntArray* padding, aclTensor* gradInput) {
  return PadEdgeGradient(call, gradOutput, self, padding, gradInput, 3, Edge::kCircular);
}

}  // namespace anycann
