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

  // `mapped`: bytes of address space that the block owns, 0 when it owns none. May throw std::bad_alloc.
  void Insert(const MemoryBlock& block, size_t mapped) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    blocks_[reinterpret_cast<uintptr_t>(block.base)] = {block, mapped};
  }

  Removal Remove(void* address, MemoryKind kind, MemoryBlock* block, size_t* mapped) {
    std::unique_lock<std::shared_mutex> lock(mutex_);
    auto it = Containing(address);
    if (it == blocks_.end()) return Removal::kUnknown;
    *block = it->second.block;
    *mapped = it->second.mapped;
    if (block->base != address) return Removal::kInside;
    if (block->kind != kind) return Removal::kOtherKind;
    blocks_.erase(it);
    return Removal::kDone;
  }

  bool Find(const void* address, MemoryBlock* block) {
    std::shared_lock<std::shared_mutex> lock(mutex_);
    auto it = Containing(address);
    if (it == blocks_.end()) return false;
    *block = it->second.block;
    return true;
  }

 private:
  struct Entry {
    MemoryBlock block;
    size_t mapped = 0;
  };
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
}  // namespace memory

}  // namespace anycann
