// Variance and standard deviation, with or without the mean.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/reduce/block_sum.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

struct Moments {
  double count, mean, square;  // square: sum of squared distances from the mean
  double imaginary;            // of the mean, for complex values
};

// Chan's update: exact whatever the sizes of the two parts.
inline void Combine(Moments& a, const Moments& b) {
  if (b.count == 0) return;
  const double n = a.count + b.count, weight = b.count / n;
  const double delta = b.mean - a.mean, imaginary = b.imaginary - a.imaginary;
  a.mean += delta * weight;
  a.imaginary += imaginary * weight;
  a.square += b.square + (delta * delta + imaginary * imaginary) * a.count * weight;
  a.count = n;
}

constexpr int64_t kBlock = 1024;  // values whose mean is taken first: the second look finds them in the cache

// Sum of (x - mean)^2 and, in *rest, of (x - mean): what rounding the mean to T left.
template <class T>
inline double SquaresOfBlock(const T* x, int64_t n, T mean, double* rest) {
  using V = Lanes<T>;
  constexpr int64_t w = sizeof(V) / sizeof(T);
  V squares{}, more_squares{}, distances{}, more_distances{};
  int64_t i = 0;
  for (; i + 2 * w <= n; i += 2 * w) {
    const V a = LoadLanes<V>(x + i) - mean, b = LoadLanes<V>(x + i + w) - mean;
    squares += a * a;
    distances += a;
    more_squares += b * b;
    more_distances += b;
  }
  double sum = SumOfLanes<T>(squares + more_squares), left = SumOfLanes<T>(distances + more_distances);
  for (; i < n; ++i) {
    const T d = x[i] - mean;
    sum += d * d;
    left += d;
  }
  *rest = left;
  return sum;
}

template <class T>
struct MomentsFold {  // T: float, double, complex64, complex128
  using In = T;
  using Acc = Moments;
  double correction;

  Acc Init() const { return {0, 0, 0, 0}; }
  void Row(Acc& acc, const T* x, int64_t n, int64_t) const {
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t m = std::min(kBlock, n - begin);
      Combine(acc, OfBlock(x + begin, m));
    }
  }
  static Moments OfBlock(const T* x, int64_t n) {
    const auto count = static_cast<double>(n);
    if constexpr (std::is_floating_point_v<T>) {
      const T mean = static_cast<T>(SumOfValues(x, n) / count);
      double rest;
      const double square = SquaresOfBlock(x, n, mean, &rest);
      return {count, mean + rest / count, square - rest * rest / count, 0};
    } else {
      double real = 0, imaginary = 0, square = 0;
      for (int64_t i = 0; i < n; ++i) real += x[i].real(), imaginary += x[i].imag();
      real /= count;
      imaginary /= count;
      for (int64_t i = 0; i < n; ++i) {
        const double a = x[i].real() - real, b = x[i].imag() - imaginary;
        square += a * a + b * b;
      }
      return {count, real, square, imaginary};
    }
  }

  // Strips of columns, blocks of rows: the block's mean, then the distances from it.
  void Columns(Acc* acc, const T* x, int64_t ld, int64_t rows, int64_t cols, int64_t) const {
    constexpr int64_t kRows = 64, kStrip = 256;
    if constexpr (!std::is_floating_point_v<T>) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j)
          Combine(acc[j], {1, x[i * ld + j].real(), 0, x[i * ld + j].imag()});
    } else {
      T sum[kStrip], mean[kStrip], square[kStrip], rest[kStrip];
      for (int64_t j0 = 0; j0 < cols; j0 += kStrip)
        for (int64_t i0 = 0; i0 < rows; i0 += kRows) {
          const int64_t m = std::min(kStrip, cols - j0), n = std::min(kRows, rows - i0);
          const T* base = x + i0 * ld + j0;
          for (int64_t j = 0; j < m; ++j) sum[j] = square[j] = rest[j] = 0;
          for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < m; ++j) sum[j] += base[i * ld + j];
          const T count = static_cast<T>(n);
          for (int64_t j = 0; j < m; ++j) mean[j] = sum[j] / count;
          for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < m; ++j) {
              const T d = base[i * ld + j] - mean[j];
              square[j] += d * d;
              rest[j] += d;
            }
          for (int64_t j = 0; j < m; ++j) {
            const double left = rest[j], k = static_cast<double>(n);
            Combine(acc[j0 + j], {k, mean[j] + left / k, square[j] - left * left / k, 0});
          }
        }
    }
  }
  void Merge(Acc& acc, const Acc& later) const { Combine(acc, later); }
  double Variance(const Acc& acc, int64_t count) const {
    const double divisor = std::max(0.0, static_cast<double>(count) - correction);
    return (count == 0 ? std::nan("") : acc.square) / divisor;
  }
};

template <class T, bool root>
struct SpreadFold : MomentsFold<T> {
  using Out = double;
  double Finish(const Moments& acc, int64_t count) const {
    const double v = this->Variance(acc, count);
    return root ? std::sqrt(v) : v;
  }
};
template <class T, bool root>
struct SpreadAndMeanFold : MomentsFold<T> {
  using Out = double;
  using Out2 = std::conditional_t<std::is_floating_point_v<T>, double, Complex128>;
  void Finish(const Moments& acc, int64_t count, double* spread, Out2* mean) const {
    const double v = this->Variance(acc, count);
    *spread = root ? std::sqrt(v) : v;
    const double real = count == 0 ? std::nan("") : acc.mean;
    if constexpr (std::is_floating_point_v<T>)
      *mean = real;
    else
      *mean = {real, acc.imaginary};
  }
};

template <bool root>
Status Spread(Call& call, const aclTensor* self, const aclIntArray* dim, int64_t correction, bool keepdim,
              aclTensor* out, const char* name, aclTensor* mean) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dim, self->view.rank, "dim", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, name));
  if (mean) RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, mean, "meanOut"));
  RETURN_IF_ERROR(call.RequireCastable(DType::kFloat, out, name));
  if (mean) RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, mean, "meanOut"));
  const double c = static_cast<double>(correction);
  Status status;
  if (!VisitCompute<kFloatingTypes>(self->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        if (mean)
          status = LaunchReduce(call, self, mask, {out, mean}, SpreadAndMeanFold<T, root>{{c}}, 4);
        else
          status = LaunchReduce(call, self, mask, {out}, SpreadFold<T, root>{{c}}, 4);
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace

Status aclnn::Std(Call& call, const aclTensor* self, const aclIntArray* dim, int64_t correction, bool keepdim,
                  aclTensor* out) {
  return Spread<true>(call, self, dim, correction, keepdim, out, "out", nullptr);
}
Status aclnn::StdMeanCorrection(Call& call, const aclTensor* self, const aclIntArray* dim, int64_t correction,
                                bool keepdim, aclTensor* stdOut, aclTensor* meanOut) {
  return Spread<true>(call, self, dim, correction, keepdim, stdOut, "stdOut", meanOut);
}
Status aclnn::Var(Call& call, const aclTensor* self, const aclIntArray* dim, bool unbiased, bool keepdim,
                  aclTensor* out) {
  return Spread<false>(call, self, dim, unbiased ? 1 : 0, keepdim, out, "out", nullptr);
}
Status aclnn::VarCorrection(Call& call, const aclTensor* self, const aclIntArray* dim, int64_t correction,
                            bool keepdim, aclTensor* out) {
  return Spread<false>(call, self, dim, correction, keepdim, out, "out", nullptr);
}
Status aclnn::VarMean(Call& call, const aclTensor* self, const aclIntArray* dim, int64_t correction,
                      bool keepdim, aclTensor* varOut, aclTensor* meanOut) {
  return Spread<false>(call, self, dim, correction, keepdim, varOut, "varOut", meanOut);
}

}  // namespace anycann
