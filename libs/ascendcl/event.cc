// Events.
#include "runtime/event.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "libs/ascendcl/door.h"

using namespace anycann;

namespace {

constexpr uint32_t kManyEvents = 65536;  // what aclrtGetEventAvailNum promises; there is no real limit

aclError Create(const char* function, aclrtEvent* event, uint32_t flag) {
  if (event == nullptr) return Answer(Null(function, "event"));
  return Door(function, [&] {
    Event* e = nullptr;
    RETURN_IF_ERROR(Event::Create(flag, &e));
    *event = e;
    return Status();
  });
}

Status CheckNotCaptured(const char* function, const Event* e) {
  if (!e->captured()) return Status();
  return Error(ACL_ERROR_RT_EVENT_CAPTURED, "{}: event {} was recorded in a capture: it is never reached",
               function, e->id());
}

template <class Body>
aclError OnEvent(const char* function, aclrtEvent handle, Body&& body) {
  return Door(function, [&]() -> Status {
    Event* e = nullptr;
    RETURN_IF_ERROR(Event::Find(function, handle, &e));
    return body(e);
  });
}

}  // namespace

aclError aclrtCreateEvent(aclrtEvent* event) {
  return Create(__func__, event, ACL_EVENT_SYNC | ACL_EVENT_TIME_LINE);
}
aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flag) { return Create(__func__, event, flag); }
aclError aclrtCreateEventExWithFlag(aclrtEvent* event, uint32_t flag) {
  return Create(__func__, event, flag);
}

aclError aclrtDestroyEvent(aclrtEvent event) {
  return OnEvent(__func__, event, [](Event* e) { return Event::Destroy(e); });
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  return OnEvent(__func__, event, [&](Event* e) {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find("aclrtRecordEvent", stream, &s));
    return e->Record(s);
  });
}

aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event) {
  return OnEvent(__func__, event, [&](Event* e) {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find("aclrtStreamWaitEvent", stream, &s));
    return e->Wait(s);
  });
}

// The wait is the stream's; it has no limit of its own here, a wait that lasts is reported.
aclError aclrtStreamWaitEventWithTimeout(aclrtStream stream, aclrtEvent event, int32_t) {
  return aclrtStreamWaitEvent(stream, event);
}

aclError aclrtResetEvent(aclrtEvent event, aclrtStream stream) {
  return OnEvent(__func__, event, [&](Event* e) {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find("aclrtResetEvent", stream, &s));
    return e->Reset(s);
  });
}

aclError aclrtSynchronizeEvent(aclrtEvent event) {
  return OnEvent(__func__, event, [](Event* e) { return e->Synchronize(Stream::kNever); });
}

aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, int32_t timeout) {
  return OnEvent(__func__, event, [&](Event* e) {
    if (timeout < -1)
      return Error(kRtParamInvalid,
                   "aclrtSynchronizeEventWithTimeout: timeout is {} ms; give 0 or more, or -1", timeout);
    Status status = e->Synchronize(timeout < 0 ? Stream::kNever : int64_t{timeout} * 1000000);
    return status.code() == kRtStreamSyncTimeout ? Status(ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, status.message())
                                                 : std::move(status);
  });
}

aclError aclrtQueryEvent(aclrtEvent event, aclrtEventStatus* status) {
  ANYCANN_NOT_NULL(status);
  return OnEvent(__func__, event, [&](Event* e) {
    RETURN_IF_ERROR(CheckNotCaptured("aclrtQueryEvent", e));
    *status = e->Reached() ? ACL_EVENT_STATUS_COMPLETE : ACL_EVENT_STATUS_NOT_READY;
    return Status();
  });
}

aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus* status) {
  ANYCANN_NOT_NULL(status);
  return OnEvent(__func__, event, [&](Event* e) {
    RETURN_IF_ERROR(CheckNotCaptured("aclrtQueryEventStatus", e));
    *status = e->Reached() ? ACL_EVENT_RECORDED_STATUS_COMPLETE : ACL_EVENT_RECORDED_STATUS_NOT_READY;
    return Status();
  });
}

aclError aclrtQueryEventWaitStatus(aclrtEvent event, aclrtEventWaitStatus* status) {
  ANYCANN_NOT_NULL(status);
  return OnEvent(__func__, event, [&](Event* e) {
    RETURN_IF_ERROR(CheckNotCaptured("aclrtQueryEventWaitStatus", e));
    *status = e->Reached() ? ACL_EVENT_WAIT_STATUS_COMPLETE : ACL_EVENT_WAIT_STATUS_NOT_READY;
    return Status();
  });
}

// Milliseconds, as in CUDA.
aclError aclrtEventElapsedTime(float* ms, aclrtEvent startEvent, aclrtEvent endEvent) {
  ANYCANN_NOT_NULL(ms);
  return OnEvent(__func__, startEvent, [&](Event* start) {
    Event* end = nullptr;
    RETURN_IF_ERROR(Event::Find("aclrtEventElapsedTime", endEvent, &end));
    int64_t from = 0, to = 0;
    RETURN_IF_ERROR(start->Timestamp(&from));
    RETURN_IF_ERROR(end->Timestamp(&to));
    *ms = static_cast<float>(static_cast<double>(to - from) * 1e-6);
    return Status();
  });
}

// Microseconds of the steady clock.
aclError aclrtEventGetTimestamp(aclrtEvent event, uint64_t* timestamp) {
  ANYCANN_NOT_NULL(timestamp);
  return OnEvent(__func__, event, [&](Event* e) {
    int64_t ns = 0;
    RETURN_IF_ERROR(e->Timestamp(&ns));
    *timestamp = static_cast<uint64_t>(ns / 1000);
    return Status();
  });
}

aclError aclrtGetEventId(aclrtEvent event, uint32_t* eventId) {
  ANYCANN_NOT_NULL(eventId);
  return OnEvent(__func__, event, [&](Event* e) {
    *eventId = e->id();
    return Status();
  });
}

aclError aclrtGetEventAvailNum(uint32_t* eventCount) {
  ANYCANN_NOT_NULL(eventCount);
  *eventCount = kManyEvents;
  return 0;
}

aclError aclrtIpcGetEventHandle(aclrtEvent event, aclrtIpcEventHandle* handle) {
  ANYCANN_NOT_NULL(handle);
  return OnEvent(__func__, event, [&](Event* e) {
    if ((e->flags() & ACL_EVENT_IPC) == 0)
      return Error(kRtParamInvalid, "aclrtIpcGetEventHandle: event {} was created without ACL_EVENT_IPC",
                   e->id());
    std::string name;
    RETURN_IF_ERROR(e->Share(&name));
    std::memset(handle, 0, sizeof(*handle));
    std::memcpy(handle->reserved, name.data(), std::min(name.size(), sizeof(handle->reserved) - 1));
    return Status();
  });
}

aclError aclrtIpcOpenEventHandle(aclrtIpcEventHandle handle, aclrtEvent* event) {
  ANYCANN_NOT_NULL(event);
  return Door(__func__, [&] {
    Event* e = nullptr;
    RETURN_IF_ERROR(Event::OpenShared(
        std::string(handle.reserved, strnlen(handle.reserved, sizeof(handle.reserved))), &e));
    *event = e;
    return Status();
  });
}
