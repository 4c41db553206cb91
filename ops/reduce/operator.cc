#include "ops/reduce/operator.h"

namespace anycann {

Status ReducedDims(const Call& call, const aclIntArray* dims, int rank, const char* name, uint32_t* mask) {
  *mask = 0;
  if (dims == nullptr || dims->size == 0) {
    *mask = AllDims(rank);
    return Status();
  }
  for (uint64_t i = 0; i < dims->size; ++i) {
    uint32_t one;
    RETURN_IF_ERROR(ReducedDim(call, (*dims)[i], rank, name, &one));
    if (*mask & one) return call.Invalid("{} names dimension {} twice", name, (*dims)[i]);
    *mask |= one;
  }
  return Status();
}

Status ReducedDim(const Call& call, int64_t dim, int rank, const char* name, uint32_t* mask) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, rank, name, &d));
  *mask = rank == 0 ? 0 : 1u << d;
  return Status();
}

Status RequireReducedShape(const Call& call, const aclTensor* self, uint32_t mask, bool keepdim,
                           const aclTensor* out, const char* name) {
  int64_t dims[kMaxRank];
  int rank = 0;
  for (int i = 0; i < self->view.rank; ++i) {
    if (!(mask >> i & 1))
      dims[rank++] = self->view.dims[i];
    else if (keepdim)
      dims[rank++] = 1;
  }
  // llama.cpp gives one element for a result without dimensions.
  if (rank == 0 && out->view.rank == 1 && out->view.dims[0] == 1) return Status();
  return call.RequireShape(out, name, dims, rank);
}

Status RequireValues(const Call& call, const aclTensor* self, uint32_t mask) {
  bool empty_result = false;
  for (int i = 0; i < self->view.rank; ++i) empty_result |= !(mask >> i & 1) && self->view.dims[i] == 0;
  if (empty_result || ReducedCount(self->view, mask) > 0) return Status();
  return call.Invalid("self has shape {}, expected at least one value along each reduced dimension",
                      ShapeString(self->view));
}

int64_t ReducedCount(const TensorView& v, uint32_t mask) {
  int64_t n = 1;
  for (int i = 0; i < v.rank; ++i)
    if (mask >> i & 1) n *= v.dims[i];
  return n;
}

}  // namespace anycann
