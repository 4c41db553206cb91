// What is alive of the pooled objects: whoever looks for a leak counts before and after.
#pragma once

#include <cstdint>

#include "base/export.h"

namespace anycann {

// Handles of clients (tensors, scalars, arrays, lists, executors) and Plans of operators together. Walks the
// pools: not for hot paths, and exact only while no other thread makes or ends objects.
ANYCANN_API int64_t LiveObjects();

}  // namespace anycann
