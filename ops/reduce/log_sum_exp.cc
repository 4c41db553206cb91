// The logarithm of a sum of exponentials, without overflow.
#include <cmath>

#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/reduce/block_sum.h"
#include "ops/reduce/extremum.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

struct ScaledSum {
  double max, sum;  // of exp(x - max)
};

template <class T>
struct LogSumExpFold {
  using In = T;
  using Acc = ScaledSum;
  using Out = double;
  Acc Init() const { return {-HUGE_VAL, 0}; }
  void Row(Acc& acc, const T* x, int64_t n, int64_t) const {
    constexpr int64_t kBlock = 1024;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t m = std::min(kBlock, n - begin);
      const T max = ExtremumOf<Greater>(x + begin, m);
      const T shift = std::isinf(max) ? 0 : max;
      alignas(64) T block[kBlock];
      if (max != -std::numeric_limits<T>::infinity())
        for (int64_t i = begin; i < begin + m; ++i) block[i - begin] = math::Exp(x[i] - shift);
      Merge(acc, {max, max == -HUGE_VAL ? 0 : SumOfValues(block, m)});
    }
  }
  void Merge(Acc& acc, const Acc& later) const {
    if (later.max != later.max || acc.max != acc.max || std::isinf(later.max) || std::isinf(acc.max)) {
      if (later.max == -HUGE_VAL) return;
      if (acc.max == -HUGE_VAL)
        acc = later;
      else
        acc.max = acc.max + later.max;  // NaN or infinity: it is the result
      return;
    }
    const double max = std::max(acc.max, later.max);
    acc.sum = acc.sum * std::exp(acc.max - max) + later.sum * std::exp(later.max - max);
    acc.max = max;
  }
  double Finish(const Acc& acc, int64_t) const {
    return std::isinf(acc.max) || acc.max != acc.max ? acc.max : acc.max + std::log(acc.sum);
  }
};

}  // namespace

Status aclnn::LogSumExp(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepDim,
                        aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dim, self->view.rank, "dim", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepDim, out, "out"));
  const DType read = ToFloating(self->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(read, out, "out"));
  Status status;
  if (!VisitCompute<kFloatTypes>(read, [&](auto tag) {
        status = LaunchReduce(call, self, mask, {out}, LogSumExpFold<typename decltype(tag)::type>{}, 20);
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace anycann
