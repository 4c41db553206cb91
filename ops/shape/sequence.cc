// Sequences: Arange, Range, Linspace, LogSpace.
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"

namespace anycann {
namespace {

// out[i] = f(i) in out's compute type.
template <unsigned set, class Make>
Status LaunchSequence(Call& call, const aclTensor* out, Make make) {
  const DType compute = ComputeType(out->view.dtype);
  if (out->view.empty()) return call.Nothing();
  Status status;
  const bool known = VisitCompute<set>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto f = make(tag);
    status = call.Launch(
        {Out(out)}, Cost{static_cast<double>(out->view.numel()), static_cast<double>(out->view.nbytes())},
        [f, compute](const Run& t) -> Status {
          Dense result(t[0], compute, Dense::kWrite);
          T* const values = result.ptr<T>();
          ParallelFor(t[0].numel(), 16384, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) values[i] = static_cast<T>(f(i));
          });
          result.Commit();
          return Status();
        });
  });
  return known ? status : Unsupported(call, compute);
}

bool Integral(const aclScalar* s) { return !IsFloating(s->value.dtype) && !IsComplex(s->value.dtype); }

// How many steps fit between start and end (without the last one, which Range includes).
Status CountSteps(Call& call, const aclScalar* start, const aclScalar* end, const aclScalar* step,
                  bool inclusive, const aclTensor* out) {
  const double from = start->value.ToDouble(), to = end->value.ToDouble(), by = step->value.ToDouble();
  if (by == 0 || !std::isfinite(from) || !std::isfinite(to) || std::isnan(by))
    return call.Invalid("start {}, end {} and step {} make no sequence", from, to, by);
  if ((to - from) / by < 0)
    return call.Invalid("step is {}, of the wrong sign for start {} and end {}", by, from, to);
  const double count = inclusive ? std::floor((to - from) / by) + 1 : std::ceil((to - from) / by);
  // One more or less: clients compute the size in other precisions. llama.cpp has dimensions of 1 in front.
  const TensorView& v = out->view;
  const bool row = v.rank > 0 && v.numel() == v.dims[v.rank - 1];
  if (row && std::abs(static_cast<double>(v.numel()) - count) <= 1) return Status();
  return call.Invalid("out has shape {}, expected [{}]", ShapeString(out->view), count);
}

Status LaunchSteps(Call& call, const aclScalar* start, const aclScalar* step, const aclTensor* out) {
  if (Integral(start) && Integral(step)) {
    const int64_t from = start->value.ToInt64(), by = step->value.ToInt64();
    return LaunchSequence<kAllTypes>(call, out, [=](auto) {
      return [=](int64_t i) {
        return static_cast<int64_t>(static_cast<uint64_t>(from) +
                                    static_cast<uint64_t>(by) * static_cast<uint64_t>(i));
      };
    });
  }
  const double from = start->value.ToDouble(), by = step->value.ToDouble();
  // torch casts the attributes to an integer type first.
  if (IsInteger(out->view.dtype)) {
    const int64_t a = start->value.ToInt64(), b = step->value.ToInt64();
    return LaunchSequence<kIntTypes>(call, out, [=](auto) {
      return [=](int64_t i) { return arithmetic::Add(a, arithmetic::Mul(b, i)); };
    });
  }
  return LaunchSequence<kFloatingTypes>(
      call, out, [=](auto) { return [=](int64_t i) { return from + by * static_cast<double>(i); }; });
}

// Evenly spaced from both ends, so that the last value is exact. Integers as torch computes them: the ends
// are cut to integers first, and what is rounded is the sum alone.
struct Spacing {
  double start, end, step;
  int64_t steps;
  bool integral;
  double operator()(int64_t i) const {
    const bool from_start = i < steps / 2;
    const int64_t n = from_start ? i : steps - i - 1;
    if (integral)
      return std::fma(from_start ? step : -step, static_cast<double>(n), from_start ? start : end);
    return from_start ? start + step * static_cast<double>(n) : end - step * static_cast<double>(n);
  }
};
Status ReadSpacing(Call& call, const aclScalar* start, const aclScalar* end, int64_t steps,
                   const aclTensor* out, const char* name, Spacing* s) {
  if (steps < 0) return call.Invalid("steps is {}, expected no negative number", steps);
  RETURN_IF_ERROR(call.RequireShape(out, name, &steps, 1));
  double from = start->value.ToDouble(), to = end->value.ToDouble();
  const bool integral = IsInteger(out->view.dtype);
  if (integral) from = std::trunc(from), to = std::trunc(to);
  // One step is the start alone.
  *s = {from, steps == 1 ? from : to, steps > 1 ? (to - from) / static_cast<double>(steps - 1) : 0, steps,
        integral};
  return Status();
}

// The same between complex ends, each value through f.
template <class F>
Status LaunchComplex(Call& call, const aclScalar* start, const aclScalar* end, int64_t steps,
                     const aclTensor* out, F f) {
  const Complex128 a = start->value.ToComplex(), b = end->value.ToComplex();
  const Complex128 step = steps > 1 ? (b - a) / static_cast<double>(steps - 1) : 0;
  return LaunchSequence<kComplexTypes>(call, out, [=](auto tag) {
    using T = typename decltype(tag)::type;
    return [=](int64_t i) {
      return static_cast<T>(f(i < steps / 2 || steps == 1 ? a + step * static_cast<double>(i)
                                                          : b - step * static_cast<double>(steps - i - 1)));
    };
  });
}

}  // namespace

Status aclnn::Arange(Call& call, const aclScalar* start, const aclScalar* end, const aclScalar* step,
                     aclTensor* out) {
  RETURN_IF_ERROR(CountSteps(call, start, end, step, false, out));
  return LaunchSteps(call, start, step, out);
}

Status aclnn::Range(Call& call, const aclScalar* start, const aclScalar* end, const aclScalar* step,
                    aclTensor* out) {
  RETURN_IF_ERROR(CountSteps(call, start, end, step, true, out));
  return LaunchSteps(call, start, step, out);
}

Status aclnn::Linspace(Call& call, const aclScalar* start, const aclScalar* end, int64_t steps,
                       aclTensor* out) {
  Spacing s;
  RETURN_IF_ERROR(ReadSpacing(call, start, end, steps, out, "out", &s));
  if (IsComplex(out->view.dtype))
    return LaunchComplex(call, start, end, steps, out, [](Complex128 x) { return x; });
  return LaunchSequence<kRealTypes | kBoolType>(call, out, [=](auto) { return s; });
}

Status aclnn::LogSpace(Call& call, const aclScalar* start, const aclScalar* end, int64_t steps, double base,
                       const aclTensor* result) {
  Spacing s;
  RETURN_IF_ERROR(ReadSpacing(call, start, end, steps, result, "result", &s));
  if (IsComplex(result->view.dtype))
    return LaunchComplex(call, start, end, steps, result,
                         [base](Complex128 x) { return std::pow(Complex128(base), x); });
  return LaunchSequence<kRealTypes>(call, result,
                                    [=](auto) { return [=](int64_t i) { return std::pow(base, s(i)); }; });
}

}  // namespace anycann
