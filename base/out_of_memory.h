// How a std::bad_alloc becomes a Status: with its sentence if there is memory for that.
#pragma once

#include <new>
#include <string>

#include "base/status.h"

namespace anycann {

inline Status OutOfMemory(int32_t code, const char* who) noexcept {
  try {
    return Status(code, std::string(who) + ": out of memory");
  } catch (const std::bad_alloc&) {
    return Status(code, std::string());
  }
}

}  // namespace anycann
