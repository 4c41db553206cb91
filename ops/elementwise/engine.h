// The elementwise engine: runs a contiguous inner loop over tensors of any strides, types and broadcasting.
//
// An operator gives a loop over contiguous elements of its compute types. The engine cuts the output into
// blocks that fit the first-level cache and, per operand, either passes the tensor's own memory (contiguous,
// type equal) or a buffer into which it gathered and converted. So one loop per compute type serves every
// storage type and layout, and float16/bfloat16 are computed in float32 and rounded once.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "base/tensor_view.h"

namespace anycann {

inline constexpr int kMaxElementwiseInputs = 8;
inline constexpr int kMaxElementwiseOutputs = 4;

// out[k][i] = f(in[0][i], in[1][i], ...; params) for i in [0, n), contiguous. An output may be the same
// memory as an input (in place, same index); loops must read before they write each index.
using InnerLoop = void (*)(void* const* out, const void* const* in, int64_t n, const void* params);

struct ElementwiseKernel {
  InnerLoop loop = nullptr;
  int inputs = 0, outputs = 1;
  DType in_types[kMaxElementwiseInputs];    // what the loop reads; tensors of other types are converted
  DType out_types[kMaxElementwiseOutputs];  // what the loop writes
  double cost = 1;                          // rough nanoseconds per 8 elements, to choose the parallel grain
};

// All views must have the shape of outputs[0] (use BroadcastTo for inputs). An output may overlap an input
// only when both are the same view. In parallel; results don't depend on the number of threads.
void RunElementwise(const ElementwiseKernel& kernel, std::span<const TensorView> outputs,
                    std::span<const TensorView> inputs, const void* params);
inline void RunElementwise(const ElementwiseKernel& kernel, std::initializer_list<TensorView> outputs,
                           std::initializer_list<TensorView> inputs, const void* params) {
  RunElementwise(kernel, std::span<const TensorView>(outputs.begin(), outputs.size()),
                 std::span<const TensorView>(inputs.begin(), inputs.size()), params);
}

// The elements [begin, end) of the same, in the calling thread: for loops that are parallel over several
// tensors.
void RunElementwiseRange(const ElementwiseKernel& kernel, std::span<const TensorView> outputs,
                         std::span<const TensorView> inputs, const void* params, int64_t begin, int64_t end);

// How many elements make a piece of work that pays for waking another thread, about 20 us.
int64_t ParallelGrain(const ElementwiseKernel& kernel);

}  // namespace anycann
