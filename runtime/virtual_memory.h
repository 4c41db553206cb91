// Virtual memory: address ranges and physical memory as separate things, as torch's expandable segments and
// llama.cpp use them; and memory that several processes share.
//
// Physical memory is an anonymous file. Its shareable handle, and the key of an exported block, name the file
// as the exporter's descriptor, which other processes of the same user open through /proc: so nothing is left
// behind when a process dies, and the exporter must be alive while others import.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/export.h"
#include "base/status.h"
#include "runtime/object.h"

namespace anycann {

class ANYCANN_API PhysicalMemory : public Object<PhysicalMemory, ObjectKind::kMemory> {
 public:
  // `device`: whose account it is on; -1 for the host's.
  static Status Create(size_t size, int device, PhysicalMemory** out);
  static Status Find(const char* function, void* handle, PhysicalMemory** out);
  // Ends one use of the handle. The memory goes when it is mapped nowhere any more.
  static Status Release(PhysicalMemory* memory);
  static Status Import(uint64_t shareable, int device, PhysicalMemory** out);
  Status Export(uint64_t* shareable);

  size_t size() const { return size_; }
  int device() const { return device_; }
  int fd() const { return fd_; }
  void AddUse() { uses_.fetch_add(1); }

 private:
  friend class Object<PhysicalMemory, ObjectKind::kMemory>;
  PhysicalMemory() = default;
  ~PhysicalMemory();

  size_t size_ = 0;
  int device_ = -1, fd_ = -1;
  bool counted_ = false;  // on the device's account
  std::atomic<int> uses_{1};
};

namespace virtual_memory {

inline constexpr size_t kGranularity = size_t{2} << 20;  // of sizes and addresses

ANYCANN_API Status Reserve(size_t size, size_t alignment, void* wish, void** out);
ANYCANN_API Status ReleaseRange(void* address);
ANYCANN_API Status Map(void* address, size_t size, size_t offset, PhysicalMemory* memory);
ANYCANN_API Status Unmap(void* address);
// The memory that is mapped at `address`, with one use more.
ANYCANN_API Status Retain(void* address, PhysicalMemory** out);
ANYCANN_API Status Protect(void* address, size_t size, bool read, bool write);
ANYCANN_API bool IsMapped(const void* address, bool* writable);
// Whether memory is mapped everywhere in [address, address+size).
ANYCANN_API bool CoversMappings(const void* address, size_t size);

// A new anonymous file that other processes may open, and such a file of another process. The descriptors are
// the caller's.
Status NewSharedFile(const char* function, size_t size, int* fd);
Status OpenSharedFile(const char* function, int pid, int fd, int* out, size_t* size);

// Keys of device memory for other processes. Export turns the block into a file on first use; streams must
// not write to it just then, so it waits for them.
ANYCANN_API Status ExportKey(void* address, size_t size, std::string* key);
ANYCANN_API Status ImportKey(const std::string& key, int device, void** out);
ANYCANN_API Status CloseKey(const std::string& key);

}  // namespace virtual_memory
}  // namespace anycann
