// Weights and matrices of quantised integers as operands: int8, int4 or eight int4 in an int32, in row-major
// order, transposed, or in FRACTAL_NZ. Kernels see int8.
#pragma once

#include "ops/call.h"
#include "ops/operand.h"

namespace anycann {

struct IntegerMatrix {
  TensorView view;     // of the numbers, at least two dimensions; data and strides are the stored ones
  TensorView stored;   // the client's view
  int64_t packed = 1;  // numbers in one element of `stored`
  bool four_bits = false;
  bool columns_first = false;  // neighbours in memory are rows of one column
  bool nz = false, nz_transposed = false;

  int64_t rows() const { return view.dims[view.rank - 2]; }
  int64_t columns() const { return view.dims[view.rank - 1]; }
};

// Reads what the client gave; `transpose`: the operator's own flag. The operand of the Plan goes to `arg`.
Status ReadIntegerMatrix(Call& call, const aclTensor* t, const char* name, bool transpose, IntegerMatrix* m,
                         Arg* arg);
// The same for a weight that may hold floats too; those stay as they are.
Status ReadWeight(Call& call, const aclTensor* t, const char* name, bool transpose, IntegerMatrix* m,
                  Arg* arg);

// The numbers, integers as int8, with dims of `view`, in the client's memory or in `memory`. Uses the calling
// thread's scratch for FRACTAL_NZ: use the numbers before the next weight is resolved.
Status ResolveWeight(const char* op, const IntegerMatrix& m, const TensorView& operand,
                     Buffer<int8_t>* memory, TensorView* numbers);

}  // namespace anycann
