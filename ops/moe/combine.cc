// The way back from experts to tokens: the rows that a token's experts made, weighted and added, and the
// gradients of that.
#include <algorithm>
#include <array>
#include <atomic>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

// Token r's j-th row is rows[index]; an index outside the rows stands for a row that was dropped: zeros.
struct Combining {
  int64_t tokens = 0, k = 1, width = 0, rows = 0;
  bool by_expert = false;  // index [k, tokens] instead of [tokens, k]

  int64_t IndexOf(int64_t token, int64_t j) const { return by_expert ? j * tokens + token : token * k + j; }
};

struct CombiningOperands {
  int rows = -1, index = -1, first = -1, second = -1, bias = -1, scales = -1, expert = -1, out = -1;
};

Status RunCombine(const Run& t, const Combining& c, const CombiningOperands& at) {
  const DenseInput rows(t[at.rows]);
  const Values<int32_t> index(t[at.index]);
  const Values<float> first(t, at.first), second(t, at.second), bias(t, at.bias), scales(t, at.scales);
  const Values<int32_t> expert(t, at.expert);
  const DenseOutput out(t[at.out]);
  if (!rows.ok() || !index.ok() || !first.ok() || !second.ok() || !bias.ok() || !scales.ok() ||
      !expert.ok() || !out.ok())
    return ScratchFailed(t.plan().name);
  const int64_t experts = at.bias >= 0 ? t[at.bias].dims[0] : 0, n = c.width;
  const DenseReader<float> reader(rows.view());
  const DenseWriter<float> writer(out.view());
  std::atomic<bool> failed{false};
  std::atomic<int64_t> wrong{-1};  // a pair whose expert has no bias
  ParallelFor(c.tokens, std::max<int64_t>(1, 16384 / (c.k * n + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> row(n), sum(n);
    if (!row.ok() || !sum.ok()) {
      failed = true;
      return;
    }
    for (int64_t r = begin; r < end; ++r) {
      float* __restrict total = sum.get();
      for (int64_t i = 0; i < n; ++i)
        total[i] = (first.get() != nullptr ? first[r * n + i] : 0.0f) +
                   (second.get() != nullptr ? second[r * n + i] : 0.0f);
      for (int64_t j = 0; j < c.k; ++j) {
        const float scale = scales.get() != nullptr ? scales[r * c.k + j] : 1.0f;
        const int32_t source = index[c.IndexOf(r, j)];
        if (source >= 0 && source < c.rows) {
          const float* from = reader.Read(source * n, n, row.get());
          for (int64_t i = 0; i < n; ++i) total[i] += scale * from[i];
        }
        if (bias.get() == nullptr) continue;
        const int32_t e = expert[r * c.k + j];
        if (e < 0 || e >= experts) {
          wrong = r * c.k + j;
          return;
        }
        for (int64_t i = 0; i < n; ++i) total[i] += scale * bias[e * n + i];
      }
      float* to = writer.Begin(r * n, row.get());
      if (to != total) std::copy_n(total, n, to);
      writer.End(r * n, n, to);
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  if (wrong >= 0)
    return Error(kParamInvalid, "{}: expertIdx has {}, expected 0 to {}, a row of bias", t.plan().name,
                 expert[wrong], experts - 1);
  out.Finish();
  return Status();
}

// rows [n, width] or [experts, capacity, width]; index: one for each token and expert; out [tokens, width].
Status CheckCombine(Call& call, const aclTensor* rows, const char* rows_name, const aclTensor* index,
                    const aclTensor* out, Combining* c) {
  RETURN_IF_ERROR(call.RequireRank(rows, rows_name, 2, 3));
  RETURN_IF_ERROR(call.RequireRank(out, "out", 2, 2));
  const TensorView& v = rows->view;
  for (const auto& [t, name] : {std::pair{rows, rows_name}, std::pair{out, "out"}})
    if (!IsFloating(t->view.dtype))
      return call.Invalid("{} has type {}, expected a floating-point type", name, Name(t->view.dtype));
  c->width = v.dims[v.rank - 1];
  c->rows = v.dims[0] * (v.rank == 3 ? v.dims[1] : 1);
  c->tokens = out->view.dims[0];
  if (out->view.dims[1] != c->width)
    return call.Invalid("out has shape {}, expected rows of {} as {} has", ShapeString(out->view), c->width,
                        rows_name);
  if (!IsInteger(index->view.dtype))
    return call.Invalid("the row indices have type {}, expected int32", Name(index->view.dtype));
  if (c->k > std::max<int64_t>(1, index->view.numel()) || index->view.numel() != c->tokens * c->k)
    return call.Invalid("the row indices have shape {}, expected {} numbers for each of {} tokens",
                        ShapeString(index->view), c->k, c->tokens);
  return Status();
}

Status RequirePairs(Call& call, const aclTensor* t, const char* name, const Combining& c) {
  if (t != nullptr && t->view.numel() != c.tokens * c.k)
    return call.Invalid("{} has shape {}, expected [{},{}]", name, ShapeString(t->view), c.tokens, c.k);
  return Status();
}

Status LaunchCombine(Call& call, const aclTensor* rows, const char* rows_name, const aclTensor* index,
                     const aclTensor* first, const aclTensor* second, const aclTensor* bias,
                     const aclTensor* scales, const aclTensor* expert, const aclTensor* out, Combining c) {
  RETURN_IF_ERROR(CheckCombine(call, rows, rows_name, index, out, &c));
  RETURN_IF_ERROR(RequirePairs(call, scales, "scales", c));
  for (const aclTensor* skip : {first, second})
    if (skip != nullptr) RETURN_IF_ERROR(call.RequireSameShape(skip, "x1 or x2", out, "out"));
  if (bias != nullptr) {
    if (bias->view.rank != 2 || bias->view.dims[1] != c.width)
      return call.Invalid("bias has shape {}, expected [experts,{}]", ShapeString(bias->view), c.width);
    if (expert == nullptr) return call.Invalid("bias is given without expertIdx: whose bias is it?");
    RETURN_IF_ERROR(RequirePairs(call, expert, "expertIdx", c));
    if (!IsInteger(expert->view.dtype))
      return call.Invalid("expertIdx has type {}, expected int32", Name(expert->view.dtype));
  }
  if (out->view.empty()) return call.Nothing();
  Operands o;
  CombiningOperands at;
  at.rows = o.Input(rows);
  at.index = o.Input(index);
  at.first = o.Input(first);
  at.second = o.Input(second);
  at.bias = o.Input(bias);
  at.scales = o.Input(scales);
  at.expert = o.Input(bias != nullptr ? expert : nullptr);
  at.out = o.Output(out);
  return call.Launch(o.list(), Cost{2.0 * static_cast<double>(c.tokens * c.k * c.width), o.bytes()},
                     [c, at](const Run& t) { return RunCombine(t, c, at); });
}

// dropPadMode: 0 and 1 have the indices [k, tokens], 2 and 3 [tokens, k]; 1 and 3 have rows [experts,
// capacity, width]. Without scales each token has `k` experts.
Status LaunchFinalize(Call& call, const aclTensor* rows, const aclTensor* index, const aclTensor* first,
                      const aclTensor* second, const aclTensor* bias, const aclTensor* scales,
                      const aclTensor* expert, int64_t mode, int64_t k, const aclTensor* out) {
  if (mode < 0 || mode > 3)
    return call.Invalid("dropPadMode is {}, expected 0, 1 (indices by expert), 2 or 3 (by token)", mode);
  Combining c;
  c.by_expert = mode < 2;
  if (scales != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(scales, "scales", 2, 2));
    c.k = scales->view.dims[1];
  } else {
    c.k = k;
  }
  if (c.k < 1) return call.Invalid("k is {}, expected 1 or more", c.k);
  return LaunchCombine(call, rows, "expandedX", index, first, second, bias, scales, expert, out, c);
}

// Gradients: of row rows[index] scale * dy[token], of a scale the product of dy[token] and the row (and
// bias).
struct CombineGradOperands {
  int dy = -1, index = -1, rows = -1, bias = -1, scales = -1, expert = -1, drows = -1, dscales = -1;
};

Status RunCombineGrad(const Run& t, const Combining& c, const CombineGradOperands& at) {
  const DenseInput dy(t[at.dy]);
  const Values<int32_t> index(t[at.index]);
  const Values<float> scales(t, at.scales), bias(t, at.bias);
  const Values<int32_t> expert(t, at.expert);
  const DenseInput rows(at.rows >= 0 ? t[at.rows] : t[at.dy]);  // read only where given
  const DenseOutput drows(t[at.drows]);
  const int64_t n = c.width, experts = at.bias >= 0 ? t[at.bias].dims[0] : 0;
  const Scratch<float> dscales(c.tokens * c.k);
  const Scratch<int32_t> pair_of(c.rows);
  if (!dy.ok() || !index.ok() || !scales.ok() || !bias.ok() || !expert.ok() || !rows.ok() || !drows.ok() ||
      !dscales.ok() || !pair_of.ok())
    return ScratchFailed(t.plan().name);
  // Each row belongs to one pair at most: rows are written alone, the last pair wins where a client errs.
  std::fill_n(pair_of.get(), c.rows, -1);
  for (int64_t r = 0; r < c.tokens; ++r)
    for (int64_t j = 0; j < c.k; ++j) {
      const int32_t row = index[c.IndexOf(r, j)];
      if (row >= 0 && row < c.rows) pair_of[row] = static_cast<int32_t>(r * c.k + j);
      if (bias.get() != nullptr && (expert[r * c.k + j] < 0 || expert[r * c.k + j] >= experts))
        return Error(kParamInvalid, "{}: expertIdx has {}, expected 0 to {}, a row of bias", t.plan().name,
                     expert[r * c.k + j], experts - 1);
    }
  const DenseReader<float> dy_reader(dy.view()), row_reader(rows.view());
  const DenseWriter<float> writer(drows.view());
  std::atomic<bool> failed{false};
  const int64_t grain = std::max<int64_t>(1, 16384 / (n + 1));
  ParallelFor(c.rows, grain, [&](int64_t begin, int64_t end) {
    const Scratch<float> in(n), out(n);
    if (!in.ok() || !out.ok()) {
      failed = true;
      return;
    }
    for (int64_t row = begin; row < end; ++row) {
      float* to = writer.Begin(row * n, out.get());
      if (const int32_t pair = pair_of[row]; pair < 0) {
        std::fill_n(to, n, 0.0f);
      } else {
        const float scale = scales.get() != nullptr ? scales[pair] : 1.0f;
        const float* from = dy_reader.Read(pair / c.k * n, n, in.get());
        for (int64_t i = 0; i < n; ++i) to[i] = scale * from[i];
      }
      writer.End(row * n, n, to);
    }
  });
  if (at.dscales >= 0)
    ParallelFor(c.tokens, std::max<int64_t>(1, grain / c.k), [&](int64_t begin, int64_t end) {
      const Scratch<float> in(n), buffer(n);
      if (!in.ok() || !buffer.ok()) {
        failed = true;
        return;
      }
      for (int64_t r = begin; r < end; ++r) {
        const float* g = dy_reader.Read(r * n, n, in.get());
        for (int64_t j = 0; j < c.k; ++j) {
          const int32_t row = index[c.IndexOf(r, j)];
          float sum = 0;
          if (row >= 0 && row < c.rows) {
            const float* from = row_reader.Read(row * n, n, buffer.get());
            for (int64_t i = 0; i < n; ++i) sum += g[i] * from[i];
          }
          if (bias.get() != nullptr)
            for (int64_t i = 0; i < n; ++i) sum += g[i] * bias[expert[r * c.k + j] * n + i];
          dscales[r * c.k + j] = sum;
        }
      }
    });
  if (failed) return ScratchFailed(t.plan().name);
  drows.Finish();
  if (at.dscales >= 0) StoreValues(t[at.dscales], dscales.get());
  return Status();
}

Status LaunchCombineGrad(Call& call, const aclTensor* dy, const aclTensor* index, const aclTensor* rows,
                         const aclTensor* bias, const aclTensor* scales, const aclTensor* expert,
                         const aclTensor* drows, const aclTensor* dscales, Combining c) {
  RETURN_IF_ERROR(CheckCombine(call, drows, "the gradient of the rows", index, dy, &c));
  RETURN_IF_ERROR(RequirePairs(call, scales, "scales", c));
  if (scales == nullptr || (dscales != nullptr && dscales->view.empty())) dscales = nullptr;
  if (dscales != nullptr) {
    RETURN_IF_ERROR(RequirePairs(call, dscales, "the gradient of the scales", c));
    if (rows == nullptr)
      return call.Invalid("the gradient of the scales is asked for without the rows that they weigh");
    if (rows->view.numel() != drows->view.numel() || !IsFloating(rows->view.dtype))
      return call.Invalid("the rows have shape {} and type {}, expected {} floating-point numbers",
                          ShapeString(rows->view), Name(rows->view.dtype), drows->view.numel());
  }
  if (bias != nullptr) {
    if (bias->view.rank != 2 || bias->view.dims[1] != c.width)
      return call.Invalid("bias has shape {}, expected [experts,{}]", ShapeString(bias->view), c.width);
    if (expert == nullptr) return call.Invalid("bias is given without expertIdx: whose bias is it?");
    RETURN_IF_ERROR(RequirePairs(call, expert, "expertIdx", c));
  }
  if (drows->view.empty() && (dscales == nullptr || dy->view.empty())) return call.Nothing();
  Operands o;
  CombineGradOperands at;
  at.dy = o.Input(dy);
  at.index = o.Input(index);
  at.rows = o.Input(dscales != nullptr ? rows : nullptr);
  at.bias = o.Input(dscales != nullptr ? bias : nullptr);
  at.scales = o.Input(scales);
  at.expert = o.Input(dscales != nullptr && bias != nullptr ? expert : nullptr);
  at.drows = o.Output(drows);
  at.dscales = o.Output(dscales);
  return call.Launch(o.list(), Cost{2.0 * static_cast<double>(drows->view.numel()), o.bytes()},
                     [c, at](const Run& t) { return RunCombineGrad(t, c, at); });
}

// Tokens of a tensor of indices [tokens, k] or flat, whose number of tokens `out` tells.
Status ReadTokens(Call& call, const aclTensor* index, const aclTensor* tokens, const char* name,
                  Combining* c) {
  RETURN_IF_ERROR(call.RequireRank(tokens, name, 2, 2));
  const int64_t rows = tokens->view.dims[0];
  if (rows == 0 ? index->view.numel() != 0 : index->view.numel() % rows != 0)
    return call.Invalid("sortedIndices has shape {}, expected a multiple of {} numbers, the rows of {}",
                        ShapeString(index->view), rows, name);
  c->k = rows == 0 ? 1 : index->view.numel() / rows;
  return Status();
}

}  // namespace

Status aclnn::MoeFinalizeRouting(Call& call, const aclTensor* expandedX, const aclTensor* x1,
                                 const aclTensor* x2Optional, const aclTensor* bias, const aclTensor* scales,
                                 const aclTensor* expandedRowIdx, const aclTensor* expandedExpertIdx,
                                 const aclTensor* out) {
  return LaunchFinalize(call, expandedX, expandedRowIdx, x1, x2Optional, bias, scales, expandedExpertIdx, 0,
                        1, out);
}

Status aclnn::MoeFinalizeRoutingV2(Call& call, const aclTensor* expandedX, const aclTensor* expandedRowIdx,
                                   const aclTensor* x1Optional, const aclTensor* x2Optional,
                                   const aclTensor* biasOptional, const aclTensor* scalesOptional,
                                   const aclTensor* expertIdxOptional, int64_t dropPadMode,
                                   const aclTensor* out) {
  return LaunchFinalize(call, expandedX, expandedRowIdx, x1Optional, x2Optional, biasOptional, scalesOptional,
                        expertIdxOptional, dropPadMode, 1, out);
}

Status aclnn::MoeFinalizeRoutingV4(Call& call, const aclTensor* expandedX, const aclTensor* expandedRowIdx,
                                   const aclTensor* x1Optional, const aclTensor* x2Optional,
                                   const aclTensor* biasOptional, const aclTensor* scalesOptional,
                                   const aclTensor* expertIdxOptional, const aclTensor* xOptional,
                                   const aclTensor* a1Optional, const aclTensor* a2Optional,
                                   const aclTensor* vOptional, int64_t dropPadMode,
                                   const aclIntArray* zeroExpertRange, const aclIntArray* copyExpertRange,
                                   const aclIntArray* constantExpertRange, int64_t k, const aclTensor* out) {
  for (const auto& [t, name] : {std::pair{xOptional, "xOptional"}, std::pair{a1Optional, "a1Optional"},
                                std::pair{a2Optional, "a2Optional"}, std::pair{vOptional, "vOptional"}})
    if (t != nullptr) return call.Invalid("{} is given: constant experts are not supported", name);
  for (const auto& [a, name] :
       {std::pair{zeroExpertRange, "zeroExpertRange"}, std::pair{copyExpertRange, "copyExpertRange"},
        std::pair{constantExpertRange, "constantExpertRange"}})
    if (a != nullptr && a->size > 0)
      return call.Invalid("{} is given: experts without weights are not supported", name);
  return LaunchFinalize(call, expandedX, expandedRowIdx, x1Optional, x2Optional, biasOptional, scalesOptional,
                        expertIdxOptional, dropPadMode, k, out);
}

Status aclnn::MoeFinalizeRoutingV2Grad(Call& call, const aclTensor* gradY, const aclTensor* expandedRowIdx,
                                       const aclTensor* expandedXOptional, const aclTensor* scalesOptional,
                                       const aclTensor* expertIdxOptional, const aclTensor* biasOptional,
                                       int64_t dropPadMode, int64_t activeNum, int64_t expertNum,
                                       int64_t expertCapacity, const aclTensor* gradExpandedXOut,
                                       const aclTensor* gradScalesOut) {
  (void)activeNum, (void)expertNum, (void)expertCapacity;  // the shape of gradExpandedXOut says them
  if (dropPadMode != 0 && dropPadMode != 1)
    return call.Invalid("dropPadMode is {}, expected 0 or 1", dropPadMode);
  Combining c;
  RETURN_IF_ERROR(ReadTokens(call, expandedRowIdx, gradY, "gradY", &c));
  return LaunchCombineGrad(call, gradY, expandedRowIdx, expandedXOptional, biasOptional, scalesOptional,
                           expertIdxOptional, gradExpandedXOut, gradScalesOut, c);
}

Status aclnn::MoeInitRoutingV2Grad(Call& call, const aclTensor* gradExpandedX,
                                   const aclTensor* expandedRowIdx, int64_t topK, int64_t dropPadMode,
                                   int64_t activeNum, const aclTensor* out) {
  (void)activeNum;  // the shape of gradExpandedX says it
  if (dropPadMode != 0 && dropPadMode != 1)
    return call.Invalid("dropPadMode is {}, expected 0 or 1", dropPadMode);
  if (topK < 1) return call.Invalid("topK is {}, expected 1 or more", topK);
  Combining c;
  c.k = topK;
  return LaunchCombine(call, gradExpandedX, "gradExpandedX", expandedRowIdx, nullptr, nullptr, nullptr,
                       nullptr, nullptr, out, c);
}

Status aclnn::MoeTokenPermuteGrad(Call& call, const aclTensor* permutedOutputGrad,
                                  const aclTensor* sortedIndices, int64_t numTopk, bool paddedMode,
                                  aclTensor* out) {
  if (paddedMode) return call.Invalid("paddedMode is true, which is not supported: pass false");
  if (numTopk < 1) return call.Invalid("numTopk is {}, expected 1 or more", numTopk);
  Combining c;
  c.k = numTopk;
  return LaunchCombine(call, permutedOutputGrad, "permutedOutputGrad", sortedIndices, nullptr, nullptr,
                       nullptr, nullptr, nullptr, out, c);
}

Status aclnn::MoeTokenUnpermute(Call& call, const aclTensor* permutedTokens, const aclTensor* sortedIndices,
                                const aclTensor* probsOptional, bool paddedMode,
                                const aclIntArray* restoreShapeOptional, aclTensor* out) {
  (void)restoreShapeOptional;  // of the padded mode
  if (paddedMode) return call.Invalid("paddedMode is true, which is not supported: pass false");
  Combining c;
  RETURN_IF_ERROR(ReadTokens(call, sortedIndices, out, "out", &c));
  return LaunchCombine(call, permutedTokens, "permutedTokens", sortedIndices, nullptr, nullptr, nullptr,
                       probsOptional, nullptr, out, c);
}

Status aclnn::MoeTokenUnpermuteGrad(Call& call, const aclTensor* permuteTokensOptional,
                                    const aclTensor* unpermutedTokensGrad, const aclTensor* sortedIndices,
                                    const aclTensor* probsOptional, bool paddedMode,
                                    const aclIntArray* restoreShapeOptional, aclTensor* permutedTokensGradOut,
                                    aclTensor* probsGradOut) {
  (void)restoreShapeOptional;  // of the padded mode
  if (paddedMode) return call.Invalid("paddedMode is true, which is not supported: pass false");
  Combining c;
  RETURN_IF_ERROR(ReadTokens(call, sortedIndices, unpermutedTokensGrad, "unpermutedTokensGrad", &c));
  return LaunchCombineGrad(call, unpermutedTokensGrad, sortedIndices, permuteTokensOptional, nullptr,
                           probsOptional, nullptr, permutedTokensGradOut, probsGradOut, c);
}

}  // namespace anycann
