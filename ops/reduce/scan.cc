// Running sums, products, maxima and minima along a dimension.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/reduce/extremum.h"
#include "ops/reduce/line_operator.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

struct Plus {
  static constexpr int kStart = 0;
  template <class T>
  static T Join(T a, T b) {
    return arithmetic::Add(a, b);
  }
};
struct Times {
  static constexpr int kStart = 1;
  template <class T>
  static T Join(T a, T b) {
    return arithmetic::Mul(a, b);
  }
};

struct ScanOrder {
  bool exclusive = false, reverse = false;
};

// float32 accumulates in float64.
template <class T>
using Running = std::conditional_t<std::is_same_v<T, float>, double,
                                   std::conditional_t<std::is_same_v<T, Complex64>, Complex128, T>>;

template <class T, class Op>
struct Scan {
  using Acc = Running<T>;

  static void Line(void* const* out, const void* const* in, int64_t n, void*, const void* params) {
    const auto& order = *static_cast<const ScanOrder*>(params);
    const T* x = static_cast<const T*>(in[0]);
    T* y = static_cast<T*>(out[0]);
    Acc acc(Op::kStart);
    if (!order.exclusive && !order.reverse) {
      for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(acc = Op::Join(acc, static_cast<Acc>(x[i])));
      return;
    }
    for (int64_t k = 0; k < n; ++k) {
      const int64_t i = order.reverse ? n - 1 - k : k;
      const Acc next = Op::Join(acc, static_cast<Acc>(x[i]));
      y[i] = static_cast<T>(order.exclusive ? acc : next);
      acc = next;
    }
  }

  static void Columns(void* const* out, const int64_t* out_ld, const void* const* in, const int64_t* in_ld,
                      int64_t n, int64_t cols, void* scratch, const void* params) {
    const auto& order = *static_cast<const ScanOrder*>(params);
    Acc* acc = static_cast<Acc*>(scratch);
    for (int64_t j = 0; j < cols; ++j) acc[j] = Acc(Op::kStart);
    for (int64_t k = 0; k < n; ++k) {
      const int64_t i = order.reverse ? n - 1 - k : k;
      const T* x = static_cast<const T*>(in[0]) + i * in_ld[0];
      T* y = static_cast<T*>(out[0]) + i * out_ld[0];
#pragma GCC ivdep
      for (int64_t j = 0; j < cols; ++j) {
        const Acc before = acc[j], next = Op::Join(before, static_cast<Acc>(x[j]));
        y[j] = static_cast<T>(order.exclusive ? before : next);
        acc[j] = next;
      }
    }
  }
};

// A value replaces the running one when it is as good, or NaN, which stays from then on.
template <class T, class Order>
struct ExtremumScan {
  static bool Replaces(T x, T best) { return x != x || (best == best && Order::Keeps(x, best)); }
  static void Line(void* const* out, const void* const* in, int64_t n, void*, const void*) {
    const T* x = static_cast<const T*>(in[0]);
    T* value = static_cast<T*>(out[0]);
    int64_t* index = static_cast<int64_t*>(out[1]);
    T best = x[0];
    int64_t where = 0;
    for (int64_t i = 0; i < n; ++i) {
      const T v = x[i];
      if (Replaces(v, best)) best = v, where = i;
      value[i] = best;
      index[i] = where;
    }
  }
};

template <class Op>
Status RunningFold(Call& call, const aclTensor* self, int64_t dim, DType dtype, ScanOrder order,
                   const aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const DType compute = IsFloating(dtype) || IsComplex(dtype) ? dtype : DType::kInt64;
  Status status;
  const auto launch = [&](auto tag) {
    using T = typename decltype(tag)::type;
    LineKernel k;
    k.in_types[0] = k.out_types[0] = kDTypeOf<T>;
    k.line = &Scan<T, Op>::Line;
    k.columns = &Scan<T, Op>::Columns;
    k.column_scratch_bytes = sizeof(Running<T>);
    k.cost = 8;
    status = LaunchLines(call, {Out(out), In(self)}, d, k, order, 1);
  };
  if (compute == DType::kInt64)
    launch(TypeTag<int64_t>{});
  else if (!VisitCompute<kFloatingTypes>(compute, launch))
    return Unsupported(call, dtype);
  return status;
}

template <class Order>
Status RunningExtremum(Call& call, const aclTensor* self, int64_t dim, aclTensor* values,
                       aclTensor* indices) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(call.RequireSameShape(values, "valuesOut", self, "self"));
  RETURN_IF_ERROR(call.RequireSameShape(indices, "indicesOut", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, values, "valuesOut"));
  if (!IsInteger(indices->view.dtype))
    return call.Invalid("indicesOut has type {}, expected int64 or int32", Name(indices->view.dtype));
  if (self->view.empty()) return call.Nothing();
  Status status;
  if (!VisitWide<kFloatTypes>(self->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        LineKernel k;
        k.outputs = 2;
        k.in_types[0] = k.out_types[0] = kDTypeOf<T>;
        k.out_types[1] = DType::kInt64;
        k.line = &ExtremumScan<T, Order>::Line;
        k.cost = 8;
        status = LaunchLines(call, {Out(values), Out(indices), In(self)}, d, k, 0, 1);
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace

Status aclnn::Cumsum(Call& call, const aclTensor* self, int64_t dim, aclDataType dtype, aclTensor* out) {
  return RunningFold<Plus>(call, self, dim, static_cast<DType>(dtype), {}, out);
}
Status aclnn::CumsumV2(Call& call, const aclTensor* self, int64_t dim, bool exclusive, bool reverse,
                       aclTensor* out) {
  return RunningFold<Plus>(call, self, dim, out->view.dtype, {exclusive, reverse}, out);
}
Status aclnn::Cumprod(Call& call, const aclTensor* input, const aclScalar* dim, aclDataType dtype,
                      aclTensor* out) {
  return RunningFold<Times>(call, input, dim->value.ToInt64(), static_cast<DType>(dtype), {}, out);
}
Status aclnn::InplaceCumprod(Call& call, aclTensor* input, const aclScalar* dim) {
  return RunningFold<Times>(call, input, dim->value.ToInt64(), input->view.dtype, {}, input);
}
Status aclnn::Cummax(Call& call, const aclTensor* self, int64_t dim, aclTensor* valuesOut,
                     aclTensor* indicesOut) {
  return RunningExtremum<Greater>(call, self, dim, valuesOut, indicesOut);
}
Status aclnn::Cummin(Call& call, const aclTensor* self, int64_t dim, aclTensor* valuesOut,
                     aclTensor* indicesOut) {
  return RunningExtremum<Less>(call, self, dim, valuesOut, indicesOut);
}

}  // namespace anycann
