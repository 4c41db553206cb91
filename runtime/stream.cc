#include "runtime/stream.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "base/clock.h"
#include "base/error.h"
#include "base/futex.h"
#include "base/log.h"
#include "runtime/callback.h"
#include "runtime/event.h"
#include "runtime/execute.h"
#include "runtime/model.h"
#include "runtime/object_pool.h"

namespace anycann {

ANYCANN_OBJECT(Stream, kStream);
namespace {

// A Plan that is estimated to take less than this runs on the submitting thread when the stream is idle. A
// runner would cost a wake-up for the Plan and another for whoever waits for it (5 to 50 us each, more when
// all cores are in use), and move its operands between caches, while the submitter's own next steps need a
// core that the Plan could use. Estimates are modest: what is estimated at a millisecond takes a tenth to a
// half of that, and that is how late a submitter is that has something better to do.
constexpr int64_t kInlineNanoseconds = 1000000;
// How long a waiter looks for progress before it sleeps.
constexpr int64_t kSpinNanoseconds = 5000;
// When a wait that lasts is reported, first and from then on at double the time.
constexpr int64_t kReportNanoseconds = 5000000000;
// How often a waiter looks again when there are no runners, and so no one who would wake it.
constexpr int64_t kPollNanoseconds = 1000000;
// Dependencies that a waiter follows from stream to stream.
constexpr int kMaxHops = 32;

std::atomic<uint32_t> next_id{1};

bool IsWork(const Plan& plan) { return plan.kind == PlanKind::kKernel || plan.kind == PlanKind::kCopy; }

bool RunsAtOnce(const Plan& plan) {
  if (plan.kind == PlanKind::kEventWait || plan.kind == PlanKind::kFlagWait ||
      plan.kind == PlanKind::kHostCallback)
    return false;
  return EstimateNanoseconds(plan) <= kInlineNanoseconds || !Device::HasRunners();
}

// Lets go of a Plan that won't run. Those who wait for its event must not wait forever.
void Drop(Plan* plan) {
  if (plan->kind == PlanKind::kEventRecord) static_cast<Fence*>(plan->payload)->Complete();
  plan->Unref();
}

}  // namespace

Status Enqueue(void* handle, Plan* plan) {
  Stream* stream;
  Status status = Stream::Find(plan->name, handle, &stream);
  if (!status.ok()) [[unlikely]] {
    plan->Unref();
    return status;
  }
  return stream->Submit(plan);
}

Status Stream::Find(const char* function, void* handle, Stream** out) {
  if (handle == nullptr) {
    Context* context = Context::Current();
    if (context == nullptr)
      return Error(
          kRtInvalidContext,
          "{}: stream is null and the calling thread has no device; call aclrtSetDevice in this thread first",
          function);
    *out = context->DefaultStream();
    return *out != nullptr ? Status()
                           : Error(kRtMemoryAllocation, "{}: out of memory for the default stream", function);
  }
  *out = From(handle);
  if (*out != nullptr) [[likely]]
    return Status();
  return Error(kRtParamInvalid, "{}: stream ({}) is not a stream, or it was destroyed", function, handle);
}

Status Stream::Create(Context* context, uint32_t priority, uint32_t flags, Stream** out) {
  Stream* s = New();
  if (s == nullptr) return Status(kRtMemoryAllocation, "out of memory for a stream");
  s->device_ = context->device();
  s->context_ = context;
  s->id_ = next_id.fetch_add(1, std::memory_order_relaxed);
  s->priority_ = std::min<uint32_t>(priority, Device::kPriorities - 1);
  s->flags_ = flags;
  s->device_->AddStream(s);
  *out = s;
  return Status();
}

Status Stream::Destroy(Stream* s, bool force) {
  if (!s->alive()) return Status(kRtParamInvalid, "the stream was destroyed");
  if (force) s->Abort();
  Status status = s->Synchronize(kNever);
  if (!s->Close()) return Status(kRtParamInvalid, "the stream was destroyed by another thread");
  s->device_->RemoveStream(s);
  s->Unref();
  return force ? Status() : status;
}

Stream::~Stream() {
  for (size_t i = 0; i < count_; ++i) Drop(queue_[(head_ + i) & (capacity_ - 1)]);
  std::free(queue_);
}

bool Stream::Push(Plan* plan) {
  if (count_ == capacity_) {
    const size_t grown = capacity_ ? capacity_ * 2 : 32;
    auto** queue = static_cast<Plan**>(std::malloc(grown * sizeof(Plan*)));
    if (queue == nullptr) return false;
    for (size_t i = 0; i < count_; ++i) queue[i] = queue_[(head_ + i) & (capacity_ - 1)];
    std::free(queue_);
    queue_ = queue;
    head_ = 0;
    capacity_ = grown;
  }
  queue_[(head_ + count_++) & (capacity_ - 1)] = plan;
  ++submitted_;
  if (plan->kind == PlanKind::kEventRecord) static_cast<Fence*>(plan->payload)->sequence = submitted_;
  return true;
}

void Stream::Pop() {
  head_ = (head_ + 1) & (capacity_ - 1);
  --count_;
}

Status Stream::Submit(Plan* plan) {
  if (capture_.load(std::memory_order_relaxed) != nullptr) [[unlikely]] {
    if (const Ref<Model> model = Model::Of(this)) return model->Record(this, plan);
  }
  return SubmitNow(plan);
}

Status Stream::SubmitNow(Plan* plan) {
  lock_.lock();
  if (!running_ && count_ == 0 && RunsAtOnce(*plan)) {
    running_ = true;
    ++submitted_;
    if (plan->kind == PlanKind::kEventRecord) static_cast<Fence*>(plan->payload)->sequence = submitted_;
    lock_.unlock();
    Execute(plan);
    lock_.lock();
    running_ = false;
    Finished();
    UnlockAndHandOn();
    plan->Unref();
    return Status();
  }
  if (!Push(plan)) {
    lock_.unlock();
    plan->Unref();
    return Status(kRtMemoryAllocation, "out of memory for the stream's queue");
  }
  if (count_ == 1 && !running_) StartHead(plan);
  UnlockAndHandOn();
  return Status();
}

Status Stream::SubmitAll(Plan* const* plans, size_t count) {
  if (const Ref<Model> model = Model::Of(this)) {
    Status status;
    for (size_t i = 0; i < count; ++i) {
      Status one = model->Record(this, plans[i]);
      if (status.ok()) status = std::move(one);
    }
    return status;
  }
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += static_cast<double>(EstimateNanoseconds(*plans[i]));
  lock_.lock();
  const bool idle = count_ == 0 && !running_;
  for (size_t i = 0; i < count; ++i) {
    if (Push(plans[i])) continue;
    lock_.unlock();
    for (; i < count; ++i) plans[i]->Unref();
    return Status(kRtMemoryAllocation, "out of memory for the stream's queue");
  }
  if (idle && (total <= kInlineNanoseconds || !Device::HasRunners())) {
    while (RunOne(Stream::kNever) == Step::kRan) {
    }
  }
  UnlockAndHandOn();
  return Status();
}

// A head that only waits is dealt with at once: no runner needs to wake for it.
Stream::Step Stream::StartHead(Plan* plan) {
  if (plan->kind == PlanKind::kEventWait || plan->kind == PlanKind::kFlagWait) {
    if (!PassesWait(plan)) return Step::kParked;
    Pop();
    Finished();
    plan->Unref();
    return Step::kRan;
  }
  if (plan->kind == PlanKind::kHostCallback) {
    if (!DispatchCallback(this, plan)) {
      KeepError(plan, Status(kRtMemoryAllocation, "out of memory for a callback"));
      Pop();
      Finished();
      plan->Unref();
      return Step::kRan;
    }
    parked_ = true;
    WakeSleepers();
    return Step::kParked;
  }
  return Step::kEmpty;  // ordinary work: for whoever runs the stream
}

bool Stream::PassesWait(Plan* plan) {
  if (plan->kind == PlanKind::kEventWait) return !ParkOn(Ref<Fence>::To(static_cast<Fence*>(plan->payload)));
  auto* event = static_cast<Event*>(plan->payload);
  for (;;) {
    Ref<Fence> next;
    if (event->TakeFlag(&next)) return true;
    if (!next) {
      if (!has_error_) KeepError(plan, Status(kRtMemoryAllocation, "out of memory for a wait"));
      return true;
    }
    if (ParkOn(std::move(next))) return false;
  }
}

bool Stream::ParkOn(Ref<Fence> fence) {
  if (fence->done()) return false;
  parked_ = true;  // before Park: the fence may be reached right after it
  if (!fence->Park(this)) {
    parked_ = false;
    return false;
  }
  waits_for_ = std::move(fence);
  WakeSleepers();  // they can follow the dependency
  return true;
}

Stream::Step Stream::RunOne(int64_t bound_ns) {
  if (running_) return Step::kBusy;
  if (parked_) return Step::kParked;
  if (count_ == 0) return Step::kEmpty;
  Plan* plan = queue_[head_];
  const Step started = StartHead(plan);
  if (started != Step::kEmpty) return started;
  if (bound_ns >= 0 && EstimateNanoseconds(*plan) > std::min(bound_ns, kInlineNanoseconds))
    return Step::kTooLong;
  Pop();
  running_ = true;
  lock_.unlock();
  Execute(plan);
  lock_.lock();
  running_ = false;
  Finished();
  plan->Unref();
  return Step::kRan;
}

void Stream::Execute(Plan* plan) {
  if (has_error_.load(std::memory_order_relaxed) && stops_on_failure_.load(std::memory_order_relaxed) &&
      IsWork(*plan)) [[unlikely]]
    return;
  Status status = ExecutePlan(*plan, device_, id_);
  if (!status.ok()) [[unlikely]] {
    std::lock_guard<SpinLock> lock(lock_);
    KeepError(plan, std::move(status));
  }
}

// The stream's first error is the one that is reported; later ones are usually its consequences. Lock held.
void Stream::KeepError(const Plan*, Status status) {
  if (has_error_.load(std::memory_order_relaxed)) return;
  error_ = std::move(status);
  has_error_.store(true, std::memory_order_release);
}

Status Stream::TakeError() {
  if (!has_error_.load(std::memory_order_acquire)) [[likely]]
    return Status();
  std::lock_guard<SpinLock> lock(lock_);
  has_error_.store(false, std::memory_order_relaxed);
  return std::exchange(error_, Status());
}

void Stream::Finished() {
  const uint64_t completed = completed_.load(std::memory_order_relaxed) + 1;
  completed_.store(completed, std::memory_order_release);
  if (sleepers_ > 0 && completed >= wake_at_) [[unlikely]]
    WakeSleepers();
}

void Stream::WakeSleepers() {
  if (sleepers_ == 0) return;
  progress_.fetch_add(1, std::memory_order_release);
  FutexWake(progress_);
}

void Stream::UnlockAndHandOn() {
  const bool runnable = count_ > 0 && !running_ && !parked_ && !scheduled_;
  if (!runnable) [[likely]] {
    lock_.unlock();
    return;
  }
  if (helpers_ > 0) {
    WakeSleepers();
    lock_.unlock();
    return;
  }
  scheduled_ = true;
  AddRef();
  Device* device = device_;
  const int priority = static_cast<int>(priority_);
  lock_.unlock();
  device->PushReady(this, priority);
}

void Stream::RunReady(int plans) {
  lock_.lock();
  scheduled_ = false;
  for (int i = 0; i < plans && Device::HasRunners(); ++i) {
    if (RunOne(kNever) != Step::kRan) break;
  }
  UnlockAndHandOn();
}

void Stream::Unpark() {
  lock_.lock();
  parked_ = false;
  waits_for_ = Ref<Fence>();
  UnlockAndHandOn();
}

void Stream::FinishCallback(Status status) {
  lock_.lock();
  parked_ = false;
  Plan* plan = nullptr;
  if (count_ > 0 && queue_[head_]->kind == PlanKind::kHostCallback) {
    plan = queue_[head_];
    Pop();
    Finished();
  }
  if (!status.ok()) KeepError(plan, std::move(status));
  UnlockAndHandOn();
  if (plan != nullptr) plan->Unref();
}

bool Stream::Idle() { return completed_.load(std::memory_order_acquire) >= submitted(); }

Status Stream::Synchronize(int64_t timeout_ns) {
  if (const Ref<Model> model = Model::Of(this)) {
    model->Invalidate(fmt::format("stream {} was synchronised during the capture", id_));
    return Error(107027, "stream {} is being captured: nothing runs on it that could be waited for", id_);
  }
  return WaitFor(submitted(), timeout_ns);
}

uint64_t Stream::submitted() {
  std::lock_guard<SpinLock> lock(lock_);
  return submitted_;
}

Status Stream::WaitFor(uint64_t target, int64_t timeout_ns) {
  if (Await(target, timeout_ns)) return TakeError();
  if (CallbackStream() == this)
    return Error(kRtStreamContext,
                 "a callback of stream {} waits for the same stream, which waits for the callback to return",
                 id_);
  return TimedOut(timeout_ns);
}

bool Stream::Await(uint64_t target, int64_t timeout_ns) {
  if (completed_.load(std::memory_order_acquire) >= target) return true;
  if (CallbackStream() == this) return false;
  const int64_t begin = NowNanoseconds();
  const bool bounded = timeout_ns >= 0;
  int64_t report_at = kReportNanoseconds;
  lock_.lock();
  if (!bounded) ++helpers_;
  while (completed_.load(std::memory_order_relaxed) < target) {
    int64_t bound = kNever;
    if (bounded && Device::HasRunners())
      bound = std::max<int64_t>(0, timeout_ns - (NowNanoseconds() - begin));
    const Step step = RunOne(bound);
    if (step == Step::kRan) continue;
    if (step == Step::kParked && waits_for_) {
      lock_.unlock();
      const bool helped = HelpOthers(bound);
      lock_.lock();
      if (helped) continue;
    } else if (step == Step::kTooLong) {
      UnlockAndHandOn();  // a runner takes it
      lock_.lock();
    }
    if (!SleepUntilProgress(target, begin, timeout_ns, &report_at)) break;
  }
  const bool reached = completed_.load(std::memory_order_relaxed) >= target;
  if (!bounded) --helpers_;
  UnlockAndHandOn();
  return reached;
}

// Lock held on entry and exit. Returns when there may be something to do; false when the time is over.
bool Stream::SleepUntilProgress(uint64_t target, int64_t begin, int64_t timeout_ns, int64_t* report_at) {
  lock_.unlock();
  const int64_t spin_until = NowNanoseconds() + kSpinNanoseconds;
  while (completed_.load(std::memory_order_acquire) < target && NowNanoseconds() < spin_until) CpuRelax();
  lock_.lock();
  if (completed_.load(std::memory_order_relaxed) >= target) return true;
  const bool runnable = count_ > 0 && !running_ && !parked_;
  if (runnable && !(timeout_ns >= 0 && scheduled_)) return true;
  wake_at_ = sleepers_ == 0 ? target : std::min(wake_at_, target);
  ++sleepers_;
  const uint32_t expected = progress_.load(std::memory_order_relaxed);
  lock_.unlock();
  const int64_t waited = NowNanoseconds() - begin;
  if (waited >= *report_at) {
    ReportLongWait(waited);
    *report_at *= 2;
  }
  int64_t sleep = *report_at - waited;
  if (timeout_ns >= 0) sleep = std::min(sleep, timeout_ns - waited);
  if (!Device::HasRunners()) sleep = std::min(sleep, kPollNanoseconds);
  if (sleep > 0) FutexWait(progress_, expected, sleep);
  const bool in_time = timeout_ns < 0 || NowNanoseconds() - begin < timeout_ns;
  lock_.lock();
  --sleepers_;
  return in_time;
}

// Runs Plans of the streams that this one waits for, directly or through others. True when any ran, or there
// is no need to.
bool Stream::HelpOthers(int64_t bound_ns) {
  Ref<Fence> fence;
  {
    std::lock_guard<SpinLock> lock(lock_);
    fence = waits_for_;
  }
  if (!fence) return false;
  bool ran = false;
  for (int hop = 0; hop < kMaxHops && !fence->done(); ++hop) {
    Stream* s = fence->stream.get();
    if (s == nullptr || s == this) return ran;
    s->lock_.lock();
    Step step = Step::kRan;
    while (!fence->done() && (step = s->RunOne(bound_ns)) == Step::kRan) ran = true;
    Ref<Fence> deeper = step == Step::kParked ? s->waits_for_ : Ref<Fence>();
    s->UnlockAndHandOn();
    if (!deeper) break;
    fence = std::move(deeper);
  }
  return ran || fence->done();
}

Status Stream::TimedOut(int64_t timeout_ns) {
  return Error(kRtStreamSyncTimeout, "stream {} did not finish within {} ms: {}", id_, timeout_ns / 1000000,
               DescribeHead());
}

std::string Stream::DescribeHead() {
  std::lock_guard<SpinLock> lock(lock_);
  if (count_ == 0) return running_ ? "its last operation is running" : "it is idle";
  const Plan& head = *queue_[head_];
  if (running_)
    return fmt::format("an operation is running, {} ({}) is next of {}", head.name, DescribeOperands(head),
                       count_);
  if (parked_ && head.kind == PlanKind::kHostCallback)
    return fmt::format("{} has not returned ({} operations are queued)", head.name, count_);
  if (parked_) {
    const Stream* other = waits_for_ ? waits_for_->stream.get() : nullptr;
    return fmt::format("it waits for an event of stream {} ({} operations are queued)",
                       other ? other->id() : 0, count_);
  }
  return fmt::format("{} ({}) is next of {}", head.name, DescribeOperands(head), count_);
}

void Stream::ReportLongWait(int64_t waited_ns) {
  Log(LogLevel::kWarning, "a thread has waited {} s for stream {} of device {}: {}", waited_ns / 1000000000,
      id_, device_->index(), DescribeHead());
}

void Stream::Abort() {
  std::vector<Plan*> dropped;
  lock_.lock();
  // A callback that was handed out stays at the head until it returns. A wait passes without its event,
  // unless the event is being reached just now: then Unpark() is on its way and the wait stays for it.
  size_t keep = parked_ ? 1 : 0;
  if (waits_for_ && waits_for_->Leave(this)) {
    parked_ = false;
    waits_for_ = Ref<Fence>();
    keep = 0;
  }
  for (size_t i = keep; i < count_; ++i) dropped.push_back(queue_[(head_ + i) & (capacity_ - 1)]);
  count_ = std::min(count_, keep);
  completed_.fetch_add(dropped.size(), std::memory_order_release);
  WakeSleepers();
  UnlockAndHandOn();
  for (Plan* p : dropped) Drop(p);
}

}  // namespace anycann
