// IFMR: the scale, among those that a search tries, with which quantising data to 8 bits loses least.
#include <algorithm>
#include <cmath>

#include "aclop_operators.h"
#include "base/parallel.h"

namespace anycann::aclop {
namespace {

struct Search {
  double low_part, high_part;  // of the data: quantiles where the search starts
  double begin, end, step;     // factors of the range that are tried
  bool with_offset;
};

struct Quantisation {
  double scale, offset;
};

double SquaredLoss(const Quantisation& q, const double* data, int64_t n) {
  constexpr double kLowest = -128, kHighest = 127;
  double loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double level = std::clamp(std::nearbyint(data[i] / q.scale) + q.offset, kLowest, kHighest);
    const double error = (level - q.offset) * q.scale - data[i];
    loss += error * error;
  }
  return loss;
}

// The candidate with `factor` of the range [low, high].
Quantisation Candidate(const Search& s, double low, double high, double factor) {
  if (!s.with_offset) return {high * factor / 127, 0};
  double scale = (high * factor - low) / 255;
  if (scale < 1.1920929e-07) scale = 1;
  return {scale, -(std::nearbyint(low / scale) + 128)};
}

}  // namespace

// data, data_min, data_max, cumsum (running counts of a histogram of the data between the two) -> scale,
// offset.
Status IFMR(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 2));
  const Value range = a.Attr("search_range");
  Search s{a.Real(a.Attr("min_percentile")), a.Real(a.Attr("max_percentile")), 0, 0,
           a.Real(a.Attr("search_step")),    a.Flag(a.Attr("with_offset"))};
  RETURN_IF_ERROR(a.status());
  if (range.text() || range.size() != 2)
    return call.Invalid("search_range is {}, expected two numbers", range.Show());
  s.begin = range.Real(0), s.end = range.Real(1);
  constexpr double kMostSteps = 1e6;
  const double steps = std::floor((s.end - s.begin) / s.step + 1e-3) + 1;  // both ends are tried
  if (!(s.step > 0) || !(steps >= 1) || !(steps <= kMostSteps))
    return call.Invalid("search_range is {} with a step of {}: expected from 1 to {} steps", range.Show(),
                        s.step, kMostSteps);
  for (size_t i : {1, 2})
    if (a.In(i)->view.numel() != 1)
      return call.Invalid("input {} has shape {}, expected one element", i, ShapeString(a.In(i)->view));
  for (size_t i : {0, 1})
    if (a.Out(i)->view.numel() != 1)
      return call.Invalid("output {} has shape {}, expected one element", i, ShapeString(a.Out(i)->view));
  if (a.In(0)->view.empty() || a.In(3)->view.empty())
    return call.Invalid("data has shape {} and cumsum {}, expected elements", ShapeString(a.In(0)->view),
                        ShapeString(a.In(3)->view));
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), In(a.In(2)), In(a.In(3)), Out(a.Out(0)), Out(a.Out(1))},
      Cost{10 * steps * static_cast<double>(a.In(0)->view.numel()), 0}, [s, steps](const Run& t) -> Status {
        const Dense data(t[0], DType::kDouble, Dense::kRead), least(t[1], DType::kDouble, Dense::kRead),
            most(t[2], DType::kDouble, Dense::kRead), counts(t[3], DType::kDouble, Dense::kRead);
        Dense scale(t[4], DType::kDouble, Dense::kWrite), offset(t[5], DType::kDouble, Dense::kWrite);
        const int64_t n = data.view().numel(), bins = counts.view().numel();
        const double first = *least.ptr<double>(), last = *most.ptr<double>();
        // The value below which `part` of the data lie, to a bin.
        const auto quantile = [&](double part) {
          int64_t below = 0;
          for (int64_t i = 0; i < bins; ++i)
            below += !(counts.ptr<double>()[i] / static_cast<double>(n) >= part);
          return static_cast<double>(below) / static_cast<double>(bins) * (last - first) + first;
        };
        double high = quantile(s.high_part), low = quantile(1 - s.low_part);
        if (s.with_offset)
          high = std::max(high, 0.0), low = std::min(low, 0.0);
        else
          high = std::max(std::abs(high), std::abs(low));
        const int64_t candidates = static_cast<int64_t>(steps);
        std::vector<double> losses(static_cast<size_t>(candidates));
        const auto candidate = [&](int64_t i) {
          return Candidate(s, low, high, s.begin + static_cast<double>(i) * s.step);
        };
        ParallelFor(candidates, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            losses[static_cast<size_t>(i)] = SquaredLoss(candidate(i), data.ptr<double>(), n);
        });
        const Quantisation best = candidate(std::min_element(losses.begin(), losses.end()) - losses.begin());
        *scale.ptr<double>() = best.scale;
        *offset.ptr<double>() = best.offset;
        scale.Commit();
        offset.Commit();
        return Status();
      });
}

}  // namespace anycann::aclop
