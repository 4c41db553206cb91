// DType: the one table of element types. Values equal aclDataType's (static_asserted in libs/ against the
// table).
#pragma once

#include <complex>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace anycann {

enum class DType : int32_t {
  kUndefined = -1,
  kFloat = 0,
  kFloat16 = 1,
  kInt8 = 2,
  kInt32 = 3,
  kUint8 = 4,
  kInt16 = 6,
  kUint16 = 7,
  kUint32 = 8,
  kInt64 = 9,
  kUint64 = 10,
  kDouble = 11,
  kBool = 12,
  kString = 13,
  kComplex64 = 16,
  kComplex128 = 17,
  kBFloat16 = 27,
  kInt4 = 29,
  kComplex32 = 33,
};

// IEEE binary16 as storage. Arithmetic happens in float; one rounding (to nearest even) on the way back.
struct Half {
  uint16_t bits = 0;
  Half() = default;
  Half(float f) : bits(FromFloat(f)) {}  // NOLINT: implicit on purpose, as a C++ arithmetic type converts
  operator float() const { return ToFloat(bits); }

  static float ToFloat(uint16_t h) {
#if defined(__F16C__)
    return _cvtsh_ss(h);
#else
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
    uint32_t exponent = (h >> 10) & 0x1f, mantissa = h & 0x3ff, bits;
    if (exponent == 31) {
      bits = sign | 0x7f800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0);
    } else if (exponent != 0) {
      bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else if (mantissa == 0) {
      bits = sign;
    } else {
      float value = static_cast<float>(mantissa) * 0x1p-24f;
      std::memcpy(&bits, &value, 4);
      bits |= sign;
    }
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
#endif
  }
  static uint16_t FromFloat(float f) {
#if defined(__F16C__)
    return static_cast<uint16_t>(_cvtss_sh(f, 0));
#else
    uint32_t x;
    std::memcpy(&x, &f, 4);
    const uint16_t sign = static_cast<uint16_t>((x >> 16) & 0x8000);
    x &= 0x7fffffffu;
    if (x > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00 | ((x >> 13) & 0x3ff));
    if (x >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00);
    if (x >= 0x38800000u) {
      x += 0xfff + ((x >> 13) & 1);
      return static_cast<uint16_t>(sign | ((x - 0x38000000u) >> 13));
    }
    if (x < 0x33000000u) return sign;
    const uint32_t shift = 126 - (x >> 23), mantissa = (x & 0x7fffff) | 0x800000;
    uint32_t value = mantissa >> shift;
    const uint32_t rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
    value += (rest > half || (rest == half && (value & 1))) ? 1 : 0;
    return static_cast<uint16_t>(sign | value);
#endif
  }
};

// bfloat16 as storage: the upper half of a float. Rounds to nearest even; NaN stays NaN.
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  BFloat16(float f) : bits(FromFloat(f)) {}  // NOLINT: implicit on purpose
  operator float() const { return ToFloat(bits); }

  static float ToFloat(uint16_t b) {
    const uint32_t x = static_cast<uint32_t>(b) << 16;
    float f;
    std::memcpy(&f, &x, 4);
    return f;
  }
  static uint16_t FromFloat(float f) {
    uint32_t x;
    std::memcpy(&x, &f, 4);
    const uint32_t rounded = (x + 0x7fff + ((x >> 16) & 1)) >> 16;
    return static_cast<uint16_t>((x & 0x7fffffffu) > 0x7f800000u ? 0x7fc0 : rounded);
  }
};

// complex of two Halfs, storage only (ComplexHalf); arithmetic happens in complex64.
struct ComplexHalf {
  Half real, imag;
  ComplexHalf() = default;
  ComplexHalf(std::complex<float> c) : real(c.real()), imag(c.imag()) {}  // NOLINT: implicit on purpose
  operator std::complex<float>() const { return {real, imag}; }
};

using Complex64 = std::complex<float>;
using Complex128 = std::complex<double>;

// Bytes of one element; 0 for types without a whole number of bytes or without storage here (int4, string).
constexpr int64_t SizeOf(DType t) {
  switch (t) {
    case DType::kInt8:
    case DType::kUint8:
    case DType::kBool: return 1;
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kInt16:
    case DType::kUint16: return 2;
    case DType::kFloat:
    case DType::kInt32:
    case DType::kUint32:
    case DType::kComplex32: return 4;
    case DType::kInt64:
    case DType::kUint64:
    case DType::kDouble:
    case DType::kComplex64: return 8;
    case DType::kComplex128: return 16;
    default: return 0;
  }
}

constexpr const char* Name(DType t) {
  switch (t) {
    case DType::kFloat: return "float32";
    case DType::kFloat16: return "float16";
    case DType::kInt8: return "int8";
    case DType::kInt32: return "int32";
    case DType::kUint8: return "uint8";
    case DType::kInt16: return "int16";
    case DType::kUint16: return "uint16";
    case DType::kUint32: return "uint32";
    case DType::kInt64: return "int64";
    case DType::kUint64: return "uint64";
    case DType::kDouble: return "float64";
    case DType::kBool: return "bool";
    case DType::kString: return "string";
    case DType::kComplex64: return "complex64";
    case DType::kComplex128: return "complex128";
    case DType::kBFloat16: return "bfloat16";
    case DType::kInt4: return "int4";
    case DType::kComplex32: return "complex32";
    default: return "undefined";
  }
}

constexpr bool IsComplex(DType t) {
  return t == DType::kComplex32 || t == DType::kComplex64 || t == DType::kComplex128;
}
constexpr bool IsFloating(DType t) {
  return t == DType::kFloat || t == DType::kFloat16 || t == DType::kBFloat16 || t == DType::kDouble;
}
constexpr bool IsUnsigned(DType t) {
  return t == DType::kUint8 || t == DType::kUint16 || t == DType::kUint32 || t == DType::kUint64;
}
constexpr bool IsInteger(DType t) {  // bool is not an integer here
  return t == DType::kInt8 || t == DType::kInt16 || t == DType::kInt32 || t == DType::kInt64 || IsUnsigned(t);
}
constexpr bool IsReduced(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16; }

// The C++ type that stores an element: TypeOf<DType::kFloat>, and back: DTypeOf<float>.
template <class T>
constexpr DType kDTypeOf = DType::kUndefined;
// clang-format off
template <> inline constexpr DType kDTypeOf<float> = DType::kFloat;
template <> inline constexpr DType kDTypeOf<Half> = DType::kFloat16;
template <> inline constexpr DType kDTypeOf<BFloat16> = DType::kBFloat16;
template <> inline constexpr DType kDTypeOf<double> = DType::kDouble;
template <> inline constexpr DType kDTypeOf<int8_t> = DType::kInt8;
template <> inline constexpr DType kDTypeOf<int16_t> = DType::kInt16;
template <> inline constexpr DType kDTypeOf<int32_t> = DType::kInt32;
template <> inline constexpr DType kDTypeOf<int64_t> = DType::kInt64;
template <> inline constexpr DType kDTypeOf<uint8_t> = DType::kUint8;
template <> inline constexpr DType kDTypeOf<uint16_t> = DType::kUint16;
template <> inline constexpr DType kDTypeOf<uint32_t> = DType::kUint32;
template <> inline constexpr DType kDTypeOf<uint64_t> = DType::kUint64;
template <> inline constexpr DType kDTypeOf<bool> = DType::kBool;
template <> inline constexpr DType kDTypeOf<Complex64> = DType::kComplex64;
template <> inline constexpr DType kDTypeOf<Complex128> = DType::kComplex128;
template <> inline constexpr DType kDTypeOf<ComplexHalf> = DType::kComplex32;
// clang-format on

template <class T>
struct TypeTag {
  using type = T;
};

// Calls f(TypeTag<T>{}) with the storage type of `t`; every type that has storage. False when `t` has none.
// Sanitizer builds define ANYCANN_FEW_TYPES to keep their compile time down: float32, int64, bool and bytes
// only.
template <class F>
bool VisitType(DType t, F&& f) {
  switch (t) {
    case DType::kFloat: f(TypeTag<float>{}); return true;
    case DType::kInt64: f(TypeTag<int64_t>{}); return true;
    case DType::kBool: f(TypeTag<bool>{}); return true;
    case DType::kUint8: f(TypeTag<uint8_t>{}); return true;
#ifndef ANYCANN_FEW_TYPES
    case DType::kFloat16: f(TypeTag<Half>{}); return true;
    case DType::kBFloat16: f(TypeTag<BFloat16>{}); return true;
    case DType::kDouble: f(TypeTag<double>{}); return true;
    case DType::kInt8: f(TypeTag<int8_t>{}); return true;
    case DType::kInt16: f(TypeTag<int16_t>{}); return true;
    case DType::kInt32: f(TypeTag<int32_t>{}); return true;
    case DType::kUint16: f(TypeTag<uint16_t>{}); return true;
    case DType::kUint32: f(TypeTag<uint32_t>{}); return true;
    case DType::kUint64: f(TypeTag<uint64_t>{}); return true;
    case DType::kComplex32: f(TypeTag<ComplexHalf>{}); return true;
    case DType::kComplex64: f(TypeTag<Complex64>{}); return true;
    case DType::kComplex128: f(TypeTag<Complex128>{}); return true;
#endif
    default: return false;
  }
}

// Computes happen in fewer types than storage has. ComputeType(t): float16/bfloat16 -> float32, complex32 ->
// complex64, uint16/32/64 and every other type -> themselves.
constexpr DType ComputeType(DType t) {
  if (IsReduced(t)) return DType::kFloat;
  if (t == DType::kComplex32) return DType::kComplex64;
  return t;
}

}  // namespace anycann
