#include "runtime/trace.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/machine_limits.h"
#include "runtime/stream.h"

namespace anycann {
namespace {

// Runs in the traced child of the test below.
TEST(TraceChild, RunsPlans) {
  if (!Trace::on()) GTEST_SKIP() << "of TraceTest";
  ASSERT_TRUE(SetDevice(0).ok());
  Stream* s = nullptr;
  ASSERT_TRUE(Stream::Create(Context::Current(), 0, 0, &s).ok());
  float x[6];
  for (int i = 0; i < 100; ++i) {
    Plan* p = Plan::Create("aclnnAdd", PlanKind::kKernel);
    p->implementation = "test";
    p->cost = {6, 48};
    p->AddOperand(TensorView::Contiguous(x, DType::kFloat, {2, 3}), nullptr, nullptr, false);
    p->AddOperand(TensorView::Contiguous(x, DType::kFloat, {6}), nullptr, nullptr, true);
    ASSERT_TRUE(s->Submit(p).ok());
  }
  exit(s->Synchronize(Stream::kNever).ok() ? 0 : 1);  // without the usual end of the program
}

TEST(TraceTest, TheFileIsValidAndCompleteAfterExit) {
  char file[] = "/tmp/anycann_trace_XXXXXX";
  const int fd = mkstemp(file);
  ASSERT_GE(fd, 0);
  close(fd);
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("ANYCANN_TRACE", file, 1);
    execl("/proc/self/exe", "test", "--gtest_filter=TraceChild.*", nullptr);
    _exit(127);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  std::ifstream in(file);
  const auto json = nlohmann::json::parse(in, nullptr, false);
  unlink(file);
  ASSERT_FALSE(json.is_discarded());
  int adds = 0;
  for (const auto& e : json["traceEvents"]) {
    if (e["name"] != "aclnnAdd") continue;
    ++adds;
    EXPECT_EQ(e["ph"], "X");
    EXPECT_GE(e["dur"].get<double>(), 0.0);
    EXPECT_EQ(e["args"]["operands"], "float32[2,3] -> float32[6]");
    EXPECT_EQ(e["args"]["implementation"], "test");
    EXPECT_EQ(e["args"]["bytes"], 48);
    EXPECT_GT(e["args"]["share"].get<double>(), 0.0);
  }
  EXPECT_EQ(adds, 100);
  EXPECT_GT(json["otherData"]["flops_per_second"].get<double>(), 1e8);
}

}  // namespace
}  // namespace anycann
