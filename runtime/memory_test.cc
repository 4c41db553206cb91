#include "runtime/memory.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "runtime/event.h"
#include "runtime/stream.h"
#include "runtime/virtual_memory.h"

namespace anycann {
namespace {

class MemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(SetDevice(0).ok());
    ASSERT_TRUE(Stream::Create(Context::Current(), 0, 0, &s_).ok());
    memory::Info(0, &free_, &total_);
  }
  void TearDown() override {
    EXPECT_TRUE(Stream::Destroy(s_, false).ok());
    EXPECT_EQ(Free(), free_) << "a test leaks device memory";
  }
  static size_t Free() {
    size_t free = 0, total = 0;
    memory::Info(0, &free, &total);
    return free;
  }
  static void* New(size_t size, MemoryKind kind = MemoryKind::kDevice) {
    void* p = nullptr;
    EXPECT_TRUE(memory::Allocate("test", size, kind, 0, PagePolicy::kHugeFirst, &p).ok());
    return p;
  }
  static bool Delete(void* p, MemoryKind kind = MemoryKind::kDevice) {
    return memory::Free("test", p, kind).ok();
  }
  Stream* s_ = nullptr;
  size_t free_ = 0, total_ = 0;
};

TEST_F(MemoryTest, BlocksAreAlignedCountedAndUsable) {
  for (size_t size : {1, 63, 4096, 100000, 2 << 20, (5 << 20) + 1}) {
    char* p = static_cast<char*>(New(size));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
    EXPECT_LE(Free() + size, free_);
    std::memset(p, 7, size);
    MemoryBlock b;
    ASSERT_TRUE(memory::Lookup(p + size - 1, &b));
    EXPECT_EQ(b.base, p);
    EXPECT_EQ(b.size, size);
    EXPECT_TRUE(Delete(p));
    EXPECT_FALSE(memory::Lookup(p, &b));
  }
}

TEST_F(MemoryTest, WrongFreesAreRefusedWithAReason) {
  char* p = static_cast<char*>(New(8192));
  int local = 0;
  EXPECT_NE(memory::Free("aclrtFree", p + 64, MemoryKind::kDevice).message().find("lies inside"),
            std::string::npos);
  EXPECT_NE(memory::Free("aclrtFreeHost", p, MemoryKind::kHost).message().find("device memory"),
            std::string::npos);
  EXPECT_FALSE(Delete(&local));
  EXPECT_FALSE(Delete(nullptr));
  EXPECT_TRUE(Delete(p));
  EXPECT_NE(memory::Free("aclrtFree", p, MemoryKind::kDevice).message().find("freed before"),
            std::string::npos);
}

TEST_F(MemoryTest, TheLimitIsKeptAndTheNextAllocationWorks) {
  void* p = nullptr;
  const Status status =
      memory::Allocate("aclrtMalloc", total_ + 1, MemoryKind::kDevice, 0, PagePolicy::kNormal, &p);
  EXPECT_EQ(status.code(), kRtMemoryAllocation);
  EXPECT_NE(status.message().find("in use"), std::string::npos);
  EXPECT_EQ(memory::Allocate("f", SIZE_MAX, MemoryKind::kDevice, 0, PagePolicy::kNormal, &p).code(),
            kRtMemoryAllocation);
  EXPECT_EQ(memory::Allocate("f", 0, MemoryKind::kDevice, 0, PagePolicy::kNormal, &p).code(), kInvalidParam);
  EXPECT_TRUE(Delete(New(4096)));
}

TEST_F(MemoryTest, FreedMemoryStaysUntilItsStreamsHaveRun) {
  char* p = static_cast<char*>(New(1 << 20));
  std::atomic<bool> go{false};
  Plan* wait = Plan::Create("wait", PlanKind::kKernel);
  wait->cost.flops = 1e9;
  wait->SetKernel([&go](const anycann::Run&) {
    while (!go) std::this_thread::yield();
    return Status();
  });
  ASSERT_TRUE(s_->Submit(wait).ok());
  ASSERT_TRUE(memory::FillOn(s_, "fill", p, 1, 1 << 20).ok());
  ASSERT_TRUE(Delete(p));
  EXPECT_LT(Free(), free_);
  go = true;
  EXPECT_TRUE(s_->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(Free(), free_);
}

TEST_F(MemoryTest, CopiesAreInStreamOrder) {
  char* p = static_cast<char*>(New(3 << 20));
  std::vector<char> out(3 << 20);
  ASSERT_TRUE(memory::FillOn(s_, "fill", p, 1, out.size()).ok());
  ASSERT_TRUE(memory::FillOn(s_, "fill", p + 100, 2, 100).ok());
  ASSERT_TRUE(memory::CopyOn(s_, "copy", out.data(), p, out.size()).ok());
  ASSERT_TRUE(memory::FillOn(s_, "fill", p, 3, out.size()).ok());
  ASSERT_TRUE(s_->Synchronize(Stream::kNever).ok());
  for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], i >= 100 && i < 200 ? 2 : 1) << i;
  EXPECT_TRUE(Delete(p));
}

TEST_F(MemoryTest, RangesThatLeaveABlockAreRefused) {
  char* p = static_cast<char*>(New(1000));
  EXPECT_TRUE(memory::CheckRange("f", "dst", p, 1000).ok());
  EXPECT_FALSE(memory::CheckRange("f", "dst", p + 1, 1000).ok());
  EXPECT_FALSE(memory::CheckRange("f", "dst", p, SIZE_MAX).ok());
  EXPECT_FALSE(memory::CheckRange("f", "dst", nullptr, 1).ok());
  EXPECT_TRUE(Delete(p));
}

TEST_F(MemoryTest, PhysicalMemoryIsMappedAndRemapped) {
  namespace vm = virtual_memory;
  void* range = nullptr;
  ASSERT_TRUE(vm::Reserve(4 * vm::kGranularity, 0, nullptr, &range).ok());
  char* base = static_cast<char*>(range);
  EXPECT_FALSE(memory::CheckRange("f", "dst", base, 1).ok());
  PhysicalMemory* m = nullptr;
  EXPECT_FALSE(PhysicalMemory::Create(1000, 0, &m).ok());
  ASSERT_TRUE(PhysicalMemory::Create(vm::kGranularity, 0, &m).ok());
  EXPECT_EQ(Free(), free_ - vm::kGranularity);
  ASSERT_TRUE(vm::Map(base, vm::kGranularity, 0, m).ok());
  ASSERT_TRUE(vm::Map(base + 2 * vm::kGranularity, vm::kGranularity, 0, m).ok());
  EXPECT_FALSE(vm::Map(base, vm::kGranularity, 0, m).ok());
  EXPECT_FALSE(vm::Map(base + 3 * vm::kGranularity, 2 * vm::kGranularity, 0, m).ok());
  EXPECT_TRUE(memory::CheckRange("f", "dst", base, vm::kGranularity).ok());
  EXPECT_FALSE(memory::CheckRange("f", "dst", base, vm::kGranularity + 1).ok());
  base[5] = 42;
  EXPECT_EQ(base[2 * vm::kGranularity + 5], 42);
  EXPECT_FALSE(vm::ReleaseRange(base).ok());
  EXPECT_TRUE(PhysicalMemory::Release(m).ok());
  EXPECT_EQ(Free(), free_ - vm::kGranularity);  // still mapped
  EXPECT_TRUE(vm::Unmap(base).ok());
  EXPECT_FALSE(vm::Unmap(base).ok());
  EXPECT_EQ(base[2 * vm::kGranularity + 5], 42);
  EXPECT_TRUE(vm::Unmap(base + 2 * vm::kGranularity).ok());
  EXPECT_TRUE(vm::ReleaseRange(base).ok());
  PhysicalMemory* gone = nullptr;
  EXPECT_FALSE(PhysicalMemory::Find("f", m, &gone).ok());
}

// Runs `child` in a forked process and expects it to return 0.
template <class F>
void InChild(F child) {
  const pid_t pid = fork();
  if (pid == 0) _exit(child());
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(MemoryTest, BlocksAreSharedWithOtherProcessesByKey) {
  char* p = static_cast<char*>(New(100000));
  std::strcpy(p + 4096, "from the parent");
  std::string key;
  ASSERT_TRUE(virtual_memory::ExportKey(p + 4096, 5000, &key).ok());
  EXPECT_LT(key.size(), 65u);
  EXPECT_STREQ(p + 4096, "from the parent");
  InChild([&] {
    void* q = nullptr;
    if (!virtual_memory::ImportKey(key, 0, &q).ok() || q == p + 4096) return 1;
    if (std::strcmp(static_cast<char*>(q), "from the parent") != 0) return 2;
    std::strcpy(static_cast<char*>(q), "from the child");
    if (!virtual_memory::CloseKey(key).ok()) return 3;
    return virtual_memory::ImportKey("anycann:1:0:0:100", 0, &q).ok() ? 4 : 0;
  });
  EXPECT_STREQ(p + 4096, "from the child");
  EXPECT_TRUE(Delete(p));
}

TEST_F(MemoryTest, PhysicalMemoryIsSharedWithOtherProcesses) {
  namespace vm = virtual_memory;
  void* range = nullptr;
  PhysicalMemory* m = nullptr;
  ASSERT_TRUE(vm::Reserve(vm::kGranularity, 0, nullptr, &range).ok());
  ASSERT_TRUE(PhysicalMemory::Create(vm::kGranularity, 0, &m).ok());
  ASSERT_TRUE(vm::Map(range, vm::kGranularity, 0, m).ok());
  uint64_t handle = 0;
  ASSERT_TRUE(m->Export(&handle).ok());
  InChild([&] {
    void* q = nullptr;
    PhysicalMemory* other = nullptr;
    if (!PhysicalMemory::Import(handle, 0, &other).ok()) return 1;
    if (!vm::Reserve(vm::kGranularity, 0, nullptr, &q).ok() || !vm::Map(q, vm::kGranularity, 0, other).ok())
      return 2;
    static_cast<char*>(q)[77] = 9;
    return 0;
  });
  EXPECT_EQ(static_cast<char*>(range)[77], 9);
  EXPECT_TRUE(vm::Unmap(range).ok());
  EXPECT_TRUE(vm::ReleaseRange(range).ok());
  EXPECT_TRUE(PhysicalMemory::Release(m).ok());
}

// The other process of the test below: sees the record that is submitted but not reached, waits for it, then
// reads.
TEST(SharedEventChild, WaitsAndReads) {
  const char *name = getenv("ANYCANN_TEST_EVENT"), *key = getenv("ANYCANN_TEST_KEY");
  if (name == nullptr || key == nullptr) GTEST_SKIP() << "of MemoryTest";
  ASSERT_TRUE(SetDevice(0).ok());
  Stream* s = nullptr;
  ASSERT_TRUE(Stream::Create(Context::Current(), 0, 0, &s).ok());
  Event* e = nullptr;
  void* p = nullptr;
  ASSERT_TRUE(Event::OpenShared(name, &e).ok());
  ASSERT_TRUE(virtual_memory::ImportKey(key, 0, &p).ok());
  while (!e->recorded()) usleep(1000);
  ASSERT_TRUE(e->Wait(s).ok());
  ASSERT_TRUE(s->Synchronize(Stream::kNever).ok());
  EXPECT_EQ(static_cast<char*>(p)[0], 5);
  EXPECT_TRUE(e->Reached());
  EXPECT_TRUE(virtual_memory::CloseKey(key).ok());
  EXPECT_TRUE(Event::Destroy(e).ok());
  EXPECT_TRUE(Stream::Destroy(s, false).ok());
}

TEST_F(MemoryTest, EventsOrderStreamsOfTwoProcesses) {
  Event* e = nullptr;
  ASSERT_TRUE(Event::Create(0x40, &e).ok());
  std::string name;
  ASSERT_TRUE(e->Share(&name).ok());
  char* p = static_cast<char*>(New(4096));
  std::string key;
  ASSERT_TRUE(virtual_memory::ExportKey(p, 4096, &key).ok());
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("ANYCANN_TEST_EVENT", name.c_str(), 1);
    setenv("ANYCANN_TEST_KEY", key.c_str(), 1);
    execl("/proc/self/exe", "test", "--gtest_filter=SharedEventChild.*", nullptr);
    _exit(127);
  }
  Plan* slow = Plan::Create("slow", PlanKind::kKernel);
  slow->cost.flops = 1e9;
  slow->SetKernel([p](const anycann::Run&) {
    usleep(300000);  // the other process has started by then
    p[0] = 5;
    return Status();
  });
  ASSERT_TRUE(s_->Submit(slow).ok());
  ASSERT_TRUE(e->Record(s_).ok());
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(e->Synchronize(Stream::kNever).ok());
  EXPECT_TRUE(Event::Destroy(e).ok());
  EXPECT_TRUE(Delete(p));
}

}  // namespace
}  // namespace anycann
