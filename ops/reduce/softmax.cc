// Softmax and its logarithm along a dimension, forward and backward. A line is read from memory once; the
// maximum, the exponentials and the scaling are passes over the first- and second-level cache.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/elementwise/map.h"
#include "ops/reduce/exp_sum.h"
#include "ops/reduce/extremum.h"
#include "ops/reduce/line_operator.h"

namespace anycann {
namespace {

template <class T, bool log>
struct Forward {
  static void Line(void* const* out, const void* const* in, int64_t n, void*, const void*) {
    const T* x = static_cast<const T*>(in[0]);
    T* y = static_cast<T*>(out[0]);
    const T max = ExtremumOf<Greater>(x, n);
    if constexpr (log) {
      const T shift = static_cast<T>(std::log(SumOfExp(x, n, max)));
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - max) - shift;
    } else {
      const T scale = static_cast<T>(1 / ExpAndSum(y, x, n, max));
      for (int64_t i = 0; i < n; ++i) y[i] *= scale;
    }
  }
  static void Columns(void* const* out, const int64_t* out_ld, const void* const* in, const int64_t* in_ld,
                      int64_t n, int64_t cols, void* scratch, const void*) {
    const T* x = static_cast<const T*>(in[0]);
    T* y = static_cast<T*>(out[0]);
    const int64_t xl = in_ld[0], yl = out_ld[0];
    T* __restrict max = static_cast<T*>(scratch), * __restrict sum = max + cols;
    for (int64_t j = 0; j < cols; ++j) max[j] = x[j], sum[j] = 0;
    for (int64_t i = 1; i < n; ++i)
      for (int64_t j = 0; j < cols; ++j)
        max[j] = Greater::Keeps(max[j], x[i * xl + j]) ? max[j] : x[i * xl + j];
    for (int64_t i = 0; i < n; ++i) {
      const T* a = x + i * xl;
      T* b = y + i * yl;
#pragma GCC ivdep
      for (int64_t j = 0; j < cols; ++j) {
        const T e = math::Exp(a[j] - max[j]);
        sum[j] += e;
        if (!log) b[j] = e;
      }
    }
    for (int64_t j = 0; j < cols; ++j) sum[j] = log ? std::log(sum[j]) : 1 / sum[j];
    for (int64_t i = 0; i < n; ++i) {
      const T* a = x + i * xl;
      T* b = y + i * yl;
#pragma GCC ivdep
      for (int64_t j = 0; j < cols; ++j) b[j] = log ? (a[j] - max[j]) - sum[j] : b[j] * sum[j];
    }
  }
};

// Softmax: dx = (dy - sum(dy * y)) * y; logarithm: dx = dy - exp(y) * sum(dy).
template <class T, bool log>
struct Backward {
  static T One(T dy, T y, T sum) {
    if constexpr (log)
      return dy - math::Exp(y) * sum;
    else
      return (dy - sum) * y;
  }
  static void Line(void* const* out, const void* const* in, int64_t n, void*, const void*) {
    const T *dy = static_cast<const T*>(in[0]), *y = static_cast<const T*>(in[1]);
    T* dx = static_cast<T*>(out[0]);
    const T sum = static_cast<T>(log ? SumOfValues(dy, n) : DotOfValues(dy, y, n));
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) dx[i] = One(dy[i], y[i], sum);
  }
  static void Columns(void* const* out, const int64_t* out_ld, const void* const* in, const int64_t* in_ld,
                      int64_t n, int64_t cols, void* scratch, const void*) {
    const T *dy = static_cast<const T*>(in[0]), *y = static_cast<const T*>(in[1]);
    T* dx = static_cast<T*>(out[0]);
    T* __restrict sum = static_cast<T*>(scratch);
    for (int64_t j = 0; j < cols; ++j) sum[j] = 0;
    for (int64_t i = 0; i < n; ++i) {
      const T *a = dy + i * in_ld[0], *b = y + i * in_ld[1];
      for (int64_t j = 0; j < cols; ++j) sum[j] += log ? a[j] : a[j] * b[j];
    }
    for (int64_t i = 0; i < n; ++i) {
      const T *a = dy + i * in_ld[0], *b = y + i * in_ld[1];
      T* c = dx + i * out_ld[0];
#pragma GCC ivdep
      for (int64_t j = 0; j < cols; ++j) c[j] = One(a[j], b[j], sum[j]);
    }
  }
};

template <class Loops, class T>
LineKernel KernelOf(int inputs) {
  LineKernel k;
  k.inputs = inputs;
  for (int i = 0; i < inputs; ++i) k.in_types[i] = kDTypeOf<T>;
  k.out_types[0] = kDTypeOf<T>;
  k.line = &Loops::Line;
  k.columns = &Loops::Columns;
  k.column_scratch_bytes = 2 * sizeof(T);
  k.cost = 4;
  return k;
}

template <bool log>
Status Softmax(Call& call, const aclTensor* self, int64_t dim, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  Status status;
  const DType compute = Promote(self->view.dtype, out->view.dtype);
  if (!IsFloating(self->view.dtype) || !VisitCompute<kFloatTypes>(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = LaunchLines(call, {Out(out), In(self)}, d, KernelOf<Forward<T, log>, T>(1), 0, 10);
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

template <bool log>
Status SoftmaxBackward(Call& call, const aclTensor* dy, const aclTensor* y, int64_t dim, aclTensor* dx) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, y->view.rank, "dim", &d));
  RETURN_IF_ERROR(call.RequireSameShape(dy, "gradOutput", y, "output"));
  RETURN_IF_ERROR(call.RequireSameShape(dx, "out", y, "output"));
  RETURN_IF_ERROR(call.RequireCastable(y->view.dtype, dx, "out"));
  if (dx->view.empty()) return call.Nothing();
  Status status;
  const DType compute = Promote(dy->view.dtype, y->view.dtype);
  if (!VisitCompute<kFloatTypes>(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = LaunchLines(call, {Out(dx), In(dy), In(y)}, d, KernelOf<Backward<T, log>, T>(2), 0, 5);
      }))
    return Unsupported(call, compute);
  return status;
}

}  // namespace

Status aclnn::Softmax(Call& call, const aclTensor* self, int64_t dim, aclTensor* out) {
  return ::anycann::Softmax<false>(call, self, dim, out);
}
Status aclnn::LogSoftmax(Call& call, const aclTensor* self, int64_t dim, aclTensor* out) {
  return ::anycann::Softmax<true>(call, self, dim, out);
}
Status aclnn::SoftmaxBackward(Call& call, const aclTensor* gradOutput, const aclTensor* output, int64_t dim,
                              aclTensor* out) {
  return ::anycann::SoftmaxBackward<false>(call, gradOutput, output, dim, out);
}
Status aclnn::LogSoftmaxBackward(Call& call, const aclTensor* gradOutput, const aclTensor* output,
                                 int64_t dim, aclTensor* out) {
  return ::anycann::SoftmaxBackward<true>(call, gradOutput, output, dim, out);
}

}  // namespace anycann
