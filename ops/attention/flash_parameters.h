// What the flash attention operators of every version have in common: their parameters, checked and
// translated.
#pragma once

#include <vector>

#include "ops/attention/attention.h"
#include "ops/call.h"
#include "ops/dense.h"

namespace anycann {

struct FlashParameters {
  const aclTensor* query = nullptr;
  const aclTensor* key = nullptr;
  const aclTensor* value = nullptr;
  const aclTensor* query_rope = nullptr;  // more numbers of each row, behind query's and key's
  const aclTensor* key_rope = nullptr;
  const aclTensor* pse = nullptr;
  const aclTensor* drop_mask = nullptr;
  const aclTensor* mask = nullptr;
  const aclTensor* sink = nullptr;
  const aclIntArray* prefix = nullptr;
  const aclIntArray* q_lengths = nullptr;  // cumulative, of packed sequences
  const aclIntArray* k_lengths = nullptr;
  const aclIntArray* q_start = nullptr;
  const aclIntArray* k_start = nullptr;
  double scale = 1, keep = 1;
  int64_t before = 0, after = 0, heads = 1;
  const char* layout = nullptr;
  int64_t sparse_mode = 0;
  int64_t pse_type = 1;
  const aclTensor* max = nullptr;
  const aclTensor* sum = nullptr;
  const aclTensor* out = nullptr;  // attention output: written forward, read backward
  const char* out_name = "attentionOut";
  const char* out_layout = nullptr;  // absent: `layout`
};

// A kernel's attributes by value: `attention` without addresses, and the lists that it points into once they
// are bound.
struct FlashPlan {
  Attention attention;
  std::vector<int64_t> q_ends, k_ends, prefix, q_counts, k_counts;
  // Operands present, in this order after query, key, value, out, max, sum: pse, drop mask, mask, sink.
  bool has_pse = false, has_drop = false, has_mask = false, has_sink = false;

  // Queries and keys with their rotated parts, where those come apart: no data. Two more operands then.
  bool has_rope = false;
  TensorView joined_q, joined_k;

  // The problem over a run's operands. With rope, queries and keys lie in `joined`.
  Attention Bind(const Run& t, struct JoinedRows* joined) const;
};

// Memory of rows whose parts come apart.
struct JoinedRows {
  Scratch<char> q, k;
};
// Rows of two parts: new memory for them (no data: none left), together, and apart again.
TensorView NewJoined(const TensorView& shape, Scratch<char>* memory);
void Join(const TensorView& plain, const TensorView& rope, const TensorView& joined);
void Split(const TensorView& joined, const TensorView& plain, const TensorView& rope);

// Checks everything and fills the plan. `args` gets the operands in Bind's order, out, max and sum as outputs
// if `forward`; returns their number in `count`.
Status PlanFlash(Call& call, const FlashParameters& p, bool forward, FlashPlan* plan, Arg* args, int* count);
inline constexpr int kFlashOperands = 12;

// Of a forward pass.
Cost FlashCost(const FlashParameters& p, const FlashPlan& plan);

// Of a tensor in a layout: BSH, SBH, BSND, BNSD, NBSD, TND or NTD. `heads` counts where the layout hides
// them.
struct HeadSizes {
  int64_t batches, length, heads, dim;
};
HeadSizes SizesOf(const TensorView& v, const char* layout, int64_t heads);

// A tensor broadcast over [batch, head, q, k] (dims); the last dimensions of `v` are matched to the last of
// those. at_least: it may have more queries and keys. False: it can't.
bool BroadcastOverScores(const TensorView& v, const int64_t (&dims)[4], bool at_least, HeadView* to);

// A tensor of the layout's shape as heads; `heads` is its number of heads (of BSH and SBH, which hide it).
HeadView HeadsOf(const TensorView& v, const char* layout, int64_t heads);

}  // namespace anycann
