#include "base/scratch.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "base/thread_object.h"

namespace anycann {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

struct Block {
  void* data = nullptr;
  size_t size = 0;
};

struct Blocks {
  Block slots[static_cast<int>(ScratchSlot::kCount)];
  ~Blocks() {
    for (Block& b : slots) std::free(b.data);
  }
};

}  // namespace

namespace {

// The slot's block, of at least `bytes`.
void* Grown(ScratchSlot slot, size_t bytes) {
  Blocks* blocks = ThreadObject<Blocks>::Get();
  if (blocks == nullptr) return nullptr;
  Block& b = blocks->slots[static_cast<int>(slot)];
  if (b.size >= bytes && b.data != nullptr) return b.data;
  std::free(b.data);
  b = Block();
  // Half as much again, so that slowly growing shapes don't reallocate each time.
  const size_t wanted = bytes + bytes / 2 + 4096;
  const size_t alignment = wanted >= kHugePage ? kHugePage : 64;
  const size_t size = (wanted + alignment - 1) / alignment * alignment;
  b.data = std::aligned_alloc(alignment, size);
  if (b.data == nullptr) return nullptr;
  if (alignment == kHugePage) madvise(b.data, size, MADV_HUGEPAGE);
  b.size = size;
  return b.data;
}

}  // namespace

void* ThreadScratch(ScratchSlot slot, size_t bytes) {
  static const bool poison = [] {
    const char* value = std::getenv("ANYCANN_POISON");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  void* data = Grown(slot, bytes);
  if (poison && data != nullptr) std::memset(data, 0xFF, bytes);  // NaN
  return data;
}

}  // namespace anycann
