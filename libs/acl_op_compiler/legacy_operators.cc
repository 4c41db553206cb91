// Operators by name (aclop). Clients fall back to this interface silently when an aclnn operator is missing,
// so an unknown type must answer an error that names it.
#include <string>

#include "acl/acl_op_compiler.h"
#include "base/error.h"
#include "ops/aclop/execute.h"

namespace {

aclError Unknown(const char* function, const char* type) {
  if (type == nullptr) {
    return anycann::RecordError(
        anycann::Error(anycann::kInvalidParam, "{}: opType is a null pointer", function));
  }
  return anycann::RecordError(anycann::Error(
      ACL_ERROR_OP_NOT_FOUND, "{}: operator type {} of the legacy interface is not implemented in AnyCANN {}",
      function, type, ANYCANN_VERSION));
}

}  // namespace

aclError aclopCompileAndExecute(const char* opType, int numInputs, const aclTensorDesc* const inputDesc[],
                                const aclDataBuffer* const inputs[], int numOutputs,
                                const aclTensorDesc* const outputDesc[], aclDataBuffer* const outputs[],
                                const aclopAttr* attr, aclopEngineType, aclopCompileType, const char*,
                                aclrtStream stream) {
  if (!anycann::aclop::Implemented(opType)) return Unknown("aclopCompileAndExecute", opType);
  return anycann::aclop::Execute(
      opType, {numInputs, inputDesc, inputs, numOutputs, outputDesc, outputs, attr, stream, false});
}

aclError aclopCompileAndExecuteV2(const char* opType, int numInputs, aclTensorDesc* inputDesc[],
                                  aclDataBuffer* inputs[], int numOutputs, aclTensorDesc* outputDesc[],
                                  aclDataBuffer* outputs[], aclopAttr* attr, aclopEngineType,
                                  aclopCompileType, const char*, aclrtStream stream) {
  if (!anycann::aclop::Implemented(opType)) return Unknown("aclopCompileAndExecuteV2", opType);
  return anycann::aclop::Execute(
      opType, {numInputs, inputDesc, inputs, numOutputs, outputDesc, outputs, attr, stream, true});
}

// Nothing to compile ahead: a type is there or it is not.
aclError aclopCompile(const char* opType, int, const aclTensorDesc* const[], int,
                      const aclTensorDesc* const[], const aclopAttr*, aclopEngineType, aclopCompileType,
                      const char*) {
  return anycann::aclop::Implemented(opType) ? 0 : Unknown("aclopCompile", opType);
}
