// Devices and contexts.
#include "runtime/device.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "libs/ascendcl/device_facts.h"
#include "libs/ascendcl/door.h"
#include "runtime/context.h"
#include "runtime/memory.h"
#include "runtime/settings.h"
#include "runtime/stream.h"

using namespace anycann;

namespace {

Status CheckDevice(const char* function, int64_t device) {
  if (device >= 0 && device < Device::Count()) return Status();
  return Error(kRtInvalidDevice, "{}: device {} does not exist; there are {} (ANYCANN_DEVICES sets how many)",
               function, device, Device::Count());
}

Status NoContext(const char* function) {
  return Error(kRtInvalidContext,
               "{}: the calling thread has no device; call aclrtSetDevice in this thread first", function);
}

// A timeout in milliseconds, -1 for none; 0 and less than -1 are refused.
Status Timeout(const char* function, int32_t ms, int64_t* ns) {
  if (ms != -1 && ms <= 0)
    return Error(kRtParamInvalid, "{}: timeout is {} ms; give a positive number, or -1 to wait without limit",
                 function, ms);
  *ns = ms < 0 ? Stream::kNever : int64_t{ms} * 1000000;
  return Status();
}

}  // namespace

aclError aclrtGetDeviceCount(uint32_t* count) {
  ANYCANN_NOT_NULL(count);
  *count = static_cast<uint32_t>(Device::Count());
  return 0;
}

aclError aclrtSetDevice(int32_t deviceId) {
  return Door(__func__, [&] { return SetDevice(deviceId); });
}

aclError aclrtResetDevice(int32_t deviceId) {
  return Door(__func__, [&] { return ResetDevice(deviceId, false); });
}

aclError aclrtResetDeviceForce(int32_t deviceId) {
  return Door(__func__, [&] { return ResetDevice(deviceId, true); });
}

aclError aclrtGetDevice(int32_t* deviceId) {
  ANYCANN_NOT_NULL(deviceId);
  Context* c = Context::Current();
  if (c == nullptr) return Answer(NoContext(__func__));
  *deviceId = c->device()->index();
  return 0;
}

aclError aclrtCreateContext(aclrtContext* context, int32_t deviceId) {
  ANYCANN_NOT_NULL(context);
  return Door(__func__, [&] {
    Context* c = nullptr;
    RETURN_IF_ERROR(Context::Create(deviceId, &c));
    *context = c;
    return Status();
  });
}

aclError aclrtDestroyContext(aclrtContext context) {
  return Door("aclrtDestroyContext", [&] {
    Context* c = Context::From(context);
    if (c == nullptr)
      return Error(kRtInvalidContext,
                   "aclrtDestroyContext: context ({}) is not a context, or it was destroyed", context);
    for (int d = 0; d < Device::Count(); ++d) {
      if (Context::HasPrimary(Device::Get(d)) && Context::Primary(Device::Get(d)) == c)
        return Error(kRtInvalidContext,
                     "aclrtDestroyContext: this is device {}'s own context; aclrtResetDevice releases it", d);
    }
    return Context::Destroy(c);
  });
}

aclError aclrtSetCurrentContext(aclrtContext context) {
  Context* c = Context::From(context);
  if (c == nullptr)
    return Answer(Error(kRtInvalidContext,
                        "aclrtSetCurrentContext: context ({}) is not a context, or it was destroyed",
                        context));
  Context::SetCurrent(c);
  return 0;
}

aclError aclrtGetCurrentContext(aclrtContext* context) {
  ANYCANN_NOT_NULL(context);
  Context* c = Context::Current();
  if (c == nullptr) return Answer(NoContext(__func__));
  *context = c;
  return 0;
}

aclError aclrtGetPrimaryCtxState(int32_t deviceId, uint32_t* flags, int32_t* active) {
  ANYCANN_NOT_NULL(active);
  return Door(__func__, [&] {
    RETURN_IF_ERROR(CheckDevice("aclrtGetPrimaryCtxState", deviceId));
    if (flags != nullptr) *flags = 0;
    *active = Context::HasPrimary(Device::Get(deviceId)) ? 1 : 0;
    return Status();
  });
}

aclError aclrtCtxGetCurrentDefaultStream(aclrtStream* stream) {
  ANYCANN_NOT_NULL(stream);
  return Door(__func__, [&] {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find("aclrtCtxGetCurrentDefaultStream", nullptr, &s));
    *stream = s;
    return Status();
  });
}

aclError aclrtSynchronizeDevice() {
  return Door(__func__, [] { return SynchronizeDevice(Stream::kNever); });
}

aclError aclrtSynchronizeDeviceWithTimeout(int32_t timeout) {
  return Door(__func__, [&] {
    int64_t ns = 0;
    RETURN_IF_ERROR(Timeout("aclrtSynchronizeDeviceWithTimeout", timeout, &ns));
    return SynchronizeDevice(ns);
  });
}

const char* aclrtGetSocName() { return GetSettings().soc.c_str(); }

aclError aclrtGetRunMode(aclrtRunMode* runMode) {
  ANYCANN_NOT_NULL(runMode);
  *runMode = ACL_HOST;
  return 0;
}

aclError aclrtSetTsDevice(aclrtTsId) { return 0; }

aclError aclrtQueryDeviceStatus(int32_t deviceId, aclrtDeviceStatus* deviceStatus) {
  ANYCANN_NOT_NULL(deviceStatus);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  *deviceStatus = ACL_RT_DEVICE_STATUS_NORMAL;
  return 0;
}

aclError aclrtGetDeviceUtilizationRate(int32_t deviceId, aclrtUtilizationInfo* utilizationInfo) {
  ANYCANN_NOT_NULL(utilizationInfo);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  size_t free = 0, total = 0;
  memory::Info(deviceId, &free, &total);
  const bool busy = [&] {
    bool any = false;
    for (Stream* s : Device::Get(deviceId)->Streams()) {
      any = any || !s->Idle();
      s->Unref();
    }
    return any;
  }();
  utilizationInfo->cubeUtilization = utilizationInfo->vectorUtilization = utilizationInfo->aicpuUtilization =
      busy ? 100 : 0;
  utilizationInfo->memoryUtilization = total ? static_cast<int32_t>((total - free) * 100 / total) : 0;
  utilizationInfo->utilizationExtend = nullptr;
  return 0;
}

aclError aclrtGetDeviceInfo(uint32_t deviceId, aclrtDevAttr attr, int64_t* value) {
  ANYCANN_NOT_NULL(value);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  switch (attr) {
    case ACL_DEV_ATTR_AICPU_CORE_NUM: *value = Device::Get(static_cast<int>(deviceId))->cores(); return 0;
    case ACL_DEV_ATTR_AICORE_CORE_NUM:
    case ACL_DEV_ATTR_CUBE_CORE_NUM: *value = device_facts::kCubeCores; return 0;
    case ACL_DEV_ATTR_VECTOR_CORE_NUM: *value = device_facts::kVectorCores; return 0;
    case ACL_DEV_ATTR_WARP_SIZE: *value = 32; return 0;
    case ACL_DEV_ATTR_MAX_THREAD_PER_VECTOR_CORE: *value = 2048; return 0;
    case ACL_DEV_ATTR_UBUF_PER_VECTOR_CORE: *value = device_facts::kUnifiedBufferBytes; return 0;
    case ACL_DEV_ATTR_TOTAL_GLOBAL_MEM_SIZE:
      *value = Device::Get(static_cast<int>(deviceId))->memory_limit();
      return 0;
    case ACL_DEV_ATTR_L2_CACHE_SIZE: *value = device_facts::kL2Bytes; return 0;
    case ACL_DEV_ATTR_PHY_CHIP_ID: *value = deviceId; return 0;
    case ACL_DEV_ATTR_SMP_ID:
    case ACL_DEV_ATTR_IS_VIRTUAL: *value = 0; return 0;
    default:
      return Answer(Error(kRtFeatureUnsupported, "aclrtGetDeviceInfo: attribute {} is not known for {}",
                          static_cast<int>(attr), GetSettings().soc));
  }
}

aclError aclrtGetDeviceCapability(int32_t deviceId, aclrtDevFeatureType, int32_t* value) {
  ANYCANN_NOT_NULL(value);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  *value = ACL_DEV_FEATURE_NOT_SUPPORT;
  return 0;
}

aclError aclrtDeviceGetStreamPriorityRange(int32_t* leastPriority, int32_t* greatestPriority) {
  if (leastPriority != nullptr) *leastPriority = Device::kPriorities - 1;
  if (greatestPriority != nullptr) *greatestPriority = 0;
  return 0;
}

aclError aclrtDeviceGetUuid(int32_t deviceId, aclrtUuid* uuid) {
  ANYCANN_NOT_NULL(uuid);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  std::memset(uuid, 0, sizeof(*uuid));
  std::snprintf(uuid->bytes, sizeof(uuid->bytes), "anycann-%02x", static_cast<unsigned>(deviceId) & 0xffu);
  return 0;
}

// All devices are parts of one machine's memory: each reaches every other.
aclError aclrtDeviceCanAccessPeer(int32_t* canAccessPeer, int32_t deviceId, int32_t peerDeviceId) {
  ANYCANN_NOT_NULL(canAccessPeer);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, peerDeviceId));
  *canAccessPeer = deviceId != peerDeviceId ? 1 : 0;
  return 0;
}

aclError aclrtDeviceEnablePeerAccess(int32_t peerDeviceId, uint32_t) {
  return Answer(CheckDevice(__func__, peerDeviceId));
}

aclError aclrtDeviceDisablePeerAccess(int32_t peerDeviceId) {
  return Answer(CheckDevice(__func__, peerDeviceId));
}

aclError aclrtDevicePeerAccessStatus(int32_t deviceId, int32_t peerDeviceId, int32_t* status) {
  ANYCANN_NOT_NULL(status);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, peerDeviceId));
  *status = 1;
  return 0;
}

aclError aclrtGetDevicesTopo(uint32_t deviceId, uint32_t otherDeviceId, uint64_t* value) {
  ANYCANN_NOT_NULL(value);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, otherDeviceId));
  *value = ACL_RT_DEVS_TOPOLOGY_HCCS;
  return 0;
}

aclError aclrtDeviceGetBareTgid(int32_t* pid) {
  ANYCANN_NOT_NULL(pid);
  *pid = static_cast<int32_t>(getpid());
  return 0;
}

// Logical, user and physical numbers of a device are the same here.
aclError aclrtGetLogicDevIdByUserDevId(const int32_t userDevid, int32_t* const logicDevId) {
  ANYCANN_NOT_NULL(logicDevId);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, userDevid));
  *logicDevId = userDevid;
  return 0;
}

aclError aclrtGetUserDevIdByLogicDevId(const int32_t logicDevId, int32_t* const userDevid) {
  ANYCANN_NOT_NULL(userDevid);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, logicDevId));
  *userDevid = logicDevId;
  return 0;
}

aclError aclrtGetLogicDevIdByPhyDevId(const int32_t phyDevId, int32_t* const logicDevId) {
  ANYCANN_NOT_NULL(logicDevId);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, phyDevId));
  *logicDevId = phyDevId;
  return 0;
}

aclError aclrtGetPhyDevIdByLogicDevId(const int32_t logicDevId, int32_t* const phyDevId) {
  ANYCANN_NOT_NULL(phyDevId);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, logicDevId));
  *phyDevId = logicDevId;
  return 0;
}

aclError aclGetDeviceCapability(uint32_t deviceId, aclDeviceInfo deviceInfo, int64_t* value) {
  ANYCANN_NOT_NULL(value);
  RETURN_IF_DOOR_ERROR(CheckDevice(__func__, deviceId));
  switch (deviceInfo) {
    case ACL_DEVICE_INFO_AI_CORE_NUM: *value = device_facts::kCubeCores; return 0;
    case ACL_DEVICE_INFO_VECTOR_CORE_NUM: *value = device_facts::kVectorCores; return 0;
    case ACL_DEVICE_INFO_L2_SIZE: *value = device_facts::kL2Bytes; return 0;
    default:
      return Answer(Error(kInvalidParam, "aclGetDeviceCapability: deviceInfo {} is not known",
                          static_cast<int>(deviceInfo)));
  }
}
