// IncreFlashAttention in all its versions: faces of inference.h, one query for each sequence.
#include "aclnn_ops.h"
#include "ops/attention/inference.h"

namespace anycann {
namespace {

constexpr char kRefused[] = "queries of 8 bits and paddings on the left are not supported";

}  // namespace

Status aclnn::IncreFlashAttention(Call& call, const aclTensor* query, const aclTensorList* key,
                                  const aclTensorList* value, const aclTensor* pseShift,
                                  const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
                                  int64_t numHeads, double scaleValue, char* inputLayout,
                                  int64_t numKeyValueHeads, const aclTensor* attentionOut) {
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShift;
  p.mask = attenMask;
  p.k_lengths = actualSeqLengths;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.layout = inputLayout;
  p.out = attentionOut;
  return LaunchInference(call, p);
}

Status aclnn::IncreFlashAttentionV2(Call& call, const aclTensor* query, const aclTensorList* key,
                                    const aclTensorList* value, const aclTensor* pseShift,
                                    const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
                                    const aclTensor* dequantScale1, const aclTensor* quantScale1,
                                    const aclTensor* dequantScale2, const aclTensor* quantScale2,
                                    const aclTensor* quantOffset2, int64_t numHeads, double scaleValue,
                                    char* inputLayout, int64_t numKeyValueHeads,
                                    const aclTensor* attentionOut) {
  const NamedTensor refused[] = {
      {dequantScale1, "dequantScale1"}, {quantScale1, "quantScale1"}, {dequantScale2, "dequantScale2"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShift;
  p.mask = attenMask;
  p.k_lengths = actualSeqLengths;
  p.out_scale = quantScale2;
  p.out_offset = quantOffset2;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.layout = inputLayout;
  p.out = attentionOut;
  return LaunchInference(call, p);
}

Status aclnn::IncreFlashAttentionV3(
    Call& call, const aclTensor* query, const aclTensorList* key, const aclTensorList* value,
    const aclTensor* pseShift, const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
    const aclTensor* dequantScale1, const aclTensor* quantScale1, const aclTensor* dequantScale2,
    const aclTensor* quantScale2, const aclTensor* quantOffset2, const aclTensor* antiquantScale,
    const aclTensor* antiquantOffset, const aclTensor* blocktable, int64_t numHeads, double scaleValue,
    char* inputLayout, int64_t numKeyValueHeads, int64_t blockSize, int64_t, const aclTensor* attentionOut) {
  const NamedTensor refused[] = {
      {dequantScale1, "dequantScale1"}, {quantScale1, "quantScale1"}, {dequantScale2, "dequantScale2"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShift;
  p.mask = attenMask;
  p.k_lengths = actualSeqLengths;
  p.out_scale = quantScale2;
  p.out_offset = quantOffset2;
  p.both_scale = antiquantScale;
  p.both_offset = antiquantOffset;
  p.block_table = blocktable;
  p.block_size = blockSize;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.layout = inputLayout;
  p.out = attentionOut;
  return LaunchInference(call, p);
}

Status aclnn::IncreFlashAttentionV4(Call& call, const aclTensor* query, const aclTensorList* key,
                                    const aclTensorList* value, const aclTensor* pseShift,
                                    const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
                                    const aclTensor* dequantScale1, const aclTensor* quantScale1,
                                    const aclTensor* dequantScale2, const aclTensor* quantScale2,
                                    const aclTensor* quantOffset2, const aclTensor* antiquantScale,
                                    const aclTensor* antiquantOffset, const aclTensor* blocktable,
                                    const aclTensor* kvPaddingSize, int64_t numHeads, double scaleValue,
                                    char* inputLayout, int64_t numKeyValueHeads, int64_t blockSize, int64_t,
                                    const aclTensor* attentionOut) {
  const NamedTensor refused[] = {{dequantScale1, "dequantScale1"},
                                 {quantScale1, "quantScale1"},
                                 {dequantScale2, "dequantScale2"},
                                 {kvPaddingSize, "kvPaddingSize"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShift;
  p.mask = attenMask;
  p.k_lengths = actualSeqLengths;
  p.out_scale = quantScale2;
  p.out_offset = quantOffset2;
  p.both_scale = antiquantScale;
  p.both_offset = antiquantOffset;
  p.block_table = blocktable;
  p.block_size = blockSize;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.layout = inputLayout;
  p.out = attentionOut;
  return LaunchInference(call, p);
}

}  // namespace anycann
