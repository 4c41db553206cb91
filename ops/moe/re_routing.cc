// MoeReRouting: rows that lie rank by rank, and expert by expert within each rank, come expert by expert.
#include <algorithm>
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "base/log.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct ReRouting {
  int64_t rows = 0, ranks = 0, experts = 0;
  bool scatter = false, cumulative = false;
  int tokens = -1, counts = -1, scales = -1, tokens_out = -1, scales_out = -1, index = -1, expert_counts = -1;
};

Status CopyRows(const Run& t, const TensorView& from, const TensorView& to,
                const std::vector<int32_t>& source) {
  const DenseInput in(from);
  const DenseOutput out(to);
  if (!in.ok() || !out.ok()) return ScratchFailed(t.plan().name);
  const int64_t rows = static_cast<int64_t>(source.size());
  const int64_t bytes = from.dims[0] > 0 ? from.nbytes() / from.dims[0] : 0;
  std::memset(out.view().bytes() + rows * bytes, 0, static_cast<size_t>(out.view().nbytes() - rows * bytes));
  ParallelFor(rows, std::max<int64_t>(1, 65536 / (bytes + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(out.view().bytes() + i * bytes, in.view().bytes() + source[i] * bytes,
                  static_cast<size_t>(bytes));
  });
  out.Finish();
  return Status();
}

Status RunReRouting(const Run& t, const ReRouting& r) {
  const Values<int64_t> counts(t[r.counts]);
  if (!counts.ok()) return ScratchFailed(t.plan().name);
  std::vector<int64_t> begins;  // of each rank's and expert's rows
  int64_t total = 0;
  for (int64_t i = 0; i < r.ranks * r.experts; ++i) {
    begins.push_back(total);
    if (counts[i] < 0 || counts[i] > INT32_MAX)
      return Error(kParamInvalid, "{}: expertTokenNumPerRank has {} for rank {} and expert {}", t.plan().name,
                   counts[i], i / r.experts, i % r.experts);
    total += counts[i];
  }
  // op-plugin's own test passes counts that add up to more or less than the rows: rows that aren't there are
  // left out, and rows of the result that nothing goes to are zeros.
  if (total != r.rows)
    Log(LogLevel::kWarning, "{}: expertTokenNumPerRank adds up to {}, expected the {} rows of tokens",
        t.plan().name, total, r.rows);
  std::vector<int32_t> source;
  std::vector<int64_t> of_expert;
  for (int64_t e = 0; e < r.experts; ++e) {
    int64_t own = 0;
    for (int64_t rank = 0; rank < r.ranks; ++rank)
      for (int64_t i = rank * r.experts + e, j = 0; j < counts[i]; ++j)
        if (begins[i] + j < r.rows) source.push_back(static_cast<int32_t>(begins[i] + j));
    for (int64_t rank = 0; rank < r.ranks; ++rank) own += counts[rank * r.experts + e];
    of_expert.push_back(own + (r.cumulative && e > 0 ? of_expert.back() : 0));
  }
  RETURN_IF_ERROR(CopyRows(t, t[r.tokens], t[r.tokens_out], source));
  if (r.scales >= 0) RETURN_IF_ERROR(CopyRows(t, t[r.scales], t[r.scales_out], source));
  std::vector<int32_t> index(static_cast<size_t>(r.rows), 0);
  for (size_t i = 0; i < source.size(); ++i)
    if (r.scatter)
      index[source[i]] = static_cast<int32_t>(i);
    else
      index[i] = source[i];
  StoreValues(t[r.index], index.data());
  StoreValues(t[r.expert_counts], of_expert.data());
  return Status();
}

}  // namespace

Status aclnn::MoeReRouting(Call& call, const aclTensor* tokens, const aclTensor* expertTokenNumPerRank,
                           const aclTensor* perTokenScalesOptional, int64_t expertTokenNumType,
                           int64_t idxType, const aclTensor* permuteTokensOut,
                           const aclTensor* permutePerTokenScalesOut, const aclTensor* permuteTokenIdxOut,
                           const aclTensor* expertTokenNumOut) {
  RETURN_IF_ERROR(call.RequireRank(tokens, "tokens", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(expertTokenNumPerRank, "expertTokenNumPerRank", 2, 2));
  if (expertTokenNumType != 0 && expertTokenNumType != 1)
    return call.Invalid("expertTokenNumType is {}, expected 0 (cumulative) or 1 (numbers)",
                        expertTokenNumType);
  if (idxType != 0 && idxType != 1)
    return call.Invalid("idxType is {}, expected 0 (gather) or 1 (scatter)", idxType);
  ReRouting r;
  r.rows = tokens->view.dims[0];
  r.ranks = expertTokenNumPerRank->view.dims[0], r.experts = expertTokenNumPerRank->view.dims[1];
  r.scatter = idxType == 1, r.cumulative = expertTokenNumType == 0;
  if (r.rows > INT32_MAX) return call.Invalid("tokens has {} rows, more than an int32 counts", r.rows);
  RETURN_IF_ERROR(call.RequireSameShape(permuteTokensOut, "permuteTokensOut", tokens, "tokens"));
  RETURN_IF_ERROR(call.RequireDType(permuteTokensOut, "permuteTokensOut", tokens->view.dtype));
  for (const auto& [t, name, n] : {std::tuple{permuteTokenIdxOut, "permuteTokenIdxOut", r.rows},
                                   std::tuple{expertTokenNumOut, "expertTokenNumOut", r.experts}}) {
    if (t->view.numel() != n)
      return call.Invalid("{} has shape {}, expected [{}]", name, ShapeString(t->view), n);
    if (!IsInteger(t->view.dtype))
      return call.Invalid("{} has type {}, expected integers", name, Name(t->view.dtype));
  }
  if (!IsInteger(expertTokenNumPerRank->view.dtype))
    return call.Invalid("expertTokenNumPerRank has type {}, expected int32 or int64",
                        Name(expertTokenNumPerRank->view.dtype));
  const aclTensor* scales = perTokenScalesOptional;
  if (scales != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(scales, "perTokenScales", 1, 2));
    if (scales->view.dims[0] != r.rows)
      return call.Invalid("perTokenScales has shape {}, expected [{}]", ShapeString(scales->view), r.rows);
    RETURN_IF_ERROR(call.RequireSameShape(permutePerTokenScalesOut, "permutePerTokenScalesOut", scales,
                                          "perTokenScales"));
    RETURN_IF_ERROR(
        call.RequireDType(permutePerTokenScalesOut, "permutePerTokenScalesOut", scales->view.dtype));
  }
  Operands o;
  r.tokens = o.Input(tokens), r.counts = o.Input(expertTokenNumPerRank), r.scales = o.Input(scales);
  r.tokens_out = o.Output(permuteTokensOut);
  r.scales_out = o.Output(scales == nullptr ? nullptr : permutePerTokenScalesOut);
  r.index = o.Output(permuteTokenIdxOut), r.expert_counts = o.Output(expertTokenNumOut);
  return call.Launch(o.list(), Cost{0, o.bytes()}, [r](const Run& t) { return RunReRouting(t, r); });
}

}  // namespace anycann
