// One loop at a time is published in Impl's job fields. A worker takes part only if it joins while the loop
// is open, so a loop never waits for a worker that wakes late: the caller works alone until someone comes.
#include "base/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/futex.h"
#include "base/spin_lock.h"
#include "base/thread.h"

namespace anycann {
namespace {

// How long a worker looks for the next loop before it sleeps. A futex wake costs the caller about 2 us and
// the loop 5 to 50 us of a worker's time; consecutive kernels of one stream are closer together than this.
constexpr int64_t kSpinNanoseconds = 20000;
// Pieces per thread of a loop: enough to even out a core that is shared or slower, few enough to cost
// nothing.
constexpr int64_t kPiecesPerThread = 4;

thread_local ThreadPool* current_pool = nullptr;

}  // namespace

struct ThreadPool::Impl {
  // state: generation in the high half, then the open flag, then the count of workers inside.
  static constexpr uint64_t kOpen = uint64_t{1} << 31;
  static constexpr uint64_t kGeneration = uint64_t{1} << 32;

  explicit Impl(int n) : threads(n) { workers.reserve(static_cast<size_t>(n)); }  // Start() must not fail

  const int threads;
  std::atomic<bool> busy{false};
  bool started = false;  // under busy
  std::vector<pthread_t> workers;

  // The job: written while no worker can be inside, read after joining.
  Body body = nullptr;
  void* context = nullptr;
  int64_t n = 0, piece = 0;
  std::atomic<bool> failed{false};
  std::exception_ptr failure;  // the first one's: written once, read when all have left

  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<uint64_t> state{0};
  alignas(64) std::atomic<uint32_t> bell{0};  // changes with each loop; sleepers wait on it
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};

  void Start();
  void WorkerMain();
  bool Join(uint32_t* seen);
  void TakePieces() {
    for (;;) {
      const int64_t begin = next.fetch_add(piece, std::memory_order_relaxed);
      if (begin >= n) return;
      try {
        body(context, begin, std::min(n, begin + piece));
      } catch (...) {
        if (!failed.exchange(true, std::memory_order_relaxed)) failure = std::current_exception();
        next.store(n, std::memory_order_relaxed);  // the other pieces are of no use any more
      }
    }
  }
};

bool ThreadPool::Impl::Join(uint32_t* seen) {
  uint64_t s = state.load(std::memory_order_acquire);
  while ((s & kOpen) && static_cast<uint32_t>(s >> 32) != *seen) {
    if (!state.compare_exchange_weak(s, s + 1, std::memory_order_acq_rel)) continue;
    *seen = static_cast<uint32_t>(s >> 32);
    TakePieces();
    state.fetch_sub(1, std::memory_order_acq_rel);
    return true;
  }
  return false;
}

void ThreadPool::Impl::WorkerMain() {
  uint32_t seen = 0;
  while (!stop.load(std::memory_order_acquire)) {
    const uint32_t ring = bell.load(std::memory_order_acquire);
    bool worked = false;
    const int64_t until = NowNanoseconds() + kSpinNanoseconds;
    while (!worked && NowNanoseconds() < until) {
      for (int i = 0; i < 16 && !worked; ++i) {
        worked = Join(&seen);
        if (!worked) CpuRelax();
      }
    }
    if (worked) continue;
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    if (bell.load(std::memory_order_seq_cst) == ring && !stop.load(std::memory_order_acquire))
      FutexWait(bell, ring, -1);
    sleepers.fetch_sub(1, std::memory_order_relaxed);
  }
}

void ThreadPool::Impl::Start() {
  started = true;
  for (int i = 1; i < threads; ++i) {
    pthread_t id;
    if (!StartThread(
            "anycann-loop", [this] { WorkerMain(); }, &id))
      break;  // fewer workers; loops still complete
    workers.push_back(id);
  }
}

ThreadPool::ThreadPool(int threads) : impl_(new Impl(std::max(threads, 1))) {}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_release);
  impl_->bell.fetch_add(1, std::memory_order_seq_cst);
  FutexWake(impl_->bell);
  for (pthread_t id : impl_->workers) pthread_join(id, nullptr);
}

int ThreadPool::threads() const { return impl_->threads; }

ThreadPool* ThreadPool::Current() { return current_pool; }

ThreadPool::Scope::Scope(ThreadPool* pool) : previous_(current_pool) { current_pool = pool; }
ThreadPool::Scope::~Scope() { current_pool = previous_; }

void ThreadPool::Run(int64_t n, int64_t grain, Body body, void* context) {
  if (n <= 0) return;
  Impl& p = *impl_;
  const int64_t pieces = std::min(n / std::max<int64_t>(grain, 1), p.threads * kPiecesPerThread);
  const Scope nested(nullptr);  // loops inside the body run serially
  if (pieces <= 1 || p.threads == 1 || p.busy.exchange(true, std::memory_order_acquire)) {
    body(context, 0, n);
    return;
  }
  if (!p.started) p.Start();
  p.body = body;
  p.context = context;
  p.n = n;
  p.piece = (n + pieces - 1) / pieces;
  p.next.store(0, std::memory_order_relaxed);
  const uint64_t generation =
      (p.state.load(std::memory_order_relaxed) / Impl::kGeneration + 1) * Impl::kGeneration;
  p.state.store(generation | Impl::kOpen, std::memory_order_release);
  p.bell.fetch_add(1, std::memory_order_seq_cst);
  if (p.sleepers.load(std::memory_order_seq_cst) > 0) FutexWake(p.bell);
  p.TakePieces();
  p.state.fetch_and(~Impl::kOpen, std::memory_order_acq_rel);
  for (int spins = 0; p.state.load(std::memory_order_acquire) & (Impl::kOpen - 1); ++spins) {
    if (spins < 1000)
      CpuRelax();
    else
      sched_yield();
  }
  std::exception_ptr failure;
  if (p.failed.load(std::memory_order_relaxed)) [[unlikely]] {
    failure = std::exchange(p.failure, nullptr);
    p.failed.store(false, std::memory_order_relaxed);
  }
  p.busy.store(false, std::memory_order_release);
  if (failure) [[unlikely]]
    std::rethrow_exception(std::move(failure));
}

}  // namespace anycann
