// Private formats: how the layouts that cards use internally store a tensor. In all of them one logical
// dimension is cut into blocks of C0 elements (32 bytes, unless the format's name says otherwise) that lie
// innermost.
#pragma once

#include <string>

#include "base/export.h"
#include "base/tensor_view.h"

namespace anycann {

// aclFormat values of the formats that can be laid out here.
enum PrivateFormat : int32_t {
  kNc1hwc0 = 3,
  kFractalZ = 4,
  kFractalNz = 29,
  kNdc1hwc0 = 32,
  kFractalZ3d = 33,
  kFractalNzC0_16 = 50,
  kFractalNzC0_32 = 51,
  kFractalNzC0_2 = 52,
  kFractalNzC0_4 = 53,
  kFractalNzC0_8 = 54,
};
ANYCANN_API bool IsPrivateFormat(int32_t format);

struct BlockedLayout {
  int split;                 // the logical dimension that is cut into blocks of c0
  int64_t c0, block_stride;  // elements of a block; from one block to the next
  int64_t stride[kMaxRank];  // of the other logical dimensions
  int64_t dims[kMaxRank];    // the physical shape, contiguous
  int rank;

  int64_t numel() const;
  // Elements that no logical one fills: they are zero.
  bool padded(const int64_t* logical, int logical_rank) const;
};

// The layout of a tensor of shape `dims` in `format`, in blocks of `c0` elements (0: what format and type
// say). False, with a sentence, when the format has none for it.
ANYCANN_API bool LayOut(int32_t format, DType dtype, const int64_t* dims, int rank, BlockedLayout* layout,
                        std::string* why, int64_t c0 = 0);

// Copies between the logical tensor and its storage; the types are equal.
void StoreBlocked(const BlockedLayout& layout, const TensorView& logical, void* storage);
void LoadBlocked(const BlockedLayout& layout, const void* storage, const TensorView& logical);

}  // namespace anycann
