// Fence: one point in one stream that others wait for. An event holds the fence of its last record; Plans
// that wait hold the fence that was current when they were submitted, so that an event may be recorded again,
// or destroyed.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/spin_lock.h"
#include "runtime/object.h"

namespace anycann {

class Stream;

class Fence : public Object<Fence, ObjectKind::kFence> {
 public:
  bool done() const { return done_.load(std::memory_order_acquire); }
  int64_t time() const { return time_.load(std::memory_order_relaxed); }  // of completion, NowNanoseconds()
  // Marks the point as reached and lets the parked streams go on. No stream's lock held.
  void Complete();
  // Parks `stream` until Complete(). False when it is already done. The stream's lock is held.
  bool Park(Stream* stream);
  // Takes a parked stream off the list. False when Complete() already has it. The stream's lock is held.
  bool Leave(Stream* stream);

  // Where the point lies: set before the fence is shared.
  Ref<Stream> stream;
  uint64_t sequence = 0;

 private:
  SpinLock lock_;
  std::atomic<bool> done_{false};
  std::atomic<int64_t> time_{0};
  Stream* parked_ = nullptr;  // linked through Stream::next_parked_, one reference each
};

}  // namespace anycann
