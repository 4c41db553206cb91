// Sorting along a dimension, and the first k in order. Always stable.
#include "aclnn_ops.h"
#include "ops/reduce/line_operator.h"
#include "ops/reduce/operator.h"
#include "ops/sort/order.h"

namespace anycann {
namespace {

struct SortParams {
  bool descending;
  int64_t k;  // how many of the first ones are wanted
};

template <class T>
struct Sorting {
  using P = Packing<T>;
  using Packed = typename P::Packed;

  static void Line(void* const* out, const void* const* in, int64_t n, void* scratch, const void* params) {
    const auto& p = *static_cast<const SortParams*>(params);
    const T* x = static_cast<const T*>(in[0]);
    Packed* packed = static_cast<Packed*>(scratch);
    int64_t* index = static_cast<int64_t*>(out[0]);
    if (p.k != n || !SortNarrow(x, n, p.descending, static_cast<uint64_t*>(scratch), index)) {
      if (p.k == n) {
        for (int64_t i = 0; i < n; ++i) packed[i] = P::Pack(x[i], i, p.descending);
        SortPacked<T>(packed, packed + n, n);
      } else {
        SelectFirst(x, n, p.k, p.descending, packed);
      }
      for (int64_t i = 0; i < p.k; ++i) index[i] = P::Position(packed[i]);
    }
    if (out[1] == nullptr) return;
    // In place is legal: values are gathered into the scratch memory first.
    T* value = static_cast<T*>(out[1]);
    T* gathered = reinterpret_cast<T*>(packed);  // element i overwrites packed[i / 2] at most, already read
    for (int64_t i = 0; i < p.k; ++i) gathered[i] = x[index[i]];
    std::memcpy(value, gathered, static_cast<size_t>(p.k) * sizeof(T));
  }
  static void LineWithoutValues(void* const* out, const void* const* in, int64_t n, void* scratch,
                                const void* params) {
    void* both[] = {out[0], nullptr};
    Line(both, in, n, scratch, params);
  }
};

Status RequireIndices(const Call& call, const aclTensor* t, const char* name) {
  if (IsInteger(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected int64 or int32", name, Name(t->view.dtype));
}

// values may be nullptr.
Status FirstInOrder(Call& call, const aclTensor* self, int d, const SortParams& p, const aclTensor* values,
                    const aclTensor* indices) {
  if (indices->view.empty()) return call.Nothing();
  const int64_t n = self->view.rank == 0 ? 1 : self->view.dims[d];
  Status status;
  const bool known = VisitWide<kFloatTypes>(self->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using P = Packing<T>;
    if (n > P::kMaxLength) {
      status =
          call.Invalid("self has {} elements along dimension {}, expected at most {}", n, d, P::kMaxLength);
      return;
    }
    LineKernel k;
    k.outputs = values ? 2 : 1;
    k.in_types[0] = k.out_types[1] = kDTypeOf<T>;
    k.out_types[0] = DType::kInt64;
    k.line = values ? &Sorting<T>::Line : &Sorting<T>::LineWithoutValues;
    k.scratch_bytes =
        static_cast<int64_t>(sizeof(typename P::Packed)) * (p.k == n ? 2 * n : SelectRoom(n, p.k));
    k.cost = p.k == n ? 200 : 20;
    status = values ? LaunchLines(call, {Out(indices), Out(values), In(self)}, d, k, p, 10)
                    : LaunchLines(call, {Out(indices), In(self)}, d, k, p, 10);
  });
  return known ? status : Unsupported(call, self->view.dtype);
}

Status SortAll(Call& call, const aclTensor* self, int64_t dim, bool descending, const aclTensor* values,
               const aclTensor* indices, const char* indices_name) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(call.RequireSameShape(indices, indices_name, self, "self"));
  RETURN_IF_ERROR(RequireIndices(call, indices, indices_name));
  if (values) {
    RETURN_IF_ERROR(call.RequireSameShape(values, "valuesOut", self, "self"));
    RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, values, "valuesOut"));
  }
  return FirstInOrder(call, self, d, {descending, self->view.rank == 0 ? 1 : self->view.dims[d]}, values,
                      indices);
}

Status TopK(Call& call, const aclTensor* self, int64_t k, int64_t dim, bool largest, const aclTensor* values,
            const aclTensor* indices) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  const int64_t n = self->view.rank == 0 ? 1 : self->view.dims[d];
  if (k < 0 || k > n) return call.Invalid("k is {}, expected a value in [0,{}]", k, n);
  int64_t dims[kMaxRank];
  for (int i = 0; i < self->view.rank; ++i) dims[i] = i == d ? k : self->view.dims[i];
  RETURN_IF_ERROR(call.RequireShape(values, "valuesOut", dims, self->view.rank));
  RETURN_IF_ERROR(call.RequireShape(indices, "indicesOut", dims, self->view.rank));
  RETURN_IF_ERROR(RequireIndices(call, indices, "indicesOut"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, values, "valuesOut"));
  return FirstInOrder(call, self, d, {largest, k}, values, indices);
}

}  // namespace

Status aclnn::Sort(Call& call, const aclTensor* self, bool, int64_t dim, bool descending,
                   aclTensor* valuesOut, aclTensor* indicesOut) {
  return SortAll(call, self, dim, descending, valuesOut, indicesOut, "indicesOut");
}
Status aclnn::Argsort(Call& call, const aclTensor* self, int64_t dim, bool descending, aclTensor* out) {
  return SortAll(call, self, dim, descending, nullptr, out, "out");
}
Status aclnn::Topk(Call& call, const aclTensor* self, int64_t k, int64_t dim, bool largest, bool,
                   aclTensor* valuesOut, aclTensor* indicesOut) {
  return TopK(call, self, k, dim, largest, valuesOut, indicesOut);
}
Status aclnn::TopkV2(Call& call, const aclTensor* self, int64_t k, int64_t dim, bool largest, bool, int64_t,
                     aclTensor* valuesOut, aclTensor* indicesOut) {
  return TopK(call, self, k, dim, largest, valuesOut, indicesOut);
}

}  // namespace anycann
