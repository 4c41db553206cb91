#include "ops/live.h"

#include "base/slot_pool.h"
#include "ops/handles.h"
#include "runtime/plan.h"

namespace anycann {
namespace {

// Slots of T's pool that `alive` accepts. They lie side by side, around any of them.
template <class T, class F>
int64_t Count(const F& alive) {
  T* any = SlotPool<T>::Take();
  if (any == nullptr) return 0;
  SlotPool<T>::Give(any);
  int64_t count = 0;
  for (const T* t = any; SlotPool<T>::Owns(t); ++t) count += alive(*t);
  for (const T* t = any - 1; SlotPool<T>::Owns(t); --t) count += alive(*t);
  return count;
}

template <class T>
int64_t CountHandles() {
  return Count<T>([](const T& h) { return h.kind.load(std::memory_order_relaxed) != HandleKind::kFree; });
}

}  // namespace

int64_t LiveObjects() {
  // A tensor may outlive its handle (TensorRef); a Plan of an operator has operands while it lives.
  return Count<aclTensor>(
             [](const aclTensor& t) { return t.references.load(std::memory_order_relaxed) > 0; }) +
         CountHandles<aclScalar>() + CountHandles<aclIntArray>() + CountHandles<aclFloatArray>() +
         CountHandles<aclBoolArray>() + CountHandles<aclTensorList>() + CountHandles<aclScalarList>() +
         CountHandles<aclOpExecutor>() + Count<Plan>([](const Plan& p) { return p.operands() > 0; });
}

}  // namespace anycann
