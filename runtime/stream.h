// Stream: a FIFO of Plans, with one runner at a time. There is no thread per stream. A Plan runs
//   - on the submitting thread, when the stream is idle and the Plan is small;
//   - on a thread that waits for the stream, or for one that depends on it;
//   - otherwise on one of the device's runners.
//
// Invariant, under lock_: when the head of the queue can run and no one runs it, the stream is on its
// device's ready list, or a thread that waits for it without a deadline (helpers_) is about to look at it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/export.h"
#include "base/spin_lock.h"
#include "base/status.h"
#include "runtime/context.h"
#include "runtime/device.h"
#include "runtime/fence.h"
#include "runtime/object.h"
#include "runtime/plan.h"

namespace anycann {

class Model;

// Queues `plan` on the client's stream (nullptr: the default stream of the current context) and takes over
// one reference to it. An operator's own failure isn't returned here: it stays with the stream.
ANYCANN_API Status Enqueue(void* stream, Plan* plan);

class ANYCANN_API Stream : public Object<Stream, ObjectKind::kStream> {
 public:
  static constexpr int64_t kNever = -1;  // a timeout

  static Status Create(Context* context, uint32_t priority, uint32_t flags, Stream** out);
  // A live stream for the client's handle; nullptr stands for the current context's default stream.
  static Status Find(const char* function, void* handle, Stream** out);
  // Ends the handle after its Plans have run, or with `force` without running those that are still queued.
  static Status Destroy(Stream* stream, bool force);

  Status Submit(Plan* plan);  // records it while the stream is captured
  Status SubmitNow(Plan* plan);
  // As one: the Plans of a replayed graph. Takes over a reference to each.
  Status SubmitAll(Plan* const* plans, size_t count);

  // Waits until all that was submitted has run; runs it on the calling thread where it can. Returns the
  // stream's error once, or kRtStreamSyncTimeout.
  Status Synchronize(int64_t timeout_ns);
  Status WaitFor(uint64_t sequence, int64_t timeout_ns);
  // The same without the error: false when the time is over or the wait can't end.
  bool Await(uint64_t sequence, int64_t timeout_ns);
  uint64_t submitted();
  uint64_t completed() const { return completed_.load(std::memory_order_acquire); }
  bool Idle();
  // Drops what is queued (aclrtStreamAbort); a Plan that runs is finished.
  void Abort();

  Device* device() const { return device_; }
  Context* context() const { return context_; }
  uint32_t id() const { return id_; }
  uint32_t priority() const { return priority_; }
  uint32_t flags() const { return flags_; }
  bool stops_on_failure() const { return stops_on_failure_; }
  void set_stops_on_failure(bool on) { stops_on_failure_ = on; }
  // The model that takes what is submitted; nullptr when it runs.
  Model* capture() const { return capture_.load(std::memory_order_acquire); }
  void set_capture(Model* model) { capture_.store(model, std::memory_order_release); }
  // Kept for the client, without effect here.
  std::atomic<uint32_t> overflow_switch{0}, custom_tag{0}, cache_op_info{0};

  // Of the runtime's other parts.
  void RunReady(int plans);            // a runner, for a stream from the ready list
  void Unpark();                       // a fence is reached, or a callback has ended
  void FinishCallback(Status status);  // the callback at the head has run: it is done
  void KeepError(const Plan* plan, Status status);

 private:
  friend class Object<Stream, ObjectKind::kStream>;
  friend class Fence;
  friend class Device;
  enum class Step { kRan, kEmpty, kBusy, kParked, kTooLong };

  Stream() = default;
  ~Stream();

  bool Push(Plan* plan);          // lock held; false when memory is exhausted
  void Pop();                     // lock held
  Step RunOne(int64_t bound_ns);  // lock held on entry and exit, not in between
  Step StartHead(Plan* plan);     // lock held
  bool PassesWait(Plan* plan);    // lock held; parks the stream when it must wait
  bool ParkOn(Ref<Fence> fence);  // lock held; false when it is reached already
  void Execute(Plan* plan);
  void Finished();                    // lock held; wakes those whose target is reached
  void UnlockAndHandOn();             // lock held on entry: restores the invariant
  void WakeSleepers();                // lock held on entry and exit
  bool HelpOthers(int64_t bound_ns);  // lock not held; the stream is parked on a fence
  bool SleepUntilProgress(uint64_t target, int64_t begin, int64_t timeout_ns, int64_t* report_at);
  Status TimedOut(int64_t timeout_ns);
  void ReportLongWait(int64_t waited_ns);
  std::string DescribeHead();
  Status TakeError();

  Device* device_ = nullptr;
  Context* context_ = nullptr;  // identity only
  uint32_t id_ = 0, priority_ = 0, flags_ = 0;
  std::atomic<bool> stops_on_failure_{false};
  std::atomic<bool> has_error_{false};
  std::atomic<Model*> capture_{nullptr};
  std::atomic<uint64_t> completed_{0};
  std::atomic<uint32_t> progress_{0};  // sleeping waiters wait on it

  SpinLock lock_;           // all below
  bool running_ = false;    // someone runs the Plan that was the head
  bool scheduled_ = false;  // on the device's ready list
  bool parked_ = false;     // the head waits for a fence or a callback
  int helpers_ = 0;         // threads that wait without a deadline and run what they can
  int sleepers_ = 0;        // waiters that sleep on progress_
  uint64_t wake_at_ = 0;    // the lowest sequence that a sleeper waits for
  uint64_t submitted_ = 0;
  Plan** queue_ = nullptr;  // ring, capacity_ a power of two
  size_t head_ = 0, count_ = 0, capacity_ = 0;
  Ref<Fence> waits_for_;           // while parked on a fence
  Stream* next_parked_ = nullptr;  // of the fence's list
  Stream* next_ready_ = nullptr;   // of the device's list
  Status error_;
};

}  // namespace anycann
