// Running one Plan: the floating-point mode, the loop pool, the trace, and what a failure is called.
#pragma once

#include <string>

#include "base/status.h"
#include "runtime/device.h"
#include "runtime/plan.h"

namespace anycann {

// An estimate of a Plan's run time on one core, from its cost.
inline int64_t EstimateNanoseconds(const Plan& plan) {
  // Deliberately modest rates (ordinary code on a shared core, data in the outer caches), so that an estimate
  // errs towards a runner. Floating operations, then bytes, per nanosecond.
  constexpr double kFlops = 4, kBytes = 6;
  return static_cast<int64_t>(plan.cost.flops * (1 / kFlops) + plan.cost.bytes * (1 / kBytes));
}

// Runs the Plan's kernel on the calling thread. The failure's message names the operator and its operands.
Status ExecutePlan(const Plan& plan, Device* device, uint32_t stream_id) noexcept;

// "float32[2,3] int64[4] -> float32[2,3]"
std::string DescribeOperands(const Plan& plan);

}  // namespace anycann
