// Cross entropy of class scores: logarithm of softmax, likelihood, label smoothing and the z-loss in one pass
// over the scores, and its gradient.
#include <cmath>
#include <optional>

#include "aclnn_ops.h"
#include "ops/elementwise/map.h"
#include "ops/loss/class_positions.h"
#include "ops/loss/mapped_sum.h"
#include "ops/reduce/exp_sum.h"
#include "ops/reduce/extremum.h"
#include "ops/reduce/line_operator.h"

namespace anycann {
namespace {

struct Settings {
  int64_t ignored;
  Reduction reduction;
  double smoothing, z_scale;
  bool weighted;
};

// What the loops over rows need beside the rows.
template <class T>
struct RowParams {
  int64_t ignored;
  double smoothing, z_scale;
  const T* weight;    // per class or nullptr
  double weight_sum;  // over all classes
  T WeightOf(int64_t c) const { return weight ? weight[c] : T(1); }
};

// in: scores, target; out: log-probabilities, loss, log of the sum of exponentials.
template <class T>
void ForwardRow(void* const* out, const void* const* in, int64_t n, void*, const void* params) {
  const auto& p = *static_cast<const RowParams<T>*>(params);
  const T* x = static_cast<const T*>(in[0]);
  const int64_t target = *static_cast<const int64_t*>(in[1]);
  T *y = static_cast<T*>(out[0]), *loss = static_cast<T*>(out[1]), *lse = static_cast<T*>(out[2]);
  const T max = ExtremumOf<Greater>(x, n);
  const T shift = static_cast<T>(std::log(SumOfExp(x, n, max)));
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - max) - shift;
  *lse = max + shift;
  *loss = 0;
  if (target == p.ignored) return;
  double value = -(1 - p.smoothing) * p.WeightOf(target) * y[target];
  if (p.smoothing != 0) {
    const double sum = p.weight ? DotOfValues(y, p.weight, n) : SumOfValues(y, n);
    value -= p.smoothing / static_cast<double>(n) * sum;
  }
  *loss = static_cast<T>(value);
}

// in: log-probabilities, target, incoming gradient, gradient of the z-loss times 2 * z_scale * lse; out:
// gradient.
template <class T>
void BackwardRow(void* const* out, const void* const* in, int64_t n, void*, const void* params) {
  const auto& p = *static_cast<const RowParams<T>*>(params);
  const T* y = static_cast<const T*>(in[0]);
  const int64_t target = *static_cast<const int64_t*>(in[1]);
  const T g = *static_cast<const T*>(in[2]), z = *static_cast<const T*>(in[3]);
  T* dx = static_cast<T*>(out[0]);
  if (target == p.ignored) {
    for (int64_t i = 0; i < n; ++i) dx[i] = z == 0 ? T(0) : z * math::Exp(y[i]);
    return;
  }
  const T part = static_cast<T>(p.smoothing / static_cast<double>(n));
  const T own = static_cast<T>((1 - p.smoothing) * p.WeightOf(target));
  const T likelihood = g * (own + part * static_cast<T>(p.weight_sum)) + z;
  if (p.smoothing == 0) {
    for (int64_t i = 0; i < n; ++i) dx[i] = likelihood * math::Exp(y[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) dx[i] = likelihood * math::Exp(y[i]) - g * part * p.WeightOf(i);
  }
  dx[target] -= g * own;
}

// The weight of all targets that aren't ignored; fails on a target that names no class.
template <class T>
Status WeighTargets(const char* op, const int64_t* target, int64_t n, int64_t classes, const RowParams<T>& p,
                    double* total) {
  *total = 0;
  BadTarget bad;
  for (int64_t i = 0; i < n; ++i) {
    if (target[i] == p.ignored) continue;
    if (target[i] < 0 || target[i] >= classes)
      bad.Set(i);
    else
      *total += p.WeightOf(target[i]);
  }
  return bad.ToStatus(op, target, classes, p.ignored);
}

template <class T>
TensorView Column(T* values, int64_t n) {
  return TensorView::Contiguous(const_cast<std::remove_const_t<T>*>(values), kDTypeOf<std::remove_const_t<T>>,
                                {n, 1});
}

template <class T>
RowParams<T> ParamsOf(const Settings& s, const std::optional<Dense>& weights, int64_t classes) {
  RowParams<T> p{s.ignored, s.smoothing, s.z_scale, weights ? weights->ptr<T>() : nullptr,
                 static_cast<double>(classes)};
  if (p.weight) p.weight_sum = SumOfValues(p.weight, classes);
  return p;
}

// t: scores, targets, weight, loss, log-probabilities, z-loss, lse
template <class T>
Status Forward(const Run& t, const Settings& s) {
  const int64_t n = t[0].dims[0], classes = t[0].dims[1];
  const Dense targets(t[1], DType::kInt64, Dense::kRead);
  std::optional<Dense> weights;
  if (s.weighted) weights.emplace(t[2], kDTypeOf<T>, Dense::kRead);
  const RowParams<T> p = ParamsOf<T>(s, weights, classes);
  double total;
  RETURN_IF_ERROR(WeighTargets(t.plan().name, targets.ptr<int64_t>(), n, classes, p, &total));
  Buffer<T> losses = NewBuffer<T>(n), lse = NewBuffer<T>(n);
  LineKernel k;
  k.inputs = 2;
  k.outputs = 3;
  k.in_types[0] = k.out_types[0] = k.out_types[1] = k.out_types[2] = kDTypeOf<T>;
  k.in_types[1] = DType::kInt64;
  k.line = &ForwardRow<T>;
  k.cost = 4;
  const TensorView outs[] = {t[4], Column(losses.get(), n), Column(lse.get(), n)};
  const TensorView ins[] = {t[0], Column(targets.ptr<const int64_t>(), n)};
  RETURN_IF_ERROR(RunLines(k, outs, ins, 1, &p));
  if (s.reduction == Reduction::kNone) {
    CopyCast(t[3], TensorView::Contiguous(losses.get(), kDTypeOf<T>, {n}));
  } else {
    const double sum = SumOfValues(losses.get(), n);
    StoreAs<double>(t[3], 0, s.reduction == Reduction::kMean ? sum / total : sum);
  }
  if (t[6].numel() == n && n > 0)
    CopyCast(t[6], TensorView::Contiguous(lse.get(), kDTypeOf<T>, t[6].dims, t[6].rank));
  if (t[5].empty()) return Status();
  double z = 0;
  for (int64_t i = 0; i < n; ++i) {
    lse[i] = static_cast<T>(s.z_scale * lse[i] * lse[i]);
    z += lse[i];
  }
  if (s.reduction == Reduction::kNone && t[5].numel() == n)
    CopyCast(t[5], TensorView::Contiguous(lse.get(), kDTypeOf<T>, t[5].dims, t[5].rank));
  else if (t[5].numel() == 1)
    StoreAs<double>(t[5], 0, s.reduction == Reduction::kMean ? z / static_cast<double>(n) : z);
  return Status();
}

// t: gradient, log-probabilities, targets, weight, gradient of the z-loss, lse, out; `z`: the fifth and sixth
// are given
template <class T>
Status Backward(const Run& t, const Settings& s, bool z) {
  const int64_t n = t[1].dims[0], classes = t[1].dims[1];
  const Dense targets(t[2], DType::kInt64, Dense::kRead), grads(t[0], kDTypeOf<T>, Dense::kRead);
  std::optional<Dense> weights, z_grads, lse;
  if (s.weighted) weights.emplace(t[3], kDTypeOf<T>, Dense::kRead);
  if (z) z_grads.emplace(t[4], kDTypeOf<T>, Dense::kRead), lse.emplace(t[5], kDTypeOf<T>, Dense::kRead);
  const RowParams<T> p = ParamsOf<T>(s, weights, classes);
  double total;
  RETURN_IF_ERROR(WeighTargets(t.plan().name, targets.ptr<int64_t>(), n, classes, p, &total));
  const bool mean = s.reduction == Reduction::kMean;
  Buffer<T> factor = NewBuffer<T>(n), z_factor = NewBuffer<T>(n);
  for (int64_t i = 0; i < n; ++i) {
    const T g = grads.ptr<T>()[t[0].numel() == 1 ? 0 : i];
    factor[i] = mean ? static_cast<T>(g / total) : g;
    z_factor[i] = 0;
    if (!z) continue;
    const double gz = z_grads->ptr<T>()[t[4].numel() == 1 ? 0 : i] / (mean ? static_cast<double>(n) : 1);
    z_factor[i] = static_cast<T>(gz * 2 * s.z_scale * lse->ptr<T>()[i]);
  }
  LineKernel k;
  k.inputs = 4;
  k.in_types[0] = k.in_types[2] = k.in_types[3] = k.out_types[0] = kDTypeOf<T>;
  k.in_types[1] = DType::kInt64;
  k.line = &BackwardRow<T>;
  k.cost = 4;
  const TensorView ins[] = {t[1], Column(targets.ptr<const int64_t>(), n), Column(factor.get(), n),
                            Column(z_factor.get(), n)};
  return RunLines(k, {&t[6], 1}, ins, 1, &p);
}

Status CheckSettings(const Call& call, double smoothing, const Settings&) {
  if (smoothing >= 0 && smoothing <= 1) return Status();
  return call.Invalid("labelSmoothing is {}, expected a value in [0,1]", smoothing);
}

// labels and loss of SoftmaxCrossEntropyWithLogits. in: scores, labels; out: gradient, loss.
template <class T>
void LabelsRow(void* const* out, const void* const* in, int64_t n, void*, const void*) {
  const T *x = static_cast<const T*>(in[0]), *label = static_cast<const T*>(in[1]);
  T *gradient = static_cast<T*>(out[0]), *loss = static_cast<T*>(out[1]);
  const T max = ExtremumOf<Greater>(x, n);
  const double sum = SumOfExp(x, n, max), log = std::log(sum);
  const T shift = static_cast<T>(log), scale = static_cast<T>(1 / sum);
  alignas(64) T terms[kExpBlock];
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kExpBlock) {
    const int64_t m = std::min(kExpBlock, n - begin);
    for (int64_t i = 0; i < m; ++i) {
      const T l = label[begin + i], d = x[begin + i] - max;
      terms[i] = l == 0 ? T(0) : l * (shift - d);
      gradient[begin + i] = math::Exp(d) * scale - l;
    }
    total += SumOfValues(terms, m);
  }
  *loss = static_cast<T>(total);
}

}  // namespace

Status aclnn::CrossEntropyLoss(Call& call, const aclTensor* input, const aclTensor* target,
                               const aclTensor* weightOptional, char* reductionOptional, int64_t ignoreIndex,
                               double labelSmoothing, double lseSquareScaleForZloss, bool,
                               const aclTensor* lossOut, const aclTensor* logProbOut,
                               const aclTensor* zlossOut, const aclTensor* lseForZlossOut) {
  Settings s{ignoreIndex, Reduction::kMean, labelSmoothing, lseSquareScaleForZloss,
             weightOptional != nullptr};
  RETURN_IF_ERROR(ToReduction(call, reductionOptional, &s.reduction));
  RETURN_IF_ERROR(CheckSettings(call, labelSmoothing, s));
  RETURN_IF_ERROR(call.RequireRank(input, "input", 2, 2));
  RETURN_IF_ERROR(CheckClasses(call, input, target, weightOptional));
  RETURN_IF_ERROR(call.RequireSameShape(logProbOut, "logProbOut", input, "input"));
  if (s.reduction == Reduction::kNone)
    RETURN_IF_ERROR(call.RequireSameShape(lossOut, "lossOut", target, "target"));
  else if (lossOut->view.numel() != 1)
    return call.Invalid("lossOut has shape {}, expected one element", ShapeString(lossOut->view));
  if (input->view.dims[1] == 0)
    return call.Invalid("input has shape {}, expected classes", ShapeString(input->view));
  const double n = static_cast<double>(input->view.numel());
  Status status;
  if (!VisitCompute<kFloatTypes>(input->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(input), In(target), In(weightOptional ? weightOptional : input),
                              Out(lossOut), Out(logProbOut), Out(zlossOut), Out(lseForZlossOut)},
                             Cost{10 * n, 2.0 * static_cast<double>(input->view.nbytes())},
                             [s](const Run& t) { return Forward<T>(t, s); });
      }))
    return Unsupported(call, input->view.dtype);
  return status;
}

Status aclnn::CrossEntropyLossGrad(Call& call, const aclTensor* gradLoss, const aclTensor* logProb,
                                   const aclTensor* target, const aclTensor* weightOptional,
                                   const aclTensor* gradZlossOptional, const aclTensor* lseForZlossOptional,
                                   char* reductionOptional, int64_t ignoreIndex, double labelSmoothing,
                                   double lseSquareScaleForZloss, const aclTensor* out) {
  Settings s{ignoreIndex, Reduction::kMean, labelSmoothing, lseSquareScaleForZloss,
             weightOptional != nullptr};
  RETURN_IF_ERROR(ToReduction(call, reductionOptional, &s.reduction));
  RETURN_IF_ERROR(CheckSettings(call, labelSmoothing, s));
  RETURN_IF_ERROR(call.RequireRank(logProb, "logProb", 2, 2));
  RETURN_IF_ERROR(CheckClasses(call, logProb, target, weightOptional));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", logProb, "logProb"));
  if (gradLoss->view.numel() != 1)
    RETURN_IF_ERROR(call.RequireSameShape(gradLoss, "gradLoss", target, "target"));
  const bool z = gradZlossOptional && lseForZlossOptional && !gradZlossOptional->view.empty();
  if (z) RETURN_IF_ERROR(call.RequireSameShape(lseForZlossOptional, "lseForZlossOptional", target, "target"));
  if (z && gradZlossOptional->view.numel() != 1)
    RETURN_IF_ERROR(call.RequireSameShape(gradZlossOptional, "gradZlossOptional", target, "target"));
  if (out->view.empty()) return call.Nothing();
  const double n = static_cast<double>(out->view.numel());
  Status status;
  if (!VisitCompute<kFloatTypes>(logProb->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch(
            {In(gradLoss), In(logProb), In(target), In(weightOptional ? weightOptional : logProb),
             In(z ? gradZlossOptional : logProb), In(z ? lseForZlossOptional : logProb), Out(out)},
            Cost{10 * n, 2.0 * static_cast<double>(out->view.nbytes())},
            [s, z](const Run& t) { return Backward<T>(t, s, z); });
      }))
    return Unsupported(call, logProb->view.dtype);
  return status;
}

Status aclnn::SoftmaxCrossEntropyWithLogits(Call& call, const aclTensor* features, aclTensor* labels,
                                            aclTensor* loss, aclTensor* backprop) {
  RETURN_IF_ERROR(call.RequireRank(features, "features", 2, 2));
  RETURN_IF_ERROR(call.RequireSameShape(labels, "labels", features, "features"));
  RETURN_IF_ERROR(call.RequireSameShape(backprop, "backprop", features, "features"));
  const int64_t rows = features->view.dims[0];
  if (loss->view.numel() != rows)
    return call.Invalid("loss has shape {}, expected [{}]", ShapeString(loss->view), rows);
  if (features->view.empty()) return call.Nothing();
  TensorView column = loss->view;  // [rows] or [rows,1]
  if (loss->view.rank == 1)
    column = column.Unsqueeze(1);
  else
    RETURN_IF_ERROR(call.RequireRank(loss, "loss", 1, 2));
  if (column.dims[0] != rows)
    return call.Invalid("loss has shape {}, expected [{}]", ShapeString(loss->view), rows);
  Status status;
  if (!VisitCompute<kFloatTypes>(Promote(features->view.dtype, labels->view.dtype), [&](auto tag) {
        using T = typename decltype(tag)::type;
        LineKernel k;
        k.inputs = k.outputs = 2;
        k.in_types[0] = k.in_types[1] = k.out_types[0] = k.out_types[1] = kDTypeOf<T>;
        k.line = &LabelsRow<T>;
        k.cost = 6;
        status = LaunchLines(call, {Out(backprop), Out(loss, column), In(features), In(labels)}, 1, k, 0, 20);
      }))
    return Unsupported(call, features->view.dtype);
  return status;
}

}  // namespace anycann
