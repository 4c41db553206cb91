#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

namespace anycann {
namespace {

TEST(Parallel, CoversTheRangeOnceWhateverTheGrain) {
  ThreadPool pool(4);
  const ThreadPool::Scope scope(&pool);
  for (int64_t n : {1, 2, 7, 100, 4097, 100000}) {
    for (int64_t grain : {1, 3, 1000, 1000000}) {
      std::vector<int> hits(static_cast<size_t>(n));
      ParallelFor(n, grain, [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) ++hits[static_cast<size_t>(i)];
      });
      EXPECT_EQ(std::count(hits.begin(), hits.end(), 1), n) << n << " " << grain;
    }
  }
}

TEST(Parallel, NestedLoopsRunSerially) {
  ThreadPool pool(3);
  const ThreadPool::Scope scope(&pool);
  std::atomic<int64_t> sum{0};
  ParallelFor(64, 1, [&](int64_t b, int64_t e) {
    EXPECT_EQ(ThreadPool::Current(), nullptr);
    for (int64_t i = b; i < e; ++i) ParallelFor(100, 1, [&](int64_t x, int64_t y) { sum += y - x; });
  });
  EXPECT_EQ(sum, 6400);
  EXPECT_EQ(ThreadPool::Current(), &pool);
}

TEST(Parallel, SerialOutsideAPlan) {
  EXPECT_EQ(ThreadPool::Current(), nullptr);
  int calls = 0;
  ParallelFor(1000, 1, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(Parallel, ExceptionsReachTheCaller) {
  ThreadPool pool(4);
  const ThreadPool::Scope scope(&pool);
  for (int64_t bad = 0; bad < 1000; ++bad) {
    const auto loop = [&] {
      ParallelFor(1000, 10, [&](int64_t b, int64_t e) {
        if (b <= bad && bad < e) throw std::bad_alloc();
      });
    };
    EXPECT_THROW(loop(), std::bad_alloc);
    std::atomic<int64_t> total{0};  // the pool is as good as before
    ParallelFor(1000, 10, [&](int64_t b, int64_t e) { total += e - b; });
    EXPECT_EQ(total, 1000);
  }
}

TEST(Parallel, ManyCallersShareOnePool) {
  ThreadPool pool(4);
  std::vector<std::thread> callers;
  std::atomic<int64_t> total{0};
  for (int t = 0; t < 6; ++t) {
    callers.emplace_back([&] {
      const ThreadPool::Scope scope(&pool);
      for (int i = 0; i < 500; ++i) ParallelFor(1000, 10, [&](int64_t b, int64_t e) { total += e - b; });
    });
  }
  for (auto& t : callers) t.join();
  EXPECT_EQ(total, 6 * 500 * 1000);
}

}  // namespace
}  // namespace anycann
