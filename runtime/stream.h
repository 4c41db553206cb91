// Streams: where Plans run in order.
#pragma once

#include "base/export.h"
#include "runtime/plan.h"

namespace anycann {

// Queues `plan` on the client's stream (nullptr: the default stream of the current context) and takes over one
// reference to it.
ANYCANN_API Status Enqueue(void* stream, Plan* plan);

}  // namespace anycann
