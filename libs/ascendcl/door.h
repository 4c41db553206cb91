// What every function of libascendcl does around its work: exceptions become codes, failures become the
// thread's last error.
#pragma once

#include <exception>
#include <new>

#include "acl/acl.h"
#include "base/error.h"
#include "base/out_of_memory.h"
#include "base/status.h"
#include "runtime/stream.h"

namespace anycann {

inline aclError Answer(const Status& status) {
  if (status.ok()) [[likely]]
    return 0;
  return RecordError(status);
}

// Runs `body` (Status()).
template <class Body>
aclError Door(const char* function, Body&& body) noexcept {
  try {
    return Answer(body());
  } catch (const std::bad_alloc&) {
    return Answer(OutOfMemory(kBadAlloc, function));
  } catch (const std::exception& e) {
    return Answer(Status(kInternalError, std::string(function) + ": " + e.what()));
  }
}

// Runs `body` (Status(Stream*)) with the client's stream; nullptr is the current context's default stream.
template <class Body>
aclError OnStream(const char* function, aclrtStream handle, Body&& body) noexcept {
  return Door(function, [&]() -> Status {
    Stream* s = nullptr;
    RETURN_IF_ERROR(Stream::Find(function, handle, &s));
    return body(s);
  });
}

inline Status Null(const char* function, const char* argument) {
  return Error(kInvalidParam, "{}: {} is null", function, argument);
}

#define ANYCANN_NOT_NULL(argument)        \
  if ((argument) == nullptr) [[unlikely]] \
  return ::anycann::Answer(::anycann::Null(__func__, #argument))

#define RETURN_IF_DOOR_ERROR(expr)                 \
  do {                                             \
    const ::anycann::Status door_status_ = (expr); \
    if (!door_status_.ok()) [[unlikely]]           \
      return ::anycann::Answer(door_status_);      \
  } while (0)

}  // namespace anycann
