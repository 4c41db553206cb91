// Which build of the engine this is.
#pragma once

#include "base/export.h"

namespace anycann {

// The x86-64 level that the loaded engine was compiled for: "v2", "v3", "v4" or "native". The loader chose
// it.
ANYCANN_API const char* EngineLevel();

}  // namespace anycann
