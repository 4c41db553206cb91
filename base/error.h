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

// The code of the thread's last recorded error, whichever library it came from; 0 when there is none or it was
// taken. aclrtPeekAtLastError and aclrtGetLastError: torch_npu shows it with every failure.
ANYCANN_API int32_t LastCode();
ANYCANN_API int32_t TakeLastCode();

// Records "<name> is not implemented in AnyCANN <version>" and returns `code`.
ANYCANN_API int32_t NotImplemented(const char* name, int32_t code);

}  // namespace anycann
