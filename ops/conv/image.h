// Images: batches of channels over up to three axes, and the padded copies that the convolution engines read.
#pragma once

#include <cstdint>

#include "base/tensor_view.h"

namespace anycann {

inline constexpr int kAxes = 3;  // depth, height, width; fewer axes have leading ones of size 1

struct Image {
  char* data = nullptr;
  DType dtype = DType::kUndefined;
  int64_t batch = 1, channels = 1, size[kAxes] = {1, 1, 1};
  int64_t batch_stride = 0, channel_stride = 0, stride[kAxes] = {0, 0, 0};  // in elements

  // A tensor [batch, channels, axes...] of rank 3 to 5; without a batch dimension it counts as one image.
  static Image Of(const TensorView& v, int axes);
  int64_t pixels() const { return size[0] * size[1] * size[2]; }
};

// The positions along an axis that a grid point reads: point * step + base + tap * delta, for each of `taps`.
struct AxisTaps {
  int64_t points = 1;  // of the grid
  int64_t step = 1, taps = 1, base = 0, delta = 1;

  int64_t First() const { return base + (delta < 0 ? (taps - 1) * delta : 0); }
  int64_t Last() const { return (points - 1) * step + base + (delta > 0 ? (taps - 1) * delta : 0); }
};

// The input as the engines read it: every position that any tap of any grid point names exists (zero outside
// the image), and neighbouring grid points along the width are neighbours in memory. Either the tensor's own
// memory or a copy in scratch (slot kImage), in the engine's element type.
struct Padded {
  const char* data = nullptr;  // position (first[0], first[1], first[2]) of image 0, channel 0
  int64_t batch_stride = 0, channel_stride = 0,
          axis_stride[2] = {0, 0};  // of depth and height positions, in elements
  int64_t first[kAxes] = {0, 0, 0};
  int64_t width_step = 1,
          phase_stride = 0;  // width position first + i lies at i % step * phase_stride + i / step

  // Element offset of tap `t` of an axis relative to the grid point's own.
  int64_t TapOffset(int axis, const AxisTaps& a, int64_t t) const {
    const int64_t distance = a.base + t * a.delta - first[axis];
    if (axis < 2) return distance * axis_stride[axis];
    return distance % width_step * phase_stride + distance / width_step;
  }
};

// Bytes that the copy of one image of `in` needs, 0 when the tensor's own memory serves. `axes` must cover
// every tap of every pass that will read the result.
int64_t PaddedBytes(const Image& in, const AxisTaps (&axes)[kAxes], DType element);

// Makes `out` for images [begin, end) of `in`, in parallel. False when memory is exhausted.
bool Pad(const Image& in, int64_t begin, int64_t end, const AxisTaps (&axes)[kAxes], DType element,
         Padded* out);

}  // namespace anycann
