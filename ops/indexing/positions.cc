#include "ops/indexing/positions.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"

namespace anycann {
namespace {

// True when all indices are in [0, size).
bool InRange(const int64_t* index, int64_t n, int64_t size) {
  uint64_t highest = 0;
  for (int64_t i = 0; i < n; ++i) highest = std::max(highest, static_cast<uint64_t>(index[i]));
  return n == 0 || highest < static_cast<uint64_t>(size);
}

// Adds one operand's offsets to `out`, or begins with them; true when all indices are in range.
template <bool first>
bool AddBlock(const int64_t* __restrict index, int64_t n, int64_t size, int64_t stride, bool wrap,
              int64_t* __restrict out) {
  const uint64_t low = wrap ? -static_cast<uint64_t>(size) : 0, high = static_cast<uint64_t>(size) - 1;
  uint64_t outside = 0;  // its sign bit: whether some x - low or high - x was negative
  for (int64_t i = 0; i < n; ++i) {
    const int64_t x = index[i];
    outside |= (static_cast<uint64_t>(x) - low) | (high - static_cast<uint64_t>(x));
    const int64_t offset =
        static_cast<int64_t>((static_cast<uint64_t>(x) + (x < 0 ? static_cast<uint64_t>(size) : 0)) *
                             static_cast<uint64_t>(stride));
    if constexpr (first)
      out[i] = offset;
    else
      out[i] = static_cast<int64_t>(static_cast<uint64_t>(out[i]) + static_cast<uint64_t>(offset));
  }
  return static_cast<int64_t>(outside) >= 0;
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

PositionReader::PositionReader(std::span<const IndexOperand> operands, bool wrap, int64_t skip)
    : wrap_(wrap), skip_(skip) {
  sources_.reserve(operands.size());
  for (const IndexOperand& o : operands) sources_.push_back({Dense(o.view, Dense::kRead), o});
  plain_ = operands.size() == 1 && operands[0].stride == 1 && !wrap && skip < 0 &&
           sources_[0].index.view().dtype == DType::kInt64;
}

void PositionReader::Bad(int64_t position) {
  int64_t known = first_bad_.load();
  while (position < known && !first_bad_.compare_exchange_weak(known, position)) {
  }
}

bool PositionReader::Add(const Source& source, int64_t begin, int64_t n, bool first, int64_t* offsets) {
  int64_t block[kBlock];
  const TensorView& index = source.index.view();
  const int64_t* values = block;
  if (index.dtype == DType::kInt64)
    values = index.ptr<const int64_t>() + begin;
  else
    Convert(block, DType::kInt64, index.bytes() + begin * SizeOf(index.dtype), index.dtype, n);
  const int64_t size = source.operand.size, stride = source.operand.stride;
  const bool good = first ? AddBlock<true>(values, n, size, stride, wrap_, offsets)
                          : AddBlock<false>(values, n, size, stride, wrap_, offsets);
  if (!good) {
    Bad(begin + FirstBad(values, n, size, wrap_));
    return false;
  }
  for (int64_t i = 0; skip_ >= 0 && i < n; ++i)
    if (values[i] == skip_) offsets[i] = -1;
  return true;
}

const int64_t* PositionReader::Read(int64_t begin, int64_t n, int64_t* buffer) {
  if (plain_) {
    const int64_t* index = sources_[0].index.ptr<const int64_t>() + begin;
    if (InRange(index, n, sources_[0].operand.size)) return index;
    Bad(begin + FirstBad(index, n, sources_[0].operand.size, false));
    return nullptr;
  }
  bool good = true;
  for (const Source& s : sources_) good &= Add(s, begin, n, &s == sources_.data(), buffer);
  return good ? buffer : nullptr;
}

Status PositionReader::status(const char* op) const {
  const int64_t p = first_bad_.load();
  if (p == INT64_MAX) return Status();
  for (const Source& s : sources_) {
    const int64_t index = At(s.index, p), size = s.operand.size;
    if (index >= (wrap_ ? -size : 0) && index < size) continue;
    return Error(kRuntimeError, "{}: index {} at position {} is out of range for dimension {} of size {}", op,
                 index, p, s.operand.dim, size);
  }
  return Status();
}

Status ResolvePositions(const char* op, std::span<const IndexOperand> operands, bool wrap,
                        Buffer<int64_t>* offsets, int64_t skip) {
  const int64_t n = operands[0].view.numel();
  *offsets = NewBuffer<int64_t>(n);
  PositionReader reader(operands, wrap, skip);
  constexpr int64_t kBlock = PositionReader::kBlock;
  ParallelFor(n, 32 * kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t m = std::min(kBlock, end - i);
      const int64_t* read = reader.Read(i, m, offsets->get() + i);
      if (read == nullptr) return;
      if (read != offsets->get() + i)
        std::memcpy(offsets->get() + i, read, static_cast<size_t>(m) * sizeof(int64_t));
    }
  });
  return reader.status(op);
}

Status ResolveIndices(const char* op, const TensorView& index, int dim, int64_t size, bool wrap,
                      Buffer<int64_t>* indices) {
  const IndexOperand operand{index, dim, size, 1};
  return ResolvePositions(op, std::span(&operand, 1), wrap, indices);
}

}  // namespace anycann
