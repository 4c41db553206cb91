// Products.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

using arithmetic::Mul;

template <class T>
struct ProductFold {  // T: int64, double or complex128; the engine converts to it
  using In = T;
  using Acc = T;
  using Out = T;
  static constexpr bool kOrdered = false;
  T Init() const { return T(1); }
  void Row(T& acc, const T* x, int64_t n, int64_t) const {
    T lanes[8] = {T(1), T(1), T(1), T(1), T(1), T(1), T(1), T(1)};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
      for (int k = 0; k < 8; ++k) lanes[k] = Mul(lanes[k], x[i + k]);
    for (; i < n; ++i) acc = Mul(acc, x[i]);
    for (int k = 0; k < 8; k += 2) lanes[k] = Mul(lanes[k], lanes[k + 1]);
    acc = Mul(acc, Mul(Mul(lanes[0], lanes[2]), Mul(lanes[4], lanes[6])));
  }
  void Columns(T* __restrict acc, const T* __restrict x, int64_t ld, int64_t rows, int64_t cols,
               int64_t) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) acc[j] = Mul(acc[j], x[i * ld + j]);
  }
  void Merge(T& acc, const T& later) const { acc = Mul(acc, later); }
  T Finish(const T& acc, int64_t) const { return acc; }
};

Status Product(Call& call, const aclTensor* self, uint32_t mask, bool keepdim, DType dtype, aclTensor* out) {
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(dtype, out, "out"));
  if (IsComplex(dtype)) return LaunchReduce(call, self, mask, {out}, ProductFold<Complex128>{});
  if (IsFloating(dtype)) return LaunchReduce(call, self, mask, {out}, ProductFold<double>{});
  if (IsInteger(dtype) || dtype == DType::kBool)
    return LaunchReduce(call, self, mask, {out}, ProductFold<int64_t>{});
  return Unsupported(call, dtype);
}

}  // namespace

Status aclnn::Prod(Call& call, const aclTensor* self, aclDataType dtype, aclTensor* out) {
  return Product(call, self, AllDims(self->view.rank), false, static_cast<DType>(dtype), out);
}
Status aclnn::ProdDim(Call& call, const aclTensor* self, int64_t dim, bool keepDim, aclDataType dtype,
                      aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDim(call, dim, self->view.rank, "dim", &mask));
  return Product(call, self, mask, keepDim, static_cast<DType>(dtype), out);
}

}  // namespace anycann
