// All and any. Elements of other types are read as "is not zero", so NaN counts as true.
#include <cstring>

#include "aclnn_ops.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

template <bool all>
struct LogicalFold {
  using In = bool;
  using Acc = bool;
  using Out = bool;
  bool Init() const { return all; }
  void Row(bool& acc, const bool* x, int64_t n, int64_t) const {
    if (acc != all) return;
    if constexpr (all) {
      acc = std::memchr(x, 0, static_cast<size_t>(n)) == nullptr;
    } else {
      uint8_t any = 0;
      const auto* bytes = reinterpret_cast<const uint8_t*>(x);
      for (int64_t i = 0; i < n; ++i) any |= bytes[i];
      acc = any != 0;
    }
  }
  void Columns(bool* __restrict acc, const bool* __restrict x, int64_t ld, int64_t rows, int64_t cols,
               int64_t) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) acc[j] = all ? acc[j] & x[i * ld + j] : acc[j] | x[i * ld + j];
  }
  void Merge(bool& acc, const bool& later) const { acc = all ? acc && later : acc || later; }
  bool Finish(const bool& acc, int64_t) const { return acc; }
};

template <bool all>
Status Logical(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepdim, aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dim, self->view.rank, "dim", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, "out"));
  return LaunchReduce(call, self, mask, {out}, LogicalFold<all>{});
}

}  // namespace

Status aclnn::All(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepdim, aclTensor* out) {
  return Logical<true>(call, self, dim, keepdim, out);
}
Status aclnn::Any(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepdim, aclTensor* out) {
  return Logical<false>(call, self, dim, keepdim, out);
}

}  // namespace anycann
