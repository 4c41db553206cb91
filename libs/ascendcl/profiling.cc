// Profiling of the client's kind (aclprof*). Its calls succeed and keep what they are told; the record of
// what ran is the trace (ANYCANN_TRACE), which needs no client.
#include <atomic>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "acl/acl_prof.h"
#include "base/log.h"
#include "libs/ascendcl/door.h"

using namespace anycann;

struct aclprofConfig {
  std::vector<uint32_t> devices;
  aclprofAicoreMetrics metrics;
  uint64_t types;
};
struct aclprofStepInfo {
  int64_t begin = 0, end = 0;
};

namespace {

std::atomic<bool> initialised{false};
std::atomic<uint32_t> next_range{1};

Status Started(const char* function, const aclprofConfig* config) {
  if (config == nullptr) return Null(function, "profilerConfig");
  if (!initialised) return Error(ACL_ERROR_UNINITIALIZE, "{}: call aclprofInit first", function);
  return Status();
}

}  // namespace

aclError aclprofInit(const char* profilerResultPath, size_t length) {
  ANYCANN_NOT_NULL(profilerResultPath);
  if (length == 0) return Answer(Error(kInvalidParam, "aclprofInit: length is 0"));
  initialised = true;
  Log(LogLevel::kInfo,
      "aclprofInit: nothing is written to {}; start the program with ANYCANN_TRACE=FILE for a timeline",
      std::string(profilerResultPath, length));
  return 0;
}

aclError aclprofFinalize() {
  initialised = false;
  return 0;
}

aclprofConfig* aclprofCreateConfig(uint32_t* deviceIdList, uint32_t deviceNums,
                                   aclprofAicoreMetrics aicoreMetrics, const aclprofAicoreEvents*,
                                   uint64_t dataTypeConfig) {
  if (deviceIdList == nullptr && deviceNums > 0) {
    Answer(Null("aclprofCreateConfig", "deviceIdList"));
    return nullptr;
  }
  aclprofConfig* config = nullptr;
  Door("aclprofCreateConfig", [&] {
    config = new aclprofConfig{{deviceIdList, deviceIdList + deviceNums}, aicoreMetrics, dataTypeConfig};
    return Status();
  });
  return config;
}

aclError aclprofDestroyConfig(const aclprofConfig* profilerConfig) {
  ANYCANN_NOT_NULL(profilerConfig);
  delete profilerConfig;
  return 0;
}

aclError aclprofStart(const aclprofConfig* profilerConfig) {
  return Answer(Started(__func__, profilerConfig));
}
aclError aclprofStop(const aclprofConfig* profilerConfig) {
  return Answer(Started(__func__, profilerConfig));
}

aclprofStepInfo* aclprofCreateStepInfo() { return new (std::nothrow) aclprofStepInfo; }
aclError aclprofDestroyStepInfo(aclprofStepInfo* stepinfo) {
  ANYCANN_NOT_NULL(stepinfo);
  delete stepinfo;
  return 0;
}
aclError aclprofGetStepTimestamp(aclprofStepInfo* stepInfo, aclprofStepTag, aclrtStream stream) {
  ANYCANN_NOT_NULL(stepInfo);
  return OnStream(__func__, stream, [](Stream*) { return Status(); });
}

// Marks and ranges.
void* aclprofCreateStamp() { return new (std::nothrow) char; }
void aclprofDestroyStamp(void* stamp) { delete static_cast<char*>(stamp); }
aclError aclprofSetStampTraceMessage(void* stamp, const char* msg, uint32_t) {
  ANYCANN_NOT_NULL(stamp);
  ANYCANN_NOT_NULL(msg);
  return 0;
}
aclError aclprofMark(void* stamp) {
  ANYCANN_NOT_NULL(stamp);
  return 0;
}
aclError aclprofPush(void* stamp) {
  ANYCANN_NOT_NULL(stamp);
  return 0;
}
aclError aclprofPop() { return 0; }
aclError aclprofRangeStart(void* stamp, uint32_t* rangeId) {
  ANYCANN_NOT_NULL(stamp);
  ANYCANN_NOT_NULL(rangeId);
  *rangeId = next_range.fetch_add(1);
  return 0;
}
aclError aclprofRangeStop(uint32_t) { return 0; }
