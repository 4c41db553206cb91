// Type promotion of aclnn (abi/conventions.md, section 5), which follows torch's but for a few pairs.
#pragma once

#include "base/dtype.h"
#include "ops/handles.h"

namespace anycann {

// The type in which two tensors meet.
constexpr DType Promote(DType a, DType b) {
  if (a == b) return a;
  if (IsComplex(a) || IsComplex(b)) {
    const bool wide =
        a == DType::kComplex128 || b == DType::kComplex128 || a == DType::kDouble || b == DType::kDouble;
    if (wide) return DType::kComplex128;
    const DType other = IsComplex(a) ? b : a, complex = IsComplex(a) ? a : b;
    if (complex == DType::kComplex64 || IsComplex(other)) return DType::kComplex64;
    return other == DType::kFloat || other == DType::kBFloat16 ? DType::kComplex64 : complex;
  }
  if (IsFloating(a) || IsFloating(b)) {
    if (!IsFloating(b)) return a;
    if (!IsFloating(a)) return b;
    if (a == DType::kDouble || b == DType::kDouble) return DType::kDouble;
    return DType::kFloat;  // float with a reduced type, or float16 with bfloat16
  }
  if (a == DType::kBool) return b;
  if (b == DType::kBool) return a;
  if (IsUnsigned(a) == IsUnsigned(b)) return SizeOf(a) >= SizeOf(b) ? a : b;
  const DType is_signed = IsUnsigned(a) ? b : a, is_unsigned = IsUnsigned(a) ? a : b;
  if (SizeOf(is_signed) > SizeOf(is_unsigned)) return is_signed;
  switch (SizeOf(is_unsigned)) {
    case 1: return DType::kInt16;
    case 2: return DType::kInt32;
    default: return DType::kInt64;
  }
}

// The type in which a tensor meets a scalar: the tensor's, unless the scalar is of a higher kind
// (bool < integer < float < complex).
constexpr DType PromoteScalar(DType tensor, DType scalar) {
  if (IsComplex(scalar) && !IsComplex(tensor)) {
    if (tensor == DType::kDouble) return DType::kComplex128;
    return tensor == DType::kFloat16 ? DType::kComplex32 : DType::kComplex64;
  }
  if (IsFloating(scalar) && !IsFloating(tensor) && !IsComplex(tensor)) return DType::kFloat;
  if (IsInteger(scalar) && tensor == DType::kBool) return DType::kInt64;
  return tensor;
}

// The floating type in which a function like exp or a true division computes: integers and bool become
// float32.
constexpr DType ToFloating(DType t) { return IsFloating(t) || IsComplex(t) ? t : DType::kFloat; }

}  // namespace anycann
