// Geometry of pooling: planes of up to three dimensions, and the window of each output position.
#pragma once

#include <cstdint>

#include "ops/call.h"
#include "ops/dense.h"

namespace anycann {

// One dimension. Fixed windows: position o covers in-positions o * stride - pad + k * dilation, k in [0,
// kernel). Adaptive windows (kernel 0) cover [floor(o * in / out), ceil((o + 1) * in / out)).
struct PoolDim {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, pad = 0, dilation = 1;
};

// Depth, height, width; 2-D pooling has depth 1. `planes` is the product of the batch and channel dimensions.
struct PoolGeometry {
  int64_t planes = 1;
  PoolDim d[3];
  int64_t in_plane() const { return d[0].in * d[1].in * d[2].in; }
  int64_t out_plane() const { return d[0].out * d[1].out * d[2].out; }
  // The largest number if the kernel is larger than any memory.
  int64_t taps() const {
    int64_t area, volume;
    const bool over = __builtin_mul_overflow(d[0].kernel, d[1].kernel, &area) ||
                      __builtin_mul_overflow(area, d[2].kernel, &volume);
    return over ? INT64_MAX : volume;
  }
};

// What one output position covers of a dimension: `count` in-positions from `start` on, `dilation` apart;
// `first` is the number of the first one among the kernel's taps (others lie in the padding). `extent` counts
// padding too.
struct PoolWindow {
  int32_t start, count, first, extent;
};

// The windows of a dimension, one per output position. Check ok().
Scratch<PoolWindow> PoolWindows(const PoolDim& d);

// The attributes of a pooling operator over `dims` dimensions (2 or 3): arrays of one value or one per
// dimension; stride absent or empty: the kernel; dilation absent: 1.
struct PoolAttributes {
  const aclIntArray *kernel = nullptr, *stride = nullptr, *padding = nullptr, *dilation = nullptr;
  bool ceil_mode = false;
};

// Checks input ([N,]C,D,H,W or [N,]C,H,W), attributes and the output's shape, and fills `g`.
Status FixedGeometry(Call& call, int dims, const PoolAttributes& a, const aclTensor* in, const char* in_name,
                     const aclTensor* out, const char* out_name, PoolGeometry* g);
// The same for adaptive pooling: the output's shape decides. `size` may be nullptr.
Status AdaptiveGeometry(Call& call, int dims, const aclIntArray* size, const aclTensor* in,
                        const char* in_name, const aclTensor* out, const char* out_name, PoolGeometry* g);

// Planes that are worth waking a thread for.
int64_t PlaneGrain(const PoolGeometry& g);

}  // namespace anycann
