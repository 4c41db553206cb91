// PromptFlashAttention in all its versions: faces of inference.h.
#include "aclnn_ops.h"
#include "ops/attention/inference.h"

namespace anycann {
namespace {

constexpr char kRefused[] = "queries of 8 bits and paddings on the left are not supported";

}  // namespace

Status aclnn::PromptFlashAttention(Call& call, const aclTensor* query, const aclTensor* key,
                                   const aclTensor* value, const aclTensor* pseShift,
                                   const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
                                   int64_t numHeads, double scaleValue, int64_t preTokens, int64_t nextTokens,
                                   char* inputLayout, int64_t numKeyValueHeads,
                                   const aclTensor* attentionOut) {
  InferenceParameters p;
  p.query = query;
  p.key = {&key, 1};
  p.value = {&value, 1};
  p.pse = pseShift;
  p.mask = attenMask;
  p.q_lengths = actualSeqLengths;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.layout = inputLayout;
  p.out = attentionOut;
  return LaunchInference(call, p);
}

Status aclnn::PromptFlashAttentionV2(Call& call, const aclTensor* query, const aclTensor* key,
                                     const aclTensor* value, const aclTensor* pseShift,
                                     const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
                                     const aclIntArray* actualSeqLengthsKv, const aclTensor* deqScale1,
                                     const aclTensor* quantScale1, const aclTensor* deqScale2,
                                     const aclTensor* quantScale2, const aclTensor* quantOffset2,
                                     int64_t numHeads, double scaleValue, int64_t preTokens,
                                     int64_t nextTokens, char* inputLayout, int64_t numKeyValueHeads,
                                     int64_t sparseMode, const aclTensor* attentionOut) {
  const NamedTensor refused[] = {
      {deqScale1, "deqScale1"}, {quantScale1, "quantScale1"}, {deqScale2, "deqScale2"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = {&key, 1};
  p.value = {&value, 1};
  p.pse = pseShift;
  p.mask = attenMask;
  p.q_lengths = actualSeqLengths;
  p.k_lengths = actualSeqLengthsKv;
  p.out_scale = quantScale2;
  p.out_offset = quantOffset2;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.sparse_mode = sparseMode;
  p.layout = inputLayout;
  p.out = attentionOut;
  return LaunchInference(call, p);
}

Status aclnn::PromptFlashAttentionV3(Call& call, const aclTensor* query, const aclTensor* key,
                                     const aclTensor* value, const aclTensor* pseShift,
                                     const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
                                     const aclIntArray* actualSeqLengthsKv, const aclTensor* deqScale1,
                                     const aclTensor* quantScale1, const aclTensor* deqScale2,
                                     const aclTensor* quantScale2, const aclTensor* quantOffset2,
                                     int64_t numHeads, double scaleValue, int64_t preTokens,
                                     int64_t nextTokens, char* inputLayout, int64_t numKeyValueHeads,
                                     int64_t sparseMode, int64_t, const aclTensor* attentionOut) {
  const NamedTensor refused[] = {
      {deqScale1, "deqScale1"}, {quantScale1, "quantScale1"}, {deqScale2, "deqScale2"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = {&key, 1};
  p.value = {&value, 1};
  p.pse = pseShift;
  p.mask = attenMask;
  p.q_lengths = actualSeqLengths;
  p.k_lengths = actualSeqLengthsKv;
  p.out_scale = quantScale2;
  p.out_offset = quantOffset2;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.sparse_mode = sparseMode;
  p.layout = inputLayout;
  p.out = attentionOut;
  return LaunchInference(call, p);
}

}  // namespace anycann
