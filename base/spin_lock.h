// SpinLock: for critical sections of a few nanoseconds that are rarely contended (a stream's queue). Gives
// the core away when the holder was preempted. Meets std::lock_guard's requirements.
#pragma once

#include <sched.h>

#include <atomic>

namespace anycann {

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

class SpinLock {
 public:
  bool try_lock() { return !locked_.exchange(true, std::memory_order_acquire); }
  void lock() {
    while (!try_lock()) {
      for (int i = 0; locked_.load(std::memory_order_relaxed); ++i) {
        if (i < kSpins)
          CpuRelax();
        else
          sched_yield();
      }
    }
  }
  void unlock() { locked_.store(false, std::memory_order_release); }

 private:
  static constexpr int kSpins = 64;
  std::atomic<bool> locked_{false};
};

}  // namespace anycann
