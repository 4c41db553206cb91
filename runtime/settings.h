// What the environment says about the machine to be: read once, at first use.
#pragma once

#include <cstdint>
#include <string>

#include "base/export.h"

namespace anycann {

struct Settings {
  int devices = 1;             // ANYCANN_DEVICES
  int cores_per_device = 1;    // ANYCANN_THREADS, or the cores this process may use, split
  int64_t device_memory = 0;   // bytes: ANYCANN_MEMORY (e.g. 16G), or three quarters of the machine's, split
  std::string soc;             // ANYCANN_SOC
  bool empty_kernels = false;  // ANYCANN_EMPTY_KERNELS=1: kernels aren't invoked, to measure dispatch
  std::string trace_file;      // ANYCANN_TRACE
};

ANYCANN_API const Settings& GetSettings();

// "16G", "512M", "1048576": bytes; -1 when it isn't a size.
ANYCANN_API int64_t ParseSize(const std::string& text);

}  // namespace anycann
