// Event: a name for a point in a stream that can be recorded again and again. Waiting, querying and timing
// refer to the record that was the last one when they were submitted.
//
// As in CUDA, an event that was never recorded counts as reached: nobody waits for it.
//
// An event that is a flag (ACL_EVENT_EXTERNAL, and every notify) is different: a wait looks at it when the
// stream gets there, and then waits until a record raises it, even one that is submitted later; a reset
// lowers it. So a captured model can wait for something that happens outside of it at each replay.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/export.h"
#include "base/spin_lock.h"
#include "base/status.h"
#include "runtime/fence.h"
#include "runtime/model.h"
#include "runtime/object.h"

namespace anycann {

class Stream;

class ANYCANN_API Event : public Object<Event, ObjectKind::kEvent> {
 public:
  static constexpr uint32_t kExternal = 0x20;  // ACL_EVENT_EXTERNAL

  static Status Create(uint32_t flags, Event** out);
  // A flag that the wait that it lets pass lowers (aclrtCreateNotify).
  static Status CreateNotify(Event** out);
  // For other processes of the same user: the event's name (flag ACL_EVENT_IPC), and an event by that name.
  Status Share(std::string* name);
  static Status OpenShared(const std::string& name, Event** out);
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
  void SetCaptured(Ref<Model> model, Progress progress);
  bool captured() const;  // the last record belongs to a capture

  // Of a flag. TakeFlag: true when it is raised; else the fence that the next record reaches, null without
  // memory.
  bool TakeFlag(Ref<Fence>* next);
  void RaiseFlag();
  void LowerFlag();

 private:
  friend class Object<Event, ObjectKind::kEvent>;
  // What the processes that share an event share: counts of records. `bell` is their futex.
  struct Shared {
    std::atomic<uint64_t> submitted, reached;
    std::atomic<int64_t> time;  // of the last one that was reached
    std::atomic<uint32_t> bell;
    void Reach(uint64_t record);
    bool Await(uint64_t record, int64_t timeout_ns);
  };

  Event() = default;
  ~Event();
  bool IsElsewhere() const;  // lock_ held: the last record was made by another process
  Status RecordShared(Stream* stream);
  Status WaitShared(Stream* stream);
  Status SubmitFlag(Stream* stream, const char* name, PlanKind kind, bool raise);

  uint32_t id_ = 0, flags_ = 0;
  mutable SpinLock lock_;
  Ref<Fence> fence_;  // lock_, like all below
  Ref<Model> captured_by_;
  Progress captured_at_;
  bool is_flag_ = false, lowers_itself_ = false;  // constant
  bool raised_ = false;
  Shared* shared_ = nullptr;  // set once
  int shared_fd_ = -1;
  uint64_t last_record_ = 0;  // its number in *shared_, of the last one made here
  Ref<Fence> upcoming_;       // of the next record, when somebody waits for it
};

}  // namespace anycann
