// Settings and marks of the profiling interface. AnyCANN records Plans itself (`anycann run --trace`); the
// settings that a client's profiler makes are checked and kept for nobody, and its marks are dropped.
#include "acl/acl_prof.h"
#include "base/error.h"

namespace {

aclError NullPointer(const char* function, const char* name) {
  return anycann::RecordError(
      anycann::Error(anycann::kInvalidParam, "{}: {} is a null pointer", function, name));
}

}  // namespace

aclError aclprofSetConfig(aclprofConfigType configType, const char* config, size_t configLength) {
  if (configType <= ACL_PROF_ARGS_MIN || configType >= ACL_PROF_ARGS_MAX) {
    return anycann::RecordError(anycann::Error(anycann::kInvalidParam,
                                               "aclprofSetConfig: configType is {}, which is no setting",
                                               static_cast<int>(configType)));
  }
  if (config == nullptr || configLength == 0) return NullPointer("aclprofSetConfig", "config");
  return 0;
}

aclError aclprofMarkEx(const char* msg, size_t msgLen, aclrtStream) {
  return msg == nullptr || msgLen == 0 ? NullPointer("aclprofMarkEx", "msg") : 0;
}

aclError aclprofWarmup(const aclprofConfig* profilerConfig) {
  return profilerConfig == nullptr ? NullPointer("aclprofWarmup", "profilerConfig") : 0;
}
