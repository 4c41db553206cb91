#include "base/log.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace anycann {

LogLevel LogThreshold() {
  static const LogLevel level = [] {
    const char* value = std::getenv("ANYCANN_LOG");
    if (value != nullptr && std::strcmp(value, "quiet") == 0) return LogLevel::kQuiet;
    if (value != nullptr && std::strcmp(value, "info") == 0) return LogLevel::kInfo;
    return LogLevel::kWarning;
  }();
  return level;
}

void WriteLog(LogLevel, std::string_view sentence) noexcept {
  try {
    const std::string line = fmt::format("AnyCANN: {}\n", sentence);
    // One write, so that lines of several threads don't mix.
    for (size_t done = 0; done < line.size();) {
      const ssize_t n = write(STDERR_FILENO, line.data() + done, line.size() - done);
      if (n <= 0) return;
      done += static_cast<size_t>(n);
    }
  } catch (const std::bad_alloc&) {
  }
}

}  // namespace anycann
