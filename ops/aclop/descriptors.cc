#include "ops/aclop/descriptors.h"

#include <new>

#include "base/slot_pool.h"

namespace anycann::aclop {
namespace {

template <class Handle>
Handle* Make() {
  using Described = std::remove_pointer_t<decltype(Handle::value)>;
  Described* value = new (std::nothrow) Described;
  Handle* slot = value != nullptr ? SlotPool<Handle>::Take() : nullptr;
  if (slot == nullptr) {
    delete value;
    return nullptr;
  }
  slot->value = value;
  slot->alive.store(1, std::memory_order_release);
  return slot;
}

template <class Handle>
auto FindIn(const Handle* handle) -> decltype(Handle::value) {
  const bool alive = SlotPool<Handle>::Owns(handle) && handle->alive.load(std::memory_order_acquire) == 1;
  return alive ? handle->value : nullptr;
}

template <class Handle>
bool End(const Handle* handle) {
  if (!SlotPool<Handle>::Owns(handle)) return false;
  Handle* slot = const_cast<Handle*>(handle);
  if (slot->alive.exchange(0, std::memory_order_acq_rel) != 1) return false;
  delete slot->value;
  slot->value = nullptr;
  SlotPool<Handle>::Give(slot);
  return true;
}

}  // namespace

aclTensorDesc* MakeTensor() { return Make<aclTensorDesc>(); }
aclDataBuffer* MakeBuffer() { return Make<aclDataBuffer>(); }
aclopAttr* MakeAttributes() { return Make<aclopAttr>(); }

TensorDescription* Find(const aclTensorDesc* handle) { return FindIn(handle); }
Buffer* Find(const aclDataBuffer* handle) { return FindIn(handle); }
Attributes* Find(const aclopAttr* handle) { return FindIn(handle); }

bool Destroy(const aclTensorDesc* handle) { return End(handle); }
bool Destroy(const aclDataBuffer* handle) { return End(handle); }
bool Destroy(const aclopAttr* handle) { return End(handle); }

}  // namespace anycann::aclop
