// libnnopbase's doors for executors: repeatable ones, and new addresses between their runs.
#include "aclnn/acl_meta.h"
#include "base/error.h"
#include "ops/door.h"

using anycann::Error;
using anycann::RecordError;
namespace handles = anycann::handles;

namespace {

// Which of the executor's tensors an index counts.
enum class Side { kInput, kOutput, kAny };

// Tensors count one by one, those of a list too (aclnn/conventions.md, section 3).
anycann::Status SetAddress(const char* function, aclOpExecutor* executor, Side side, size_t index,
                           void* address) {
  if (executor == nullptr) return Error(anycann::kInnerNullptr, "{}: executor is null", function);
  if (!handles::Alive(executor)) return Error(anycann::kParamInvalid, "{}: executor is not alive", function);
  if (!executor->repeatable)
    return Error(anycann::kParamInvalid,
                 "{}: the executor of {} is not repeatable: call aclSetAclOpExecutorRepeatable first",
                 function, executor->op);
  const size_t inputs = static_cast<size_t>(executor->inputs),
               outputs = static_cast<size_t>(executor->outputs);
  const size_t count = side == Side::kInput ? inputs : side == Side::kOutput ? outputs : inputs + outputs;
  if (index >= count)
    return Error(anycann::kParamInvalid, "{}: index is {}, {} has {} such tensors", function, index,
                 executor->op, count);
  const bool output = side == Side::kOutput || (side == Side::kAny && index >= inputs);
  if (side == Side::kAny && output) index -= inputs;
  return anycann::SetOperandAddress(function, executor, output, static_cast<int>(index), address);
}

aclnnStatus SetTensorAddress(const char* function, aclOpExecutor* executor, Side side, size_t index,
                             const aclTensor* tensor, void* address) {
  if (tensor == nullptr) return RecordError(Error(anycann::kInnerNullptr, "{}: tensor is null", function));
  return RecordError(SetAddress(function, executor, side, index, address));
}

aclnnStatus SetListAddress(const char* function, aclOpExecutor* executor, Side side, size_t ir_index,
                           size_t relative, const aclTensorList* tensors, void* address) {
  if (tensors == nullptr) return RecordError(Error(anycann::kInnerNullptr, "{}: tensors is null", function));
  if (!handles::Alive(tensors))
    return RecordError(Error(anycann::kParamInvalid, "{}: tensors is not alive", function));
  if (relative >= tensors->size)
    return RecordError(Error(anycann::kParamInvalid, "{}: relativeIndex is {}, the list has {} tensors",
                             function, relative, tensors->size));
  return RecordError(SetAddress(function, executor, side, ir_index + relative, address));
}

}  // namespace

extern "C" {

aclnnStatus aclSetAclOpExecutorRepeatable(aclOpExecutor* executor) {
  if (executor == nullptr)
    return RecordError(Error(anycann::kInnerNullptr, "aclSetAclOpExecutorRepeatable: executor is null"));
  if (!handles::Alive(executor))
    return RecordError(Error(anycann::kParamInvalid,
                             "aclSetAclOpExecutorRepeatable: executor is not alive: it already ran"));
  executor->repeatable = true;
  return 0;
}

aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor* executor) {
  if (executor == nullptr)
    return RecordError(Error(anycann::kInnerNullptr, "aclDestroyAclOpExecutor: executor is null"));
  if (handles::Destroy(executor)) return 0;
  return RecordError(Error(anycann::kParamInvalid, "aclDestroyAclOpExecutor: {} is not a live aclOpExecutor",
                           static_cast<const void*>(executor)));
}

aclnnStatus aclSetInputTensorAddr(aclOpExecutor* executor, const size_t index, aclTensor* tensor,
                                  void* addr) {
  return SetTensorAddress("aclSetInputTensorAddr", executor, Side::kInput, index, tensor, addr);
}
aclnnStatus aclSetOutputTensorAddr(aclOpExecutor* executor, const size_t index, aclTensor* tensor,
                                   void* addr) {
  return SetTensorAddress("aclSetOutputTensorAddr", executor, Side::kOutput, index, tensor, addr);
}
aclnnStatus aclSetTensorAddr(aclOpExecutor* executor, const size_t index, aclTensor* tensor, void* addr) {
  return SetTensorAddress("aclSetTensorAddr", executor, Side::kAny, index, tensor, addr);
}
aclnnStatus aclSetDynamicInputTensorAddr(aclOpExecutor* executor, size_t irIndex, const size_t relativeIndex,
                                         aclTensorList* tensors, void* addr) {
  return SetListAddress("aclSetDynamicInputTensorAddr", executor, Side::kInput, irIndex, relativeIndex,
                        tensors, addr);
}
aclnnStatus aclSetDynamicOutputTensorAddr(aclOpExecutor* executor, size_t irIndex, const size_t relativeIndex,
                                          aclTensorList* tensors, void* addr) {
  return SetListAddress("aclSetDynamicOutputTensorAddr", executor, Side::kOutput, irIndex, relativeIndex,
                        tensors, addr);
}
aclnnStatus aclSetDynamicTensorAddr(aclOpExecutor* executor, size_t irIndex, const size_t relativeIndex,
                                    aclTensorList* tensors, void* addr) {
  return SetListAddress("aclSetDynamicTensorAddr", executor, Side::kAny, irIndex, relativeIndex, tensors,
                        addr);
}

}  // extern "C"
