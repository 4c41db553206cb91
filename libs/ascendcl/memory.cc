// Allocation, copies and fills.
#include "runtime/memory.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/parallel.h"
#include "libs/ascendcl/door.h"
#include "runtime/context.h"

using namespace anycann;

namespace {

Status CurrentDevice(const char* function, int* device) {
  Context* c = Context::Current();
  *device = c != nullptr ? c->device()->index() : DefaultDevice();
  if (*device < 0)
    return Error(kRtInvalidContext,
                 "{}: the calling thread has no device; call aclrtSetDevice in this thread first", function);
  return Status();
}

PagePolicy Pages(aclrtMemMallocPolicy policy) {
  switch (static_cast<int>(policy) & 0xff) {  // the rest chooses among kinds of memory that are one here
    case ACL_MEM_MALLOC_NORMAL_ONLY:
    case ACL_MEM_MALLOC_NORMAL_ONLY_P2P: return PagePolicy::kNormal;
    case ACL_MEM_MALLOC_HUGE_ONLY:
    case ACL_MEM_MALLOC_HUGE_ONLY_P2P:
    case ACL_MEM_MALLOC_HUGE1G_ONLY:
    case ACL_MEM_MALLOC_HUGE1G_ONLY_P2P: return PagePolicy::kHugeOnly;
    default: return PagePolicy::kHugeFirst;
  }
}

aclError Malloc(const char* function, void** devPtr, size_t size, aclrtMemMallocPolicy policy) {
  return Door(function, [&] {
    int device = 0;
    RETURN_IF_ERROR(CurrentDevice(function, &device));
    return memory::Allocate(function, size, MemoryKind::kDevice, device, Pages(policy), devPtr);
  });
}

// Copies of at most this many bytes from host memory that isn't pinned are taken along in the Plan.
constexpr size_t kSnapshotBytes = 64 << 10;

bool IsKnown(const void* p) {
  MemoryBlock b;
  return memory::Lookup(p, &b);
}

Status CheckCopy(const char* function, const void* dst, size_t destMax, const void* src, size_t count) {
  if (count > destMax)
    return Error(kInvalidParam, "{}: count is {} bytes but dst has room for destMax, {} bytes", function,
                 count, destMax);
  RETURN_IF_ERROR(memory::CheckRange(function, "dst", dst, count));
  return memory::CheckRange(function, "src", src, count);
}

// Like CUDA: a client may reuse its ordinary (not pinned) memory when the call returns, in both directions.
Status CopyInOrder(Stream* s, const char* function, void* dst, const void* src, size_t count) {
  const bool from_ordinary = !IsKnown(src);
  if (s->capture() == nullptr && from_ordinary && count <= kSnapshotBytes && !s->Idle()) {
    Plan* plan = Plan::Create(function, PlanKind::kCopy);
    std::shared_ptr<char[]> kept(new (std::nothrow) char[count]);
    if (plan == nullptr || kept == nullptr) {
      if (plan != nullptr) plan->Unref();
      return Error(kRtMemoryAllocation, "{}: out of memory", function);
    }
    std::memcpy(kept.get(), src, count);
    plan->implementation = "memcpy of a kept copy";
    plan->cost.bytes = 2 * static_cast<double>(count);
    plan->SetKernel([dst, kept, count](const Run&) { return memory::Copy(dst, kept.get(), count); });
    return s->Submit(plan);
  }
  RETURN_IF_ERROR(memory::CopyOn(s, function, dst, src, count));
  if (s->capture() != nullptr || (!from_ordinary && IsKnown(dst))) return Status();
  // Its own error is the stream's; a later synchronise reports it.
  s->Await(s->submitted(), Stream::kNever);
  return Status();
}

// Runs the copy or fill now, with the device's cores for large ones.
template <class Body>
Status Now(Body&& body) {
  Context* c = Context::Current();
  const ThreadPool::Scope scope(c != nullptr ? c->device()->pool() : nullptr);
  return body();
}

}  // namespace

aclError aclrtMalloc(void** devPtr, size_t size, aclrtMemMallocPolicy policy) {
  return Malloc(__func__, devPtr, size, policy);
}
aclError aclrtMallocAlign32(void** devPtr, size_t size, aclrtMemMallocPolicy policy) {
  return Malloc(__func__, devPtr, size, policy);
}
aclError aclrtMallocCached(void** devPtr, size_t size, aclrtMemMallocPolicy policy) {
  return Malloc(__func__, devPtr, size, policy);
}
aclError aclrtMallocWithCfg(void** devPtr, size_t size, aclrtMemMallocPolicy policy, aclrtMallocConfig*) {
  return Malloc(__func__, devPtr, size, policy);
}
aclError aclrtMallocForTaskScheduler(void** devPtr, size_t size, aclrtMemMallocPolicy policy,
                                     aclrtMallocConfig*) {
  return Malloc(__func__, devPtr, size, policy);
}

aclError aclrtFree(void* devPtr) {
  return Door(__func__, [&] { return memory::Free("aclrtFree", devPtr, MemoryKind::kDevice); });
}
aclError aclrtFreeWithDevSync(void* devPtr) {
  const aclError code = aclrtSynchronizeDevice();
  const aclError freed = aclrtFree(devPtr);
  return code != 0 ? code : freed;
}

aclError aclrtMallocHost(void** hostPtr, size_t size) {
  return Door(__func__, [&] {
    return memory::Allocate("aclrtMallocHost", size, MemoryKind::kHost, -1, PagePolicy::kHugeFirst, hostPtr);
  });
}
aclError aclrtMallocHostWithCfg(void** ptr, uint64_t size, aclrtMallocConfig*) {
  return Door(__func__, [&] {
    return memory::Allocate("aclrtMallocHostWithCfg", size, MemoryKind::kHost, -1, PagePolicy::kHugeFirst,
                            ptr);
  });
}
aclError aclrtFreeHost(void* hostPtr) {
  return Door(__func__, [&] { return memory::Free("aclrtFreeHost", hostPtr, MemoryKind::kHost); });
}
aclError aclrtFreeHostWithDevSync(void* hostPtr) {
  const aclError code = aclrtSynchronizeDevice();
  const aclError freed = aclrtFreeHost(hostPtr);
  return code != 0 ? code : freed;
}

aclError aclrtMemAllocManaged(void** ptr, uint64_t size, uint32_t) {
  return Door(__func__, [&] {
    int device = 0;
    RETURN_IF_ERROR(CurrentDevice("aclrtMemAllocManaged", &device));
    return memory::Allocate("aclrtMemAllocManaged", size, MemoryKind::kManaged, device,
                            PagePolicy::kHugeFirst, ptr);
  });
}

aclError aclrtHostRegister(void* ptr, uint64_t size, aclrtHostRegisterType, void** devPtr) {
  return Door(__func__, [&] {
    RETURN_IF_ERROR(memory::Register("aclrtHostRegister", ptr, size));
    if (devPtr != nullptr) *devPtr = ptr;
    return Status();
  });
}
aclError aclrtHostRegisterV2(void* ptr, uint64_t size, uint32_t) {
  return Door(__func__, [&] { return memory::Register("aclrtHostRegisterV2", ptr, size); });
}
aclError aclrtHostUnregister(void* ptr) {
  return Door(__func__, [&] { return memory::Unregister("aclrtHostUnregister", ptr); });
}
aclError aclrtHostGetDevicePointer(void* pHost, void** pDevice, uint32_t) {
  ANYCANN_NOT_NULL(pHost);
  ANYCANN_NOT_NULL(pDevice);
  if (!IsKnown(pHost))
    return Answer(Error(ACL_ERROR_HOST_MEMORY_NOT_REGISTERED,
                        "aclrtHostGetDevicePointer: {} is not registered; call aclrtHostRegister first",
                        pHost));
  *pDevice = pHost;
  return 0;
}

aclError aclrtMemcpy(void* dst, size_t destMax, const void* src, size_t count, aclrtMemcpyKind) {
  if (count == 0) return 0;
  return Door(__func__, [&] {
    RETURN_IF_ERROR(CheckCopy("aclrtMemcpy", dst, destMax, src, count));
    return Now([&] { return memory::Copy(dst, src, count); });
  });
}

aclError aclrtMemcpyAsync(void* dst, size_t destMax, const void* src, size_t count, aclrtMemcpyKind,
                          aclrtStream stream) {
  return OnStream(__func__, stream, [&](Stream* s) {
    if (count == 0) return Status();
    RETURN_IF_ERROR(CheckCopy("aclrtMemcpyAsync", dst, destMax, src, count));
    return CopyInOrder(s, "aclrtMemcpyAsync", dst, src, count);
  });
}

aclError aclrtMemcpyAsyncWithCondition(void* dst, size_t destMax, const void* src, size_t count,
                                       aclrtMemcpyKind kind, aclrtStream stream) {
  return aclrtMemcpyAsync(dst, destMax, src, count, kind, stream);
}

aclError aclrtMemset(void* devPtr, size_t maxCount, int32_t value, size_t count) {
  if (count == 0) return 0;
  return Door(__func__, [&] {
    if (count > maxCount)
      return Error(kInvalidParam, "aclrtMemset: count is {} bytes but there is room for maxCount, {} bytes",
                   count, maxCount);
    RETURN_IF_ERROR(memory::CheckRange("aclrtMemset", "devPtr", devPtr, count));
    return Now([&] { return memory::Fill(devPtr, value, count); });
  });
}

aclError aclrtMemsetAsync(void* devPtr, size_t maxCount, int32_t value, size_t count, aclrtStream stream) {
  return OnStream(__func__, stream, [&](Stream* s) {
    if (count == 0) return Status();
    if (count > maxCount)
      return Error(kInvalidParam,
                   "aclrtMemsetAsync: count is {} bytes but there is room for maxCount, {} bytes", count,
                   maxCount);
    RETURN_IF_ERROR(memory::CheckRange("aclrtMemsetAsync", "devPtr", devPtr, count));
    return memory::FillOn(s, "aclrtMemsetAsync", devPtr, value, count);
  });
}

aclError aclrtGetMemInfo(aclrtMemAttr, size_t* free, size_t* total) {
  ANYCANN_NOT_NULL(free);
  ANYCANN_NOT_NULL(total);
  return Door(__func__, [&] {
    int device = 0;
    RETURN_IF_ERROR(CurrentDevice("aclrtGetMemInfo", &device));
    memory::Info(device, free, total);
    return Status();
  });
}

aclError aclrtPointerGetAttributes(const void* ptr, aclrtPtrAttributes* attributes) {
  ANYCANN_NOT_NULL(ptr);
  ANYCANN_NOT_NULL(attributes);
  std::memset(attributes, 0, sizeof(*attributes));
  MemoryBlock b;
  attributes->pageSize = 4096;
  if (!memory::Lookup(ptr, &b)) {
    attributes->location.type = ACL_MEM_LOCATION_TYPE_UNREGISTERED;
    return 0;
  }
  const bool host = b.kind == MemoryKind::kHost || b.kind == MemoryKind::kRegistered;
  attributes->location.type = host ? ACL_MEM_LOCATION_TYPE_HOST : ACL_MEM_LOCATION_TYPE_DEVICE;
  attributes->location.id = b.device < 0 ? 0 : static_cast<uint32_t>(b.device);
  return 0;
}

aclError aclrtMemGetAddressRange(void* ptr, void** pbase, size_t* psize) {
  ANYCANN_NOT_NULL(ptr);
  MemoryBlock b;
  if (!memory::Lookup(ptr, &b))
    return Answer(
        Error(kRtParamInvalid, "aclrtMemGetAddressRange: {} is in no block that was allocated here", ptr));
  if (pbase != nullptr) *pbase = b.base;
  if (psize != nullptr) *psize = b.size;
  return 0;
}

// One memory, coherent caches: nothing to write back or to invalidate.
aclError aclrtMemFlush(void* devPtr, size_t) {
  ANYCANN_NOT_NULL(devPtr);
  return 0;
}
aclError aclrtMemInvalidate(void* devPtr, size_t) {
  ANYCANN_NOT_NULL(devPtr);
  return 0;
}
