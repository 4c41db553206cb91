// Class positions: a tensor of class scores seen as one row of scores per target. Scores have shape [C],
// [N,C] or [N,C,d1,...], targets the same without C.
#pragma once

#include <atomic>

#include "ops/call.h"
#include "ops/convert.h"
#include "ops/operand.h"
#include "ops/walk.h"

namespace anycann {

inline int ClassDim(const TensorView& scores) { return scores.rank == 1 ? 0 : 1; }

// target has self's shape without the class dimension; weight, if any, one value per class.
Status CheckClasses(const Call& call, const aclTensor* self, const aclTensor* target,
                    const aclTensor* weight);

// Steps through the targets in row-major order; offset[0] is that of class 0's score.
inline Walk<1> WalkScores(const TensorView& scores) {
  Walk<1> walk;
  for (int i = 0; i < scores.rank; ++i)
    if (i != ClassDim(scores)) walk.Add(scores.dims[i], {scores.strides[i]});
  return walk;
}

// One element as T, whatever its storage type.
template <class T>
inline T LoadAs(const TensorView& v, int64_t offset) {
  if (v.dtype == kDTypeOf<T>) return v.ptr<T>()[offset];
  if (v.dtype == DType::kBFloat16) return static_cast<T>(v.ptr<BFloat16>()[offset]);
  if (v.dtype == DType::kFloat16) return static_cast<T>(v.ptr<Half>()[offset]);
  T value;
  Convert(&value, kDTypeOf<T>, v.bytes() + offset * SizeOf(v.dtype), v.dtype, 1);
  return value;
}
template <class T>
inline void StoreAs(const TensorView& v, int64_t offset, T value) {
  if (v.dtype == kDTypeOf<T>)
    v.ptr<T>()[offset] = value;
  else
    Convert(v.bytes() + offset * SizeOf(v.dtype), v.dtype, &value, kDTypeOf<T>, 1);
}

// The first position whose target names no class; written by several threads.
class BadTarget {
 public:
  void Set(int64_t position) {
    int64_t seen = first_.load(std::memory_order_relaxed);
    while (position < seen && !first_.compare_exchange_weak(seen, position, std::memory_order_relaxed)) {
    }
  }
  Status ToStatus(const char* op, const int64_t* targets, int64_t classes, int64_t ignored) const {
    const int64_t p = first_.load(std::memory_order_relaxed);
    if (p == kNone) return Status();
    return Error(kParamInvalid,
                 "{}: target is {} at position {}, expected a class in [0,{}) or ignoreIndex, {}", op,
                 targets[p], p, classes, ignored);
  }

 private:
  static constexpr int64_t kNone = INT64_MAX;
  std::atomic<int64_t> first_{kNone};
};

}  // namespace anycann
