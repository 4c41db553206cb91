#include "runtime/callback.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <thread>

#include "runtime/stream.h"

namespace anycann {
namespace {

using callback::Channel;

class CallbackTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(SetDevice(0).ok());
    ASSERT_TRUE(Stream::Create(Context::Current(), 0, 0, &s_).ok());
  }
  void TearDown() override { EXPECT_TRUE(Stream::Destroy(s_, false).ok()); }
  Stream* s_ = nullptr;
};

struct Seen {
  std::atomic<int> calls{0};
  std::thread::id thread;
  std::atomic<bool>* go = nullptr;
  Stream* wait_for = nullptr;
  int32_t code = 0;
};

void Note(void* p) {
  auto* seen = static_cast<Seen*>(p);
  while (seen->go != nullptr && !*seen->go) std::this_thread::yield();
  if (seen->wait_for != nullptr) seen->code = seen->wait_for->Synchronize(Stream::kNever).code();
  seen->thread = std::this_thread::get_id();
  ++seen->calls;
}

Plan* Check(const Seen* seen, int* calls_before) {
  Plan* p = Plan::Create("check", PlanKind::kKernel);
  p->SetKernel([seen, calls_before](const anycann::Run&) {
    *calls_before = seen->calls;
    return Status();
  });
  return p;
}

TEST_F(CallbackTest, HostFunctionsRunInStreamOrderOnAThreadOfTheEngine) {
  Seen seen;
  int before = -1;
  ASSERT_TRUE(callback::Launch(Channel::kHostFunction, "f", s_, Note, &seen, true).ok());
  ASSERT_TRUE(s_->Submit(Check(&seen, &before)).ok());
  ASSERT_TRUE(s_->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(before, 1);
  EXPECT_NE(seen.thread, std::this_thread::get_id());
}

TEST_F(CallbackTest, AHostFunctionMayBlockWithoutHoldingOtherStreamsUp) {
  Stream* other = nullptr;
  ASSERT_TRUE(Stream::Create(Context::Current(), 0, 0, &other).ok());
  std::atomic<bool> go{false};
  Seen blocked, free;
  blocked.go = &go;
  ASSERT_TRUE(callback::Launch(Channel::kHostFunction, "f", s_, Note, &blocked, true).ok());
  ASSERT_TRUE(callback::Launch(Channel::kHostFunction, "f", other, Note, &free, true).ok());
  EXPECT_TRUE(other->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(free.calls, 1);
  EXPECT_EQ(blocked.calls, 0);
  EXPECT_EQ(s_->Synchronize(1000000).code(), kRtStreamSyncTimeout);
  go = true;
  EXPECT_TRUE(s_->Synchronize(Stream::kNever).ok());
  EXPECT_TRUE(Stream::Destroy(other, false).ok());
}

TEST_F(CallbackTest, ACallbackThatWaitsForItsOwnStreamGetsAnError) {
  Seen seen;
  seen.wait_for = s_;
  ASSERT_TRUE(callback::Launch(Channel::kHostFunction, "f", s_, Note, &seen, true).ok());
  ASSERT_TRUE(s_->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(seen.code, kRtStreamContext);
}

TEST_F(CallbackTest, ReportsRunOnTheSubscriberOnly) {
  std::atomic<bool> subscribed{false}, stop{false};
  std::atomic<int> processed{0};
  std::thread subscriber([&] {
    EXPECT_EQ(callback::Process(Channel::kReport, 0).code(), 107012);
    EXPECT_TRUE(callback::Subscribe(Channel::kReport, static_cast<uint64_t>(pthread_self()), s_).ok());
    subscribed = true;
    while (!stop) {
      const Status status = callback::Process(Channel::kReport, 10000000);
      if (status.ok())
        ++processed;
      else
        EXPECT_EQ(status.code(), 507012);
    }
    EXPECT_TRUE(callback::Unsubscribe(Channel::kReport, static_cast<uint64_t>(pthread_self()), s_).ok());
  });
  while (!subscribed) std::this_thread::yield();
  Seen blocking, passing;
  int before = -1;
  ASSERT_TRUE(callback::Launch(Channel::kReport, "f", s_, Note, &blocking, true).ok());
  ASSERT_TRUE(s_->Submit(Check(&blocking, &before)).ok());
  ASSERT_TRUE(callback::Launch(Channel::kReport, "f", s_, Note, &passing, false).ok());
  ASSERT_TRUE(s_->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(before, 1);
  while (passing.calls == 0) std::this_thread::yield();
  EXPECT_EQ(blocking.thread, subscriber.get_id());
  EXPECT_EQ(passing.thread, subscriber.get_id());
  stop = true;
  subscriber.join();
  EXPECT_EQ(processed, 2);
  EXPECT_EQ(callback::Launch(Channel::kReport, "f", s_, Note, nullptr, true).code(), 107015);
}

}  // namespace
}  // namespace anycann
