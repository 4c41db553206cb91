// Along-dim: the engine of Gather and Scatter. An index tensor of the same rank as the tensor names, for each
// of its elements, the coordinate in dimension `dim`; the other coordinates are the element's own.
//
// Scatters are deterministic: elements with the same destination are combined in the order of their position
// along `dim`, whatever the number of threads.
#pragma once

#include "base/status.h"
#include "base/tensor_view.h"

namespace anycann {

enum class ScatterReduction { kSet, kAdd, kMultiply, kMaximum, kMinimum };

// out[i][j][k] = self[i][index[i][j][k]][k] for dim = 1. out has index's shape and self's type.
Status GatherAlong(const char* op, const TensorView& self, int dim, const TensorView& index,
                   const TensorView& out);

// target[i][index[i][j][k]][k] op= src[i][j][k]. src covers index's shape and has target's type, which for a
// reduction is a compute type. Strides of target are not negative.
Status ScatterAlong(const char* op, const TensorView& target, int dim, const TensorView& index,
                    const TensorView& src, ScatterReduction reduction);

}  // namespace anycann
