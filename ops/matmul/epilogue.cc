#include "ops/matmul/epilogue.h"

#include <algorithm>

#include "ops/convert.h"

namespace anycann {
namespace {

constexpr int64_t kPiece = 512;  // columns at a time: buffers of a few KiB on the stack

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

// What is added to n accumulators of one row: nothing, one value (a bias), or values.
template <class T>
struct Addend {
  const T* values = nullptr;
  T value = T(0);
  bool any = false;
};

// Room for one piece of one row on the stack.
template <class T>
struct Piece {
  alignas(64) T value[kPiece];
  alignas(64) T addend[kPiece];
  alignas(64) char packed[kPiece * 16];  // of the widest type that out or addend may have
};

template <class T>
Addend<T> LoadAddend(const Epilogue& e, Piece<T>* buffer, int64_t row, int64_t column, int64_t n) {
  Addend<T> a;
  if (e.addend == nullptr) return a;
  a.any = true;
  const int64_t size = SizeOf(e.addend_type);
  const char* p = e.addend + (row * e.addend_row + column * e.addend_column) * size;
  if (e.addend_column == 0) {
    Convert(&a.value, e.accumulator, p, e.addend_type, 1);
    return a;
  }
  a.values = buffer->addend;
  if (e.addend_column == 1 && e.addend_type == e.accumulator) {
    a.values = reinterpret_cast<const T*>(p);
  } else if (e.addend_column == 1) {
    Convert(buffer->addend, e.accumulator, p, e.addend_type, n);
  } else {
    PackStrided(buffer->packed, p, e.addend_column, n, size);
    Convert(buffer->addend, e.accumulator, buffer->packed, e.addend_type, n);
  }
  return a;
}

template <class T>
void Combine(T* to, const T* acc, const Addend<T>& addend, T alpha, T beta, int64_t n) {
  if (addend.values != nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) to[i] = alpha * acc[i] + beta * addend.values[i];
  } else {
    const T add = beta * addend.value;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) to[i] = alpha * acc[i] + add;
  }
}

template <class T>
void StoreTyped(const Epilogue& e, const T* acc, int64_t ld, int64_t row, int64_t rows, int64_t column,
                int64_t columns) {
  const T alpha = ScalarOr1<T>(e.alpha), beta = ScalarOr1<T>(e.beta);
  const int64_t out_size = SizeOf(e.out_type);
  const bool in_place = e.out_type == e.accumulator && e.out_column == 1;  // no conversion, no scatter
  Piece<T> buffer;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += kPiece) {
      const int64_t n = std::min(kPiece, columns - j);
      const T* from = acc + i * ld + j;
      char* to = e.out + ((row + i) * e.out_row + (column + j) * e.out_column) * out_size;
      const Addend<T> addend = LoadAddend(e, &buffer, row + i, column + j, n);
      if (addend.any || e.scaled) {
        T* result = in_place ? reinterpret_cast<T*>(to) : buffer.value;
        Combine(result, from, addend, alpha, beta, n);
        if (in_place) continue;
        from = result;
      }
      if (e.out_column == 1) {
        Convert(to, e.out_type, from, e.accumulator, n);
      } else {
        Convert(buffer.packed, e.out_type, from, e.accumulator, n);
        UnpackStrided(to, e.out_column, buffer.packed, n, out_size);
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
    default: return;
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
