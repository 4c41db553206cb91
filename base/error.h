// The thread's last error: what aclGetRecentErrMsg returns. And the answer of a function that has no
// implementation.
#pragma once

#include <cstdint>
#include <string>

#include "base/export.h"
#include "base/status.h"

namespace anycann {

// Keeps `message` as the calling thread's last error, replacing an earlier one that was not taken.
ANYCANN_API void SetLastError(std::string message) noexcept;

// Keeps status.message() with the prefix that users of CANN know (EZ1001 for parameters, EZ9999 for the rest)
// and returns its code.
ANYCANN_API int32_t RecordError(const Status& status) noexcept;

// The last error and an end to it: the pointer is valid until the thread's next call. nullptr when there is
// none (onnxruntime takes "" for a failure).
ANYCANN_API const char* TakeLastError();

// Records "<name> is not implemented in AnyCANN <version>" and returns `code`.
ANYCANN_API int32_t NotImplemented(const char* name, int32_t code);

}  // namespace anycann
