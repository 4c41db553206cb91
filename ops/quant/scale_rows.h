// Rows of floats times a scale for each column, as an output of integers or floats.
#pragma once

#include "ops/call.h"

namespace anycann {

// scale: [columns] of a floating type or of TransQuantParam.
Status CheckRowScale(Call& call, const aclTensor* scale, const char* name, int64_t columns);
// rows: y's elements in row-major order, before scaling.
Status ScaleRows(const char* op, const float* rows, const TensorView& scale, const TensorView& y);

}  // namespace anycann
