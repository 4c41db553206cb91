// Event: a name for a point in a stream that can be recorded again and again. Waiting, querying and timing
// refer to the record that was the last one when they were submitted.
//
// As in CUDA, an event that was never recorded counts as reached: nobody waits for it.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/export.h"
#include "base/spin_lock.h"
#include "base/status.h"
#include "runtime/fence.h"
#include "runtime/object.h"

namespace anycann {

class Stream;

class ANYCANN_API Event : public Object<Event, ObjectKind::kEvent> {
 public:
  static Status Create(uint32_t flags, Event** out);
  static Status Find(const char* function, void* handle, Event** out);
  static Status Destroy(Event* event);

  Status Record(Stream* stream);
  // `stream` goes on when the event's last record is reached.
  Status Wait(Stream* stream);
  // Forgets the record, in the order of `stream`.
  Status Reset(Stream* stream);

  bool recorded() const;  // ever, and not reset
  bool Reached() const;   // the last record is reached, or there is none
  // Returns when the last record is reached.
  Status Synchronize(int64_t timeout_ns);
  // NowNanoseconds() at the last record; an error when it is not reached.
  Status Timestamp(int64_t* ns) const;

  uint32_t id() const { return id_; }
  uint32_t flags() const { return flags_; }
  // The last record; null when never recorded.
  Ref<Fence> fence() const;
  void SetFence(Ref<Fence> fence);

 private:
  friend class Object<Event, ObjectKind::kEvent>;
  Event() = default;
  ~Event() = default;

  uint32_t id_ = 0, flags_ = 0;
  mutable SpinLock lock_;
  Ref<Fence> fence_;  // lock_
};

}  // namespace anycann
