// Where the maximum or minimum lies, with or without its value. Of equal values the first counts, NaN above
// all.
#include "aclnn_ops.h"
#include "ops/reduce/extremum.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

template <class T>
struct Located {
  T value;
  int64_t index;  // -1: nothing seen yet
};

template <class T, class Order>
struct LocatedFold {
  using In = T;
  using Acc = Located<T>;
  static constexpr bool kOrdered = true;

  Acc Init() const { return {Order::template Worst<T>(), -1}; }

  // The extremum of a block by vectors; its place is looked for only when it improves on what came before.
  void Row(Acc& acc, const T* x, int64_t n, int64_t first) const {
    constexpr int64_t kBlock = 2048;
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t m = std::min(kBlock, n - begin);
      const T best = ExtremumOf<Order>(x + begin, m);
      if (acc.index >= 0 && Order::Keeps(acc.value, best)) continue;
      int64_t i = begin;
      while (x[i] != best && !(best != best && x[i] != x[i])) ++i;
      acc = {best, first + i};
    }
  }

  void Columns(Acc* acc, const T* x, int64_t ld, int64_t rows, int64_t cols, int64_t first) const {
    using I = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
    constexpr int64_t kStrip = 128, kRows = 1 << 30;
    T value[kStrip];
    I index[kStrip];
    for (int64_t j0 = 0; j0 < cols; j0 += kStrip) {
      const int64_t m = std::min(kStrip, cols - j0);
      for (int64_t begin = 0; begin < rows; begin += kRows) {
        const int64_t n = std::min(kRows, rows - begin);
        const T* base = x + begin * ld + j0;
        Acc* a = acc + j0;
        const bool fresh = a[0].index < 0;
        for (int64_t j = 0; j < m; ++j) value[j] = fresh ? base[j] : a[j].value, index[j] = fresh ? 0 : -1;
        for (int64_t i = fresh ? 1 : 0; i < n; ++i) {
          const T* __restrict row = base + i * ld;
          for (int64_t j = 0; j < m; ++j) {
            const bool keep = Order::Keeps(value[j], row[j]);
            value[j] = keep ? value[j] : row[j];
            index[j] = keep ? index[j] : static_cast<I>(i);
          }
        }
        for (int64_t j = 0; j < m; ++j)
          if (index[j] >= 0) a[j] = {value[j], first + begin + index[j]};
      }
    }
  }
  void Merge(Acc& acc, const Acc& later) const {
    if (acc.index < 0 || (later.index >= 0 && !Order::Keeps(acc.value, later.value))) acc = later;
  }
};

template <class T, class Order>
struct IndexFold : LocatedFold<T, Order> {
  using Out = int64_t;
  Out Finish(const Located<T>& acc, int64_t) const { return acc.index; }
};
template <class T, class Order>
struct ValueAndIndexFold : LocatedFold<T, Order> {
  using Out = T;
  using Out2 = int64_t;
  void Finish(const Located<T>& acc, int64_t, T* value, int64_t* index) const {
    *value = acc.value;
    *index = acc.index;
  }
};

Status RequireIndexType(const Call& call, const aclTensor* t, const char* name) {
  if (IsInteger(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected int64 or int32", name, Name(t->view.dtype));
}

template <class Order>
Status IndexOnly(Call& call, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDim(call, dim, self->view.rank, "dim", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, "out"));
  RETURN_IF_ERROR(RequireValues(call, self, mask));
  RETURN_IF_ERROR(RequireIndexType(call, out, "out"));
  Status status;
  if (!VisitWide<kFloatTypes>(self->view.dtype, [&](auto tag) {
        status = LaunchReduce(call, self, mask, {out}, IndexFold<typename decltype(tag)::type, Order>{});
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

template <class Order>
Status WithValue(Call& call, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out,
                 aclTensor* indices) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDim(call, dim, self->view.rank, "dim", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, "out"));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, indices, "indices"));
  RETURN_IF_ERROR(RequireValues(call, self, mask));
  RETURN_IF_ERROR(RequireIndexType(call, indices, "indices"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  Status status;
  if (!VisitWide<kFloatTypes>(self->view.dtype, [&](auto tag) {
        status = LaunchReduce(call, self, mask, {out, indices},
                              ValueAndIndexFold<typename decltype(tag)::type, Order>{});
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace

Status aclnn::ArgMax(Call& call, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out) {
  return IndexOnly<Greater>(call, self, dim, keepdim, out);
}
Status aclnn::ArgMin(Call& call, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out) {
  return IndexOnly<Less>(call, self, dim, keepdim, out);
}
Status aclnn::MaxDim(Call& call, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out,
                     aclTensor* indices) {
  return WithValue<Greater>(call, self, dim, keepdim, out, indices);
}
Status aclnn::MinDim(Call& call, const aclTensor* self, int64_t dim, bool keepdim, aclTensor* out,
                     aclTensor* indices) {
  return WithValue<Less>(call, self, dim, keepdim, out, indices);
}

}  // namespace anycann
