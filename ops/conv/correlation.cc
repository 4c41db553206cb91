#include "ops/conv/correlation.h"

#include "ops/conv/correlation_problem.h"

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

}  // namespace

DType CorrelationElement(DType in, DType filter) {
  if (in == DType::kDouble || filter == DType::kDouble) return DType::kDouble;
  if (in == DType::kBFloat16 && filter == DType::kBFloat16 && HasBFloat16Dot()) return DType::kBFloat16;
  return DType::kFloat;
}

bool Correlate(const Correlation& c, int64_t begin, int64_t end, const Padded& padded) {
  const int64_t channels = c.in.channels / c.groups;
  switch (CorrelationElement(c.in.dtype, c.filter_type)) {
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
  if (f.element == DType::kDouble)
    return RunGroups<FilterGradientProblem<DoubleArithmetic>>(f, f.groups, begin, end, channels, padded,
                                                              true);
  return RunGroups<FilterGradientProblem<FloatArithmetic>>(f, f.groups, begin, end, channels, padded, true);
}

}  // namespace anycann
