// The flash attention operators: forward, of fixed and of packed sequences.
#include "aclnn_ops.h"
#include "ops/attention/flash_parameters.h"

namespace anycann {
namespace {

Status RequireAbsent(Call& call, const aclTensor* t, const char* name) {
  return t == nullptr || t->view.numel() == 0 ? Status() : call.Invalid("{} is not supported", name);
}

Status LaunchForward(Call& call, const FlashParameters& p) {
  FlashPlan plan;
  Arg args[kFlashOperands];
  int count = 0;
  RETURN_IF_ERROR(PlanFlash(call, p, true, &plan, args, &count));
  if (p.out->view.empty()) return call.Nothing();
  const Cost cost = FlashCost(p, plan);
  return call.Launch(std::span<const Arg>(args, count), cost,
                     [plan = std::move(plan)](const Run& t) -> Status {
                       JoinedRows joined;
                       return AttentionForward(plan.Bind(t, &joined));
                     });
}

}  // namespace

Status aclnn::FlashAttentionScore(Call& call, const aclTensor* query, const aclTensor* key,
                                  const aclTensor* value, const aclTensor* realShiftOptional,
                                  const aclTensor* dropMaskOptional, const aclTensor* paddingMaskOptional,
                                  const aclTensor* attenMaskOptional, const aclIntArray* prefixOptional,
                                  double scaleValue, double keepProb, int64_t preTokens, int64_t nextTokens,
                                  int64_t headNum, char* inputLayout, int64_t, int64_t sparseMode,
                                  const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
                                  const aclTensor*, const aclTensor* attentionOutOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = key,
                             .value = value,
                             .pse = realShiftOptional,
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
                             .max = softmaxMaxOut,
                             .sum = softmaxSumOut,
                             .out = attentionOutOut};
  return LaunchForward(call, p);
}

Status aclnn::FlashAttentionScoreV2(Call& call, const aclTensor* query, const aclTensor* key,
                                    const aclTensor* value, const aclTensor* realShiftOptional,
                                    const aclTensor* dropMaskOptional, const aclTensor* paddingMaskOptional,
                                    const aclTensor* attenMaskOptional, const aclIntArray* prefixOptional,
                                    const aclIntArray* qStartIdxOptional,
                                    const aclIntArray* kvStartIdxOptional, double scaleValue, double keepProb,
                                    int64_t preTokens, int64_t nextTokens, int64_t headNum, char* inputLayout,
                                    int64_t, int64_t sparseMode, int64_t pseType,
                                    const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
                                    const aclTensor*, const aclTensor* attentionOutOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = key,
                             .value = value,
                             .pse = realShiftOptional,
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
                             .max = softmaxMaxOut,
                             .sum = softmaxSumOut,
                             .out = attentionOutOut};
  return LaunchForward(call, p);
}

Status aclnn::FlashAttentionScoreV3(Call& call, const aclTensor* query, const aclTensor* key,
                                    const aclTensor* value, const aclTensor* realShiftOptional,
                                    const aclTensor* dropMaskOptional, const aclTensor* paddingMaskOptional,
                                    const aclTensor* attenMaskOptional, const aclTensor* sinkOptional,
                                    const aclIntArray* prefixOptional, const aclIntArray* qStartIdxOptional,
                                    const aclIntArray* kvStartIdxOptional, double scaleValue, double keepProb,
                                    int64_t preTokens, int64_t nextTokens, int64_t headNum, char* inputLayout,
                                    int64_t, int64_t sparseMode, int64_t pseType,
                                    const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
                                    const aclTensor*, const aclTensor* attentionOutOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = key,
                             .value = value,
                             .pse = realShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .sink = sinkOptional,
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
                             .max = softmaxMaxOut,
                             .sum = softmaxSumOut,
                             .out = attentionOutOut};
  return LaunchForward(call, p);
}

Status aclnn::FlashAttentionScoreV4(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* realShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclTensor* queryRopeOptional, const aclTensor* keyRopeOptional, const aclTensor* dScaleQOptional,
    const aclTensor* dScaleKOptional, const aclTensor* dScaleVOptional, const aclTensor* sinkOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, const aclIntArray* qStartIdxOptional,
    const aclIntArray* kvStartIdxOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t, int64_t sparseMode, int64_t,
    int64_t pseType, char*, int64_t, int64_t, const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
    const aclTensor*, const aclTensor* attentionOutOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleQOptional, "dScaleQOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleKOptional, "dScaleKOptional"));
  RETURN_IF_ERROR(RequireAbsent(call, dScaleVOptional, "dScaleVOptional"));
  const FlashParameters p = {.query = query,
                             .key = key,
                             .value = value,
                             .query_rope = Given(queryRopeOptional),
                             .key_rope = Given(keyRopeOptional),
                             .pse = realShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .sink = sinkOptional,
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
                             .max = softmaxMaxOut,
                             .sum = softmaxSumOut,
                             .out = attentionOutOut};
  return LaunchForward(call, p);
}

Status aclnn::FlashAttentionVarLenScoreV5(
    Call& call, const aclTensor* query, const aclTensor* queryRope, const aclTensor* key,
    const aclTensor* keyRope, const aclTensor* value, const aclTensor* realShiftOptional,
    const aclTensor* dropMaskOptional, const aclTensor* paddingMaskOptional,
    const aclTensor* attenMaskOptional, const aclTensor* sinkOptional, const aclIntArray* prefixOptional,
    const aclIntArray* actualSeqQLenOptional, const aclIntArray* actualSeqKvLenOptional,
    const aclIntArray* qStartIdxOptional, const aclIntArray* kvStartIdxOptional, double scaleValue,
    double keepProb, int64_t preTokens, int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t,
    int64_t sparseMode, int64_t pseType, char*, const aclTensor* softmaxMaxOut,
    const aclTensor* softmaxSumOut, const aclTensor*, const aclTensor* attentionOutOut) {
  RETURN_IF_ERROR(RequireAbsent(call, paddingMaskOptional, "paddingMaskOptional"));
  const FlashParameters p = {.query = query,
                             .key = key,
                             .value = value,
                             .query_rope = Given(queryRope),
                             .key_rope = Given(keyRope),
                             .pse = realShiftOptional,
                             .drop_mask = dropMaskOptional,
                             .mask = attenMaskOptional,
                             .sink = sinkOptional,
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
                             .max = softmaxMaxOut,
                             .sum = softmaxSumOut,
                             .out = attentionOutOut};
  return LaunchForward(call, p);
}

Status aclnn::FlashAttentionVarLenScore(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* realShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t innerPrecise, int64_t sparseMode,
    const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut, const aclTensor* softmaxOutOut,
    const aclTensor* attentionOutOut) {
  return FlashAttentionVarLenScoreV5(
      call, query, nullptr, key, nullptr, value, realShiftOptional, dropMaskOptional, paddingMaskOptional,
      attenMaskOptional, nullptr, prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional, nullptr,
      nullptr, scaleValue, keepProb, preTokens, nextTokens, headNum, inputLayout, innerPrecise, sparseMode, 1,
      nullptr, softmaxMaxOut, softmaxSumOut, softmaxOutOut, attentionOutOut);
}

Status aclnn::FlashAttentionVarLenScoreV2(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* realShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, const aclIntArray* qStartIdxOptional,
    const aclIntArray* kvStartIdxOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t innerPrecise, int64_t sparseMode,
    int64_t pseType, const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
    const aclTensor* softmaxOutOut, const aclTensor* attentionOutOut) {
  return FlashAttentionVarLenScoreV5(call, query, nullptr, key, nullptr, value, realShiftOptional,
                                     dropMaskOptional, paddingMaskOptional, attenMaskOptional, nullptr,
                                     prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional,
                                     qStartIdxOptional, kvStartIdxOptional, scaleValue, keepProb, preTokens,
                                     nextTokens, headNum, inputLayout, innerPrecise, sparseMode, pseType,
                                     nullptr, softmaxMaxOut, softmaxSumOut, softmaxOutOut, attentionOutOut);
}

Status aclnn::FlashAttentionVarLenScoreV3(
    Call& call, const aclTensor* query, const aclTensor* queryRope, const aclTensor* key,
    const aclTensor* keyRope, const aclTensor* value, const aclTensor* realShiftOptional,
    const aclTensor* dropMaskOptional, const aclTensor* paddingMaskOptional,
    const aclTensor* attenMaskOptional, const aclIntArray* prefixOptional,
    const aclIntArray* actualSeqQLenOptional, const aclIntArray* actualSeqKvLenOptional,
    const aclIntArray* qStartIdxOptional, const aclIntArray* kvStartIdxOptional, double scaleValue,
    double keepProb, int64_t preTokens, int64_t nextTokens, int64_t headNum, char* inputLayout,
    int64_t innerPrecise, int64_t sparseMode, int64_t pseType, const aclTensor* softmaxMaxOut,
    const aclTensor* softmaxSumOut, const aclTensor* softmaxOutOut, const aclTensor* attentionOutOut) {
  return FlashAttentionVarLenScoreV5(call, query, queryRope, key, keyRope, value, realShiftOptional,
                                     dropMaskOptional, paddingMaskOptional, attenMaskOptional, nullptr,
                                     prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional,
                                     qStartIdxOptional, kvStartIdxOptional, scaleValue, keepProb, preTokens,
                                     nextTokens, headNum, inputLayout, innerPrecise, sparseMode, pseType,
                                     nullptr, softmaxMaxOut, softmaxSumOut, softmaxOutOut, attentionOutOut);
}

Status aclnn::FlashAttentionVarLenScoreV4(
    Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* value,
    const aclTensor* realShiftOptional, const aclTensor* dropMaskOptional,
    const aclTensor* paddingMaskOptional, const aclTensor* attenMaskOptional,
    const aclIntArray* prefixOptional, const aclIntArray* actualSeqQLenOptional,
    const aclIntArray* actualSeqKvLenOptional, double scaleValue, double keepProb, int64_t preTokens,
    int64_t nextTokens, int64_t headNum, char* inputLayout, int64_t innerPrecise, int64_t sparseMode,
    char* softmaxOutLayout, const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut,
    const aclTensor* softmaxOutOut, const aclTensor* attentionOutOut) {
  return FlashAttentionVarLenScoreV5(
      call, query, nullptr, key, nullptr, value, realShiftOptional, dropMaskOptional, paddingMaskOptional,
      attenMaskOptional, nullptr, prefixOptional, actualSeqQLenOptional, actualSeqKvLenOptional, nullptr,
      nullptr, scaleValue, keepProb, preTokens, nextTokens, headNum, inputLayout, innerPrecise, sparseMode, 1,
      softmaxOutLayout, softmaxMaxOut, softmaxSumOut, softmaxOutOut, attentionOutOut);
}

}  // namespace anycann
