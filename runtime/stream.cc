#include "runtime/stream.h"

namespace anycann {

Status Enqueue(void*, Plan* plan) {
  Status status = plan->Invoke();
  plan->Unref();
  return status;
}

}  // namespace anycann
