// Operators by name (aclop). None is implemented: clients fall back to this interface silently when an aclnn
// operator is missing, so an unknown type must answer an error that names it.
#include <string>

#include "acl/acl_op_compiler.h"
#include "base/error.h"

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

aclError aclopCompileAndExecute(const char* opType, int, const aclTensorDesc* const[],
                                const aclDataBuffer* const[], int, const aclTensorDesc* const[],
                                aclDataBuffer* const[], const aclopAttr*, aclopEngineType, aclopCompileType,
                                const char*, aclrtStream) {
  return Unknown("aclopCompileAndExecute", opType);
}

aclError aclopCompileAndExecuteV2(const char* opType, int, aclTensorDesc*[], aclDataBuffer*[], int,
                                  aclTensorDesc*[], aclDataBuffer*[], aclopAttr*, aclopEngineType,
                                  aclopCompileType, const char*, aclrtStream) {
  return Unknown("aclopCompileAndExecuteV2", opType);
}

aclError aclopCompile(const char* opType, int, const aclTensorDesc* const[], int,
                      const aclTensorDesc* const[], const aclopAttr*, aclopEngineType, aclopCompileType,
                      const char*) {
  return Unknown("aclopCompile", opType);
}
