#include "ops/quant/scaled_product.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/matmul/gemm.h"

namespace anycann {
namespace {

// Rows of sums to rows of y.
template <class Sum>
Status Finish(const char* op, const Sum* sums, const TensorView& to, const ProductScales& s,
              const TensorView* float_bias) {
  const int r = to.rank;
  const int64_t n = to.dims[r - 1], m = to.dims[r - 2], rows = n == 0 ? 0 : to.numel() / n;
  const DenseOutput y(to);
  const Values<float> bias = float_bias != nullptr ? Values<float>(*float_bias) : Values<float>();
  const Scratch<float> columns(n);
  if (!y.ok() || !bias.ok() || !columns.ok()) return ScratchFailed(op);
  for (int64_t j = 0; j < n; ++j) columns[j] = s.column == nullptr ? 1.0f : s.column[s.per_column ? j : 0];
  const bool batched = float_bias != nullptr && float_bias->numel() != n;
  const DenseWriter<float> writer(y.view());
  const bool bytes = to.dtype == DType::kInt8;
  std::atomic<bool> failed{false};
  ParallelFor(rows, std::max<int64_t>(1, 16384 / (n + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(n);
    if (!buffer.ok()) {
      failed = true;
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      float* __restrict v = bytes ? buffer.get() : writer.Begin(i * n, buffer.get());
      const Sum* __restrict sum = sums + i * n;
      const float row = s.row != nullptr ? s.row[i % s.row_count] : 1.0f;
      for (int64_t j = 0; j < n; ++j) v[j] = static_cast<float>(sum[j]) * columns[j] * row;
      if (s.offset != nullptr)
        for (int64_t j = 0; j < n; ++j) v[j] += s.offset[s.per_column_offset ? j : 0];
      if (float_bias != nullptr) {
        const float* __restrict b = bias.get() + (batched ? i / m * n : 0);
        for (int64_t j = 0; j < n; ++j) v[j] += b[j];
      }
      if (bytes) {
        int8_t* __restrict out = y.view().ptr<int8_t>() + i * n;
        for (int64_t j = 0; j < n; ++j)
          out[j] = static_cast<int8_t>(std::min(127.0f, std::max(-128.0f, std::nearbyint(v[j]))));
      } else {
        writer.End(i * n, n, v);
      }
    }
  });
  if (failed) return ScratchFailed(op);
  y.Finish();
  return Status();
}

}  // namespace

Status RunScaledProduct(const char* op, const TensorView& a, const TensorView& b, const TensorView& y,
                        const ProductScales& s) {
  const bool whole = s.bias != nullptr && s.bias->dtype == DType::kInt32;
  const TensorView* integers = whole ? s.bias : nullptr;
  if (y.dtype == DType::kInt32) return Gemm(MakeGemm(a, b, y, integers));
  const Scratch<int32_t> sums(y.numel());
  if (!sums.ok()) return ScratchFailed(op);
  const TensorView to = TensorView::Contiguous(sums.get(), DType::kInt32, y.dims, y.rank);
  RETURN_IF_ERROR(Gemm(MakeGemm(a, b, to, integers)));
  return Finish(op, sums.get(), y, s, whole ? nullptr : s.bias);
}

Status ScaleSums(const char* op, const float* sums, const TensorView& y, const ProductScales& s) {
  return Finish(op, sums, y, s, s.bias);
}

}  // namespace anycann
