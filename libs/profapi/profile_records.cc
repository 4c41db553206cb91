// The record interface of profiling. Clients report only while a profiler listens; none does, so records are
// dropped.
#include <ctime>

#include "base/error.h"
#include "profiling/aprof_pub.h"

int32_t MsprofRegisterCallback(uint32_t, ProfCommandHandle handle) {
  if (handle == nullptr) {
    return anycann::RecordError(
        anycann::Error(anycann::kInvalidParam, "MsprofRegisterCallback: handle is a null pointer"));
  }
  return 0;  // never called: profiling is never switched on
}

// Nanoseconds of the steady clock.
uint64_t MsprofSysCycleTime() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// FNV-1a: the same text has the same number in every process.
uint64_t MsprofGetHashId(const char* hashInfo, size_t length) {
  uint64_t hash = 14695981039346656037ULL;
  if (hashInfo == nullptr) return hash;
  for (size_t i = 0; i < length; ++i)
    hash = (hash ^ static_cast<unsigned char>(hashInfo[i])) * 1099511628211ULL;
  return hash;
}

int32_t MsprofReportApi(uint32_t, const MsprofApi*) { return 0; }
int32_t MsprofReportCompactInfo(uint32_t, const VOID_PTR, uint32_t) { return 0; }
int32_t MsprofReportAdditionalInfo(uint32_t, const VOID_PTR, uint32_t) { return 0; }
