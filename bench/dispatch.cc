// Cost of one aclnn call from C++: phase one, phase two and the execution of a 1-element add, handles created
// beforehand, averaged over a full queue. Prints nanoseconds per call as JSON. Argument: number of calls
// (default 1,000,000).
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "acl/acl.h"
#include "aclnn/acl_meta.h"
#include "aclnnop/aclnn_add.h"

#define CHECK(call)                                                                           \
  do {                                                                                        \
    const int code_ = static_cast<int>(call);                                                 \
    if (code_ != 0) {                                                                         \
      const char* why_ = aclGetRecentErrMsg();                                                \
      std::fprintf(stderr, "%s returned %d: %s\n", #call, code_, why_ ? why_ : "no message"); \
      std::exit(1);                                                                           \
    }                                                                                         \
  } while (0)

namespace {

double Nanoseconds(long calls, aclrtStream stream, aclTensor* a, aclTensor* b, aclScalar* alpha,
                   aclTensor* out) {
  constexpr long kQueue = 1000;  // calls between two synchronisations
  const auto start = std::chrono::steady_clock::now();
  for (long i = 0; i < calls; i += kQueue) {
    for (long j = 0; j < kQueue; ++j) {
      uint64_t size = 0;
      aclOpExecutor* executor = nullptr;
      CHECK(aclnnAddGetWorkspaceSize(a, b, alpha, out, &size, &executor));
      CHECK(aclnnAdd(nullptr, size, executor, stream));
    }
    CHECK(aclrtSynchronizeStream(stream));
  }
  const std::chrono::duration<double, std::nano> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count() / static_cast<double>(calls);
}

}  // namespace

int main(int argc, char** argv) {
  const long calls = argc > 1 ? std::atol(argv[1]) : 1000000;
  CHECK(aclInit(nullptr));
  CHECK(aclrtSetDevice(0));
  aclrtStream stream = nullptr;
  CHECK(aclrtCreateStream(&stream));
  void* memory = nullptr;
  CHECK(aclrtMalloc(&memory, 4096, ACL_MEM_MALLOC_HUGE_FIRST));
  CHECK(aclrtMemset(memory, 4096, 0, 4096));
  const int64_t one = 1;
  float alpha_value = 1;
  char* base = static_cast<char*>(memory);
  aclTensor* t[3];
  for (int i = 0; i < 3; ++i)
    t[i] = aclCreateTensor(&one, 1, ACL_FLOAT, &one, 0, ACL_FORMAT_ND, &one, 1, base + 512 * i);
  aclScalar* alpha = aclCreateScalar(&alpha_value, ACL_FLOAT);
  Nanoseconds(calls / 10, stream, t[0], t[1], alpha, t[2]);
  double best = 1e30, sum = 0;
  constexpr int kRounds = 5;
  for (int i = 0; i < kRounds; ++i) {
    const double ns = Nanoseconds(calls, stream, t[0], t[1], alpha, t[2]);
    best = ns < best ? ns : best;
    sum += ns;
  }
  std::printf("{\"add1_ns_best\": %.1f, \"add1_ns_mean\": %.1f, \"calls\": %ld}\n", best, sum / kRounds,
              calls);
  for (aclTensor* x : t) aclDestroyTensor(x);
  aclDestroyScalar(alpha);
  CHECK(aclrtFree(memory));
  CHECK(aclrtDestroyStream(stream));
  CHECK(aclrtResetDevice(0));
  CHECK(aclFinalize());
  return 0;
}
