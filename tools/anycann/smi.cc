// anycann smi and npu-smi: the devices as the runtime reports them.
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "acl/acl.h"
#include "base/level.h"
#include "tools/anycann/command.h"

namespace anycann::command {
namespace {

struct Device {
  size_t free = 0, total = 0;
};

struct Machine {
  std::string soc, version, processor, level;
  std::vector<Device> devices;
};

std::string Processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "unknown";
}

bool Query(Machine* m) {
  if (aclInit(nullptr) != ACL_SUCCESS) {
    const char* why = aclGetRecentErrMsg();
    fmt::print(stderr, "anycann smi: aclInit failed: {}\n", why ? why : "no message");
    return false;
  }
  const char* soc = aclrtGetSocName();
  m->soc = soc ? soc : "unknown";
  m->version = ANYCANN_VERSION;
  m->processor = Processor();
  m->level = anycann::EngineLevel();
  uint32_t count = 0;
  aclrtGetDeviceCount(&count);
  for (uint32_t i = 0; i < count; ++i) {
    Device d;
    aclrtSetDevice(static_cast<int32_t>(i));
    aclrtGetMemInfo(ACL_HBM_MEM, &d.free, &d.total);
    aclrtResetDevice(static_cast<int32_t>(i));
    m->devices.push_back(d);
  }
  aclFinalize();
  return true;
}

std::string Chip(const std::string& soc) { return soc.rfind("Ascend", 0) == 0 ? soc.substr(6) : soc; }

}  // namespace

int Smi() {
  Machine m;
  if (!Query(&m)) return 1;
  const Colours& c = colours();
  fmt::print("{}AnyCANN {}{}   {}   x86-64 level {}\n", c.bold, m.version, c.reset, m.processor, m.level);
  fmt::print("+--------+------------------+----------------+----------------+\n");
  fmt::print("| device | chip             | memory limit   | memory free    |\n");
  fmt::print("+--------+------------------+----------------+----------------+\n");
  for (size_t i = 0; i < m.devices.size(); ++i)
    fmt::print("| npu:{:<2} | {:<16} | {:>10.1f} GiB | {:>10.1f} GiB |\n", i, m.soc,
               static_cast<double>(m.devices[i].total) / (1 << 30),
               static_cast<double>(m.devices[i].free) / (1 << 30));
  fmt::print("+--------+------------------+----------------+----------------+\n");
  return 0;
}

int NpuSmi(int argc, char** argv) {
  if (argc < 2 || std::strcmp(argv[1], "info") != 0) {
    fmt::print("npu-smi of AnyCANN {}: only `npu-smi info` is there; `anycann smi` says more\n",
               ANYCANN_VERSION);
    return argc < 2 ? 0 : 2;
  }
  Machine m;
  if (!Query(&m)) return 1;
  const std::string line(98, '-');
  fmt::print("+{}+\n", line);
  fmt::print("| npu-smi anycann-{:<20} Version: {:<52}|\n", m.version, m.version);
  fmt::print("+{0:-<27}+{0:-<15}+{0:-<54}+\n", "");
  fmt::print("| {:<25} | {:<13} | {:<52} |\n", "NPU     Name", "Health",
             "Power(W)     Temp(C)           Hugepages-Usage(page)");
  fmt::print("| {:<25} | {:<13} | {:<52} |\n", "Chip", "Bus-Id",
             "AICore(%)    Memory-Usage(MB)  HBM-Usage(MB)");
  fmt::print("+{0:=<27}+{0:=<15}+{0:=<54}+\n", "");
  for (size_t i = 0; i < m.devices.size(); ++i) {
    const Device& d = m.devices[i];
    const size_t used = (d.total - d.free) >> 20, total = d.total >> 20;
    fmt::print("| {:<25} | {:<13} | {:<52} |\n", fmt::format("{:<7} {}", i, Chip(m.soc)), "OK",
               "-            -                 0    / 0");
    fmt::print("| {:<25} | {:<13} | {:<52} |\n", "0", "-",
               fmt::format("0            0    / 0          {} / {}", used, total));
    fmt::print("+{0:=<27}+{0:=<15}+{0:=<54}+\n", "");
  }
  return 0;
}

}  // namespace anycann::command
