// The gradients of the flash attention operators.
#include "aclnn_ops.h"
#include "base/scratch.h"
#include "ops/attention/flash_parameters.h"
#include "ops/convert.h"

namespace anycann {
namespace {

Status RequireAbsent(Call& call, const aclTensor* t, const char* name) {
  return t == nullptr || t->view.numel() == 0 ? Status() : call.Invalid("{} is not supported", name);
}

struct Outputs {
  const aclTensor* dy = nullptr;
  const aclTensor* dq = nullptr;
  const aclTensor* dk = nullptr;
  const aclTensor* dv = nullptr;
  const aclTensor* dq_rope = nullptr;
  const aclTensor* dk_rope = nullptr;
  const aclTensor* dpse = nullptr;
  const aclTensor* dsink = nullptr;
};

// Where the gradient's operands follow the forward's.
struct GradientPlan {
  FlashPlan flash;
  AttentionGradients gradients;  // without addresses
  int first = 0;                 // dy, dq, dk, dv, then dqRope, dkRope, dpse and dsink if present
  bool has_dpse = false, has_dsink = false;
  int64_t dpse_strides[4] = {0, 0, 0, 0};  // of a contiguous tensor of pse's shape, 0 where it is broadcast
};

Status RunGradient(const GradientPlan& plan, const Run& t) {
  JoinedRows rows, gradients;
  const Attention a = plan.flash.Bind(t, &rows);
  AttentionGradients g = plan.gradients;
  int next = plan.first;
  for (HeadView* v : {&g.dout, &g.dq, &g.dk, &g.dv}) v->data = t[next++].bytes();
  const int rope = next;
  TensorView dq, dk;
  if (plan.flash.has_rope) {
    dq = NewJoined(plan.flash.joined_q, &gradients.q), dk = NewJoined(plan.flash.joined_k, &gradients.k);
    if (dq.data == nullptr || dk.data == nullptr) return ScratchFailed(t.plan().name);
    g.dq.data = dq.bytes(), g.dk.data = dk.bytes();
    next += 2;
  }
  TensorView sums;
  if (plan.has_dpse) {
    const TensorView& to = t[next];
    sums = TensorView::Contiguous(nullptr, DType::kFloat, to.dims, to.rank);
    sums.data = ThreadScratch(ScratchSlot::kSums, static_cast<size_t>(sums.nbytes()));
    if (sums.data == nullptr)
      return Error(kBadAlloc, "no memory for the gradient of pse {}", ShapeString(to));
    std::fill_n(sums.ptr<float>(), sums.numel(), 0.0f);
    g.dpse = {sums.bytes(),         DType::kFloat,        plan.dpse_strides[0],
              plan.dpse_strides[1], plan.dpse_strides[2], plan.dpse_strides[3]};
  }
  if (plan.has_dsink) {
    const TensorView& to = t[next + plan.has_dpse];
    std::fill_n(to.ptr<float>(), to.numel(), 0.0f);
    g.dsink = to.ptr<float>();
  }
  RETURN_IF_ERROR(AttentionBackward(a, g));
  if (plan.has_dpse) CopyCast(t[next], sums);
  if (plan.flash.has_rope) {
    Split(dq, t[plan.first + 1], t[rope]);
    Split(dk, t[plan.first + 2], t[rope + 1]);
  }
  return Status();
}

Status CheckGradient(Call& call, const aclTensor* t, const char* name, const aclTensor* like,
                     const char* like_name) {
  if (!IsFloating(t->view.dtype))
    return call.Invalid("{} has type {}, which is not supported", name, Name(t->view.dtype));
  return call.RequireSameShape(t, name, like, like_name);
}

Status CheckExtras(Call& call, const FlashParameters& p, const Outputs& o, GradientPlan* plan) {
  const Attention& a = plan->flash.attention;
  plan->has_dpse = plan->flash.has_pse && o.dpse != nullptr && o.dpse->view.numel() > 0 &&
                   a.pse_kind < PositionBias::kSlopes;
  if (plan->has_dpse) {
    RETURN_IF_ERROR(CheckGradient(call, o.dpse, "dpse", p.pse, "pse"));
    const TensorView& v = o.dpse->view;
    const int64_t forward[4] = {a.pse.batch, a.pse.head, a.pse.sequence, a.pse.dim};
    int64_t stride = 1;
    for (int i = v.rank - 1; i >= 0; --i) {
      const int d = 4 - v.rank + i;
      plan->dpse_strides[d] = v.dims[i] == 1 && forward[d] == 0 ? 0 : stride;
      stride *= v.dims[i];
    }
  }
  plan->has_dsink = plan->flash.has_sink && o.dsink != nullptr && o.dsink->view.numel() > 0;
  if (plan->has_dsink && (o.dsink->view.dtype != DType::kFloat || !o.dsink->view.contiguous() ||
                          o.dsink->view.numel() != a.heads))
    return call.Invalid("dsink has shape {} {}, expected [{}] float32", ShapeString(o.dsink->view),
                        Name(o.dsink->view.dtype), a.heads);
  return Status();
}

Status LaunchGradient(Call& call, const FlashParameters& p, const Outputs& o) {
  for (const auto& [t, name] :
       {std::pair{p.max, "softmaxMax"}, std::pair{p.sum, "softmaxSum"}, std::pair{p.out, "attentionIn"}})
    if (t == nullptr) return call.Invalid("{} is null: the gradient needs what the forward computed", name);
  GradientPlan plan;
  Arg args[kFlashOperands + 8];
  int count = 0;
  RETURN_IF_ERROR(PlanFlash(call, p, false, &plan.flash, args, &count));
  RETURN_IF_ERROR(CheckGradient(call, o.dy, "dy", p.out, "attentionIn"));
  RETURN_IF_ERROR(CheckGradient(call, o.dq, "dq", p.query, "query"));
  RETURN_IF_ERROR(CheckGradient(call, o.dk, "dk", p.key, "key"));
  RETURN_IF_ERROR(CheckGradient(call, o.dv, "dv", p.value, "value"));
  RETURN_IF_ERROR(CheckExtras(call, p, o, &plan));
  const Attention& a = plan.flash.attention;
  plan.gradients.dout = HeadsOf(o.dy->view, p.layout, a.heads);
  const bool rope = plan.flash.has_rope;
  if (rope) {
    for (const auto& [t, name] : {std::pair{o.dq_rope, "dqRope"}, std::pair{o.dk_rope, "dkRope"}})
      if (t == nullptr) return call.Invalid("{} is null, but queryRope is given", name);
    RETURN_IF_ERROR(CheckGradient(call, o.dq_rope, "dqRope", p.query_rope, "queryRope"));
    RETURN_IF_ERROR(CheckGradient(call, o.dk_rope, "dkRope", p.key_rope, "keyRope"));
  }
  plan.gradients.dq = HeadsOf(rope ? plan.flash.joined_q : o.dq->view, p.layout, a.heads);
  plan.gradients.dk = HeadsOf(rope ? plan.flash.joined_k : o.dk->view, p.layout, a.kv_heads);
  plan.gradients.dv = HeadsOf(o.dv->view, p.layout, a.kv_heads);
  plan.first = count;
  args[count++] = In(o.dy);
  args[count++] = Out(o.dq);
  args[count++] = Out(o.dk);
  args[count++] = Out(o.dv);
  if (rope) args[count++] = Out(o.dq_rope), args[count++] = Out(o.dk_rope);
  if (plan.has_dpse) args[count++] = Out(o.dpse);
  if (plan.has_dsink) args[count++] = Out(o.dsink);
  const double scores = static_cast<double>(a.heads * a.q_len) * static_cast<double>(a.k_len) *
                        static_cast<double>(plan.flash.q_ends.empty() ? a.batches : 1);
  const Cost cost{
      2 * scores * static_cast<double>(3 * a.dim + 2 * a.value_dim),
      3 * static_cast<double>(p.query->view.nbytes() + p.key->view.nbytes() + p.value->view.nbytes())};
  return call.Launch(std::span<const Arg>(args, count), cost,
                     [plan = std::move(plan)](const Run& t) -> Status { return RunGradient(plan, t); });
}

}  // namespace

Status aclnn::FlashAttentionScoreGrad(Call& call, const aclTensor* query, const aclTensor* keyIn,
                                      const aclTensor* value, const aclTensor* dy,
                                      const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
                                      const aclTensor* paddingMaskOptional,
                                      const aclTensor* attenMaskOptional, const aclTensor* softmaxMaxOptional,
                                      const aclTensor* softmaxSumOptional, const aclTensor*,
                                      const aclTensor* attentionInOptional, const aclIntArray* prefixOptional,
                                      double scaleValue, double keepProb, int64_t preTokens,
                                      int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t,
                                      int64_t sparseMode, const aclTensor* dqOut, const aclTensor* dkOut,
                                      const aclTensor* dvOut, const aclTensor* dpseOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = keyIn,
                             .value = value,
                             .pse = pseShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .prefix = prefixOptional,
                             .scale = scaleValue,
                             .keep = keepProb,
                             .before = preTokens,
                             .after = nextTokens,
                             .heads = headNum,
                             .layout = inputLayout,
                             .sparse_mode = sparseMode,
                             .max = softmaxMaxOptional,
                             .sum = softmaxSumOptional,
                             .out = attentionInOptional,
                             .out_name = "attentionIn"};
  return LaunchGradient(call, p, {.dy = dy, .dq = dqOut, .dk = dkOut, .dv = dvOut, .dpse = dpseOut});
}

Status aclnn::FlashAttentionScoreGradV2(
    Call& call, const aclTensor* query, const aclTensor* keyIn, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional, const aclTensor*,
    const aclTensor* attentionInOptional, const aclIntArray* prefixOptional,
    const aclIntArray* qStartIdxOptional, const aclIntArray* kvStartIdxOptional, double scaleValue,
    double keepProb, int64_t preTokens, int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t,
    int64_t sparseMode, int64_t pseType, const aclTensor* dqOut, const aclTensor* dkOut,
    const aclTensor* dvOut, const aclTensor* dpseOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = keyIn,
                             .value = value,
                             .pse = pseShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .prefix = prefixOptional,
                             .q_start = qStartIdxOptional,
                             .k_start = kvStartIdxOptional,
                             .scale = scaleValue,
                             .keep = keepProb,
                             .before = preTokens,
                             .after = nextTokens,
                             .heads = headNum,
                             .layout = inputLayout,
                             .sparse_mode = sparseMode,
                             .pse_type = pseType,
                             .max = softmaxMaxOptional,
                             .sum = softmaxSumOptional,
                             .out = attentionInOptional,
                             .out_name = "attentionIn"};
  return LaunchGradient(call, p, {.dy = dy, .dq = dqOut, .dk = dkOut, .dv = dvOut, .dpse = dpseOut});
}

Status aclnn::FlashAttentionScoreGradV3(
    Call& call, const aclTensor* query, const aclTensor* keyIn, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional, const aclTensor*,
    const aclTensor* attentionInOptional, const aclTensor* sinkInOptional, const aclIntArray* prefixOptional,
    const aclIntArray* qStartIdxOptional, const aclIntArray* kvStartIdxOptional, double scaleValue,
    double keepProb, int64_t preTokens, int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t,
    int64_t sparseMode, int64_t pseType, const aclTensor* dqOut, const aclTensor* dkOut,
    const aclTensor* dvOut, const aclTensor* dpseOut, const aclTensor* dsinkOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = keyIn,
                             .value = value,
                             .pse = pseShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .sink = sinkInOptional,
                             .prefix = prefixOptional,
                             .q_start = qStartIdxOptional,
                             .k_start = kvStartIdxOptional,
                             .scale = scaleValue,
                             .keep = keepProb,
                             .before = preTokens,
                             .after = nextTokens,
                             .heads = headNum,
                             .layout = inputLayout,
                             .sparse_mode = sparseMode,
                             .pse_type = pseType,
                             .max = softmaxMaxOptional,
                             .sum = softmaxSumOptional,
                             .out = attentionInOptional,
                             .out_name = "attentionIn"};
  return LaunchGradient(
      call, p, {.dy = dy, .dq = dqOut, .dk = dkOut, .dv = dvOut, .dpse = dpseOut, .dsink = dsinkOut});
}

Status aclnn::FlashAttentionScoreGradV4(
    Call& call, const aclTensor* query, const aclTensor* keyIn, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional, const aclTensor*,
    const aclTensor* attentionInOptional, const aclTensor* sinkInOptional, const aclTensor* queryRopeOptional,
    const aclTensor* keyRopeOptional, const aclTensor* dScaleQOptional, const aclTensor* dScaleKOptional,
    const aclTensor* dScaleVOptional, const aclTensor* dScaleDyOptional, const aclTensor* dScaleOOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, const aclIntArray* qStartIdxOptional,
    const aclIntArray* kvStartIdxOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, char*, int64_t, int64_t sparseMode,
    int64_t pseType, int64_t, int64_t, int64_t, const aclTensor* dqOut, const aclTensor* dkOut,
    const aclTensor* dvOut, const aclTensor* dqRopeOut, const aclTensor* dkRopeOut, const aclTensor* dpseOut,
    const aclTensor* dsinkOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleQOptional, "dScaleQOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleKOptional, "dScaleKOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleVOptional, "dScaleVOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleDyOptional, "dScaleDyOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleOOptional, "dScaleOOptional"));
  const FlashParameters p = {.query = query,
                             .key = keyIn,
                             .value = value,
                             .query_rope = Given(queryRopeOptional),
                             .key_rope = Given(keyRopeOptional),
                             .pse = pseShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .sink = sinkInOptional,
                             .prefix = prefixOptional,
                             .q_lengths = actualSeqQLenOptional,
                             .k_lengths = actualSeqKvLenOptional,
                             .q_start = qStartIdxOptional,
                             .k_start = kvStartIdxOptional,
                             .scale = scaleValue,
                             .keep = keepProb,
                             .before = preTokens,
                             .after = nextTokens,
                             .heads = headNum,
                             .layout = inputLayout,
                             .sparse_mode = sparseMode,
                             .pse_type = pseType,
                             .max = softmaxMaxOptional,
                             .sum = softmaxSumOptional,
                             .out = attentionInOptional,
                             .out_name = "attentionIn"};
  return LaunchGradient(call, p,
                        {.dy = dy,
                         .dq = dqOut,
                         .dk = dkOut,
                         .dv = dvOut,
                         .dq_rope = dqRopeOut,
                         .dk_rope = dkRopeOut,
                         .dpse = dpseOut,
                         .dsink = dsinkOut});
}

Status aclnn::FlashAttentionUnpaddingScoreGradV5(
    Call& call, const aclTensor* query, const aclTensor* queryRope, const aclTensor* keyIn,
    const aclTensor* keyInRope, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional, const aclTensor*,
    const aclTensor* attentionInOptional, const aclTensor* sinkInOptional, const aclIntArray* prefixOptional,
    const aclIntArray* actualSeqQLenOptional, const aclIntArray* actualSeqKvLenOptional,
    const aclIntArray* qStartIdxOptional, const aclIntArray* kvStartIdxOptional, double scaleValue,
    double keepProb, int64_t preTokens, int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t,
    int64_t sparseMode, int64_t pseType, char*, const aclTensor* dqOut, const aclTensor* dqRopeOut,
    const aclTensor* dkOut, const aclTensor* dkRopeOut, const aclTensor* dvOut, const aclTensor* dpseOut,
    const aclTensor* dsinkOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = keyIn,
                             .value = value,
                             .query_rope = Given(queryRope),
                             .key_rope = Given(keyInRope),
                             .pse = pseShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .sink = sinkInOptional,
                             .prefix = prefixOptional,
                             .q_lengths = actualSeqQLenOptional,
                             .k_lengths = actualSeqKvLenOptional,
                             .q_start = qStartIdxOptional,
                             .k_start = kvStartIdxOptional,
                             .scale = scaleValue,
                             .keep = keepProb,
                             .before = preTokens,
                             .after = nextTokens,
                             .heads = headNum,
                             .layout = inputLayout,
                             .sparse_mode = sparseMode,
                             .pse_type = pseType,
                             .max = softmaxMaxOptional,
                             .sum = softmaxSumOptional,
                             .out = attentionInOptional,
                             .out_name = "attentionIn"};
  return LaunchGradient(call, p,
                        {.dy = dy,
                         .dq = dqOut,
                         .dk = dkOut,
                         .dv = dvOut,
                         .dq_rope = dqRopeOut,
                         .dk_rope = dkRopeOut,
                         .dpse = dpseOut,
                         .dsink = dsinkOut});
}

Status aclnn::FlashAttentionUnpaddingScoreGrad(
    Call& call, const aclTensor* query, const aclTensor* keyIn, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional,
    const aclTensor* softmaxInOptional, const aclTensor* attentionInOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t innerPrecise, int64_t sparseMode,
    const aclTensor* dqOut, const aclTensor* dkOut, const aclTensor* dvOut, const aclTensor* dpseOut) {
  return FlashAttentionUnpaddingScoreGradV5(
      call, query, nullptr, keyIn, nullptr, value, dy, pseShiftOptional, dropMaskOptional,
      paddingMaskOptional, attenMaskOptional, softmaxMaxOptional, softmaxSumOptional, softmaxInOptional,
      attentionInOptional, nullptr, prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional, nullptr,
      nullptr, scaleValue, keepProb, preTokens, nextTokens, headNum, inputLayout, innerPrecise, sparseMode, 1,
      nullptr, dqOut, nullptr, dkOut, nullptr, dvOut, dpseOut, nullptr);
}

Status aclnn::FlashAttentionUnpaddingScoreGradV2(
    Call& call, const aclTensor* query, const aclTensor* keyIn, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional,
    const aclTensor* softmaxInOptional, const aclTensor* attentionInOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, const aclIntArray* qStartIdxOptional,
    const aclIntArray* kvStartIdxOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t innerPrecise, int64_t sparseMode,
    int64_t pseType, const aclTensor* dqOut, const aclTensor* dkOut, const aclTensor* dvOut,
    const aclTensor* dpseOut) {
  return FlashAttentionUnpaddingScoreGradV5(
      call, query, nullptr, keyIn, nullptr, value, dy, pseShiftOptional, dropMaskOptional,
      paddingMaskOptional, attenMaskOptional, softmaxMaxOptional, softmaxSumOptional, softmaxInOptional,
      attentionInOptional, nullptr, prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional,
      qStartIdxOptional, kvStartIdxOptional, scaleValue, keepProb, preTokens, nextTokens, headNum,
      inputLayout, innerPrecise, sparseMode, pseType, nullptr, dqOut, nullptr, dkOut, nullptr, dvOut, dpseOut,
      nullptr);
}

Status aclnn::FlashAttentionUnpaddingScoreGradV3(
    Call& call, const aclTensor* query, const aclTensor* queryRope, const aclTensor* keyIn,
    const aclTensor* keyInRope, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional,
    const aclTensor* softmaxInOptional, const aclTensor* attentionInOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, const aclIntArray* qStartIdxOptional,
    const aclIntArray* kvStartIdxOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t innerPrecise, int64_t sparseMode,
    int64_t pseType, const aclTensor* dqOut, const aclTensor* dqRopeOut, const aclTensor* dkOut,
    const aclTensor* dkRopeOut, const aclTensor* dvOut, const aclTensor* dpseOut) {
  return FlashAttentionUnpaddingScoreGradV5(
      call, query, queryRope, keyIn, keyInRope, value, dy, pseShiftOptional, dropMaskOptional,
      paddingMaskOptional, attenMaskOptional, softmaxMaxOptional, softmaxSumOptional, softmaxInOptional,
      attentionInOptional, nullptr, prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional,
      qStartIdxOptional, kvStartIdxOptional, scaleValue, keepProb, preTokens, nextTokens, headNum,
      inputLayout, innerPrecise, sparseMode, pseType, nullptr, dqOut, dqRopeOut, dkOut, dkRopeOut, dvOut,
      dpseOut, nullptr);
}

Status aclnn::FlashAttentionUnpaddingScoreGradV4(
    Call& call, const aclTensor* query, const aclTensor* keyIn, const aclTensor* value, const aclTensor* dy,
    const aclTensor* pseShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* softmaxMaxOptional, const aclTensor* softmaxSumOptional,
    const aclTensor* softmaxInOptional, const aclTensor* attentionInOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t innerPrecise, int64_t sparseMode,
    const aclTensor* dqOut, const aclTensor* dkOut, const aclTensor* dvOut, const aclTensor* dpseOut,
    char* softmaxInLayout) {
  return FlashAttentionUnpaddingScoreGradV5(
      call, query, nullptr, keyIn, nullptr, value, dy, pseShiftOptional, dropMaskOptional,
      paddingMaskOptional, attenMaskOptional, softmaxMaxOptional, softmaxSumOptional, softmaxInOptional,
      attentionInOptional, nullptr, prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional, nullptr,
      nullptr, scaleValue, keepProb, preTokens, nextTokens, headNum, inputLayout, innerPrecise, sparseMode, 1,
      softmaxInLayout, dqOut, nullptr, dkOut, nullptr, dvOut, dpseOut, nullptr);
}

}  // namespace anycann
