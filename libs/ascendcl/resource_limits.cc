// Limits on the cores that a device, a stream or a thread may use: kept for the client. Kernels here always
// have all cores of their device.
#include <map>
#include <mutex>
#include <utility>

#include "libs/ascendcl/device_facts.h"
#include "libs/ascendcl/door.h"

using namespace anycann;

namespace {

using Key = std::pair<const void*, int>;  // device or stream, type of core

struct Limits {
  std::mutex mutex;
  std::map<Key, uint32_t> values;
  static Limits& Get() {
    static Limits* l = new Limits;
    return *l;
  }
};

thread_local const void* thread_stream = nullptr;  // whose limits the thread uses

uint32_t Default(aclrtDevResLimitType type) {
  return type == ACL_RT_DEV_RES_CUBE_CORE ? device_facts::kCubeCores : device_facts::kVectorCores;
}

Status CheckType(const char* function, aclrtDevResLimitType type) {
  if (type == ACL_RT_DEV_RES_CUBE_CORE || type == ACL_RT_DEV_RES_VECTOR_CORE) return Status();
  return Error(kRtParamInvalid, "{}: type is {}; 0 is cube cores, 1 vector cores", function,
               static_cast<int>(type));
}

Status Set(const char* function, const void* owner, aclrtDevResLimitType type, uint32_t value) {
  RETURN_IF_ERROR(CheckType(function, type));
  if (value == 0 || value > Default(type))
    return Error(kRtParamInvalid, "{}: value is {}; it must be between 1 and {}", function, value,
                 Default(type));
  std::lock_guard<std::mutex> lock(Limits::Get().mutex);
  Limits::Get().values[{owner, type}] = value;
  return Status();
}

Status Get(const char* function, const void* owner, aclrtDevResLimitType type, uint32_t* value) {
  if (value == nullptr) return Null(function, "value");
  RETURN_IF_ERROR(CheckType(function, type));
  std::lock_guard<std::mutex> lock(Limits::Get().mutex);
  const auto it = Limits::Get().values.find({owner, type});
  *value = it != Limits::Get().values.end() ? it->second : Default(type);
  return Status();
}

Status Reset(const void* owner) {
  std::lock_guard<std::mutex> lock(Limits::Get().mutex);
  for (const int type : {ACL_RT_DEV_RES_CUBE_CORE, ACL_RT_DEV_RES_VECTOR_CORE})
    Limits::Get().values.erase({owner, type});
  return Status();
}

template <class Body>
aclError OnDevice(const char* function, int32_t deviceId, Body&& body) {
  return Door(function, [&]() -> Status {
    Device* d = Device::Get(deviceId);
    if (d == nullptr)
      return Error(kRtInvalidDevice, "{}: device {} does not exist; there are {}", function, deviceId,
                   Device::Count());
    return body(d);
  });
}

}  // namespace

aclError aclrtSetDeviceResLimit(int32_t deviceId, aclrtDevResLimitType type, uint32_t value) {
  return OnDevice(__func__, deviceId,
                  [&](Device* d) { return Set("aclrtSetDeviceResLimit", d, type, value); });
}
aclError aclrtGetDeviceResLimit(int32_t deviceId, aclrtDevResLimitType type, uint32_t* value) {
  return OnDevice(__func__, deviceId,
                  [&](Device* d) { return Get("aclrtGetDeviceResLimit", d, type, value); });
}
aclError aclrtResetDeviceResLimit(int32_t deviceId) {
  return OnDevice(__func__, deviceId, [](Device* d) { return Reset(d); });
}

aclError aclrtSetStreamResLimit(aclrtStream stream, aclrtDevResLimitType type, uint32_t value) {
  return OnStream(__func__, stream, [&](Stream* s) { return Set("aclrtSetStreamResLimit", s, type, value); });
}
aclError aclrtGetStreamResLimit(aclrtStream stream, aclrtDevResLimitType type, uint32_t* value) {
  return OnStream(__func__, stream, [&](Stream* s) { return Get("aclrtGetStreamResLimit", s, type, value); });
}
aclError aclrtResetStreamResLimit(aclrtStream stream) {
  return OnStream(__func__, stream, [](Stream* s) { return Reset(s); });
}

aclError aclrtUseStreamResInCurrentThread(aclrtStream stream) {
  return OnStream(__func__, stream, [](Stream* s) {
    thread_stream = s;
    return Status();
  });
}
aclError aclrtUnuseStreamResInCurrentThread(aclrtStream stream) {
  return OnStream(__func__, stream, [](Stream*) {
    thread_stream = nullptr;
    return Status();
  });
}
aclError aclrtGetResInCurrentThread(aclrtDevResLimitType type, uint32_t* value) {
  return Door(__func__, [&] {
    const Context* c = Context::Current();
    const void* owner = thread_stream;
    if (owner == nullptr && c != nullptr) owner = c->device();
    return Get("aclrtGetResInCurrentThread", owner, type, value);
  });
}
