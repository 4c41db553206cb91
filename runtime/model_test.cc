#include "runtime/model.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "runtime/event.h"
#include "runtime/stream.h"

namespace anycann {
namespace {

class ModelTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(SetDevice(0).ok());
    ASSERT_TRUE(Stream::Create(Context::Current(), 0, 0, &a_).ok());
    ASSERT_TRUE(Stream::Create(Context::Current(), 0, 0, &b_).ok());
  }
  void TearDown() override {
    EXPECT_TRUE(Stream::Destroy(a_, false).ok());
    EXPECT_TRUE(Stream::Destroy(b_, false).ok());
  }
  // Appends `digit` to the number when it runs.
  Plan* Digit(int digit) {
    Plan* p = Plan::Create("digit", PlanKind::kKernel);
    p->SetKernel([this, digit](const anycann::Run&) {
      number_ = number_ * 10 + digit;
      return Status();
    });
    return p;
  }
  Stream *a_ = nullptr, *b_ = nullptr;
  int64_t number_ = 0;
};

TEST_F(ModelTest, RecordsInsteadOfRunningAndReplays) {
  Model* m = nullptr;
  ASSERT_TRUE(Model::BeginCapture(a_, nullptr).ok());
  ASSERT_TRUE(a_->Submit(Digit(1)).ok());
  ASSERT_TRUE(a_->Submit(Digit(2)).ok());
  const Ref<Model> during = Model::Of(a_);
  EXPECT_EQ(during->state(), Model::State::kCapturing);
  ASSERT_TRUE(Model::EndCapture(a_, &m).ok());
  EXPECT_EQ(during.get(), m);
  EXPECT_EQ(number_, 0);
  ASSERT_TRUE(m->Execute(b_).ok());
  ASSERT_TRUE(m->Execute(b_).ok());
  ASSERT_TRUE(b_->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(number_, 1212);
  ASSERT_TRUE(a_->Submit(Digit(3)).ok());
  EXPECT_EQ(number_, 12123);
  EXPECT_TRUE(Model::Destroy(m).ok());
  EXPECT_EQ(Model::From(m), nullptr);
}

TEST_F(ModelTest, EventsBringOtherStreamsIn) {
  Event *fork = nullptr, *join = nullptr;
  ASSERT_TRUE(Event::Create(0, &fork).ok());
  ASSERT_TRUE(Event::Create(0, &join).ok());
  Model* m = nullptr;
  ASSERT_TRUE(Model::BeginCapture(a_, nullptr).ok());
  ASSERT_TRUE(a_->Submit(Digit(1)).ok());
  ASSERT_TRUE(fork->Record(a_).ok());
  ASSERT_TRUE(fork->Wait(b_).ok());
  ASSERT_TRUE(b_->Submit(Digit(2)).ok());
  EXPECT_NE(b_->capture(), nullptr);
  ASSERT_TRUE(join->Record(b_).ok());
  ASSERT_TRUE(join->Wait(a_).ok());
  ASSERT_TRUE(a_->Submit(Digit(3)).ok());
  EXPECT_EQ(join->Synchronize(Stream::kNever).code(), 107028);
  ASSERT_TRUE(Model::EndCapture(a_, &m).ok());
  EXPECT_EQ(b_->capture(), nullptr);
  ASSERT_TRUE(m->Execute(a_).ok());
  ASSERT_TRUE(a_->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(number_, 123);
  EXPECT_TRUE(Model::Destroy(m).ok());
  EXPECT_TRUE(Event::Destroy(fork).ok());
  EXPECT_TRUE(Event::Destroy(join).ok());
}

TEST_F(ModelTest, AStreamThatIsNotJoinedIsAnError) {
  Event* fork = nullptr;
  ASSERT_TRUE(Event::Create(0, &fork).ok());
  Model* m = nullptr;
  ASSERT_TRUE(Model::BeginCapture(a_, nullptr).ok());
  ASSERT_TRUE(fork->Record(a_).ok());
  ASSERT_TRUE(fork->Wait(b_).ok());
  ASSERT_TRUE(b_->Submit(Digit(2)).ok());
  EXPECT_EQ(Model::EndCapture(a_, &m).code(), 107025);
  EXPECT_EQ(m, nullptr);
  ASSERT_TRUE(b_->Submit(Digit(7)).ok());
  EXPECT_EQ(number_, 7);
  EXPECT_TRUE(Event::Destroy(fork).ok());
}

TEST_F(ModelTest, WaitingForACapturedStreamInvalidatesTheCapture) {
  Model* m = nullptr;
  ASSERT_TRUE(Model::BeginCapture(a_, nullptr).ok());
  EXPECT_EQ(a_->Synchronize(Stream::kNever).code(), 107027);
  EXPECT_FALSE(a_->Submit(Digit(1)).ok());
  const Status status = Model::EndCapture(a_, &m);
  EXPECT_EQ(status.code(), 507903);
  EXPECT_NE(status.message().find("synchronised"), std::string::npos);
  ASSERT_TRUE(a_->Submit(Digit(1)).ok());
  EXPECT_EQ(number_, 1);
}

// As torch_npu updates the arguments of captured attention operators: the replay waits for a flag, the update
// is made meanwhile, then the flag lets the replay go on with the new arguments.
TEST_F(ModelTest, AGroupIsUpdatedWhileAReplayWaitsForAFlag) {
  Event* flag = nullptr;
  ASSERT_TRUE(Event::Create(Event::kExternal, &flag).ok());
  Model* m = nullptr;
  TaskGroup* group = nullptr;
  ASSERT_TRUE(Model::BeginCapture(a_, nullptr).ok());
  ASSERT_TRUE(flag->Wait(a_).ok());
  ASSERT_TRUE(flag->Reset(a_).ok());
  ASSERT_TRUE(Model::Of(a_)->BeginGroup(a_).ok());
  ASSERT_TRUE(a_->Submit(Digit(1)).ok());
  ASSERT_TRUE(Model::Of(a_)->EndGroup(a_, &group).ok());
  ASSERT_TRUE(a_->Submit(Digit(9)).ok());
  ASSERT_TRUE(Model::EndCapture(a_, &m).ok());
  for (int i = 2; i < 5; ++i) {
    ASSERT_TRUE(m->Execute(a_).ok());
    EXPECT_FALSE(a_->Idle());
    ASSERT_TRUE(Model::BeginUpdate(b_, group).ok());
    ASSERT_TRUE(b_->Submit(Digit(i)).ok());
    ASSERT_TRUE(Model::EndUpdate(b_).ok());
    ASSERT_TRUE(flag->Record(b_).ok());
    ASSERT_TRUE(a_->Synchronize(Stream::kNever).ok());
  }
  EXPECT_EQ(number_, 293949);
  EXPECT_TRUE(Model::Destroy(m).ok());
  EXPECT_TRUE(Event::Destroy(flag).ok());
  group->Close();
  group->Unref();
}

TEST_F(ModelTest, ManyReplaysOnSeveralStreams) {
  std::atomic<int> ran{0};
  Model* m = nullptr;
  ASSERT_TRUE(Model::BeginCapture(a_, nullptr).ok());
  for (int i = 0; i < 10; ++i) {
    Plan* p = Plan::Create("count", PlanKind::kKernel);
    p->cost.flops = 1e7;
    p->SetKernel([&ran](const anycann::Run&) {
      ++ran;
      return Status();
    });
    ASSERT_TRUE(a_->Submit(p).ok());
  }
  ASSERT_TRUE(Model::EndCapture(a_, &m).ok());
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(m->Execute(b_).ok());
  });
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(m->Execute(a_).ok());
  other.join();
  EXPECT_TRUE(Model::Destroy(m).ok());  // queued replays keep what they need
  ASSERT_TRUE(a_->Synchronize(Stream::kNever).ok());
  ASSERT_TRUE(b_->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(ran, 2000);
}

}  // namespace
}  // namespace anycann
