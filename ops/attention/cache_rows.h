// Keys and values of an inference cache as rows of floats: out of pages, of one tensor for each batch, of
// 8-bit integers with scales, behind a shared prefix, of a plain and a rotated part.
#pragma once

#include <vector>

#include "ops/attention/attention.h"
#include "ops/dense.h"

namespace anycann {

// Scales or offsets of quantised rows; a stride is 0 where they don't differ. With pages that have their own,
// `batch` is the stride of a page and `token` counts inside it.
struct RowScales {
  Values<float> values;
  int64_t batch = 0, head = 0, token = 0, dim = 0;
  bool paged = false;
  const float* At(int64_t b, int64_t n, int64_t s) const {
    return values.get() + b * batch + n * head + s * token;
  }
};

// Keys, their rotated parts, or values.
struct CachePart {
  std::vector<HeadView>
      views;        // one for all batches (batch: of a page where there are pages), or one for each
  bool nz = false;  // a row is pieces of 16 numbers that lie `piece` numbers apart
  int64_t piece = 0;
  int64_t dims = 0;
  HeadView prefix;  // no data: none; the same for all batches
  const RowScales* scale = nullptr;
  const RowScales* offset = nullptr;
};

class CacheRows : public KeyValueRows {
 public:
  CachePart key, rope, value;  // rope.dims 0: none
  const int32_t* table = nullptr;
  int64_t table_row = 0, page = 0;
  int64_t prefix = 0;  // rows

  void Keys(int64_t b, int64_t n, int64_t j, int64_t count, float* to) const override {
    Read(key, b, n, j, count, to, key.dims + rope.dims);
    if (rope.dims > 0) Read(rope, b, n, j, count, to + key.dims, key.dims + rope.dims);
  }
  void Values(int64_t b, int64_t n, int64_t j, int64_t count, float* to) const override {
    Read(value, b, n, j, count, to, value.dims);
  }

 private:
  void Read(const CachePart& part, int64_t b, int64_t n, int64_t j, int64_t count, float* to,
            int64_t stride) const;
};

}  // namespace anycann
