#include "ops/matmul/epilogue.h"

#include <algorithm>

#include "ops/convert.h"

namespace anycann {
namespace {

constexpr int64_t kPiece = 512;  // columns at a time: buffers of a few KiB on the stack

template <class T>
void ScaleAndAdd(T* acc, const T* addend, int64_t n, T alpha, T beta) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) acc[i] = alpha * acc[i] + beta * addend[i];
}
template <class T>
void ScaleOnly(T* acc, int64_t n, T alpha) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) acc[i] = alpha * acc[i];
}

bool IsOne(const ScalarValue& s) {
  return s.dtype == DType::kUndefined || (IsComplex(s.dtype) ? s.ToComplex() == 1.0 : s.ToDouble() == 1.0);
}

template <class T>
T ScalarOr1(const ScalarValue& s) {
  if (s.dtype == DType::kUndefined) return T(1);
  if constexpr (std::is_unsigned_v<T>)
    return static_cast<T>(s.ToInt64());
  else
    return s.To<T>();
}

template <class T>
void StoreTyped(const Epilogue& e, const T* acc, int64_t ld, int64_t row, int64_t rows, int64_t column,
                int64_t columns) {
  const T alpha = ScalarOr1<T>(e.alpha), beta = ScalarOr1<T>(e.beta);
  const int64_t out_size = SizeOf(e.out_type), addend_size = SizeOf(e.addend_type);
  alignas(64) T value[kPiece];
  alignas(64) T addend[kPiece];
  alignas(64) char packed[kPiece * sizeof(T)];
  // A narrow out is stored down its columns when those are the contiguous direction.
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += kPiece) {
      const int64_t n = std::min(kPiece, columns - j);
      const T* from = acc + i * ld + j;
      if (e.addend != nullptr) {
        const char* p = e.addend + ((row + i) * e.addend_row + (column + j) * e.addend_column) * addend_size;
        if (e.addend_column == 1) {
          Convert(addend, e.accumulator, p, e.addend_type, n);
        } else if (e.addend_column == 0) {
          Convert(addend, e.accumulator, p, e.addend_type, 1);
          std::fill_n(addend + 1, n - 1, addend[0]);
        } else {
          PackStrided(packed, p, e.addend_column, n, addend_size);
          Convert(addend, e.accumulator, packed, e.addend_type, n);
        }
        std::copy_n(from, n, value);
        ScaleAndAdd(value, addend, n, alpha, beta);
        from = value;
      } else if (e.scaled) {
        std::copy_n(from, n, value);
        ScaleOnly(value, n, alpha);
        from = value;
      }
      char* to = e.out + ((row + i) * e.out_row + (column + j) * e.out_column) * out_size;
      if (e.out_column == 1) {
        Convert(to, e.out_type, from, e.accumulator, n);
      } else {
        Convert(packed, e.out_type, from, e.accumulator, n);
        UnpackStrided(to, e.out_column, packed, n, out_size);
      }
    }
  }
}

}  // namespace

void Epilogue::Store(const void* acc, int64_t ld, int64_t row, int64_t rows, int64_t column,
                     int64_t columns) const {
  switch (accumulator) {
    case DType::kFloat:
      return StoreTyped(*this, static_cast<const float*>(acc), ld, row, rows, column, columns);
    case DType::kDouble:
      return StoreTyped(*this, static_cast<const double*>(acc), ld, row, rows, column, columns);
    case DType::kInt32:
      return StoreTyped(*this, static_cast<const uint32_t*>(acc), ld, row, rows, column, columns);
    case DType::kInt64:
      return StoreTyped(*this, static_cast<const uint64_t*>(acc), ld, row, rows, column, columns);
    case DType::kComplex64:
      return StoreTyped(*this, static_cast<const Complex64*>(acc), ld, row, rows, column, columns);
    case DType::kComplex128:
      return StoreTyped(*this, static_cast<const Complex128*>(acc), ld, row, rows, column, columns);
    default:
      return;
  }
}

Epilogue MakeEpilogue(const GemmArgs& g, DType accumulator, char* out, const char* addend) {
  Epilogue e;
  e.out = out;
  const bool used = addend != nullptr && (g.beta.dtype == DType::kUndefined || g.beta.ToComplex() != 0.0);
  e.addend = used ? addend : nullptr;
  e.out_type = g.out.dtype;
  e.addend_type = used ? g.addend.dtype : accumulator;
  e.accumulator = accumulator;
  e.out_row = g.out.row;
  e.out_column = g.out.column;
  e.addend_row = g.addend.row;
  e.addend_column = g.addend.column;
  e.alpha = g.alpha;
  e.beta = g.beta;
  e.scaled = !IsOne(g.alpha);
  return e;
}

}  // namespace anycann
