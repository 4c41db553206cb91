// The element of a given rank: k-th value, median, median without NaN.
#include "aclnn_ops.h"
#include "ops/operand.h"
#include "ops/reduce/line_operator.h"
#include "ops/reduce/operator.h"
#include "ops/sort/order.h"

namespace anycann {
namespace {

enum class Rank { kGiven, kMedian, kNanMedian };
struct SelectParams {
  Rank rank;
  int64_t k;  // from 1
};

template <class T>
struct Selecting {
  using P = Packing<T>;
  static void Line(void* const* out, const void* const* in, int64_t n, void* scratch, const void* params) {
    const auto& p = *static_cast<const SelectParams*>(params);
    const T* x = static_cast<const T*>(in[0]);
    int64_t where = Find(p, x, n, static_cast<typename P::Packed*>(scratch));
    *static_cast<T*>(out[0]) = x[where];
    *static_cast<int64_t*>(out[1]) = where;
  }
  static int64_t Find(const SelectParams& p, const T* x, int64_t n, typename P::Packed* packed) {
    int64_t k = p.k, numbers = n;
    if (p.rank != Rank::kGiven) {
      for (int64_t i = 0; i < n; ++i) {
        if (x[i] == x[i]) continue;
        if (p.rank == Rank::kMedian) return i;  // NaN is the median of whatever holds one
        --numbers;
      }
      if (numbers == 0) return 0;
      k = (numbers + 1) / 2;  // the lower of two
    }
    for (int64_t i = 0; i < n; ++i) packed[i] = P::Pack(x[i], i, false);
    std::nth_element(packed, packed + k - 1, packed + n);
    return P::Position(packed[k - 1]);
  }
};

// f(kernel) with the kernel for self's type and lines of n elements.
template <class F>
Status WithKernel(Call& call, DType type, int64_t n, F&& f) {
  Status status;
  const bool known = VisitWide<kFloatTypes>(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    LineKernel k;
    k.outputs = 2;
    k.in_types[0] = k.out_types[0] = kDTypeOf<T>;
    k.out_types[1] = DType::kInt64;
    k.line = &Selecting<T>::Line;
    k.scratch_bytes = static_cast<int64_t>(sizeof(typename Packing<T>::Packed)) * n;
    k.cost = 60;
    status = n <= Packing<T>::kMaxLength
                 ? f(k)
                 : call.Invalid("self has {} elements to choose from, which is too many", n);
  });
  return known ? status : Unsupported(call, type);
}

Status SelectAlong(Call& call, const aclTensor* self, SelectParams p, int64_t dim, bool keepdim,
                   aclTensor* values, aclTensor* indices) {
  int d;
  uint32_t mask;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(ReducedDim(call, dim, self->view.rank, "dim", &mask));
  const int64_t n = self->view.rank == 0 ? 1 : self->view.dims[d];
  if (p.rank == Rank::kGiven && (p.k < 1 || p.k > n))
    return call.Invalid("k is {}, expected a value in [1,{}]", p.k, n);
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, values, "valuesOut"));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, indices, "indicesOut"));
  RETURN_IF_ERROR(RequireValues(call, self, mask));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, values, "valuesOut"));
  if (!IsInteger(indices->view.dtype))
    return call.Invalid("indicesOut has type {}, expected int64 or int32", Name(indices->view.dtype));
  if (values->view.empty()) return call.Nothing();
  return WithKernel(call, self->view.dtype, n, [&](const LineKernel& k) {
    return LaunchLines(call,
                       {Out(values, KeepDims(values->view, self->view.rank, mask)),
                        Out(indices, KeepDims(indices->view, self->view.rank, mask)), In(self)},
                       d, k, p, 5);
  });
}

// Over all elements, as one line.
Status RunOverAll(const LineKernel& kernel, const SelectParams& p, const TensorView& x,
                  const TensorView& out) {
  const Dense dense(x, Dense::kRead);
  const int64_t n = x.numel(), one = 1;
  int64_t where;
  const TensorView line = TensorView::Contiguous(dense.ptr<void>(), x.dtype, &n, 1);
  const TensorView outs[] = {TensorView::Contiguous(out.data, out.dtype, &one, 1),
                             TensorView::Contiguous(&where, DType::kInt64, &one, 1)};
  return RunLines(kernel, outs, {&line, 1}, 0, &p);
}

Status SelectOverAll(Call& call, const aclTensor* self, Rank rank, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireShape(out, "out", nullptr, 0));
  RETURN_IF_ERROR(RequireValues(call, self, AllDims(self->view.rank)));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  const int64_t n = self->view.numel();
  return WithKernel(call, self->view.dtype, n, [&](const LineKernel& k) {
    return call.Launch({In(self), Out(out)},
                       Cost{5.0 * static_cast<double>(n), static_cast<double>(self->view.nbytes())},
                       [k, rank](const Run& t) {
                         return RunOverAll(k, {rank, 0}, t[0], t[1]);
                       });
  });
}

}  // namespace

Status aclnn::Kthvalue(Call& call, const aclTensor* self, int64_t k, int64_t dim, bool keepdim,
                       aclTensor* valuesOut, aclTensor* indicesOut) {
  return SelectAlong(call, self, {Rank::kGiven, k}, dim, keepdim, valuesOut, indicesOut);
}
Status aclnn::MedianDim(Call& call, const aclTensor* self, int64_t dim, bool keepDim, aclTensor* valuesOut,
                        aclTensor* indicesOut) {
  return SelectAlong(call, self, {Rank::kMedian, 0}, dim, keepDim, valuesOut, indicesOut);
}
Status aclnn::NanMedianDim(Call& call, const aclTensor* self, int64_t dim, bool keepDim, aclTensor* valuesOut,
                           aclTensor* indicesOut) {
  return SelectAlong(call, self, {Rank::kNanMedian, 0}, dim, keepDim, valuesOut, indicesOut);
}
Status aclnn::Median(Call& call, const aclTensor* self, aclTensor* valuesOut) {
  return SelectOverAll(call, self, Rank::kMedian, valuesOut);
}
Status aclnn::NanMedian(Call& call, const aclTensor* self, aclTensor* out) {
  return SelectOverAll(call, self, Rank::kNanMedian, out);
}

}  // namespace anycann
