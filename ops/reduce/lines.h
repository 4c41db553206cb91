// The lines engine: runs a kernel on every line of its tensors along one dimension (softmax, scans, sorting).
//
// A kernel gets whole lines as contiguous memory in its compute types; the engine gathers, converts and
// scatters where tensors aren't so. A kernel that also gives `columns` gets many neighbouring lines at once
// when the dimension isn't the fastest in memory, as rows of a matrix, so that it works along the memory.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "base/tensor_view.h"

namespace anycann {

inline constexpr int kMaxLineInputs = 4;
inline constexpr int kMaxLineOutputs = 3;

struct LineKernel {
  int inputs = 1, outputs = 1;
  DType in_types[kMaxLineInputs];
  DType out_types[kMaxLineOutputs];
  // One line: in[k] and out[k] hold as many elements as operand k has along the dimension; n is that of
  // in[0]. An output may be the same memory as an input of its length and type.
  void (*line)(void* const* out, const void* const* in, int64_t n, void* scratch, const void* params);
  // `cols` lines: element i of line j is at [i * ld + j]. Optional; lines of all operands must then be
  // equally long or of length 1.
  void (*columns)(void* const* out, const int64_t* out_ld, const void* const* in, const int64_t* in_ld,
                  int64_t n, int64_t cols, void* scratch, const void* params) = nullptr;
  int64_t scratch_bytes = 0;         // for a call of `line`
  int64_t column_scratch_bytes = 0;  // for a column of a call of `columns`
  double cost = 1;                   // rough nanoseconds per 8 elements, to choose the parallel grain
};

inline constexpr int64_t kMaxColumns = 512;  // most lines of one call of `columns`

// All views have the same rank and, but for dimension `dim`, the same shape (inputs may have stride 0). A 0-d
// tensor is a line of one element. In parallel; results don't depend on the number of threads. Fails when
// memory is exhausted.
Status RunLines(const LineKernel& kernel, std::span<const TensorView> outputs,
                std::span<const TensorView> inputs, int dim, const void* params);

}  // namespace anycann
