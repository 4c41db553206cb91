// Rows chosen by a one-dimensional index: IndexSelect, Embedding, IndexAdd, IndexCopy, IndexFill; and Take
// and Put, which see a tensor as one dimension.
#include <vector>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"

namespace anycann {
namespace {

Status RequireIndex(Call& call, const aclTensor* index, const char* name) {
  if (IsIndexType(index->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected an integer", name, Name(index->view.dtype));
}

// A 0-d tensor as one dimension of size 1.
TensorView AtLeast1d(const TensorView& v) { return v.rank == 0 ? v.Unsqueeze(0) : v; }

TensorView Flat(const Dense& d) {
  const int64_t n = d.view().numel();
  return TensorView::Contiguous(d.view().data, d.view().dtype, &n, 1);
}

// out = self with dimension `dim` indexed; out's dimensions from `dim` on may be those of an index of any
// rank.
Status SelectRows(const char* op, const TensorView& self, int dim, const TensorView& index,
                  const TensorView& out, bool wrap) {
  const IndexOperand operand{index, dim, self.dims[dim], self.strides[dim]};
  Dense result(out, self.dtype, Dense::kWrite);
  RETURN_IF_ERROR(GatherIndexed(op, self, SliceSpace::Along(self, dim), std::span(&operand, 1), wrap,
                                result.ptr<void>()));
  result.Commit();
  return Status();
}

double Bytes(const aclTensor* t) { return static_cast<double>(t->view.nbytes()); }

// Checks index and source of IndexAdd and IndexCopy, and wraps dim.
Status CheckRows(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                 const aclTensor* source, const aclTensor* out, int* d) {
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", d));
  RETURN_IF_ERROR(RequireIndex(call, index, "index"));
  RETURN_IF_ERROR(call.RequireRank(index, "index", 0, 1));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  const TensorView s = AtLeast1d(self->view), v = AtLeast1d(source->view);
  bool fits = s.rank == v.rank;
  for (int i = 0; fits && i < s.rank; ++i) fits = v.dims[i] == (i == *d ? index->view.numel() : s.dims[i]);
  if (fits) return Status();
  return call.Invalid("source has shape {}, expected that of self, {}, with {} in dimension {}",
                      ShapeString(source->view), ShapeString(self->view), index->view.numel(), *d);
}

Status AddRows(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
               const aclTensor* source, const aclScalar* alpha, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(CheckRows(call, self, dim, index, source, out, &d));
  RETURN_IF_ERROR(call.RequireCastable(source->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const DType compute = ComputeType(out->view.dtype);
  const Element factor = ElementOf(alpha->value, compute);
  return call.Launch(
      {In(self), In(index), In(source), Out(out)},
      Cost{static_cast<double>(source->view.numel()), 3 * Bytes(source)}, [=](const Run& t) -> Status {
        CopyUnlessSame(t[3], t[0]);
        Strided target(AtLeast1d(t[3]), compute, Dense::kUpdate);
        const Dense values(AtLeast1d(t[2]), compute, Dense::kRead);
        const IndexOperand operand{t[1], d, target.view().dims[d], target.view().strides[d]};
        Buffer<int64_t> positions;
        RETURN_IF_ERROR(ResolvePositions(t.plan().name, std::span(&operand, 1), false, &positions));
        AccumulateSlices(target.view(), SliceSpace::Along(target.view(), d), positions.get(), t[1].numel(),
                         values.ptr<void>(), false, factor.bytes, nullptr);
        target.Commit();
        return Status();
      });
}

Status CopyRows(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                const aclTensor* source, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(CheckRows(call, self, dim, index, source, out, &d));
  if (out->view.empty()) return call.Nothing();
  return call.Launch(
      {In(self), In(index), In(source), Out(out)}, Cost{0, 2 * Bytes(source)}, [d](const Run& t) -> Status {
        CopyUnlessSame(t[3], t[0]);
        Strided target(AtLeast1d(t[3]), t[3].dtype, Dense::kUpdate);
        const Dense values(AtLeast1d(t[2]), t[3].dtype, Dense::kRead);
        const IndexOperand operand{t[1], d, target.view().dims[d], target.view().strides[d]};
        Buffer<int64_t> positions;
        RETURN_IF_ERROR(ResolvePositions(t.plan().name, std::span(&operand, 1), false, &positions));
        PutSlices(target.view(), SliceSpace::Along(target.view(), d), positions.get(), t[1].numel(),
                  values.ptr<void>(), false);
        target.Commit();
        return Status();
      });
}

// Fills the rows of `t[0] -> t[1]` that `index` names.
Status FillRows(const Run& t, const TensorView& index, int d, const Element& value) {
  const TensorView& out = t[t.size() - 1];
  CopyUnlessSame(out, t[0]);
  Strided target(AtLeast1d(out), out.dtype, Dense::kUpdate);
  const IndexOperand operand{index, d, target.view().dims[d], target.view().strides[d]};
  Buffer<int64_t> positions;
  RETURN_IF_ERROR(ResolvePositions(t.plan().name, std::span(&operand, 1), true, &positions));
  PutSlices(target.view(), SliceSpace::Along(target.view(), d), positions.get(), index.numel(), value.bytes,
            true);
  target.Commit();
  return Status();
}

}  // namespace

Status aclnn::IndexSelect(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                          aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(RequireIndex(call, index, "index"));
  RETURN_IF_ERROR(call.RequireRank(index, "index", 0, 1));
  TensorView expected = self->view;
  if (expected.rank > 0)
    expected.dims[d] = index->view.numel();
  else if (index->view.numel() != 1)
    return call.Invalid("index has shape {}, expected one element: self has no dimensions",
                        ShapeString(index->view));
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected.dims, expected.rank));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), In(index), Out(out)}, Cost{0, 2 * Bytes(out)}, [d](const Run& t) -> Status {
    return SelectRows(t.plan().name, AtLeast1d(t[0]), d, t[1], t[2], false);
  });
}

Status aclnn::Embedding(Call& call, const aclTensor* weight, const aclTensor* indices, const aclTensor* out) {
  RETURN_IF_ERROR(RequireIndex(call, indices, "indices"));
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 1, kMaxRank));
  const TensorView &w = weight->view, &i = indices->view;
  if (i.rank + w.rank - 1 > kMaxRank)
    return call.Invalid("indices has {} dimensions, expected at most {}", i.rank, kMaxRank - w.rank + 1);
  int64_t expected[kMaxRank];
  for (int k = 0; k < i.rank; ++k) expected[k] = i.dims[k];
  for (int k = 1; k < w.rank; ++k) expected[i.rank + k - 1] = w.dims[k];
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, i.rank + w.rank - 1));
  RETURN_IF_ERROR(call.RequireCastable(w.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch(
      {In(weight), In(indices), Out(out)}, Cost{0, 2 * Bytes(out)},
      [](const Run& t) -> Status { return SelectRows(t.plan().name, t[0], 0, t[1], t[2], false); });
}

Status aclnn::Take(Call& call, const aclTensor* self, const aclTensor* index, aclTensor* out) {
  RETURN_IF_ERROR(RequireIndex(call, index, "index"));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", index, "index"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), In(index), Out(out)}, Cost{0, 2 * Bytes(out)}, [](const Run& t) -> Status {
    const Dense self(t[0], Dense::kRead);
    return SelectRows(t.plan().name, Flat(self), 0, t[1], t[2], true);
  });
}

Status aclnn::InplacePut(Call& call, aclTensor* selfRef, const aclTensor* index, const aclTensor* source,
                         bool accumulate) {
  RETURN_IF_ERROR(RequireIndex(call, index, "index"));
  if (index->view.numel() != source->view.numel())
    return call.Invalid("source has {} elements ({}), expected as many as index, {} ({})",
                        source->view.numel(), ShapeString(source->view), index->view.numel(),
                        ShapeString(index->view));
  if (index->view.empty()) return call.Nothing();
  const DType compute = accumulate ? ComputeType(selfRef->view.dtype) : selfRef->view.dtype;
  return call.Launch(
      {In(index), In(source), Out(selfRef)}, Cost{0, 3 * Bytes(source)}, [=](const Run& t) -> Status {
        Dense target(t[2], compute, Dense::kUpdate);
        const Dense values(t[1], compute, Dense::kRead);
        const TensorView flat = Flat(target);
        Buffer<int64_t> positions;
        RETURN_IF_ERROR(ResolveIndices(t.plan().name, t[0], 0, flat.dims[0], true, &positions));
        if (accumulate) {
          AccumulateSlices(flat, SliceSpace::Along(flat, 0), positions.get(), t[0].numel(),
                           values.ptr<void>(), false, nullptr, nullptr);
        } else {
          PutSlices(flat, SliceSpace::Along(flat, 0), positions.get(), t[0].numel(), values.ptr<void>(),
                    false);
        }
        target.Commit();
        return Status();
      });
}

Status aclnn::IndexAdd(Call& call, const aclTensor* self, const int64_t dim, const aclTensor* index,
                       const aclTensor* source, const aclScalar* alpha, aclTensor* out) {
  return AddRows(call, self, dim, index, source, alpha, out);
}
// `mode` chooses between speed and precision on a card; here there is one way.
Status aclnn::IndexAddV2(Call& call, const aclTensor* self, const int64_t dim, const aclTensor* index,
                         const aclTensor* source, const aclScalar* alpha, int64_t, aclTensor* out) {
  return AddRows(call, self, dim, index, source, alpha, out);
}
Status aclnn::IndexCopy(Call& call, aclTensor* selfRef, int64_t dim, const aclTensor* index,
                        const aclTensor* source, aclTensor* outRef) {
  return CopyRows(call, selfRef, dim, index, source, outRef);
}
Status aclnn::InplaceIndexCopy(Call& call, aclTensor* selfRef, int64_t dim, const aclTensor* index,
                               const aclTensor* source) {
  return CopyRows(call, selfRef, dim, index, source, selfRef);
}

Status aclnn::IndexFill(Call& call, const aclTensor* self, int64_t dim, const aclTensor* index,
                        const aclScalar* value, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(RequireIndex(call, index, "index"));
  RETURN_IF_ERROR(call.RequireRank(index, "index", 0, 1));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  if (out->view.empty()) return call.Nothing();
  const Element element = ElementOf(value->value, out->view.dtype);
  return call.Launch({In(self), In(index), Out(out)}, Cost{0, 2 * Bytes(out)},
                     [=](const Run& t) -> Status { return FillRows(t, t[1], d, element); });
}

Status aclnn::IndexFillTensor(Call& call, const aclTensor* self, int64_t dim, const aclIntArray* index,
                              const aclScalar* value, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  if (out->view.empty()) return call.Nothing();
  const Element element = ElementOf(value->value, out->view.dtype);
  return call.Launch({In(self), Out(out)}, Cost{0, 2 * Bytes(out)},
                     [=, rows = std::vector<int64_t>(index->begin(), index->end())](const Run& t) -> Status {
                       const int64_t n = static_cast<int64_t>(rows.size());
                       return FillRows(
                           t, TensorView::Contiguous(const_cast<int64_t*>(rows.data()), DType::kInt64, &n, 1),
                           d, element);
                     });
}

}  // namespace anycann
