// Operand: a tensor as memory of a wanted type and layout, for engines that need it so. Dense is contiguous:
// the tensor's own memory when it is that already, otherwise a temporary, filled and written back as its use
// asks. Throws std::bad_alloc, which the runtime turns into the documented error.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "base/tensor_view.h"
#include "ops/convert.h"

namespace anycann {

struct FreeMemory {
  void operator()(void* p) const { std::free(p); }
};
// Uninitialised memory for n elements of T, aligned to a cache line.
template <class T>
using Buffer = std::unique_ptr<T[], FreeMemory>;
template <class T>
Buffer<T> NewBuffer(int64_t n) {
  int64_t bytes;
  if (n < 0 || __builtin_mul_overflow(n, static_cast<int64_t>(sizeof(T)), &bytes) || bytes > INT64_MAX - 128)
    throw std::bad_alloc();
  void* p = std::aligned_alloc(64, static_cast<size_t>((bytes + 64) / 64 * 64));
  if (p == nullptr) throw std::bad_alloc();
  return Buffer<T>(static_cast<T*>(p));
}

class Dense {
 public:
  enum Use { kRead, kWrite, kUpdate };
  Dense(const TensorView& v, DType type, Use use) : original_(v), view_(v) {
    if (v.contiguous() && v.dtype == type) return;
    view_ = TensorView::Contiguous(nullptr, type, v.dims, v.rank);
    memory_ = NewBuffer<char>(view_.nbytes());
    view_.data = memory_.get();
    if (use != kWrite) CopyCast(view_, original_);
  }
  Dense(const TensorView& v, Use use) : Dense(v, v.dtype, use) {}

  const TensorView& view() const { return view_; }
  template <class T>
  T* ptr() const {
    return view_.ptr<T>();
  }
  // Writes a temporary back; to be called once the result is complete.
  void Commit() {
    if (memory_ != nullptr) CopyCast(original_, view_);
  }

 private:
  TensorView original_, view_;
  Buffer<char> memory_;
};

// A tensor of a wanted type for engines that take any strides but negative ones: a temporary only where
// needed.
class Strided {
 public:
  Strided(const TensorView& v, DType type, Dense::Use use) : original_(v), view_(v) {
    bool usable = v.dtype == type;
    for (int i = 0; i < v.rank; ++i) usable &= v.strides[i] >= 0;
    if (usable) return;
    view_ = TensorView::Contiguous(nullptr, type, v.dims, v.rank);
    memory_ = NewBuffer<char>(view_.nbytes());
    view_.data = memory_.get();
    if (use != Dense::kWrite) CopyCast(view_, original_);
  }
  const TensorView& view() const { return view_; }
  void Commit() {
    if (memory_ != nullptr) CopyCast(original_, view_);
  }

 private:
  TensorView original_, view_;
  Buffer<char> memory_;
};

// Copies src to dst unless they are the same view already.
inline void CopyUnlessSame(const TensorView& dst, const TensorView& src) {
  bool same = dst.data == src.data && dst.dtype == src.dtype && dst.SameShape(src);
  for (int i = 0; same && i < dst.rank; ++i) same = dst.dims[i] == 1 || dst.strides[i] == src.strides[i];
  if (!same) CopyCast(dst, src);
}

}  // namespace anycann
