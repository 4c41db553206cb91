#include "ops/optimizer/unscale.h"

#include <atomic>
#include <cmath>
#include <limits>

#include "aclnn_ops.h"
#include "ops/convert.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/foreach/foreach.h"

namespace anycann {
namespace {

template <class T>
struct DividedBy {
  T scale;
  T operator()(T g) const { return g / scale; }
};

// Multiplies by `factor` and notes whether anything was infinite or NaN.
template <class T>
struct Checked {
  T factor;
  std::atomic<bool>* found;
};
template <class T>
void CheckLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  const Checked<T>& c = *static_cast<const Checked<T>*>(params);
  const T factor = c.factor, infinity = std::numeric_limits<T>::infinity();
  const T* g = static_cast<const T*>(in[0]);
  T* r = static_cast<T*>(out[0]);
  int bad = 0;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    bad |= !(std::abs(g[i]) < infinity);
    r[i] = g[i] * factor;
  }
  if (bad) c.found->store(true, std::memory_order_relaxed);
}

}  // namespace

void UnscaleGradients(const Run& t, int first, int count, double scale) {
  for (int i = first; i < first + count; ++i) {
    if (t[i].dtype == DType::kDouble) {
      const DividedBy<double> f{scale};
      RunElementwise(KernelOf<DividedBy<double>, double>(1), {t[i]}, {t[i]}, &f);
    } else {
      const DividedBy<float> f{static_cast<float>(scale)};
      RunElementwise(KernelOf<DividedBy<float>, float>(1), {t[i]}, {t[i]}, &f);
    }
  }
}

// scaledGrads *= invScale; foundInf becomes 1 when one of them was infinite or NaN, and stays as it is
// otherwise.
Status aclnn::ForeachNonFiniteCheckAndUnscale(Call& call, const aclTensorList* scaledGrads,
                                              const aclTensor* foundInf, const aclTensor* invScale) {
  if (scaledGrads->size == 0) return call.Nothing();
  if (foundInf->view.numel() != 1)
    return call.Invalid("foundInf has shape {}, expected one element", ShapeString(foundInf->view));
  if (invScale->view.numel() != 1)
    return call.Invalid("invScale has shape {}, expected one element", ShapeString(invScale->view));
  const NamedTensors grads{"scaledGrads", TensorsOf(scaledGrads)};
  std::vector<Arg> operands;
  Cost cost;
  RETURN_IF_ERROR(ForeachOperands(call, std::span(&grads, 1), std::span(&grads, 1), &operands, &cost));
  operands.push_back(In(invScale));
  operands.push_back(Out(foundInf));
  Status status;
  const bool known = VisitCompute<kFloatTypes>(scaledGrads->values[0]->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ElementwiseKernel kernel;
    kernel.inputs = 1;
    kernel.in_types[0] = kernel.out_types[0] = kDTypeOf<T>;
    kernel.loop = &CheckLoop<T>;
    const int count = static_cast<int>(scaledGrads->size);
    status = call.Launch(operands, cost, [=](const Run& t) -> Status {
      std::atomic<bool> found{false};
      const Checked<T> check{static_cast<T>(ReadDouble(t[2 * count])), &found};
      RunForeach(kernel, {1, 1, count}, t, &check, 0);
      const float one = 1;
      const TensorView& flag = t[2 * count + 1];
      if (found.load()) Convert(flag.data, flag.dtype, &one, DType::kFloat, 1);
      return Status();
    });
  });
  return known ? status : Unsupported(call, scaledGrads->values[0]->view.dtype);
}

// The scale of the next step: backed off after an overflow, grown after growthInterval steps without one.
Status aclnn::AmpUpdateScale(Call& call, const aclTensor* currentScale, const aclTensor* growthTracker,
                             const aclTensor* foundInf, double growthFactor, double backoffFactor,
                             int64_t growthInterval, const aclTensor* updatedScale,
                             const aclTensor* updatedGrowthTracker) {
  const std::pair<const aclTensor*, const char*> all[] = {{currentScale, "currentScale"},
                                                          {growthTracker, "growthTracker"},
                                                          {foundInf, "foundInf"},
                                                          {updatedScale, "updatedScale"},
                                                          {updatedGrowthTracker, "updatedGrowthTracker"}};
  for (const auto& [t, name] : all)
    if (t->view.numel() != 1)
      return call.Invalid("{} has shape {}, expected one element", name, ShapeString(t->view));
  return call.Launch(
      {In(currentScale), In(growthTracker), In(foundInf), Out(updatedScale), Out(updatedGrowthTracker)},
      Cost{4, 20}, [=](const Run& t) -> Status {
        float scale = static_cast<float>(ReadDouble(t[0]));
        int64_t tracker = ReadInt64(t[1]);
        if (ReadDouble(t[2]) != 0) {
          scale = static_cast<float>(scale * backoffFactor);
          tracker = 0;
        } else if ((tracker = arithmetic::Add(tracker, int64_t{1})) == growthInterval) {
          const float grown = static_cast<float>(scale * growthFactor);
          if (std::isfinite(grown)) scale = grown;
          tracker = 0;
        }
        Convert(t[3].data, t[3].dtype, &scale, DType::kFloat, 1);
        Convert(t[4].data, t[4].dtype, &tracker, DType::kInt64, 1);
        return Status();
      });
}

}  // namespace anycann
