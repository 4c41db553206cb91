// Products of integers back to floats: (x + integer bias) * weight scale * activation scale + float bias.
#include <atomic>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/norm/operands.h"
#include "ops/quant/quant_param.h"

namespace anycann {
namespace {

struct DequantBiasPlaces {
  int x, weight, activation, bias, out;
};

Status RunDequantBias(const Run& t, const DequantBiasPlaces& at) {
  const int64_t rows = t[at.x].dims[0], n = t[at.x].dims[1];
  const DenseInput x(t[at.x]);
  const DenseOutput y(t[at.out]);
  const Values<float> weight(t[at.weight]);
  const Values<float> activation(t, at.activation);
  const bool whole = at.bias >= 0 && t[at.bias].dtype == DType::kInt32;
  const Values<int32_t> before = whole ? Values<int32_t>(t[at.bias]) : Values<int32_t>();
  const Values<float> after = at.bias >= 0 && !whole ? Values<float>(t[at.bias]) : Values<float>();
  if (!x.ok() || !y.ok() || !weight.ok() || !activation.ok() || !before.ok() || !after.ok())
    return ScratchFailed(t.plan().name);
  const DenseWriter<float> writer(y.view());
  std::atomic<bool> failed{false};
  ParallelFor(rows, std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
    const Scratch<float> row(n);
    if (!row.ok()) {
      failed = true;
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      const int32_t* __restrict p = x.view().ptr<int32_t>() + i * n;
      float* __restrict v = writer.Begin(i * n, row.get());
      const float scale = activation.get() != nullptr ? activation[i] : 1.0f;
      for (int64_t j = 0; j < n; ++j) {
        const uint32_t sum = static_cast<uint32_t>(p[j]) + (whole ? static_cast<uint32_t>(before[j]) : 0);
        v[j] = static_cast<float>(static_cast<int32_t>(sum)) * weight[j] * scale;
      }
      if (after.get() != nullptr)
        for (int64_t j = 0; j < n; ++j) v[j] += after[j];
      writer.End(i * n, n, v);
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  y.Finish();
  return Status();
}

}  // namespace

Status aclnn::DequantBias(Call& call, const aclTensor* x, const aclTensor* weightScale,
                          const aclTensor* activateScaleOptional, const aclTensor* biasOptional,
                          int64_t outputDtype, const aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 2, 2));
  RETURN_IF_ERROR(call.RequireDType(x, "x", DType::kInt32));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", x, "x"));
  if (!IsFloating(out->view.dtype) || outputDtype != static_cast<int64_t>(out->view.dtype))
    return call.Invalid("outputDtype is {}, but out has type {} ({}), expected the same floating type",
                        outputDtype, Name(out->view.dtype), static_cast<int>(out->view.dtype));
  const int64_t rows = x->view.dims[0], n = x->view.dims[1];
  const struct {
    const aclTensor* t;
    const char* name;
    int64_t count;
  } parameters[] = {{weightScale, "weightScale", n},
                    {activateScaleOptional, "activateScaleOptional", rows},
                    {biasOptional, "biasOptional", n}};
  for (const auto& p : parameters) {
    if (p.t == nullptr) continue;
    if (p.t->view.numel() != p.count)
      return call.Invalid("{} has shape {}, expected [{}]", p.name, ShapeString(p.t->view), p.count);
    if (!IsFloating(p.t->view.dtype) && !(p.t == biasOptional && p.t->view.dtype == DType::kInt32))
      return call.Invalid("{} has type {}, expected a floating type{}", p.name, Name(p.t->view.dtype),
                          p.t == biasOptional ? " or int32" : "");
  }
  if (x->view.empty()) return call.Nothing();
  Operands o;
  const DequantBiasPlaces at = {o.Input(x), o.Input(weightScale), o.Input(activateScaleOptional),
                                o.Input(biasOptional), o.Output(out)};
  return call.Launch(o.list(), Cost{3.0 * static_cast<double>(x->view.numel()), o.bytes()},
                     [at](const Run& t) { return RunDequantBias(t, at); });
}

}  // namespace anycann
