#include "runtime/stream.h"

#include <gtest/gtest.h>
#include <xmmintrin.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "base/parallel.h"
#include "runtime/event.h"

namespace anycann {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr int kStressPlans = 10000;
#elif defined(__SANITIZE_ADDRESS__)
constexpr int kStressPlans = 100000;
#else
constexpr int kStressPlans = 1000000;
#endif

// Work that a runner must do: too long, by its cost, for the submitting thread.
constexpr double kLargeFlops = 1e9;

template <class F>
Plan* MakePlan(F f, double flops = 0, PlanKind kind = PlanKind::kKernel) {
  Plan* p = Plan::Create("test", kind);
  p->cost.flops = flops;
  p->SetKernel([f](const Run&) -> Status {
    if constexpr (std::is_same_v<decltype(f()), Status>)
      return f();
    else
      f();
    return Status();
  });
  return p;
}

class StreamTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(SetDevice(0).ok()); }
  Stream* NewStream() {
    Stream* s = nullptr;
    EXPECT_TRUE(Stream::Create(Context::Current(), 0, 0, &s).ok());
    streams_.push_back(s);
    return s;
  }
  Event* NewEvent() {
    Event* e = nullptr;
    EXPECT_TRUE(Event::Create(0, &e).ok());
    return e;
  }
  void TearDown() override {
    for (Stream* s : streams_) {
      if (!s->alive()) continue;
      EXPECT_TRUE(Stream::Destroy(s, false).ok());
    }
  }
  std::vector<Stream*> streams_;
};

TEST_F(StreamTest, SmallPlansRunOnTheSubmittingThread) {
  Stream* s = NewStream();
  std::thread::id where;
  ASSERT_TRUE(Enqueue(s, MakePlan([&] { where = std::this_thread::get_id(); })).ok());
  EXPECT_EQ(where, std::this_thread::get_id());
  EXPECT_TRUE(s->Idle());
}

TEST_F(StreamTest, LargePlansDoNotBlockTheSubmitter) {
  Stream* s = NewStream();
  std::atomic<bool> go{false};
  ASSERT_TRUE(s->Submit(MakePlan(
                            [&] {
                              while (!go) std::this_thread::yield();
                            },
                            kLargeFlops))
                  .ok());
  EXPECT_FALSE(s->Idle());
  EXPECT_EQ(s->Synchronize(1000000).code(), kRtStreamSyncTimeout);
  go = true;
  EXPECT_TRUE(s->Synchronize(Stream::kNever).ok());
  EXPECT_TRUE(s->Idle());
}

TEST_F(StreamTest, EventsOrderStreams) {
  Stream *a = NewStream(), *b = NewStream(), *c = NewStream();
  Event *ab = NewEvent(), *bc = NewEvent();
  std::atomic<bool> go{false};
  std::vector<int> order;
  ASSERT_TRUE(a->Submit(MakePlan(
                            [&] {
                              while (!go) std::this_thread::yield();
                              order.push_back(1);
                            },
                            kLargeFlops))
                  .ok());
  ASSERT_TRUE(ab->Record(a).ok());
  EXPECT_FALSE(ab->Reached());
  ASSERT_TRUE(ab->Wait(b).ok());
  ASSERT_TRUE(b->Submit(MakePlan([&] { order.push_back(2); })).ok());
  ASSERT_TRUE(bc->Record(b).ok());
  ASSERT_TRUE(bc->Wait(c).ok());
  ASSERT_TRUE(c->Submit(MakePlan([&] { order.push_back(3); })).ok());
  // An event may be recorded again, or destroyed, while streams wait for its earlier record.
  ASSERT_TRUE(bc->Record(a).ok());
  ASSERT_TRUE(Event::Destroy(ab).ok());
  EXPECT_TRUE(order.empty());
  go = true;
  EXPECT_TRUE(c->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_TRUE(bc->Synchronize(Stream::kNever).ok());
  EXPECT_TRUE(Event::Destroy(bc).ok());
}

TEST_F(StreamTest, AWaiterRunsWhatItWaitsForThroughEvents) {
  // Without runners there is only the waiting thread: it must find its way from c through b to a.
  Stream *a = NewStream(), *b = NewStream(), *c = NewStream();
  Event *ab = NewEvent(), *bc = NewEvent();
  std::atomic<bool> go{false};
  ASSERT_TRUE(a->Submit(MakePlan(
                            [&] {
                              while (!go) std::this_thread::yield();
                            },
                            kLargeFlops))
                  .ok());
  std::atomic<int> ran{0};
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(a->Submit(MakePlan([&] { ++ran; }, kLargeFlops)).ok());
  ASSERT_TRUE(ab->Record(a).ok());
  ASSERT_TRUE(ab->Wait(b).ok());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(b->Submit(MakePlan([&] { ++ran; }, kLargeFlops)).ok());
  ASSERT_TRUE(bc->Record(b).ok());
  ASSERT_TRUE(bc->Wait(c).ok());
  go = true;
  EXPECT_TRUE(c->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(ran, 20);
  EXPECT_TRUE(Event::Destroy(ab).ok());
  EXPECT_TRUE(Event::Destroy(bc).ok());
}

TEST_F(StreamTest, AnErrorStaysWithItsStreamAndIsReportedOnce) {
  Stream *a = NewStream(), *b = NewStream();
  Plan* p = MakePlan([] { return Status(kParamInvalid, "index 7 is out of range [0, 5)"); });
  float x[6];
  p->name = "aclnnGather";
  p->AddOperand(TensorView::Contiguous(x, DType::kFloat, {2, 3}), nullptr, nullptr, false);
  p->AddOperand(TensorView::Contiguous(x, DType::kFloat, {6}), nullptr, nullptr, true);
  EXPECT_TRUE(a->Submit(p).ok());
  EXPECT_TRUE(b->Synchronize(Stream::kNever).ok());
  const Status status = a->Synchronize(Stream::kNever);
  EXPECT_EQ(status.code(), kParamInvalid);
  for (const char* part : {"aclnnGather", "index 7", "float32[2,3]", "float32[6]"})
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  EXPECT_TRUE(a->Synchronize(Stream::kNever).ok());
}

TEST_F(StreamTest, AStreamThatStopsOnFailureSkipsWhatFollowsUntilTheErrorIsReported) {
  Stream* a = NewStream();
  a->set_stops_on_failure(true);
  int ran = 0;
  EXPECT_TRUE(a->Submit(MakePlan([] { return Status(kInner, "broken"); })).ok());
  EXPECT_TRUE(a->Submit(MakePlan([&] { ++ran; })).ok());
  EXPECT_EQ(a->Synchronize(Stream::kNever).code(), kInner);
  EXPECT_EQ(ran, 0);
  EXPECT_TRUE(a->Submit(MakePlan([&] { ++ran; })).ok());
  EXPECT_EQ(ran, 1);
}

TEST_F(StreamTest, ExceptionsBecomeErrors) {
  Stream* a = NewStream();
  EXPECT_TRUE(a->Submit(MakePlan([]() -> Status { throw std::bad_alloc(); })).ok());
  EXPECT_EQ(a->Synchronize(Stream::kNever).code(), kBadAlloc);
}

TEST_F(StreamTest, DestroyedHandlesAreRefused) {
  Stream* a = NewStream();
  ASSERT_TRUE(Stream::Destroy(a, false).ok());
  EXPECT_EQ(Enqueue(a, MakePlan([] {})).code(), kRtParamInvalid);
  int x = 0;
  EXPECT_EQ(Enqueue(&x, MakePlan([] {})).code(), kRtParamInvalid);
}

TEST_F(StreamTest, AbortDropsWhatIsQueuedAndFreesThoseWhoWait) {
  Stream *a = NewStream(), *b = NewStream();
  Event* e = NewEvent();
  std::atomic<bool> go{false}, started{false};
  std::atomic<int> ran{0};
  ASSERT_TRUE(a->Submit(MakePlan(
                            [&] {
                              started = true;
                              while (!go) std::this_thread::yield();
                            },
                            kLargeFlops))
                  .ok());
  while (!started) std::this_thread::yield();
  ASSERT_TRUE(a->Submit(MakePlan([&] { ++ran; })).ok());
  ASSERT_TRUE(e->Record(a).ok());
  ASSERT_TRUE(e->Wait(b).ok());
  ASSERT_TRUE(b->Submit(MakePlan([&] { ran += 10; })).ok());
  a->Abort();
  EXPECT_TRUE(b->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(ran, 10);
  go = true;
  EXPECT_TRUE(a->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(ran, 10);
  EXPECT_TRUE(Event::Destroy(e).ok());
}

TEST_F(StreamTest, AbortOfAStreamThatWaitsLeavesItUsable) {
  Stream *a = NewStream(), *b = NewStream();
  Event* e = NewEvent();
  std::atomic<bool> go{false};
  ASSERT_TRUE(a->Submit(MakePlan(
                            [&] {
                              while (!go) std::this_thread::yield();
                            },
                            kLargeFlops))
                  .ok());
  ASSERT_TRUE(e->Record(a).ok());
  ASSERT_TRUE(e->Wait(b).ok());
  b->Abort();
  int ran = 0;
  ASSERT_TRUE(b->Submit(MakePlan([&] { ++ran; })).ok());
  EXPECT_TRUE(b->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(ran, 1);
  go = true;
  EXPECT_TRUE(a->Synchronize(Stream::kNever).ok());
  EXPECT_TRUE(Event::Destroy(e).ok());
}

TEST_F(StreamTest, KernelsRunInTheDefaultFloatingPointModeAndTheClientsIsKept) {
  Stream* s = NewStream();
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);  // flush to zero, denormals are zero
  unsigned inside = 0;
  ASSERT_TRUE(s->Submit(MakePlan([&] { inside = _mm_getcsr(); })).ok());
  EXPECT_EQ(_mm_getcsr() & 0x8040, 0x8040u);
  _mm_setcsr(before);
  EXPECT_EQ(inside & 0x8040, 0u);
}

TEST_F(StreamTest, SynchronizeDeviceWaitsForAllStreams) {
  std::atomic<int> ran{0};
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(NewStream()->Submit(MakePlan([&] { ++ran; }, kLargeFlops)).ok());
  EXPECT_TRUE(SynchronizeDevice(Stream::kNever).ok());
  EXPECT_EQ(ran, 8);
}

// 32 threads submit to 64 streams, with events between them: in each stream every Plan runs once and in
// order, and never before what it waits for in other streams.
TEST_F(StreamTest, ManyThreadsManyStreams) {
  constexpr int kThreads = 32, kStreams = 64;
  struct Lane {
    Stream* stream;
    std::mutex mutex;     // orders tickets as submissions
    int64_t tickets = 0;  // under mutex
    std::atomic<int64_t> executed{0};
  };
  std::vector<Lane> lanes(kStreams);
  for (Lane& l : lanes) l.stream = NewStream();
  std::atomic<int64_t> disorder{0}, early{0};

  const auto submit = [&](Lane& l, double flops, Lane* other, int64_t at_least) {
    std::lock_guard<std::mutex> lock(l.mutex);
    const int64_t ticket = l.tickets++;
    return l.stream->Submit(MakePlan(
        [&disorder, &early, lane = &l, ticket, other, at_least] {
          if (lane->executed.load(std::memory_order_relaxed) != ticket) ++disorder;
          if (other != nullptr && other->executed.load(std::memory_order_relaxed) < at_least) ++early;
          lane->executed.store(ticket + 1, std::memory_order_relaxed);
        },
        flops));
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      Event* e = nullptr;
      ASSERT_TRUE(Event::Create(0, &e).ok());
      for (int i = 0; i < kStressPlans / kThreads; ++i) {
        Lane& l = lanes[random() % kStreams];
        const double flops = random() % 8 == 0 ? kLargeFlops : 0;
        switch (random() % 16) {
          case 0: {
            Lane& from = lanes[random() % kStreams];
            int64_t so_far;
            {
              std::lock_guard<std::mutex> lock(from.mutex);
              so_far = from.tickets;
              ASSERT_TRUE(e->Record(from.stream).ok());
            }
            ASSERT_TRUE(e->Wait(l.stream).ok());
            ASSERT_TRUE(submit(l, flops, &from, so_far).ok());
            break;
          }
          case 1:
            ASSERT_TRUE(submit(l, flops, nullptr, 0).ok());
            if (i % 8 != 0) break;
            ASSERT_TRUE(l.stream->Synchronize(Stream::kNever).ok());
            break;
          case 2:
            ASSERT_TRUE(submit(l, flops, nullptr, 0).ok());
            if (i % 64 == 0) static_cast<void>(l.stream->Synchronize(100000));
            break;
          default: ASSERT_TRUE(submit(l, flops, nullptr, 0).ok());
        }
      }
      ASSERT_TRUE(Event::Destroy(e).ok());
    });
  }
  for (auto& t : threads) t.join();
  int64_t executed = 0;
  for (Lane& l : lanes) {
    EXPECT_TRUE(l.stream->Synchronize(Stream::kNever).ok());
    EXPECT_EQ(l.executed, l.tickets);
    executed += l.executed;
  }
  EXPECT_EQ(executed, kStressPlans / kThreads * kThreads);
  EXPECT_EQ(disorder, 0);
  EXPECT_EQ(early, 0);
}

}  // namespace
}  // namespace anycann
