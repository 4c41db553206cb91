// Correlation: the convolution engine. For every image, output channel and point of a grid,
//   out[n, m, g] = bias[m] + sum over channels c of m's group and taps t of filter[m, c, t] * in[n, c,
//   position(g, t)]
// where positions are affine in the point and the tap (image.h) and zero outside the image. Forward
// convolution is one correlation; the gradient to the input, and transposed convolution, are one per phase of
// the stride.
//
// It is a matrix product whose right operand, the columns of patches, exists only panel by panel.
#pragma once

#include "ops/conv/image.h"

namespace anycann {

// A filter [groups][out channels][in channels][taps], where it lies. Strides in elements.
struct Filter {
  const char* data = nullptr;
  DType dtype = DType::kUndefined;
  int64_t group = 0, row = 0, channel = 0;  // row: of out channels
  int64_t taps[kAxes] = {1, 1, 1}, tap[kAxes] = {0, 0, 0};

  // Whether (channel, tap) pairs follow each other.
  bool Flat(int64_t count) const {
    return channel == count && (taps[2] == 1 || tap[2] == 1) && (taps[1] == 1 || tap[1] == taps[2]) &&
           (taps[0] == 1 || tap[0] == taps[1] * taps[2]);
  }
  // Of the pair number u.
  int64_t Offset(int64_t u) const {
    int64_t offset = 0;
    for (int i = kAxes - 1; i >= 0; --i) {
      offset += u % taps[i] * tap[i];
      u /= taps[i];
    }
    return offset + u * channel;
  }
};

struct Correlation {
  Image in;
  Image out;  // size: the grid; may be strided
  AxisTaps axes[kAxes];
  AxisTaps cover[kAxes];  // what the padded input must hold: `axes`, or the union of several phases'
  int64_t groups = 1;
  Filter filter;
  const char* bias = nullptr;  // [out.channels] or none
  DType bias_type = DType::kUndefined;
  int64_t bias_stride = 1;

  int64_t taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }
  int64_t depth() const { return in.channels / groups * taps(); }
};

// Convolutions whose channels don't meet are computed directly (depthwise.h).
inline bool IsDepthwise(int64_t in_channels, int64_t out_channels, int64_t groups) {
  return in_channels == groups && out_channels <= 2 * groups;
}

// The type of the padded input for operands of these types.
DType CorrelationElement(DType in, DType filter, bool depthwise);

// Images [begin, end): `padded` holds them. In parallel; false when memory is exhausted.
bool Correlate(const Correlation& c, int64_t begin, int64_t end, const Padded& padded);

// One filter gradient: filter[m, c, t] = sum over images [begin, end) and grid points g of
//   grad[n, m, g] * in[n, c, position(g, t)]
// grad's grid must be contiguous (size of axes in row-major order, unit stride). Adds to `sums`, float or
// double by `element`, [grad.channels][in.channels / groups][taps].
struct FilterGradient {
  Image in, grad;
  AxisTaps axes[kAxes];
  int64_t groups = 1;
  DType element = DType::kFloat;  // of the padded input and of the sums
  void* sums = nullptr;

  int64_t taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }
};
bool AddFilterGradient(const FilterGradient& f, int64_t begin, int64_t end, const Padded& padded);

}  // namespace anycann
