// Copies of a rearranged view: Permute, Flip, Roll, Repeat, ChannelShuffle, Slice, StridedSlice,
// RepeatInterleave by a number, Complex.
#include <algorithm>
#include <vector>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/complex_parts.h"
#include "ops/convert.h"
#include "ops/operand.h"
#include "ops/overlap.h"

namespace anycann {
namespace {

// out = the view `v` of `self`.
Status LaunchCopy(Call& call, const aclTensor* self, const TensorView& v, const aclTensor* out) {
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self, v), Out(out)}, Cost{0, static_cast<double>(v.nbytes() + out->view.nbytes())},
                     [](const Run& t) -> Status {
                       CopyCast(t[1], t[0]);
                       return Status();
                     });
}

// Rolls dimension after dimension: each copies the two parts that its shift leaves.
struct Shift {
  int dim;
  int64_t by;  // in (0, size)
};
void CopyRolled(const TensorView& out, const TensorView& in, const Shift* shifts, size_t count) {
  if (count == 0) {
    CopyCast(out, in);
    return;
  }
  const auto [d, by] = *shifts;
  const int64_t n = in.dims[d];
  CopyRolled(out.Narrow(d, by, n - by), in.Narrow(d, 0, n - by), shifts + 1, count - 1);
  CopyRolled(out.Narrow(d, 0, by), in.Narrow(d, n - by, by), shifts + 1, count - 1);
}

// out[r * n + i] = in[i] in every dimension. Each repeated dimension becomes two; what does not fit into one
// view is looped over.
void CopyRepeated(const TensorView& out, const TensorView& in, int from) {
  TensorView o = out, s = in;
  int extra = 0;
  for (int d = 0; d < in.rank; ++d) extra += out.dims[d] != in.dims[d] && in.dims[d] != 1;
  if (in.rank + extra > kMaxRank) {
    for (int d = from; d < in.rank; ++d) {
      if (out.dims[d] == in.dims[d]) continue;
      for (int64_t at = 0; at < out.dims[d]; at += in.dims[d])
        CopyRepeated(out.Narrow(d, at, in.dims[d]), in, d + 1);
      return;
    }
  }
  o.rank = s.rank = 0;
  for (int d = 0; d < in.rank; ++d) {
    const int64_t n = in.dims[d], repeats = out.dims[d] / n;
    const auto add = [&](int64_t size, int64_t out_stride, int64_t in_stride) {
      o.dims[o.rank] = s.dims[s.rank] = size;
      o.strides[o.rank++] = out_stride;
      s.strides[s.rank++] = in_stride;
    };
    if (n == 1) {
      add(repeats, out.strides[d], 0);
      continue;
    }
    if (repeats != 1) add(repeats, out.strides[d] * n, 0);
    add(n, out.strides[d], in.strides[d]);
  }
  CopyCast(o, s);
}

struct SliceRange {
  int64_t start, step, length;
};
// Python's slice of a dimension of size n. The step of at most one element says nothing, and is 1: it may be
// any number, which no stride should be multiplied with.
SliceRange ReadSlice(int64_t start, int64_t end, int64_t step, int64_t n) {
  if (start < 0) start = std::max<int64_t>(start + n, step < 0 ? -1 : 0);
  if (end < 0) end = std::max<int64_t>(end + n, step < 0 ? -1 : 0);
  start = std::min(start, step < 0 ? n - 1 : n);
  end = std::min(end, step < 0 ? n - 1 : n);
  const int64_t distance = step < 0 ? start - end : end - start,
                s = step == INT64_MIN ? INT64_MAX : std::abs(step);
  const int64_t length = distance <= 0 ? 0 : (distance - 1) / s + 1;
  return {start, length > 1 ? step : 1, length};
}
void ApplySlice(TensorView* v, int d, const SliceRange& r) {
  if (r.length > 0) v->data = v->bytes() + r.start * v->strides[d] * SizeOf(v->dtype);
  v->dims[d] = r.length;
  v->strides[d] *= r.step;
}

}  // namespace

Status aclnn::Permute(Call& call, const aclTensor* self, const aclIntArray* dims, aclTensor* out) {
  const TensorView& s = self->view;
  if (dims->size != static_cast<uint64_t>(s.rank))
    return call.Invalid("dims has {} values, expected {} (self {})", dims->size, s.rank, ShapeString(s));
  TensorView v = s;
  unsigned seen = 0;
  for (int i = 0; i < s.rank; ++i) {
    int d;
    RETURN_IF_ERROR(call.WrapDim((*dims)[static_cast<uint64_t>(i)], s.rank, "dims", &d));
    if (seen & (1u << d)) return call.Invalid("dims names dimension {} twice", d);
    seen |= 1u << d;
    v.dims[i] = s.dims[d];
    v.strides[i] = s.strides[d];
  }
  RETURN_IF_ERROR(call.RequireShape(out, "out", v.dims, v.rank));
  return LaunchCopy(call, self, v, out);
}

Status aclnn::Flip(Call& call, const aclTensor* self, const aclIntArray* dims, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  TensorView v = self->view;
  unsigned seen = 0;
  for (int64_t dim : *dims) {
    int d;
    RETURN_IF_ERROR(call.WrapDim(dim, v.rank, "dims", &d));
    if (seen & (1u << d)) return call.Invalid("dims names dimension {} twice", d);
    seen |= 1u << d;
    if (v.rank > 0 && v.dims[d] > 0) ApplySlice(&v, d, {v.dims[d] - 1, -1, v.dims[d]});
  }
  return LaunchCopy(call, self, v, out);
}

Status aclnn::Roll(Call& call, const aclTensor* x, const aclIntArray* shifts, const aclIntArray* dims,
                   aclTensor* out) {
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", x, "x"));
  RETURN_IF_ERROR(call.RequireCastable(x->view.dtype, out, "out"));
  const bool flat = dims->size == 0;
  if (flat ? shifts->size != 1 : shifts->size != dims->size)
    return call.Invalid("shifts has {} values, expected {}", shifts->size, flat ? 1 : dims->size);
  if (!flat && x->view.rank == 0)
    return call.Invalid("dims has {} values, but x has no dimensions", dims->size);
  RETURN_IF_ERROR(RequireApart(call, out, "out", x, "x"));
  if (out->view.empty()) return call.Nothing();
  const Cost cost{0, 2.0 * static_cast<double>(out->view.nbytes())};
  if (flat) {
    const int64_t n = x->view.numel(), by = ((*shifts)[0] % n + n) % n;
    return call.Launch({In(x), Out(out)}, cost, [n, by](const Run& t) -> Status {
      const Dense in(t[0], t[1].dtype, Dense::kRead);
      Dense result(t[1], Dense::kWrite);
      const Shift shift{0, by};
      CopyRolled(TensorView::Contiguous(result.ptr<void>(), t[1].dtype, &n, 1),
                 TensorView::Contiguous(in.ptr<void>(), t[1].dtype, &n, 1), &shift, by == 0 ? 0 : 1);
      result.Commit();
      return Status();
    });
  }
  int64_t by[kMaxRank] = {};
  for (uint64_t i = 0; i < dims->size; ++i) {
    int d;
    RETURN_IF_ERROR(call.WrapDim((*dims)[i], x->view.rank, "dims", &d));
    if (x->view.rank > 0)
      by[d] = (by[d] + (*shifts)[i] % x->view.dims[d] + x->view.dims[d]) % x->view.dims[d];
  }
  struct Shifts {
    Shift values[kMaxRank];
    size_t count = 0;
  } s;
  for (int d = 0; d < x->view.rank; ++d)
    if (by[d] != 0) s.values[s.count++] = {d, by[d]};
  return call.Launch({In(x), Out(out)}, cost, [s](const Run& t) -> Status {
    CopyRolled(t[1], t[0], s.values, s.count);
    return Status();
  });
}

Status aclnn::Repeat(Call& call, const aclTensor* self, const aclIntArray* repeats, aclTensor* out) {
  const TensorView& s = self->view;
  if (repeats->size < static_cast<uint64_t>(s.rank) || repeats->size > kMaxRank)
    return call.Invalid("repeats has {} values, expected {} to {} (self {})", repeats->size, s.rank, kMaxRank,
                        ShapeString(s));
  TensorView v = s;
  while (static_cast<uint64_t>(v.rank) < repeats->size) v = v.Unsqueeze(0);
  int64_t expected[kMaxRank];
  for (int i = 0; i < v.rank; ++i) {
    const int64_t r = (*repeats)[static_cast<uint64_t>(i)];
    if (r < 0) return call.Invalid("repeats[{}] is {}, expected no negative number", i, r);
    if (__builtin_mul_overflow(r, v.dims[i], &expected[i]))
      return call.Invalid("repeats[{}] is {}, too large", i, r);
  }
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, v.rank));
  RETURN_IF_ERROR(call.RequireCastable(s.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self, v), Out(out)}, Cost{0, static_cast<double>(v.nbytes() + out->view.nbytes())},
                     [](const Run& t) -> Status {
                       CopyRepeated(t[1], t[0], 0);
                       return Status();
                     });
}

Status aclnn::ChannelShuffle(Call& call, const aclTensor* self, int64_t groups, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 3, kMaxRank));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  const int64_t channels = self->view.dims[1];
  if (groups < 1 || channels % groups != 0)
    return call.Invalid("groups is {}, expected a divisor of {}, the channels of self", groups, channels);
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), Out(out)}, Cost{0, 2.0 * static_cast<double>(out->view.nbytes())},
                     [groups, each = channels / groups](const Run& t) -> Status {
                       for (int64_t n = 0; n < t[0].dims[0]; ++n) {
                         const TensorView in = t[0].Select(0, n), out = t[1].Select(0, n);
                         TensorView from = in.Unsqueeze(0), to = out.Unsqueeze(0);
                         from.dims[0] = groups, from.strides[0] = in.strides[0] * each, from.dims[1] = each;
                         to.dims[0] = each, to.strides[0] = out.strides[0] * groups, to.dims[1] = groups;
                         CopyCast(to.Transpose(0, 1), from);
                       }
                       return Status();
                     });
}

Status aclnn::Slice(Call& call, const aclTensor* self, int64_t dim, int64_t start, int64_t end, int64_t step,
                    aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, kMaxRank));
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  if (step < 1) return call.Invalid("step is {}, expected at least 1", step);
  TensorView v = self->view;
  ApplySlice(&v, d, ReadSlice(start, end, step, v.dims[d]));
  RETURN_IF_ERROR(call.RequireShape(out, "out", v.dims, v.rank));
  return LaunchCopy(call, self, v, out);
}

// TensorFlow's strided slice. Bit i of a mask is about the i-th value: begin/end open, an ellipsis for all
// dimensions that no other value names, a new dimension of size 1, a single coordinate whose dimension is
// dropped.
Status aclnn::StridedSlice(Call& call, const aclTensor* self, const aclIntArray* begin,
                           const aclIntArray* end, const aclIntArray* strides, int64_t beginMask,
                           int64_t endMask, int64_t ellipsisMask, int64_t newAxisMask, int64_t shrinkAxisMask,
                           aclTensor* out) {
  const uint64_t n = begin->size;
  if (end->size != n || strides->size != n || n > 32)
    return call.Invalid("begin, end and strides have {}, {} and {} values, expected equally many", n,
                        end->size, strides->size);
  const TensorView& s = self->view;
  const auto bit = [](int64_t mask, uint64_t i) { return (mask >> i & 1) != 0; };
  int named = 0, ellipses = 0;
  for (uint64_t i = 0; i < n; ++i) {
    if (bit(ellipsisMask, i))
      ++ellipses;
    else if (!bit(newAxisMask, i))
      ++named;
  }
  if (ellipses > 1) return call.Invalid("ellipsisMask is {}, expected one bit at most", ellipsisMask);
  if (named > s.rank)
    return call.Invalid("begin names {} dimensions, but self has shape {}", named, ShapeString(s));
  TensorView v = s;
  v.rank = 0;
  int dim = 0;
  const auto keep = [&](int64_t size, int64_t stride) {
    if (v.rank == kMaxRank) return false;
    v.dims[v.rank] = size;
    v.strides[v.rank++] = stride;
    return true;
  };
  bool fits = true;
  for (uint64_t i = 0; i < n && fits; ++i) {
    if (bit(ellipsisMask, i)) {
      for (int k = s.rank - named; k > 0 && fits; --k, ++dim) fits = keep(s.dims[dim], s.strides[dim]);
      continue;
    }
    if (bit(newAxisMask, i)) {
      fits = keep(1, 0);
      continue;
    }
    const int64_t size = s.dims[dim], step = (*strides)[i];
    if (step == 0) return call.Invalid("strides[{}] is 0", i);
    if (bit(shrinkAxisMask, i)) {
      const int64_t at = (*begin)[i] < 0 ? (*begin)[i] + size : (*begin)[i];
      if (at < 0 || at >= size)
        return call.Invalid("begin[{}] is {}, out of range for dimension {} of size {}", i, (*begin)[i], dim,
                            size);
      v.data = v.bytes() + at * s.strides[dim] * SizeOf(s.dtype);
    } else {
      const int64_t low = step > 0 ? 0 : size, high = step > 0 ? INT64_MAX : -size - 1;
      const SliceRange r =
          ReadSlice(bit(beginMask, i) ? low : (*begin)[i], bit(endMask, i) ? high : (*end)[i], step, size);
      if (r.length > 0) v.data = v.bytes() + r.start * s.strides[dim] * SizeOf(s.dtype);
      fits = keep(r.length, s.strides[dim] * r.step);
    }
    ++dim;
  }
  for (; dim < s.rank && fits; ++dim) fits = keep(s.dims[dim], s.strides[dim]);
  if (!fits) return call.Invalid("the result would have more than {} dimensions", kMaxRank);
  RETURN_IF_ERROR(call.RequireShape(out, "out", v.dims, v.rank));
  return LaunchCopy(call, self, v, out);
}

namespace {

// The slices of several axes at once; axes, steps: absent for the first ones and for 1.
Status ReadSlices(Call& call, const TensorView& self, const aclIntArray* starts, const aclIntArray* ends,
                  const aclIntArray* axes, const aclIntArray* steps, TensorView* v) {
  *v = self;
  unsigned seen = 0;
  for (uint64_t i = 0; i < starts->size; ++i) {
    if (i >= ends->size || (axes != nullptr && i >= axes->size) || (steps != nullptr && i >= steps->size))
      return call.Invalid("the arrays of starts, ends, axes and steps have different sizes");
    int d;
    RETURN_IF_ERROR(
        call.WrapDim(axes != nullptr ? (*axes)[i] : static_cast<int64_t>(i), self.rank, "axes", &d));
    const int64_t step = steps != nullptr ? (*steps)[i] : 1;
    if (step == 0 || step == INT64_MIN) return call.Invalid("steps[{}] is {}", i, step);
    if (self.rank == 0 || (seen & (1u << d)))
      return call.Invalid("axes names dimension {} twice, or self has none", d);
    seen |= 1u << d;
    ApplySlice(v, d, ReadSlice((*starts)[i], (*ends)[i], step, self.dims[d]));
  }
  return Status();
}

}  // namespace

Status aclnn::SliceV2(Call& call, const aclTensor* self, const aclIntArray* starts, const aclIntArray* ends,
                      const aclIntArray* axes, const aclIntArray* steps, aclTensor* out) {
  TensorView v;
  RETURN_IF_ERROR(ReadSlices(call, self->view, starts, ends, axes, steps, &v));
  RETURN_IF_ERROR(call.RequireShape(out, "out", v.dims, v.rank));
  return LaunchCopy(call, self, v, out);
}

Status aclnn::StridedSliceAssignV2(Call& call, aclTensor* varRef, const aclTensor* inputValue,
                                   const aclIntArray* begin, const aclIntArray* end,
                                   const aclIntArray* strides, const aclIntArray* axesOptional) {
  TensorView v;
  RETURN_IF_ERROR(ReadSlices(call, varRef->view, begin, end, axesOptional, strides, &v));
  RETURN_IF_ERROR(call.RequireShape(inputValue, "inputValue", v.dims, v.rank));
  RETURN_IF_ERROR(call.RequireCastable(inputValue->view.dtype, varRef, "varRef"));
  if (v.empty()) return call.Nothing();
  return call.Launch({In(inputValue), Out(varRef, v)}, Cost{0, 2.0 * static_cast<double>(v.nbytes())},
                     [](const Run& t) -> Status {
                       CopyCast(t[1], t[0]);
                       return Status();
                     });
}

// A matrix: the dimensions before `axis`, and those from it on.
Status aclnn::Flatten(Call& call, const aclTensor* self, int64_t axis, aclTensor* out) {
  const TensorView& s = self->view;
  if (axis < -s.rank || axis > s.rank)
    return call.Invalid("axis is {}, expected a value in [{},{}]", axis, -s.rank, s.rank);
  const int64_t d = axis < 0 ? axis + s.rank : axis;
  int64_t expected[2] = {1, 1};
  for (int i = 0; i < s.rank; ++i) expected[i < d ? 0 : 1] *= s.dims[i];
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, 2));
  RETURN_IF_ERROR(call.RequireCastable(s.dtype, out, "out"));
  if (s.empty()) return call.Nothing();
  return call.Launch(
      {In(self), Out(out)}, Cost{0, 2.0 * static_cast<double>(s.nbytes())}, [](const Run& t) -> Status {
        Dense result(t[1], t[0].dtype, Dense::kWrite);
        CopyCast(TensorView::Contiguous(result.ptr<void>(), t[0].dtype, t[0].dims, t[0].rank), t[0]);
        result.Commit();
        return Status();
      });
}

Status aclnn::Complex(Call& call, const aclTensor* real, const aclTensor* imag, aclTensor* out) {
  const TensorView& o = out->view;
  const DType part = PartType(o.dtype);
  if (part == DType::kUndefined)
    return call.Invalid("out has type {}, expected a complex one", Name(o.dtype));
  for (const aclTensor* t : {real, imag})
    if (!IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected a real floating-point one", t == real ? "real" : "imag",
                          Name(t->view.dtype));
  RETURN_IF_ERROR(call.RequireDType(imag, "imag", real->view.dtype));
  TensorView r, i;
  int64_t dims[kMaxRank];
  int rank = 0;
  BroadcastShapes(dims, &rank, real->view.dims, real->view.rank);
  if (!BroadcastShapes(dims, &rank, imag->view.dims, imag->view.rank))
    return call.Invalid("real {} and imag {} can't be broadcast together", ShapeString(real->view),
                        ShapeString(imag->view));
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, rank));
  if (o.empty()) return call.Nothing();
  BroadcastTo(real->view, dims, rank, &r);
  BroadcastTo(imag->view, dims, rank, &i);
  return call.Launch({In(real, r), In(imag, i), Out(out)}, Cost{0, 2.0 * static_cast<double>(o.nbytes())},
                     [part](const Run& t) -> Status {
                       TensorView half = t[2];
                       half.dtype = part;
                       for (int d = 0; d < half.rank; ++d) half.strides[d] *= 2;
                       CopyCast(half, t[0]);
                       half.data = half.bytes() + SizeOf(part);
                       CopyCast(half, t[1]);
                       return Status();
                     });
}

}  // namespace anycann
