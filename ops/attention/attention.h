// Attention that never stores the scores, forward and gradient:
//   out = dropout(softmax(mask(score))) @ v,   score = (q @ k^T + pse) * scale or q @ k^T * scale + pse
// for any layout of heads and sequences, grouped key/value heads, float32, float16 and bfloat16. Computes in
// float32.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "base/tensor_view.h"

namespace anycann {

// A tensor seen as [batch, head, sequence, dim]. Strides in elements.
struct HeadView {
  char* data = nullptr;
  DType dtype = DType::kUndefined;
  int64_t batch = 0, head = 0, sequence = 0, dim = 1;

  char* At(int64_t b, int64_t n, int64_t s) const {
    return data + (b * batch + n * head + s * sequence) * SizeOf(dtype);
  }
};

enum class PositionBias : int {
  kScaledAfter = 0,   // score = q k^T * scale + pse
  kScaledBefore = 1,  // score = (q k^T + pse) * scale
  kSlopes = 2,        // pse is a slope per head: score = q k^T * scale - |i - j + shift| * slope
  kRootSlopes = 3,    // the same with the root of the distance
};

// Keys and values that have to be made before they can be multiplied: out of pages, of integers, of parts.
class KeyValueRows {
 public:
  virtual ~KeyValueRows() = default;
  // Rows [key, key + count) of a batch and key/value head as floats without gaps. Called by many threads.
  virtual void Keys(int64_t batch, int64_t kv_head, int64_t key, int64_t count, float* to) const = 0;
  virtual void Values(int64_t batch, int64_t kv_head, int64_t key, int64_t count, float* to) const = 0;
};

struct Attention {
  int64_t batches = 1, heads = 1, kv_heads = 1, dim = 0, value_dim = 0;
  int64_t q_len = 0, k_len = 0;
  // Packed sequences: batch b holds rows [ends[b - 1], ends[b]) and all batch strides are 0. Otherwise
  // nullptr. Packed queries may have keys that aren't packed: k_counts then, and no k_ends.
  const int64_t* q_ends = nullptr;
  const int64_t* k_ends = nullptr;
  // Padded sequences: how many rows of each batch count; nullptr: all. Rows beyond are left alone.
  const int64_t* q_counts = nullptr;
  const int64_t* k_counts = nullptr;

  HeadView q, k, v, out;
  const KeyValueRows* rows = nullptr;  // of a forward pass: instead of k and v
  HeadView max, sum;                   // float32, `dim` equal copies per row

  HeadView mask;        // bytes, not 0: masked out; `dim` is the stride along keys
  bool banded = false;  // key j is seen by query i only if i + shift - before <= j <= i + shift + after,
  bool from_lower_right = false;  // where shift is 0, or k_len - q_len
  int64_t before = 0, after = 0;
  const int64_t* prefix = nullptr;  // per batch: keys below it are seen in spite of the band

  HeadView pse;
  PositionBias pse_kind = PositionBias::kScaledBefore;
  int64_t q_start = 0, k_start = 0;  // of the slopes' distances

  const uint8_t* drop = nullptr;  // bits, 1: kept; [batch, head, q, k] without gaps, low bit first
  double keep = 1;
  double scale = 1;
  const float* sink = nullptr;  // per head: a score that takes part in the sum and has no value

  int64_t group() const { return heads / kv_heads; }
};

// Fails only when memory is exhausted. Forward fills out, and max and sum when they are given. A query that
// sees no key gets zeros, maximum -inf and sum 0.
Status AttentionForward(const Attention& a);

// The gradients from a forward's out, max and sum. Absent ones (no data) aren't computed.
struct AttentionGradients {
  HeadView dout, dq, dk, dv;
  HeadView dpse;  // float32, contiguous over [batch, head, q, k] or broadcast as pse is; zeroed by the caller
  float* dsink = nullptr;  // per head
};
Status AttentionBackward(const Attention& a, const AttentionGradients& g);

}  // namespace anycann
