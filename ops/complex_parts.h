// Complex tensors by their real and imaginary parts.
#pragma once

#include <algorithm>

#include "ops/handles.h"

namespace anycann {

// The type of the parts; kUndefined for types that aren't complex.
inline DType PartType(DType t) {
  switch (t) {
    case DType::kComplex128: return DType::kDouble;
    case DType::kComplex64: return DType::kFloat;
    case DType::kComplex32: return DType::kFloat16;
    default: return DType::kUndefined;
  }
}

// A complex tensor as a real one with a last dimension of real and imaginary parts, as torch.view_as_real;
// for phase one of an operator: the Plan holds the view by value.
class RealParts {
 public:
  explicit RealParts(const aclTensor* t) {
    const TensorView& v = t->view;
    if (v.rank == kMaxRank) return;
    int64_t dims[kMaxRank], strides[kMaxRank];
    std::copy_n(v.dims, v.rank, dims);
    std::transform(v.strides, v.strides + v.rank, strides, [](int64_t s) { return 2 * s; });
    dims[v.rank] = 2, strides[v.rank] = 1;
    const uint64_t rank = static_cast<uint64_t>(v.rank) + 1;
    parts_ = handles::CreateTensor(dims, rank, PartType(v.dtype), strides, 0, 2, dims, rank, v.data);
  }
  RealParts(const RealParts&) = delete;
  ~RealParts() {
    if (parts_ != nullptr) handles::Destroy(parts_);
  }
  // nullptr when memory is exhausted, or at the largest rank.
  aclTensor* get() const { return parts_; }

 private:
  aclTensor* parts_ = nullptr;
};

}  // namespace anycann
