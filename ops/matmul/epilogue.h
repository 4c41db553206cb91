// The end of a product: out = alpha * accumulators + beta * addend, with the conversion to out's type and
// layout.
#pragma once

#include "ops/matmul/gemm.h"

namespace anycann {

// One item's epilogue. Accumulators are float, double, int32, int64 (which wrap), or complex.
struct Epilogue {
  char* out;
  const char* addend;  // nullptr: none
  DType out_type, addend_type, accumulator;
  int64_t out_row, out_column, addend_row, addend_column;
  ScalarValue alpha, beta;
  bool scaled;  // alpha isn't 1

  // Stores `rows` x `columns` accumulators (row stride `ld`, in elements of `accumulator`) at (row, column)
  // of out.
  void Store(const void* accumulators, int64_t ld, int64_t row, int64_t rows, int64_t column,
             int64_t columns) const;
};

// `out` and `addend`: one item's data of g.out and g.addend.
Epilogue MakeEpilogue(const GemmArgs& g, DType accumulator, char* out, const char* addend);

}  // namespace anycann
