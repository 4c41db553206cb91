// MemoryMap: the register of all blocks by address. Of runtime/memory*.cc only.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "runtime/memory.h"

namespace anycann {

class MemoryMap {
 public:
  enum class Removal { kDone, kUnknown, kInside, kOtherKind };

  static MemoryMap& Get() {
    static MemoryMap* m = new MemoryMap;  // never destroyed: clients free memory during exit
    return *m;
  }

  struct Entry {
    MemoryBlock block;
    size_t mapped = 0;  // bytes of address space that the block owns, 0 when it owns none
    int fd = -1;        // of the file behind a block that other processes can map
  };

  // May throw std::bad_alloc.
  void Insert(const Entry& entry) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    blocks_[reinterpret_cast<uintptr_t>(entry.block.base)] = entry;
  }

  Removal Remove(void* address, MemoryKind kind, Entry* entry) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    auto it = Containing(address);
    if (it == blocks_.end()) return Removal::kUnknown;
    *entry = it->second;
    if (entry->block.base != address) return Removal::kInside;
    if (entry->block.kind != kind) return Removal::kOtherKind;
    blocks_.erase(it);
    return Removal::kDone;
  }

  bool Find(const void* address, Entry* entry) {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    auto it = Containing(address);
    if (it == blocks_.end()) return false;
    *entry = it->second;
    return true;
  }

 private:
  using Map = std::map<uintptr_t, Entry>;

  Map::iterator Containing(const void* address) {
    const uintptr_t a = reinterpret_cast<uintptr_t>(address);
    auto it = blocks_.upper_bound(a);
    if (it == blocks_.begin()) return blocks_.end();
    --it;
    return a - it->first < it->second.block.size ? it : blocks_.end();
  }

  std::shared_mutex mutex_;
  Map blocks_;
};

namespace memory {
// The device's account, for memory that isn't allocated through Allocate.
Status TakeDeviceMemory(const char* function, int device, size_t bytes);
void GiveDeviceMemory(int device, size_t bytes);
// Waits until what was submitted to any stream so far has run, up to ten seconds a stream.
void AwaitBusyStreams();
}  // namespace memory

}  // namespace anycann
