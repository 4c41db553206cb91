#include "ops/overlap.h"

namespace anycann {
namespace {

// True when the elements fill their memory without gaps, in any order of dimensions.
bool WithoutGaps(const TensorView& v) {
  bool seen[kMaxRank] = {};
  int64_t expected = 1;
  for (int n = 0; n < v.rank; ++n) {
    int next = 0;  // the dimension that goes on where the ones before end; of size 1 any does
    while (next < v.rank && (seen[next] || (v.dims[next] != 1 && v.strides[next] != expected))) ++next;
    if (next == v.rank) return false;
    seen[next] = true;
    expected *= v.dims[next];
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
