// Rounding over lists of tensors. The modes are those that torch_npu passes.
#include "aclnn_ops.h"
#include "ops/convert.h"
#include "ops/elementwise/unary.h"
#include "ops/foreach/foreach.h"

namespace anycann {
namespace {

FindKernel FunctionOf(int64_t mode) {
  switch (mode) {
    case 1: return &FindRound;
    case 2: return &FindFloor;
    case 3: return &FindCeil;
    case 5: return &FindTrunc;
    case 7: return &FindFrac;
    default: return nullptr;
  }
}

constexpr const char* kModes = "1 (to nearest even), 2 (down), 3 (up), 5 (towards zero) or 7 (the fraction)";

}  // namespace

Status aclnn::ForeachRoundOffNumberV2(Call& call, const aclTensorList* x, const aclScalar* roundMode,
                                      aclTensorList* out) {
  const FindKernel find = FunctionOf(roundMode->value.ToInt64());
  if (find == nullptr)
    return call.Invalid("roundMode is {}, expected {}", roundMode->value.ToInt64(), kModes);
  if (x->size == 0 || out->size == 0) return call.Nothing();
  ElementwiseKernel kernel;
  const DType type = x->values[0]->view.dtype;
  if (!find(type, &kernel)) return Unsupported(call, type);
  return LaunchForeach(call, std::span(&x, 1), {}, out, kernel, type);
}

// The mode lies in a device tensor: known when the Plan runs.
Status aclnn::ForeachRoundOffNumber(Call& call, const aclTensorList* x, const aclTensor* roundMode,
                                    const aclTensorList* out) {
  if (roundMode->view.numel() != 1)
    return call.Invalid("roundMode has shape {}, expected one element", ShapeString(roundMode->view));
  if (x->size == 0 || out->size == 0) return call.Nothing();
  const NamedTensors in{"x", TensorsOf(x)}, to{"out", TensorsOf(out)};
  std::vector<Arg> operands;
  Cost cost;
  RETURN_IF_ERROR(ForeachOperands(call, std::span(&in, 1), std::span(&to, 1), &operands, &cost));
  operands.push_back(In(roundMode));
  const int count = static_cast<int>(x->size);
  const DType type = x->values[0]->view.dtype;
  ElementwiseKernel any;
  if (!FindRound(type, &any)) return Unsupported(call, type);
  return call.Launch(operands, cost, [=](const Run& t) -> Status {
    const int64_t mode = ReadInt64(t[2 * count]);
    const FindKernel find = FunctionOf(mode);
    ElementwiseKernel kernel;
    if (find == nullptr || !find(type, &kernel))
      return Error(kParamInvalid, "aclnnForeachRoundOffNumber: roundMode is {}, expected {}", mode, kModes);
    RunForeach(kernel, {1, 1, count}, t, &mode, 0);
    return Status();
  });
}

}  // namespace anycann
