// The engine's clock: monotonic nanoseconds, for event times, deadlines and the trace.
#pragma once

#include <time.h>

#include <cstdint>

namespace anycann {

inline int64_t NowNanoseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1000000000 + t.tv_nsec;
}

}  // namespace anycann
