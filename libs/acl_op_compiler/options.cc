// Compile options and system parameters: kept as given, and given back. The only one that changes what a
// client does is ACL_OP_JIT_COMPILE: "disable" lets torch_npu call aclnn instead of compiling operators.
#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "acl/acl_op_compiler.h"
#include "acl/acl_rt.h"
#include "base/error.h"

namespace {

using anycann::Error;
using anycann::RecordError;

// All of this is called a few times per process: one lock for both stores.
struct Store {
  std::mutex mutex;
  std::array<std::string, ACL_OP_DEBUG_OPTION + 1> options;
  std::map<std::pair<aclrtContext, int>, int64_t> parameters;  // context nullptr: the process
  Store() {
    options[ACL_OP_JIT_COMPILE] = "disable";
    options[ACL_OP_DETERMINISTIC] = "1";  // results never depend on the number of threads
  }
};

Store& TheStore() {
  static Store* store = new Store;  // never destroyed: clients ask during their own destruction
  return *store;
}

bool Known(aclCompileOpt opt) { return opt >= ACL_PRECISION_MODE && opt <= ACL_OP_DEBUG_OPTION; }

aclError BadOption(const char* function, int opt) {
  return RecordError(
      Error(anycann::kInvalidParam, "{}: opt is {}, which is no option of this function", function, opt));
}

aclError NullPointer(const char* function, const char* name) {
  return RecordError(Error(anycann::kInvalidParam, "{}: {} is a null pointer", function, name));
}

aclError SetParameter(const char* function, aclrtContext context, aclSysParamOpt opt, int64_t value) {
  if (opt < ACL_OPT_DETERMINISTIC || opt > ACL_OPT_STRONG_CONSISTENCY) return BadOption(function, opt);
  std::lock_guard lock(TheStore().mutex);
  TheStore().parameters[{context, opt}] = value;
  return 0;
}

aclError GetParameter(const char* function, aclrtContext context, aclSysParamOpt opt, int64_t* value) {
  if (opt < ACL_OPT_DETERMINISTIC || opt > ACL_OPT_STRONG_CONSISTENCY) return BadOption(function, opt);
  if (value == nullptr) return NullPointer(function, "value");
  std::lock_guard lock(TheStore().mutex);
  const auto& parameters = TheStore().parameters;
  auto found = parameters.find({context, opt});
  if (found == parameters.end()) found = parameters.find({nullptr, opt});
  *value = found == parameters.end() ? 0 : found->second;
  return 0;
}

aclError CurrentContext(const char* function, aclrtContext* context) {
  const aclError code = aclrtGetCurrentContext(context);
  if (code != 0) {
    return RecordError(Error(code, "{}: this thread has no context, call aclrtSetDevice first", function));
  }
  return 0;
}

}  // namespace

aclError aclSetCompileopt(aclCompileOpt opt, const char* value) try {
  if (!Known(opt)) return BadOption("aclSetCompileopt", opt);
  if (value == nullptr) return NullPointer("aclSetCompileopt", "value");
  std::lock_guard lock(TheStore().mutex);
  TheStore().options[opt] = value;
  return 0;
} catch (const std::bad_alloc&) {
  return RecordError(Error(anycann::kBadAlloc, "aclSetCompileopt: out of memory"));
}

size_t aclGetCompileoptSize(aclCompileOpt opt) {
  if (!Known(opt)) {
    BadOption("aclGetCompileoptSize", opt);
    return 0;
  }
  std::lock_guard lock(TheStore().mutex);
  return TheStore().options[opt].size() + 1;
}

aclError aclGetCompileopt(aclCompileOpt opt, char* value, size_t length) {
  if (!Known(opt)) return BadOption("aclGetCompileopt", opt);
  if (value == nullptr) return NullPointer("aclGetCompileopt", "value");
  std::lock_guard lock(TheStore().mutex);
  const std::string& kept = TheStore().options[opt];
  if (length < kept.size() + 1) {
    return RecordError(Error(anycann::kInvalidParam, "aclGetCompileopt: length is {}, the value needs {}",
                             length, kept.size() + 1));
  }
  std::memcpy(value, kept.c_str(), kept.size() + 1);
  return 0;
}

aclError aclrtSetSysParamOpt(aclSysParamOpt opt, int64_t value) try {
  return SetParameter("aclrtSetSysParamOpt", nullptr, opt, value);
} catch (const std::bad_alloc&) {
  return RecordError(Error(anycann::kBadAlloc, "aclrtSetSysParamOpt: out of memory"));
}

aclError aclrtGetSysParamOpt(aclSysParamOpt opt, int64_t* value) {
  return GetParameter("aclrtGetSysParamOpt", nullptr, opt, value);
}

aclError aclrtCtxSetSysParamOpt(aclSysParamOpt opt, int64_t value) try {
  aclrtContext context = nullptr;
  if (const aclError code = CurrentContext("aclrtCtxSetSysParamOpt", &context)) return code;
  return SetParameter("aclrtCtxSetSysParamOpt", context, opt, value);
} catch (const std::bad_alloc&) {
  return RecordError(Error(anycann::kBadAlloc, "aclrtCtxSetSysParamOpt: out of memory"));
}

aclError aclrtCtxGetSysParamOpt(aclSysParamOpt opt, int64_t* value) {
  aclrtContext context = nullptr;
  if (const aclError code = CurrentContext("aclrtCtxGetSysParamOpt", &context)) return code;
  return GetParameter("aclrtCtxGetSysParamOpt", context, opt, value);
}
