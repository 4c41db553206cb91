// Products of integers with scales: y = (a @ b + bias of integers) * column scale * row scale + offset, or +
// bias of floats.
#pragma once

#include "base/status.h"
#include "base/tensor_view.h"

namespace anycann {

struct ProductScales {
  const float* column = nullptr;  // one, or one for each column
  bool per_column = false;
  const float* row = nullptr;  // row r of all rows has row[r % row_count]
  int64_t row_count = 1;
  const float* offset = nullptr;  // added last
  bool per_column_offset = false;
  const TensorView* bias = nullptr;  // [N], [1,N] or [batch,1,N]; int32 is added before scaling
};

// a, b: int8, [.., M, K] and [.., K, N] with broadcast leading dimensions. y: int32 (the plain product with
// its bias), int8 (rounded and bounded) or floating.
Status RunScaledProduct(const char* op, const TensorView& a, const TensorView& b, const TensorView& y,
                        const ProductScales& s);

// The same from float sums of y's shape that are there already; a bias is added after scaling.
Status ScaleSums(const char* op, const float* sums, const TensorView& y, const ProductScales& s);

}  // namespace anycann
