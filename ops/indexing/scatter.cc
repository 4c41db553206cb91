// Gather and scatter along a dimension: Gather, Scatter, ScatterAdd, ScatterValue, ScatterReduce, OneHot.
#include <algorithm>
#include <vector>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/elementwise/map.h"
#include "ops/indexing/along_dim.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"
#include "ops/overlap.h"

namespace anycann {
namespace {

TensorView AtLeast1d(const TensorView& v) { return v.rank == 0 ? v.Unsqueeze(0) : v; }
double Bytes(const TensorView& v) { return static_cast<double>(v.nbytes()); }

// Checks that index has self's rank and, outside of `dim`, no more than its sizes.
Status CheckIndex(Call& call, const aclTensor* self, const char* name, int dim, const aclTensor* index) {
  if (!IsIndexType(index->view.dtype))
    return call.Invalid("index has type {}, expected an integer", Name(index->view.dtype));
  if (index->view.empty()) return Status();
  const TensorView s = AtLeast1d(self->view), i = AtLeast1d(index->view);
  bool fits = s.rank == i.rank;
  for (int d = 0; fits && d < s.rank; ++d) fits = d == dim || i.dims[d] <= s.dims[d];
  if (fits) return Status();
  return call.Invalid("index has shape {}, expected at most that of {}, {}, outside of dimension {}",
                      ShapeString(index->view), name, ShapeString(self->view), dim);
}

Status GatherTensor(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(CheckIndex(call, self, "self", d, index));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", index, "index"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  RETURN_IF_ERROR(RequireApart(call, out, "out", self, "self"));
  RETURN_IF_ERROR(RequireApart(call, out, "out", index, "index"));
  if (out->view.empty()) return call.Nothing();
  const Cost cost{0, 2 * Bytes(out->view) + Bytes(index->view)};
  return call.Launch({In(self), In(index), Out(out)}, cost, [d](const Run& t) -> Status {
    Strided result(AtLeast1d(t[2]), t[0].dtype, Dense::kWrite);
    RETURN_IF_ERROR(GatherAlong(t.plan().name, AtLeast1d(t[0]), d, AtLeast1d(t[1]), result.view()));
    result.Commit();
    return Status();
  });
}

// A reduction along dim: what to combine with, and whether self's own values take part.
struct Reduction {
  ScatterReduction combine = ScatterReduction::kSet;
  bool include_self = true;
};

// The neutral element of a reduction, for destinations that forget their own value.
ScalarValue Neutral(ScatterReduction reduction, DType type) {
  ScalarValue v;
  v.dtype = IsFloating(type) ? DType::kDouble : DType::kInt64;
  const auto set = [&](double d, int64_t i) {
    if (v.dtype == DType::kDouble)
      v.d = d;
    else
      v.i = i;
  };
  const int bits = static_cast<int>(8 * SizeOf(type));
  const bool is_unsigned = IsUnsigned(type) || type == DType::kBool;
  const int64_t max = type == DType::kBool ? 1
                      : is_unsigned        ? (bits == 64 ? -1 : (int64_t{1} << bits) - 1)
                      : bits > 64          ? 0  // complex: no extremes
                                           : static_cast<int64_t>(~uint64_t{0} >> (65 - bits));
  switch (reduction) {
    case ScatterReduction::kMultiply: set(1, 1); break;
    case ScatterReduction::kMaximum: set(-INFINITY, is_unsigned ? 0 : -max - 1); break;
    case ScatterReduction::kMinimum: set(INFINITY, max); break;
    default: set(0, 0); break;
  }
  return v;
}

// out = self with src scattered into it; t: self, index, src, out. src covers index's shape at least.
Status ScatterInto(const Run& t, int dim, const Reduction& r, const TensorView& src_view) {
  const char* op = t.plan().name;
  const TensorView& out = t[t.size() - 1];
  CopyUnlessSame(out, t[0]);
  const DType type = r.combine == ScatterReduction::kSet ? out.dtype : ComputeType(out.dtype);
  Strided target(AtLeast1d(out), type, Dense::kUpdate);
  const TensorView index = AtLeast1d(t[1]);
  TensorView src = AtLeast1d(src_view);
  for (int i = 0; i < src.rank; ++i) src.dims[i] = index.dims[i];
  const Strided values(src, type, Dense::kRead);
  if (!r.include_self) {
    const Element neutral = ElementOf(Neutral(r.combine, type), type);
    TensorView constant = src;
    constant.data = const_cast<unsigned char*>(neutral.bytes);
    constant.dtype = type;
    for (int i = 0; i < src.rank; ++i) constant.strides[i] = 0;
    RETURN_IF_ERROR(ScatterAlong(op, target.view(), dim, index, constant, ScatterReduction::kSet));
  }
  RETURN_IF_ERROR(ScatterAlong(op, target.view(), dim, index, values.view(), r.combine));
  target.Commit();
  return Status();
}

Status ScatterTensor(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                     const aclTensor* src, const Reduction& reduction, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(CheckIndex(call, self, "self", d, index));
  if (!index->view.empty()) RETURN_IF_ERROR(CheckIndex(call, src, "src", -1, index));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireDType(src, "src", self->view.dtype));
  RETURN_IF_ERROR(RequireApart(call, out, "out", index, "index"));
  RETURN_IF_ERROR(RequireApart(call, out, "out", src, "src"));
  RETURN_IF_ERROR(call.RequireCastable(src->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const Cost cost{static_cast<double>(src->view.numel()), 2 * Bytes(out->view) + 2 * Bytes(src->view)};
  if (index->view.empty())
    return call.Launch({In(self), Out(out)}, cost, [](const Run& t) -> Status {
      CopyUnlessSame(t[1], t[0]);
      return Status();
    });
  return call.Launch({In(self), In(index), In(src), Out(out)}, cost,
                     [=](const Run& t) -> Status { return ScatterInto(t, d, reduction, t[2]); });
}

// `reduce`, the same for aclnnScatter and aclnnScatterReduce (torch_npu shows 0 and 1).
Status ReadReduce(Call& call, int64_t reduce, Reduction* r) {
  static constexpr ScatterReduction kReductions[] = {ScatterReduction::kSet, ScatterReduction::kAdd,
                                                     ScatterReduction::kMultiply, ScatterReduction::kMaximum,
                                                     ScatterReduction::kMinimum};
  if (reduce < 0 || reduce >= 5)
    return call.Invalid("reduce is {}, expected 0 (set), 1 (add), 2 (multiply), 3 (maximum) or 4 (minimum)",
                        reduce);
  r->combine = kReductions[reduce];
  return Status();
}

}  // namespace

Status aclnn::Gather(Call& call, const aclTensor* self, const int64_t dim, const aclTensor* index,
                     aclTensor* out) {
  return GatherTensor(call, self, dim, index, out);
}

Status aclnn::Scatter(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                      const aclTensor* src, int64_t reduce, aclTensor* out) {
  Reduction r;
  RETURN_IF_ERROR(ReadReduce(call, reduce, &r));
  return ScatterTensor(call, self, dim, index, src, r, out);
}

Status aclnn::ScatterAdd(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                         const aclTensor* src, aclTensor* out) {
  return ScatterTensor(call, self, dim, index, src, Reduction{ScatterReduction::kAdd}, out);
}

Status aclnn::ScatterValue(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                           const aclScalar* value, int64_t reduce, aclTensor* out) {
  Reduction r;
  RETURN_IF_ERROR(ReadReduce(call, reduce, &r));
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(CheckIndex(call, self, "self", d, index));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(RequireApart(call, out, "out", index, "index"));
  if (out->view.empty()) return call.Nothing();
  const bool nothing = index->view.empty();
  const DType type = r.combine == ScatterReduction::kSet ? out->view.dtype : ComputeType(out->view.dtype);
  const Element element = ElementOf(value->value, type);
  return call.Launch({In(self), In(index), Out(out)}, Cost{0, 2 * Bytes(out->view) + Bytes(index->view)},
                     [=](const Run& t) -> Status {
                       if (nothing) {
                         CopyUnlessSame(t[2], t[0]);
                         return Status();
                       }
                       TensorView value = t[1];
                       value.data = const_cast<unsigned char*>(element.bytes);
                       value.dtype = type;
                       for (int i = 0; i < value.rank; ++i) value.strides[i] = 0;
                       return ScatterInto(t, d, r, value);
                     });
}

Status aclnn::ScatterReduce(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                            const aclTensor* src, int64_t reduce, bool includeSelf, aclTensor* out) {
  Reduction r;
  RETURN_IF_ERROR(ReadReduce(call, reduce, &r));
  r.include_self = includeSelf;
  return ScatterTensor(call, self, dim, index, src, r, out);
}

// A new dimension of size numClasses at `axis`: onValue where its coordinate equals self's value, offValue
// elsewhere, also for values outside of [0, numClasses).
Status aclnn::OneHot(Call& call, const aclTensor* self, int numClasses, const aclTensor* onValue,
                     const aclTensor* offValue, int64_t axis, aclTensor* out) {
  const TensorView& v = self->view;
  if (!IsIndexType(v.dtype)) return call.Invalid("self has type {}, expected an integer", Name(v.dtype));
  if (v.rank + 1 > kMaxRank)
    return call.Invalid("self has {} dimensions, expected at most {}", v.rank, kMaxRank - 1);
  if (numClasses < 0) return call.Invalid("numClasses is {}, expected no negative number", numClasses);
  for (const aclTensor* t : {onValue, offValue})
    if (t->view.numel() != 1)
      return call.Invalid("{} has shape {}, expected one element", t == onValue ? "onValue" : "offValue",
                          ShapeString(t->view));
  int d;
  RETURN_IF_ERROR(call.WrapDim(axis, v.rank + 1, "axis", &d));
  TensorView expected = v.Unsqueeze(d);
  expected.dims[d] = numClasses;
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected.dims, expected.rank));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), In(onValue), In(offValue), Out(out)}, Cost{0, Bytes(out->view)},
                     [d](const Run& t) -> Status {
                       const TensorView& out = t[3];
                       Element on, off;
                       Convert(on.bytes, out.dtype, t[1].data, t[1].dtype, 1);
                       Convert(off.bytes, out.dtype, t[2].data, t[2].dtype, 1);
                       Fill(out, off.bytes);
                       const Dense index(t[0], DType::kInt64, Dense::kRead);
                       Walk<1> walk;
                       for (int i = 0; i < out.rank; ++i)
                         if (i != d) walk.Add(out.dims[i], {out.strides[i]});
                       walk.Seek(0);
                       const int64_t n = index.view().numel(), size = SizeOf(out.dtype);
                       for (int64_t i = 0; i < n; ++i, walk.Next()) {
                         const int64_t c = index.ptr<const int64_t>()[i];
                         if (c < 0 || c >= out.dims[d]) continue;
                         std::memcpy(out.bytes() + (walk.offset[0] + c * out.strides[d]) * size, on.bytes,
                                     static_cast<size_t>(size));
                       }
                       return Status();
                     });
}

// Gather as ONNX and TensorFlow know it: index replaces dimension `dim` of self, after `batchDims` dimensions
// that both share.
static Status GatherBatched(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                            int64_t batch_dims, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  const TensorView &s = self->view, &i = index->view;
  if (!IsIndexType(i.dtype)) return call.Invalid("index has type {}, expected an integer", Name(i.dtype));
  const int64_t b = batch_dims < 0 ? batch_dims + i.rank : batch_dims;
  if (b < 0 || b > d || b > i.rank)
    return call.Invalid("batchDims is {}, expected a value in [0,{}]", batch_dims, d);
  if (s.rank == 0) return call.Invalid("self has no dimensions");
  if (s.rank - 1 + i.rank - b > kMaxRank)
    return call.Invalid("the result would have more than {} dimensions", kMaxRank);
  int64_t expected[2 * kMaxRank];
  int rank = 0;
  for (int k = 0; k < d; ++k) expected[rank++] = s.dims[k];
  for (int k = static_cast<int>(b); k < i.rank; ++k) expected[rank++] = i.dims[k];
  for (int k = d + 1; k < s.rank; ++k) expected[rank++] = s.dims[k];
  for (int k = 0; k < b; ++k)
    if (s.dims[k] != i.dims[k])
      return call.Invalid("index has shape {}, expected the first {} sizes of self, {}", ShapeString(i), b,
                          ShapeString(s));
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, rank));
  RETURN_IF_ERROR(call.RequireCastable(s.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch(
      {In(self), In(index), Out(out)}, Cost{0, 2 * Bytes(out->view)}, [=](const Run& t) -> Status {
        Dense result(t[2], t[0].dtype, Dense::kWrite);
        const Dense indices(t[1], Dense::kRead);
        Walk<1> walk;
        int64_t batches = 1;
        for (int k = 0; k < b; ++k) {
          walk.Add(t[0].dims[k], {t[0].strides[k]});
          batches *= t[0].dims[k];
        }
        walk.Seek(0);
        TensorView rest = t[0];
        for (int k = 0; k < b; ++k) rest = rest.Select(0, 0);
        const int axis = d - static_cast<int>(b);
        const int64_t size = SizeOf(t[0].dtype), count = t[1].numel() / batches,
                      slice = t[2].numel() / batches;
        for (int64_t k = 0; k < batches; ++k, walk.Next()) {
          TensorView source = rest;
          source.data = t[0].bytes() + walk.offset[0] * size;
          const TensorView chosen = TensorView::Contiguous(
              indices.view().bytes() + k * count * SizeOf(t[1].dtype), t[1].dtype, &count, 1);
          const IndexOperand operand{chosen, d, source.dims[axis], source.strides[axis]};
          Buffer<int64_t> positions;
          RETURN_IF_ERROR(ResolvePositions(t.plan().name, std::span(&operand, 1), true, &positions));
          GatherSlices(source, SliceSpace::Along(source, axis), positions.get(), count,
                       result.view().bytes() + k * slice * size);
        }
        result.Commit();
        return Status();
      });
}

Status aclnn::GatherV2(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                       aclTensor* out) {
  return GatherBatched(call, self, dim, index, 0, out);
}
// `mode` chooses between ways to compute on a card; here there is one.
Status aclnn::GatherV3(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                       int64_t batchDims, int64_t, aclTensor* out) {
  return GatherBatched(call, self, dim, index, batchDims, out);
}

}  // namespace anycann
