// Legacy operators that look elements up, and those whose output's shape depends on the data.
#include <algorithm>

#include "aclnn_ops.h"
#include "aclop_operators.h"

namespace anycann::aclop {
namespace {

constexpr int64_t kAllDims = 1000;  // an axis that says "of the flattened tensor"

// The indices from input `first` on, each at its dimension: `places` holds 1 where a dimension has one.
Status PlacedIndices(Arguments& a, const Value& places, size_t first, aclTensorList** list) {
  const size_t given = a.input_count() > first ? a.input_count() - first : 0;
  size_t marked = 0;
  for (size_t i = 0; i < places.size(); ++i) marked += places.Integer(i) != 0;
  std::vector<size_t> at;
  if (marked == given) {
    for (size_t i = 0; i < places.size(); ++i)
      if (places.Integer(i) != 0) at.push_back(i);
  } else {
    for (size_t i = 0; i < given; ++i) at.push_back(i);
  }
  std::vector<const aclTensor*> members(given == 0 ? 0 : at.back() + 1);
  for (size_t i = 0; i < given; ++i) members[at[i]] = a.In(first + i);
  *list = a.List(members);
  return a.status();
}

}  // namespace

Status Index(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  aclTensorList* indices = nullptr;
  RETURN_IF_ERROR(PlacedIndices(a, a.Constant(1), 3, &indices));
  RETURN_IF_ERROR(call.Input(indices, "indices"));
  return aclnn::Index(call, a.In(0), indices, a.Out(0));
}

Status IndexPutV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const bool accumulate = a.Flag(a.Attr("accumulate", false));
  aclTensorList* indices = nullptr;
  RETURN_IF_ERROR(PlacedIndices(a, a.Constant(2), 4, &indices));
  aclTensor* target = a.Updated(a.Out(0), a.In(0));
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(call.Input(indices, "indices"));
  return aclnn::IndexPutImpl(call, target, indices, a.In(1), accumulate, false);
}

// Only what torch_npu's put_ needs: single elements of a flat tensor, also counted from its end.
Status ScatterNdAdd(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const TensorView& indices = a.In(1)->view;
  if (a.In(0)->view.rank != 1 || indices.rank == 0 || indices.dims[indices.rank - 1] != 1)
    return call.Invalid("var has shape {} and indices {}, expected one dimension and indices [..,1]",
                        ShapeString(a.In(0)->view), ShapeString(indices));
  aclTensor *var = a.Updated(a.Out(0), a.In(0)), *index = a.Flat(a.In(1)), *updates = a.Flat(a.In(2));
  RETURN_IF_ERROR(a.status());
  return aclnn::InplacePut(call, var, index, updates, true);
}

Status NonZero(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const bool transposed = a.Flag(a.Attr("transpose", false));
  RETURN_IF_ERROR(a.status());
  return transposed ? aclnn::NonzeroV2(call, a.In(0), a.Out(0)) : aclnn::Nonzero(call, a.In(0), a.Out(0));
}

// Outputs: values, an unused one, counts, inverse.
Status UniqueWithCountsExt2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 4));
  const int64_t axis = a.Integer(a.Constant(1));
  RETURN_IF_ERROR(a.status());
  return aclnn::UniqueDim(call, a.In(0), true, true, axis, a.Out(0), a.Out(3), a.Out(2));
}

Status SortV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const int64_t axis = a.Integer(a.Attr("axis", int64_t{-1}));
  const bool descending = a.Flag(a.Attr("descending", false));
  aclTensor* indices = a.TemporaryLike(a.In(0), DType::kInt64);
  RETURN_IF_ERROR(a.status());
  return aclnn::Sort(call, a.In(0), false, axis, descending, a.Out(0), indices);
}

Status RepeatInterleave(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const int64_t axis = a.Integer(a.Attr("axis", kAllDims));
  RETURN_IF_ERROR(a.status());
  const aclTensor* repeats = a.As(a.In(1), DType::kInt64);
  RETURN_IF_ERROR(a.status());
  if (axis == kAllDims)
    return aclnn::RepeatInterleave(call, a.In(0), repeats, a.Out(0)->view.numel(), a.Out(0));
  int dim = 0;
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "x", 1, kMaxRank));
  RETURN_IF_ERROR(call.WrapDim(axis, a.In(0)->view.rank, "axis", &dim));
  RETURN_IF_ERROR(call.RequireRank(a.Out(0), "y", a.In(0)->view.rank, a.In(0)->view.rank));
  return aclnn::RepeatInterleaveWithDim(call, a.In(0), repeats, axis, a.Out(0)->view.dims[dim], a.Out(0));
}

// weight, indices, offsets, per_sample_weights -> y, offset2bag, bag_size, max_indices.
Status EmbeddingBag(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 4));
  const int64_t mode = a.Integer(a.Index(a.Attr("mode", "mean"), {"sum", "mean", "max"}));
  const bool by_frequency = a.Flag(a.Attr("scale_grad_by_freq", false)),
             sparse = a.Flag(a.Attr("sparse", false)), last = a.Flag(a.Attr("include_last_offset", false));
  const int64_t padding = a.Integer(a.Attr("padding_idx", int64_t{-1}));
  RETURN_IF_ERROR(a.status());
  return aclnn::EmbeddingBag(call, a.In(0), a.In(1), a.In(2), by_frequency, mode, sparse, a.In(3), last,
                             padding, a.Out(0), a.Out(1), a.Out(2), a.Out(3));
}

namespace {

// A scalar is a vector of one element. torch_npu's results have the elements, not always the shape.
Status GatherAlong(Call& call, Arguments& a, int64_t axis, int64_t batch) {
  const aclTensor *x = a.In(0)->view.rank == 0 ? a.Flat(a.In(0)) : a.In(0), *indices = a.In(1);
  int dim = 0;
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(call.WrapDim(axis, x->view.rank, "axis", &dim));
  aclTensor* y = a.Out(0);
  if (batch == 0) {
    std::vector<int64_t> dims(x->view.dims, x->view.dims + dim);
    dims.insert(dims.end(), indices->view.dims, indices->view.dims + indices->view.rank);
    dims.insert(dims.end(), x->view.dims + dim + 1, x->view.dims + x->view.rank);
    if (dims.size() > kMaxRank)
      return call.Invalid("the result would have {} dimensions, expected at most {}", dims.size(), kMaxRank);
    const TensorView full =
        TensorView::Contiguous(y->view.data, y->view.dtype, dims.data(), static_cast<int>(dims.size()));
    if (full.numel() == y->view.numel()) y = a.View(full);
  }
  RETURN_IF_ERROR(a.status());
  return aclnn::GatherV3(call, x, dim, indices, batch, 0, y);
}

}  // namespace

Status GatherV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const int64_t axis = a.Integer(a.Constant(2)), batch = a.Integer(a.Attr("batch_dims", int64_t{0}));
  RETURN_IF_ERROR(a.status());
  return GatherAlong(call, a, axis, batch);
}

Status GatherV2D(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const int64_t axis = a.Integer(a.Attr("axis"));
  RETURN_IF_ERROR(a.status());
  return GatherAlong(call, a, axis, 0);
}

// value[i] along the axis from start[i] to end[i].
Status MaskedFillRange(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "x", 1, kMaxRank));
  int axis = 0;
  RETURN_IF_ERROR(call.WrapDim(a.Integer(a.Attr("axis", int64_t{-1})), a.In(0)->view.rank, "axis", &axis));
  const Value start = a.Constant(1), end = a.Constant(2), value = a.Constant(3);
  aclTensor* y = a.Updated(a.Out(0), a.In(0));
  RETURN_IF_ERROR(a.status());
  const TensorView& x = y->view;
  const int rows_dim = x.rank - 2;
  const TensorView& s = a.In(1)->view;
  // start and end: [loops, rows], or [loops] when x is a vector.
  const int64_t rows = s.rank > 1 ? s.dims[1] : 1,
                loops = rows > 0 ? static_cast<int64_t>(start.size()) / rows : 0;
  if (end.size() != start.size() || value.size() != static_cast<size_t>(loops) ||
      (x.rank > 1 ? rows != x.dims[rows_dim] : rows != 1))
    return call.Invalid(
        "start has shape {}, end {} and value {}, expected [loops,rows], the same and [loops] for x {}",
        ShapeString(s), ShapeString(a.In(2)->view), ShapeString(a.In(3)->view), ShapeString(x));
  for (int64_t loop = 0; loop < loops; ++loop)
    for (int64_t row = 0; row < rows; ++row) {
      const size_t i = static_cast<size_t>(loop * rows + row);
      const int64_t n = x.dims[axis], first = std::clamp<int64_t>(start.Integer(i), 0, n),
                    last = std::clamp<int64_t>(end.Integer(i), first, n);
      if (first == last) continue;
      TensorView part = x.Narrow(axis, first, last - first);
      if (x.rank > 1 && axis != rows_dim) part = part.Narrow(rows_dim, row, 1);
      aclTensor* target = a.View(part);
      const aclScalar* fill = a.Scalar(value.Range(static_cast<size_t>(loop), 1));
      RETURN_IF_ERROR(a.status());
      RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::InplaceFillScalar(c, target, fill); }));
    }
  return call.Nothing();
}

}  // namespace anycann::aclop
