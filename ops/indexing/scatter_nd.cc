// Slices named by rows of coordinates: GatherNd, ScatterNd, ScatterNdUpdate; and the updates of a cache at
// one position per batch: InplaceScatterUpdate, ScatterList.
#include <algorithm>
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"

namespace anycann {
namespace {

// indices [.., k] name slices of a tensor's first k dimensions. Checks them, and that `slices` has the shape
// of what they name.
Status CheckRows(Call& call, const aclTensor* t, const aclTensor* indices, const aclTensor* slices,
                 const char* name) {
  const TensorView &v = t->view, &i = indices->view;
  if (!IsIndexType(i.dtype)) return call.Invalid("indices has type {}, expected an integer", Name(i.dtype));
  RETURN_IF_ERROR(call.RequireRank(indices, "indices", 1, kMaxRank));
  const int64_t k = i.dims[i.rank - 1];
  if (k < 1 || k > v.rank)
    return call.Invalid("indices has shape {}: rows of {} coordinates, expected 1 to {}", ShapeString(i), k,
                        v.rank);
  int64_t expected[2 * kMaxRank];
  int rank = 0;
  for (int d = 0; d + 1 < i.rank; ++d) expected[rank++] = i.dims[d];
  for (int d = static_cast<int>(k); d < v.rank; ++d) expected[rank++] = v.dims[d];
  return call.RequireShape(slices, name, expected, rank);
}

std::vector<IndexOperand> Operands(const TensorView& t, const TensorView& indices) {
  std::vector<IndexOperand> operands;
  for (int64_t k = 0; k < indices.dims[indices.rank - 1]; ++k) {
    const int d = static_cast<int>(k);
    operands.push_back({indices.Select(indices.rank - 1, k), d, t.dims[d], t.strides[d]});
  }
  return operands;
}

SliceSpace Inner(const TensorView& t, int64_t k) {
  SliceSpace space;
  for (int d = static_cast<int>(k); d < t.rank; ++d) space.inner.Add(t.dims[d], {t.strides[d]});
  return space;
}

// t: [data,] indices, updates, out.
Status PutRows(const Run& t, bool copy) {
  const TensorView &indices = t[copy ? 1 : 0], &updates = t[copy ? 2 : 1], &out = t[copy ? 3 : 2];
  if (copy) CopyUnlessSame(out, t[0]);
  if (indices.empty() || updates.empty()) return Status();
  Strided target(out, out.dtype, Dense::kUpdate);
  const Dense values(updates, out.dtype, Dense::kRead);
  const std::vector<IndexOperand> operands = Operands(target.view(), indices);
  Buffer<int64_t> positions;
  RETURN_IF_ERROR(ResolvePositions(t.plan().name, operands, true, &positions));
  PutSlices(target.view(), Inner(target.view(), indices.dims[indices.rank - 1]), positions.get(),
            operands[0].view.numel(), values.ptr<void>(), false);
  target.Commit();
  return Status();
}

Cost MoveCost(const aclTensor* t) { return {0, 2.0 * static_cast<double>(t->view.nbytes())}; }

// Copies `update` into `cache` along `axis` from position `at` on.
Status UpdateAt(const char* op, const TensorView& cache, const TensorView& update, int axis, int64_t at,
                int64_t entry) {
  const int64_t n = update.dims[axis], size = cache.dims[axis];
  if (at < 0 || at > size - n)
    return Error(kRuntimeError,
                 "{}: index {} at position {} is out of range for dimension {} of size {} ({} elements wide)",
                 op, at, entry, axis, size, n);
  CopyCast(cache.Narrow(axis, at, n), update);
  return Status();
}

Status CheckUpdate(Call& call, const TensorView& cache, const TensorView& updates, int axis,
                   const char* name) {
  bool fits = cache.rank == updates.rank;
  for (int d = 0; fits && d < cache.rank; ++d)
    fits = d == axis ? updates.dims[d] <= cache.dims[d] : updates.dims[d] == cache.dims[d];
  if (fits) return Status();
  return call.Invalid("updates has shape {}, expected that of {}, {}, or less in dimension {}",
                      ShapeString(updates), name, ShapeString(cache), axis);
}

}  // namespace

Status aclnn::GatherNd(Call& call, const aclTensor* self, const aclTensor* indices, bool negativeIndexSupport,
                       aclTensor* out) {
  RETURN_IF_ERROR(CheckRows(call, self, indices, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch(
      {In(self), In(indices), Out(out)}, MoveCost(out), [negativeIndexSupport](const Run& t) -> Status {
        Dense result(t[2], t[0].dtype, Dense::kWrite);
        RETURN_IF_ERROR(GatherIndexed(t.plan().name, t[0], Inner(t[0], t[1].dims[t[1].rank - 1]),
                                      Operands(t[0], t[1]), negativeIndexSupport, result.ptr<void>()));
        result.Commit();
        return Status();
      });
}

Status aclnn::ScatterNd(Call& call, const aclTensor* data, const aclTensor* indices, const aclTensor* updates,
                        aclTensor* out) {
  RETURN_IF_ERROR(CheckRows(call, data, indices, updates, "updates"));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", data, "data"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(data), In(indices), In(updates), Out(out)}, MoveCost(out),
                     [](const Run& t) -> Status { return PutRows(t, true); });
}

Status aclnn::ScatterNdUpdate(Call& call, aclTensor* varRef, const aclTensor* indices,
                              const aclTensor* updates) {
  RETURN_IF_ERROR(CheckRows(call, varRef, indices, updates, "updates"));
  if (updates->view.empty()) return call.Nothing();
  return call.Launch({In(indices), In(updates), Out(varRef)}, MoveCost(updates),
                     [](const Run& t) -> Status { return PutRows(t, false); });
}

// data[b, .., indices[b] + s, ..] = updates[b, .., s, ..] along `axis`; or with rows (b, position) in
// indices.
Status aclnn::InplaceScatterUpdate(Call& call, aclTensor* data, const aclTensor* indices,
                                   const aclTensor* updates, int64_t axis) {
  const TensorView &v = data->view, &i = indices->view, &u = updates->view;
  RETURN_IF_ERROR(call.RequireRank(data, "data", 2, kMaxRank));
  int d;
  RETURN_IF_ERROR(call.WrapDim(axis, v.rank, "axis", &d));
  if (d == 0) return call.Invalid("axis is {}: the first dimension is the batch", axis);
  if (!IsIndexType(i.dtype)) return call.Invalid("indices has type {}, expected an integer", Name(i.dtype));
  if (!(i.rank == 1 && u.rank > 0 && i.dims[0] == u.dims[0]) &&
      !(i.rank == 2 && i.dims[1] == 2 && u.rank > 0 && i.dims[0] == u.dims[0]))
    return call.Invalid("indices has shape {}, expected [n] or [n,2] for updates {}", ShapeString(i),
                        ShapeString(u));
  TensorView batch = v;
  batch.dims[0] = u.dims[0];
  RETURN_IF_ERROR(CheckUpdate(call, batch, u, d, "data"));
  if (i.rank == 1 && u.dims[0] > v.dims[0])
    return call.Invalid("updates has shape {}, more batches than data, {}", ShapeString(u), ShapeString(v));
  if (u.empty()) return call.Nothing();
  return call.Launch({In(indices), In(updates), Out(data)}, MoveCost(updates), [d](const Run& t) -> Status {
    const Dense index(t[0], DType::kInt64, Dense::kRead);
    const int64_t* values = index.ptr<const int64_t>();
    const bool rows = t[0].rank == 2;
    for (int64_t k = 0; k < t[1].dims[0]; ++k) {
      const int64_t b = rows ? values[2 * k] : k, at = rows ? values[2 * k + 1] : values[k];
      if (b < 0 || b >= t[2].dims[0])
        return Error(kRuntimeError, "{}: index {} at position {} is out of range for dimension 0 of size {}",
                     t.plan().name, b, 2 * k, t[2].dims[0]);
      RETURN_IF_ERROR(UpdateAt(t.plan().name, t[2].Select(0, b), t[1].Select(0, k), d - 1, at, k));
    }
    return Status();
  });
}

// The same with one cache tensor per batch: varRef[b] at indice[b], or at indice[b] = (position, length);
// batches that maskOptional names false stay.
Status aclnn::ScatterList(Call& call, aclTensorList* varRef, const aclTensor* indice,
                          const aclTensor* updates, const aclTensor* maskOptional, char* reduceOptional,
                          int64_t axis) {
  if (reduceOptional != nullptr && std::strcmp(reduceOptional, "update") != 0)
    return call.Invalid("reduceOptional is \"{}\", expected \"update\"", reduceOptional);
  const TensorView &i = indice->view, &u = updates->view;
  const int64_t batches = static_cast<int64_t>(varRef->size);
  RETURN_IF_ERROR(call.RequireRank(updates, "updates", 2, kMaxRank));
  if (u.dims[0] != batches)
    return call.Invalid("updates has shape {}, expected {} first, one for each tensor of varRef",
                        ShapeString(u), batches);
  if (!IsIndexType(i.dtype)) return call.Invalid("indice has type {}, expected an integer", Name(i.dtype));
  if (!(i.rank == 1 && i.dims[0] == batches) && !(i.rank == 2 && i.dims[0] == batches && i.dims[1] == 2))
    return call.Invalid("indice has shape {}, expected [{}] or [{},2]", ShapeString(i), batches, batches);
  if (maskOptional != nullptr && maskOptional->view.numel() != batches)
    return call.Invalid("maskOptional has shape {}, expected [{}]", ShapeString(maskOptional->view), batches);
  int d;
  RETURN_IF_ERROR(call.WrapDim(axis, u.rank, "axis", &d));
  if (d == 0) return call.Invalid("axis is {}: the first dimension is the batch", axis);
  std::vector<Arg> args = {In(indice), In(updates)};
  for (int64_t b = 0; b < batches; ++b) {
    const aclTensor* t = varRef->values[b];
    if (t == nullptr) return call.Error(kParamNullptr, "varRef[{}] is null", b);
    RETURN_IF_ERROR(CheckUpdate(call, t->view, u.Select(0, 0), d - 1, "varRef"));
    args.push_back(Out(t));
  }
  if (maskOptional != nullptr) args.push_back(In(maskOptional));
  if (u.empty()) return call.Nothing();
  return call.Launch(
      std::span<const Arg>(args), MoveCost(updates),
      [=, masked = maskOptional != nullptr](const Run& t) -> Status {
        const Dense index(t[0], DType::kInt64, Dense::kRead);
        const Dense mask(t[masked ? t.size() - 1 : 0], DType::kBool, Dense::kRead);
        const bool ranges = t[0].rank == 2;
        for (int64_t b = 0; b < batches; ++b) {
          if (masked && !mask.ptr<const bool>()[b]) continue;
          const int64_t at = index.ptr<const int64_t>()[ranges ? 2 * b : b];
          TensorView update = t[1].Select(0, b);
          if (ranges)
            update = update.Narrow(
                d - 1, 0, std::clamp<int64_t>(index.ptr<const int64_t>()[2 * b + 1], 0, update.dims[d - 1]));
          RETURN_IF_ERROR(UpdateAt(t.plan().name, t[static_cast<int>(2 + b)], update, d - 1, at, b));
        }
        return Status();
      });
}

Status aclnn::ScatterNdUpdateV2(Call& call, aclTensor* varRef, const aclTensor* indices,
                                const aclTensor* updates, const aclIntArray* strides) {
  const TensorView& v = varRef->view;
  if (strides->size != 0 &&
      (static_cast<int>(strides->size) != v.rank || !std::equal(strides->begin(), strides->end(), v.strides)))
    return call.Invalid("strides doesn't have those of varRef, {}", Describe(varRef));
  return ScatterNdUpdate(call, varRef, indices, updates);
}

}  // namespace anycann
