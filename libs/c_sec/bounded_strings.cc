// Bounds-checked string functions in the manner of C11 annex K: on failure the destination holds an empty
// string.
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "securec.h"

int strcpy_s(char* dest, size_t destMax, const char* src) {
  if (dest == nullptr || destMax == 0) return EINVAL;
  if (src == nullptr) {
    dest[0] = '\0';
    return EINVAL;
  }
  const size_t length = strnlen(src, destMax);
  if (length == destMax) {
    dest[0] = '\0';
    return ERANGE;
  }
  std::memmove(dest, src, length + 1);
  return 0;
}

// At most `count` characters and the end; a longer text is cut after `count` characters and answers -1.
int vsnprintf_s(char* dest, size_t destMax, size_t count, const char* format, va_list args) {
  if (dest == nullptr || destMax == 0) return -1;
  dest[0] = '\0';
  if (format == nullptr) return -1;
  const bool cut_allowed = count < destMax;
  const int written = std::vsnprintf(dest, cut_allowed ? count + 1 : destMax, format, args);
  if (written < 0 || (!cut_allowed && static_cast<size_t>(written) >= destMax)) {
    dest[0] = '\0';
    return -1;
  }
  return static_cast<size_t>(written) > count ? -1 : written;
}

int snprintf_s(char* dest, size_t destMax, size_t count, const char* format, ...) {
  va_list args;
  va_start(args, format);
  const int written = vsnprintf_s(dest, destMax, count, format, args);
  va_end(args);
  return written;
}
