// What the machine can do at most, measured in about a tenth of a second.
#pragma once

#include "base/export.h"

namespace anycann {

struct MachineLimits {
  double flops = 0;  // multiply-adds in float32 count as two, per second and core
  double bytes = 0;  // read and written by a copy larger than the caches, per second on `cores` cores
};

ANYCANN_API MachineLimits MeasureMachine(int cores);

}  // namespace anycann
