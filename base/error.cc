#include "base/error.h"

#include <utility>

#include "base/thread_object.h"

namespace anycann {
namespace {

struct LastError {
  std::string message, taken;
  bool set = false;
};
bool IsParameterError(int32_t code) {
  return code == kParamNullptr || code == kParamInvalid || (code >= 100000 && code < 108000);
}

thread_local int32_t last_code = 0;

}  // namespace

void SetLastError(std::string message) noexcept {
  LastError* last = ThreadObject<LastError>::Get();
  if (last == nullptr) return;  // the code still says what happened
  last->message = std::move(message);
  last->set = true;
}

int32_t RecordError(const Status& status) noexcept {
  if (status.ok()) return 0;
  last_code = status.code();
  try {
    SetLastError(
        fmt::format("{}: {}", IsParameterError(status.code()) ? "EZ1001" : "EZ9999", status.message()));
  } catch (const std::bad_alloc&) {
    LastError* last = ThreadObject<LastError>::Existing();
    if (last != nullptr) last->set = false;  // the code still says what happened
  }
  return status.code();
}

const char* TakeLastError() {
  LastError* last = ThreadObject<LastError>::Existing();
  if (last == nullptr || !last->set) return nullptr;
  last->taken = std::move(last->message);
  last->set = false;
  return last->taken.c_str();
}

int32_t LastCode() { return last_code; }
int32_t TakeLastCode() { return std::exchange(last_code, 0); }

int32_t NotImplemented(const char* name, int32_t code) {
  return RecordError(Error(code, "{} is not implemented in AnyCANN " ANYCANN_VERSION, name));
}

}  // namespace anycann
