// Reserved address ranges, physical memory, and memory shared between processes.
#include "runtime/virtual_memory.h"

#include <cstring>
#include <string>

#include "libs/ascendcl/door.h"
#include "runtime/memory.h"

using namespace anycann;

namespace {

template <class Body>
aclError OnMemory(const char* function, aclrtDrvMemHandle handle, Body&& body) {
  return Door(function, [&]() -> Status {
    PhysicalMemory* m = nullptr;
    RETURN_IF_ERROR(PhysicalMemory::Find(function, handle, &m));
    return body(m);
  });
}

Status Import(const char* function, uint64_t shareable, int32_t device, aclrtDrvMemHandle* handle) {
  if (handle == nullptr) return Null(function, "handle");
  PhysicalMemory* m = nullptr;
  RETURN_IF_ERROR(PhysicalMemory::Import(shareable, device, &m));
  *handle = m;
  return Status();
}

int32_t CurrentDeviceOrNone() {
  Context* c = Context::Current();
  return c != nullptr ? c->device()->index() : -1;
}

aclError Reserve(const char* function, void** virPtr, size_t size, size_t alignment, void* expectPtr) {
  if (virPtr == nullptr) return Answer(Null(function, "virPtr"));
  return Door(function, [&] { return virtual_memory::Reserve(size, alignment, expectPtr, virPtr); });
}

}  // namespace

aclError aclrtReserveMemAddress(void** virPtr, size_t size, size_t alignment, void* expectPtr, uint64_t) {
  return Reserve(__func__, virPtr, size, alignment, expectPtr);
}
aclError aclrtReserveMemAddressNoUCMemory(void** virPtr, size_t size, size_t alignment, void* expectPtr,
                                          uint64_t) {
  return Reserve(__func__, virPtr, size, alignment, expectPtr);
}
aclError aclrtReleaseMemAddress(void* virPtr) {
  return Door(__func__, [&] { return virtual_memory::ReleaseRange(virPtr); });
}

aclError aclrtMemGetAllocationGranularity(aclrtPhysicalMemProp* prop, aclrtMemGranularityOptions option,
                                          size_t* granularity) {
  ANYCANN_NOT_NULL(prop);
  ANYCANN_NOT_NULL(granularity);
  if (option != ACL_RT_MEM_ALLOC_GRANULARITY_MINIMUM && option != ACL_RT_MEM_ALLOC_GRANULARITY_RECOMMENDED)
    return Answer(Error(kRtParamInvalid,
                        "aclrtMemGetAllocationGranularity: option is {}; 0 is minimum, 1 recommended",
                        static_cast<int>(option)));
  *granularity = virtual_memory::kGranularity;
  return 0;
}

aclError aclrtMallocPhysical(aclrtDrvMemHandle* handle, size_t size, const aclrtPhysicalMemProp* prop,
                             uint64_t) {
  ANYCANN_NOT_NULL(handle);
  ANYCANN_NOT_NULL(prop);
  return Door(__func__, [&] {
    const bool host = prop->location.type == ACL_MEM_LOCATION_TYPE_HOST ||
                      prop->location.type == ACL_MEM_LOCATION_TYPE_HOST_NUMA;
    if (!host && prop->location.id >= static_cast<uint32_t>(Device::Count()))
      return Error(kRtInvalidDevice, "aclrtMallocPhysical: prop->location.id is {}; there are {} devices",
                   prop->location.id, Device::Count());
    PhysicalMemory* m = nullptr;
    RETURN_IF_ERROR(PhysicalMemory::Create(size, host ? -1 : static_cast<int>(prop->location.id), &m));
    *handle = m;
    return Status();
  });
}

aclError aclrtFreePhysical(aclrtDrvMemHandle handle) {
  return OnMemory(__func__, handle, [](PhysicalMemory* m) { return PhysicalMemory::Release(m); });
}

aclError aclrtMapMem(void* virPtr, size_t size, size_t offset, aclrtDrvMemHandle handle, uint64_t) {
  return OnMemory(__func__, handle,
                  [&](PhysicalMemory* m) { return virtual_memory::Map(virPtr, size, offset, m); });
}
aclError aclrtUnmapMem(void* virPtr) {
  return Door(__func__, [&] { return virtual_memory::Unmap(virPtr); });
}

aclError aclrtMemSetAccess(void* virPtr, size_t size, aclrtMemAccessDesc* desc, size_t count) {
  ANYCANN_NOT_NULL(desc);
  return Door(__func__, [&] {
    // All devices and the host reach the same mapping: the widest of the wishes holds.
    uint32_t flags = 0;
    for (size_t i = 0; i < count; ++i) flags |= static_cast<uint32_t>(desc[i].flags);
    return virtual_memory::Protect(
        virPtr, size, (flags & ACL_RT_MEM_ACCESS_FLAGS_READ) != 0,
        (flags & ACL_RT_MEM_ACCESS_FLAGS_READWRITE) == ACL_RT_MEM_ACCESS_FLAGS_READWRITE);
  });
}

aclError aclrtMemGetAccess(void* virPtr, aclrtMemLocation* location, uint64_t* flag) {
  ANYCANN_NOT_NULL(location);
  ANYCANN_NOT_NULL(flag);
  bool writable = false;
  if (!virtual_memory::IsMapped(virPtr, &writable))
    return Answer(Error(kRtParamInvalid, "aclrtMemGetAccess: no memory is mapped at {}", virPtr));
  *flag = writable ? ACL_RT_MEM_ACCESS_FLAGS_READWRITE : ACL_RT_MEM_ACCESS_FLAGS_READ;
  return 0;
}

aclError aclrtMemRetainAllocationHandle(void* virPtr, aclrtDrvMemHandle* handle) {
  ANYCANN_NOT_NULL(handle);
  return Door(__func__, [&] {
    PhysicalMemory* m = nullptr;
    RETURN_IF_ERROR(virtual_memory::Retain(virPtr, &m));
    *handle = m;
    return Status();
  });
}

aclError aclrtMemGetAllocationPropertiesFromHandle(aclrtDrvMemHandle handle, aclrtPhysicalMemProp* prop) {
  ANYCANN_NOT_NULL(prop);
  return OnMemory(__func__, handle, [&](PhysicalMemory* m) {
    std::memset(prop, 0, sizeof(*prop));
    prop->memAttr = ACL_HBM_MEM_HUGE;
    prop->location.type = m->device() < 0 ? ACL_MEM_LOCATION_TYPE_HOST : ACL_MEM_LOCATION_TYPE_DEVICE;
    prop->location.id = m->device() < 0 ? 0 : static_cast<uint32_t>(m->device());
    return Status();
  });
}

aclError aclrtMemExportToShareableHandle(aclrtDrvMemHandle handle, aclrtMemHandleType, uint64_t,
                                         uint64_t* shareableHandle) {
  ANYCANN_NOT_NULL(shareableHandle);
  return OnMemory(__func__, handle, [&](PhysicalMemory* m) { return m->Export(shareableHandle); });
}

aclError aclrtMemExportToShareableHandleV2(aclrtDrvMemHandle handle, uint64_t,
                                           aclrtMemSharedHandleType shareType, void* shareableHandle) {
  ANYCANN_NOT_NULL(shareableHandle);
  return OnMemory(__func__, handle, [&](PhysicalMemory* m) {
    uint64_t number = 0;
    RETURN_IF_ERROR(m->Export(&number));
    if (shareType == ACL_MEM_SHARE_HANDLE_TYPE_FABRIC)
      std::memset(shareableHandle, 0, sizeof(aclrtMemFabricHandle));
    std::memcpy(shareableHandle, &number, sizeof(number));
    return Status();
  });
}

aclError aclrtMemImportFromShareableHandle(uint64_t shareableHandle, int32_t deviceId,
                                           aclrtDrvMemHandle* handle) {
  return Door(__func__,
              [&] { return Import("aclrtMemImportFromShareableHandle", shareableHandle, deviceId, handle); });
}

aclError aclrtMemImportFromShareableHandleV2(void* shareableHandle, aclrtMemSharedHandleType, uint64_t,
                                             aclrtDrvMemHandle* handle) {
  ANYCANN_NOT_NULL(shareableHandle);
  return Door(__func__, [&] {
    uint64_t number = 0;
    std::memcpy(&number, shareableHandle, sizeof(number));
    return Import("aclrtMemImportFromShareableHandleV2", number, CurrentDeviceOrNone(), handle);
  });
}

// Who may import is decided by the operating system: processes of the same user.
aclError aclrtMemSetPidToShareableHandle(uint64_t, int32_t* pid, size_t) {
  ANYCANN_NOT_NULL(pid);
  return 0;
}
aclError aclrtMemSetPidToShareableHandleV2(void* shareableHandle, aclrtMemSharedHandleType, int32_t* pid,
                                           size_t) {
  ANYCANN_NOT_NULL(shareableHandle);
  ANYCANN_NOT_NULL(pid);
  return 0;
}
aclError aclrtIpcMemSetImportPid(const char* key, int32_t* pid, size_t) {
  ANYCANN_NOT_NULL(key);
  ANYCANN_NOT_NULL(pid);
  return 0;
}

aclError aclrtIpcMemGetExportKey(void* devPtr, size_t size, char* key, size_t len, uint64_t) {
  ANYCANN_NOT_NULL(key);
  return Door(__func__, [&] {
    std::string text;
    RETURN_IF_ERROR(virtual_memory::ExportKey(devPtr, size, &text));
    if (text.size() >= len)
      return Error(kRtParamInvalid, "aclrtIpcMemGetExportKey: len is {}, the key needs {} bytes", len,
                   text.size() + 1);
    std::memset(key, 0, len);
    std::memcpy(key, text.data(), text.size());
    return Status();
  });
}

aclError aclrtIpcMemImportByKey(void** devPtr, const char* key, uint64_t) {
  ANYCANN_NOT_NULL(devPtr);
  ANYCANN_NOT_NULL(key);
  return Door(__func__, [&] { return virtual_memory::ImportKey(key, CurrentDeviceOrNone(), devPtr); });
}

aclError aclrtIpcMemClose(const char* key) {
  ANYCANN_NOT_NULL(key);
  return Door(__func__, [&] { return virtual_memory::CloseKey(key); });
}
