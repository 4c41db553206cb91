// A paged cache as rows: slot s is row s % page of page s / page.
#pragma once

#include <cstring>

#include "ops/call.h"

namespace anycann {

struct PagedCache {
  int64_t pages = 0, page = 0;    // pages, rows in one
  int64_t width = 0;              // numbers in a row
  int64_t piece = 0, stride = 0;  // a row is pieces of so many numbers, so far apart; one piece: the row
  int64_t row = 0, block = 0;     // strides of rows and pages, in numbers
  int64_t size = 1;               // bytes of a number

  int64_t slots() const { return pages * page; }

  // body(offset in the row, bytes of the piece in the cache) for each piece.
  template <class Body>
  void ForEachPiece(char* data, int64_t slot, Body&& body) const {
    char* at = data + (slot / page * block + slot % page * row) * size;
    for (int64_t i = 0; i < width; i += piece, at += stride * size) body(i, at);
  }
  void Write(char* data, int64_t slot, const char* from) const {
    ForEachPiece(data, slot, [&](int64_t i, char* at) { std::memcpy(at, from + i * size, piece * size); });
  }
  void Read(char* data, int64_t slot, char* to) const {
    ForEachPiece(data, slot,
                 [&](int64_t i, const char* at) { std::memcpy(to + i * size, at, piece * size); });
  }
};

// [pages, page, ..] with rows of `width` numbers: all that is behind the second dimension.
Status ReadPagedRows(Call& call, const aclTensor* t, const char* name, int64_t width, PagedCache* cache);
// [pages, width / piece, page, piece]: FRACTAL_NZ as torch_npu's paged caches have it.
Status ReadPagedPieces(Call& call, const aclTensor* t, const char* name, int64_t width, PagedCache* cache);
// [pages, page, 1, width], whose memory holds [pages, width / piece, page, piece] with pieces of 32 bytes.
Status ReadHiddenPieces(Call& call, const aclTensor* t, const char* name, int64_t width, PagedCache* cache);

}  // namespace anycann
