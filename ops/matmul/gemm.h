// Gemm: out = alpha * (a @ b) + beta * addend, for every type, layout and batch. The one matrix product of
// the engine: the matmul operators, convolution's fallback, recurrent cells and attention all end here.
//
// Several implementations stand behind it and are tried in order (gemm.cc); each says why it refuses, and
// ANYCANN_VERBOSE=dispatch prints that. Results depend on the shape and on nothing else: never on the number
// of threads. float16 and bfloat16 accumulate in float32 and round once; integers wrap.
#pragma once

#include <cstdint>

#include "base/export.h"
#include "base/status.h"
#include "base/tensor_view.h"
#include "ops/handles.h"

namespace anycann {

// A matrix, or a batch of them. Strides in elements, any value, 0 included.
struct MatrixView {
  void* data = nullptr;
  DType dtype = DType::kUndefined;
  int64_t row = 0, column = 0;  // strides
  int64_t batch[kMaxRank] = {};

  char* bytes() const { return static_cast<char*>(data); }
  // Rows of neighbours, `row` elements apart (0: one row for all).
  template <class T>
  static MatrixView OfRows(const T* p, int64_t row) {
    MatrixView m;
    m.data = const_cast<T*>(p);
    m.dtype = kDTypeOf<T>;
    m.row = row;
    m.column = 1;
    return m;
  }
  MatrixView Transposed() const {
    MatrixView t = *this;
    t.row = column;
    t.column = row;
    return t;
  }
};

struct GemmArgs {
  int64_t m = 0, n = 0, k = 0;
  int batch_rank = 0;
  int64_t batch[kMaxRank] = {};
  MatrixView a;             // m x k
  MatrixView b;             // k x n
  MatrixView out;           // m x n; must not overlap a or b
  MatrixView addend;        // m x n, may be `out` itself; no data: none. A bias is an addend with stride 0
  ScalarValue alpha, beta;  // undefined type: 1. beta == 0: the addend is not read

  int64_t batches() const {
    int64_t items = 1;
    for (int i = 0; i < batch_rank; ++i) items *= batch[i];
    return items;
  }
};

// The types that Gemm multiplies; operands may differ from each other and from out.
bool GemmSupports(DType t);

// Computes now, on the calling thread's pool. Fails only when memory is exhausted.
ANYCANN_API Status Gemm(const GemmArgs& args);

// Matrices from the last two dimensions of tensors; the leading ones are broadcast to out's. `addend` may be
// nullptr and is broadcast over all dimensions. The shapes must have been checked.
ANYCANN_API GemmArgs MakeGemm(const TensorView& a, const TensorView& b, const TensorView& out,
                              const TensorView* addend);

}  // namespace anycann
