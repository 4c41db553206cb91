// SilentCheck: watches the norm of a gradient from step to step for jumps that only a fault of the hardware
// explains.
#include <algorithm>
#include <cmath>

#include "aclop_operators.h"
#include "base/log.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {
namespace {

struct Threshold {
  double value, jump;  // of the norm itself; of its change as a multiple of the range seen so far
  bool Passed(double norm, double change) const { return norm > value || change > jump; }
};

}  // namespace

// val (the norm), input_grad, pre_val, min_val, max_val, val_counter -> input_grad, pre_val, min_val,
// max_val, result. From c_min_steps on, a norm above the first thresholds ends training with an error, one
// above the second is warned of (result 1). So torch_npu's documents describe it (NPU_ASD_UPPER_THRESH,
// NPU_ASD_SIGMA_THRESH); what `result` holds they don't say.
Status SilentCheck(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(6, 5));
  for (size_t i : {0, 2, 3, 4, 5})
    if (a.In(i)->view.numel() != 1)
      return call.Invalid("input {} has shape {}, expected one element", i, ShapeString(a.In(i)->view));
  for (size_t i : {1, 2, 3, 4})
    if (a.Out(i)->view.numel() != 1)
      return call.Invalid("output {} has shape {}, expected one element", i, ShapeString(a.Out(i)->view));
  const double steps = a.Number("c_min_steps", 7);
  const Threshold error{a.Number("c_thresh_l1", 1e6), a.Number("c_coeff_l1", 1e5)},
      warning{a.Number("c_thresh_l2", 1e4), a.Number("c_coeff_l2", 5e3)};
  RETURN_IF_ERROR(a.status());
  a.Updated(a.Out(0), a.In(1));
  RETURN_IF_ERROR(a.status());
  return call.Launch({In(a.In(0)), In(a.In(2)), In(a.In(3)), In(a.In(4)), In(a.In(5)), Out(a.Out(1)),
                      Out(a.Out(2)), Out(a.Out(3)), Out(a.Out(4))},
                     Cost{1, 0}, [=](const Run& t) -> Status {
                       double in[5], out[4];
                       for (int i = 0; i < 5; ++i)
                         in[i] = *Dense(t[i], DType::kDouble, Dense::kRead).ptr<double>();
                       const double norm = in[0], before = in[1], least = in[2], most = in[3];
                       const bool watched = in[4] >= steps, finite = std::isfinite(norm);
                       const double change = watched && most > least ? (norm - before) / (most - least) : 0;
                       if (watched && (!finite || error.Passed(norm, change)))
                         return Error(
                             kParamInvalid,
                             "SilentCheck: the norm of a gradient is {}, after {} and within [{},{}] so far: "
                             "above the thresholds "
                             "{} and {} times the range (NPU_ASD_UPPER_THRESH, NPU_ASD_SIGMA_THRESH)",
                             norm, before, least, most, error.value, error.jump);
                       const bool warn = watched && warning.Passed(norm, change);
                       if (warn)
                         Log(LogLevel::kWarning,
                             "SilentCheck: the norm of a gradient is {}, after {} and within [{},{}] so far: "
                             "above the thresholds for a "
                             "warning, {} and {} times the range",
                             norm, before, least, most, warning.value, warning.jump);
                       out[0] = finite ? norm : before;
                       out[1] = finite ? std::min(least, norm) : least;
                       out[2] = finite ? std::max(most, norm) : most;
                       out[3] = warn ? 1 : 0;
                       for (int i = 0; i < 4; ++i) {
                         Dense d(t[5 + i], DType::kDouble, Dense::kWrite);
                         *d.ptr<double>() = out[i];
                         d.Commit();
                       }
                       return Status();
                     });
}

}  // namespace anycann::aclop
