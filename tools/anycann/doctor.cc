// anycann doctor: the commonest broken set-ups, each with what it means and how to mend it.
#include <dlfcn.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>

#include "tools/anycann/command.h"

namespace anycann::command {
namespace {

namespace fs = std::filesystem;

enum class Verdict { kGood, kNote, kBad };
struct Finding {
  Verdict verdict;
  std::string what, mend;
};

std::string Variable(const char* name) {
  const char* v = std::getenv(name);
  return v ? v : "";
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

// Standard output of a command; empty when it fails.
std::string Output(const std::string& command) {
  std::string result;
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return result;
  std::array<char, 4096> buffer;
  while (size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) result.append(buffer.data(), n);
  if (pclose(pipe) != 0) result.clear();
  while (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

bool SameFile(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::equivalent(a, b, error);
}

Finding Toolkit() {
  const fs::path root = Root();
  for (const char* part :
       {"lib64/libanycann.so", "lib64/libascendcl.so", "lib64/libopapi.so", "lib64/libnnopbase.so",
        "lib64/libacl_op_compiler.so", "lib64/libhccl.so", "opp", "runtime", "compiler"})
    if (!fs::exists(root / part))
      return {Verdict::kBad, fmt::format("the toolkit {} lacks {}", root.string(), part),
              "build it again (make toolkit) or install it whole (make install PREFIX=...)"};
  return {Verdict::kGood, fmt::format("toolkit {} is complete", root.string()), ""};
}

Finding Dependencies() {
  const fs::path engine = Root() / "lib64/libanycann.so";
  if (void* h = dlopen(engine.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    dlclose(h);
    return {Verdict::kGood, "the engine and the system libraries that it needs load", ""};
  }
  return {Verdict::kBad, fmt::format("the engine does not load: {}", dlerror()),
          "install what is missing: apt-get install libfmt9 (Debian 12)"};
}

Finding OtherToolkit() {
  for (const std::string& folder : Split(Variable("LD_LIBRARY_PATH"), ':')) {
    const fs::path library = fs::path(folder) / "libascendcl.so";
    if (!fs::exists(library)) continue;
    if (SameFile(library, Root() / "lib64/libascendcl.so")) break;
    return {Verdict::kBad, fmt::format("LD_LIBRARY_PATH names another CANN first: {}", library.string()),
            "start the program with `anycann run`, or put " + (Root() / "lib64").string() + " before it"};
  }
  return {Verdict::kGood, "no other CANN comes first in LD_LIBRARY_PATH", ""};
}

Finding AscendHome() {
  const std::string home = Variable("ASCEND_HOME_PATH");
  if (home.empty()) return {Verdict::kGood, "ASCEND_HOME_PATH is not set (anycann run sets it)", ""};
  for (const char* part : {"", "runtime", "compiler"})
    if (!fs::exists(fs::path(home) / part))
      return {Verdict::kBad,
              fmt::format("ASCEND_HOME_PATH is {}, and {} does not exist: torch_npu refuses to start", home,
                          (fs::path(home) / part).string()),
              "unset ASCEND_HOME_PATH, or source " + (Root() / "set_env.sh").string()};
  const std::string opp = Variable("ASCEND_OPP_PATH");
  if (opp.empty() || !fs::is_directory(opp))
    return {Verdict::kBad,
            fmt::format("ASCEND_HOME_PATH is set, but ASCEND_OPP_PATH is {}: torch_npu refuses to start",
                        opp.empty() ? "not" : opp + ", which is no folder"),
            "export ASCEND_OPP_PATH=" + (Root() / "opp").string()};
  return {Verdict::kGood, "ASCEND_HOME_PATH and ASCEND_OPP_PATH fit together", ""};
}

Finding Preload() {
  const std::string preload = Variable("LD_PRELOAD");
  if (preload.find("torch_allocator") != std::string::npos || preload.find("ascend") != std::string::npos)
    return {Verdict::kNote, fmt::format("LD_PRELOAD is {}", preload),
            "AnyCANN needs no preloaded library: unset LD_PRELOAD if something fails"};
  return {Verdict::kGood, "LD_PRELOAD holds nothing of CANN", ""};
}

std::string PackageVersion(const std::string& python, const std::string& package) {
  return Output(
      fmt::format("{} -c \"import importlib.metadata as m; print(m.version('{}'))\"", python, package));
}

Finding Torch(const std::string& python) {
  const std::string version = Output(python + " -c \"import sys; print('%d.%d' % sys.version_info[:2])\"");
  if (version.empty())
    return {Verdict::kNote, python + " does not start",
            "name the client's interpreter: anycann doctor --python .venv/bin/python"};
  const std::string torch = PackageVersion(python, "torch"), npu = PackageVersion(python, "torch-npu");
  if (torch.empty() || npu.empty())
    return {Verdict::kNote, fmt::format("{} has no {}", python, torch.empty() ? "torch" : "torch-npu"),
            "for PyTorch: pip install torch==2.14.0 torch-npu==2.14.0, or --python .venv/bin/python after "
            "make venv"};
  const auto minor = [](const std::string& v) { return v.substr(0, v.find('.', v.find('.') + 1)); };
  if (minor(torch) != minor(npu))
    return {Verdict::kBad, fmt::format("torch {} and torch-npu {} don't belong together", torch, npu),
            fmt::format("pip install torch=={}.* torch-npu=={}", minor(npu), npu)};
  return {Verdict::kGood, fmt::format("torch {} and torch-npu {} (Python {})", torch, npu, version), ""};
}

Finding OnnxRuntime(const std::string& python) {
  const std::string ort = PackageVersion(python, "onnxruntime-cann"), numpy = PackageVersion(python, "numpy");
  if (ort.empty()) return {Verdict::kGood, "onnxruntime-cann is not installed", ""};
  if (!PackageVersion(python, "onnxruntime").empty())
    return {Verdict::kBad,
            "onnxruntime and onnxruntime-cann are both installed and overwrite each other's files",
            "pip uninstall onnxruntime onnxruntime-cann; pip install onnxruntime-cann"};
  if (!numpy.empty() && numpy[0] >= '2')
    return {Verdict::kBad,
            fmt::format("onnxruntime-cann {} needs numpy below 2, {} is installed", ort, numpy),
            "pip install 'numpy<2'"};
  return {Verdict::kGood, fmt::format("onnxruntime-cann {} with numpy {}", ort, numpy), ""};
}

Finding Cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  const std::string devices = Variable("ANYCANN_DEVICES");
  if (!devices.empty() && std::atoi(devices.c_str()) > cores)
    return {Verdict::kNote,
            fmt::format("ANYCANN_DEVICES is {}, this process may use {} core{}", devices, cores,
                        cores == 1 ? "" : "s"),
            "devices will share cores and slow each other down: use fewer"};
  if (cores == 1)
    return {Verdict::kNote, "this process may use one core only (taskset, cgroup)",
            "allow two or more: clients submit from threads of their own"};
  if (const std::string omp = Variable("OMP_NUM_THREADS"); omp == "1")
    return {Verdict::kNote, "OMP_NUM_THREADS is 1: what the framework runs on its CPU device uses one core",
            "unset OMP_NUM_THREADS to compare fairly"};
  return {Verdict::kGood, fmt::format("{} cores", cores), ""};
}

Finding InstructionSet() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    if (line.find(" avx512f") != std::string::npos) return {Verdict::kGood, "AVX-512", ""};
    if (line.find(" avx2") != std::string::npos) return {Verdict::kGood, "AVX2", ""};
    if (line.find(" sse4_2") == std::string::npos)
      return {Verdict::kBad, "the processor lacks SSE4.2 (x86-64-v2)",
              "use a machine of 2009 or later; in a virtual machine, pass the host's processor through"};
    return {Verdict::kNote, "the processor (or virtual machine) has neither AVX2 nor AVX-512: slow",
            "in a virtual machine, pass the host's processor through (-cpu host)"};
  }
  return {Verdict::kNote, "/proc/cpuinfo can't be read", ""};
}

Finding Memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("MemAvailable", 0) != 0) continue;
    const double gib = std::atof(line.substr(line.find(':') + 1).c_str()) / (1 << 20);
    if (gib < 1)
      return {Verdict::kBad, fmt::format("{:.1f} GiB of memory is available", gib),
              "free some, or limit the devices with anycann run --memory 512M"};
    return {Verdict::kGood, fmt::format("{:.1f} GiB of memory is available", gib), ""};
  }
  return {Verdict::kNote, "/proc/meminfo can't be read", ""};
}

Finding Switches() {
  if (Variable("ASCEND_LAUNCH_BLOCKING") == "1")
    return {Verdict::kNote, "ASCEND_LAUNCH_BLOCKING is 1: every operation waits for the device",
            "unset it when you are done debugging"};
  if (Variable("ANYCANN_EMPTY_KERNELS") == "1")
    return {Verdict::kBad, "ANYCANN_EMPTY_KERNELS is 1: no kernel runs, results are garbage",
            "unset ANYCANN_EMPTY_KERNELS"};
  if (Variable("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0")
    return {Verdict::kNote, "TORCH_DEVICE_BACKEND_AUTOLOAD is 0: `import torch` does not load torch_npu",
            "import torch_npu in the program, or unset it"};
  return {Verdict::kGood, "no switch is set that slows clients down or breaks results", ""};
}

}  // namespace

int Doctor(const std::string& chosen) {
  const std::string python = chosen.empty() ? "python3" : chosen;
  const std::vector<Finding> findings = {Toolkit(),        Dependencies(), OtherToolkit(),      AscendHome(),
                                         Preload(),        Torch(python),  OnnxRuntime(python), Cores(),
                                         InstructionSet(), Memory(),       Switches()};
  const Colours& c = colours();
  int bad = 0;
  for (const Finding& f : findings) {
    const bool good = f.verdict == Verdict::kGood;
    bad += f.verdict == Verdict::kBad;
    fmt::print("{}{:<5}{} {}\n",
               good                         ? c.green
               : f.verdict == Verdict::kBad ? c.red
                                            : c.yellow,
               good                         ? "ok"
               : f.verdict == Verdict::kBad ? "BAD"
                                            : "note",
               c.reset, f.what);
    if (!good && !f.mend.empty()) fmt::print("      -> {}\n", f.mend);
  }
  fmt::print("{}\n",
             bad == 0 ? "Nothing is broken." : fmt::format("{} thing{} to mend.", bad, bad == 1 ? "" : "s"));
  return bad == 0 ? 0 : 1;
}

}  // namespace anycann::command
