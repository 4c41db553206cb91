// Calls every operator with random arguments: types, ranks, shapes, strides, attributes, null, freed, foreign
// and shared handles. Phase one must answer with a documented code, and with a sentence when it refuses; what
// it accepts is run. Meant for the sanitizer build, where every tensor's memory ends exactly where its last
// element does.
//
//   fuzz [--cases N] [--seconds S] [--seed N] [--op NAME] [--case K]
//
// A case is reproduced by the operator's name, the seed and its number: fuzz --op aclnnAdd --seed 1 --case
// 123.
#include "tests/faults/fuzz.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

struct Options {
  uint64_t cases = 0, seed = 1, only_case = 0;
  double seconds = 0;
  const char* op = nullptr;
  bool one_case = false;
};

// What runs now, for the report of a crash or a hang. One thread calls.
const char* volatile current_op = "";
volatile uint64_t current_case = 0;
uint64_t current_seed = 1;

void ReportDeath() {
  char text[256];
  const int n = std::snprintf(
      text, sizeof text, "fuzz: it happened in: fuzz --op %s --seed %llu --case %llu\n", current_op,
      static_cast<unsigned long long>(current_seed), static_cast<unsigned long long>(current_case));
  if (n > 0 && write(2, text, static_cast<size_t>(n)) < 0) _exit(1);
}
void OnSignal(int signal) {
  ReportDeath();
  if (signal == SIGALRM && write(2, "fuzz: no end after 60 s\n", 24) < 0) _exit(1);
  _exit(1);
}

bool Documented(int code) {
  return code == 0 || code == 161001 || code == 161002 || code == 361001 ||
         (code >= 561000 && code <= 561119) || code == 200000 || code == 207001;
}

struct Counts {
  uint64_t cases = 0, accepted = 0, failed = 0;
};

// Phase two of an accepted call, and the wait for it.
template <class Wrong>
bool RunAccepted(const fuzz::Operator& op, uint64_t size, aclOpExecutor* executor, bool describe,
                 aclrtStream stream, Counts* counts, const Wrong& wrong) {
  ++counts->accepted;
  const int second = op.phase_two(nullptr, size, executor, stream);
  if (second != 0) {
    const char* message = aclGetRecentErrMsg();
    if (describe) std::printf("phase two: %d %s\n", second, message ? message : "");
    if (!Documented(second)) return wrong("phase two", second, message ? message : "");
    return true;
  }
  const int waited = aclrtSynchronizeStream(stream);
  if (waited != 0) {
    const char* message = aclGetRecentErrMsg();
    if (describe) std::printf("synchronise: %d %s\n", waited, message ? message : "");
    if (message == nullptr || std::strstr(message, op.name) == nullptr)
      return wrong("synchronise", waited, message == nullptr ? "no sentence" : message);
  } else if (describe) {
    std::printf("ran\n");
  }
  return true;
}

// One case; false when it went wrong.
bool Run(const fuzz::Operator& op, uint64_t seed, uint64_t number, bool describe, aclrtStream stream,
         Counts* counts) {
  current_op = op.name;
  current_case = number;
  ++counts->cases;
  const auto wrong = [&](const char* phase, int code, const char* why) {
    std::printf("%s: %s returned %d: %s\n  again: fuzz --op %s --seed %llu --case %llu\n", op.name, phase,
                code, why, op.name, static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(number));
    ++counts->failed;
    return false;
  };
  // Refused for a shape or a type: the same arguments again with what the sentence asks for.
  fuzz::Repairs repairs;
  for (int attempt = 0;; ++attempt) {
    fuzz::Source source(fuzz::SeedOf(op.name, seed, number), repairs, describe);
    uint64_t size = 0;
    aclOpExecutor* executor = nullptr;
    const int code = op.phase_one(source, &size, &executor);
    if (code == 0) return RunAccepted(op, size, executor, describe, stream, counts, wrong);
    const char* message = aclGetRecentErrMsg();
    if (describe) std::printf("phase one: %d %s\n", code, message ? message : "");
    if (!Documented(code)) return wrong("phase one", code, "not a documented code");
    if (message == nullptr || std::strstr(message, op.name) == nullptr)
      return wrong("phase one", code, message == nullptr ? "no sentence" : message);
    if (attempt == (describe ? 40 : 6) || !repairs.Learn(message)) return true;
  }
}

bool Parse(int argc, char** argv, Options* o) {
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 >= argc) return false;
    const char* value = argv[i + 1];
    if (name == "--cases")
      o->cases = std::strtoull(value, nullptr, 10);
    else if (name == "--seconds")
      o->seconds = std::atof(value);
    else if (name == "--seed")
      o->seed = std::strtoull(value, nullptr, 10);
    else if (name == "--op")
      o->op = value;
    else if (name == "--case")
      o->only_case = std::strtoull(value, nullptr, 10), o->one_case = true;
    else
      return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  if (!Parse(argc, argv, &o)) {
    std::fprintf(stderr, "usage: fuzz [--cases N] [--seconds S] [--seed N] [--op NAME] [--case K]\n");
    return 2;
  }
  if (o.cases == 0 && o.seconds == 0 && !o.one_case) o.cases = 100000;
  current_seed = o.seed;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a crash loses nothing
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_set_death_callback(ReportDeath);
#else
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGILL}) signal(s, OnSignal);
#endif
  signal(SIGALRM, OnSignal);
  aclrtStream stream = nullptr;
  if (aclInit(nullptr) != 0 || aclrtSetDevice(0) != 0 || aclrtCreateStream(&stream) != 0) {
    std::fprintf(stderr, "fuzz: no device: %s\n", aclGetRecentErrMsg());
    return 1;
  }
  std::vector<fuzz::Operator> operators;
  for (const fuzz::Operator& op : fuzz::Operators())
    if (o.op == nullptr || std::strcmp(o.op, op.name) == 0) operators.push_back(op);
  if (operators.empty()) {
    std::fprintf(stderr, "fuzz: there is no operator %s\n", o.op);
    return 2;
  }
  Counts counts;
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  auto told = start;
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  if (o.one_case) Run(operators[0], o.seed, o.only_case, true, stream, &counts);
  // Rounds over all operators: each gets its share whenever the time is up.
  constexpr uint64_t kRound = 100;
  for (uint64_t first = 0; !o.one_case && counts.failed < 50; first += kRound) {
    if ((o.cases > 0 && counts.cases >= o.cases) || (o.seconds > 0 && elapsed() >= o.seconds)) break;
    for (const fuzz::Operator& op : operators) {
      alarm(60);
      for (uint64_t k = 0; k < kRound; ++k) Run(op, o.seed, first + k, false, stream, &counts);
    }
    if (isatty(1) && Clock::now() - told > std::chrono::seconds(2)) {
      told = Clock::now();
      std::printf("\r%llu cases, %llu accepted, %.0f s ", static_cast<unsigned long long>(counts.cases),
                  static_cast<unsigned long long>(counts.accepted), elapsed());
      std::fflush(stdout);
    }
  }
  alarm(0);
  std::printf("fuzz: %zu operators, %llu cases, %llu accepted and run, %llu wrong, %.0f s, seed %llu\n",
              operators.size(), static_cast<unsigned long long>(counts.cases),
              static_cast<unsigned long long>(counts.accepted),
              static_cast<unsigned long long>(counts.failed), elapsed(),
              static_cast<unsigned long long>(o.seed));
  aclrtDestroyStream(stream);
  aclrtResetDevice(0);
  aclFinalize();
  return counts.failed == 0 ? 0 : 1;
}
