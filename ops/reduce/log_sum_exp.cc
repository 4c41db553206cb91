// The logarithm of a sum of exponentials, without overflow.
#include <cmath>

#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/reduce/block_sum.h"
#include "ops/reduce/extremum.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

template <class Sum>
struct ScaledSum {
  double max;
  Sum sum;  // of exp(x - max)

  // Both maxima are finite.
  void Add(const ScaledSum& later) {
    const double scale = std::exp(-std::abs(max - later.max));
    sum = max >= later.max ? sum + later.sum * scale : sum * scale + later.sum;
    max = std::max(max, later.max);
  }
};

template <class T>
struct LogSumExpFold {
  using In = T;
  using Acc = ScaledSum<double>;
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
  // Rows in blocks: the columns' maxima, then the exponentials of the distances from them.
  void Columns(Acc* acc, const T* x, int64_t ld, int64_t rows, int64_t cols, int64_t) const {
    constexpr int64_t kRows = 32, kStrip = 256;
    T max[kStrip], shift[kStrip], sum[kStrip];
    for (int64_t j0 = 0; j0 < cols; j0 += kStrip)
      for (int64_t i0 = 0; i0 < rows; i0 += kRows) {
        const int64_t m = std::min(kStrip, cols - j0), n = std::min(kRows, rows - i0);
        const T* base = x + i0 * ld + j0;
        for (int64_t j = 0; j < m; ++j) max[j] = base[j], sum[j] = 0;
        for (int64_t i = 1; i < n; ++i)
          for (int64_t j = 0; j < m; ++j) {
            const T y = base[i * ld + j];
            max[j] = Greater::Keeps(max[j], y) ? max[j] : y;
          }
        for (int64_t j = 0; j < m; ++j)
          shift[j] = std::abs(max[j]) <= std::numeric_limits<T>::max() ? max[j] : T(0);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < m; ++j) sum[j] += math::Exp(base[i * ld + j] - shift[j]);
        for (int64_t j = 0; j < m; ++j) Merge(acc[j0 + j], {max[j], sum[j]});
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
    acc.Add(later);
  }
  double Finish(const Acc& acc, int64_t) const {
    return std::isinf(acc.max) || acc.max != acc.max ? acc.max : acc.max + std::log(acc.sum);
  }
};

// Complex terms: the largest real part is taken out; an infinite one stays.
template <class T>
struct ComplexLogSumExpFold {
  using In = std::complex<T>;
  using Acc = ScaledSum<Complex128>;
  using Out = Complex128;
  Acc Init() const { return {-HUGE_VAL, 0}; }
  void Row(Acc& acc, const In* x, int64_t n, int64_t) const {
    for (int64_t i = 0; i < n; ++i) Merge(acc, {x[i].real(), std::exp(Complex128(0, x[i].imag()))});
  }
  void Merge(Acc& acc, const Acc& later) const {
    if (later.max == -HUGE_VAL) return;
    if (acc.max == -HUGE_VAL) {
      acc = later;
    } else if (!std::isfinite(acc.max) || !std::isfinite(later.max)) {
      // Beside an infinity finite terms vanish.
      if (std::isfinite(acc.max))
        acc = later;
      else if (!std::isfinite(later.max))
        acc = {acc.max + later.max, acc.sum + later.sum};
    } else {
      acc.Add(later);
    }
  }
  Out Finish(const Acc& acc, int64_t) const {
    return acc.max == -HUGE_VAL ? Out(acc.max, 0) : acc.max + std::log(acc.sum);
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
  if (!VisitCompute<kFloatingTypes>(read, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if constexpr (std::is_same_v<T, Complex64> || std::is_same_v<T, Complex128>)
          status = LaunchReduce(call, self, mask, {out}, ComplexLogSumExpFold<typename T::value_type>{}, 60);
        else
          status = LaunchReduce(call, self, mask, {out}, LogSumExpFold<T>{}, 20);
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace anycann
