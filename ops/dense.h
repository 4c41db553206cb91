// Operands as dense row-major memory, for engines whose inner loops need it: a contiguous tensor's own
// memory, or a copy made (and for outputs written back) around the loop. Also parameter vectors in the
// compute type.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "base/status.h"
#include "base/tensor_view.h"
#include "ops/convert.h"

namespace anycann {

// Memory of n elements, uninitialised; check ok().
template <class T>
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(int64_t n)
      : p_(static_cast<T*>(::operator new(sizeof(T) * (n > 0 ? n : 1), kAlign, std::nothrow))) {}
  bool ok() const { return p_ != nullptr; }
  T* get() const { return p_.get(); }
  T& operator[](int64_t i) const { return p_.get()[i]; }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kAlign); }
  };
  std::unique_ptr<T, Free> p_;
};

// The status of a kernel that could not get scratch memory.
inline Status ScratchFailed(const char* op) {
  return Error(kBadAlloc, "{}: out of memory for scratch space", op);
}

// An input as dense memory of its own type.
class DenseInput {
 public:
  explicit DenseInput(const TensorView& v) : view_(v) {
    if (v.contiguous()) return;
    copy_ = Scratch<char>(v.nbytes());
    view_ = TensorView::Contiguous(copy_.get(), v.dtype, v.dims, v.rank);
    if (copy_.ok()) CopyCast(view_, v);
  }
  bool ok() const { return view_.data != nullptr || view_.empty(); }
  const TensorView& view() const { return view_; }

 private:
  TensorView view_;
  Scratch<char> copy_;
};

// An output as dense memory of its own type; Finish() writes a copy back.
class DenseOutput {
 public:
  explicit DenseOutput(const TensorView& v) : target_(v), view_(v) {
    if (v.contiguous()) return;
    copy_ = Scratch<char>(v.nbytes());
    view_ = TensorView::Contiguous(copy_.get(), v.dtype, v.dims, v.rank);
  }
  bool ok() const { return view_.data != nullptr || view_.empty(); }
  const TensorView& view() const { return view_; }
  void Finish() const {
    if (copy_.ok()) CopyCast(target_, view_);
  }

 private:
  TensorView target_, view_;
  Scratch<char> copy_;
};

// Elements of dense memory as T: in place when the stored type is T, otherwise converted through the caller's
// buffer.
template <class T>
struct DenseReader {
  const char* data = nullptr;
  DType dtype = DType::kUndefined;
  int64_t size = 0;
  DenseReader() = default;
  explicit DenseReader(const TensorView& v) : data(v.bytes()), dtype(v.dtype), size(SizeOf(v.dtype)) {}

  bool direct() const { return dtype == kDTypeOf<T>; }
  const T* Read(int64_t i, int64_t n, T* buffer) const {
    if (direct()) return reinterpret_cast<const T*>(data) + i;
    Convert(buffer, kDTypeOf<T>, data + i * size, dtype, n);
    return buffer;
  }
};
template <class T>
struct DenseWriter {
  char* data = nullptr;
  DType dtype = DType::kUndefined;
  int64_t size = 0;
  DenseWriter() = default;
  explicit DenseWriter(const TensorView& v) : data(v.bytes()), dtype(v.dtype), size(SizeOf(v.dtype)) {}

  bool direct() const { return dtype == kDTypeOf<T>; }
  // Where to write elements [i, i + n), and after that, their conversion.
  T* Begin(int64_t i, T* buffer) const { return direct() ? reinterpret_cast<T*>(data) + i : buffer; }
  void End(int64_t i, int64_t n, const T* buffer) const {
    if (!direct()) Convert(data + i * size, dtype, buffer, kDTypeOf<T>, n);
  }
};

// A parameter tensor (gamma, mean, ...) as a dense vector of T.
template <class T>
class Values {
 public:
  Values() = default;
  explicit Values(const TensorView& v) : needed_(!v.empty()) {
    if (v.dtype == kDTypeOf<T> && v.contiguous()) {
      p_ = v.ptr<T>();
      return;
    }
    copy_ = Scratch<T>(v.numel());
    p_ = copy_.get();
    if (copy_.ok()) CopyCast(TensorView::Contiguous(copy_.get(), kDTypeOf<T>, v.dims, v.rank), v);
  }
  // Operand i of a run; no values for an absent one (i < 0).
  template <class Operands>
  Values(const Operands& run, int i) : Values(i < 0 ? Values() : Values(run[i])) {}
  bool ok() const { return !needed_ || p_ != nullptr; }
  const T* get() const { return p_; }  // nullptr when the parameter is absent
  T operator[](int64_t i) const { return p_[i]; }

 private:
  bool needed_ = false;
  const T* p_ = nullptr;
  Scratch<T> copy_;
};

// Writes the dense vector `values` to `out` (same number of elements), casting.
template <class T>
void StoreValues(const TensorView& out, const T* values) {
  CopyCast(out, TensorView::Contiguous(const_cast<T*>(values), kDTypeOf<T>, out.dims, out.rank));
}

}  // namespace anycann
