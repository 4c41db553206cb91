// Scratch: working memory of kernels, kept by the thread from one kernel to the next.
//
// Fresh pages cost more than most kernels, so a thread keeps what it once used. A slot's block is valid until
// the same thread asks for the same slot again, or trims it; kernels that call each other use different
// slots.
#pragma once

#include <cstddef>

#include "base/export.h"

namespace anycann {

enum class ScratchSlot : int {
  kShared = 0,  // of the thread that starts a parallel loop, read by all of its bodies
  kShared2,     // the same, of an operator that calls an engine which uses kShared
  kImage,       // the same, of the convolutions: padded input, offsets, gradient, sums
  kTable,
  kGradient,
  kSums,
  kLeft,  // a body's own: packed operands and accumulators
  kRight,
  kAccumulator,
  kOuter,  // a body's own, of an operator that calls an engine which uses the three above
  kCount,
};

// At least `bytes` of 64-byte aligned memory of this thread, nullptr when memory is exhausted. Contents are
// undefined; with ANYCANN_POISON=1 in the environment they are NaN, so that a kernel that reads what it did
// not write shows in tests.
ANYCANN_API void* ThreadScratch(ScratchSlot slot, size_t bytes);

}  // namespace anycann
