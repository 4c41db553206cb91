// Losses that compare two tensors element by element, and their gradients.
#include <cmath>

#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/loss/mapped_sum.h"

namespace anycann {
namespace {

template <class T>
T Sign(T d) {
  return d > 0 ? T(1) : d < 0 ? T(-1) : d;  // 0 and NaN as they are
}
// log(1 + e^x) without overflow
template <class T>
T SoftPlus(T x) {
  return std::max(x, T(0)) + math::Log1p(math::Exp(-std::abs(x)));
}
template <class T>
T Logistic(T x) {
  const T e = math::Exp(-std::abs(x));
  return (x >= 0 ? T(1) : e) / (1 + e);
}

// Each loss: value(self, target), gradient with respect to self without the incoming factor.
template <class T>
struct Absolute {
  T Value(T x, T t) const { return std::abs(x - t); }
  T Gradient(T x, T t) const { return Sign(x - t); }
};
template <class T>
struct Squared {
  T Value(T x, T t) const { return (x - t) * (x - t); }
  T Gradient(T x, T t) const { return 2 * (x - t); }
};
template <class T>
struct SmoothAbsolute {
  T beta;
  T Value(T x, T t) const {
    const T d = std::abs(x - t);
    return d < beta ? T(0.5) * d * d / beta : d - T(0.5) * beta;
  }
  T Gradient(T x, T t) const {
    const T d = x - t;
    return std::abs(d) < beta ? d / beta : Sign(d);
  }
};
template <class T>
struct SoftMargin {
  T Value(T x, T t) const { return SoftPlus(-t * x); }
  T Gradient(T x, T t) const { return -t * Logistic(-t * x); }
};
template <class T>
struct Divergence {
  bool log_target;
  T Value(T x, T t) const {
    if (log_target) return math::Exp(t) * (t - x);
    return (t == 0 ? T(0) : t * math::Log(t)) - t * x;
  }
  T Gradient(T, T t) const { return log_target ? -math::Exp(t) : -t; }
};
template <class T>
struct DivergenceOfTarget : Divergence<T> {
  T Gradient(T x, T t) const {
    if (this->log_target) return math::Exp(t) * (t - x + 1);
    return t == 0 ? T(0) : math::Log(t) + 1 - x;  // NaN where the divergence itself is NaN
  }
};
// Binary cross entropy of a probability: the logarithms are cut at -100.
template <class T>
struct CrossEntropy {
  T Value(T x, T t) const {
    const T yes = std::max(math::Log(x), T(-100)), no = std::max(math::Log1p(-x), T(-100));
    return (t - 1) * no - t * yes;
  }
  T Gradient(T x, T t) const { return (x - t) / std::max((1 - x) * x, T(1e-12)); }
};

template <class L, class T>
struct ValueOf {
  L loss;
  T operator()(T x, T t) const { return loss.Value(x, t); }
};
template <class L, class T>
struct WeightedValueOf {
  L loss;
  T operator()(T x, T t, T w) const { return loss.Value(x, t) * w; }
};
template <class L, class T>
struct GradientOf {
  L loss;
  T scale;
  T operator()(T g, T x, T t) const { return loss.Gradient(x, t) * (g * scale); }
};
template <class L, class T>
struct WeightedGradientOf {
  L loss;
  T scale;
  T operator()(T g, T x, T t, T w) const { return loss.Gradient(x, t) * w * (g * scale); }
};

// make(TypeTag<T>) gives the loss. weight may be nullptr.
template <class Make>
Status Loss(Call& call, const aclTensor* self, const aclTensor* target, const aclTensor* weight,
            int64_t reduction, aclTensor* out, double cost, Make make) {
  Reduction r;
  RETURN_IF_ERROR(ToReduction(call, reduction, &r));
  const DType compute = Promote(self->view.dtype, target->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(compute, out, "out"));
  Status status;
  if (!VisitCompute<kFloatTypes>(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const auto loss = make(tag);
        using L = std::decay_t<decltype(loss)>;
        if (weight) {
          status = LaunchLoss<WeightedValueOf<L, T>, T, T, T>(call, {self, target, weight}, out, r,
                                                              WeightedValueOf<L, T>{loss}, cost);
        } else {
          status = LaunchLoss<ValueOf<L, T>, T, T>(call, {self, target}, out, r, ValueOf<L, T>{loss}, cost);
        }
      }))
    return Unsupported(call, compute);
  return status;
}

template <class Make>
Status LossBackward(Call& call, const aclTensor* grad, const aclTensor* self, const aclTensor* target,
                    const aclTensor* weight, int64_t reduction, aclTensor* out, double cost, Make make) {
  Reduction r;
  RETURN_IF_ERROR(ToReduction(call, reduction, &r));
  const DType compute = Promote(self->view.dtype, target->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(compute, out, "out"));
  const double scale = r == Reduction::kMean ? 1.0 / static_cast<double>(out->view.numel()) : 1;
  Status status;
  if (!VisitCompute<kFloatTypes>(compute, [&](auto tag) {
        using T = typename decltype(tag)::type;
        const auto loss = make(tag);
        using L = std::decay_t<decltype(loss)>;
        if (weight) {
          status = LaunchMap<WeightedGradientOf<L, T>, T, T, T, T>(
              call, {grad, self, target, weight}, out, WeightedGradientOf<L, T>{loss, static_cast<T>(scale)},
              cost);
        } else {
          status = LaunchMap<GradientOf<L, T>, T, T, T>(call, {grad, self, target}, out,
                                                        GradientOf<L, T>{loss, static_cast<T>(scale)}, cost);
        }
      }))
    return Unsupported(call, compute);
  return status;
}

template <template <class> class L>
auto Make() {
  return [](auto tag) { return L<typename decltype(tag)::type>{}; };
}
template <template <class> class L, class A>
auto MakeWith(A attribute) {
  return [attribute](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_same_v<A, bool>)
      return L<T>{attribute};
    else
      return L<T>{static_cast<T>(attribute)};
  };
}
auto MakeDivergenceOfTarget(bool log_target) {
  return [log_target](auto tag) { return DivergenceOfTarget<typename decltype(tag)::type>{{log_target}}; };
}

Status RequireBeta(const Call& call, float beta) {
  return beta >= 0 ? Status() : call.Invalid("beta is {}, expected a number that isn't negative", beta);
}

}  // namespace

Status aclnn::L1Loss(Call& call, const aclTensor* self, const aclTensor* target, int64_t reduction,
                     aclTensor* out) {
  return Loss(call, self, target, nullptr, reduction, out, 1, Make<Absolute>());
}
Status aclnn::L1LossBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                             const aclTensor* target, int64_t reduction, aclTensor* gradInput) {
  return LossBackward(call, gradOutput, self, target, nullptr, reduction, gradInput, 1, Make<Absolute>());
}
Status aclnn::MseLoss(Call& call, const aclTensor* self, const aclTensor* target, int64_t reduction,
                      aclTensor* out) {
  return Loss(call, self, target, nullptr, reduction, out, 1, Make<Squared>());
}
Status aclnn::MseLossOut(Call& call, const aclTensor* self, const aclTensor* target, int64_t reduction,
                         aclTensor* out) {
  return Loss(call, self, target, nullptr, reduction, out, 1, Make<Squared>());
}
Status aclnn::MseLossBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                              const aclTensor* target, int64_t reduction, aclTensor* out) {
  return LossBackward(call, gradOutput, self, target, nullptr, reduction, out, 1, Make<Squared>());
}
Status aclnn::SmoothL1Loss(Call& call, const aclTensor* self, const aclTensor* target, int64_t reduction,
                           float beta, aclTensor* result) {
  RETURN_IF_ERROR(RequireBeta(call, beta));
  return Loss(call, self, target, nullptr, reduction, result, 2, MakeWith<SmoothAbsolute>(beta));
}
Status aclnn::SmoothL1LossBackward(Call& call, const aclTensor* gradOut, const aclTensor* self,
                                   const aclTensor* target, int64_t reduction, float beta,
                                   aclTensor* gradInput) {
  RETURN_IF_ERROR(RequireBeta(call, beta));
  return LossBackward(call, gradOut, self, target, nullptr, reduction, gradInput, 2,
                      MakeWith<SmoothAbsolute>(beta));
}
Status aclnn::SoftMarginLoss(Call& call, const aclTensor* self, const aclTensor* target, int64_t reduction,
                             aclTensor* out) {
  return Loss(call, self, target, nullptr, reduction, out, 10, Make<SoftMargin>());
}
Status aclnn::SoftMarginLossBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                     const aclTensor* target, int64_t reduction, aclTensor* out) {
  return LossBackward(call, gradOutput, self, target, nullptr, reduction, out, 10, Make<SoftMargin>());
}

Status aclnn::KlDiv(Call& call, const aclTensor* self, const aclTensor* target, int64_t reduction,
                    bool logTarget, aclTensor* out) {
  return Loss(call, self, target, nullptr, reduction, out, 10, MakeWith<Divergence>(logTarget));
}
Status aclnn::KlDivBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                            const aclTensor* target, int64_t reduction, bool logTarget, aclTensor* out) {
  return LossBackward(call, gradOutput, self, target, nullptr, reduction, out, 5,
                      MakeWith<Divergence>(logTarget));
}
Status aclnn::KlDivTargetBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                  const aclTensor* target, int64_t reduction, bool logTarget,
                                  aclTensor* gradTarget) {
  return LossBackward(call, gradOutput, self, target, nullptr, reduction, gradTarget, 10,
                      MakeDivergenceOfTarget(logTarget));
}

Status aclnn::BinaryCrossEntropy(Call& call, const aclTensor* self, const aclTensor* target,
                                 const aclTensor* weight, int64_t reduction, aclTensor* out) {
  return Loss(call, self, target, weight, reduction, out, 20, Make<CrossEntropy>());
}
Status aclnn::BinaryCrossEntropyBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                         const aclTensor* target, const aclTensor* weightOptional,
                                         int64_t reduction, aclTensor* out) {
  return LossBackward(call, gradOutput, self, target, weightOptional, reduction, out, 3,
                      Make<CrossEntropy>());
}

}  // namespace anycann
