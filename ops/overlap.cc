#include "ops/overlap.h"

#include <algorithm>

namespace anycann {
namespace {

// True when the elements fill their memory without gaps, in any order of dimensions.
bool WithoutGaps(const TensorView& v) {
  int order[kMaxRank];
  for (int i = 0; i < v.rank; ++i) order[i] = i;
  std::sort(order, order + v.rank, [&v](int a, int b) { return v.strides[a] < v.strides[b]; });
  int64_t expected = 1;
  for (int i = 0; i < v.rank; ++i) {
    const int d = order[i];
    if (v.dims[d] == 1) continue;
    if (v.strides[d] != expected) return false;
    expected *= v.dims[d];
  }
  return true;
}

}  // namespace

Status RequireApart(const Call& call, const aclTensor* out, const char* name, const aclTensor* in,
                    const char* in_name) {
  const TensorView &a = out->view, &b = in->view;
  if (a.empty() || b.empty() || !WithoutGaps(a) || !WithoutGaps(b)) return Status();
  if (a.bytes() + a.nbytes() <= b.bytes() || b.bytes() + b.nbytes() <= a.bytes()) return Status();
  return call.Invalid(
      "{} {} shares memory with {} {}, which is read while {} is written: give it memory of its own", name,
      ShapeString(a), in_name, ShapeString(b), name);
}

}  // namespace anycann
