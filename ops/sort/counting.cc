// Counting: occurrences of small integers, and histograms.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/operand.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

template <class W>
Status CountInto(const char* op, const int64_t* x, const W* weights, int64_t n, const TensorView& out) {
  const int64_t bins = out.numel();
  Buffer<W> total = NewBuffer<W>(bins);
  for (int64_t i = 0; i < bins; ++i) total[i] = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] < 0 || x[i] >= bins)
      return Error(kParamInvalid,
                   "{}: self holds {} at position {}, expected values in [0,{}), the size of out", op, x[i],
                   i, bins);
    total[x[i]] += weights ? weights[i] : W(1);
  }
  CopyCast(out, TensorView::Contiguous(total.get(), kDTypeOf<W>, out.dims, out.rank));
  return Status();
}

struct Bounds {
  double low, high;
};

// Equal widths over [low, high], the last one closed; what lies outside, and NaN, isn't counted.
template <class T>
void HistogramOf(const T* x, int64_t n, T low, T high, int64_t bins, int64_t* count) {
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] >= low && x[i] <= high)) continue;
    const auto place = static_cast<int64_t>((x[i] - low) / (high - low) * static_cast<T>(bins));
    ++count[std::min(place, bins - 1)];
  }
}

template <class T>
Status RunHistogram(const Run& t, Bounds range, int64_t bins) {
  const Dense x(t[0], kDTypeOf<T>, Dense::kRead);
  const T* v = x.ptr<T>();
  const int64_t n = t[0].numel();
  T low = static_cast<T>(range.low), high = static_cast<T>(range.high);
  if (low == high && n > 0) {
    low = high = v[0];
    for (int64_t i = 0; i < n; ++i) {
      low = !(low <= v[i]) ? v[i] : low;
      high = !(high >= v[i]) ? v[i] : high;
    }
  }
  if (low == high) low -= 1, high += 1;
  if (!std::isfinite(low) || !std::isfinite(high))
    return Error(kParamInvalid, "{}: the range [{},{}] of the histogram is not finite", t.plan().name, low,
                 high);
  Buffer<int64_t> count = NewBuffer<int64_t>(bins);
  for (int64_t i = 0; i < bins; ++i) count[i] = 0;
  HistogramOf(v, n, low, high, bins, count.get());
  CopyCast(t[1], TensorView::Contiguous(count.get(), DType::kInt64, &bins, 1));
  return Status();
}

}  // namespace

Status aclnn::Bincount(Call& call, const aclTensor* self, const aclTensor* weights, int64_t minlength,
                       aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, 1));
  RETURN_IF_ERROR(call.RequireRank(out, "out", 1, 1));
  if (!IsInteger(self->view.dtype))
    return call.Invalid("self has type {}, expected an integer type", Name(self->view.dtype));
  if (minlength < 0) return call.Invalid("minlength is {}, expected a number that isn't negative", minlength);
  if (weights) RETURN_IF_ERROR(call.RequireSameShape(weights, "weights", self, "self"));
  const double n = static_cast<double>(self->view.numel());
  const bool weighted = weights != nullptr;
  return call.Launch(
      {In(self), Out(out), In(weighted ? weights : self)}, Cost{n, 16 * n}, [weighted](const Run& t) {
        const Dense x(t[0], DType::kInt64, Dense::kRead);
        if (!weighted)
          return CountInto<int64_t>(t.plan().name, x.ptr<int64_t>(), nullptr, t[0].numel(), t[1]);
        const Dense w(t[2], DType::kDouble, Dense::kRead);
        return CountInto<double>(t.plan().name, x.ptr<int64_t>(), w.ptr<double>(), t[0].numel(), t[1]);
      });
}

Status aclnn::Histc(Call& call, const aclTensor* self, int64_t bins, const aclScalar* min,
                    const aclScalar* max, aclTensor* out) {
  if (bins < 1) return call.Invalid("bins is {}, expected a positive number", bins);
  RETURN_IF_ERROR(call.RequireShape(out, "out", &bins, 1));
  const Bounds range{min->value.ToDouble(), max->value.ToDouble()};
  if (!(range.low <= range.high))
    return call.Invalid("min is {}, expected at most max, {}", range.low, range.high);
  if (!IsFloating(self->view.dtype) && !IsInteger(self->view.dtype))
    return Unsupported(call, self->view.dtype);
  const double n = static_cast<double>(self->view.numel());
  const bool narrow = ComputeType(self->view.dtype) == DType::kFloat;
  return call.Launch({In(self), Out(out)}, Cost{4 * n, static_cast<double>(self->view.nbytes())},
                     [narrow, range, bins](const Run& t) {
                       return narrow ? RunHistogram<float>(t, range, bins)
                                     : RunHistogram<double>(t, range, bins);
                     });
}

}  // namespace anycann
