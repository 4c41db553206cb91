// Attention in which each query names the keys that it sees.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "ops/call.h"
#include "ops/dense.h"

namespace anycann {

// How rows of a tensor are told apart: [B,S,N,D], packed sequences [T,N,D], or pages [blocks,page,N,D].
enum class RowLayout { kBatches, kPacked, kPages };
Status ReadRowLayout(Call& call, const char* text, const char* name, bool pages, RowLayout* layout);

// The rows of each batch. For packed ones `lengths` are their ends, for the others how many count.
struct SequenceRows {
  RowLayout layout = RowLayout::kBatches;
  int64_t batches = 0, length = 0, rows = 0;  // length: of each batch without pages, or of a page
  std::vector<int64_t> begins, counts;        // of each batch
  const int32_t* table = nullptr;             // [batches, columns] of pages
  int64_t columns = 0;

  // lengths: nullptr where all rows count. The error names the argument.
  Status Read(const char* op, const char* name, std::span<const int64_t> lengths);
  // The row of a position within its batch's count; -1: its page isn't there.
  int64_t RowOf(int64_t batch, int64_t position) const {
    if (layout != RowLayout::kPages) return begins[batch] + position;
    const int64_t column = position / length;
    if (column >= columns) return -1;
    const int64_t page = table[batch * columns + column];
    return page < 0 || page * length >= rows ? -1 : page * length + position % length;
  }
};

struct QueryToken {
  int64_t row, batch, position, count;  // count: of its batch's queries
};
std::vector<QueryToken> TokensOf(const SequenceRows& queries);

// query [rows, heads, dim], key [.., kv_heads, dim], value [.., kv_heads, value_dim], each with `rope` more
// numbers in tensors of their own where those are given.
struct SparseAttention {
  int64_t heads = 1, kv_heads = 1, dim = 0, rope = 0, value_dim = 0;
  float scale = 1;
  const float* sinks = nullptr;  // of each head: a score that has no value
  DenseReader<float> query, query_rope, key, key_rope, value;
  // Instead of key, key_rope and value: a row's numbers, whose first value_dim are the value too.
  std::function<void(int64_t row, float* to)> load;
  SequenceRows queries, keys;
  std::vector<QueryToken> tokens;

  int64_t group() const { return heads / kv_heads; }
  int64_t width() const { return dim + rope; }
  // Which positions of the keys a token sees for a head of the keys; called by many threads.
  std::function<void(const QueryToken&, int64_t kv_head, std::vector<int32_t>* positions)> select;
};

// One token's heads of one key head.
struct SparseResult {
  const QueryToken& token;
  int64_t kv_head;
  std::span<const int32_t> positions;
  const float *out, *max, *sum;  // [group, value_dim], [group], [group]; no key: zeros, -inf and 0
  const float* weights;          // [group, positions]: the softmax
};
// False: no memory.
bool RunSparseAttention(const SparseAttention& a, const std::function<void(const SparseResult&)>& store);

// The gradients: dense float sums, zeroed here. dout and out: [rows, heads, value_dim]; max and sum of the
// forward by token row, head.
struct SparseGradients {
  DenseReader<float> out, dout;
  std::function<float(const QueryToken&, int64_t head)> max, sum;
  float *dq = nullptr, *dq_rope = nullptr;  // [query rows, heads, dim or rope]
  float *dk = nullptr, *dk_rope = nullptr, *dv = nullptr;
};
bool RunSparseGradients(const SparseAttention& a, const SparseGradients& g);

}  // namespace anycann
