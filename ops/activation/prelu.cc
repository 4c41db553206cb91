// Prelu: a slope per channel, or one for all.
#include <memory>
#include <new>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct PreluOf {
  T operator()(T x, T w) const { return x > 0 ? x : w * x; }
};
// By self and by weight.
template <class T>
struct PreluGrad {
  std::array<T, 2> operator()(T g, T x, T w) const { return {x > 0 ? g : w * g, x > 0 ? T(0) : x * g}; }
};

// The slopes over self's shape: one for all, one per index of dimension 1, or a shape that broadcasts.
Status SlopeView(Call& call, const TensorView& s, TensorView w, TensorView* view) {
  const TensorView given = w;
  if (w.numel() == 1 && !w.empty()) {
    w.rank = 0;
  } else if (w.rank == 1 && s.rank > 1 && w.dims[0] == s.dims[1]) {
    const int64_t stride = w.strides[0];
    w.rank = s.rank;
    for (int i = 0; i < s.rank; ++i) {
      w.dims[i] = s.dims[i];
      w.strides[i] = i == 1 ? stride : 0;
    }
    *view = w;
    return Status();
  }
  if (BroadcastTo(w, s.dims, s.rank, view)) return Status();
  return call.Invalid("weight has shape {}, expected one value or as many as dimension 1 of self {}",
                      ShapeString(given), ShapeString(s));
}

// Sums the contiguous terms over all dimensions but those in which `slopes` moves, in double, and writes them
// where each slope lies in gradWeight. The order of summation is that of memory: it does not depend on the
// threads.
template <class T>
void SumSlopes(const T* terms, const TensorView& shape, const TensorView& slopes, double* sums) {
  if (shape.empty()) return;
  int64_t index[kMaxRank] = {};
  const int last = shape.rank - 1;
  const int64_t row = shape.rank ? shape.dims[last] : 1, rows = shape.numel() / row;
  const int64_t step = shape.rank ? slopes.strides[last] : 0;
  for (int64_t r = 0; r < rows; ++r, terms += row) {
    int64_t at = 0;
    for (int i = 0; i < last; ++i) at += index[i] * slopes.strides[i];
    if (step == 0) {
      double lanes[8] = {};
      int64_t i = 0;
      for (; i + 8 <= row; i += 8)
        for (int k = 0; k < 8; ++k) lanes[k] += static_cast<double>(terms[i + k]);
      for (; i < row; ++i) lanes[0] += static_cast<double>(terms[i]);
      sums[at] +=
          ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
    } else {
      for (int64_t i = 0; i < row; ++i) sums[at + i * step] += static_cast<double>(terms[i]);
    }
    for (int i = last - 1; i >= 0 && ++index[i] == shape.dims[i]; --i) index[i] = 0;
  }
}

// operands: gradOutput, self, slopes, gradInput, gradWeight
template <class T>
Status RunBackward(const Run& t, const ElementwiseKernel& kernel, const TensorView& slots, int64_t count) {
  const int64_t n = t[1].numel();
  const std::unique_ptr<T[]> terms(new (std::nothrow) T[n]);
  const std::unique_ptr<double[]> sums(new (std::nothrow) double[count]());
  if (!terms || !sums) return Error(kInner, "aclnnPreluBackward: out of memory");
  const TensorView product = TensorView::Contiguous(terms.get(), kDTypeOf<T>, t[1].dims, t[1].rank);
  RunElementwise(kernel, {t[3], product}, {t[0], t[1], t[2]}, nullptr);
  SumSlopes(terms.get(), t[1], slots, sums.get());
  ElementwiseKernel store;
  store.inputs = store.outputs = 1;
  store.in_types[0] = store.out_types[0] = DType::kDouble;
  store.loop = [](void* const* out, const void* const* in, int64_t m, const void*) {
    std::memcpy(out[0], in[0], static_cast<size_t>(m) * sizeof(double));
  };
  RunElementwise(store, {t[4]}, {TensorView::Contiguous(sums.get(), DType::kDouble, t[4].dims, t[4].rank)},
                 nullptr);
  return Status();
}

}  // namespace

Status aclnn::Prelu(Call& call, const aclTensor* self, const aclTensor* weight, aclTensor* out) {
  TensorView slopes;
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(SlopeView(call, self->view, weight->view, &slopes));
  const DType compute = Promote(self->view.dtype, weight->view.dtype);
  ElementwiseKernel kernel;
  if (!VisitCompute<kFloatTypes>(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        kernel = KernelOf<PreluOf<T>, T, T>(1);
      }))
    return Unsupported(call, compute);
  RETURN_IF_ERROR(call.RequireCastable(compute, out, "out"));
  const Arg operands[] = {In(self), In(weight, slopes), Out(out)};
  return LaunchElementwise(call, operands, kernel, ElementwiseParams());
}

Status aclnn::PreluBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                            const aclTensor* weight, aclTensor* gradInput, aclTensor* gradWeight) {
  TensorView slopes;
  RETURN_IF_ERROR(call.RequireSameShape(gradOutput, "gradOutput", self, "self"));
  RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", self, "self"));
  RETURN_IF_ERROR(SlopeView(call, self->view, weight->view, &slopes));
  const DType compute = Promote(Promote(self->view.dtype, weight->view.dtype), gradOutput->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(compute, gradInput, "gradInput"));
  RETURN_IF_ERROR(call.RequireCastable(compute, gradWeight, "gradWeight"));
  Status status;
  const bool known = VisitCompute<kFloatTypes>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ElementwiseKernel kernel = KernelOf<PreluGrad<T>, T, T, T>(2);
    const Cost cost{4.0 * static_cast<double>(self->view.numel()),
                    5.0 * static_cast<double>(self->view.nbytes())};
    const Arg operands[] = {In(gradOutput), In(self), In(weight, slopes), Out(gradInput), Out(gradWeight)};
    if (gradWeight->view.SameShape(self->view)) {
      status = LaunchElementwise(call, operands, kernel, ElementwiseParams());
      return;
    }
    status = call.RequireSameShape(gradWeight, "gradWeight", weight, "weight");
    if (!status.ok() || gradWeight->view.empty()) return;
    // Where the sum of each slope lies in a contiguous gradWeight.
    TensorView slots;
    status = SlopeView(call, self->view,
                       TensorView::Contiguous(nullptr, DType::kDouble, weight->view.dims, weight->view.rank),
                       &slots);
    const int64_t count = weight->view.numel();
    if (!status.ok()) return;
    status = call.Launch(operands, cost, [kernel, slots, count](const Run& t) {
      return RunBackward<T>(t, kernel, slots, count);
    });
  });
  return known ? status : Unsupported(call, compute);
}

}  // namespace anycann
