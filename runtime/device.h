// Device: a set of cores with a loop pool, runner threads for streams that nobody else is running, and a
// memory limit. Devices exist from the first use on and are never destroyed; their threads start when first
// needed.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/export.h"
#include "base/parallel.h"
#include "base/status.h"

namespace anycann {

class Stream;

class ANYCANN_API Device {
 public:
  static constexpr int kPriorities = 8;  // 0 first, as aclrtCreateStreamWithConfig's

  static int Count();
  static Device* Get(int index);  // nullptr when there is none
  // Ends all runners after their current Plan and lets waiting threads do all the work from then on. At exit.
  static void StopRunners();
  // False at exit and in a forked child: streams then run where they are submitted or waited for.
  static bool HasRunners() { return runners_allowed_.load(std::memory_order_relaxed); }

  int index() const { return index_; }
  int cores() const { return cores_; }
  ThreadPool* pool() { return cores_ > 1 ? &pool_ : nullptr; }
  int64_t memory_limit() const { return memory_limit_; }
  std::atomic<int64_t>& memory_used() { return memory_used_; }

  // Puts a stream (with one reference, taken over) on the ready list and sees to it that a runner comes. The
  // stream's lock must not be held.
  void PushReady(Stream* stream, int priority);

  // Register of the device's streams, for synchronising all of them.
  void AddStream(Stream* stream);
  void RemoveStream(Stream* stream);
  std::vector<Stream*> Streams();  // each with a reference that the caller drops

  // Use counts of aclrtSetDevice/aclrtResetDevice. ResetUse returns the count that is left.
  void AddUse() { uses_.fetch_add(1); }
  int DropUse();
  void ClearUses() { uses_ = 0; }
  int uses() const { return uses_; }

 private:
  Device(int index, int cores, int64_t memory_limit)
      : index_(index), cores_(cores), memory_limit_(memory_limit), pool_(cores) {
    runners_.reserve(static_cast<size_t>(cores));  // no allocation while a stream is handed on
  }
  friend struct DeviceTable;

  void RunnerMain();
  Stream* TakeReady();
  Stream* AwaitReady();
  bool StartRunner();  // mutex held

  static std::atomic<bool> runners_allowed_;

  const int index_;
  const int cores_;
  const int64_t memory_limit_;
  std::atomic<int64_t> memory_used_{0};
  std::atomic<int> uses_{0};
  ThreadPool pool_;

  std::mutex streams_mutex_;
  std::vector<Stream*> streams_;

  std::mutex mutex_;  // the ready list and the runners
  struct List {
    Stream* head = nullptr;  // linked through Stream::next_ready_
    Stream* tail = nullptr;
  };
  List ready_[kPriorities];
  std::vector<pthread_t> runners_;
  int idle_ = 0;                     // runners that look for work or sleep; mutex held
  std::atomic<int> ready_count_{0};  // changed under mutex_, polled without it
  std::atomic<uint32_t> bell_{0};    // sleeping runners wait on it
  std::atomic<int> sleepers_{0};
};

}  // namespace anycann
