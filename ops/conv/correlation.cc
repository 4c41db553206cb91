#include "ops/conv/correlation.h"

#include "ops/conv/depthwise.h"

namespace anycann {
namespace {

struct FloatArithmetic {
  using Lanes = FloatLanes;
  using Storage = float;
  static constexpr DType kAccumulator = DType::kFloat;
};
struct DoubleArithmetic {
  using Lanes = DoubleLanes;
  using Storage = double;
  static constexpr DType kAccumulator = DType::kDouble;
};
struct BFloat16Arithmetic {
  using Lanes = BFloat16Lanes;
  using Storage = uint16_t;
  static constexpr DType kAccumulator = DType::kFloat;
};

struct IntegerArithmetic {
  using Lanes = IntegerLanes<uint64_t>;
  using Storage = uint64_t;
  static constexpr DType kAccumulator = DType::kInt64;
};

}  // namespace

DType CorrelationElement(DType in, DType filter, bool depthwise) {
  if (in == DType::kInt64) return DType::kInt64;
  if (in == DType::kDouble || filter == DType::kDouble) return DType::kDouble;
  if (depthwise) return DType::kFloat;
  if (in == DType::kBFloat16 && filter == DType::kBFloat16 && HasBFloat16Dot()) return DType::kBFloat16;
  return DType::kFloat;
}

bool Correlate(const Correlation& c, int64_t begin, int64_t end, const Padded& padded) {
  const int64_t channels = c.in.channels / c.groups;
  const bool depthwise = IsDepthwise(c.in.channels, c.out.channels, c.groups);
  const DType element = CorrelationElement(c.in.dtype, c.filter.dtype, depthwise);
  if (element == DType::kInt64)
    return RunGroups<CorrelationProblem<IntegerArithmetic>>(c, c.groups, begin, end, channels, padded, false);
  if (depthwise)
    return element == DType::kDouble ? RunDepthwise<DoubleArithmetic>(c, begin, end, padded)
                                     : RunDepthwise<FloatArithmetic>(c, begin, end, padded);
  switch (element) {
    case DType::kDouble:
      return RunGroups<CorrelationProblem<DoubleArithmetic>>(c, c.groups, begin, end, channels, padded,
                                                             false);
    case DType::kBFloat16:
      return RunGroups<CorrelationProblem<BFloat16Arithmetic>>(c, c.groups, begin, end, channels, padded,
                                                               false);
    default:
      return RunGroups<CorrelationProblem<FloatArithmetic>>(c, c.groups, begin, end, channels, padded, false);
  }
}

bool AddFilterGradient(const FilterGradient& f, int64_t begin, int64_t end, const Padded& padded) {
  const int64_t channels = f.in.channels / f.groups;
  if (IsDepthwise(f.in.channels, f.grad.channels, f.groups))
    return f.element == DType::kDouble ? AddDepthwiseGradient<DoubleArithmetic>(f, begin, end, padded)
                                       : AddDepthwiseGradient<FloatArithmetic>(f, begin, end, padded);
  if (f.element == DType::kDouble)
    return RunGroups<FilterGradientProblem<DoubleArithmetic>>(f, f.groups, begin, end, channels, padded,
                                                              true);
  return RunGroups<FilterGradientProblem<FloatArithmetic>>(f, f.groups, begin, end, channels, padded, true);
}

}  // namespace anycann
