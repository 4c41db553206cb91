// The pieces of batch normalisation over several processes: statistics of one process, combined ones, and
// applying them forward and backward.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/norm/batch.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

bool IsWide(const aclTensor* t) { return t->view.dtype == DType::kDouble; }

// Calls finish(c, moments of channel c, first output, second output), then writes both outputs.
template <class T, class F>
Status Statistics(const char* op, const TensorView& x, const TensorView& first, const TensorView& second,
                  F finish) {
  const BatchGradients<T> operands(x, x, nullptr);
  const int64_t channels = operands.grid.channels;
  const Scratch<Moments> moments(channels);
  const Scratch<T> a(channels), b(channels);
  if (!operands.ok() || !moments.ok() || !a.ok() || !b.ok() ||
      !ChannelMoments(operands.grid, operands.x, moments.get()))
    return ScratchFailed(op);
  for (int64_t c = 0; c < channels; ++c) finish(moments[c], &a[c], &b[c]);
  StoreValues(first, a.get());
  StoreValues(second, b.get());
  return Status();
}

template <class T>
struct InverseDeviation {
  double eps;
  void operator()(const Moments& m, T* mean, T* invstd) const {
    *mean = static_cast<T>(m.mean);
    *invstd = static_cast<T>(1 / std::sqrt(m.Variance() + eps));
  }
};
template <class T>
struct PowerSums {
  void operator()(const Moments& m, T* sum, T* squares) const {
    *sum = static_cast<T>(m.mean * m.count);
    *squares = static_cast<T>(m.m2 + m.count * m.mean * m.mean);
  }
};

template <template <class> class F, class... A>
Status LaunchStatistics(Call& call, const aclTensor* x, const char* x_name, const aclTensor* first,
                        const char* first_name, const aclTensor* second, const char* second_name,
                        A... attributes) {
  RETURN_IF_ERROR(RequireBatch(call, x, x_name));
  RETURN_IF_ERROR(RequireChannels(call, first, first_name, x->view.dims[1]));
  RETURN_IF_ERROR(RequireChannels(call, second, second_name, x->view.dims[1]));
  if (x->view.empty()) return call.Nothing();
  const char* op = call.op();
  const bool wide = IsWide(x);
  return call.Launch({In(x), Out(first), Out(second)},
                     Cost{3.0 * static_cast<double>(x->view.numel()), static_cast<double>(x->view.nbytes())},
                     [op, wide, attributes...](const Run& t) -> Status {
                       return wide ? Statistics<double>(op, t[0], t[1], t[2], F<double>{attributes...})
                                   : Statistics<float>(op, t[0], t[1], t[2], F<float>{attributes...});
                     });
}

struct ElementAt {
  int x, weight, bias, mean, invstd, y;
};
template <class T>
Status Elements(const char* op, const ElementAt& at, const Run& t) {
  const BatchOperands<T> operands(t[at.x], t[at.y]);
  const int64_t channels = operands.grid.channels;
  const Values<T> weight(t, at.weight), bias(t, at.bias);
  const Values<T> mean(t[at.mean]), invstd(t[at.invstd]);
  const Scratch<T> scale(channels), shift(channels);
  if (!operands.ok() || !weight.ok() || !bias.ok() || !mean.ok() || !invstd.ok() || !scale.ok() ||
      !shift.ok())
    return ScratchFailed(op);
  for (int64_t c = 0; c < channels; ++c) {
    scale[c] = weight.get() ? invstd[c] * weight[c] : invstd[c];
    shift[c] = bias.get() ? bias[c] : T(0);
  }
  if (!ChannelApply(operands.grid, operands.x, mean.get(), scale.get(), shift.get(), T(0), operands.y))
    return ScratchFailed(op);
  operands.Finish();
  return Status();
}

struct ElementBackwardAt {
  int dy, x, mean, invstd, weight, sum_dy, sum_dyx, counts, dx;
};
template <class T>
Status ElementsBackward(const char* op, const ElementBackwardAt& at, const Run& t) {
  const BatchGradients<T> operands(t[at.dy], t[at.x], &t[at.dx]);
  const int64_t channels = operands.grid.channels;
  const Values<T> weight(t, at.weight), mean(t[at.mean]), invstd(t[at.invstd]), sum_dy(t[at.sum_dy]),
      sum_dyx(t[at.sum_dyx]);
  const Values<double> counts(t[at.counts]);
  const Scratch<T> p(channels), q(channels), r(channels);
  if (!operands.ok() || !weight.ok() || !mean.ok() || !invstd.ok() || !sum_dy.ok() || !sum_dyx.ok() ||
      !counts.ok() || !p.ok() || !q.ok() || !r.ok())
    return ScratchFailed(op);
  double count = 0;
  for (int64_t i = 0; i < t[at.counts].numel(); ++i) count += counts[i];
  for (int64_t c = 0; c < channels; ++c) {
    const double s = static_cast<double>(invstd[c]),
                 g = weight.get() ? s * static_cast<double>(weight[c]) : s;
    p[c] = static_cast<T>(g);
    q[c] = static_cast<T>(-g * s * s * static_cast<double>(sum_dyx[c]) / count);
    r[c] = static_cast<T>(-g * static_cast<double>(sum_dy[c]) / count);
  }
  if (!ChannelApplyBackward(operands.grid, operands.dy, operands.x, mean.get(), p.get(), q.get(), r.get(),
                            operands.dx))
    return ScratchFailed(op);
  operands.Finish();
  return Status();
}

struct ReduceBackwardAt {
  int dy, x, mean, invstd, sum_dy, sum_dyx, dweight, dbias;
};
template <class T>
Status ReduceBackward(const char* op, const ReduceBackwardAt& at, const Run& t) {
  const BatchGradients<T> operands(t[at.dy], t[at.x], nullptr);
  const int64_t channels = operands.grid.channels;
  const Values<T> mean(t[at.mean]), invstd(t[at.invstd]);
  const Scratch<double> a(channels), b(channels), dweight(channels);
  if (!operands.ok() || !mean.ok() || !invstd.ok() || !a.ok() || !b.ok() || !dweight.ok() ||
      !ChannelSums(operands.grid, operands.dy, operands.x, mean.get(), a.get(), b.get()))
    return ScratchFailed(op);
  for (int64_t c = 0; c < channels; ++c) dweight[c] = b[c] * static_cast<double>(invstd[c]);
  if (at.sum_dy >= 0) StoreValues(t[at.sum_dy], a.get());
  if (at.sum_dyx >= 0) StoreValues(t[at.sum_dyx], b.get());
  if (at.dweight >= 0) StoreValues(t[at.dweight], dweight.get());
  if (at.dbias >= 0) StoreValues(t[at.dbias], a.get());
  return Status();
}

// One running statistic: running = (1 - momentum) * running + momentum * batch.
Status UpdateRunning(const char* op, const TensorView* running, const Scratch<double>& batch,
                     double momentum) {
  if (running == nullptr) return Status();
  const Values<double> old(*running);
  const Scratch<double> updated(running->numel());
  if (!old.ok() || !updated.ok()) return ScratchFailed(op);
  for (int64_t c = 0; c < running->numel(); ++c) updated[c] = (1 - momentum) * old[c] + momentum * batch[c];
  StoreValues(*running, updated.get());
  return Status();
}

struct GatherAt {
  int first, second, counts, running_mean, running_var, mean, invstd;
};
// `part(first, second, count)` gives the moments of one process's channel.
template <class F>
Status Gather(const char* op, const GatherAt& at, double momentum, double eps, const Run& t, F part) {
  const int64_t channels = t[at.mean].numel(), processes = t[at.counts].numel();
  const Values<double> first(t[at.first]), second(t[at.second]), counts(t[at.counts]);
  const Scratch<double> mean(channels), invstd(channels), unbiased(channels);
  if (!first.ok() || !second.ok() || !counts.ok() || !mean.ok() || !invstd.ok() || !unbiased.ok())
    return ScratchFailed(op);
  for (int64_t c = 0; c < channels; ++c) {
    Moments total;
    for (int64_t w = 0; w < processes; ++w)
      total.Merge(part(first[w * channels + c], second[w * channels + c], counts[w]));
    mean[c] = total.mean;
    invstd[c] = 1 / std::sqrt(total.Variance() + eps);
    unbiased[c] = total.m2 / (total.count - 1);
  }
  StoreValues(t[at.mean], mean.get());
  StoreValues(t[at.invstd], invstd.get());
  RETURN_IF_ERROR(UpdateRunning(op, At(t, at.running_mean), mean, momentum));
  return UpdateRunning(op, At(t, at.running_var), unbiased, momentum);
}

// Statistics of `processes` processes, one row each.
Status RequireGathered(Call& call, const aclTensor* first, const char* name, const aclTensor* second,
                       const char* second_name, const aclTensor* counts, const char* counts_name) {
  RETURN_IF_ERROR(call.RequireRank(first, name, 2, 2));
  RETURN_IF_ERROR(call.RequireSameShape(second, second_name, first, name));
  if (counts->view.numel() == first->view.dims[0]) return Status();
  return call.Invalid("{} has shape {}, expected [{}], one value per row of {}", counts_name,
                      ShapeString(counts->view), first->view.dims[0], name);
}

}  // namespace

Status aclnn::BatchNormStats(Call& call, const aclTensor* input, double eps, aclTensor* mean,
                             aclTensor* invstd) {
  return LaunchStatistics<InverseDeviation>(call, input, "input", mean, "mean", invstd, "invstd", eps);
}
Status aclnn::BatchNormReduce(Call& call, const aclTensor* x, aclTensor* sum, aclTensor* squareSum) {
  return LaunchStatistics<PowerSums>(call, x, "x", sum, "sum", squareSum, "squareSum");
}

Status aclnn::BatchNormElemt(Call& call, const aclTensor* input, const aclTensor* weight,
                             const aclTensor* bias, aclTensor* mean, aclTensor* invstd, double eps,
                             aclTensor* output) {
  (void)eps;  // invstd includes it
  RETURN_IF_ERROR(RequireBatch(call, input, "input"));
  RETURN_IF_ERROR(call.RequireSameShape(output, "output", input, "input"));
  const int64_t channels = input->view.dims[1];
  RETURN_IF_ERROR(RequireChannels(call, weight, "weight", channels));
  RETURN_IF_ERROR(RequireChannels(call, bias, "bias", channels));
  RETURN_IF_ERROR(RequireChannels(call, mean, "mean", channels));
  RETURN_IF_ERROR(RequireChannels(call, invstd, "invstd", channels));
  if (input->view.empty()) return call.Nothing();
  Operands o;
  const ElementAt at = {o.Input(input), o.Input(weight), o.Input(bias),
                        o.Input(mean),  o.Input(invstd), o.Output(output)};
  const char* op = call.op();
  const bool wide = IsWide(input);
  return call.Launch(o.list(), Cost{3.0 * static_cast<double>(input->view.numel()), o.bytes()},
                     [op, at, wide](const Run& t) {
                       return wide ? Elements<double>(op, at, t) : Elements<float>(op, at, t);
                     });
}

Status aclnn::BatchNormElemtBackward(Call& call, const aclTensor* gradOut, const aclTensor* input,
                                     const aclTensor* mean, const aclTensor* invstd, const aclTensor* weight,
                                     const aclTensor* sumDy, const aclTensor* sumDyXmu, aclTensor* counter,
                                     aclTensor* gradInput) {
  RETURN_IF_ERROR(RequireBatch(call, input, "input"));
  RETURN_IF_ERROR(call.RequireSameShape(gradOut, "gradOut", input, "input"));
  RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", input, "input"));
  const int64_t channels = input->view.dims[1];
  RETURN_IF_ERROR(RequireChannels(call, mean, "mean", channels));
  RETURN_IF_ERROR(RequireChannels(call, invstd, "invstd", channels));
  RETURN_IF_ERROR(RequireChannels(call, weight, "weight", channels));
  RETURN_IF_ERROR(RequireChannels(call, sumDy, "sumDy", channels));
  RETURN_IF_ERROR(RequireChannels(call, sumDyXmu, "sumDyXmu", channels));
  if (input->view.empty()) return call.Nothing();
  Operands o;
  const ElementBackwardAt at = {o.Input(gradOut),  o.Input(input),   o.Input(mean),
                                o.Input(invstd),   o.Input(weight),  o.Input(sumDy),
                                o.Input(sumDyXmu), o.Input(counter), o.Output(gradInput)};
  const char* op = call.op();
  const bool wide = IsWide(input);
  return call.Launch(o.list(), Cost{5.0 * static_cast<double>(input->view.numel()), o.bytes()},
                     [op, at, wide](const Run& t) {
                       return wide ? ElementsBackward<double>(op, at, t) : ElementsBackward<float>(op, at, t);
                     });
}

Status aclnn::BatchNormReduceBackward(Call& call, const aclTensor* gradOut, const aclTensor* input,
                                      const aclTensor* mean, const aclTensor* invstd, const aclTensor* weight,
                                      const bool inputG, const bool weightG, const bool biasG,
                                      aclTensor* sumDy, aclTensor* sumDyXmu, aclTensor* gradWeight,
                                      aclTensor* gradBias) {
  RETURN_IF_ERROR(RequireBatch(call, input, "input"));
  RETURN_IF_ERROR(call.RequireSameShape(gradOut, "gradOut", input, "input"));
  const int64_t channels = input->view.dims[1];
  if (!inputG) sumDy = sumDyXmu = nullptr;
  if (!weightG) gradWeight = nullptr;
  if (!biasG) gradBias = nullptr;
  RETURN_IF_ERROR(RequireChannels(call, mean, "mean", channels));
  RETURN_IF_ERROR(RequireChannels(call, invstd, "invstd", channels));
  RETURN_IF_ERROR(RequireChannels(call, weight, "weight", channels));
  RETURN_IF_ERROR(RequireChannels(call, sumDy, "sumDy", channels));
  RETURN_IF_ERROR(RequireChannels(call, sumDyXmu, "sumDyXmu", channels));
  RETURN_IF_ERROR(RequireChannels(call, gradWeight, "gradWeight", channels));
  RETURN_IF_ERROR(RequireChannels(call, gradBias, "gradBias", channels));
  if (channels == 0) return call.Nothing();
  Operands o;
  const ReduceBackwardAt at = {o.Input(gradOut),     o.Input(input),    o.Input(mean),
                               o.Input(invstd),      o.Output(sumDy),   o.Output(sumDyXmu),
                               o.Output(gradWeight), o.Output(gradBias)};
  const char* op = call.op();
  const bool wide = IsWide(input);
  return call.Launch(o.list(), Cost{4.0 * static_cast<double>(input->view.numel()), o.bytes()},
                     [op, at, wide](const Run& t) {
                       return wide ? ReduceBackward<double>(op, at, t) : ReduceBackward<float>(op, at, t);
                     });
}

Status aclnn::BatchNormGatherStatsWithCounts(Call& call, const aclTensor* input, const aclTensor* mean,
                                             const aclTensor* invstd, aclTensor* runningMean,
                                             aclTensor* runningVar, double momentum, double eps,
                                             const aclTensor* counts, aclTensor* meanAll,
                                             aclTensor* invstdAll) {
  (void)input;  // only its type matters, to implementations that compute in it
  RETURN_IF_ERROR(RequireGathered(call, mean, "mean", invstd, "invstd", counts, "counts"));
  const int64_t channels = mean->view.dims[1];
  RETURN_IF_ERROR(RequireChannels(call, runningMean, "runningMean", channels));
  RETURN_IF_ERROR(RequireChannels(call, runningVar, "runningVar", channels));
  RETURN_IF_ERROR(RequireChannels(call, meanAll, "meanAll", channels));
  RETURN_IF_ERROR(RequireChannels(call, invstdAll, "invstdAll", channels));
  if (mean->view.empty()) return call.Nothing();
  Operands o;
  const GatherAt at = {o.Input(mean),        o.Input(invstd),   o.Input(counts),    o.Output(runningMean),
                       o.Output(runningVar), o.Output(meanAll), o.Output(invstdAll)};
  const char* op = call.op();
  return call.Launch(o.list(), Cost{0, o.bytes()}, [op, at, momentum, eps](const Run& t) -> Status {
    return Gather(op, at, momentum, eps, t, [eps](double m, double s, double n) {
      return Moments{n, m, (1 / (s * s) - eps) * n};
    });
  });
}

Status aclnn::SyncBatchNormGatherStats(Call& call, const aclTensor* totalSum, const aclTensor* totalSquareSum,
                                       const aclTensor* sampleCount, aclTensor* mean, aclTensor* variance,
                                       float momentum, float eps, aclTensor* batchMean,
                                       aclTensor* batchInvstd) {
  RETURN_IF_ERROR(RequireGathered(call, totalSum, "totalSum", totalSquareSum, "totalSquareSum", sampleCount,
                                  "sampleCount"));
  const int64_t channels = totalSum->view.dims[1];
  RETURN_IF_ERROR(RequireChannels(call, mean, "mean", channels));
  RETURN_IF_ERROR(RequireChannels(call, variance, "variance", channels));
  RETURN_IF_ERROR(RequireChannels(call, batchMean, "batchMean", channels));
  RETURN_IF_ERROR(RequireChannels(call, batchInvstd, "batchInvstd", channels));
  if (totalSum->view.empty()) return call.Nothing();
  Operands o;
  const GatherAt at = {o.Input(totalSum),  o.Input(totalSquareSum), o.Input(sampleCount), o.Output(mean),
                       o.Output(variance), o.Output(batchMean),     o.Output(batchInvstd)};
  const char* op = call.op();
  return call.Launch(o.list(), Cost{0, o.bytes()}, [op, at, momentum, eps](const Run& t) -> Status {
    return Gather(op, at, momentum, eps, t, [](double sum, double squares, double n) {
      return Moments{n, sum / n, squares - sum * sum / n};
    });
  });
}

}  // namespace anycann
