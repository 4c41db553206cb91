// FusedInferAttentionScore in all its versions: faces of inference.h.
#include "aclnn_ops.h"
#include "ops/attention/inference.h"

namespace anycann {
namespace {

constexpr char kRefused[] = "queries of 8 bits and paddings on the left are not supported";

}  // namespace

Status aclnn::FusedInferAttentionScore(
    Call& call, const aclTensor* query, const aclTensorList* key, const aclTensorList* value,
    const aclTensor* pseShift, const aclTensor* attenMask, const aclIntArray* actualSeqLengths,
    const aclIntArray* actualSeqLengthsKv, const aclTensor* deqScale1, const aclTensor* quantScale1,
    const aclTensor* deqScale2, const aclTensor* quantScale2, const aclTensor* quantOffset2,
    const aclTensor* antiquantScale, const aclTensor* antiquantOffset, const aclTensor* blockTable,
    const aclTensor* queryPaddingSize, const aclTensor* kvPaddingSize, int64_t numHeads, double scaleValue,
    int64_t preTokens, int64_t nextTokens, char* inputLayout, int64_t numKeyValueHeads, int64_t sparseMode,
    int64_t, int64_t blockSize, int64_t antiquantMode, bool softmaxLseFlag, const aclTensor* attentionOut,
    const aclTensor* softmaxLse) {
  const NamedTensor refused[] = {{deqScale1, "deqScale1"},
                                 {quantScale1, "quantScale1"},
                                 {deqScale2, "deqScale2"},
                                 {queryPaddingSize, "queryPaddingSize"},
                                 {kvPaddingSize, "kvPaddingSize"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShift;
  p.mask = attenMask;
  p.q_lengths = actualSeqLengths;
  p.k_lengths = actualSeqLengthsKv;
  p.out_scale = quantScale2;
  p.out_offset = quantOffset2;
  p.both_scale = antiquantScale;
  p.both_offset = antiquantOffset;
  p.block_table = blockTable;
  p.block_size = blockSize;
  p.both_mode = antiquantMode;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.sparse_mode = sparseMode;
  p.layout = inputLayout;
  p.out = attentionOut;
  p.log_sums = softmaxLse;
  p.want_log_sums = softmaxLseFlag;
  return LaunchInference(call, p);
}

Status aclnn::FusedInferAttentionScoreV2(
    Call& call, const aclTensor* query, const aclTensorList* key, const aclTensorList* value,
    const aclTensor* pseShiftOptional, const aclTensor* attenMaskOptional,
    const aclIntArray* actualSeqLengthsOptional, const aclIntArray* actualSeqLengthsKvOptional,
    const aclTensor* deqScale1Optional, const aclTensor* quantScale1Optional,
    const aclTensor* deqScale2Optional, const aclTensor* quantScale2Optional,
    const aclTensor* quantOffset2Optional, const aclTensor* antiquantScaleOptional,
    const aclTensor* antiquantOffsetOptional, const aclTensor* blockTableOptional,
    const aclTensor* queryPaddingSizeOptional, const aclTensor* kvPaddingSizeOptional,
    const aclTensor* keyAntiquantScaleOptional, const aclTensor* keyAntiquantOffsetOptional,
    const aclTensor* valueAntiquantScaleOptional, const aclTensor* valueAntiquantOffsetOptional,
    const aclTensor* keySharedPrefixOptional, const aclTensor* valueSharedPrefixOptional,
    const aclIntArray* actualSharedPrefixLenOptional, int64_t numHeads, double scaleValue, int64_t preTokens,
    int64_t nextTokens, char* inputLayout, int64_t numKeyValueHeads, int64_t sparseMode, int64_t,
    int64_t blockSize, int64_t antiquantMode, bool softmaxLseFlag, int64_t keyAntiquantMode,
    int64_t valueAntiquantMode, const aclTensor* attentionOut, const aclTensor* softmaxLse) {
  const NamedTensor refused[] = {{deqScale1Optional, "deqScale1Optional"},
                                 {quantScale1Optional, "quantScale1Optional"},
                                 {deqScale2Optional, "deqScale2Optional"},
                                 {queryPaddingSizeOptional, "queryPaddingSizeOptional"},
                                 {kvPaddingSizeOptional, "kvPaddingSizeOptional"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShiftOptional;
  p.mask = attenMaskOptional;
  p.q_lengths = actualSeqLengthsOptional;
  p.k_lengths = actualSeqLengthsKvOptional;
  p.out_scale = quantScale2Optional;
  p.out_offset = quantOffset2Optional;
  p.both_scale = antiquantScaleOptional;
  p.both_offset = antiquantOffsetOptional;
  p.block_table = blockTableOptional;
  p.block_size = blockSize;
  p.key_scale = keyAntiquantScaleOptional;
  p.key_offset = keyAntiquantOffsetOptional;
  p.value_scale = valueAntiquantScaleOptional;
  p.value_offset = valueAntiquantOffsetOptional;
  p.both_mode = antiquantMode;
  p.key_mode = keyAntiquantMode;
  p.value_mode = valueAntiquantMode;
  p.key_prefix = keySharedPrefixOptional;
  p.value_prefix = valueSharedPrefixOptional;
  p.prefix_length = actualSharedPrefixLenOptional;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.sparse_mode = sparseMode;
  p.layout = inputLayout;
  p.out = attentionOut;
  p.log_sums = softmaxLse;
  p.want_log_sums = softmaxLseFlag;
  return LaunchInference(call, p);
}

Status aclnn::FusedInferAttentionScoreV3(
    Call& call, const aclTensor* query, const aclTensorList* key, const aclTensorList* value,
    const aclTensor* pseShiftOptional, const aclTensor* attenMaskOptional,
    const aclIntArray* actualSeqLengthsOptional, const aclIntArray* actualSeqLengthsKvOptional,
    const aclTensor* deqScale1Optional, const aclTensor* quantScale1Optional,
    const aclTensor* deqScale2Optional, const aclTensor* quantScale2Optional,
    const aclTensor* quantOffset2Optional, const aclTensor* antiquantScaleOptional,
    const aclTensor* antiquantOffsetOptional, const aclTensor* blockTableOptional,
    const aclTensor* queryPaddingSizeOptional, const aclTensor* kvPaddingSizeOptional,
    const aclTensor* keyAntiquantScaleOptional, const aclTensor* keyAntiquantOffsetOptional,
    const aclTensor* valueAntiquantScaleOptional, const aclTensor* valueAntiquantOffsetOptional,
    const aclTensor* keySharedPrefixOptional, const aclTensor* valueSharedPrefixOptional,
    const aclIntArray* actualSharedPrefixLenOptional, const aclTensor* queryRopeOptional,
    const aclTensor* keyRopeOptional, const aclTensor* keyRopeAntiquantScaleOptional, int64_t numHeads,
    double scaleValue, int64_t preTokens, int64_t nextTokens, char* inputLayout, int64_t numKeyValueHeads,
    int64_t sparseMode, int64_t, int64_t blockSize, int64_t antiquantMode, bool softmaxLseFlag,
    int64_t keyAntiquantMode, int64_t valueAntiquantMode, const aclTensor* attentionOut,
    const aclTensor* softmaxLse) {
  const NamedTensor refused[] = {{deqScale1Optional, "deqScale1Optional"},
                                 {quantScale1Optional, "quantScale1Optional"},
                                 {deqScale2Optional, "deqScale2Optional"},
                                 {queryPaddingSizeOptional, "queryPaddingSizeOptional"},
                                 {kvPaddingSizeOptional, "kvPaddingSizeOptional"},
                                 {keyRopeAntiquantScaleOptional, "keyRopeAntiquantScaleOptional"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShiftOptional;
  p.mask = attenMaskOptional;
  p.q_lengths = actualSeqLengthsOptional;
  p.k_lengths = actualSeqLengthsKvOptional;
  p.out_scale = quantScale2Optional;
  p.out_offset = quantOffset2Optional;
  p.both_scale = antiquantScaleOptional;
  p.both_offset = antiquantOffsetOptional;
  p.block_table = blockTableOptional;
  p.block_size = blockSize;
  p.key_scale = keyAntiquantScaleOptional;
  p.key_offset = keyAntiquantOffsetOptional;
  p.value_scale = valueAntiquantScaleOptional;
  p.value_offset = valueAntiquantOffsetOptional;
  p.both_mode = antiquantMode;
  p.key_mode = keyAntiquantMode;
  p.value_mode = valueAntiquantMode;
  p.key_prefix = keySharedPrefixOptional;
  p.value_prefix = valueSharedPrefixOptional;
  p.prefix_length = actualSharedPrefixLenOptional;
  p.query_rope = queryRopeOptional;
  p.key_rope = keyRopeOptional;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.sparse_mode = sparseMode;
  p.layout = inputLayout;
  p.out = attentionOut;
  p.log_sums = softmaxLse;
  p.want_log_sums = softmaxLseFlag;
  return LaunchInference(call, p);
}

Status aclnn::FusedInferAttentionScoreV4(
    Call& call, const aclTensor* query, const aclTensorList* key, const aclTensorList* value,
    const aclTensor* pseShiftOptional, const aclTensor* attenMaskOptional,
    const aclIntArray* actualSeqLengthsOptional, const aclIntArray* actualSeqLengthsKvOptional,
    const aclTensor* deqScale1Optional, const aclTensor* quantScale1Optional,
    const aclTensor* deqScale2Optional, const aclTensor* quantScale2Optional,
    const aclTensor* quantOffset2Optional, const aclTensor* antiquantScaleOptional,
    const aclTensor* antiquantOffsetOptional, const aclTensor* blockTableOptional,
    const aclTensor* queryPaddingSizeOptional, const aclTensor* kvPaddingSizeOptional,
    const aclTensor* keyAntiquantScaleOptional, const aclTensor* keyAntiquantOffsetOptional,
    const aclTensor* valueAntiquantScaleOptional, const aclTensor* valueAntiquantOffsetOptional,
    const aclTensor* keySharedPrefixOptional, const aclTensor* valueSharedPrefixOptional,
    const aclIntArray* actualSharedPrefixLenOptional, const aclTensor* queryRopeOptional,
    const aclTensor* keyRopeOptional, const aclTensor* keyRopeAntiquantScaleOptional,
    const aclTensor* dequantScaleQueryOptional, const aclTensor* learnableSinkOptional, int64_t numHeads,
    double scaleValue, int64_t preTokens, int64_t nextTokens, char* inputLayout, int64_t numKeyValueHeads,
    int64_t sparseMode, int64_t, int64_t blockSize, int64_t antiquantMode, bool softmaxLseFlag,
    int64_t keyAntiquantMode, int64_t valueAntiquantMode, int64_t, const aclTensor* attentionOut,
    const aclTensor* softmaxLse) {
  const NamedTensor refused[] = {{deqScale1Optional, "deqScale1Optional"},
                                 {quantScale1Optional, "quantScale1Optional"},
                                 {deqScale2Optional, "deqScale2Optional"},
                                 {queryPaddingSizeOptional, "queryPaddingSizeOptional"},
                                 {kvPaddingSizeOptional, "kvPaddingSizeOptional"},
                                 {keyRopeAntiquantScaleOptional, "keyRopeAntiquantScaleOptional"},
                                 {dequantScaleQueryOptional, "dequantScaleQueryOptional"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShiftOptional;
  p.mask = attenMaskOptional;
  p.q_lengths = actualSeqLengthsOptional;
  p.k_lengths = actualSeqLengthsKvOptional;
  p.out_scale = quantScale2Optional;
  p.out_offset = quantOffset2Optional;
  p.both_scale = antiquantScaleOptional;
  p.both_offset = antiquantOffsetOptional;
  p.block_table = blockTableOptional;
  p.block_size = blockSize;
  p.key_scale = keyAntiquantScaleOptional;
  p.key_offset = keyAntiquantOffsetOptional;
  p.value_scale = valueAntiquantScaleOptional;
  p.value_offset = valueAntiquantOffsetOptional;
  p.both_mode = antiquantMode;
  p.key_mode = keyAntiquantMode;
  p.value_mode = valueAntiquantMode;
  p.key_prefix = keySharedPrefixOptional;
  p.value_prefix = valueSharedPrefixOptional;
  p.prefix_length = actualSharedPrefixLenOptional;
  p.query_rope = queryRopeOptional;
  p.key_rope = keyRopeOptional;
  p.sink = learnableSinkOptional;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.sparse_mode = sparseMode;
  p.layout = inputLayout;
  p.out = attentionOut;
  p.log_sums = softmaxLse;
  p.want_log_sums = softmaxLseFlag;
  return LaunchInference(call, p);
}

Status aclnn::FusedInferAttentionScoreV5(
    Call& call, const aclTensor* query, const aclTensorList* key, const aclTensorList* value,
    const aclTensor* pseShiftOptional, const aclTensor* attenMaskOptional,
    const aclIntArray* actualSeqLengthsOptional, const aclIntArray* actualSeqLengthsKvOptional,
    const aclTensor* deqScale1Optional, const aclTensor* quantScale1Optional,
    const aclTensor* deqScale2Optional, const aclTensor* quantScale2Optional,
    const aclTensor* quantOffset2Optional, const aclTensor* antiquantScaleOptional,
    const aclTensor* antiquantOffsetOptional, const aclTensor* blockTableOptional,
    const aclTensor* queryPaddingSizeOptional, const aclTensor* kvPaddingSizeOptional,
    const aclTensor* keyAntiquantScaleOptional, const aclTensor* keyAntiquantOffsetOptional,
    const aclTensor* valueAntiquantScaleOptional, const aclTensor* valueAntiquantOffsetOptional,
    const aclTensor* keySharedPrefixOptional, const aclTensor* valueSharedPrefixOptional,
    const aclIntArray* actualSharedPrefixLenOptional, const aclTensor* queryRopeOptional,
    const aclTensor* keyRopeOptional, const aclTensor* keyRopeAntiquantScaleOptional,
    const aclTensor* dequantScaleQueryOptional, const aclTensor* learnableSinkOptional,
    const aclIntArray* qStartIdxOptional, const aclIntArray* kvStartIdxOptional, int64_t numHeads,
    double scaleValue, int64_t preTokens, int64_t nextTokens, char* inputLayout, int64_t numKeyValueHeads,
    int64_t sparseMode, int64_t, int64_t blockSize, int64_t antiquantMode, bool softmaxLseFlag,
    int64_t keyAntiquantMode, int64_t valueAntiquantMode, int64_t, int64_t pseType,
    const aclTensor* attentionOut, const aclTensor* softmaxLse) {
  const NamedTensor refused[] = {{deqScale1Optional, "deqScale1Optional"},
                                 {quantScale1Optional, "quantScale1Optional"},
                                 {deqScale2Optional, "deqScale2Optional"},
                                 {queryPaddingSizeOptional, "queryPaddingSizeOptional"},
                                 {kvPaddingSizeOptional, "kvPaddingSizeOptional"},
                                 {keyRopeAntiquantScaleOptional, "keyRopeAntiquantScaleOptional"},
                                 {dequantScaleQueryOptional, "dequantScaleQueryOptional"}};
  RETURN_IF_ERROR(RefuseTensors(call, refused, kRefused));
  InferenceParameters p;
  p.query = query;
  p.key = TensorsOf(key);
  p.value = TensorsOf(value);
  p.pse = pseShiftOptional;
  p.mask = attenMaskOptional;
  p.q_lengths = actualSeqLengthsOptional;
  p.k_lengths = actualSeqLengthsKvOptional;
  p.out_scale = quantScale2Optional;
  p.out_offset = quantOffset2Optional;
  p.both_scale = antiquantScaleOptional;
  p.both_offset = antiquantOffsetOptional;
  p.block_table = blockTableOptional;
  p.block_size = blockSize;
  p.key_scale = keyAntiquantScaleOptional;
  p.key_offset = keyAntiquantOffsetOptional;
  p.value_scale = valueAntiquantScaleOptional;
  p.value_offset = valueAntiquantOffsetOptional;
  p.both_mode = antiquantMode;
  p.key_mode = keyAntiquantMode;
  p.value_mode = valueAntiquantMode;
  p.key_prefix = keySharedPrefixOptional;
  p.value_prefix = valueSharedPrefixOptional;
  p.prefix_length = actualSharedPrefixLenOptional;
  p.query_rope = queryRopeOptional;
  p.key_rope = keyRopeOptional;
  p.sink = learnableSinkOptional;
  p.q_start = qStartIdxOptional;
  p.k_start = kvStartIdxOptional;
  p.heads = numHeads;
  p.kv_heads = numKeyValueHeads;
  p.scale = scaleValue;
  p.before = preTokens;
  p.after = nextTokens;
  p.sparse_mode = sparseMode;
  p.pse_type = pseType;
  p.layout = inputLayout;
  p.out = attentionOut;
  p.log_sums = softmaxLse;
  p.want_log_sums = softmaxLseFlag;
  return LaunchInference(call, p);
}

}  // namespace anycann
