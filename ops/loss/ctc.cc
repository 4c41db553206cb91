// Connectionist temporal classification: the likelihood of a label sequence summed over its alignments, in
// the log domain, and its gradient.
#include <cmath>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"

namespace anycann {
namespace {

struct Sample {
  int64_t steps, labels, first_label;  // first_label: index into the dense targets
};

struct Problem {
  int64_t time, batch, classes, blank;
  bool zero_infinity;
  std::vector<Sample> samples;
};

double LogAdd(double a, double b) {
  const double m = std::max(a, b);
  return m == -HUGE_VAL ? m : m + std::log1p(std::exp(std::min(a, b) - m));
}

// One sample: log-probabilities of step t at lp + t * step; states are blank, label, blank, ..., blank.
template <class T>
struct Lattice {
  const T* lp;
  int64_t step;  // distance of consecutive time steps
  const int64_t* label;
  int64_t blank, steps, labels;

  int64_t states() const { return 2 * labels + 1; }
  int64_t ClassOf(int64_t s) const { return s % 2 == 0 ? blank : label[s / 2]; }
  double LogProb(int64_t t, int64_t s) const { return lp[t * step + ClassOf(s)]; }
  bool MaySkip(int64_t s) const { return s >= 2 && s % 2 == 1 && label[s / 2] != label[s / 2 - 1]; }

  // alpha: [steps, width], rows of states() values
  void Forward(double* alpha, int64_t width) const {
    for (int64_t s = 0; s < states(); ++s) alpha[s] = s < 2 ? LogProb(0, s) : -HUGE_VAL;
    for (int64_t t = 1; t < steps; ++t) {
      const double* before = alpha + (t - 1) * width;
      for (int64_t s = 0; s < states(); ++s) {
        double sum = before[s];
        if (s >= 1) sum = LogAdd(sum, before[s - 1]);
        if (MaySkip(s)) sum = LogAdd(sum, before[s - 2]);
        alpha[t * width + s] = sum + LogProb(t, s);
      }
    }
  }
  double Loss(const double* alpha, int64_t width) const {
    if (steps == 0) return labels == 0 ? 0 : HUGE_VAL;
    const double* last = alpha + (steps - 1) * width;
    return -(labels == 0 ? last[0] : LogAdd(last[2 * labels], last[2 * labels - 1]));
  }
  // Subtracts from each class's share what the alignments expect of it; dx is zero on entry.
  void Backward(const T* alpha, int64_t width, double loss, double gradient, T* dx) const {
    std::vector<double> beta(states(), -HUGE_VAL), next(states());
    for (int64_t t = steps - 1; t >= 0; --t) {
      for (int64_t s = 0; s < states(); ++s) {
        if (t == steps - 1) {
          next[s] = s + 2 >= states() ? LogProb(t, s) : -HUGE_VAL;
          continue;
        }
        double sum = beta[s];
        if (s + 1 < states()) sum = LogAdd(sum, beta[s + 1]);
        if (s + 2 < states() && MaySkip(s + 2)) sum = LogAdd(sum, beta[s + 2]);
        next[s] = sum + LogProb(t, s);
      }
      beta.swap(next);
      for (int64_t s = 0; s < states(); ++s) {
        const double both = alpha[t * width + s] + beta[s] + loss - LogProb(t, s);
        if (both != -HUGE_VAL) dx[t * step + ClassOf(s)] -= static_cast<T>(gradient * std::exp(both));
      }
    }
  }
};

Status CheckLabels(const char* op, const int64_t* targets, const Problem& p) {
  for (const Sample& s : p.samples)
    for (int64_t i = 0; i < s.labels; ++i)
      if (const int64_t c = targets[s.first_label + i]; c < 0 || c >= p.classes)
        return Error(kParamInvalid, "{}: targets holds {}, expected classes in [0,{})", op, c, p.classes);
  return Status();
}

template <class T>
Lattice<T> LatticeOf(const Problem& p, int64_t n, const T* lp, const int64_t* targets) {
  const Sample& s = p.samples[n];
  return {lp + n * p.classes, p.batch * p.classes, targets + s.first_label, p.blank, s.steps, s.labels};
}

// t: log-probabilities, targets, loss, alpha
template <class T>
Status Forward(const Run& t, const Problem& p) {
  const Dense lp(t[0], kDTypeOf<T>, Dense::kRead), targets(t[1], DType::kInt64, Dense::kRead);
  RETURN_IF_ERROR(CheckLabels(t.plan().name, targets.ptr<int64_t>(), p));
  const int64_t width = t[3].dims[2], per_sample = p.time * width;
  Buffer<double> alpha = NewBuffer<double>(p.batch * per_sample), loss = NewBuffer<double>(p.batch);
  std::fill_n(alpha.get(), p.batch * per_sample, -HUGE_VAL);
  ParallelFor(p.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Lattice<T> lattice = LatticeOf(p, n, lp.ptr<T>(), targets.ptr<int64_t>());
      if (lattice.steps > 0) lattice.Forward(alpha.get() + n * per_sample, width);
      loss[n] = lattice.Loss(alpha.get() + n * per_sample, width);
    }
  });
  CopyCast(t[2], TensorView::Contiguous(loss.get(), DType::kDouble, t[2].dims, t[2].rank));
  CopyCast(t[3], TensorView::Contiguous(alpha.get(), DType::kDouble, {p.batch, p.time, width}));
  return Status();
}

// t: gradient, log-probabilities, targets, loss, alpha, out
template <class T>
Status Backward(const Run& t, const Problem& p) {
  const Dense grad(t[0], kDTypeOf<T>, Dense::kRead), lp(t[1], kDTypeOf<T>, Dense::kRead),
      targets(t[2], DType::kInt64, Dense::kRead), loss(t[3], kDTypeOf<T>, Dense::kRead),
      alpha(t[4], kDTypeOf<T>, Dense::kRead);
  RETURN_IF_ERROR(CheckLabels(t.plan().name, targets.ptr<int64_t>(), p));
  Dense out(t[5], kDTypeOf<T>, Dense::kWrite);
  const int64_t width = t[4].dims[2], step = p.batch * p.classes, grad_step = t[0].numel() == 1 ? 0 : 1;
  ParallelFor(p.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const Lattice<T> lattice = LatticeOf(p, n, lp.ptr<T>(), targets.ptr<int64_t>());
      const double g = grad.ptr<T>()[n * grad_step], l = loss.ptr<T>()[n];
      const bool nothing = p.zero_infinity && l == HUGE_VAL;
      T* dx = out.ptr<T>() + n * p.classes;
      for (int64_t i = 0; i < p.time; ++i)
        for (int64_t c = 0; c < p.classes; ++c)
          dx[i * step + c] =
              nothing || i >= lattice.steps ? T(0) : static_cast<T>(g * std::exp(lattice.lp[i * step + c]));
      if (!nothing) lattice.Backward(alpha.ptr<T>() + n * p.time * width, width, l, g, dx);
    }
  });
  out.Commit();
  return Status();
}

Status Describe(const Call& call, const aclTensor* log_probs, const aclTensor* targets,
                const aclIntArray* steps, const aclIntArray* labels, int64_t blank, bool zero_infinity,
                Problem* p) {
  RETURN_IF_ERROR(call.RequireRank(log_probs, "logProbs", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(targets, "targets", 1, 2));
  const TensorView &v = log_probs->view, &t = targets->view;
  *p = {v.dims[0], v.dims[1], v.dims[2], blank, zero_infinity, {}};
  if (blank < 0 || blank >= p->classes)
    return call.Invalid("blank is {}, expected a class in [0,{})", blank, p->classes);
  if (!IsInteger(t.dtype))
    return call.Invalid("targets has type {}, expected an integer type", Name(t.dtype));
  if (static_cast<int64_t>(steps->size) != p->batch || static_cast<int64_t>(labels->size) != p->batch)
    return call.Invalid("{} input and {} target lengths were given for a batch of {}", steps->size,
                        labels->size, p->batch);
  if (t.rank == 2 && t.dims[0] != p->batch)
    return call.Invalid("targets has shape {} for a batch of {}", ShapeString(t), p->batch);
  int64_t first = 0;
  for (int64_t n = 0; n < p->batch; ++n) {
    const Sample s{(*steps)[n], (*labels)[n], t.rank == 2 ? n * t.dims[1] : first};
    const int64_t room = t.rank == 2 ? t.dims[1] : t.dims[0] - first;
    if (s.steps < 0 || s.steps > p->time)
      return call.Invalid("inputLengths[{}] is {}, expected a value in [0,{}]", n, s.steps, p->time);
    if (s.labels < 0 || s.labels > room)
      return call.Invalid("targetLengths[{}] is {}, expected a value in [0,{}]", n, s.labels, room);
    first += s.labels;
    p->samples.push_back(s);
  }
  return Status();
}

Status RequireAlpha(const Call& call, const aclTensor* alpha, const Problem& p) {
  int64_t width = 1;
  for (const Sample& s : p.samples) width = std::max(width, 2 * s.labels + 1);
  const TensorView& v = alpha->view;
  if (v.rank == 3 && v.dims[0] == p.batch && v.dims[1] == p.time && v.dims[2] >= width) return Status();
  return call.Invalid("logAlpha has shape {}, expected [{},{},{}] or wider", ShapeString(v), p.batch, p.time,
                      width);
}

}  // namespace

Status aclnn::CtcLoss(Call& call, const aclTensor* logProbs, const aclTensor* targets,
                      const aclIntArray* inputLengths, const aclIntArray* targetlengths, int64_t blank,
                      bool zeroInfinity, aclTensor* negLogLikelihoodOut, aclTensor* logAlphaOut) {
  Problem p;
  RETURN_IF_ERROR(Describe(call, logProbs, targets, inputLengths, targetlengths, blank, zeroInfinity, &p));
  RETURN_IF_ERROR(RequireAlpha(call, logAlphaOut, p));
  if (negLogLikelihoodOut->view.numel() != p.batch)
    return call.Invalid("negLogLikelihoodOut has shape {}, expected [{}]",
                        ShapeString(negLogLikelihoodOut->view), p.batch);
  const double n = static_cast<double>(logAlphaOut->view.numel());
  Status status;
  if (!VisitCompute<kFloatTypes>(logProbs->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(logProbs), In(targets), Out(negLogLikelihoodOut), Out(logAlphaOut)},
                             Cost{50 * n, 8 * n}, [p](const Run& t) { return Forward<T>(t, p); });
      }))
    return Unsupported(call, logProbs->view.dtype);
  return status;
}

Status aclnn::CtcLossBackward(Call& call, const aclTensor* gradOut, const aclTensor* logProbs,
                              const aclTensor* targets, const aclIntArray* inputLengths,
                              const aclIntArray* targetLengths, const aclTensor* negLogLikelihood,
                              const aclTensor* logAlpha, int64_t blank, bool zeroInfinity, aclTensor* out) {
  Problem p;
  RETURN_IF_ERROR(Describe(call, logProbs, targets, inputLengths, targetLengths, blank, zeroInfinity, &p));
  RETURN_IF_ERROR(RequireAlpha(call, logAlpha, p));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", logProbs, "logProbs"));
  if (negLogLikelihood->view.numel() != p.batch)
    return call.Invalid("negLogLikelihood has shape {}, expected [{}]", ShapeString(negLogLikelihood->view),
                        p.batch);
  if (gradOut->view.numel() != 1 && gradOut->view.numel() != p.batch)
    return call.Invalid("gradOut has shape {}, expected [{}]", ShapeString(gradOut->view), p.batch);
  const double n = static_cast<double>(logAlpha->view.numel());
  Status status;
  if (!VisitCompute<kFloatTypes>(logProbs->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch(
            {In(gradOut), In(logProbs), In(targets), In(negLogLikelihood), In(logAlpha), Out(out)},
            Cost{80 * n, 8 * n}, [p](const Run& t) { return Backward<T>(t, p); });
      }))
    return Unsupported(call, logProbs->view.dtype);
  return status;
}

}  // namespace anycann
