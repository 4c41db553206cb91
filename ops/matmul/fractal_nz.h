// FRACTAL_NZ: a matrix [.., M, N] stored as [.., ceil(N / C0), ceil(M / 16), 16, C0], C0 = 32 bytes. Weights
// may come in it.
#pragma once

#include "ops/handles.h"

namespace anycann {

struct FractalNz {
  TensorView storage;       // the physical dimensions, contiguous
  bool transposed = false;  // the tensor is a transposed view of the stored matrix

  // True when `t` really lies in that order. A client that calls aclnnTransMatmulWeight labels the buffer NZ
  // but describes it with flat storage: that call leaves it in row-major order, and so does this.
  static bool Of(const aclTensor* t, FractalNz* nz) {
    constexpr int kFractalNz = 29;
    const TensorView& v = t->view;
    if (v.format != kFractalNz || v.rank < 2 || t->storage_rank < 4 || t->storage_rank > kMaxRank)
      return false;
    nz->storage = TensorView::Contiguous(t->base, v.dtype, t->storage_dims, t->storage_rank);
    nz->transposed = v.strides[v.rank - 1] != 1 && v.strides[v.rank - 2] == 1;
    return true;
  }

  // Whether the storage has room for every element of `v`, a view as Of saw it.
  bool Holds(const TensorView& v) const {
    const int r = storage.rank;
    if (r - 2 != v.rank) return false;
    for (int i = 0; i < v.rank - 2; ++i)
      if (storage.dims[i] < v.dims[i]) return false;
    const int64_t rows = v.dims[v.rank - (transposed ? 1 : 2)],
                  columns = v.dims[v.rank - (transposed ? 2 : 1)];
    return storage.dims[r - 4] * storage.dims[r - 1] >= columns &&
           storage.dims[r - 3] * storage.dims[r - 2] >= rows;
  }

  // The matrix that `v` (the tensor's view) names, copied in row-major order into scratch; no data: out of
  // memory.
  static TensorView Unpack(const TensorView& storage, const TensorView& v, bool transposed);
};

}  // namespace anycann
