#include "runtime/device.h"

#include <algorithm>
#include <cstdlib>

#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"
#include "base/spin_lock.h"
#include "base/thread.h"
#include "runtime/settings.h"
#include "runtime/stream.h"

namespace anycann {
namespace {

// How long a runner looks for the next stream before it sleeps: a wake costs the submitter some microseconds.
constexpr int64_t kSpinNanoseconds = 20000;
// Plans that a runner runs of one stream before it looks at the others.
constexpr int kBatch = 64;

void OnExit() { Device::StopRunners(); }

}  // namespace

std::atomic<bool> Device::runners_allowed_{true};

struct DeviceTable {
  std::vector<Device*> devices;
  DeviceTable() {
    const Settings& s = GetSettings();
    for (int i = 0; i < s.devices; ++i) devices.push_back(new Device(i, s.cores_per_device, s.device_memory));
  }
  static DeviceTable& Get() {
    static DeviceTable* table = new DeviceTable;  // never destroyed: runners use it until the process ends
    return *table;
  }
  // The child of a fork has none of our threads; whatever it submits runs on the submitting thread.
  static void OnFork() { Device::runners_allowed_ = false; }
};

int Device::Count() { return GetSettings().devices; }

Device* Device::Get(int index) {
  DeviceTable& t = DeviceTable::Get();
  if (index < 0 || index >= static_cast<int>(t.devices.size())) return nullptr;
  return t.devices[static_cast<size_t>(index)];
}

int Device::DropUse() {
  int left = uses_.load();
  while (left > 0 && !uses_.compare_exchange_weak(left, left - 1)) {
  }
  return std::max(left - 1, 0);
}

void Device::AddStream(Stream* stream) {
  std::lock_guard<std::mutex> lock(streams_mutex_);
  streams_.push_back(stream);
}

void Device::RemoveStream(Stream* stream) {
  std::lock_guard<std::mutex> lock(streams_mutex_);
  streams_.erase(std::remove(streams_.begin(), streams_.end(), stream), streams_.end());
}

std::vector<Stream*> Device::Streams() {
  std::lock_guard<std::mutex> lock(streams_mutex_);
  for (Stream* s : streams_) s->AddRef();
  return streams_;
}

bool Device::StartRunner() {
  // Not std::call_once: it uses a thread-local variable of libstdc++, which a client may have loaded in a way
  // that our thread-local model can't reach.
  static const bool registered =
      std::atexit(OnExit) == 0 && pthread_atfork(nullptr, nullptr, DeviceTable::OnFork) == 0;
  if (!registered) return false;
  pthread_t id;
  if (!StartThread(
          "anycann-runner", [this] { RunnerMain(); }, &id)) {
    if (runners_.empty())
      Log(LogLevel::kWarning, "no thread for device {}: streams run when they are waited for", index_);
    return false;
  }
  runners_.push_back(id);
  return true;
}

void Device::PushReady(Stream* stream, int priority) {
  if (!HasRunners()) {
    stream->Unref();  // whoever waits runs it
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    List& list = ready_[std::clamp(priority, 0, kPriorities - 1)];
    stream->next_ready_ = nullptr;
    (list.head != nullptr ? list.tail->next_ready_ : list.head) = stream;
    list.tail = stream;
    ready_count_.fetch_add(1, std::memory_order_seq_cst);
    if (idle_ == 0 && static_cast<int>(runners_.size()) < cores_) StartRunner();
  }
  if (sleepers_.load(std::memory_order_seq_cst) > 0) {
    bell_.fetch_add(1, std::memory_order_seq_cst);
    FutexWake(bell_, 1);
  }
}

Stream* Device::TakeReady() {
  if (ready_count_.load(std::memory_order_relaxed) == 0) return nullptr;
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& list : ready_) {
    if (list.head == nullptr) continue;
    Stream* s = list.head;
    list.head = s->next_ready_;
    ready_count_.fetch_sub(1, std::memory_order_relaxed);
    --idle_;
    return s;
  }
  return nullptr;
}

// The next ready stream; nullptr when the runners must end. The calling runner counts as idle.
Stream* Device::AwaitReady() {
  while (HasRunners()) {
    const uint32_t ring = bell_.load(std::memory_order_acquire);
    const int64_t until = NowNanoseconds() + kSpinNanoseconds;
    do {
      if (Stream* s = TakeReady()) return s;
      for (int i = 0; i < 16; ++i) CpuRelax();
    } while (NowNanoseconds() < until && HasRunners());
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    if (ready_count_.load(std::memory_order_seq_cst) == 0 && HasRunners()) FutexWait(bell_, ring, -1);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }
  return nullptr;
}

void Device::RunnerMain() {
  for (;;) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++idle_;
    }
    Stream* s = AwaitReady();
    if (s == nullptr) return;
    s->RunReady(kBatch);
    s->Unref();
  }
}

void Device::StopRunners() {
  if (!runners_allowed_.exchange(false)) return;
  for (Device* d : DeviceTable::Get().devices) {
    std::vector<pthread_t> runners;
    {
      std::lock_guard<std::mutex> lock(d->mutex_);
      runners.swap(d->runners_);
    }
    d->bell_.fetch_add(1, std::memory_order_seq_cst);
    FutexWake(d->bell_);
    for (pthread_t id : runners) {
      if (!pthread_equal(id, pthread_self())) pthread_join(id, nullptr);
    }
  }
}

}  // namespace anycann
