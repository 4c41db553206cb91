// Resample: the separable interpolation of planes of [depth][height][width], forwards and (with transposed
// taps) backwards.
#pragma once

#include "base/tensor_view.h"
#include "ops/resample/taps.h"

namespace anycann {

// out[p][d][h][w] = sum of weights * in[p][.][.][.], dense, both of type float32 or float64. `taps`: depth,
// height, width.
void Resample(const void* in, int64_t planes, const Taps taps[3], void* out, DType type);

}  // namespace anycann
