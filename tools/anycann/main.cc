// Command line of anycann; as npu-smi when called by that name.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <cstring>

#include "tools/anycann/command.h"

namespace anycann::command {

std::filesystem::path Root() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return self.parent_path().parent_path();
}

const Colours& colours() {
  static const Colours on = {"\033[1m", "\033[32m", "\033[33m", "\033[31m", "\033[0m"},
                       off = {"", "", "", "", ""};
  static const bool terminal = isatty(STDOUT_FILENO) && std::getenv("NO_COLOR") == nullptr;
  return terminal ? on : off;
}

namespace {

void AddRun(CLI::App& app, RunOptions& o) {
  CLI::App* run =
      app.add_subcommand("run", "Run a program on AnyCANN: sets everything that a client of CANN looks for");
  run->add_option("--devices", o.devices, "Number of devices; the machine's cores are split between them")
      ->check(CLI::Range(1, 64));
  run->add_option("--soc", o.soc,
                  "Chip that clients see, e.g. Ascend910B1 (the default), Ascend910B4, Ascend310P3");
  run->add_option("--memory", o.memory,
                  "Memory limit per device, e.g. 16G or 512M (default: a share of the machine's)");
  run->add_option("--trace", o.trace,
                  "Write a timeline of every operation to FILE (JSON for ui.perfetto.dev)")
      ->type_name("FILE");
  run->add_option("--isa", o.isa,
                  "Force an instruction set: v2 (SSE4), v3 (AVX2), v4 (AVX-512); default: the best there is")
      ->check(CLI::IsMember({"v2", "v3", "v4"}));
  run->add_option("--verbose", o.verbose,
                  "What to explain on stderr: dispatch (which kernel ran and why others were refused)")
      ->check(CLI::IsMember({"dispatch"}));
  run->add_flag("--fallbacks", o.fallbacks, "At the end, list what torch_npu silently ran on the CPU");
  run->add_flag("--empty-kernels", o.empty_kernels,
                "Run no kernel at all: measures the cost of dispatch; results are garbage");
  run->add_option("program", o.program, "The program and its arguments")->required();
  run->positionals_at_end();
  run->prefix_command();
  run->footer("Example: anycann run --devices 2 --trace timeline.json python train.py --epochs 3");
}

int Main(int argc, char** argv) {
  CLI::App app{"AnyCANN: CANN's programming interfaces on an ordinary CPU", "anycann"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "anycann " ANYCANN_VERSION);
  app.footer(
      "Documentation: README.md and docs/. Exit codes: 0 success, 1 something is wrong, 2 bad arguments,\n"
      "127 the program can't be started; `run` ends with the program's own code.");
  RunOptions run;
  AddRun(app, run);
  std::string python;
  CLI::App* doctor =
      app.add_subcommand("doctor", "Find the commonest broken set-ups and say how to mend each");
  doctor->add_option("--python", python,
                     "The Python interpreter of the client (default: python3 on the path)");
  CLI::App* smi = app.add_subcommand("smi", "The devices: chip, cores, memory, instruction set");
  OpsOptions ops;
  CLI::App* list = app.add_subcommand("ops", "The operators: which are implemented");
  list->add_option("filter", ops.filter, "Only names or families that hold this text (case does not matter)");
  list->add_option("--tier", ops.tier,
                   "Only this tier: T1 llama.cpp, T2 PyTorch, T3 language models, T4, T5 rare");
  list->add_flag("--implemented", ops.implemented, "Only implemented ones");
  list->add_flag("--missing", ops.missing, "Only missing ones");
  list->add_flag("--json", ops.json, "As JSON");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (doctor->parsed()) return Doctor(python);
  if (smi->parsed()) return Smi();
  if (list->parsed()) return Ops(ops);
  return Run(run);
}

}  // namespace
}  // namespace anycann::command

int main(int argc, char** argv) {
  const char* name = std::strrchr(argv[0], '/');
  name = name ? name + 1 : argv[0];
  if (std::strcmp(name, "npu-smi") == 0) return anycann::command::NpuSmi(argc, argv);
  return anycann::command::Main(argc, argv);
}
