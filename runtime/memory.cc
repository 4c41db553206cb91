#include "runtime/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>
#include <vector>

#include "base/parallel.h"
#include "runtime/memory_map.h"
#include "runtime/stream.h"
#include "runtime/virtual_memory.h"

namespace anycann {
namespace memory {
namespace {

constexpr size_t kPage = 4096;
// Copies of at least this many bytes are split over the device's cores, in pieces of at least kCopyGrain.
constexpr int64_t kCopyGrain = int64_t{256} << 10;

size_t RoundUp(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// A mapping of `size` bytes (a multiple of the page) that starts at a multiple of `alignment`.
void* MapAligned(size_t size, size_t alignment) {
  const size_t slack = alignment > kPage ? alignment : 0;
  void* p =
      mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  if (slack == 0) return p;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(p), aligned = RoundUp(begin, alignment);
  if (aligned > begin) munmap(p, aligned - begin);
  const uintptr_t end = begin + size + slack;
  if (end > aligned + size) munmap(reinterpret_cast<void*>(aligned + size), end - aligned - size);
  return reinterpret_cast<void*>(aligned);
}

const char* Describe(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kDevice: return "device memory (aclrtMalloc)";
    case MemoryKind::kHost: return "host memory (aclrtMallocHost)";
    case MemoryKind::kRegistered: return "registered host memory (aclrtHostRegister)";
    case MemoryKind::kManaged: return "managed memory (aclrtMemAllocManaged)";
    case MemoryKind::kReserved: return "a reserved address range (aclrtReserveMemAddress)";
    case MemoryKind::kImported: return "memory of another process (aclrtIpcMemImportByKey)";
  }
  return "memory";
}

bool OwnsPages(MemoryKind kind) {
  return kind == MemoryKind::kDevice || kind == MemoryKind::kHost || kind == MemoryKind::kManaged;
}

// Freed memory whose streams haven't run everything yet that was submitted before.
struct Pending {
  void* base;
  size_t mapped;
  int device;  // whose account it is on, -1 for none
  int fd;      // -1 for none
  std::vector<std::pair<Ref<Stream>, uint64_t>> users;
};

void Release(const Pending& p) {
  munmap(p.base, p.mapped);
  if (p.fd >= 0) close(p.fd);
  if (p.device >= 0) Device::Get(p.device)->memory_used().fetch_sub(static_cast<int64_t>(p.mapped));
}

struct PendingFrees {
  std::mutex mutex;
  std::list<Pending> list;
  static PendingFrees& Get() {
    static PendingFrees* p = new PendingFrees;
    return *p;
  }
  void Collect() {
    std::lock_guard<std::mutex> lock(mutex);
    for (auto it = list.begin(); it != list.end();) {
      const bool free = std::all_of(it->users.begin(), it->users.end(),
                                    [](const auto& u) { return u.first->completed() >= u.second; });
      if (!free) {
        ++it;
        continue;
      }
      Release(*it);
      it = list.erase(it);
    }
  }
  // Waits for the streams that hold freed memory back, each for a limited time.
  void AwaitAll() {
    constexpr int64_t kPatience = 10000000000;
    std::vector<std::pair<Ref<Stream>, uint64_t>> users;
    {
      std::lock_guard<std::mutex> lock(mutex);
      for (const Pending& p : list) users.insert(users.end(), p.users.begin(), p.users.end());
    }
    for (auto& [stream, sequence] : users) static_cast<void>(stream->Await(sequence, kPatience));
    Collect();
  }
};

std::vector<std::pair<Ref<Stream>, uint64_t>> BusyStreams() {
  std::vector<std::pair<Ref<Stream>, uint64_t>> busy;
  for (int d = 0; d < Device::Count(); ++d) {
    for (Stream* s : Device::Get(d)->Streams()) {
      Ref<Stream> stream = Ref<Stream>::Adopt(s);
      const uint64_t submitted = stream->submitted();
      if (stream->completed() < submitted) busy.emplace_back(std::move(stream), submitted);
    }
  }
  return busy;
}

// Takes `bytes` of the device's account. False when the limit would be passed.
bool TakeAccount(Device* device, int64_t bytes) {
  int64_t used = device->memory_used().load();
  do {
    if (bytes > device->memory_limit() - used) return false;
  } while (!device->memory_used().compare_exchange_weak(used, used + bytes));
  return true;
}

Status OverLimit(const char* function, size_t size, Device* d) {
  return Error(
      kRtMemoryAllocation,
      "{}: out of memory on device {}: {} bytes asked for, {} of {} in use (ANYCANN_MEMORY sets the limit)",
      function, d->index(), size, d->memory_used().load(), d->memory_limit());
}

}  // namespace

void AwaitBusyStreams() {
  constexpr int64_t kPatience = 10000000000;
  for (auto& [stream, sequence] : BusyStreams()) static_cast<void>(stream->Await(sequence, kPatience));
}

Status TakeDeviceMemory(const char* function, int device, size_t bytes) {
  Device* d = Device::Get(device);
  if (d == nullptr) return Error(kRtInvalidDevice, "{}: device {} does not exist", function, device);
  if (TakeAccount(d, static_cast<int64_t>(bytes))) return Status();
  PendingFrees::Get().AwaitAll();
  if (TakeAccount(d, static_cast<int64_t>(bytes))) return Status();
  return OverLimit(function, bytes, d);
}

void GiveDeviceMemory(int device, size_t bytes) {
  Device::Get(device)->memory_used().fetch_sub(static_cast<int64_t>(bytes));
}

Status Allocate(const char* function, size_t size, MemoryKind kind, int device, PagePolicy pages,
                void** out) {
  if (out == nullptr) return Error(kInvalidParam, "{}: the address to store the result in is null", function);
  if (size == 0) return Error(kInvalidParam, "{}: size is 0", function);
  if (size > size_t{1} << 46)
    return Error(kRtMemoryAllocation, "{}: out of memory: {} bytes asked for", function, size);
  PendingFrees::Get().Collect();
  const size_t mapped = RoundUp(size, kPage);
  const bool counted = kind == MemoryKind::kDevice;
  if (counted) RETURN_IF_ERROR(TakeDeviceMemory(function, device, mapped));
  const bool huge = pages != PagePolicy::kNormal && mapped >= kHugePage;
  void* p = MapAligned(mapped, huge ? kHugePage : kPage);
  if (p == nullptr) {
    if (counted) GiveDeviceMemory(device, mapped);
    return Error(kRtMemoryAllocation, "{}: the machine has no {} bytes of memory left", function, size);
  }
  if (huge) madvise(p, mapped, MADV_HUGEPAGE);
  try {
    MemoryMap::Get().Insert({{p, size, kind, device}, mapped, -1});
  } catch (const std::bad_alloc&) {
    Release({p, mapped, counted ? device : -1, -1, {}});
    return Error(kRtMemoryAllocation, "{}: out of memory for bookkeeping", function);
  }
  *out = p;
  return Status();
}

Status Free(const char* function, void* address, MemoryKind kind) {
  MemoryMap::Entry entry;
  if (address == nullptr) return Error(kInvalidParam, "{}: the address is null", function);
  const MemoryBlock& block = entry.block;
  switch (MemoryMap::Get().Remove(address, kind, &entry)) {
    case MemoryMap::Removal::kUnknown:
      return Error(kRtParamInvalid, "{}: {} was not allocated, or it was freed before", function, address);
    case MemoryMap::Removal::kInside:
      return Error(kRtParamInvalid, "{}: {} lies inside {} that starts at {}; free that address", function,
                   address, Describe(block.kind), block.base);
    case MemoryMap::Removal::kOtherKind:
      return Error(kRtParamInvalid, "{}: {} is {}", function, address, Describe(block.kind));
    case MemoryMap::Removal::kDone: break;
  }
  if (!OwnsPages(kind)) return Status();
  PendingFrees& pending = PendingFrees::Get();
  Pending p{block.base, entry.mapped, kind == MemoryKind::kDevice ? block.device : -1, entry.fd,
            BusyStreams()};
  if (p.users.empty()) {
    Release(p);
  } else {
    std::lock_guard<std::mutex> lock(pending.mutex);
    pending.list.push_back(std::move(p));
  }
  pending.Collect();
  return Status();
}

Status Register(const char* function, void* address, size_t size) {
  if (address == nullptr || size == 0)
    return Error(kInvalidParam, "{}: the address is null or the size is 0", function);
  MemoryBlock known;
  if (Lookup(address, &known))
    return Error(507910, "{}: {} lies in {} that starts at {}", function, address, Describe(known.kind),
                 known.base);
  MemoryMap::Get().Insert({{address, size, MemoryKind::kRegistered, -1}, 0, -1});
  return Status();
}

Status Unregister(const char* function, void* address) {
  MemoryMap::Entry entry;
  if (MemoryMap::Get().Remove(address, MemoryKind::kRegistered, &entry) == MemoryMap::Removal::kDone)
    return Status();
  return Error(507911, "{}: {} was not registered with aclrtHostRegister", function, address);
}

bool Lookup(const void* address, MemoryBlock* block) {
  MemoryMap::Entry entry;
  if (!MemoryMap::Get().Find(address, &entry)) return false;
  *block = entry.block;
  return true;
}

Status CheckRange(const char* function, const char* argument, const void* address, size_t size) {
  if (address == nullptr) return Error(kInvalidParam, "{}: {} is null", function, argument);
  MemoryBlock b;
  if (!Lookup(address, &b)) return Status();
  const size_t offset = static_cast<size_t>(static_cast<const char*>(address) - static_cast<char*>(b.base));
  if (size <= b.size - offset) {
    if (b.kind != MemoryKind::kReserved || virtual_memory::CoversMappings(address, size)) return Status();
    return Error(kRtParamInvalid, "{}: {} ({}) is in a reserved range without memory; call aclrtMapMem first",
                 function, argument, address);
  }
  return Error(kRtParamInvalid, "{}: {} ({}) is {} bytes into a block of {} bytes; {} bytes don't fit",
               function, argument, address, offset, b.size, size);
}

Status Copy(void* to, const void* from, size_t size) {
  auto* d = static_cast<char*>(to);
  auto* s = static_cast<const char*>(from);
  if (d < s + size && s < d + size) {
    std::memmove(to, from, size);
    return Status();
  }
  ParallelFor(static_cast<int64_t>(size), kCopyGrain, [d, s](int64_t begin, int64_t end) {
    std::memcpy(d + begin, s + begin, static_cast<size_t>(end - begin));
  });
  return Status();
}

Status Fill(void* to, int value, size_t size) {
  auto* d = static_cast<char*>(to);
  ParallelFor(static_cast<int64_t>(size), kCopyGrain, [d, value](int64_t begin, int64_t end) {
    std::memset(d + begin, value, static_cast<size_t>(end - begin));
  });
  return Status();
}

namespace {

TensorView Bytes(const void* p, size_t size) {
  return TensorView::Contiguous(const_cast<void*>(p), DType::kUint8, {static_cast<int64_t>(size)});
}

}  // namespace

Status CopyOn(Stream* stream, const char* name, void* to, const void* from, size_t size) {
  Plan* plan = Plan::Create(name, PlanKind::kCopy);
  if (plan == nullptr) return Error(kRtMemoryAllocation, "{}: out of memory", name);
  plan->implementation = "memcpy";
  plan->cost.bytes = 2 * static_cast<double>(size);
  plan->AddOperand(Bytes(from, size), nullptr, nullptr, false);
  plan->AddOperand(Bytes(to, size), nullptr, nullptr, true);
  plan->SetKernel([to, from, size](const Run&) { return Copy(to, from, size); });
  return stream->Submit(plan);
}

Status FillOn(Stream* stream, const char* name, void* to, int value, size_t size) {
  Plan* plan = Plan::Create(name, PlanKind::kCopy);
  if (plan == nullptr) return Error(kRtMemoryAllocation, "{}: out of memory", name);
  plan->implementation = "memset";
  plan->cost.bytes = static_cast<double>(size);
  plan->AddOperand(Bytes(to, size), nullptr, nullptr, true);
  plan->SetKernel([to, value, size](const Run&) { return Fill(to, value, size); });
  return stream->Submit(plan);
}

void Info(int device, size_t* free, size_t* total) {
  PendingFrees::Get().Collect();
  Device* d = Device::Get(device);
  const int64_t used = d->memory_used().load();
  *total = static_cast<size_t>(d->memory_limit());
  *free = static_cast<size_t>(std::max<int64_t>(0, d->memory_limit() - used));
}

}  // namespace memory
}  // namespace anycann
