#include "runtime/event.h"

#include <mutex>

#include "base/clock.h"
#include "runtime/object_pool.h"
#include "runtime/stream.h"

namespace anycann {

ANYCANN_OBJECT(Event, kEvent);
namespace {

std::atomic<uint32_t> next_id{1};

// A Plan of kind kEventRecord or kEventWait with its fence as payload.
Plan* FencePlan(const char* name, PlanKind kind, Ref<Fence> fence) {
  Plan* plan = Plan::Create(name, kind);
  if (plan == nullptr) return nullptr;
  plan->payload = fence.get();
  plan->SetKernel([fence = std::move(fence), kind](const Run&) {
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
  *out = e;
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
}

Status Event::Record(Stream* stream) {
  Ref<Fence> fence = Ref<Fence>::Adopt(Fence::New());
  if (!fence) return OutOfMemory("aclrtRecordEvent");
  fence->stream = Ref<Stream>::To(stream);
  Plan* plan = FencePlan("aclrtRecordEvent", PlanKind::kEventRecord, fence);
  if (plan == nullptr) return OutOfMemory("aclrtRecordEvent");
  RETURN_IF_ERROR(stream->Submit(plan));
  SetFence(std::move(fence));
  return Status();
}

Status Event::Wait(Stream* stream) {
  Ref<Fence> f = fence();
  if (!f || f->done()) return Status();
  Plan* plan = FencePlan("aclrtStreamWaitEvent", PlanKind::kEventWait, std::move(f));
  if (plan == nullptr) return OutOfMemory("aclrtStreamWaitEvent");
  return stream->Submit(plan);
}

Status Event::Reset(Stream* stream) {
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

bool Event::recorded() const { return static_cast<bool>(fence()); }

bool Event::Reached() const {
  const Ref<Fence> f = fence();
  return !f || f->done();
}

Status Event::Synchronize(int64_t timeout_ns) {
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
