// The partial inverse of maximum pooling: values go to the places that pooling gave, zeros elsewhere.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/pooling/geometry.h"

namespace anycann {
namespace {

// planes of n values, and of m places.
struct Planes {
  int64_t count, n, m;
};

Status PlanesOf(Call& call, int dims, const aclTensor* values, const aclTensor* indices,
                const aclIntArray* size, const aclTensor* places, const char* places_name, Planes* p) {
  RETURN_IF_ERROR(call.RequireRank(values, "self", dims + 1, dims + 2));
  RETURN_IF_ERROR(call.RequireSameShape(indices, "indices", values, "self"));
  if (indices->view.dtype != DType::kInt64 && indices->view.dtype != DType::kInt32)
    return call.Invalid("indices has type {}, expected int64 or int32", Name(indices->view.dtype));
  if (size->size != static_cast<uint64_t>(dims))
    return call.Invalid("outputSize has {} values, expected {}", size->size, dims);
  const int lead = values->view.rank - dims;
  int64_t expected[kMaxRank];
  *p = {1, 1, 1};
  for (int i = 0; i < values->view.rank; ++i) {
    expected[i] = i < lead ? values->view.dims[i] : (*size)[i - lead];
    if (expected[i] < 0)
      return call.Invalid("outputSize is {}, expected values of at least 0", ShapeString(size->values, dims));
    int64_t& product = i < lead ? p->count : p->m;
    if (__builtin_mul_overflow(product, expected[i], &product))
      return call.Invalid("outputSize is {}, too large", ShapeString(size->values, dims));
    if (i >= lead) p->n *= values->view.dims[i];
  }
  return call.RequireShape(places, places_name, expected, values->view.rank);
}

// Copies element k of each plane to or from its place, by size. False when an index is outside.
template <class T>
bool Move(const Planes& p, const int64_t* indices, const T* from, T* to, bool scatter) {
  std::atomic<bool> inside{true};
  ParallelFor(p.count, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, p.n + p.m)),
              [&](int64_t b, int64_t e) {
                bool good = true;
                for (int64_t k = b; k < e; ++k) {
                  const int64_t* index = indices + k * p.n;
                  const T* source = from + k * (scatter ? p.n : p.m);
                  T* target = to + k * (scatter ? p.m : p.n);
                  if (scatter) std::memset(static_cast<void*>(target), 0, sizeof(T) * p.m);
                  for (int64_t i = 0; i < p.n; ++i) {
                    if (static_cast<uint64_t>(index[i]) >= static_cast<uint64_t>(p.m)) {
                      good = false;
                    } else if (scatter) {
                      target[index[i]] = source[i];
                    } else {
                      target[i] = source[index[i]];
                    }
                  }
                }
                if (!good) inside = false;
              });
  return inside;
}

Status Launch(Call& call, const Planes& p, const aclTensor* from, const aclTensor* indices,
              const aclTensor* to, bool scatter) {
  RETURN_IF_ERROR(call.RequireDType(to, "out", from->view.dtype));
  const int64_t size = SizeOf(from->view.dtype);
  if (size == 0 || size > 8) return call.Invalid("type {} is not supported", Name(from->view.dtype));
  if (to->view.empty()) return call.Nothing();
  const char* op = call.op();
  return call.Launch(
      {In(from), In(indices), Out(to)}, Cost{0, static_cast<double>(from->view.nbytes() + to->view.nbytes())},
      [op, p, size, scatter](const Run& t) -> Status {
        const DenseInput from(t[0]);
        const Values<int64_t> indices(t[1]);
        const DenseOutput to(t[2]);
        if (!from.ok() || !indices.ok() || !to.ok()) return ScratchFailed(op);
        const auto move = [&](auto x) {
          using T = decltype(x);
          return Move(p, indices.get(), from.view().ptr<const T>(), to.view().ptr<T>(), scatter);
        };
        const bool inside = size == 1   ? move(uint8_t{})
                            : size == 2 ? move(uint16_t{})
                            : size == 4 ? move(uint32_t{})
                                        : move(uint64_t{});
        to.Finish();
        if (inside) return Status();
        return Error(kParamInvalid,
                     "{}: an index is outside of [0,{}), the elements of a plane of the output", op, p.m);
      });
}

Status Unpool(Call& call, int dims, const aclTensor* self, const aclTensor* indices, const aclIntArray* size,
              const aclTensor* out) {
  Planes p;
  RETURN_IF_ERROR(PlanesOf(call, dims, self, indices, size, out, "out", &p));
  return Launch(call, p, self, indices, out, true);
}

Status UnpoolBackward(Call& call, int dims, const aclTensor* gradOutput, const aclTensor* self,
                      const aclTensor* indices, const aclIntArray* size, const aclTensor* out) {
  Planes p;
  RETURN_IF_ERROR(PlanesOf(call, dims, self, indices, size, gradOutput, "gradOutput", &p));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  return Launch(call, p, gradOutput, indices, out, false);
}

}  // namespace

Status aclnn::MaxUnpool2d(Call& call, const aclTensor* self, const aclTensor* indices,
                          const aclIntArray* outputSize, aclTensor* out) {
  return Unpool(call, 2, self, indices, outputSize, out);
}
Status aclnn::MaxUnpool2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                  const aclTensor* indices, const aclIntArray* outputSize, aclTensor* out) {
  return UnpoolBackward(call, 2, gradOutput, self, indices, outputSize, out);
}
// stride and padding only check outputSize in torch, which its caller did.
Status aclnn::MaxUnpool3d(Call& call, const aclTensor* self, const aclTensor* indices,
                          const aclIntArray* outputSize, const aclIntArray* stride,
                          const aclIntArray* padding, aclTensor* outRef) {
  (void)stride, (void)padding;
  return Unpool(call, 3, self, indices, outputSize, outRef);
}
Status aclnn::MaxUnpool3dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                  const aclTensor* indices, const aclIntArray* outputSize,
                                  const aclIntArray* stride, const aclIntArray* padding, aclTensor* out) {
  (void)stride, (void)padding;
  return UnpoolBackward(call, 3, gradOutput, self, indices, outputSize, out);
}

}  // namespace anycann
