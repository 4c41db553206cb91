#include "ops/indexing/positions.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/parallel.h"

namespace anycann {
namespace {

constexpr int64_t kBlock = 1024;

// Adds one operand's offsets to `out`; true when all indices are in range.
bool AddBlock(const int64_t* __restrict index, int64_t n, int64_t size, int64_t stride, bool wrap,
              int64_t skip, bool first, int64_t* __restrict out) {
  const int64_t low = wrap ? -size : 0;
  bool bad = false;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t x = index[i];
    bad |= (x < low) | (x >= size);
    const int64_t offset = (x + (x < 0 ? size : 0)) * stride;
    out[i] = first ? offset : out[i] + offset;
  }
  if (skip >= 0)
    for (int64_t i = 0; i < n; ++i)
      if (index[i] == skip) out[i] = -1;
  return !bad;
}

int64_t FirstBad(const int64_t* index, int64_t n, int64_t size, bool wrap) {
  for (int64_t i = 0; i < n; ++i)
    if (index[i] < (wrap ? -size : 0) || index[i] >= size) return i;
  return n;
}

int64_t At(const Dense& d, int64_t i) {
  int64_t value;
  Convert(&value, DType::kInt64, d.view().bytes() + i * SizeOf(d.view().dtype), d.view().dtype, 1);
  return value;
}

}  // namespace

Status ResolvePositions(const char* op, std::span<const IndexOperand> operands, bool wrap,
                        Buffer<int64_t>* offsets, int64_t skip) {
  const int64_t n = operands[0].view.numel();
  *offsets = NewBuffer<int64_t>(n);
  int64_t* const out = offsets->get();
  for (const IndexOperand& operand : operands) {
    const Dense index(operand.view, Dense::kRead);
    const DType type = index.view().dtype;
    std::atomic<int64_t> first_bad{n};
    ParallelFor(n, 32 * kBlock, [&](int64_t begin, int64_t end) {
      int64_t block[kBlock];
      for (int64_t i = begin; i < end; i += kBlock) {
        const int64_t m = std::min(kBlock, end - i);
        const int64_t* values = block;
        if (type == DType::kInt64)
          values = index.ptr<int64_t>() + i;
        else
          Convert(block, DType::kInt64, index.view().bytes() + i * SizeOf(type), type, m);
        if (AddBlock(values, m, operand.size, operand.stride, wrap, skip, &operand == operands.data(),
                     out + i))
          continue;
        const int64_t bad = i + FirstBad(values, m, operand.size, wrap);
        int64_t known = first_bad.load();
        while (bad < known && !first_bad.compare_exchange_weak(known, bad)) {
        }
        return;
      }
    });
    if (first_bad.load() < n)
      return Error(kRuntimeError, "{}: index {} at position {} is out of range for dimension {} of size {}",
                   op, At(index, first_bad.load()), first_bad.load(), operand.dim, operand.size);
  }
  return Status();
}

Status ResolveIndices(const char* op, const TensorView& index, int dim, int64_t size, bool wrap,
                      Buffer<int64_t>* indices) {
  const IndexOperand operand{index, dim, size, 1};
  return ResolvePositions(op, std::span(&operand, 1), wrap, indices);
}

}  // namespace anycann
