// TensorView: address, shape, strides and type of a tensor, by value. Owns nothing.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/dtype.h"

namespace anycann {

inline constexpr int kMaxRank = 8;  // ACLNN_MAX_SHAPE_RANK

struct TensorView {
  void* data = nullptr;  // address of element [0, ..., 0]: a tensor's offset is already added
  DType dtype = DType::kUndefined;
  int32_t rank = 0;
  int32_t format = 2;         // aclFormat value; 2 is ND
  int64_t dims[kMaxRank];     // only [0, rank) is meaningful, as in strides
  int64_t strides[kMaxRank];  // in elements, may be 0 or negative

  // A contiguous view over `data`.
  static TensorView Contiguous(void* data, DType dtype, const int64_t* dims, int rank) {
    TensorView v;
    v.data = data;
    v.dtype = dtype;
    v.rank = rank;
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; --i) {
      v.dims[i] = dims[i];
      v.strides[i] = stride;
      stride *= dims[i];
    }
    return v;
  }
  static TensorView Contiguous(void* data, DType dtype, std::initializer_list<int64_t> dims) {
    return Contiguous(data, dtype, dims.begin(), static_cast<int>(dims.size()));
  }

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  int64_t nbytes() const { return numel() * SizeOf(dtype); }
  bool empty() const { return numel() == 0; }

  // True when the elements lie in row-major order without gaps (dimensions of size 1 don't matter).
  bool contiguous() const {
    int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (dims[i] == 0) return true;
      if (dims[i] != 1) {
        if (strides[i] != expected) return false;
        expected *= dims[i];
      }
    }
    return true;
  }

  template <class T>
  T* ptr() const {
    return static_cast<T*>(data);
  }
  char* bytes() const { return static_cast<char*>(data); }

  bool SameShape(const TensorView& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dims[i] != o.dims[i]) return false;
    return true;
  }

  // The view with dimension `d` fixed at `index` (removed).
  TensorView Select(int d, int64_t index) const {
    TensorView v = *this;
    v.data = bytes() + index * strides[d] * SizeOf(dtype);
    for (int i = d; i + 1 < rank; ++i) {
      v.dims[i] = dims[i + 1];
      v.strides[i] = strides[i + 1];
    }
    v.rank = rank - 1;
    return v;
  }
  // The view of [start, start + length) of dimension `d`.
  TensorView Narrow(int d, int64_t start, int64_t length) const {
    TensorView v = *this;
    v.data = bytes() + start * strides[d] * SizeOf(dtype);
    v.dims[d] = length;
    return v;
  }
  TensorView Transpose(int a, int b) const {
    TensorView v = *this;
    v.dims[a] = dims[b];
    v.dims[b] = dims[a];
    v.strides[a] = strides[b];
    v.strides[b] = strides[a];
    return v;
  }
  // A view with a dimension of size 1 inserted before `d`.
  TensorView Unsqueeze(int d) const {
    TensorView v = *this;
    for (int i = rank; i > d; --i) {
      v.dims[i] = dims[i - 1];
      v.strides[i] = strides[i - 1];
    }
    v.dims[d] = 1;
    v.strides[d] = 0;
    v.rank = rank + 1;
    return v;
  }
};

// "[2,3]"
inline std::string ShapeString(const int64_t* dims, int rank) {
  std::string s = "[";
  for (int i = 0; i < rank; ++i) s += (i ? "," : "") + std::to_string(dims[i]);
  return s + "]";
}
inline std::string ShapeString(const TensorView& v) { return ShapeString(v.dims, v.rank); }

// Expands `v` to `dims` (numpy broadcasting). False when it can't be expanded.
inline bool BroadcastTo(const TensorView& v, const int64_t* dims, int rank, TensorView* out) {
  if (v.rank > rank) return false;
  *out = v;
  out->rank = rank;
  for (int i = rank - 1; i >= 0; --i) {
    const int j = i - (rank - v.rank);
    out->dims[i] = dims[i];
    if (j < 0) {
      out->strides[i] = 0;
    } else if (v.dims[j] == dims[i]) {
      out->strides[i] = v.strides[j];
    } else if (v.dims[j] == 1) {
      out->strides[i] = 0;
    } else {
      return false;
    }
  }
  return true;
}

// The numpy broadcast of two shapes into dims/rank (in: the first shape). False when they don't match.
inline bool BroadcastShapes(int64_t* dims, int* rank, const int64_t* other, int other_rank) {
  const int r = *rank > other_rank ? *rank : other_rank;
  int64_t result[kMaxRank];
  for (int i = 0; i < r; ++i) {
    const int a = i - (r - *rank), b = i - (r - other_rank);
    const int64_t x = a < 0 ? 1 : dims[a], y = b < 0 ? 1 : other[b];
    if (x != y && x != 1 && y != 1) return false;
    result[i] = x == 1 ? y : x;
  }
  for (int i = 0; i < r; ++i) dims[i] = result[i];
  *rank = r;
  return true;
}

}  // namespace anycann
