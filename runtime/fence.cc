#include "runtime/fence.h"

#include <mutex>

#include "base/clock.h"
#include "runtime/object_pool.h"
#include "runtime/stream.h"

namespace anycann {

ANYCANN_OBJECT(Fence, kFence);

bool Fence::Park(Stream* stream) {
  std::lock_guard<SpinLock> lock(lock_);
  if (done_.load(std::memory_order_relaxed)) return false;
  stream->AddRef();
  stream->next_parked_ = parked_;
  parked_ = stream;
  return true;
}

bool Fence::Leave(Stream* stream) {
  std::lock_guard<SpinLock> lock(lock_);
  for (Stream** link = &parked_; *link != nullptr; link = &(*link)->next_parked_) {
    if (*link != stream) continue;
    *link = stream->next_parked_;
    stream->Unref();  // never the last: the caller has one
    return true;
  }
  return false;
}

void Fence::Complete() {
  Stream* parked;
  {
    std::lock_guard<SpinLock> lock(lock_);
    if (done_.load(std::memory_order_relaxed)) return;
    time_.store(NowNanoseconds(), std::memory_order_relaxed);
    done_.store(true, std::memory_order_release);
    parked = std::exchange(parked_, nullptr);
  }
  while (parked != nullptr) {
    Stream* next = parked->next_parked_;
    parked->Unpark();
    parked->Unref();
    parked = next;
  }
}

}  // namespace anycann
