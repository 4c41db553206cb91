// Runs an operator of the legacy interface by its type.
#pragma once

#include "base/export.h"
#include "ops/aclop/descriptors.h"

namespace anycann::aclop {

// What the client passed. `attributes` may be nullptr.
struct Request {
  int inputs;
  const aclTensorDesc* const* input_descriptors;
  const aclDataBuffer* const* input_buffers;
  int outputs;
  const aclTensorDesc* const* output_descriptors;
  aclDataBuffer* const* output_buffers;
  const aclopAttr* attributes;
  void* stream;
  // Wait for the operator, and write the shapes that its data decided into the output descriptors.
  bool update_shapes;
};

// True when the type is implemented.
ANYCANN_API bool Implemented(const char* type);

// Checks the descriptors and enqueues the operator on the client's stream. Returns the code that the door
// returns, with the sentence recorded.
ANYCANN_API int32_t Execute(const char* type, const Request& request);

}  // namespace anycann::aclop
