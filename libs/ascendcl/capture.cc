// Stream capture and replay (aclmdlRI*).
#include <cstdio>
#include <cstring>
#include <fstream>

#include "libs/ascendcl/door.h"
#include "runtime/model.h"

using namespace anycann;

namespace {

template <class Body>
aclError OnModel(const char* function, aclmdlRI handle, Body&& body) {
  return Door(function, [&]() -> Status {
    Model* m = Model::From(handle);
    if (m == nullptr)
      return Error(kRtParamInvalid, "{}: modelRI ({}) is not a model, or it was destroyed", function, handle);
    return body(m);
  });
}

// The mode of the calling thread, for those who exchange it. Nothing is forbidden during a capture here
// except to wait for a captured stream, so the modes don't differ.
thread_local aclmdlRICaptureMode thread_mode = ACL_MODEL_RI_CAPTURE_MODE_GLOBAL;

Status CheckMode(const char* function, aclmdlRICaptureMode mode) {
  if (mode >= ACL_MODEL_RI_CAPTURE_MODE_GLOBAL && mode <= ACL_MODEL_RI_CAPTURE_MODE_RELAXED) return Status();
  return Error(kRtParamInvalid, "{}: mode is {}; it must be 0 (global), 1 (thread local) or 2 (relaxed)",
               function, static_cast<int>(mode));
}

}  // namespace

aclError aclmdlRICaptureBegin(aclrtStream stream, aclmdlRICaptureMode mode) {
  ANYCANN_NOT_NULL(stream);
  RETURN_IF_DOOR_ERROR(CheckMode(__func__, mode));
  return OnStream(__func__, stream, [](Stream* s) { return Model::BeginCapture(s, nullptr); });
}

aclError aclmdlRICaptureToModelRIBegin(aclrtStream stream, aclmdlRI modelRI, aclmdlRICaptureMode mode) {
  ANYCANN_NOT_NULL(stream);
  RETURN_IF_DOOR_ERROR(CheckMode(__func__, mode));
  return OnModel(__func__, modelRI, [&](Model* m) {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find("aclmdlRICaptureToModelRIBegin", stream, &s));
    return Model::BeginCapture(s, m);
  });
}

aclError aclmdlRICaptureEnd(aclrtStream stream, aclmdlRI* modelRI) {
  ANYCANN_NOT_NULL(stream);
  ANYCANN_NOT_NULL(modelRI);
  return OnStream(__func__, stream, [&](Stream* s) {
    Model* m = nullptr;
    Status status = Model::EndCapture(s, &m);
    *modelRI = m;
    return status;
  });
}

aclError aclmdlRICaptureGetInfo(aclrtStream stream, aclmdlRICaptureStatus* status, aclmdlRI* modelRI) {
  return OnStream(__func__, stream, [&](Stream* s) {
    const Ref<Model> m = Model::Of(s);
    if (modelRI != nullptr) *modelRI = m.get();
    if (status == nullptr) return Status();
    if (!m || m->state() == Model::State::kReady)
      *status = ACL_MODEL_RI_CAPTURE_STATUS_NONE;
    else if (m->state() == Model::State::kInvalid)
      *status = ACL_MODEL_RI_CAPTURE_STATUS_INVALIDATED;
    else
      *status = ACL_MODEL_RI_CAPTURE_STATUS_ACTIVE;
    return Status();
  });
}

aclError aclmdlRICaptureThreadExchangeMode(aclmdlRICaptureMode* mode) {
  ANYCANN_NOT_NULL(mode);
  RETURN_IF_DOOR_ERROR(CheckMode(__func__, *mode));
  std::swap(thread_mode, *mode);
  return 0;
}

aclError aclmdlRICaptureTaskGrpBegin(aclrtStream stream) {
  return OnStream(__func__, stream, [](Stream* s) {
    const Ref<Model> m = Model::Of(s);
    if (!m)
      return Error(ACL_ERROR_RT_STREAM_NOT_CAPTURED,
                   "aclmdlRICaptureTaskGrpBegin: stream {} is not being captured", s->id());
    return m->BeginGroup(s);
  });
}

aclError aclmdlRICaptureTaskGrpEnd(aclrtStream stream, aclrtTaskGrp* handle) {
  ANYCANN_NOT_NULL(handle);
  return OnStream(__func__, stream, [&](Stream* s) {
    const Ref<Model> m = Model::Of(s);
    if (!m)
      return Error(ACL_ERROR_RT_STREAM_NOT_CAPTURED,
                   "aclmdlRICaptureTaskGrpEnd: stream {} is not being captured", s->id());
    TaskGroup* group = nullptr;
    RETURN_IF_ERROR(m->EndGroup(s, &group));
    *handle = group;
    return Status();
  });
}

aclError aclmdlRICaptureTaskUpdateBegin(aclrtStream stream, aclrtTaskGrp handle) {
  return OnStream(__func__, stream, [&](Stream* s) {
    TaskGroup* group = TaskGroup::From(handle);
    if (group == nullptr)
      return Error(kRtParamInvalid, "aclmdlRICaptureTaskUpdateBegin: handle ({}) is not a task group",
                   handle);
    return Model::BeginUpdate(s, group);
  });
}

aclError aclmdlRICaptureTaskUpdateEnd(aclrtStream stream) {
  return OnStream(__func__, stream, [](Stream* s) { return Model::EndUpdate(s); });
}

aclError aclmdlRIExecuteAsync(aclmdlRI modelRI, aclrtStream stream) {
  return OnModel(__func__, modelRI, [&](Model* m) {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find("aclmdlRIExecuteAsync", stream, &s));
    return m->Execute(s);
  });
}

aclError aclmdlRIExecute(aclmdlRI modelRI, int32_t timeout) {
  return OnModel(__func__, modelRI, [&](Model* m) {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find("aclmdlRIExecute", nullptr, &s));
    RETURN_IF_ERROR(m->Execute(s));
    return s->Synchronize(timeout < 0 ? Stream::kNever : int64_t{timeout} * 1000000);
  });
}

aclError aclmdlRIDestroy(aclmdlRI modelRI) {
  return OnModel(__func__, modelRI, [](Model* m) { return Model::Destroy(m); });
}

aclError aclmdlRIDestroyRegisterCallback(aclmdlRI modelRI, aclrtCallback func, void* userData) {
  ANYCANN_NOT_NULL(func);
  return OnModel(__func__, modelRI, [&](Model* m) {
    m->AddDestroyCallback(func, userData);
    return Status();
  });
}

aclError aclmdlRIDestroyUnregisterCallback(aclmdlRI modelRI, aclrtCallback func) {
  ANYCANN_NOT_NULL(func);
  return OnModel(__func__, modelRI, [&](Model* m) {
    if (m->RemoveDestroyCallback(func)) return Status();
    return Status(kRtParamInvalid, "aclmdlRIDestroyUnregisterCallback: the callback was not registered");
  });
}

aclError aclmdlRIGetId(aclmdlRI modelRI, uint32_t* modelRIId) {
  ANYCANN_NOT_NULL(modelRIId);
  return OnModel(__func__, modelRI, [&](Model* m) {
    *modelRIId = m->id();
    return Status();
  });
}

aclError aclmdlRISetName(aclmdlRI modelRI, const char* name) {
  ANYCANN_NOT_NULL(name);
  return OnModel(__func__, modelRI, [&](Model* m) {
    m->set_name(name);
    return Status();
  });
}

aclError aclmdlRIGetName(aclmdlRI modelRI, uint32_t maxLen, char* name) {
  ANYCANN_NOT_NULL(name);
  return OnModel(__func__, modelRI, [&](Model* m) {
    const std::string kept = m->name();
    if (kept.size() >= maxLen)
      return Error(kRtParamInvalid, "aclmdlRIGetName: maxLen is {}, the name needs {}", maxLen,
                   kept.size() + 1);
    std::memcpy(name, kept.c_str(), kept.size() + 1);
    return Status();
  });
}

aclError aclmdlRIDebugPrint(aclmdlRI modelRI) {
  return OnModel(__func__, modelRI, [](Model* m) {
    std::fputs(m->Describe().c_str(), stdout);
    return Status();
  });
}

aclError aclmdlRIDebugJsonPrint(aclmdlRI modelRI, const char* path, uint32_t) {
  ANYCANN_NOT_NULL(path);
  return OnModel(__func__, modelRI, [&](Model* m) {
    std::ofstream out(path);
    out << m->Json();
    out.close();
    if (!out) return Error(ACL_ERROR_RT_FILE_WRITE, "aclmdlRIDebugJsonPrint: {} can't be written", path);
    return Status();
  });
}
