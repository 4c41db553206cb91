#include "runtime/event.h"

#include <mutex>

#include "base/clock.h"
#include "runtime/object_pool.h"
#include "runtime/stream.h"

namespace anycann {

ANYCANN_OBJECT(Event, kEvent);
namespace {

std::atomic<uint32_t> next_id{1};

// A Plan of kind kEventRecord or kEventWait with its fence as payload; `flag` is raised when it is reached.
Plan* FencePlan(const char* name, PlanKind kind, Ref<Fence> fence, Event* flag) {
  Plan* plan = Plan::Create(name, kind);
  if (plan == nullptr) return nullptr;
  plan->payload = fence.get();
  plan->SetKernel([fence = std::move(fence), flag = Ref<Event>::To(flag), kind](const Run&) {
    if (flag) flag->RaiseFlag();
    if (kind == PlanKind::kEventRecord) fence->Complete();
    return Status();
  });
  return plan;
}

Status OutOfMemory(const char* function) { return Error(kRtMemoryAllocation, "{}: out of memory", function); }

}  // namespace

Status Event::Create(uint32_t flags, Event** out) {
  Event* e = New();
  if (e == nullptr) return OutOfMemory("aclrtCreateEvent");
  e->id_ = next_id.fetch_add(1, std::memory_order_relaxed);
  e->flags_ = flags;
  e->is_flag_ = (flags & kExternal) != 0;
  *out = e;
  return Status();
}

Status Event::CreateNotify(Event** out) {
  RETURN_IF_ERROR(Create(kExternal, out));
  (*out)->lowers_itself_ = true;
  return Status();
}

Status Event::Find(const char* function, void* handle, Event** out) {
  *out = From(handle);
  if (*out != nullptr) [[likely]]
    return Status();
  if (handle == nullptr) return Error(kRtParamInvalid, "{}: event is null", function);
  return Error(kRtParamInvalid, "{}: event ({}) is not an event, or it was destroyed", function, handle);
}

Status Event::Destroy(Event* event) {
  if (!event->Close())
    return Status(kRtParamInvalid, "aclrtDestroyEvent: the event was destroyed by another thread");
  event->SetFence(Ref<Fence>());
  event->Unref();
  return Status();
}

Ref<Fence> Event::fence() const {
  std::lock_guard<SpinLock> lock(lock_);
  return fence_;
}

void Event::SetFence(Ref<Fence> fence) {
  std::lock_guard<SpinLock> lock(lock_);
  std::swap(fence_, fence);
  captured_by_ = Ref<Model>();
}

void Event::SetCaptured(Ref<Model> model, Progress progress) {
  std::lock_guard<SpinLock> lock(lock_);
  captured_by_ = std::move(model);
  captured_at_ = std::move(progress);
  fence_ = Ref<Fence>();
}

bool Event::captured() const {
  std::lock_guard<SpinLock> lock(lock_);
  return static_cast<bool>(captured_by_);
}

bool Event::TakeFlag(Ref<Fence>* next) {
  std::lock_guard<SpinLock> lock(lock_);
  if (raised_) {
    raised_ = !lowers_itself_;
    return true;
  }
  if (!upcoming_) upcoming_ = Ref<Fence>::Adopt(Fence::New());
  *next = upcoming_;
  return false;
}

void Event::RaiseFlag() {
  Ref<Fence> waited_for;
  {
    std::lock_guard<SpinLock> lock(lock_);
    raised_ = true;
    std::swap(waited_for, upcoming_);
  }
  if (waited_for) waited_for->Complete();
}

void Event::LowerFlag() {
  std::lock_guard<SpinLock> lock(lock_);
  raised_ = false;
}

// A Plan that raises or lowers the flag when the stream gets there; it may run any number of times.
Status Event::SubmitFlag(Stream* stream, const char* name, PlanKind kind, bool raise) {
  Plan* plan = Plan::Create(name, kind);
  if (plan == nullptr) return OutOfMemory(name);
  plan->payload = this;
  plan->SetKernel([event = Ref<Event>::To(this), raise](const Run&) {
    if (raise)
      event->RaiseFlag();
    else
      event->LowerFlag();
    return Status();
  });
  return stream->Submit(plan);
}

Status Event::Record(Stream* stream) {
  const Ref<Model> model = Model::Of(stream);
  if (is_flag_ && model) return SubmitFlag(stream, "aclrtRecordEvent", PlanKind::kMarker, true);
  if (model) return model->RecordEvent(stream, this);
  Ref<Fence> fence = Ref<Fence>::Adopt(Fence::New());
  if (!fence) return OutOfMemory("aclrtRecordEvent");
  fence->stream = Ref<Stream>::To(stream);
  Plan* plan = FencePlan("aclrtRecordEvent", PlanKind::kEventRecord, fence, is_flag_ ? this : nullptr);
  if (plan == nullptr) return OutOfMemory("aclrtRecordEvent");
  RETURN_IF_ERROR(stream->Submit(plan));
  SetFence(std::move(fence));
  return shared_ != nullptr ? RecordShared(stream) : Status();
}

Status Event::Wait(Stream* stream) {
  if (is_flag_) return SubmitFlag(stream, "aclrtStreamWaitEvent", PlanKind::kFlagWait, false);
  Ref<Fence> f;
  Ref<Model> model;
  Progress progress;
  {
    std::lock_guard<SpinLock> lock(lock_);
    if (!IsElsewhere()) f = fence_;
    model = captured_by_;
    if (model) progress = captured_at_;
  }
  if (model) return model->WaitEvent(stream, this, progress);
  if (!f && shared_ != nullptr) return WaitShared(stream);
  if (!f || f->done()) return Status();
  if (const Ref<Model> into = Model::Of(stream)) {
    into->Invalidate(fmt::format("stream {} waits for event {}, which was recorded outside of the capture",
                                 stream->id(), id_));
    return Error(107024, "aclrtStreamWaitEvent: event {} was recorded outside of the capture of stream {}",
                 id_, stream->id());
  }
  Plan* plan = FencePlan("aclrtStreamWaitEvent", PlanKind::kEventWait, std::move(f), nullptr);
  if (plan == nullptr) return OutOfMemory("aclrtStreamWaitEvent");
  return stream->Submit(plan);
}

Status Event::Reset(Stream* stream) {
  if (is_flag_) return SubmitFlag(stream, "aclrtResetEvent", PlanKind::kMarker, false);
  if (stream->capture() != nullptr) return Status();  // dependencies within a capture need no flags
  Plan* plan = Plan::Create("aclrtResetEvent", PlanKind::kMarker);
  if (plan == nullptr) return OutOfMemory("aclrtResetEvent");
  // Only the record that this reset can see is forgotten, not one that was made since.
  plan->SetKernel([event = Ref<Event>::To(this), seen = fence()](const Run&) {
    std::lock_guard<SpinLock> lock(event->lock_);
    if (event->fence_.get() == seen.get()) event->fence_ = Ref<Fence>();
    return Status();
  });
  return stream->Submit(plan);
}

bool Event::recorded() const {
  std::lock_guard<SpinLock> lock(lock_);
  return fence_ || IsElsewhere();
}

bool Event::Reached() const {
  {
    std::lock_guard<SpinLock> lock(lock_);
    if (IsElsewhere()) return shared_->reached >= shared_->submitted;
  }
  const Ref<Fence> f = fence();
  return !f || f->done();
}

Status Event::Synchronize(int64_t timeout_ns) {
  if (captured()) return Error(107028, "event {} was recorded in a capture: it is never reached", id_);
  bool elsewhere;
  {
    std::lock_guard<SpinLock> lock(lock_);
    elsewhere = IsElsewhere();
  }
  if (elsewhere) {
    if (shared_->Await(shared_->submitted, timeout_ns)) return Status();
    return Error(kRtStreamSyncTimeout, "event {}, recorded by another process, was not reached within {} ms",
                 id_, timeout_ns / 1000000);
  }
  const Ref<Fence> f = fence();
  if (!f) return Status();
  return f->stream->WaitFor(f->sequence, timeout_ns);
}

Status Event::Timestamp(int64_t* ns) const {
  const Ref<Fence> f = fence();
  if (!f) return Error(kRtParamInvalid, "event {} was never recorded", id_);
  if (!f->done())
    return Error(507006, "event {} was recorded but is not reached yet; synchronise it first", id_);
  *ns = f->time();
  return Status();
}

}  // namespace anycann
