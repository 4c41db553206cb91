// Convolution over one to three axes, forward and its three gradients, on tensors of any strides. Every
// function computes now, on the calling thread's pool, and fails only when memory is exhausted.
#pragma once

#include "base/status.h"
#include "ops/conv/image.h"

namespace anycann {

struct ConvAttributes {
  int axes = 2;
  int64_t stride[kAxes] = {1, 1, 1};  // of the last `axes` entries' axes; leading ones are neutral
  int64_t pad[kAxes] = {0, 0, 0};     // before the first position
  int64_t dilation[kAxes] = {1, 1, 1};
  int64_t groups = 1;
  bool transposed = false;
};

// in [n, ci, axes...], weight [co, ci / groups, kernel...], or [ci, co / groups, kernel...] when transposed,
// bias [co] or nullptr, out [n, co, axes...].
Status ConvForward(const ConvAttributes& a, const TensorView& in, const TensorView& weight,
                   const TensorView* bias, const TensorView& out);
Status ConvInputGradient(const ConvAttributes& a, const TensorView& grad, const TensorView& weight,
                         const TensorView& grad_in);
Status ConvWeightGradient(const ConvAttributes& a, const TensorView& grad, const TensorView& in,
                          const TensorView& grad_weight);
Status ConvBiasGradient(const TensorView& grad, int axes, const TensorView& grad_bias);

}  // namespace anycann
