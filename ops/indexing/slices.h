// Slices: the engine of indexing. A tensor is seen as [outer][indexed][inner]; a table of offsets chooses
// positions in the indexed part, and the chosen slices lie densely as dense[outer][position][inner].
//
// Writes are deterministic: among positions with the same offset the last one wins, accumulation adds in the
// order of the positions, whatever the number of threads.
#pragma once

#include "base/tensor_view.h"
#include "ops/indexing/positions.h"
#include "ops/walk.h"

namespace anycann {

struct SliceSpace {
  Walk<1> outer, inner;  // offsets in the indexed tensor
  // Dimension `dim` indexed alone.
  static SliceSpace Along(const TensorView& v, int dim);
};

// dense = tensor[index], from the index tensors themselves; types are equal.
Status GatherIndexed(const char* op, const TensorView& tensor, const SliceSpace& space,
                     std::span<const IndexOperand> operands, bool wrap, void* dense);

// dense = tensor[positions]; types are equal.
void GatherSlices(const TensorView& tensor, const SliceSpace& space, const int64_t* positions, int64_t count,
                  void* dense);

// tensor[positions] = dense, or one element for all of them (`constant`). An offset of -1 is skipped.
void PutSlices(const TensorView& tensor, const SliceSpace& space, const int64_t* positions, int64_t count,
               const void* dense, bool constant);

// tensor[positions] += factor * dense. tensor's type is its own compute type, and that of `dense`, `alpha`
// and `scales`. `alpha`: one factor, or nullptr for 1; `scales`: one factor for each position, or nullptr.
void AccumulateSlices(const TensorView& tensor, const SliceSpace& space, const int64_t* positions,
                      int64_t count, const void* dense, bool constant, const void* alpha, const void* scales);

}  // namespace anycann
