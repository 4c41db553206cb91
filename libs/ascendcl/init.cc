// The library's beginning and end, versions, capabilities, errors, settings that are kept for the client.
#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libs/ascendcl/door.h"
#include "runtime/context.h"
#include "runtime/device.h"

using namespace anycann;

namespace {

// The CANN release whose interfaces are offered; clients choose their code paths by it.
constexpr const char* kCannVersion = "9.0.0";
constexpr int32_t kCannVersionNumber = 90000000;

template <class Function>
struct Callback {
  aclRegisterCallbackType type;
  Function function;
  void* data;
};

struct Library {
  std::mutex mutex;
  uint64_t references = 0;
  std::string config;
  std::vector<Callback<aclInitCallbackFunc>> on_init;
  std::vector<Callback<aclFinalizeCallbackFunc>> on_finalize;
  static Library& Get() {
    static Library* l = new Library;  // never destroyed: clients finalize during exit
    return *l;
  }
};

// {"defaultDevice": {"default_device": "0"}}, as torch_npu's acl_default.json has it.
void ReadDefaultDevice(const nlohmann::json& json) {
  const auto section = json.find("defaultDevice");
  if (section == json.end() || !section->is_object()) return;
  const auto value = section->find("default_device");
  if (value == section->end() || !value->is_string()) return;
  const std::string& text = value->get_ref<const std::string&>();
  const bool number =
      !text.empty() && text.size() < 5 && text.find_first_not_of("0123456789") == std::string::npos;
  if (number && std::stoi(text) < Device::Count()) SetDefaultDevice(std::stoi(text));
}

Status ReadConfig(const char* path, std::string* text) {
  if (path == nullptr || *path == '\0') return Status();
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error(100003, "aclInit: {} can't be read: {}", path, std::strerror(errno));
  constexpr size_t kLimit = size_t{10} << 20;
  text->resize(kLimit + 1);
  in.read(text->data(), static_cast<std::streamsize>(text->size()));
  text->resize(static_cast<size_t>(in.gcount()));
  if (text->size() > kLimit) return Error(100005, "aclInit: {} is longer than {} bytes", path, kLimit);
  if (text->empty()) return Status();
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (json.is_discarded() || !json.is_object())
    return Error(100006, "aclInit: {} is not a JSON object", path);
  ReadDefaultDevice(json);
  return Status();
}

template <class List, class Function>
Status Unregister(List& list, const char* name, aclRegisterCallbackType type, Function function) {
  const auto it = std::find_if(list.begin(), list.end(),
                               [&](const auto& c) { return c.type == type && c.function == function; });
  if (it == list.end()) return Error(kInvalidParam, "{}: the callback was not registered", name);
  list.erase(it);
  return Status();
}

}  // namespace

aclError aclInit(const char* configPath) {
  return Door(__func__, [&] {
    std::string config;
    RETURN_IF_ERROR(ReadConfig(configPath, &config));
    std::vector<Callback<aclInitCallbackFunc>> callbacks;
    {
      Library& l = Library::Get();
      std::lock_guard<std::mutex> lock(l.mutex);
      if (++l.references > 1)
        return Error(kRepeatInitialize,
                     "aclInit: already initialised, {} times by now; aclFinalize undoes one",
                     l.references - 1);
      l.config = config;
      callbacks = l.on_init;
    }
    for (const auto& c : callbacks) {
      const aclError code = c.function(config.c_str(), config.size(), c.data);
      if (code != 0) return Error(code, "aclInit: a registered callback failed with {}", code);
    }
    return Status();
  });
}

namespace {

Status Finalize(bool all, uint64_t* left) {
  std::vector<Callback<aclFinalizeCallbackFunc>> callbacks;
  {
    Library& l = Library::Get();
    std::lock_guard<std::mutex> lock(l.mutex);
    if (l.references == 0)
      return Error(kRepeatFinalize, "aclFinalize: not initialised, or already finalized");
    l.references = all ? 0 : l.references - 1;
    if (left != nullptr) *left = l.references;
    if (l.references > 0) return Status();
    callbacks = l.on_finalize;
  }
  for (const auto& c : callbacks) static_cast<void>(c.function(c.data));
  return Status();
}

}  // namespace

aclError aclFinalize() {
  return Door(__func__, [] { return Finalize(true, nullptr); });
}

aclError aclFinalizeReference(uint64_t* refCount) {
  return Door(__func__, [&] { return Finalize(false, refCount); });
}

aclError aclInitCallbackRegister(aclRegisterCallbackType type, aclInitCallbackFunc cbFunc, void* userData) {
  ANYCANN_NOT_NULL(cbFunc);
  return Door(__func__, [&] {
    std::lock_guard<std::mutex> lock(Library::Get().mutex);
    Library::Get().on_init.push_back({type, cbFunc, userData});
    return Status();
  });
}

aclError aclInitCallbackUnRegister(aclRegisterCallbackType type, aclInitCallbackFunc cbFunc) {
  return Door(__func__, [&] {
    std::lock_guard<std::mutex> lock(Library::Get().mutex);
    return Unregister(Library::Get().on_init, "aclInitCallbackUnRegister", type, cbFunc);
  });
}

aclError aclFinalizeCallbackRegister(aclRegisterCallbackType type, aclFinalizeCallbackFunc cbFunc,
                                     void* userData) {
  ANYCANN_NOT_NULL(cbFunc);
  return Door(__func__, [&] {
    std::lock_guard<std::mutex> lock(Library::Get().mutex);
    Library::Get().on_finalize.push_back({type, cbFunc, userData});
    return Status();
  });
}

aclError aclFinalizeCallbackUnRegister(aclRegisterCallbackType type, aclFinalizeCallbackFunc cbFunc) {
  return Door(__func__, [&] {
    std::lock_guard<std::mutex> lock(Library::Get().mutex);
    return Unregister(Library::Get().on_finalize, "aclFinalizeCallbackUnRegister", type, cbFunc);
  });
}

const char* aclGetRecentErrMsg() { return TakeLastError(); }

aclError aclrtGetLastError(aclrtLastErrLevel level) {
  if (level != ACL_RT_THREAD_LEVEL)
    return Answer(Error(kInvalidParam, "aclrtGetLastError: level is {}, only ACL_RT_THREAD_LEVEL (0) exists",
                        static_cast<int>(level)));
  return TakeLastCode();
}

aclError aclrtPeekAtLastError(aclrtLastErrLevel level) {
  if (level != ACL_RT_THREAD_LEVEL)
    return Answer(Error(kInvalidParam,
                        "aclrtPeekAtLastError: level is {}, only ACL_RT_THREAD_LEVEL (0) exists",
                        static_cast<int>(level)));
  return LastCode();
}

aclError aclrtGetVersion(int32_t* majorVersion, int32_t* minorVersion, int32_t* patchVersion) {
  ANYCANN_NOT_NULL(majorVersion);
  ANYCANN_NOT_NULL(minorVersion);
  ANYCANN_NOT_NULL(patchVersion);
  *majorVersion = ACL_MAJOR_VERSION;
  *minorVersion = ACL_MINOR_VERSION;
  *patchVersion = ACL_PATCH_VERSION;
  return 0;
}

aclError aclsysGetCANNVersion(aclCANNPackageName name, aclCANNPackageVersion* version) {
  ANYCANN_NOT_NULL(version);
  if (name < ACL_PKG_NAME_CANN || name > ACL_PKG_NAME_DRIVER)
    return Answer(
        Error(kInvalidParam, "aclsysGetCANNVersion: package {} is not known", static_cast<int>(name)));
  std::memset(version, 0, sizeof(*version));
  std::snprintf(version->version, sizeof(version->version), "%s", kCannVersion);
  std::snprintf(version->majorVersion, sizeof(version->majorVersion), "9");
  std::snprintf(version->minorVersion, sizeof(version->minorVersion), "0");
  std::snprintf(version->releaseVersion, sizeof(version->releaseVersion), "0");
  return 0;
}

aclError aclsysGetVersionStr(char* pkgName, char* versionStr) {
  ANYCANN_NOT_NULL(pkgName);
  ANYCANN_NOT_NULL(versionStr);
  std::snprintf(versionStr, ACL_PKG_VERSION_MAX_SIZE, "%s", kCannVersion);
  return 0;
}

aclError aclsysGetVersionNum(char* pkgName, int32_t* versionNum) {
  ANYCANN_NOT_NULL(pkgName);
  ANYCANN_NOT_NULL(versionNum);
  *versionNum = kCannVersionNumber;
  return 0;
}

aclError aclGetCannAttribute(aclCannAttr cannAttr, int32_t* value) {
  ANYCANN_NOT_NULL(value);
  switch (cannAttr) {
    case ACL_CANN_ATTR_INF_NAN:
    case ACL_CANN_ATTR_BF16: *value = 1; return 0;
    case ACL_CANN_ATTR_JIT_COMPILE: *value = 0; return 0;
    default:
      return Answer(
          Error(kInvalidParam, "aclGetCannAttribute: attribute {} is not known", static_cast<int>(cannAttr)));
  }
}

aclError aclGetCannAttributeList(const aclCannAttr** cannAttrList, size_t* num) {
  ANYCANN_NOT_NULL(cannAttrList);
  ANYCANN_NOT_NULL(num);
  static constexpr aclCannAttr kAttributes[] = {ACL_CANN_ATTR_INF_NAN, ACL_CANN_ATTR_BF16};
  *cannAttrList = kAttributes;
  *num = std::size(kAttributes);
  return 0;
}

// Client's messages: shown when ASCEND_GLOBAL_LOG_LEVEL asks for them (0 debug ... 3 error), and then on
// stderr.
void aclAppLog(aclLogLevel logLevel, const char* func, const char* file, uint32_t line, const char* fmt,
               ...) {
  static const int threshold = [] {
    const char* level = std::getenv("ASCEND_GLOBAL_LOG_LEVEL");
    return level != nullptr && *level != '\0' ? std::atoi(level) : 4;
  }();
  if (static_cast<int>(logLevel) < threshold || fmt == nullptr) return;
  char text[1024];
  va_list arguments;
  va_start(arguments, fmt);
  std::vsnprintf(text, sizeof(text), fmt, arguments);
  va_end(arguments);
  static constexpr const char* kNames[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
  std::fprintf(stderr, "[%s] %s:%u %s: %s\n", kNames[std::clamp(static_cast<int>(logLevel), 0, 3)],
               file ? file : "", line, func ? func : "", text);
}

namespace {

std::atomic<uint64_t> op_timeout_us{0};
std::atomic<aclrtFloatOverflowMode> overflow_mode{ACL_RT_OVERFLOW_MODE_INFNAN};

}  // namespace

// Operators end by themselves here; the limits are kept for those who ask.
aclError aclrtSetOpExecuteTimeOut(uint32_t timeout) {
  op_timeout_us = uint64_t{timeout} * 1000000;
  return 0;
}

aclError aclrtSetOpExecuteTimeOutWithMs(uint32_t timeout) {
  op_timeout_us = uint64_t{timeout} * 1000;
  return 0;
}

aclError aclrtSetOpExecuteTimeOutV2(uint64_t timeout, uint64_t* actualTimeout) {
  op_timeout_us = timeout;
  if (actualTimeout != nullptr) *actualTimeout = timeout;
  return 0;
}

aclError aclrtGetOpExecuteTimeout(uint32_t* const timeoutMs) {
  ANYCANN_NOT_NULL(timeoutMs);
  *timeoutMs = static_cast<uint32_t>(op_timeout_us / 1000);
  return 0;
}

aclError aclrtGetOpTimeOutInterval(uint64_t* interval) {
  ANYCANN_NOT_NULL(interval);
  *interval = 1;
  return 0;
}

aclError aclrtSetOpWaitTimeout(uint32_t) { return 0; }

aclError aclrtSetDeviceSatMode(aclrtFloatOverflowMode mode) {
  if (mode < ACL_RT_OVERFLOW_MODE_SATURATION || mode > ACL_RT_OVERFLOW_MODE_INFNAN)
    return Answer(Error(kInvalidParam, "aclrtSetDeviceSatMode: mode is {}; 0 saturates, 1 keeps Inf and NaN",
                        static_cast<int>(mode)));
  overflow_mode = mode;
  return 0;
}

aclError aclrtGetDeviceSatMode(aclrtFloatOverflowMode* mode) {
  ANYCANN_NOT_NULL(mode);
  *mode = overflow_mode;
  return 0;
}
