#include "runtime/context.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "runtime/object_pool.h"
#include "runtime/stream.h"

namespace anycann {

ANYCANN_OBJECT(Context, kContext);
namespace {

thread_local Context* current = nullptr;

struct Primaries {
  std::mutex mutex;
  std::vector<Context*> contexts;  // by device
  static Primaries& Get() {
    static Primaries* p = new Primaries{{}, std::vector<Context*>(static_cast<size_t>(Device::Count()))};
    return *p;
  }
};

Status CheckDevice(const char* function, int device) {
  if (Device::Get(device) != nullptr) return Status();
  return Error(kRtInvalidDevice, "{}: device {} does not exist; there are {} (ANYCANN_DEVICES sets how many)",
               function, device, Device::Count());
}

std::atomic<int> default_device{-1};

}  // namespace

void SetDefaultDevice(int device) { default_device.store(device, std::memory_order_relaxed); }
int DefaultDevice() { return default_device.load(std::memory_order_relaxed); }

Context* Context::Current() {
  if (current != nullptr && !current->alive()) [[unlikely]]
    current = nullptr;
  return current;
}

void Context::SetCurrent(Context* context) { current = context; }

Status Context::Create(int device, Context** out) {
  RETURN_IF_ERROR(CheckDevice("aclrtCreateContext", device));
  Context* c = New();
  if (c == nullptr) return Status(kRtMemoryAllocation, "aclrtCreateContext: out of memory");
  c->device_ = Device::Get(device);
  current = *out = c;
  return Status();
}

Status Context::Destroy(Context* context) {
  if (!context->Close()) return Status(kRtInvalidContext, "the context was destroyed");
  context->DestroyStreams(false);
  if (current == context) current = nullptr;
  context->Unref();
  return Status();
}

void Context::DestroyStreams(bool force) {
  for (Stream* s : device_->Streams()) {
    if (s->context() == this) static_cast<void>(Stream::Destroy(s, force));
    s->Unref();
  }
  default_stream_.store(nullptr);
}

Context* Context::Primary(Device* device) {
  Primaries& p = Primaries::Get();
  std::lock_guard<std::mutex> lock(p.mutex);
  Context*& c = p.contexts[static_cast<size_t>(device->index())];
  if (c == nullptr && (c = New()) != nullptr) c->device_ = device;
  return c;
}

bool Context::HasPrimary(Device* device) {
  Primaries& p = Primaries::Get();
  std::lock_guard<std::mutex> lock(p.mutex);
  return p.contexts[static_cast<size_t>(device->index())] != nullptr;
}

void Context::ResetPrimary(Device* device, bool force) {
  Context* c;
  {
    Primaries& p = Primaries::Get();
    std::lock_guard<std::mutex> lock(p.mutex);
    c = std::exchange(p.contexts[static_cast<size_t>(device->index())], nullptr);
  }
  if (c == nullptr) return;
  c->Close();
  c->DestroyStreams(force);
  if (current == c) current = nullptr;
  c->Unref();
}

Stream* Context::DefaultStream() {
  Stream* s = default_stream_.load(std::memory_order_acquire);
  if (s != nullptr) [[likely]]
    return s;
  std::lock_guard<std::mutex> lock(mutex_);
  s = default_stream_.load(std::memory_order_acquire);
  if (s == nullptr && Stream::Create(this, 0, 0, &s).ok())
    default_stream_.store(s, std::memory_order_release);
  return s;
}

Status SetDevice(int device) {
  RETURN_IF_ERROR(CheckDevice("aclrtSetDevice", device));
  Device* d = Device::Get(device);
  Context* c = Context::Primary(d);
  if (c == nullptr) return Status(kRtMemoryAllocation, "aclrtSetDevice: out of memory");
  d->AddUse();
  Context::SetCurrent(c);
  return Status();
}

Status ResetDevice(int device, bool force) {
  RETURN_IF_ERROR(CheckDevice("aclrtResetDevice", device));
  Device* d = Device::Get(device);
  if (force)
    d->ClearUses();
  else if (d->DropUse() > 0)
    return Status();
  Context::ResetPrimary(d, force);
  return Status();
}

Status SynchronizeDevice(int64_t timeout_ns) {
  Context* c = Context::Current();
  if (c == nullptr)
    return Status(kRtInvalidContext,
                  "the calling thread has no device; call aclrtSetDevice in this thread first");
  const int64_t begin = NowNanoseconds();
  Status first;
  for (Stream* s : c->device()->Streams()) {
    const int64_t left =
        timeout_ns < 0 ? Stream::kNever : std::max<int64_t>(0, timeout_ns - (NowNanoseconds() - begin));
    // Nothing runs on a captured stream; to wait for it would spoil the capture.
    Status status = first.ok() && s->capture() == nullptr ? s->Synchronize(left) : Status();
    if (first.ok()) first = std::move(status);
    s->Unref();
  }
  return first;
}

}  // namespace anycann
