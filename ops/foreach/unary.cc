// The foreach faces of the unary functions, of copy and of zero.
#include "ops/elementwise/unary.h"

#include "aclnn_ops.h"
#include "ops/convert.h"
#include "ops/foreach/foreach.h"

namespace anycann {
namespace {

DType Same(DType t) { return t; }

// out[i] = function(x[i]), computed in `compute(type of x)`.
Status Apply(Call& call, FindKernel find, DType (*compute)(DType), const aclTensorList* x,
             const aclTensorList* out) {
  if (out->size == 0) return call.Nothing();
  if (x->size == 0) return call.Invalid("x is empty, expected {} tensors", out->size);
  const DType type = compute(ForeachType({&x, 1}, {}));
  ElementwiseKernel kernel;
  if (!find(type, &kernel)) return Unsupported(call, type);
  return LaunchForeach(call, {&x, 1}, {}, out, kernel, type);
}

}  // namespace

Status aclnn::ForeachAbs(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindAbs, Same, x, out);
}
Status aclnn::ForeachAcos(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindAcos, ToFloating, x, out);
}
Status aclnn::ForeachAsin(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindAsin, ToFloating, x, out);
}
Status aclnn::ForeachAtan(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindAtan, ToFloating, x, out);
}
Status aclnn::ForeachCos(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindCos, ToFloating, x, out);
}
Status aclnn::ForeachCosh(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindCosh, ToFloating, x, out);
}
Status aclnn::ForeachErf(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindErf, ToFloating, x, out);
}
Status aclnn::ForeachErfc(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindErfc, ToFloating, x, out);
}
Status aclnn::ForeachExp(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindExp, ToFloating, x, out);
}
Status aclnn::ForeachExpm1(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindExpm1, ToFloating, x, out);
}
Status aclnn::ForeachLog(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindLog, ToFloating, x, out);
}
Status aclnn::ForeachLog10(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindLog10, ToFloating, x, out);
}
Status aclnn::ForeachLog1p(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindLog1p, ToFloating, x, out);
}
Status aclnn::ForeachLog2(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindLog2, ToFloating, x, out);
}
Status aclnn::ForeachNeg(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindNeg, Same, x, out);
}
Status aclnn::ForeachReciprocal(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindReciprocal, ToFloating, x, out);
}
Status aclnn::ForeachSigmoid(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindSigmoid, ToFloating, x, out);
}
Status aclnn::ForeachSign(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindSign, Same, x, out);
}
Status aclnn::ForeachSin(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindSin, ToFloating, x, out);
}
Status aclnn::ForeachSinh(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindSinh, ToFloating, x, out);
}
Status aclnn::ForeachSqrt(Call& call, const aclTensorList* x, aclTensorList* out) {
  return Apply(call, FindSqrt, ToFloating, x, out);
}
Status aclnn::ForeachTan(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindTan, ToFloating, x, out);
}
Status aclnn::ForeachTanh(Call& call, const aclTensorList* x, const aclTensorList* out) {
  return Apply(call, FindTanh, ToFloating, x, out);
}

Status aclnn::ForeachCopy(Call& call, const aclTensorList* x, aclTensorList* out) {
  if (out->size == 0) return call.Nothing();
  return LaunchForeach(call, {&x, 1}, {}, out, CopyKernel(out->values[0]->view.dtype),
                       out->values[0]->view.dtype);
}
Status aclnn::ForeachZeroInplace(Call& call, const aclTensorList* x) {
  if (x->size == 0) return call.Nothing();
  std::vector<Arg> operands;
  Cost cost;
  const NamedTensors tensors{"x", TensorsOf(x)};
  RETURN_IF_ERROR(ForeachOperands(call, {}, {&tensors, 1}, &operands, &cost));
  const ForeachLists lists{0, 1, static_cast<int>(x->size)};
  return call.Launch(operands, cost, [lists, kernel = FillKernel(x->values[0]->view.dtype)](const Run& t) {
    const Element zero = {};
    RunForeach(kernel, lists, t, zero.bytes, 0);
    return Status();
  });
}

}  // namespace anycann
