// Batch normalisation of [N, C, ...]: forward and backward, in training and evaluation.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/norm/batch.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct Attributes {
  const char* op;
  bool training;
  double momentum, eps;
};

struct ForwardAt {
  int x, weight, bias, running_mean, running_var, y, save_mean, save_invstd;
};

// running = (1 - momentum) * running + momentum * batch; the batch's variance is the unbiased one.
// False when there is no memory.
template <class T>
bool UpdateRunning(const TensorView* running, const Scratch<T>& batch, int64_t channels, double momentum) {
  if (running == nullptr) return true;
  const Values<T> old(*running);
  const Scratch<T> updated(channels);
  if (!old.ok() || !updated.ok()) return false;
  for (int64_t c = 0; c < channels; ++c)
    updated[c] = static_cast<T>((1 - momentum) * static_cast<double>(old[c]) +
                                momentum * static_cast<double>(batch[c]));
  StoreValues(*running, updated.get());
  return true;
}

template <class T>
Status Forward(const Attributes& a, const ForwardAt& at, const Run& t) {
  const BatchOperands<T> operands(t[at.x], t[at.y]);
  const int64_t channels = operands.grid.channels;
  const Scratch<Moments> moments(a.training ? channels : 0);
  const Scratch<T> mean(channels), invstd(channels), scale(channels), shift(channels), unbiased(channels);
  const Values<T> weight(t, at.weight), bias(t, at.bias);
  if (!operands.ok() || !moments.ok() || !mean.ok() || !invstd.ok() || !scale.ok() || !shift.ok() ||
      !unbiased.ok() || !weight.ok() || !bias.ok())
    return ScratchFailed(a.op);
  if (a.training) {
    if (!ChannelMoments(operands.grid, operands.x, moments.get())) return ScratchFailed(a.op);
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] = static_cast<T>(moments[c].mean);
      invstd[c] = static_cast<T>(1 / std::sqrt(moments[c].Variance() + a.eps));
      unbiased[c] = static_cast<T>(moments[c].m2 / (moments[c].count - 1));
    }
    if (!UpdateRunning(At(t, at.running_mean), mean, channels, a.momentum) ||
        !UpdateRunning(At(t, at.running_var), unbiased, channels, a.momentum))
      return ScratchFailed(a.op);
  } else {
    const Values<T> running_mean(t[at.running_mean]), running_var(t[at.running_var]);
    if (!running_mean.ok() || !running_var.ok()) return ScratchFailed(a.op);
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] = running_mean[c];
      invstd[c] = static_cast<T>(1 / std::sqrt(static_cast<double>(running_var[c]) + a.eps));
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    scale[c] = weight.get() ? invstd[c] * weight[c] : invstd[c];
    shift[c] = bias.get() ? bias[c] : T(0);
  }
  if (!ChannelApply(operands.grid, operands.x, mean.get(), scale.get(), shift.get(), T(0), operands.y))
    return ScratchFailed(a.op);
  operands.Finish();
  if (at.save_mean >= 0) StoreValues(t[at.save_mean], mean.get());
  if (at.save_invstd >= 0) StoreValues(t[at.save_invstd], invstd.get());
  return Status();
}

struct BackwardAt {
  int dy, x, weight, mean, invstd, dx, dweight, dbias;
};

template <class T>
Status Backward(const Attributes& a, const BackwardAt& at, const Run& t) {
  const BatchGradients<T> operands(t[at.dy], t[at.x], At(t, at.dx));
  const int64_t channels = operands.grid.channels;
  const double count = static_cast<double>(operands.grid.rows * operands.grid.inner);
  const Values<T> weight(t, at.weight), mean(t[at.mean]), given(t[at.invstd]);
  const Scratch<T> invstd(channels), dweight(channels), dbias(channels), p(channels), q(channels),
      r(channels);
  const Scratch<double> sum_dy(channels), sum_dyx(channels);
  if (!operands.ok() || !weight.ok() || !mean.ok() || !given.ok() || !invstd.ok() || !dweight.ok() ||
      !dbias.ok() || !p.ok() || !q.ok() || !r.ok() || !sum_dy.ok() || !sum_dyx.ok())
    return ScratchFailed(a.op);
  if (a.training || at.dweight >= 0 || at.dbias >= 0) {
    if (!ChannelSums(operands.grid, operands.dy, operands.x, mean.get(), sum_dy.get(), sum_dyx.get()))
      return ScratchFailed(a.op);
  }
  for (int64_t c = 0; c < channels; ++c) {
    // In evaluation `given` is the running variance.
    const double s =
        a.training ? static_cast<double>(given[c]) : 1 / std::sqrt(static_cast<double>(given[c]) + a.eps);
    const double g = weight.get() ? s * static_cast<double>(weight[c]) : s;
    dweight[c] = static_cast<T>(sum_dyx[c] * s);
    dbias[c] = static_cast<T>(sum_dy[c]);
    p[c] = static_cast<T>(g);
    q[c] = a.training ? static_cast<T>(-g * s * s * sum_dyx[c] / count) : T(0);
    r[c] = a.training ? static_cast<T>(-g * sum_dy[c] / count) : T(0);
  }
  if (at.dx >= 0) {
    if (!ChannelApplyBackward(operands.grid, operands.dy, operands.x, mean.get(), p.get(), q.get(), r.get(),
                              operands.dx))
      return ScratchFailed(a.op);
    operands.Finish();
  }
  if (at.dweight >= 0) StoreValues(t[at.dweight], dweight.get());
  if (at.dbias >= 0) StoreValues(t[at.dbias], dbias.get());
  return Status();
}

}  // namespace

Status RequireChannels(Call& call, const aclTensor* t, const char* name, int64_t channels) {
  if (t == nullptr) return Status();
  if (!IsFloating(t->view.dtype))
    return call.Invalid("{} has type {}, expected a floating-point type", name, Name(t->view.dtype));
  if (t->view.numel() == channels) return Status();
  return call.Invalid("{} has shape {}, expected [{}], one value per channel", name, ShapeString(t->view),
                      channels);
}

Status RequireBatch(Call& call, const aclTensor* t, const char* name) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 2, kMaxRank));
  if (IsFloating(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected a floating-point type", name, Name(t->view.dtype));
}

Status aclnn::BatchNorm(Call& call, const aclTensor* input, const aclTensor* weight, const aclTensor* bias,
                        aclTensor* runningMean, aclTensor* runningVar, bool training, double momentum,
                        double eps, aclTensor* output, aclTensor* saveMean, aclTensor* saveInvstd) {
  RETURN_IF_ERROR(RequireBatch(call, input, "input"));
  RETURN_IF_ERROR(call.RequireSameShape(output, "output", input, "input"));
  const int64_t channels = input->view.dims[1];
  RETURN_IF_ERROR(RequireChannels(call, weight, "weight", channels));
  RETURN_IF_ERROR(RequireChannels(call, bias, "bias", channels));
  RETURN_IF_ERROR(RequireChannels(call, runningMean, "runningMean", channels));
  RETURN_IF_ERROR(RequireChannels(call, runningVar, "runningVar", channels));
  if (!training && (runningMean == nullptr || runningVar == nullptr))
    return call.Error(kParamNullptr, "{} is null, which only training allows",
                      runningMean ? "runningVar" : "runningMean");
  if (saveMean != nullptr && saveMean->view.numel() == 0) saveMean = nullptr;
  if (saveInvstd != nullptr && saveInvstd->view.numel() == 0) saveInvstd = nullptr;
  RETURN_IF_ERROR(RequireChannels(call, saveMean, "saveMean", channels));
  RETURN_IF_ERROR(RequireChannels(call, saveInvstd, "saveInvstd", channels));
  if (input->view.empty()) return call.Nothing();
  Operands o;
  const ForwardAt at = {o.Input(input),       o.Input(weight),  o.Input(bias),      o.Output(runningMean),
                        o.Output(runningVar), o.Output(output), o.Output(saveMean), o.Output(saveInvstd)};
  const Attributes a = {call.op(), training, momentum, eps};
  const bool wide = input->view.dtype == DType::kDouble;
  return call.Launch(
      o.list(), Cost{6.0 * static_cast<double>(input->view.numel()), o.bytes()},
      [a, at, wide](const Run& t) { return wide ? Forward<double>(a, at, t) : Forward<float>(a, at, t); });
}

Status aclnn::BatchNormBackward(Call& call, const aclTensor* gradOut, const aclTensor* input,
                                const aclTensor* weight, const aclTensor* runningMean,
                                const aclTensor* runningVar, const aclTensor* saveMean,
                                const aclTensor* saveInvstd, bool training, double eps,
                                const aclBoolArray* outputMask, aclTensor* gradInput, aclTensor* gradWeight,
                                aclTensor* gradBias) {
  RETURN_IF_ERROR(RequireBatch(call, input, "input"));
  RETURN_IF_ERROR(call.RequireSameShape(gradOut, "gradOut", input, "input"));
  const int64_t channels = input->view.dims[1];
  if (outputMask->size != 3) return call.Invalid("outputMask has {} values, expected 3", outputMask->size);
  if (!(*outputMask)[0]) gradInput = nullptr;
  if (!(*outputMask)[1]) gradWeight = nullptr;
  if (!(*outputMask)[2]) gradBias = nullptr;
  const aclTensor *mean = training ? saveMean : runningMean, *spread = training ? saveInvstd : runningVar;
  if (mean == nullptr || spread == nullptr)
    return call.Error(kParamNullptr, "{} is null, expected the {} statistics",
                      training ? "saveMean or saveInvstd" : "runningMean or runningVar",
                      training ? "batch's" : "running");
  if (gradInput != nullptr) RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", input, "input"));
  RETURN_IF_ERROR(RequireChannels(call, weight, "weight", channels));
  RETURN_IF_ERROR(RequireChannels(call, mean, training ? "saveMean" : "runningMean", channels));
  RETURN_IF_ERROR(RequireChannels(call, spread, training ? "saveInvstd" : "runningVar", channels));
  RETURN_IF_ERROR(RequireChannels(call, gradWeight, "gradWeight", channels));
  RETURN_IF_ERROR(RequireChannels(call, gradBias, "gradBias", channels));
  if (channels == 0 || (gradInput == nullptr && gradWeight == nullptr && gradBias == nullptr))
    return call.Nothing();
  Operands o;
  const BackwardAt at = {o.Input(gradOut), o.Input(input),      o.Input(weight),      o.Input(mean),
                         o.Input(spread),  o.Output(gradInput), o.Output(gradWeight), o.Output(gradBias)};
  const Attributes a = {call.op(), training, 0, eps};
  const bool wide = input->view.dtype == DType::kDouble;
  return call.Launch(
      o.list(), Cost{12.0 * static_cast<double>(input->view.numel()), o.bytes()},
      [a, at, wide](const Run& t) { return wide ? Backward<double>(a, at, t) : Backward<float>(a, at, t); });
}

}  // namespace anycann
