// Maximum and minimum, alone and together.
#include "ops/reduce/extremum.h"

#include "aclnn_ops.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

template <class T, class Order>
struct ExtremumFold {
  using In = T;
  using Acc = T;
  using Out = T;
  T Init() const { return Order::template Worst<T>(); }
  void Row(T& acc, const T* x, int64_t n, int64_t) const {
    const T best = ExtremumOf<Order>(x, n);
    acc = Order::Keeps(acc, best) ? acc : best;
  }
  void Columns(T* __restrict acc, const T* __restrict x, int64_t ld, int64_t rows, int64_t cols,
               int64_t) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        const T y = x[i * ld + j], a = acc[j];
        acc[j] = Order::Keeps(a, y) ? a : y;
      }
  }
  void Merge(T& acc, const T& later) const { acc = Order::Keeps(acc, later) ? acc : later; }
  T Finish(const T& acc, int64_t) const { return acc; }
};

template <class T>
struct BothFold {  // minimum and maximum in one pass
  using In = T;
  struct Acc {
    T least, greatest;
  };
  using Out = T;
  using Out2 = T;
  ExtremumFold<T, Less> least;
  ExtremumFold<T, Greater> greatest;
  Acc Init() const { return {least.Init(), greatest.Init()}; }
  void Row(Acc& acc, const T* x, int64_t n, int64_t) const {
    constexpr int64_t kBlock = 4096;  // the second look finds it in the first-level cache
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t m = std::min(kBlock, n - i);
      least.Row(acc.least, x + i, m, 0);
      greatest.Row(acc.greatest, x + i, m, 0);
    }
  }
  void Merge(Acc& acc, const Acc& later) const {
    least.Merge(acc.least, later.least);
    greatest.Merge(acc.greatest, later.greatest);
  }
  void Finish(const Acc& acc, int64_t, T* a, T* b) const {
    *a = acc.least;
    *b = acc.greatest;
  }
};

template <class Order>
Status Extremum(Call& call, const aclTensor* self, uint32_t mask, bool keepdim, aclTensor* out) {
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, "out"));
  RETURN_IF_ERROR(RequireValues(call, self, mask));
  RETURN_IF_ERROR(call.RequireDType(out, "out", self->view.dtype));
  Status status;
  if (!VisitWide<kFloatTypes>(self->view.dtype, [&](auto tag) {
        status = LaunchReduce(call, self, mask, {out}, ExtremumFold<typename decltype(tag)::type, Order>{});
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

template <class Order>
Status ExtremumDims(Call& call, const aclTensor* self, const aclIntArray* dims, bool keepdim,
                    aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dims, self->view.rank, "dim", &mask));
  return Extremum<Order>(call, self, mask, keepdim, out);
}

Status MinMax(Call& call, const aclTensor* self, uint32_t mask, bool keepdim, aclTensor* min_out,
              aclTensor* max_out) {
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, min_out, "minOut"));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, max_out, "maxOut"));
  RETURN_IF_ERROR(RequireValues(call, self, mask));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, min_out, "minOut"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, max_out, "maxOut"));
  Status status;
  if (!VisitWide<kFloatTypes>(self->view.dtype, [&](auto tag) {
        status = LaunchReduce(call, self, mask, {min_out, max_out}, BothFold<typename decltype(tag)::type>{});
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace

Status aclnn::Amax(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepDim, aclTensor* out) {
  return ExtremumDims<Greater>(call, self, dim, keepDim, out);
}
Status aclnn::Amin(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepDim, aclTensor* out) {
  return ExtremumDims<Less>(call, self, dim, keepDim, out);
}
Status aclnn::Max(Call& call, const aclTensor* self, aclTensor* out) {
  return Extremum<Greater>(call, self, AllDims(self->view.rank), false, out);
}
Status aclnn::Min(Call& call, const aclTensor* self, aclTensor* out) {
  return Extremum<Less>(call, self, AllDims(self->view.rank), false, out);
}
Status aclnn::MaxV2(Call& call, const aclTensor* self, const aclIntArray* dims, bool keepDims,
                    bool noopWithEmptyDims, aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dims, self->view.rank, "dims", &mask));
  if (noopWithEmptyDims && dims->size == 0) mask = 0;
  return Extremum<Greater>(call, self, mask, keepDims, out);
}

Status aclnn::Aminmax(Call& call, const aclTensor* self, const aclIntArray* dim, bool keepDim,
                      aclTensor* minOut, aclTensor* maxOut) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dim, self->view.rank, "dim", &mask));
  return MinMax(call, self, mask, keepDim, minOut, maxOut);
}
Status aclnn::AminmaxAll(Call& call, const aclTensor* self, aclTensor* minOut, aclTensor* maxOut) {
  return MinMax(call, self, AllDims(self->view.rank), false, minOut, maxOut);
}
Status aclnn::AminmaxDim(Call& call, const aclTensor* self, int64_t dim, bool keepDim, aclTensor* minOut,
                         aclTensor* maxOut) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDim(call, dim, self->view.rank, "dim", &mask));
  return MinMax(call, self, mask, keepDim, minOut, maxOut);
}

}  // namespace anycann
