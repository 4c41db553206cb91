// Sentences for people on stderr, each with the prefix "AnyCANN: ". ANYCANN_LOG=quiet|warning|info chooses
// how many; the default is warning.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "base/export.h"

namespace anycann {

enum class LogLevel { kQuiet, kWarning, kInfo };

ANYCANN_API LogLevel LogThreshold();
ANYCANN_API void WriteLog(LogLevel level, std::string_view sentence) noexcept;

template <class... A>
void Log(LogLevel level, fmt::format_string<A...> format, A&&... args) {
  if (level > LogThreshold()) return;
  WriteLog(level, fmt::format(format, std::forward<A>(args)...));
}

}  // namespace anycann
