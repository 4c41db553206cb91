// Group normalisation of N samples of C channels of HxW values: each sample's channels are normalised in
// groups.
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "ops/norm/batch.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct Shape {
  int64_t n, c, hw, groups;
  int64_t per_group() const { return c / groups; }
  int64_t slots() const { return n * groups; }
};

Status RequireShape(Call& call, const aclTensor* x, const char* name, const Shape& s) {
  if (!IsFloating(x->view.dtype))
    return call.Invalid("{} has type {}, expected a floating-point type", name, Name(x->view.dtype));
  if (s.n < 0 || s.c < 1 || s.hw < 0 || s.groups < 1 || s.c % s.groups != 0)
    return call.Invalid("N, C, HxW, group are {}, {}, {}, {}: C must be a multiple of group", s.n, s.c, s.hw,
                        s.groups);
  int64_t elements;
  const bool fits = !__builtin_mul_overflow(s.n, s.c, &elements) &&
                    !__builtin_mul_overflow(elements, s.hw, &elements) && x->view.numel() == elements;
  if (fits) return Status();
  return call.Invalid("{} has shape {}, expected N * C * HxW = {} * {} * {} elements", name,
                      ShapeString(x->view), s.n, s.c, s.hw);
}

struct ForwardAt {
  int x, gamma, beta, y, mean, rstd;
};
template <class T>
Status Forward(const char* op, const Shape& s, double eps, double swish, const ForwardAt& at, const Run& t) {
  const DenseInput x(t[at.x]);
  const DenseOutput y(t[at.y]);
  const Values<T> gamma(t, at.gamma), beta(t, at.beta);
  const Scratch<Moments> moments(s.slots());
  const Scratch<T> mean(s.slots()), rstd(s.slots()), center(s.n * s.c), scale(s.n * s.c), shift(s.n * s.c);
  if (!x.ok() || !y.ok() || !gamma.ok() || !beta.ok() || !moments.ok() || !mean.ok() || !rstd.ok() ||
      !center.ok() || !scale.ok() || !shift.ok() ||
      !ChannelMoments({1, s.slots(), s.per_group() * s.hw}, DenseReader<T>(x.view()), moments.get()))
    return ScratchFailed(op);
  for (int64_t g = 0; g < s.slots(); ++g) {
    mean[g] = static_cast<T>(moments[g].mean);
    rstd[g] = static_cast<T>(1 / std::sqrt(moments[g].Variance() + eps));
    for (int64_t d = 0; d < s.per_group(); ++d) {
      const int64_t k = g * s.per_group() + d, c = k % s.c;
      center[k] = mean[g];
      scale[k] = gamma.get() ? rstd[g] * gamma[c] : rstd[g];
      shift[k] = beta.get() ? beta[c] : T(0);
    }
  }
  if (!ChannelApply({1, s.n * s.c, s.hw}, DenseReader<T>(x.view()), center.get(), scale.get(), shift.get(),
                    static_cast<T>(swish), DenseWriter<T>(y.view())))
    return ScratchFailed(op);
  y.Finish();
  if (at.mean >= 0) StoreValues(t[at.mean], mean.get());
  if (at.rstd >= 0) StoreValues(t[at.rstd], rstd.get());
  return Status();
}

Status Launch(Call& call, const aclTensor* x, const aclTensor* gamma, const aclTensor* beta, const Shape& s,
              double eps, double swish, const aclTensor* y, const aclTensor* mean, const aclTensor* rstd) {
  RETURN_IF_ERROR(RequireShape(call, x, "the input", s));
  RETURN_IF_ERROR(call.RequireSameShape(y, "the output", x, "the input"));
  RETURN_IF_ERROR(RequireChannels(call, gamma, "gamma", s.c));
  RETURN_IF_ERROR(RequireChannels(call, beta, "beta", s.c));
  for (const aclTensor* statistic : {mean, rstd})
    if (statistic != nullptr && statistic->view.numel() != s.slots())
      return call.Invalid("mean or rstd has shape {}, expected [{},{}], one value per group of a sample",
                          ShapeString(statistic->view), s.n, s.groups);
  if (x->view.empty()) return call.Nothing();
  Operands o;
  const ForwardAt at = {o.Input(x),  o.Input(gamma), o.Input(beta),
                        o.Output(y), o.Output(mean), o.Output(rstd)};
  const char* op = call.op();
  const bool wide = x->view.dtype == DType::kDouble;
  return call.Launch(o.list(), Cost{6.0 * static_cast<double>(x->view.numel()), o.bytes()},
                     [op, s, eps, swish, at, wide](const Run& t) {
                       return wide ? Forward<double>(op, s, eps, swish, at, t)
                                   : Forward<float>(op, s, eps, swish, at, t);
                     });
}

// Groups of [N, C, ...].
Status LaunchNchw(Call& call, const aclTensor* x, const aclTensor* gamma, const aclTensor* beta,
                  int64_t groups, double eps, double swish, const aclTensor* y, const aclTensor* mean,
                  const aclTensor* rstd) {
  RETURN_IF_ERROR(RequireBatch(call, x, "the input"));
  Shape s{x->view.dims[0], x->view.dims[1], 1, groups};
  for (int i = 2; i < x->view.rank; ++i) s.hw *= x->view.dims[i];
  return Launch(call, x, gamma, beta, s, eps, swish, y, mean, rstd);
}

struct BackwardAt {
  int dy, x, mean, rstd, gamma, dx, dgamma, dbeta;
};

// The gradients of gamma and beta from the sums of every channel of every sample.
template <class T>
Status StoreParameterGradients(const char* op, const Shape& s, const Scratch<double>& sum_dy,
                               const Scratch<double>& sum_dyx, const Values<T>& rstd,
                               const TensorView* dgamma, const TensorView* dbeta) {
  const Scratch<double> g(s.c), b(s.c);
  if (!g.ok() || !b.ok()) return ScratchFailed(op);
  std::fill(g.get(), g.get() + s.c, 0.0);
  std::fill(b.get(), b.get() + s.c, 0.0);
  for (int64_t k = 0; k < s.n * s.c; ++k) {
    g[k % s.c] += sum_dyx[k] * static_cast<double>(rstd[k / s.per_group()]);
    b[k % s.c] += sum_dy[k];
  }
  if (dgamma) StoreValues(*dgamma, g.get());
  if (dbeta) StoreValues(*dbeta, b.get());
  return Status();
}

template <class T>
Status Backward(const char* op, const Shape& s, const BackwardAt& at, const Run& t) {
  const DenseInput dy(t[at.dy]), x(t[at.x]);
  std::optional<DenseOutput> dx;
  if (at.dx >= 0) dx.emplace(t[at.dx]);
  const Values<T> mean(t[at.mean]), rstd(t[at.rstd]), gamma(t, at.gamma);
  const int64_t channels = s.n * s.c;
  const Scratch<T> center(channels), p(channels), q(channels), r(channels);
  const Scratch<double> sum_dy(channels), sum_dyx(channels);
  if (!dy.ok() || !x.ok() || (dx && !dx->ok()) || !mean.ok() || !rstd.ok() || !gamma.ok() || !center.ok() ||
      !p.ok() || !q.ok() || !r.ok() || !sum_dy.ok() || !sum_dyx.ok())
    return ScratchFailed(op);
  for (int64_t k = 0; k < channels; ++k) center[k] = mean[k / s.per_group()];
  const ChannelGrid grid{1, channels, s.hw};
  const DenseReader<T> dy_reader(dy.view()), x_reader(x.view());
  if (!ChannelSums(grid, dy_reader, x_reader, center.get(), sum_dy.get(), sum_dyx.get()))
    return ScratchFailed(op);
  const double count = static_cast<double>(s.per_group() * s.hw);
  for (int64_t g = 0; g < s.slots(); ++g) {
    double sum = 0, sum_x = 0;
    for (int64_t k = g * s.per_group(); k < (g + 1) * s.per_group(); ++k) {
      const double w = gamma.get() ? static_cast<double>(gamma[k % s.c]) : 1;
      sum += w * sum_dy[k];
      sum_x += w * sum_dyx[k];
    }
    const double d = static_cast<double>(rstd[g]);
    for (int64_t k = g * s.per_group(); k < (g + 1) * s.per_group(); ++k) {
      p[k] = gamma.get() ? rstd[g] * gamma[k % s.c] : rstd[g];
      q[k] = static_cast<T>(-d * d * d * sum_x / count);
      r[k] = static_cast<T>(-d * sum / count);
    }
  }
  if (dx) {
    if (!ChannelApplyBackward(grid, dy_reader, x_reader, center.get(), p.get(), q.get(), r.get(),
                              DenseWriter<T>(dx->view())))
      return ScratchFailed(op);
    dx->Finish();
  }
  return StoreParameterGradients(op, s, sum_dy, sum_dyx, rstd, At(t, at.dgamma), At(t, at.dbeta));
}

}  // namespace

Status aclnn::GroupNorm(Call& call, const aclTensor* self, const aclTensor* gamma, const aclTensor* beta,
                        int64_t N, int64_t C, int64_t HxW, int64_t group, double eps, aclTensor* out,
                        aclTensor* meanOut, aclTensor* rstdOut) {
  return Launch(call, self, gamma, beta, {N, C, HxW, group}, eps, 0, out, meanOut, rstdOut);
}
Status aclnn::GroupNormSilu(Call& call, const aclTensor* self, const aclTensor* gamma, const aclTensor* beta,
                            int64_t group, double eps, aclTensor* out, aclTensor* meanOut,
                            aclTensor* rstdOut) {
  return LaunchNchw(call, self, gamma, beta, group, eps, 1, out, meanOut, rstdOut);
}
Status aclnn::GroupNormSiluV2(Call& call, const aclTensor* self, const aclTensor* gamma,
                              const aclTensor* beta, int64_t group, double eps, bool activateSilu,
                              aclTensor* out, aclTensor* meanOut, aclTensor* rstdOut) {
  return LaunchNchw(call, self, gamma, beta, group, eps, activateSilu ? 1 : 0, out, meanOut, rstdOut);
}
Status aclnn::GroupNormSwish(Call& call, const aclTensor* x, const aclTensor* gamma, const aclTensor* beta,
                             int64_t numGroups, char* dataFormatOptional, double eps, bool activateSwish,
                             double swishScale, const aclTensor* yOut, const aclTensor* meanOut,
                             const aclTensor* rstdOut) {
  if (dataFormatOptional != nullptr && std::string_view(dataFormatOptional) != "NCHW")
    return call.Invalid("dataFormatOptional is \"{}\", expected \"NCHW\"", dataFormatOptional);
  return LaunchNchw(call, x, gamma, beta, numGroups, eps, activateSwish ? swishScale : 0, yOut, meanOut,
                    rstdOut);
}

Status aclnn::GroupNormBackward(Call& call, const aclTensor* gradOut, const aclTensor* input,
                                const aclTensor* mean, const aclTensor* rstd, const aclTensor* gamma,
                                int64_t N, int64_t C, int64_t HxW, int64_t group,
                                const aclBoolArray* outputMask, aclTensor* gradInput, aclTensor* gradGammaOut,
                                aclTensor* gradBetaOut) {
  const Shape s{N, C, HxW, group};
  RETURN_IF_ERROR(RequireShape(call, input, "input", s));
  RETURN_IF_ERROR(call.RequireSameShape(gradOut, "gradOut", input, "input"));
  if (outputMask->size != 3) return call.Invalid("outputMask has {} values, expected 3", outputMask->size);
  if (!(*outputMask)[0]) gradInput = nullptr;
  if (!(*outputMask)[1]) gradGammaOut = nullptr;
  if (!(*outputMask)[2]) gradBetaOut = nullptr;
  if (gradInput != nullptr) RETURN_IF_ERROR(call.RequireSameShape(gradInput, "gradInput", input, "input"));
  RETURN_IF_ERROR(RequireChannels(call, mean, "mean", s.slots()));
  RETURN_IF_ERROR(RequireChannels(call, rstd, "rstd", s.slots()));
  RETURN_IF_ERROR(RequireChannels(call, gamma, "gamma", C));
  RETURN_IF_ERROR(RequireChannels(call, gradGammaOut, "gradGammaOut", C));
  RETURN_IF_ERROR(RequireChannels(call, gradBetaOut, "gradBetaOut", C));
  Operands o;
  const BackwardAt at = {o.Input(gradOut),       o.Input(input),       o.Input(mean),
                         o.Input(rstd),          o.Input(gamma),       o.Output(gradInput),
                         o.Output(gradGammaOut), o.Output(gradBetaOut)};
  const char* op = call.op();
  const bool wide = input->view.dtype == DType::kDouble;
  return call.Launch(o.list(), Cost{12.0 * static_cast<double>(input->view.numel()), o.bytes()},
                     [op, s, at, wide](const Run& t) {
                       return wide ? Backward<double>(op, s, at, t) : Backward<float>(op, s, at, t);
                     });
}

}  // namespace anycann
