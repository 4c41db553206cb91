// Loss scaling: gradients divided by the factor by which the loss was multiplied.
#pragma once

#include "ops/call.h"

namespace anycann {

// Divides the `count` gradients from operand `first` on by `scale`, in place.
void UnscaleGradients(const Run& t, int first, int count, double scale);

}  // namespace anycann
