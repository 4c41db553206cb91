// Sums: of values, of values that aren't NaN, their mean, the logarithm of their sum, the trace.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/reduce/block_sum.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

template <class T, bool skip_nan = false>
struct SumFold {
  using In = T;
  using Acc = typename SumOf<T>::type;
  using Out = Acc;
  Acc Init() const { return Acc(0); }
  void Row(Acc& acc, const T* x, int64_t n, int64_t) const {
    if constexpr (std::is_floating_point_v<T>) {
      for (int64_t i = 0; i < n; i += kSumBlock)
        acc += SumBlock<T, skip_nan>(x + i, std::min(kSumBlock, n - i));
    } else {
      Acc sum(0);
      for (int64_t i = 0; i < n; ++i) sum = arithmetic::Add(sum, static_cast<Acc>(x[i]));
      acc = arithmetic::Add(acc, sum);
    }
  }
  void Columns(Acc* __restrict acc, const T* __restrict x, int64_t ld, int64_t rows, int64_t cols,
               int64_t) const {
    if constexpr (std::is_floating_point_v<T>) {
      alignas(64) T part[512];
      for (int64_t begin = 0; begin < rows; begin += 128) {
        const int64_t end = std::min(rows, begin + 128);
        int64_t i = begin;
        for (int64_t j = 0; j < cols; ++j) part[j] = 0;
        for (; i + 4 <= end; i += 4) {
          const T* __restrict a = x + i * ld, * __restrict b = a + ld, * __restrict c = b + ld, * __restrict d = c + ld;
          for (int64_t j = 0; j < cols; ++j)
            part[j] +=
                (Term<skip_nan>(a[j]) + Term<skip_nan>(b[j])) + (Term<skip_nan>(c[j]) + Term<skip_nan>(d[j]));
        }
        for (; i < end; ++i)
          for (int64_t j = 0; j < cols; ++j) part[j] += Term<skip_nan>(x[i * ld + j]);
        for (int64_t j = 0; j < cols; ++j) acc[j] += part[j];
      }
    } else {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < cols; ++j) acc[j] = arithmetic::Add(acc[j], static_cast<Acc>(x[i * ld + j]));
    }
  }
  void Merge(Acc& acc, const Acc& later) const { acc = arithmetic::Add(acc, later); }
  Out Finish(const Acc& acc, int64_t) const { return acc; }
};

template <class T>
struct MeanFold : SumFold<T> {
  using Acc = typename SumFold<T>::Acc;
  using Out = Acc;
  Out Finish(const Acc& acc, int64_t count) const {
    if constexpr (std::is_same_v<Acc, Complex128>)
      return acc / static_cast<double>(count);
    else
      return acc / static_cast<Acc>(count);
  }
};

template <class T>
struct LogSumFold : SumFold<T> {
  using Acc = typename SumFold<T>::Acc;
  using Out = Acc;
  Out Finish(const Acc& acc, int64_t) const { return std::log(acc); }
};

// What a sum of `self` asked for as `dtype` reads: self's own type where no information is lost, dtype where
// torch would convert first.
DType SumType(DType self, DType dtype) {
  if (IsComplex(dtype) || IsFloating(dtype))
    return WideType(IsInteger(self) || self == DType::kBool ? self : Promote(self, dtype));
  if (IsFloating(self) || IsComplex(self)) return DType::kInt64;
  return WideType(self);
}

template <template <class> class R>
Status LaunchSum(Call& call, const Arg& self, uint32_t mask, const aclTensor* out, DType read) {
  Status status;
  if (!VisitWide<kFloatingTypes>(read, [&](auto tag) {
        status = LaunchReduce(call, self, mask, {out}, R<typename decltype(tag)::type>{});
      }))
    return Unsupported(call, self.view.dtype);
  return status;
}
template <class T>
using PlainSum = SumFold<T>;

Status RequireFloating(const Call& call, DType dtype, const char* name) {
  if (IsFloating(dtype) || IsComplex(dtype)) return Status();
  return call.Invalid("{} is {}, expected a floating or complex type", name, Name(dtype));
}

Status MeanOver(Call& call, const aclTensor* self, uint32_t mask, bool keepdim, DType dtype,
                const aclTensor* out) {
  RETURN_IF_ERROR(RequireFloating(call, dtype, "dtype"));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(dtype, out, "out"));
  const DType self_type = self->view.dtype;
  const DType read = ComputeType(
      Promote(IsInteger(self_type) || self_type == DType::kBool ? DType::kBool : self_type, dtype));
  return LaunchSum<MeanFold>(call, In(self), mask, out, read);
}

}  // namespace

Status aclnn::ReduceSum(Call& call, const aclTensor* self, const aclIntArray* dims, bool keepDims,
                        aclDataType dtype, aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dims, self->view.rank, "dims", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepDims, out, "out"));
  const DType to = static_cast<DType>(dtype);
  RETURN_IF_ERROR(call.RequireCastable(to, out, "out"));
  return LaunchSum<PlainSum>(call, In(self), mask, out, SumType(self->view.dtype, to));
}

Status aclnn::ReduceNansum(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepDim,
                           aclDataType dtype, aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dim, self->view.rank, "dim", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepDim, out, "out"));
  const DType to = static_cast<DType>(dtype), read = SumType(self->view.dtype, to);
  RETURN_IF_ERROR(call.RequireCastable(to, out, "out"));
  if (read == DType::kFloat) return LaunchReduce(call, self, mask, {out}, SumFold<float, true>{});
  if (read == DType::kDouble) return LaunchReduce(call, self, mask, {out}, SumFold<double, true>{});
  if (IsComplex(read)) return Unsupported(call, self->view.dtype);
  return LaunchSum<PlainSum>(call, In(self), mask, out, read);
}

Status aclnn::Mean(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepDim, aclDataType dtype,
                   aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dim, self->view.rank, "dim", &mask));
  return MeanOver(call, self, mask, keepDim, static_cast<DType>(dtype), out);
}
Status aclnn::MeanV2(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepDim,
                     bool noopWithEmptyAxes, aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dim, self->view.rank, "dim", &mask));
  if (noopWithEmptyAxes && dim->size == 0) mask = 0;
  return MeanOver(call, self, mask, keepDim, out->view.dtype, out);
}

Status aclnn::ReduceLogSum(Call& call, const aclTensor* data, const aclIntArray* axes, bool keepDims,
                           bool noopWithEmptyAxes, aclTensor* reduce) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, axes, data->view.rank, "axes", &mask));
  if (noopWithEmptyAxes && axes->size == 0) mask = 0;
  RETURN_IF_ERROR(RequireReducedShape(call, data, mask, keepDims, reduce, "reduce"));
  const DType read = ToFloating(data->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(read, reduce, "reduce"));
  Status status;
  if (!VisitCompute<kFloatTypes>(read, [&](auto tag) {
        status = LaunchReduce(call, data, mask, {reduce}, LogSumFold<typename decltype(tag)::type>{});
      }))
    return Unsupported(call, data->view.dtype);
  return status;
}

Status aclnn::Trace(Call& call, const aclTensor* self, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, 2));
  RETURN_IF_ERROR(call.RequireShape(out, "out", nullptr, 0));
  TensorView diagonal = self->view;
  diagonal.rank = 1;
  diagonal.dims[0] = std::min(self->view.dims[0], self->view.dims[1]);
  diagonal.strides[0] = self->view.strides[0] + self->view.strides[1];
  return LaunchSum<PlainSum>(call, In(self, diagonal), 1, out, SumType(self->view.dtype, out->view.dtype));
}

}  // namespace anycann
