// Makes every allocation of a first-operator scenario fail in turn: initialise, device, stream, memory,
// tensors, one addition, synchronise, read back, clean up. In each round a call may fail, but only with a
// code and a sentence; nothing crashes or hangs, and the whole scenario, repeated right after without a
// failure, works.
//
// Each round is a process of its own, so that "first" stays first. Thread creation fails through mmap of the
// stack.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "acl/acl.h"
#include "aclnn/acl_meta.h"
#include "aclnnop/aclnn_add.h"
#include "tests/faults/failing_memory.h"

namespace {

// What the scenario holds, so that it can let go of it wherever it stopped.
struct Held {
  bool initialised = false, device = false;
  aclrtStream stream = nullptr;
  void* memory = nullptr;
  aclTensor* tensors[3] = {};
  aclScalar* alpha = nullptr;
};

const char* failed_call = nullptr;
int failed_code = 0;

bool Check(int code, const char* call) {
  if (code == 0) return true;
  failed_call = call;
  failed_code = code;
  return false;
}
#define TRY(call) \
  if (!Check(static_cast<int>(call), #call)) return false

bool Scenario(Held* h) {
  TRY(aclInit(nullptr));
  h->initialised = true;
  TRY(aclrtSetDevice(0));
  h->device = true;
  TRY(aclrtCreateStream(&h->stream));
  TRY(aclrtMalloc(&h->memory, 3 * 4096, ACL_MEM_MALLOC_HUGE_FIRST));
  float host[1024];
  for (int i = 0; i < 1024; ++i) host[i] = static_cast<float>(i);
  char* base = static_cast<char*>(h->memory);
  TRY(aclrtMemcpy(base, 4096, host, 4096, ACL_MEMCPY_HOST_TO_DEVICE));
  TRY(aclrtMemcpyAsync(base + 4096, 4096, base, 4096, ACL_MEMCPY_DEVICE_TO_DEVICE, h->stream));
  const int64_t n = 1024, one = 1;
  for (int i = 0; i < 3; ++i) {
    h->tensors[i] = aclCreateTensor(&n, 1, ACL_FLOAT, &one, 0, ACL_FORMAT_ND, &n, 1, base + 4096 * i);
    TRY(h->tensors[i] ? 0 : 561101);
  }
  float alpha = 2;
  h->alpha = aclCreateScalar(&alpha, ACL_FLOAT);
  TRY(h->alpha ? 0 : 561101);
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  TRY(aclnnAddGetWorkspaceSize(h->tensors[0], h->tensors[1], h->alpha, h->tensors[2], &size, &executor));
  TRY(aclnnAdd(nullptr, size, executor, h->stream));
  TRY(aclrtSynchronizeStream(h->stream));
  TRY(aclrtMemcpy(host, 4096, base + 8192, 4096, ACL_MEMCPY_DEVICE_TO_HOST));
  for (int i = 0; i < 1024; ++i) {
    if (host[i] != static_cast<float>(3 * i)) {
      std::printf("element %d is %g, expected %d\n", i, static_cast<double>(host[i]), 3 * i);
      std::exit(3);
    }
  }
  return true;
}

void LetGo(Held* h) {
  for (aclTensor* t : h->tensors)
    if (t) aclDestroyTensor(t);
  if (h->alpha) aclDestroyScalar(h->alpha);
  if (h->memory) aclrtFree(h->memory);
  if (h->stream) aclrtDestroyStream(h->stream);
  if (h->device) aclrtResetDevice(0);
  if (h->initialised) aclFinalize();
}

// One round in its own process. 0: the failure was answered well, or hit nothing; 10: there was no k-th
// allocation.
int Round(long k) {
  alarm(20);  // a hang ends the process by signal
  Held first;
  failing_memory::Arm(k, false);
  const bool worked = Scenario(&first);
  const bool reached = failing_memory::Disarm() > k;
  if (!worked && failed_code == 0) return 1;
  LetGo(&first);
  Held second;
  if (!Scenario(&second)) {
    std::printf("allocation %ld failed in %s (%d); afterwards %s returned %d\n", k, "the first run",
                failed_code, failed_call, failed_code);
    return 2;
  }
  LetGo(&second);
  return reached ? 0 : 10;
}

}  // namespace

// Without an argument all rounds; with a number that round alone, in this process: for a debugger.
int main(int argc, char** argv) {
  if (argc > 1) return Round(std::atol(argv[1]));
  int bad = 0;
  long k = 0;
  for (; k < 100000; ++k) {
    std::fflush(stdout);  // or the child prints it again
    const pid_t pid = fork();
    if (pid == 0) {
      const int code = Round(k);
      std::fflush(stdout);
      _exit(code);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 10) break;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    ++bad;
    std::printf("allocation %ld: %s %d\n", k, WIFEXITED(status) ? "exit code" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    if (bad >= 20) break;
  }
  std::printf("%ld allocations made to fail, %d answered badly\n", k, bad);
  return bad == 0 && k > 10 ? 0 : 1;
}
