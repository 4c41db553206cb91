// Runs an operator of the legacy interface by its type.
#pragma once

#include "base/export.h"
#include "ops/aclop/descriptors.h"

namespace anycann::aclop {

// True when the type is implemented.
ANYCANN_API bool Implemented(const char* type);

// Checks the descriptors and enqueues the operator on the client's stream. Returns the code that the door
// returns, with the sentence recorded. `attributes` may be nullptr.
ANYCANN_API int32_t Execute(const char* type, int inputs, const aclTensorDesc* const input_descriptors[],
                            const aclDataBuffer* const input_buffers[], int outputs,
                            const aclTensorDesc* const output_descriptors[],
                            aclDataBuffer* const output_buffers[], const aclopAttr* attributes, void* stream);

}  // namespace anycann::aclop
