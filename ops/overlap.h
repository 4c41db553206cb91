// Outputs that share memory with inputs, for kernels that read after they have written.
#pragma once

#include "ops/call.h"

namespace anycann {

// Refuses an output that certainly shares elements with an input: memory without gaps on both sides, and some
// of it the same. Interleaved views are left alone. PyTorch's CPU device refuses the same cases.
Status RequireApart(const Call& call, const aclTensor* out, const char* name, const aclTensor* in,
                    const char* in_name);

}  // namespace anycann
