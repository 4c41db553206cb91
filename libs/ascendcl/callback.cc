// Host callbacks.
#include "runtime/callback.h"

#include "libs/ascendcl/door.h"

using namespace anycann;
using callback::Channel;

namespace {

int64_t Nanoseconds(int32_t ms) { return ms < 0 ? -1 : int64_t{ms} * 1000000; }

}  // namespace

aclError aclrtSubscribeReport(uint64_t threadId, aclrtStream stream) {
  return OnStream(__func__, stream,
                  [&](Stream* s) { return callback::Subscribe(Channel::kReport, threadId, s); });
}

aclError aclrtUnSubscribeReport(uint64_t threadId, aclrtStream stream) {
  return OnStream(__func__, stream,
                  [&](Stream* s) { return callback::Unsubscribe(Channel::kReport, threadId, s); });
}

aclError aclrtProcessReport(int32_t timeout) {
  return Door(__func__, [&] { return callback::Process(Channel::kReport, Nanoseconds(timeout)); });
}

aclError aclrtLaunchCallback(aclrtCallback fn, void* userData, aclrtCallbackBlockType blockType,
                             aclrtStream stream) {
  ANYCANN_NOT_NULL(fn);
  if (blockType != ACL_CALLBACK_NO_BLOCK && blockType != ACL_CALLBACK_BLOCK)
    return Answer(Error(kRtParamInvalid,
                        "aclrtLaunchCallback: blockType is {}; 0 doesn't block the stream, 1 does",
                        static_cast<int>(blockType)));
  return OnStream(__func__, stream, [&](Stream* s) {
    return callback::Launch(Channel::kReport, "aclrtLaunchCallback", s, fn, userData,
                            blockType == ACL_CALLBACK_BLOCK);
  });
}

aclError aclrtSubscribeHostFunc(uint64_t hostFuncThreadId, aclrtStream exeStream) {
  return OnStream(__func__, exeStream, [&](Stream* s) {
    return callback::Subscribe(Channel::kHostFunction, hostFuncThreadId, s);
  });
}

aclError aclrtUnSubscribeHostFunc(uint64_t hostFuncThreadId, aclrtStream exeStream) {
  return OnStream(__func__, exeStream, [&](Stream* s) {
    return callback::Unsubscribe(Channel::kHostFunction, hostFuncThreadId, s);
  });
}

aclError aclrtProcessHostFunc(int32_t timeout) {
  return Door(__func__, [&] { return callback::Process(Channel::kHostFunction, Nanoseconds(timeout)); });
}

aclError aclrtLaunchHostFunc(aclrtStream stream, aclrtHostFunc fn, void* args) {
  ANYCANN_NOT_NULL(fn);
  return OnStream(__func__, stream, [&](Stream* s) {
    return callback::Launch(Channel::kHostFunction, "aclrtLaunchHostFunc", s, fn, args, true);
  });
}
