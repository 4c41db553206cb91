// Advanced indexing: Index (self[i, :, j]) and IndexPutImpl (self[i, :, j] = values, or += values).
#include <algorithm>
#include <vector>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/convert.h"
#include "ops/indexing/nonzero.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"

namespace anycann {
namespace {

// One index tensor of the call: it stands for `dims` dimensions of self from `dim` on (a mask for all of its
// own).
struct Entry {
  int operand, dim, dims;
  bool mask;
};
using Entries = std::vector<Entry>;

// The result's shape: [outer][index][inner].
struct Layout {
  int64_t dims[kMaxRank];
  int rank = 0;
  SliceSpace space;
};

// An absent index is a null handle, or, as torch_npu passes it, an empty one-dimensional tensor.
bool Absent(const aclTensor* t) { return t == nullptr || (t->view.rank == 1 && t->view.dims[0] == 0); }

// The index tensors among `indices`; operands are numbered from `first`.
Status ReadEntries(Call& call, const TensorView& self, const aclTensorList* indices, int first,
                   Entries* entries, std::vector<Arg>* args) {
  int dim = 0;
  for (uint64_t i = 0; i < indices->size; ++i) {
    const aclTensor* t = indices->values[i];
    Entry e{first + static_cast<int>(args->size()), dim, 1, false};
    if (!Absent(t)) {
      e.mask = t->view.dtype == DType::kBool || t->view.dtype == DType::kUint8;
      if (!e.mask && !IsIndexType(t->view.dtype))
        return call.Invalid("indices[{}] has type {}, expected an integer or bool", i, Name(t->view.dtype));
      if (e.mask) e.dims = t->view.rank;
      if (e.dims == 0) return call.Invalid("indices[{}] is a mask without dimensions", i);
    }
    if (dim + e.dims > self.rank)
      return call.Invalid("indices stand for more dimensions than self has ({})", ShapeString(self));
    for (int d = 0; e.mask && d < e.dims; ++d)
      if (t->view.dims[d] != self.dims[dim + d])
        return call.Invalid(
            "indices[{}] is a mask of shape {}, expected the sizes of self {} from dimension {} on", i,
            ShapeString(t->view), ShapeString(self), dim);
    dim += e.dims;
    if (Absent(t)) continue;
    entries->push_back(e);
    args->push_back(In(t));
  }
  return Status();
}

// The result's layout, from the common shape of the index tensors. False when it has too many dimensions.
bool MakeLayout(const TensorView& self, const Entries& entries, const int64_t* index_dims, int index_rank,
                Layout* l) {
  bool indexed[kMaxRank] = {};
  int first = self.rank, last = -1, count = 0;
  for (const Entry& e : entries)
    for (int d = e.dim; d < e.dim + e.dims; ++d) {
      indexed[d] = true;
      first = std::min(first, d);
      last = std::max(last, d);
      ++count;
    }
  if (self.rank - count + index_rank > kMaxRank) return false;
  // Index tensors that stand side by side leave their dimensions in place; otherwise they come first.
  const int insert = last - first + 1 == count ? first : 0;
  bool inserted = false;
  const auto insert_index = [&] {
    for (int i = 0; i < index_rank; ++i) l->dims[l->rank++] = index_dims[i];
    inserted = true;
  };
  for (int d = 0; d < self.rank; ++d) {
    if (d == insert && !inserted) insert_index();
    if (indexed[d]) continue;
    l->dims[l->rank++] = self.dims[d];
    (inserted ? l->space.inner : l->space.outer).Add(self.dims[d], {self.strides[d]});
  }
  if (!inserted) insert_index();
  return true;
}

Status IndexShapeError(const char* op, const TensorView& a, const int64_t* dims, int rank) {
  return Error(kParamInvalid, "{}: index of shape {} can't be broadcast with {}", op, ShapeString(a),
               ShapeString(dims, rank));
}

// The index tensors expanded to their common shape. Masks become positions, kept in `memory`.
Status Operands(const Run& t, const TensorView& self, const Entries& entries,
                std::vector<Buffer<int64_t>>* memory, std::vector<IndexOperand>* operands, int64_t* dims,
                int* rank) {
  *rank = 0;
  for (const Entry& e : entries) {
    if (!e.mask) {
      operands->push_back({t[e.operand], e.dim, self.dims[e.dim], self.strides[e.dim]});
      continue;
    }
    int64_t count;
    Buffer<int64_t> linear = NonzeroPositions(t[e.operand], &count);
    for (int d = e.dim; d < e.dim + e.dims; ++d) {
      int64_t inside = 1;
      for (int k = d + 1; k < e.dim + e.dims; ++k) inside *= self.dims[k];
      Buffer<int64_t> coordinate = NewBuffer<int64_t>(count);
      for (int64_t i = 0; i < count; ++i) coordinate[i] = linear[i] / inside % self.dims[d];
      operands->push_back({TensorView::Contiguous(coordinate.get(), DType::kInt64, &count, 1), d,
                           self.dims[d], self.strides[d]});
      memory->push_back(std::move(coordinate));
    }
  }
  for (const IndexOperand& o : *operands)
    if (!BroadcastShapes(dims, rank, o.view.dims, o.view.rank))
      return IndexShapeError(t.plan().name, o.view, dims, *rank);
  for (IndexOperand& o : *operands) {
    const TensorView v = o.view;
    BroadcastTo(v, dims, *rank, &o.view);
  }
  return Status();
}

// What both operators compute from their indices before they move anything.
struct Resolved {
  Layout layout;
  std::vector<Buffer<int64_t>> memory;
  std::vector<IndexOperand> operands;
  int64_t count;
};
Status Resolve(const Run& t, const TensorView& self, const Entries& entries, Resolved* r) {
  int64_t dims[kMaxRank];
  int rank;
  RETURN_IF_ERROR(Operands(t, self, entries, &r->memory, &r->operands, dims, &rank));
  if (!MakeLayout(self, entries, dims, rank, &r->layout))
    return Error(kParamInvalid, "{}: the result has more than {} dimensions", t.plan().name, kMaxRank);
  r->count = 1;
  for (int i = 0; i < rank; ++i) r->count *= dims[i];
  return Status();
}

// The result's shape, when no mask makes it depend on data.
Status StaticLayout(Call& call, const TensorView& self, const Entries& entries, const std::vector<Arg>& args,
                    Layout* layout, bool* known) {
  int64_t dims[kMaxRank];
  int rank = 0;
  *known = false;
  for (const Entry& e : entries)
    if (e.mask) return Status();
  for (size_t i = 0; i < entries.size(); ++i) {
    const TensorView& v = args[i].view;
    if (!BroadcastShapes(dims, &rank, v.dims, v.rank)) return IndexShapeError(call.op(), v, dims, rank);
  }
  *known = MakeLayout(self, entries, dims, rank, layout);
  return *known ? Status() : call.Invalid("the result would have more than {} dimensions", kMaxRank);
}

Status Put(const Run& t, const Entries& entries, int self_operand, bool accumulate) {
  const TensorView& self = t[self_operand];
  const DType type = accumulate ? ComputeType(self.dtype) : self.dtype;
  Strided target(self, type, Dense::kUpdate);
  Resolved r;
  RETURN_IF_ERROR(Resolve(t, target.view(), entries, &r));
  Buffer<int64_t> positions;
  RETURN_IF_ERROR(ResolvePositions(t.plan().name, r.operands, true, &positions));
  const TensorView& values = t[self_operand + 1];
  TensorView expanded;
  if (!BroadcastTo(values, r.layout.dims, r.layout.rank, &expanded))
    return Error(kParamInvalid, "{}: values of shape {} can't be broadcast to the indexed shape {}",
                 t.plan().name, ShapeString(values), ShapeString(r.layout.dims, r.layout.rank));
  const bool constant = values.numel() == 1;
  const Dense dense(constant ? values : expanded, type, Dense::kRead);
  if (accumulate) {
    AccumulateSlices(target.view(), r.layout.space, positions.get(), r.count, dense.ptr<void>(), constant,
                     nullptr, nullptr);
  } else {
    PutSlices(target.view(), r.layout.space, positions.get(), r.count, dense.ptr<void>(), constant);
  }
  target.Commit();
  return Status();
}

}  // namespace

Status aclnn::Index(Call& call, const aclTensor* self, const aclTensorList* indices, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  Entries entries;
  std::vector<Arg> args;
  RETURN_IF_ERROR(ReadEntries(call, self->view, indices, 0, &entries, &args));
  if (entries.empty())
    return call.Invalid("indices holds no index, but out has shape {}", ShapeString(out->view));
  Layout layout;
  bool known;
  RETURN_IF_ERROR(StaticLayout(call, self->view, entries, args, &layout, &known));
  if (known) RETURN_IF_ERROR(call.RequireShape(out, "out", layout.dims, layout.rank));
  const int operand = static_cast<int>(args.size());
  args.push_back(In(self));
  args.push_back(Out(out));
  return call.Launch(std::span<const Arg>(args), Cost{0, 2.0 * static_cast<double>(out->view.nbytes())},
                     [operand, entries = std::move(entries)](const Run& t) -> Status {
                       const TensorView &self = t[operand], &out = t[operand + 1];
                       Resolved r;
                       RETURN_IF_ERROR(Resolve(t, self, entries, &r));
                       bool same = out.rank == r.layout.rank;
                       for (int i = 0; same && i < out.rank; ++i) same = out.dims[i] == r.layout.dims[i];
                       if (!same)
                         return Error(kParamInvalid, "{}: out has shape {}, but the indices select {}",
                                      t.plan().name, ShapeString(out),
                                      ShapeString(r.layout.dims, r.layout.rank));
                       Dense dense(out, self.dtype, Dense::kWrite);
                       RETURN_IF_ERROR(GatherIndexed(t.plan().name, self, r.layout.space, r.operands, true,
                                                     dense.ptr<void>()));
                       dense.Commit();
                       return Status();
                     });
}

Status aclnn::IndexPutImpl(Call& call, aclTensor* selfRef, const aclTensorList* indices,
                           const aclTensor* values, const bool accumulate, const bool) {
  if (selfRef->view.empty() || values->view.empty()) return call.Nothing();
  RETURN_IF_ERROR(call.RequireCastable(values->view.dtype, selfRef, "selfRef"));
  Entries entries;
  std::vector<Arg> args;
  RETURN_IF_ERROR(ReadEntries(call, selfRef->view, indices, 0, &entries, &args));
  if (entries.empty()) return call.Nothing();
  Layout layout;
  bool known;
  RETURN_IF_ERROR(StaticLayout(call, selfRef->view, entries, args, &layout, &known));
  TensorView expanded;
  if (known && !BroadcastTo(values->view, layout.dims, layout.rank, &expanded))
    return call.Invalid("values has shape {}, which can't be broadcast to the indexed shape {}",
                        ShapeString(values->view), ShapeString(layout.dims, layout.rank));
  const int operand = static_cast<int>(args.size());
  args.push_back(Out(selfRef));
  args.push_back(In(values));
  return call.Launch(std::span<const Arg>(args), Cost{0, 3.0 * static_cast<double>(values->view.nbytes())},
                     [operand, accumulate, entries = std::move(entries)](const Run& t) -> Status {
                       return Put(t, entries, operand, accumulate);
                     });
}

}  // namespace anycann
