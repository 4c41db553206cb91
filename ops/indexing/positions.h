// Positions: index tensors turned into a table of element offsets, checked and wrapped. Every operator that
// takes indices reads them here.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "base/status.h"
#include "base/tensor_view.h"
#include "ops/operand.h"

namespace anycann {

// One index tensor: what it indexes. `view` is expanded to the common shape of the call.
struct IndexOperand {
  TensorView view;
  int dim;         // for messages
  int64_t size;    // of that dimension: valid indices are [0, size), and [-size, 0) when negative ones wrap
  int64_t stride;  // of that dimension, in elements
};

// True for the types that an index may have.
constexpr bool IsIndexType(DType t) { return IsInteger(t); }

// Reads positions block by block: for loops that use each once, without a table of them.
class PositionReader {
 public:
  static constexpr int64_t kBlock = 1024;
  PositionReader(std::span<const IndexOperand> operands, bool wrap, int64_t skip = -1);
  // Offsets [begin, begin + n), n at most kBlock: in `buffer` (of kBlock), or the index tensor's own memory.
  // nullptr when an index is out of range. Any thread may call it.
  const int64_t* Read(int64_t begin, int64_t n, int64_t* buffer);
  // The first index that was out of range, as an error; ok when there was none.
  Status status(const char* op) const;

 private:
  struct Source {
    Dense index;
    IndexOperand operand;
  };
  bool Add(const Source& source, int64_t begin, int64_t n, bool first, int64_t* offsets);
  void Bad(int64_t position);

  std::vector<Source> sources_;
  bool wrap_;
  int64_t skip_;
  bool plain_;  // the indices are the offsets
  std::atomic<int64_t> first_bad_{INT64_MAX};
};

// offsets[p] = sum over the operands of index * stride, for every position p of the common shape, row-major.
// The error names the first bad position: "aclnnIndex: index 7 at position 3 is out of range for dimension 0
// of size 5". With `skip` >= 0 an index of that value gives the offset -1 (padding); only for a single
// operand.
Status ResolvePositions(const char* op, std::span<const IndexOperand> operands, bool wrap,
                        Buffer<int64_t>* offsets, int64_t skip = -1);

// The same for one index tensor, without a stride: the indices as int64, wrapped and checked.
Status ResolveIndices(const char* op, const TensorView& index, int dim, int64_t size, bool wrap,
                      Buffer<int64_t>* indices);

}  // namespace anycann
