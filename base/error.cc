#include "base/error.h"

#include <memory>

namespace anycann {
namespace {

struct LastError {
  std::string message, taken;
  bool set = false;
};
// A pointer only: space for thread-local variables is scarce in a library that is loaded late.
thread_local std::unique_ptr<LastError> last;

bool IsParameterError(int32_t code) {
  return code == kParamNullptr || code == kParamInvalid || (code >= 100000 && code < 108000);
}

}  // namespace

void SetLastError(std::string message) noexcept {
  if (last == nullptr) last.reset(new (std::nothrow) LastError);
  if (last == nullptr) return;  // the code still says what happened
  last->message = std::move(message);
  last->set = true;
}

int32_t RecordError(const Status& status) noexcept {
  if (status.ok()) return 0;
  try {
    SetLastError(
        fmt::format("{}: {}", IsParameterError(status.code()) ? "EZ1001" : "EZ9999", status.message()));
  } catch (const std::bad_alloc&) {
    if (last != nullptr) last->set = false;  // the code still says what happened
  }
  return status.code();
}

const char* TakeLastError() {
  if (last == nullptr || !last->set) return nullptr;
  last->taken = std::move(last->message);
  last->set = false;
  return last->taken.c_str();
}

int32_t NotImplemented(const char* name, int32_t code) {
  return RecordError(Error(code, "{} is not implemented in AnyCANN " ANYCANN_VERSION, name));
}

}  // namespace anycann
