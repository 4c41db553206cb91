// Streams.
#include "runtime/stream.h"

#include <array>
#include <cstring>
#include <new>

#include "libs/ascendcl/door.h"

using namespace anycann;

namespace {

// Streams of one device that aclrtGetStreamAvailableNum promises; there is no real limit.
constexpr uint32_t kManyStreams = 2048;

aclError Create(const char* function, aclrtStream* stream, uint32_t priority, uint32_t flag) {
  if (stream == nullptr) return Answer(Null(function, "stream"));
  return Door(function, [&] {
    Context* c = Context::Current();
    if (c == nullptr)
      return Error(kRtInvalidContext,
                   "{}: the calling thread has no device; call aclrtSetDevice in this thread first",
                   function);
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Create(c, priority, flag, &s));
    *stream = s;
    return Status();
  });
}

aclError Destroy(const char* function, aclrtStream stream, bool force) {
  if (stream == nullptr) return Answer(Null(function, "stream"));
  return OnStream(function, stream, [&](Stream* s) {
    if (s == s->context()->DefaultStream())
      return Error(kRtStreamContext, "{}: the default stream belongs to its context and can't be destroyed",
                   function);
    return Stream::Destroy(s, force);
  });
}

}  // namespace

aclError aclrtCreateStream(aclrtStream* stream) { return Create(__func__, stream, 0, 0); }

aclError aclrtCreateStreamWithConfig(aclrtStream* stream, uint32_t priority, uint32_t flag) {
  return Create(__func__, stream, priority, flag);
}

aclError aclrtCreateStreamV2(aclrtStream* stream, const aclrtStreamConfigHandle* handle) {
  ANYCANN_NOT_NULL(handle);
  return Create(__func__, stream, handle->priority, static_cast<uint32_t>(handle->flag));
}

aclrtStreamConfigHandle* aclrtCreateStreamConfigHandle() {
  return new (std::nothrow) aclrtStreamConfigHandle{};
}

aclError aclrtDestroyStreamConfigHandle(aclrtStreamConfigHandle* handle) {
  ANYCANN_NOT_NULL(handle);
  delete handle;
  return 0;
}

aclError aclrtSetStreamConfigOpt(aclrtStreamConfigHandle* handle, aclrtStreamConfigAttr attr,
                                 const void* attrValue, size_t valueSize) {
  ANYCANN_NOT_NULL(handle);
  ANYCANN_NOT_NULL(attrValue);
  const auto take = [&](auto* field) {
    if (valueSize != sizeof(*field))
      return Answer(Error(kInvalidParam,
                          "aclrtSetStreamConfigOpt: attribute {} has {} bytes, valueSize is {}",
                          static_cast<int>(attr), sizeof(*field), valueSize));
    std::memcpy(field, attrValue, sizeof(*field));
    return aclError{0};
  };
  switch (attr) {
    case ACL_RT_STREAM_WORK_ADDR_PTR: return take(&handle->workptr);
    case ACL_RT_STREAM_WORK_SIZE: return take(&handle->workSize);
    case ACL_RT_STREAM_FLAG: return take(&handle->flag);
    case ACL_RT_STREAM_PRIORITY: return take(&handle->priority);
    default:
      return Answer(
          Error(kInvalidParam, "aclrtSetStreamConfigOpt: attribute {} is not known", static_cast<int>(attr)));
  }
}

aclError aclrtDestroyStream(aclrtStream stream) { return Destroy(__func__, stream, false); }
aclError aclrtDestroyStreamForce(aclrtStream stream) { return Destroy(__func__, stream, true); }

aclError aclrtSynchronizeStream(aclrtStream stream) {
  return OnStream(__func__, stream, [](Stream* s) { return s->Synchronize(Stream::kNever); });
}

aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t timeout) {
  if (timeout < -1)
    return Answer(Error(
        kRtParamInvalid,
        "aclrtSynchronizeStreamWithTimeout: timeout is {} ms; give 0 or more, or -1 to wait without limit",
        timeout));
  return OnStream(__func__, stream, [&](Stream* s) {
    return s->Synchronize(timeout < 0 ? Stream::kNever : int64_t{timeout} * 1000000);
  });
}

aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus* status) {
  ANYCANN_NOT_NULL(status);
  return OnStream(__func__, stream, [&](Stream* s) {
    *status = s->Idle() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
    return Status();
  });
}

aclError aclrtStreamAbort(aclrtStream stream) {
  return OnStream(__func__, stream, [](Stream* s) {
    s->Abort();
    return Status();
  });
}

aclError aclrtStreamStop(aclrtStream stream) { return aclrtStreamAbort(stream); }

aclError aclrtDeviceTaskAbort(int32_t deviceId, uint32_t timeout) {
  return Door(__func__, [&] {
    Device* d = Device::Get(deviceId);
    if (d == nullptr)
      return Error(kRtInvalidDevice, "aclrtDeviceTaskAbort: device {} does not exist", deviceId);
    Status status;
    for (Stream* s : d->Streams()) {
      s->Abort();
      const int64_t limit = timeout == 0 ? Stream::kNever : int64_t{timeout} * 1000000;
      Status one = s->Synchronize(limit);
      if (one.code() == kRtStreamSyncTimeout) status = std::move(one);  // other errors are what abort is for
      s->Unref();
    }
    return status;
  });
}

aclError aclrtStreamGetId(aclrtStream stream, int32_t* streamId) {
  ANYCANN_NOT_NULL(streamId);
  return OnStream(__func__, stream, [&](Stream* s) {
    *streamId = static_cast<int32_t>(s->id());
    return Status();
  });
}

aclError aclrtStreamGetPriority(aclrtStream stream, uint32_t* priority) {
  ANYCANN_NOT_NULL(priority);
  return OnStream(__func__, stream, [&](Stream* s) {
    *priority = s->priority();
    return Status();
  });
}

aclError aclrtStreamGetFlags(aclrtStream stream, uint32_t* flags) {
  ANYCANN_NOT_NULL(flags);
  return OnStream(__func__, stream, [&](Stream* s) {
    *flags = s->flags();
    return Status();
  });
}

aclError aclrtGetStreamAvailableNum(uint32_t* streamCount) {
  ANYCANN_NOT_NULL(streamCount);
  *streamCount = kManyStreams;
  return 0;
}

// Failure mode 1: after a failure the stream's operators are skipped until a synchronise has reported it.
aclError aclrtSetStreamFailureMode(aclrtStream stream, uint64_t mode) {
  if (mode > 1)
    return Answer(Error(kRtParamInvalid,
                        "aclrtSetStreamFailureMode: mode is {}; 0 goes on after a failure, 1 stops", mode));
  return OnStream(__func__, stream, [&](Stream* s) {
    s->set_stops_on_failure(mode == 1);
    return Status();
  });
}

aclError aclrtSetStreamOverflowSwitch(aclrtStream stream, uint32_t flag) {
  return OnStream(__func__, stream, [&](Stream* s) {
    s->overflow_switch = flag;
    return Status();
  });
}

aclError aclrtGetStreamOverflowSwitch(aclrtStream stream, uint32_t* flag) {
  ANYCANN_NOT_NULL(flag);
  return OnStream(__func__, stream, [&](Stream* s) {
    *flag = s->overflow_switch;
    return Status();
  });
}

aclError aclrtSetStreamAttribute(aclrtStream stream, aclrtStreamAttr stmAttrType,
                                 aclrtStreamAttrValue* value) {
  ANYCANN_NOT_NULL(value);
  return OnStream(__func__, stream, [&](Stream* s) {
    switch (stmAttrType) {
      case ACL_STREAM_ATTR_FAILURE_MODE: s->set_stops_on_failure(value->failureMode == 1); return Status();
      case ACL_STREAM_ATTR_FLOAT_OVERFLOW_CHECK: s->overflow_switch = value->overflowSwitch; return Status();
      case ACL_STREAM_ATTR_USER_CUSTOM_TAG: s->custom_tag = value->userCustomTag; return Status();
      case ACL_STREAM_ATTR_CACHE_OP_INFO: s->cache_op_info = value->cacheOpInfoSwitch; return Status();
      default:
        return Error(kRtFeatureUnsupported, "aclrtSetStreamAttribute: attribute {} can't be set",
                     static_cast<int>(stmAttrType));
    }
  });
}

aclError aclrtGetStreamAttribute(aclrtStream stream, aclrtStreamAttr stmAttrType,
                                 aclrtStreamAttrValue* value) {
  ANYCANN_NOT_NULL(value);
  return OnStream(__func__, stream, [&](Stream* s) {
    switch (stmAttrType) {
      case ACL_STREAM_ATTR_FAILURE_MODE: value->failureMode = s->stops_on_failure() ? 1 : 0; return Status();
      case ACL_STREAM_ATTR_FLOAT_OVERFLOW_CHECK: value->overflowSwitch = s->overflow_switch; return Status();
      case ACL_STREAM_ATTR_USER_CUSTOM_TAG: value->userCustomTag = s->custom_tag; return Status();
      case ACL_STREAM_ATTR_CACHE_OP_INFO: value->cacheOpInfoSwitch = s->cache_op_info; return Status();
      case ACL_STREAM_ATTR_PRIORITY: value->streamPriority = s->priority(); return Status();
      default:
        return Error(kRtFeatureUnsupported, "aclrtGetStreamAttribute: attribute {} is not known",
                     static_cast<int>(stmAttrType));
    }
  });
}
