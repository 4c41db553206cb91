// Notifies, and waits for values in memory.
#include <atomic>

#include "libs/ascendcl/door.h"
#include "runtime/event.h"
#include "runtime/memory.h"

using namespace anycann;

namespace {

template <class Body>
aclError OnNotify(const char* function, aclrtNotify handle, aclrtStream stream, Body&& body) {
  return OnStream(function, stream, [&](Stream* s) -> Status {
    Event* e = nullptr;
    RETURN_IF_ERROR(Event::Find(function, handle, &e));
    return body(e, s);
  });
}

bool Holds(uint64_t found, uint64_t wanted, uint32_t condition) {
  switch (condition) {
    case ACL_STREAM_WAIT_VALUE_EQ: return found == wanted;
    case ACL_STREAM_WAIT_VALUE_AND: return (found & wanted) != 0;
    case ACL_STREAM_WAIT_VALUE_NOR: return ~(found | wanted) != 0;
    default: return static_cast<int64_t>(found - wanted) >= 0;
  }
}

Status CheckValue(const char* function, void* address) {
  if (reinterpret_cast<uintptr_t>(address) % 8 != 0)
    return Error(ACL_ERROR_RT_ADDR_UNALIGNED, "{}: devAddr ({}) is not a multiple of 8", function, address);
  return memory::CheckRange(function, "devAddr", address, 8);
}

}  // namespace

aclError aclrtCreateNotify(aclrtNotify* notify, uint64_t) {
  ANYCANN_NOT_NULL(notify);
  return Door(__func__, [&] {
    Event* e = nullptr;
    RETURN_IF_ERROR(Event::CreateNotify(&e));
    *notify = e;
    return Status();
  });
}

aclError aclrtDestroyNotify(aclrtNotify notify) { return aclrtDestroyEvent(notify); }

aclError aclrtRecordNotify(aclrtNotify notify, aclrtStream stream) {
  return OnNotify(__func__, notify, stream, [](Event* e, Stream* s) { return e->Record(s); });
}

// A wait that lasts is reported; it ends when the notify is recorded.
aclError aclrtWaitAndResetNotify(aclrtNotify notify, aclrtStream stream, uint32_t) {
  return OnNotify(__func__, notify, stream, [](Event* e, Stream* s) { return e->Wait(s); });
}

aclError aclrtGetNotifyId(aclrtNotify notify, uint32_t* notifyId) {
  return aclrtGetEventId(notify, notifyId);
}

aclError aclrtNotifyBatchReset(aclrtNotify* notifies, size_t num) {
  ANYCANN_NOT_NULL(notifies);
  return Door(__func__, [&] {
    for (size_t i = 0; i < num; ++i) {
      Event* e = nullptr;
      RETURN_IF_ERROR(Event::Find("aclrtNotifyBatchReset", notifies[i], &e));
      e->LowerFlag();
    }
    return Status();
  });
}

aclError aclrtValueWrite(void* devAddr, uint64_t value, uint32_t, aclrtStream stream) {
  return OnStream(__func__, stream, [&](Stream* s) {
    RETURN_IF_ERROR(CheckValue("aclrtValueWrite", devAddr));
    Plan* plan = Plan::Create("aclrtValueWrite", PlanKind::kMarker);
    if (plan == nullptr) return Status(kRtMemoryAllocation, "aclrtValueWrite: out of memory");
    plan->SetKernel([devAddr, value](const Run&) {
      std::atomic_ref<uint64_t>(*static_cast<uint64_t*>(devAddr)).store(value, std::memory_order_release);
      return Status();
    });
    return s->Submit(plan);
  });
}

// Nobody announces a value in memory: a thread of its own looks again and again, at growing intervals.
aclError aclrtValueWait(void* devAddr, uint64_t value, uint32_t flag, aclrtStream stream) {
  return OnStream(__func__, stream, [&](Stream* s) {
    RETURN_IF_ERROR(CheckValue("aclrtValueWait", devAddr));
    if (flag > ACL_STREAM_WAIT_VALUE_NOR)
      return Error(kRtParamInvalid, "aclrtValueWait: flag is {}; 0 is >=, 1 is ==, 2 is &, 3 is nor", flag);
    Plan* plan = Plan::Create("aclrtValueWait", PlanKind::kHostCallback);
    if (plan == nullptr) return Status(kRtMemoryAllocation, "aclrtValueWait: out of memory");
    plan->SetKernel([devAddr, value, flag](const Run&) {
      const std::atomic_ref<uint64_t> word(*static_cast<uint64_t*>(devAddr));
      constexpr long kLongest = 1000000;
      for (long pause = 1000; !Holds(word.load(std::memory_order_acquire), value, flag);
           pause = pause < kLongest ? pause * 2 : kLongest) {
        const timespec t{0, pause};
        nanosleep(&t, nullptr);
      }
      return Status();
    });
    return s->Submit(plan);
  });
}
