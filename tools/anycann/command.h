// The anycann command: one function per subcommand, each returning the process's exit code.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace anycann::command {

struct RunOptions {
  int devices = 0;  // 0: leave as it is
  std::string soc, memory, trace, isa, verbose;
  bool fallbacks = false, empty_kernels = false;
  std::vector<std::string> program;
};

// Replaces this process by the program (or, with --fallbacks, waits for it). 127 when it can't be started.
int Run(const RunOptions& options);

// Looks for the commonest broken set-ups. 0: all is well; 1: something needs mending; the report says how.
int Doctor(const std::string& python);

int Smi();
// What npu-smi prints for `info`, in the layout that clients parse (llama.cpp's CMake reads line 7, field 3).
int NpuSmi(int argc, char** argv);

struct OpsOptions {
  std::string filter, tier;
  bool json = false, missing = false, implemented = false;
};
int Ops(const OpsOptions& options);

// The toolkit that this program belongs to: the folder above bin/.
std::filesystem::path Root();

// Terminal colours, empty strings when standard output is not a terminal or NO_COLOR is set.
struct Colours {
  const char *bold, *green, *yellow, *red, *reset;
};
const Colours& colours();

}  // namespace anycann::command
