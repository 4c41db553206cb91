// The gradient of a gate of experts: from the weights of the chosen ones back to the scores.
#include <algorithm>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct GateGrad {
  bool sigmoid, divide_by_sum;
  float factor, epsilon;
};

// One token: s, the normalised scores of its n experts; dy, the gradients of its k weights.
void GradOfToken(const GateGrad& g, const float* s, const float* dy, const int32_t* chosen, int64_t n,
                 int64_t k, float* dx) {
  std::fill_n(dx, n, 0.0f);
  float sum = g.epsilon, weighted = 0;
  for (int64_t j = 0; j < k; ++j) {
    sum += s[chosen[j]];
    weighted += dy[j] * s[chosen[j]];
  }
  for (int64_t j = 0; j < k; ++j)
    dx[chosen[j]] += g.factor * (g.divide_by_sum ? dy[j] / sum - weighted / (sum * sum) : dy[j]);
  float dot = 0;
  for (int64_t i = 0; i < n && !g.sigmoid; ++i) dot += dx[i] * s[i];
  for (int64_t i = 0; i < n; ++i) dx[i] = s[i] * (g.sigmoid ? dx[i] * (1 - s[i]) : dx[i] - dot);
}

}  // namespace

Status aclnn::MoeGatingTopKBackward(Call& call, const aclTensor* xNorm, const aclTensor* gradY,
                                    const aclTensor* expertIdx, int64_t renorm, int64_t normType,
                                    double routedScalingFactor, double eps, const aclTensor* out) {
  if (renorm != 0 && renorm != 1) return call.Invalid("renorm is {}, expected 0 or 1", renorm);
  if (normType != 0 && normType != 1)
    return call.Invalid("normType is {}, expected 0 (softmax) or 1 (sigmoid)", normType);
  for (const auto& [t, name] : {std::pair{xNorm, "xNorm"}, std::pair{gradY, "gradY"}}) {
    RETURN_IF_ERROR(call.RequireRank(t, name, 2, 2));
    if (!IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected a floating-point type", name, Name(t->view.dtype));
  }
  if (gradY->view.dims[0] != xNorm->view.dims[0])
    return call.Invalid("gradY has shape {}, expected {} rows as xNorm has", ShapeString(gradY->view),
                        xNorm->view.dims[0]);
  RETURN_IF_ERROR(call.RequireSameShape(expertIdx, "expertIdx", gradY, "gradY"));
  RETURN_IF_ERROR(call.RequireDType(expertIdx, "expertIdx", DType::kInt32));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", xNorm, "xNorm"));
  RETURN_IF_ERROR(call.RequireCastable(DType::kFloat, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const GateGrad g = {normType == 1, normType == 1 || renorm == 1, static_cast<float>(routedScalingFactor),
                      static_cast<float>(eps)};
  return call.Launch({In(xNorm), In(gradY), In(expertIdx), Out(out)},
                     Cost{8.0 * static_cast<double>(out->view.numel()), 0}, [g](const Run& t) -> Status {
                       const int64_t rows = t[0].dims[0], n = t[0].dims[1], k = t[1].dims[1];
                       const Values<float> s(t[0]), dy(t[1]);
                       const Values<int32_t> chosen(t[2]);
                       const Scratch<float> dx(rows * n);
                       if (!s.ok() || !dy.ok() || !chosen.ok() || !dx.ok())
                         return ScratchFailed(t.plan().name);
                       for (int64_t i = 0; i < rows * k; ++i)
                         if (chosen[i] < 0 || chosen[i] >= n)
                           return Error(kParamInvalid, "{}: expertIdx has {}, expected 0 to {}",
                                        t.plan().name, chosen[i], n - 1);
                       ParallelFor(rows, std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
                         for (int64_t r = begin; r < end; ++r)
                           GradOfToken(g, s.get() + r * n, dy.get() + r * k, chosen.get() + r * k, n, k,
                                       &dx[r * n]);
                       });
                       StoreValues(t[3], dx.get());
                       return Status();
                     });
}

}  // namespace anycann
