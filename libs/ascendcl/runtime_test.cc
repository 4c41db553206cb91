// The runtime through its C interface, as a client sees it.
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "acl/acl.h"
#include "acl/acl_prof.h"

namespace {

class Acl : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(aclrtSetDevice(0), 0);
    ASSERT_EQ(aclrtCreateStream(&stream_), 0);
    aclGetRecentErrMsg();
  }
  void TearDown() override {
    EXPECT_EQ(aclrtDestroyStream(stream_), 0);
    EXPECT_EQ(aclrtResetDevice(0), 0);
  }
  static std::string Message() {
    const char* m = aclGetRecentErrMsg();
    return m != nullptr ? m : "";
  }
  aclrtStream stream_ = nullptr;
};

TEST(AclInit, CountsItsUses) {
  EXPECT_EQ(aclFinalize(), ACL_ERROR_REPEAT_FINALIZE);
  EXPECT_EQ(aclInit(nullptr), 0);
  EXPECT_EQ(aclInit(nullptr), ACL_ERROR_REPEAT_INITIALIZE);
  uint64_t left = 9;
  EXPECT_EQ(aclFinalizeReference(&left), 0);
  EXPECT_EQ(left, 1u);
  EXPECT_EQ(aclFinalizeReference(&left), 0);
  EXPECT_EQ(left, 0u);
  EXPECT_EQ(aclFinalizeReference(&left), ACL_ERROR_REPEAT_FINALIZE);
}

TEST(AclInit, ReadsItsConfiguration) {
  const std::string path = testing::TempDir() + "/acl_test.json";
  std::ofstream(path) << "{\"dump\":{}}";
  EXPECT_EQ(aclInit(path.c_str()), 0);
  EXPECT_EQ(aclFinalize(), 0);
  std::ofstream(path) << "{\"dump\":";
  EXPECT_EQ(aclInit(path.c_str()), ACL_ERROR_PARSE_FILE);
  std::remove(path.c_str());
  EXPECT_EQ(aclInit(path.c_str()), ACL_ERROR_INVALID_FILE);
}

TEST(AclError, TheMessageIsReturnedOnceAndThenNull) {
  aclGetRecentErrMsg();
  EXPECT_EQ(aclGetRecentErrMsg(), nullptr);
  EXPECT_EQ(aclrtSetDevice(99), ACL_ERROR_RT_INVALID_DEVICEID);
  EXPECT_EQ(aclrtPeekAtLastError(ACL_RT_THREAD_LEVEL), ACL_ERROR_RT_INVALID_DEVICEID);
  EXPECT_EQ(aclrtGetLastError(ACL_RT_THREAD_LEVEL), ACL_ERROR_RT_INVALID_DEVICEID);
  EXPECT_EQ(aclrtGetLastError(ACL_RT_THREAD_LEVEL), 0);
  std::thread([] { EXPECT_EQ(aclGetRecentErrMsg(), nullptr); }).join();
  const char* message = aclGetRecentErrMsg();
  ASSERT_NE(message, nullptr);
  EXPECT_NE(std::strstr(message, "device 99 does not exist"), nullptr) << message;
  EXPECT_EQ(aclGetRecentErrMsg(), nullptr);
}

TEST_F(Acl, AThreadWithoutADeviceGetsAnErrorThatSaysWhatToDo) {
  std::thread([] {
    int32_t device = 0;
    aclrtStream s = nullptr;
    void* p = nullptr;
    EXPECT_EQ(aclrtGetDevice(&device), ACL_ERROR_RT_CONTEXT_NULL);
    EXPECT_EQ(aclrtCreateStream(&s), ACL_ERROR_RT_CONTEXT_NULL);
    EXPECT_EQ(aclrtMalloc(&p, 100, ACL_MEM_MALLOC_HUGE_FIRST), ACL_ERROR_RT_CONTEXT_NULL);
    EXPECT_EQ(aclrtSynchronizeStream(nullptr), ACL_ERROR_RT_CONTEXT_NULL);
    EXPECT_NE(Message().find("aclrtSetDevice"), std::string::npos);
  }).join();
}

TEST_F(Acl, ContextsHaveTheirOwnDefaultStreams) {
  aclrtContext primary = nullptr, own = nullptr;
  aclrtStream a = nullptr, b = nullptr;
  ASSERT_EQ(aclrtGetCurrentContext(&primary), 0);
  ASSERT_EQ(aclrtCtxGetCurrentDefaultStream(&a), 0);
  ASSERT_EQ(aclrtCreateContext(&own, 0), 0);
  ASSERT_EQ(aclrtCtxGetCurrentDefaultStream(&b), 0);
  EXPECT_NE(a, b);
  EXPECT_NE(aclrtDestroyContext(primary), 0);
  EXPECT_EQ(aclrtDestroyContext(own), 0);
  EXPECT_NE(aclrtDestroyContext(own), 0);
  EXPECT_NE(aclrtSynchronizeStream(b), 0);
  EXPECT_NE(aclrtSetCurrentContext(own), 0);
  EXPECT_EQ(aclrtSetCurrentContext(primary), 0);
  EXPECT_EQ(aclrtSynchronizeStream(nullptr), 0);
}

TEST_F(Acl, CopiesCheckTheirSizes) {
  char host[64] = "text";
  void* p = nullptr;
  ASSERT_EQ(aclrtMalloc(&p, 64, ACL_MEM_MALLOC_NORMAL_ONLY), 0);
  EXPECT_EQ(aclrtMemcpy(p, 64, host, 64, ACL_MEMCPY_HOST_TO_DEVICE), 0);
  EXPECT_NE(aclrtMemcpy(p, 32, host, 64, ACL_MEMCPY_HOST_TO_DEVICE), 0);
  EXPECT_NE(Message().find("destMax"), std::string::npos);
  EXPECT_NE(aclrtMemcpy(p, 1000, host, 65, ACL_MEMCPY_HOST_TO_DEVICE), 0);
  EXPECT_NE(Message().find("block of 64 bytes"), std::string::npos);
  EXPECT_NE(aclrtMemcpy(nullptr, 64, host, 64, ACL_MEMCPY_HOST_TO_DEVICE), 0);
  EXPECT_EQ(aclrtMemset(p, 64, 1, 64), 0);
  EXPECT_NE(aclrtMemset(p, 63, 1, 64), 0);
  EXPECT_EQ(aclrtMemcpy(host, 64, p, 64, ACL_MEMCPY_DEVICE_TO_HOST), 0);
  EXPECT_EQ(host[63], 1);
  EXPECT_EQ(aclrtFree(p), 0);
  EXPECT_NE(aclrtFree(p), 0);
  EXPECT_NE(Message().find("freed before"), std::string::npos);
}

TEST_F(Acl, RectanglesAreCopiedByRows) {
  char from[6][10], to[6][7] = {};
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 10; ++x) from[y][x] = static_cast<char>(y * 10 + x);
  }
  ASSERT_EQ(aclrtMemcpy2dAsync(to, 7, from, 10, 5, 6, ACL_MEMCPY_HOST_TO_HOST, stream_), 0);
  ASSERT_EQ(aclrtSynchronizeStream(stream_), 0);
  for (int y = 0; y < 6; ++y) {
    for (int x = 0; x < 7; ++x) EXPECT_EQ(to[y][x], x < 5 ? y * 10 + x : 0);
  }
  EXPECT_NE(aclrtMemcpy2d(to, 4, from, 10, 5, 6, ACL_MEMCPY_HOST_TO_HOST), 0);
}

// As CUDA does: ordinary memory may change when an asynchronous copy from it has returned.
TEST_F(Acl, OrdinaryHostMemoryMayBeReusedAfterAnAsynchronousCopy) {
  void* p = nullptr;
  ASSERT_EQ(aclrtMalloc(&p, 8, ACL_MEM_MALLOC_NORMAL_ONLY), 0);
  struct Block {
    bool go = false;
    static void Wait(void* b) {
      while (!__atomic_load_n(&static_cast<Block*>(b)->go, __ATOMIC_ACQUIRE)) sched_yield();
    }
  } block;
  ASSERT_EQ(aclrtLaunchHostFunc(stream_, Block::Wait, &block), 0);
  int64_t value = 1, out = 0;
  ASSERT_EQ(aclrtMemcpyAsync(p, 8, &value, 8, ACL_MEMCPY_HOST_TO_DEVICE, stream_), 0);
  value = 2;
  __atomic_store_n(&block.go, true, __ATOMIC_RELEASE);
  ASSERT_EQ(aclrtMemcpyAsync(&out, 8, p, 8, ACL_MEMCPY_DEVICE_TO_HOST, stream_), 0);
  EXPECT_EQ(out, 1);
  EXPECT_EQ(aclrtFree(p), 0);
}

TEST_F(Acl, EventsMeasureTime) {
  aclrtEvent a = nullptr, b = nullptr;
  float ms = -1;
  ASSERT_EQ(aclrtCreateEventWithFlag(&a, ACL_EVENT_TIME_LINE), 0);
  ASSERT_EQ(aclrtCreateEventWithFlag(&b, ACL_EVENT_TIME_LINE), 0);
  EXPECT_NE(aclrtEventElapsedTime(&ms, a, b), 0);
  ASSERT_EQ(aclrtRecordEvent(a, stream_), 0);
  ASSERT_EQ(aclrtLaunchHostFunc(
                stream_, [](void*) { usleep(5000); }, nullptr),
            0);
  ASSERT_EQ(aclrtRecordEvent(b, stream_), 0);
  ASSERT_EQ(aclrtSynchronizeEvent(b), 0);
  ASSERT_EQ(aclrtEventElapsedTime(&ms, a, b), 0);
  EXPECT_GE(ms, 5.0f);
  aclrtEventRecordedStatus status = ACL_EVENT_RECORDED_STATUS_NOT_READY;
  ASSERT_EQ(aclrtQueryEventStatus(b, &status), 0);
  EXPECT_EQ(status, ACL_EVENT_RECORDED_STATUS_COMPLETE);
  EXPECT_EQ(aclrtDestroyEvent(a), 0);
  EXPECT_NE(aclrtDestroyEvent(a), 0);
  EXPECT_NE(aclrtRecordEvent(a, stream_), 0);
  EXPECT_EQ(aclrtDestroyEvent(b), 0);
}

TEST_F(Acl, AWaitWithADeadlineEndsInTime) {
  static bool go;
  go = false;
  ASSERT_EQ(aclrtLaunchHostFunc(
                stream_,
                [](void*) {
                  while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE)) sched_yield();
                },
                nullptr),
            0);
  EXPECT_EQ(aclrtSynchronizeStreamWithTimeout(stream_, 20), ACL_ERROR_RT_STREAM_SYNC_TIMEOUT);
  EXPECT_NE(Message().find("aclrtLaunchHostFunc has not returned"), std::string::npos);
  EXPECT_EQ(aclrtSynchronizeDeviceWithTimeout(20), ACL_ERROR_RT_STREAM_SYNC_TIMEOUT);
  aclrtStreamStatus status = ACL_STREAM_STATUS_COMPLETE;
  EXPECT_EQ(aclrtStreamQuery(stream_, &status), 0);
  EXPECT_EQ(status, ACL_STREAM_STATUS_NOT_READY);
  __atomic_store_n(&go, true, __ATOMIC_RELEASE);
  EXPECT_EQ(aclrtSynchronizeStreamWithTimeout(stream_, -1), 0);
  EXPECT_NE(aclrtSynchronizeStreamWithTimeout(stream_, -2), 0);
}

TEST_F(Acl, CaptureStatusIsWhatTorchExpects) {
  aclmdlRICaptureStatus status = ACL_MODEL_RI_CAPTURE_STATUS_INVALIDATED;
  aclmdlRI during = nullptr, model = nullptr;
  int32_t word[2] = {0, 0};
  ASSERT_EQ(aclmdlRICaptureGetInfo(stream_, &status, &during), 0);
  EXPECT_EQ(status, ACL_MODEL_RI_CAPTURE_STATUS_NONE);
  ASSERT_EQ(aclmdlRICaptureBegin(stream_, ACL_MODEL_RI_CAPTURE_MODE_GLOBAL), 0);
  EXPECT_NE(aclmdlRICaptureBegin(stream_, ACL_MODEL_RI_CAPTURE_MODE_GLOBAL), 0);
  ASSERT_EQ(aclmdlRICaptureGetInfo(stream_, &status, &during), 0);
  EXPECT_EQ(status, ACL_MODEL_RI_CAPTURE_STATUS_ACTIVE);
  ASSERT_EQ(aclrtMemsetD32Async(word, 8, 7, 2, stream_), 0);
  ASSERT_EQ(aclmdlRICaptureEnd(stream_, &model), 0);
  EXPECT_EQ(model, during);
  EXPECT_EQ(word[1], 0);
  ASSERT_EQ(aclmdlRIExecuteAsync(model, stream_), 0);
  ASSERT_EQ(aclrtSynchronizeStream(stream_), 0);
  EXPECT_EQ(word[1], 7);
  ASSERT_EQ(aclmdlRIDestroy(model), 0);
  EXPECT_NE(aclmdlRIExecuteAsync(model, stream_), 0);
  EXPECT_NE(aclmdlRICaptureEnd(stream_, &model), 0);
}

TEST_F(Acl, NotifiesLowerThemselves) {
  aclrtStream other = nullptr;
  aclrtNotify n = nullptr;
  ASSERT_EQ(aclrtCreateStream(&other), 0);
  ASSERT_EQ(aclrtCreateNotify(&n, 0), 0);
  for (int i = 0; i < 3; ++i) {
    aclrtStreamStatus status = ACL_STREAM_STATUS_COMPLETE;
    ASSERT_EQ(aclrtWaitAndResetNotify(n, stream_, 0), 0);
    ASSERT_EQ(aclrtStreamQuery(stream_, &status), 0);
    EXPECT_EQ(status, ACL_STREAM_STATUS_NOT_READY);
    ASSERT_EQ(aclrtRecordNotify(n, other), 0);
    ASSERT_EQ(aclrtSynchronizeStream(stream_), 0);
  }
  EXPECT_EQ(aclrtDestroyNotify(n), 0);
  EXPECT_EQ(aclrtDestroyStream(other), 0);
}

TEST_F(Acl, ValuesInMemoryOrderStreams) {
  aclrtStream other = nullptr;
  void* p = nullptr;
  ASSERT_EQ(aclrtCreateStream(&other), 0);
  ASSERT_EQ(aclrtMalloc(&p, 8, ACL_MEM_MALLOC_NORMAL_ONLY), 0);
  ASSERT_EQ(aclrtValueWait(p, 5, ACL_STREAM_WAIT_VALUE_GEQ, stream_), 0);
  aclrtStreamStatus status = ACL_STREAM_STATUS_COMPLETE;
  ASSERT_EQ(aclrtStreamQuery(stream_, &status), 0);
  EXPECT_EQ(status, ACL_STREAM_STATUS_NOT_READY);
  ASSERT_EQ(aclrtValueWrite(p, 6, 0, other), 0);
  ASSERT_EQ(aclrtSynchronizeStream(stream_), 0);
  EXPECT_NE(aclrtValueWait(static_cast<char*>(p) + 1, 5, 0, stream_), 0);
  EXPECT_EQ(aclrtFree(p), 0);
  EXPECT_EQ(aclrtDestroyStream(other), 0);
}

TEST_F(Acl, NullPointersAreRefusedByName) {
  EXPECT_EQ(aclrtGetDeviceCount(nullptr), ACL_ERROR_INVALID_PARAM);
  EXPECT_NE(Message().find("count"), std::string::npos);
  EXPECT_EQ(aclrtCreateStream(nullptr), ACL_ERROR_INVALID_PARAM);
  EXPECT_EQ(aclrtCreateEvent(nullptr), ACL_ERROR_INVALID_PARAM);
  EXPECT_NE(aclrtRecordEvent(nullptr, stream_), 0);
  EXPECT_EQ(aclrtMalloc(nullptr, 4, ACL_MEM_MALLOC_HUGE_FIRST), ACL_ERROR_INVALID_PARAM);
  EXPECT_EQ(aclrtGetMemInfo(ACL_HBM_MEM, nullptr, nullptr), ACL_ERROR_INVALID_PARAM);
  EXPECT_EQ(aclrtLaunchHostFunc(stream_, nullptr, nullptr), ACL_ERROR_INVALID_PARAM);
}

TEST_F(Acl, ProfilingCallsSucceed) {
  uint32_t device = 0;
  ASSERT_EQ(aclprofInit("/tmp", 4), 0);
  aclprofConfig* config = aclprofCreateConfig(&device, 1, ACL_AICORE_NONE, nullptr, 0);
  ASSERT_NE(config, nullptr);
  EXPECT_EQ(aclprofStart(config), 0);
  EXPECT_EQ(aclprofStop(config), 0);
  EXPECT_EQ(aclprofDestroyConfig(config), 0);
  EXPECT_EQ(aclprofFinalize(), 0);
}

}  // namespace
