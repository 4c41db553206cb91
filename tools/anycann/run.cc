// anycann run: the environment of a client, then the client itself.
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <regex>

#include "tools/anycann/command.h"

namespace anycann::command {
namespace {

void Prepend(const char* variable, const std::string& value) {
  const char* old = std::getenv(variable);
  setenv(variable, old && *old ? (value + ":" + old).c_str() : value.c_str(), 1);
}

// Everything that a client probes (docs/architecture.md), so that no set_env.sh is needed.
void SetEnvironment(const RunOptions& o) {
  const std::filesystem::path root = Root();
  Prepend("LD_LIBRARY_PATH", (root / "lib64").string());
  // A level's own folder before lib64 forces that level: the loader would otherwise take the best of
  // glibc-hwcaps.
  if (!o.isa.empty()) Prepend("LD_LIBRARY_PATH", (root / "lib64/levels" / o.isa).string());
  Prepend("PATH", (root / "bin").string());
  for (const char* variable :
       {"ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_AICPU_PATH", "CANN_INSTALL_DIR"})
    setenv(variable, root.c_str(), 1);
  setenv("ASCEND_OPP_PATH", (root / "opp").c_str(), 1);
  if (o.devices > 0) setenv("ANYCANN_DEVICES", std::to_string(o.devices).c_str(), 1);
  if (!o.soc.empty()) setenv("ANYCANN_SOC", o.soc.c_str(), 1);
  if (!o.memory.empty()) setenv("ANYCANN_MEMORY", o.memory.c_str(), 1);
  if (!o.trace.empty()) setenv("ANYCANN_TRACE", std::filesystem::absolute(o.trace).c_str(), 1);
  if (!o.verbose.empty()) setenv("ANYCANN_VERBOSE", o.verbose.c_str(), 1);
  if (o.empty_kernels) setenv("ANYCANN_EMPTY_KERNELS", "1", 1);
}

int Execute(const RunOptions& o) {
  std::vector<char*> argv;
  for (const std::string& s : o.program) argv.push_back(const_cast<char*>(s.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  fmt::print(stderr, "anycann run: can't start {}: {}\n", o.program[0], std::strerror(errno));
  return 127;
}

// Passes standard error through and counts torch_npu's warnings about operators that it ran on the CPU.
std::map<std::string, int> Watch(int fd) {
  static const std::regex pattern("operator '([^']+)' is not currently supported on the NPU backend");
  std::map<std::string, int> found;
  std::string line;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) != 0;) {
    if (n < 0) {
      if (errno == EINTR) continue;
      break;
    }
    for (ssize_t done = 0; done < n;) {
      const ssize_t m = write(STDERR_FILENO, buffer + done, static_cast<size_t>(n - done));
      if (m <= 0) break;
      done += m;
    }
    for (ssize_t i = 0; i < n; ++i) {
      if (buffer[i] != '\n') {
        line += buffer[i];
        continue;
      }
      if (std::smatch match; std::regex_search(line, match, pattern)) ++found[match[1]];
      line.clear();
    }
  }
  return found;
}

int RunAndListFallbacks(const RunOptions& o) {
  int fds[2];
  if (pipe(fds) != 0) {
    fmt::print(stderr, "anycann run: pipe: {}\n", std::strerror(errno));
    return 1;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(fds[1], STDERR_FILENO);
    close(fds[0]);
    close(fds[1]);
    _exit(Execute(o));
  }
  close(fds[1]);
  signal(SIGINT, SIG_IGN);  // the child gets the terminal's; the list is still printed
  const std::map<std::string, int> found = Watch(fds[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (found.empty()) {
    fmt::print(stderr, "anycann: torch_npu ran nothing on the CPU\n");
  } else {
    fmt::print(stderr, "anycann: torch_npu ran {} operator{} on the CPU (it warns once for each):\n",
               found.size(), found.size() == 1 ? "" : "s");
    for (const auto& [name, count] : found) fmt::print(stderr, "  {}\n", name);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

int Run(const RunOptions& o) {
  SetEnvironment(o);
  return o.fallbacks ? RunAndListFallbacks(o) : Execute(o);
}

}  // namespace anycann::command
