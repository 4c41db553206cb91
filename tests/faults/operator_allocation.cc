// Makes every allocation of every operator fail in turn: phase one, phase two and the kernel, whichever
// thread it runs on. Arguments are those of the fuzzer's first cases that succeed. A call whose allocation
// failed either works all the same, with the right results, or answers a code that means "out of memory";
// afterwards the same call works, and nothing that the failed one took stays allocated or alive.
//
//   faults_operator_allocation [--op NAME] [--cases N] [--tries N] [--seed S]
//
// Each operator has a process of its own: a crash is one operator's. Each failing call has a thread of its
// own, because threads keep working memory from one kernel to the next, which then need not be allocated.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "ops/live.h"
#include "tests/faults/failing_memory.h"
#include "tests/faults/fuzz.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

namespace {

struct Options {
  const char* op = nullptr;
  uint64_t cases = 2, tries = 2000, seed = 1;
};

struct Case {
  const fuzz::Operator* op;
  uint64_t number, seed;
  fuzz::Repairs repairs;
  std::string expected;  // every tensor's bytes after the call
};

enum Exit { kGood, kWrong, kNoCase, kNoDevice };

// For the report of a crash or a hang.
char where[256] = "";
void OnSignal(int signal) {
  const char* text = signal == SIGALRM ? "no end after 60 s" : "crashed";
  if (write(1, where, std::strlen(where)) < 0 || write(1, text, std::strlen(text)) < 0 ||
      write(1, "\n", 1) < 0)
    _exit(kWrong);
  _exit(kWrong);
}

void Locate(const Case& c, const char* mode, long n) {
  std::snprintf(where, sizeof where, "%s case %llu, allocation %ld%s failed: ", c.op->name,
                static_cast<unsigned long long>(c.number), n, mode);
}

bool MeansOutOfMemory(int code) {
  return code == 200000 || code == 207001 || code == 561000 || code == 561101;
}

aclrtStream OpenDevice() {
  aclrtStream stream = nullptr;
  if (aclInit(nullptr) != 0 || aclrtSetDevice(0) != 0 || aclrtCreateStream(&stream) != 0) _exit(kNoDevice);
  return stream;
}

// Both phases and the wait; the first code that is not 0.
int Call(const fuzz::Operator& op, fuzz::Source* source, aclrtStream stream) {
  uint64_t size = 0;
  aclOpExecutor* executor = nullptr;
  int code = op.phase_one(*source, &size, &executor);
  if (code == 0) code = op.phase_two(nullptr, size, executor, stream);
  const int waited = aclrtSynchronizeStream(stream);
  return code != 0 ? code : waited;
}

// Arguments of which the call succeeds; false when this number has none.
bool Find(Case* c, aclrtStream stream, bool with_elements) {
  for (int attempt = 0; attempt < 40; ++attempt) {
    fuzz::Source source(c->seed, c->repairs, false);
    const int code = Call(*c->op, &source, stream);
    const char* message = aclGetRecentErrMsg();
    if (code == 0) {
      c->expected = source.Contents();
      return !with_elements || !source.empty();
    }
    if (message == nullptr || !c->repairs.Learn(message)) return false;
  }
  return false;
}

// The call with nothing in its way. False: it fails, or computes something else than before.
bool Works(const Case& c, aclrtStream stream) {
  fuzz::Source source(c.seed, c.repairs, false);
  const int code = Call(*c.op, &source, stream);
  if (code == 0 && source.Contents() == c.expected) return true;
  const char* message = aclGetRecentErrMsg();
  std::printf("%safterwards the same call %s %d %s\n", where,
              code == 0 ? "computes something else:" : "returns", code, message ? message : "");
  return false;
}

// The call with its n-th allocation failing. How many allocations it tried, -1 when it went wrong.
long Fail(const Case& c, long n, bool lasting, aclrtStream stream) {
  alarm(60);
  Locate(c, lasting ? " and all after it" : "", n);
  long tried = -1;
  std::thread([&] {
    if (aclrtSetDevice(0) != 0) return;
    fuzz::Source source(c.seed, c.repairs, false);
    fuzz::before_call = [&] { failing_memory::Arm(n, lasting); };
    const int code = Call(*c.op, &source, stream);
    const long seen = failing_memory::Disarm();
    fuzz::before_call = nullptr;
    if (code == 0 ? source.Contents() == c.expected : MeansOutOfMemory(code)) {
      tried = seen;
      return;
    }
    const char* message = aclGetRecentErrMsg();
    std::printf("%s%s %d %s\n", where, code == 0 ? "succeeded with wrong results" : "returned", code,
                message ? message : "");
  }).join();
  return tried;
}

struct Level {
  int64_t blocks = failing_memory::LiveBlocks(), objects = anycann::LiveObjects();
  bool above(const Level& o) const { return blocks > o.blocks || objects > o.objects; }
};

// What a round leaves behind is a leak when each repetition leaves more: caches fill up once.
bool Leaks(const Case& c, long n, bool lasting, aclrtStream stream) {
  Level before;
  for (int repetition = 0; repetition < 4; ++repetition) {
    if (Fail(c, n, lasting, stream) < 0 || !Works(c, stream)) return true;
    const Level now;
    if (!now.above(before)) return false;
    before = now;
  }
  std::printf("%sleaks (%lld blocks and %lld objects are alive)\n", where,
              static_cast<long long>(before.blocks), static_cast<long long>(before.objects));
  return true;
}

// Every allocation of the case in turn. False at the first that goes wrong.
bool FailAll(const Case& c, aclrtStream stream, long* failures) {
  for (const bool lasting : {false, true}) {
    for (long n = 0;; ++n) {
      const Level before;
      const long tried = Fail(c, n, lasting, stream);
      if (tried < 0 || !Works(c, stream)) return false;
      if (tried <= n) break;
      ++*failures;
      if (Level().above(before) && Leaks(c, n, lasting, stream)) return false;
    }
  }
  return true;
}

// The operator's first cases that succeed, those with elements before those without.
std::vector<Case> Cases(const fuzz::Operator& op, const Options& o, aclrtStream stream) {
  std::vector<Case> found;
  for (const bool with_elements : {true, false}) {
    for (uint64_t number = 0; number < o.tries && found.size() < o.cases; ++number) {
      alarm(60);
      Case c{&op, number, fuzz::SeedOf(op.name, o.seed, number), {}, {}};
      std::snprintf(where, sizeof where, "%s case %llu: ", op.name, static_cast<unsigned long long>(number));
      if (Find(&c, stream, with_elements)) found.push_back(std::move(c));
    }
    if (!found.empty()) break;
  }
  return found;
}

void CatchSignals() {
#if !defined(__SANITIZE_ADDRESS__)
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGILL}) signal(s, OnSignal);
#endif
  signal(SIGALRM, OnSignal);
}

// In a child: how it ended.
template <class F>
int InChild(const F& f) {
  std::fflush(stdout);  // or the child prints it again
  const pid_t pid = fork();
  if (pid == 0) {
    const int code = f();
    std::fflush(stdout);
    _exit(code);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int Rounds(const fuzz::Operator& op, const Options& o, int report) {
  CatchSignals();
  const aclrtStream stream = OpenDevice();
  const std::vector<Case> cases = Cases(op, o, stream);
  if (cases.empty()) return kNoCase;
  long failures = 0;
  for (const Case& c : cases) {
    Locate(c, "", -1);
    // The first repetition shows that the call always computes the same, and fills the caches.
    if (!Works(c, stream) || !FailAll(c, stream, &failures)) return kWrong;
  }
#if defined(__SANITIZE_ADDRESS__)
  if (__lsan_do_recoverable_leak_check() != 0) return kWrong;
#endif
  return write(report, &failures, sizeof failures) == sizeof failures ? kGood : kWrong;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--op" && *value != 0)
      o.op = value;
    else if (name == "--cases" && std::atoll(value) > 0)
      o.cases = std::strtoull(value, nullptr, 10);
    else if (name == "--tries" && std::atoll(value) > 0)
      o.tries = std::strtoull(value, nullptr, 10);
    else if (name == "--seed" && *value != 0)
      o.seed = std::strtoull(value, nullptr, 10);
    else
      return std::fprintf(
                 stderr,
                 "usage: faults_operator_allocation [--op NAME] [--cases N] [--tries N] [--seed S]\n"),
             2;
  }
  int fds[2];
  if (pipe(fds) != 0) return 1;
  int operators = 0, wrong = 0, without_case = 0;
  long failures = 0;
  for (const fuzz::Operator& op : fuzz::Operators()) {
    if (o.op != nullptr && std::strcmp(o.op, op.name) != 0) continue;
    ++operators;
    const int code = InChild([&] { return Rounds(op, o, fds[1]); });
    long some = 0;
    if (code == kGood && read(fds[0], &some, sizeof some) == sizeof some) {
      failures += some;
    } else if (code == kNoCase) {
      ++without_case;
      std::printf("%s: none of %llu random calls succeeds\n", op.name,
                  static_cast<unsigned long long>(o.tries));
    } else {
      ++wrong;
      std::printf("%s: ended with %d\n", op.name, code);
    }
  }
  std::printf("%d operators, %ld allocations made to fail, %d operators answered badly, %d without a case\n",
              operators, failures, wrong, without_case);
  return wrong == 0 && operators > without_case ? 0 : 1;
}
