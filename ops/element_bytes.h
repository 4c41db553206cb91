// Where elements lie: types of less than a byte have no SizeOf.
#pragma once

#include "base/dtype.h"

namespace anycann {

// Bytes of memory before element `index` of dense memory; int4 has two elements in a byte, so `index` is even
// there.
constexpr int64_t BytesBefore(DType dtype, int64_t index) {
  return dtype == DType::kInt4 ? index / 2 : index * SizeOf(dtype);
}

}  // namespace anycann
