// Sparse tensors in coordinates: CoalesceSparse.
#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"

namespace anycann {

// Entry i belongs to the unique coordinate uniqueIndices[i]: its values are added there, its coordinates
// copied there. Coordinates are rows of `indices` ([entries, dims]), or columns ([dims, entries]), in both
// tensors alike.
Status aclnn::CoalesceSparse(Call& call, const aclTensor* uniqueLen, const aclTensor* uniqueIndices,
                             const aclTensor* indices, const aclTensor* values,
                             const aclTensor* newIndicesOut, const aclTensor* newValuesOut) {
  const TensorView &i = indices->view, &v = values->view, &out = newIndicesOut->view;
  for (const aclTensor* t : {uniqueLen, uniqueIndices, indices, newIndicesOut})
    if (!IsIndexType(t->view.dtype))
      return call.Invalid("an index tensor has type {}, expected an integer", Name(t->view.dtype));
  RETURN_IF_ERROR(call.RequireRank(indices, "indices", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(newIndicesOut, "newIndicesOut", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(values, "values", 1, kMaxRank));
  const int64_t entries = v.dims[0];
  if (uniqueIndices->view.numel() != entries)
    return call.Invalid("uniqueIndices has {} elements, expected {}, one for each entry of values",
                        uniqueIndices->view.numel(), entries);
  TensorView expected = v;
  expected.dims[0] = newValuesOut->view.rank > 0 ? newValuesOut->view.dims[0] : 0;
  RETURN_IF_ERROR(call.RequireShape(newValuesOut, "newValuesOut", expected.dims, expected.rank));
  const int64_t unique = expected.dims[0];
  const auto fits = [&](int e) {
    return i.dims[e] == entries && out.dims[e] == unique && i.dims[1 - e] == out.dims[1 - e];
  };
  if (!fits(0) && !fits(1))
    return call.Invalid("indices {} and newIndicesOut {} don't fit {} entries and {} unique ones",
                        ShapeString(i), ShapeString(out), entries, unique);
  const int entry_dim = fits(0) ? 0 : 1;
  if (unique == 0) return call.Nothing();
  const DType compute = ComputeType(v.dtype);
  return call.Launch({In(uniqueIndices), In(indices), In(values), Out(newIndicesOut), Out(newValuesOut)},
                     Cost{static_cast<double>(v.numel()), 3.0 * static_cast<double>(v.nbytes())},
                     [=](const Run& t) -> Status {
                       const unsigned char zero[16] = {};
                       Strided sums(t[4], compute, Dense::kWrite),
                           coordinates(t[3], t[3].dtype, Dense::kUpdate);
                       Fill(sums.view(), zero);
                       Fill(coordinates.view(), zero);
                       const Dense addends(t[2], compute, Dense::kRead), rows(t[1], t[3].dtype, Dense::kRead);
                       Buffer<int64_t> unique;
                       RETURN_IF_ERROR(ResolveIndices(t.plan().name, t[0], 0, t[4].dims[0], false, &unique));
                       const auto scaled = [&](int64_t stride) {
                         Buffer<int64_t> positions = NewBuffer<int64_t>(entries);
                         for (int64_t k = 0; k < entries; ++k) positions[k] = unique[k] * stride;
                         return positions;
                       };
                       const Buffer<int64_t> to_value = scaled(sums.view().strides[0]);
                       const Buffer<int64_t> to_row = scaled(coordinates.view().strides[entry_dim]);
                       AccumulateSlices(sums.view(), SliceSpace::Along(sums.view(), 0), to_value.get(),
                                        entries, addends.ptr<void>(), false, nullptr, nullptr);
                       PutSlices(coordinates.view(), SliceSpace::Along(coordinates.view(), entry_dim),
                                 to_row.get(), entries, rows.ptr<void>(), false);
                       sums.Commit();
                       coordinates.Commit();
                       return Status();
                     });
}

}  // namespace anycann
