// Memory: device and host allocations. Device memory is ordinary memory that counts against its device's
// limit.
//
// All functions may be called from any thread. The register of allocations is a sorted map under one lock;
// kernels don't use it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/export.h"
#include "base/status.h"

namespace anycann {

class Stream;

enum class MemoryKind : uint8_t {
  kDevice,      // aclrtMalloc
  kHost,        // aclrtMallocHost: pinned in CUDA's terms
  kRegistered,  // the client's own, aclrtHostRegister
  kManaged,     // reachable from both sides
  kReserved,    // address range of aclrtReserveMemAddress
  kImported,    // another process's device memory
};

struct MemoryBlock {
  void* base = nullptr;
  size_t size = 0;  // as asked for
  MemoryKind kind = MemoryKind::kDevice;
  int device = -1;
};

enum class PagePolicy : uint8_t { kHugeFirst, kHugeOnly, kNormal };

namespace memory {

inline constexpr size_t kAlignment = 64;  // of every address that is returned
inline constexpr size_t kHugePage = size_t{2} << 20;

// kRtMemoryAllocation when the device's limit or the machine's memory is reached.
ANYCANN_API Status Allocate(const char* function, size_t size, MemoryKind kind, int device, PagePolicy pages,
                            void** out);
// Frees what Allocate returned. Plans that were submitted before may still use the memory: it is returned to
// the system when they have run. Never blocks.
ANYCANN_API Status Free(const char* function, void* address, MemoryKind kind);

ANYCANN_API Status Register(const char* function, void* address, size_t size);
ANYCANN_API Status Unregister(const char* function, void* address);

// The block that contains `address`; false when none does.
ANYCANN_API bool Lookup(const void* address, MemoryBlock* block);
// An error when [address, address+size) starts in a known block and leaves it.
ANYCANN_API Status CheckRange(const char* function, const char* argument, const void* address, size_t size);

// Copies and fills, at once or in the order of a stream.
ANYCANN_API Status Copy(void* to, const void* from, size_t size);
ANYCANN_API Status Fill(void* to, int value, size_t size);
ANYCANN_API Status CopyOn(Stream* stream, const char* name, void* to, const void* from, size_t size);
ANYCANN_API Status FillOn(Stream* stream, const char* name, void* to, int value, size_t size);

ANYCANN_API void Info(int device, size_t* free, size_t* total);

}  // namespace memory
}  // namespace anycann
