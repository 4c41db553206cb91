// Events between processes: counts in shared memory. A stream that waits for another process is parked like
// for a host function, with a thread that sleeps on the shared futex.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <mutex>

#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"
#include "runtime/event.h"
#include "runtime/stream.h"
#include "runtime/virtual_memory.h"

namespace anycann {
namespace {

constexpr size_t kPage = 4096;
// How often a thread that waits for another process says so.
constexpr int64_t kReportNanoseconds = 5000000000;

}  // namespace

void Event::Shared::Reach(uint64_t record) {
  uint64_t seen = reached.load();
  while (seen < record && !reached.compare_exchange_weak(seen, record)) {
  }
  time.store(NowNanoseconds());
  bell.fetch_add(1);
  FutexWake(bell, INT_MAX, true);
}

bool Event::Shared::Await(uint64_t record, int64_t timeout_ns) {
  const int64_t begin = NowNanoseconds();
  int64_t report_at = kReportNanoseconds;
  for (;;) {
    const uint32_t ring = bell.load();
    if (reached.load() >= record) return true;
    const int64_t waited = NowNanoseconds() - begin;
    if (timeout_ns >= 0 && waited >= timeout_ns) return false;
    if (waited >= report_at) {
      Log(LogLevel::kWarning, "a thread has waited {} s for an event that another process recorded",
          waited / 1000000000);
      report_at *= 2;
    }
    int64_t sleep = report_at - waited;
    if (timeout_ns >= 0) sleep = std::min(sleep, timeout_ns - waited);
    FutexWait(bell, ring, sleep, true);
  }
}

Event::~Event() {
  if (shared_ != nullptr) munmap(shared_, kPage);
  if (shared_fd_ >= 0) close(shared_fd_);
}

bool Event::IsElsewhere() const { return shared_ != nullptr && shared_->submitted.load() > last_record_; }

Status Event::Share(std::string* name) {
  std::lock_guard<SpinLock> lock(lock_);
  if (shared_ == nullptr) {
    int fd = -1;
    RETURN_IF_ERROR(virtual_memory::NewSharedFile("aclrtIpcGetEventHandle", kPage, &fd));
    void* p = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
      close(fd);
      return Status(kRtMemoryAllocation, "aclrtIpcGetEventHandle: out of memory");
    }
    shared_fd_ = fd;
    shared_ = static_cast<Shared*>(p);  // zeros: no records
  }
  *name = fmt::format("anycann-event:{}:{}", getpid(), shared_fd_);
  return Status();
}

Status Event::OpenShared(const std::string& name, Event** out) {
  int pid = 0, number = 0, fd = -1;
  size_t size = 0;
  if (std::sscanf(name.c_str(), "anycann-event:%d:%d", &pid, &number) != 2)
    return Status(kRtParamInvalid, "aclrtIpcOpenEventHandle: handle was not made by aclrtIpcGetEventHandle");
  RETURN_IF_ERROR(virtual_memory::OpenSharedFile("aclrtIpcOpenEventHandle", pid, number, &fd, &size));
  void* p = size == kPage ? mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  close(fd);
  if (p == MAP_FAILED)
    return Status(kRtParamInvalid, "aclrtIpcOpenEventHandle: handle doesn't name an event");
  Event* e = nullptr;
  Status status = Create(0, &e);
  if (!status.ok()) {
    munmap(p, kPage);
    return status;
  }
  e->shared_ = static_cast<Shared*>(p);
  *out = e;
  return Status();
}

// The record's own fence was submitted just before.
Status Event::RecordShared(Stream* stream) {
  const uint64_t record = shared_->submitted.fetch_add(1) + 1;
  {
    std::lock_guard<SpinLock> lock(lock_);
    last_record_ = record;
  }
  Plan* plan = Plan::Create("aclrtRecordEvent", PlanKind::kMarker);
  if (plan == nullptr) return Status(kRtMemoryAllocation, "aclrtRecordEvent: out of memory");
  plan->SetKernel([event = Ref<Event>::To(this), record](const Run&) {
    event->shared_->Reach(record);
    return Status();
  });
  return stream->Submit(plan);
}

Status Event::WaitShared(Stream* stream) {
  const uint64_t record = shared_->submitted.load();
  if (shared_->reached.load() >= record) return Status();
  Plan* plan = Plan::Create("aclrtStreamWaitEvent", PlanKind::kHostCallback);
  if (plan == nullptr) return Status(kRtMemoryAllocation, "aclrtStreamWaitEvent: out of memory");
  plan->SetKernel([event = Ref<Event>::To(this), record](const Run&) {
    event->shared_->Await(record, Stream::kNever);
    return Status();
  });
  return stream->Submit(plan);
}

}  // namespace anycann
