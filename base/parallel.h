// ParallelFor: the one parallel loop. Runs on the pool of the device whose Plan the calling thread is
// running; on a thread outside any Plan it runs serially.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/export.h"

namespace anycann {

// Threads of one device. Workers start lazily (fork() before first use is legal), spin briefly for more work,
// then sleep.
class ANYCANN_API ThreadPool {
 public:
  explicit ThreadPool(int threads);  // `threads`: parallelism of a loop, the calling thread included
  ~ThreadPool();                     // joins the workers
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls body(context, begin, end) over disjoint ranges that cover [0, n), on the caller and the workers,
  // and returns when all are done. One loop at a time has the workers; a loop that finds them busy runs
  // serially.
  using Body = void (*)(void* context, int64_t begin, int64_t end);
  void Run(int64_t n, int64_t grain, Body body, void* context);

  // The pool of the calling thread, nullptr outside a Plan. Nested loops run serially: inside a body it's
  // nullptr.
  static ThreadPool* Current();
  class ANYCANN_API Scope {  // makes `pool` the calling thread's for its lifetime
   public:
    explicit Scope(ThreadPool* pool);
    ~Scope();

   private:
    ThreadPool* previous_;
  };

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Calls f(begin, end) over ranges of at least `grain` iterations that cover [0, n). Results must not depend
// on how the ranges are cut. An exception of f is the caller's.
template <class F>
void ParallelFor(int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  ThreadPool* pool = ThreadPool::Current();
  if (pool == nullptr || n <= grain) {
    f(int64_t{0}, n);
    return;
  }
  using Fn = std::remove_reference_t<F>;
  pool->Run(
      n, grain, [](void* context, int64_t b, int64_t e) { (*static_cast<Fn*>(context))(b, e); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace anycann
