// The positions of a tensor's non-zero elements.
#pragma once

#include "base/tensor_view.h"
#include "ops/operand.h"

namespace anycann {

// Row-major linear positions of the elements of `v` that are not zero, ascending; `count` gets how many.
Buffer<int64_t> NonzeroPositions(const TensorView& v, int64_t* count);

}  // namespace anycann
