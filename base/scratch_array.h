// ScratchArray: memory that a kernel needs while it runs, aligned to cache lines; false when there is none
// left.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>

namespace anycann {

template <class T>
class ScratchArray {
 public:
  explicit ScratchArray(int64_t n) {
    int64_t bytes;
    if (n < 0 || __builtin_mul_overflow(n, static_cast<int64_t>(sizeof(T)), &bytes) ||
        bytes > std::numeric_limits<int64_t>::max() - 64)
      return;
    p_ = static_cast<T*>(
        std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64 + (bytes == 0) * 64)));
  }
  ScratchArray(const ScratchArray&) = delete;
  ~ScratchArray() { std::free(p_); }

  explicit operator bool() const { return p_ != nullptr; }
  T* get() const { return p_; }
  T& operator[](int64_t i) const { return p_[i]; }

 private:
  T* p_ = nullptr;
};

}  // namespace anycann
