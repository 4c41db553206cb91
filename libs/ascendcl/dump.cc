// Dump of operator data. Configurations are accepted; nothing is dumped.
#include <atomic>

#include "base/log.h"
#include "libs/ascendcl/door.h"

using namespace anycann;

namespace {

std::atomic<bool> initialised{false};

}  // namespace

aclError aclmdlInitDump() {
  if (initialised.exchange(true))
    return Answer(Status(kRepeatInitialize, "aclmdlInitDump: already initialised"));
  return 0;
}

aclError aclmdlSetDump(const char* dumpCfgPath) {
  ANYCANN_NOT_NULL(dumpCfgPath);
  if (!initialised) return Answer(Status(kUninitialized, "aclmdlSetDump: call aclmdlInitDump first"));
  Log(LogLevel::kWarning, "aclmdlSetDump: operator data isn't dumped ({})", dumpCfgPath);
  return 0;
}

aclError aclmdlFinalizeDump() {
  if (!initialised.exchange(false))
    return Answer(Status(kUninitialized, "aclmdlFinalizeDump: not initialised"));
  return 0;
}
