#include "runtime/virtual_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "runtime/device.h"
#include "runtime/memory_map.h"
#include "runtime/object_pool.h"

namespace anycann {

ANYCANN_OBJECT(PhysicalMemory, kMemory);

namespace {

using virtual_memory::kGranularity;

constexpr const char* kFileName = "anycann-memory";

struct Mapping {
  size_t size = 0;
  Ref<PhysicalMemory> memory;
  bool writable = true;
};

struct Imported {
  void* address = nullptr;
  size_t size = 0;
  int uses = 0;
};

struct Tables {
  std::mutex mutex;
  std::map<uintptr_t, Mapping> mappings;
  std::map<std::string, Imported> imports;
  static Tables& Get() {
    static Tables* t = new Tables;  // never destroyed: clients unmap during exit
    return *t;
  }
  // The mapping that overlaps [begin, end); end() when none does. Lock held.
  std::map<uintptr_t, Mapping>::iterator Overlapping(uintptr_t begin, uintptr_t end) {
    auto it = mappings.lower_bound(end);
    if (it == mappings.begin()) return mappings.end();
    --it;
    return it->first + it->second.size > begin ? it : mappings.end();
  }
};

uintptr_t Address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

}  // namespace

Status PhysicalMemory::Create(size_t size, int device, PhysicalMemory** out) {
  if (size == 0 || size % kGranularity != 0)
    return Error(kRtParamInvalid, "aclrtMallocPhysical: size is {}; it must be a multiple of {}", size,
                 kGranularity);
  if (device >= 0) RETURN_IF_ERROR(memory::TakeDeviceMemory("aclrtMallocPhysical", device, size));
  int fd = -1;
  Status status = virtual_memory::NewSharedFile("aclrtMallocPhysical", size, &fd);
  PhysicalMemory* m = status.ok() ? New() : nullptr;
  if (m == nullptr) {
    if (status.ok()) close(fd);
    if (device >= 0) memory::GiveDeviceMemory(device, size);
    return status.ok() ? Status(kRtMemoryAllocation, "aclrtMallocPhysical: out of memory") : status;
  }
  m->size_ = size;
  m->device_ = device;
  m->fd_ = fd;
  m->counted_ = device >= 0;
  *out = m;
  return Status();
}

PhysicalMemory::~PhysicalMemory() {
  if (fd_ >= 0) close(fd_);
  if (counted_) memory::GiveDeviceMemory(device_, size_);
}

Status PhysicalMemory::Find(const char* function, void* handle, PhysicalMemory** out) {
  *out = From(handle);
  if (*out != nullptr) return Status();
  return Error(kRtParamInvalid, "{}: handle ({}) is not physical memory, or it was freed", function, handle);
}

Status PhysicalMemory::Release(PhysicalMemory* memory) {
  if (memory->uses_.fetch_sub(1) > 1) return Status();
  if (!memory->Close())
    return Status(kRtParamInvalid, "aclrtFreePhysical: the handle was freed by another thread");
  memory->Unref();
  return Status();
}

Status PhysicalMemory::Export(uint64_t* shareable) {
  *shareable = (static_cast<uint64_t>(getpid()) << 32) | static_cast<uint32_t>(fd_);
  return Status();
}

Status PhysicalMemory::Import(uint64_t shareable, int device, PhysicalMemory** out) {
  int fd = -1;
  size_t size = 0;
  RETURN_IF_ERROR(virtual_memory::OpenSharedFile("aclrtMemImportFromShareableHandle",
                                                 static_cast<int>(shareable >> 32),
                                                 static_cast<int>(shareable & 0xffffffffu), &fd, &size));
  PhysicalMemory* m = New();
  if (m == nullptr) {
    close(fd);
    return Status(kRtMemoryAllocation, "aclrtMemImportFromShareableHandle: out of memory");
  }
  m->size_ = size;
  m->device_ = device;
  m->fd_ = fd;
  *out = m;
  return Status();
}

namespace virtual_memory {

Status NewSharedFile(const char* function, size_t size, int* fd) {
  *fd = memfd_create(kFileName, MFD_CLOEXEC);
  if (*fd >= 0 && ftruncate(*fd, static_cast<off_t>(size)) == 0) return Status();
  const int error = errno;
  if (*fd >= 0) close(*fd);
  return Error(kRtMemoryAllocation, "{}: {} bytes of shareable memory: {}", function, size,
               std::strerror(error));
}

Status OpenSharedFile(const char* function, int pid, int fd, int* out, size_t* size) {
  const std::string path = fmt::format("/proc/{}/fd/{}", pid, fd);
  char target[64] = "";
  const ssize_t n = readlink(path.c_str(), target, sizeof(target) - 1);
  if (n < 0)
    return Error(kRtParamInvalid,
                 "{}: process {} doesn't exist, isn't this user's, or has freed the memory ({})", function,
                 pid, std::strerror(errno));
  if (std::strstr(target, kFileName) == nullptr)
    return Error(kRtParamInvalid, "{}: descriptor {} of process {} is not shared memory of AnyCANN", function,
                 fd, pid);
  struct stat info;
  *out = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (*out < 0 || fstat(*out, &info) != 0) {
    const int error = errno;
    if (*out >= 0) close(*out);
    return Error(kRtParamInvalid, "{}: {}: {}", function, path, std::strerror(error));
  }
  *size = static_cast<size_t>(info.st_size);
  return Status();
}

Status Reserve(size_t size, size_t alignment, void* wish, void** out) {
  if (size == 0 || size > size_t{1} << 46)
    return Error(kRtParamInvalid, "aclrtReserveMemAddress: size is {}; it must be between 1 and 2^46", size);
  size = (size + kGranularity - 1) / kGranularity * kGranularity;
  if (alignment < kGranularity) alignment = kGranularity;
  if ((alignment & (alignment - 1)) != 0)
    return Error(kRtParamInvalid, "aclrtReserveMemAddress: alignment is {}; it must be a power of two",
                 alignment);
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* p = MAP_FAILED;
  if (wish != nullptr && Address(wish) % alignment == 0)
    p = mmap(wish, size, PROT_NONE, kFlags | MAP_FIXED_NOREPLACE, -1, 0);
  if (p == MAP_FAILED) {
    char* whole = static_cast<char*>(mmap(nullptr, size + alignment, PROT_NONE, kFlags, -1, 0));
    if (whole == MAP_FAILED)
      return Error(kRtMemoryAllocation, "aclrtReserveMemAddress: no address range of {} bytes is free", size);
    char* aligned = whole + (alignment - Address(whole) % alignment) % alignment;
    if (aligned > whole) munmap(whole, static_cast<size_t>(aligned - whole));
    munmap(aligned + size, static_cast<size_t>(whole + alignment - aligned));
    p = aligned;
  }
  MemoryMap::Get().Insert({{p, size, MemoryKind::kReserved, -1}, size, -1});
  *out = p;
  return Status();
}

Status ReleaseRange(void* address) {
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  MemoryMap::Entry entry;
  if (!MemoryMap::Get().Find(address, &entry) || entry.block.kind != MemoryKind::kReserved ||
      entry.block.base != address)
    return Error(kRtParamInvalid, "aclrtReleaseMemAddress: {} is not the start of a reserved range", address);
  const auto it = t.Overlapping(Address(address), Address(address) + entry.mapped);
  if (it != t.mappings.end())
    return Error(kRtParamInvalid,
                 "aclrtReleaseMemAddress: memory is still mapped at {:#x}; call aclrtUnmapMem first",
                 it->first);
  static_cast<void>(MemoryMap::Get().Remove(address, MemoryKind::kReserved, &entry));
  munmap(address, entry.mapped);
  return Status();
}

Status Map(void* address, size_t size, size_t offset, PhysicalMemory* memory) {
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  MemoryMap::Entry range;
  if (!MemoryMap::Get().Find(address, &range) || range.block.kind != MemoryKind::kReserved)
    return Error(kRtParamInvalid,
                 "aclrtMapMem: {} is in no reserved range; call aclrtReserveMemAddress first", address);
  if (size == 0 || size % kGranularity != 0 || Address(address) % kGranularity != 0 ||
      offset % kGranularity != 0)
    return Error(kRtParamInvalid, "aclrtMapMem: address {}, size {} and offset {} must be multiples of {}",
                 address, size, offset, kGranularity);
  if (offset > memory->size() || size > memory->size() - offset)
    return Error(kRtParamInvalid, "aclrtMapMem: {} bytes from {} are more than the memory's {}", size, offset,
                 memory->size());
  if (Address(address) + size > Address(range.block.base) + range.mapped)
    return Error(kRtParamInvalid, "aclrtMapMem: {} bytes at {} leave the range of {} bytes at {}", size,
                 address, range.mapped, range.block.base);
  if (t.Overlapping(Address(address), Address(address) + size) != t.mappings.end())
    return Error(kRtParamInvalid, "aclrtMapMem: memory is mapped at {} already; call aclrtUnmapMem first",
                 address);
  auto& mapping = t.mappings[Address(address)];
  if (mmap(address, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory->fd(),
           static_cast<off_t>(offset)) == MAP_FAILED) {
    t.mappings.erase(Address(address));
    return Error(kRtMemoryAllocation, "aclrtMapMem: {} bytes can't be mapped: {}", size,
                 std::strerror(errno));
  }
  madvise(address, size, MADV_HUGEPAGE);
  mapping = {size, Ref<PhysicalMemory>::To(memory), true};
  return Status();
}

Status Unmap(void* address) {
  memory::AwaitBusyStreams();  // what was submitted may use the memory
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  const auto it = t.mappings.find(Address(address));
  if (it == t.mappings.end())
    return Error(kRtParamInvalid, "aclrtUnmapMem: no memory was mapped at {} by aclrtMapMem", address);
  mmap(address, it->second.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  t.mappings.erase(it);
  return Status();
}

Status Retain(void* address, PhysicalMemory** out) {
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  const auto it = t.Overlapping(Address(address), Address(address) + 1);
  if (it == t.mappings.end() || !it->second.memory->alive())
    return Error(kRtParamInvalid,
                 "aclrtMemRetainAllocationHandle: no physical memory with a live handle is mapped at {}",
                 address);
  it->second.memory->AddUse();
  *out = it->second.memory.get();
  return Status();
}

Status Protect(void* address, size_t size, bool read, bool write) {
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  const auto it = t.Overlapping(Address(address), Address(address) + size);
  if (it == t.mappings.end() || size == 0 || size % kGranularity != 0)
    return Error(kRtParamInvalid, "aclrtMemSetAccess: no memory is mapped at {} for {} bytes", address, size);
  if (mprotect(address, size, (read ? PROT_READ : 0) | (write ? PROT_WRITE : 0)) != 0)
    return Error(kRtParamInvalid, "aclrtMemSetAccess: {} for {} bytes: {}", address, size,
                 std::strerror(errno));
  it->second.writable = write;
  return Status();
}

bool IsMapped(const void* address, bool* writable) {
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  const auto it = t.Overlapping(Address(address), Address(address) + 1);
  if (it == t.mappings.end()) return false;
  *writable = it->second.writable;
  return true;
}

bool CoversMappings(const void* address, size_t size) {
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  const uintptr_t end = Address(address) + size;
  for (uintptr_t at = Address(address); at < end;) {
    const auto it = t.Overlapping(at, at + 1);
    if (it == t.mappings.end()) return false;
    at = it->first + it->second.size;
  }
  return true;
}

namespace {

// Moves the block's content into a file that is mapped at the same place.
Status MakeShared(MemoryMap::Entry* entry) {
  int fd = -1;
  RETURN_IF_ERROR(NewSharedFile("aclrtIpcMemGetExportKey", entry->mapped, &fd));
  memory::AwaitBusyStreams();
  const char* from = static_cast<const char*>(entry->block.base);
  for (size_t done = 0; done < entry->mapped;) {
    const ssize_t n = pwrite(fd, from + done, entry->mapped - done, static_cast<off_t>(done));
    if (n <= 0) {
      close(fd);
      return Error(kRtMemoryAllocation, "aclrtIpcMemGetExportKey: copying the block: {}",
                   std::strerror(errno));
    }
    done += static_cast<size_t>(n);
  }
  if (mmap(entry->block.base, entry->mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
      MAP_FAILED) {
    close(fd);
    return Error(kRtMemoryAllocation, "aclrtIpcMemGetExportKey: {}", std::strerror(errno));
  }
  entry->fd = fd;
  MemoryMap::Get().Insert(*entry);
  return Status();
}

}  // namespace

Status ExportKey(void* address, size_t size, std::string* key) {
  std::lock_guard<std::mutex> lock(Tables::Get().mutex);
  MemoryMap::Entry entry;
  if (!MemoryMap::Get().Find(address, &entry) || entry.block.kind != MemoryKind::kDevice)
    return Error(kRtParamInvalid, "aclrtIpcMemGetExportKey: {} is not in memory of aclrtMalloc", address);
  const size_t offset = Address(address) - Address(entry.block.base);
  if (size == 0 || size > entry.block.size - offset)
    return Error(kRtParamInvalid, "aclrtIpcMemGetExportKey: size is {}, the block has {} bytes from there",
                 size, entry.block.size - offset);
  if (entry.fd < 0) RETURN_IF_ERROR(MakeShared(&entry));
  *key = fmt::format("anycann:{}:{}:{}:{}", getpid(), entry.fd, offset, size);
  return Status();
}

Status ImportKey(const std::string& key, int device, void** out) {
  int pid = 0, fd = 0;
  size_t offset = 0, size = 0, whole = 0;
  if (std::sscanf(key.c_str(), "anycann:%d:%d:%zu:%zu", &pid, &fd, &offset, &size) != 4)
    return Error(kRtParamInvalid, "aclrtIpcMemImportByKey: '{}' is not a key of aclrtIpcMemGetExportKey",
                 key);
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  Imported& imported = t.imports[key];
  if (imported.uses++ > 0) {
    *out = static_cast<char*>(imported.address) + offset;
    return Status();
  }
  int file = -1;
  Status status = virtual_memory::OpenSharedFile("aclrtIpcMemImportByKey", pid, fd, &file, &whole);
  if (status.ok() && (offset > whole || size > whole - offset))
    status = Error(kRtParamInvalid,
                   "aclrtIpcMemImportByKey: the key asks for more than the memory's {} bytes", whole);
  void* p = MAP_FAILED;
  if (status.ok() && (p = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)) == MAP_FAILED)
    status = Error(kRtMemoryAllocation, "aclrtIpcMemImportByKey: {} bytes can't be mapped: {}", whole,
                   std::strerror(errno));
  if (file >= 0) close(file);
  if (!status.ok()) {
    t.imports.erase(key);
    return status;
  }
  imported = {p, whole, 1};
  MemoryMap::Get().Insert({{p, whole, MemoryKind::kImported, device}, whole, -1});
  *out = static_cast<char*>(p) + offset;
  return Status();
}

Status CloseKey(const std::string& key) {
  memory::AwaitBusyStreams();
  Tables& t = Tables::Get();
  std::lock_guard<std::mutex> lock(t.mutex);
  const auto it = t.imports.find(key);
  if (it == t.imports.end()) {
    // The exporter closes its own key, too.
    if (key.rfind(fmt::format("anycann:{}:", getpid()), 0) == 0) return Status();
    return Error(kRtParamInvalid, "aclrtIpcMemClose: '{}' was not imported here", key);
  }
  if (--it->second.uses > 0) return Status();
  MemoryMap::Entry entry;
  static_cast<void>(MemoryMap::Get().Remove(it->second.address, MemoryKind::kImported, &entry));
  munmap(it->second.address, it->second.size);
  t.imports.erase(it);
  return Status();
}

}  // namespace virtual_memory
}  // namespace anycann
