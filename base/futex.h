// Futex: sleep until a word changes. The words are ordinary atomics; these calls add no ordering of their
// own.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace anycann {

// Sleeps while word == expected, until woken or for timeout_ns (negative: no limit). May wake spuriously.
// `shared` words lie in memory that other processes map.
inline void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, int64_t timeout_ns,
                      bool shared = false) {
  timespec t{timeout_ns / 1000000000, timeout_ns % 1000000000};
  syscall(SYS_futex, &word, shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? nullptr : &t,
          nullptr, 0);
}

inline void FutexWake(std::atomic<uint32_t>& word, int threads = INT_MAX, bool shared = false) {
  syscall(SYS_futex, &word, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
}

}  // namespace anycann
