#include "base/level.h"

namespace anycann {

const char* EngineLevel() { return ANYCANN_LEVEL; }

}  // namespace anycann
