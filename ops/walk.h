// Walk: steps row-major through a common shape and keeps the element offset of N tensors, without a division
// per step.
#pragma once

#include <cstdint>

#include "base/tensor_view.h"

namespace anycann {

template <int N>
struct Walk {
  static constexpr int kMaxDims = 2 * kMaxRank;
  int rank = 0;
  int64_t dims[kMaxDims];
  int64_t strides[N][kMaxDims];
  int64_t index[kMaxDims];
  int64_t offset[N];

  // Appends a dimension inside of those already there. Size 1 is dropped; a dimension that continues the
  // previous one in every tensor is merged with it.
  void Add(int64_t dim, const int64_t (&stride)[N]) {
    if (dim == 1) return;
    bool merge = rank > 0;
    for (int k = 0; merge && k < N; ++k) merge = strides[k][rank - 1] == stride[k] * dim;
    if (merge) {
      dims[rank - 1] *= dim;
    } else {
      dims[rank++] = dim;
    }
    for (int k = 0; k < N; ++k) strides[k][rank - 1] = stride[k];
  }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  void Seek(int64_t linear) {
    for (int k = 0; k < N; ++k) offset[k] = 0;
    for (int i = rank - 1; i >= 0; --i) {
      index[i] = linear % dims[i];
      linear /= dims[i];
      for (int k = 0; k < N; ++k) offset[k] += index[i] * strides[k][i];
    }
  }
  void Next() {
    for (int i = rank - 1; i >= 0; --i) {
      for (int k = 0; k < N; ++k) offset[k] += strides[k][i];
      if (++index[i] < dims[i]) return;
      index[i] = 0;
      for (int k = 0; k < N; ++k) offset[k] -= dims[i] * strides[k][i];
    }
  }
};

}  // namespace anycann
