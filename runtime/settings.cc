#include "runtime/settings.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/log.h"

namespace anycann {
namespace {

constexpr int kMaxDevices = 64;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

int Count(const char* name, int fallback, int limit) {
  const std::string text = Environment(name);
  if (text.empty()) return fallback;
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (*end == '\0' && value >= 1 && value <= limit) return static_cast<int>(value);
  Log(LogLevel::kWarning, "{}={} is not a number from 1 to {}; using {}", name, text, limit, fallback);
  return fallback;
}

int UsableCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
}

// Physical memory, or the control group's limit when that is lower.
int64_t MachineMemory() {
  int64_t total = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  for (const char* file : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream in(file);
    int64_t limit = 0;
    if (in >> limit && limit > 0) total = std::min(total, limit);
  }
  return total;
}

Settings Read() {
  Settings s;
  s.devices = Count("ANYCANN_DEVICES", 1, kMaxDevices);
  s.cores_per_device = Count("ANYCANN_THREADS", std::max(1, UsableCores() / s.devices), 1024);
  s.device_memory = MachineMemory() / 4 * 3 / s.devices;
  const std::string memory = Environment("ANYCANN_MEMORY");
  if (!memory.empty()) {
    const int64_t bytes = ParseSize(memory);
    if (bytes > 0)
      s.device_memory = bytes;
    else
      Log(LogLevel::kWarning, "ANYCANN_MEMORY={} is not a size such as 16G; using {} bytes", memory,
          s.device_memory);
  }
  s.soc = Environment("ANYCANN_SOC");
  if (s.soc.empty()) s.soc = "Ascend910B1";
  s.trace_file = Environment("ANYCANN_TRACE");
  s.empty_kernels = Environment("ANYCANN_EMPTY_KERNELS") == "1";
  if (s.empty_kernels)
    WriteLog(LogLevel::kWarning,
             "ANYCANN_EMPTY_KERNELS=1: operators are not computed, only copies are. Results are meaningless; "
             "this mode "
             "measures dispatch");
  return s;
}

}  // namespace

int64_t ParseSize(const std::string& text) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return -1;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  std::string unit(end);
  if (!unit.empty() && (unit.back() == 'B' || unit.back() == 'b')) unit.pop_back();
  if (!unit.empty() && unit.back() == 'i') unit.pop_back();
  double scale = 1;
  if (unit == "K" || unit == "k")
    scale = 0x1p10;
  else if (unit == "M" || unit == "m")
    scale = 0x1p20;
  else if (unit == "G" || unit == "g")
    scale = 0x1p30;
  else if (unit == "T" || unit == "t")
    scale = 0x1p40;
  else if (!unit.empty())
    return -1;
  const double bytes = value * scale;
  return bytes < 0x1p62 ? static_cast<int64_t>(bytes) : -1;
}

const Settings& GetSettings() {
  static const Settings* settings = new Settings(Read());  // never destroyed: threads read it during exit
  return *settings;
}

}  // namespace anycann
