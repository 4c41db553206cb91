// Attention for inference: FusedInferAttentionScoreV2, over whole or padded sequences of one cache.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/attention/flash_parameters.h"
#include "ops/dense.h"

namespace anycann {
namespace {

// How many rows of each batch count, from a list of one or of `batches` lengths. Nothing when all do.
Status ReadCounts(Call& call, const aclIntArray* lengths, const char* name, int64_t batches, int64_t most,
                  std::vector<int64_t>* counts) {
  if (lengths == nullptr || lengths->size == 0) return Status();
  const int64_t n = static_cast<int64_t>(lengths->size);
  if (n != 1 && n != batches) return call.Invalid("{} has {} lengths, expected 1 or {}", name, n, batches);
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t length = (*lengths)[n == 1 ? 0 : b];
    if (length < 0 || length > most)
      return call.Invalid("{} has length {}, expected 0 to {}", name, length, most);
    counts->push_back(length);
  }
  return Status();
}

// The one tensor of a list; caches in several tensors are not supported.
Status OnlyTensor(Call& call, const aclTensorList* list, const char* name, const aclTensor** t) {
  if (list->size != 1)
    return call.Invalid("{} has {} tensors: one is supported, that of all batches", name, list->size);
  if (list->values[0] == nullptr) return call.Error(kParamNullptr, "{}[0] is null", name);
  *t = list->values[0];
  return Status();
}

// Each row's log of its sum of exponentials, infinity where a query sees nothing.
void StoreLogSums(const TensorView& out, const Scratch<float>& max, const Scratch<float>& sum, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    max[i] = sum[i] > 0 ? max[i] + std::log(sum[i]) : std::numeric_limits<float>::infinity();
  StoreValues(out, max.get());
}

// The rows' maxima and sums [batch, head, sequence] (of packed sequences [sequence, head]), dense.
HeadView RowValues(const Attention& a, float* p) {
  HeadView v;
  v.data = reinterpret_cast<char*>(p);
  v.dtype = DType::kFloat;
  if (a.q_ends == nullptr) {
    v.batch = a.heads * a.q_len;
    v.head = a.q_len;
    v.sequence = 1;
  } else {
    v.head = 1;
    v.sequence = a.heads;
  }
  return v;
}

Status RunInference(const Run& t, const FlashPlan& plan, int log_sums) {
  Attention a = plan.Bind(t);
  if (a.q_counts != nullptr) {
    const char zero[16] = {};
    Fill(t[3], zero);  // rows that don't count
  }
  if (log_sums < 0) return AttentionForward(a);
  const int64_t rows = t[log_sums].numel();
  const Scratch<float> max(rows), sum(rows);
  if (!max.ok() || !sum.ok()) return ScratchFailed(t.plan().name);
  std::fill_n(sum.get(), rows, 0.0f);
  a.max = RowValues(a, max.get());
  a.sum = RowValues(a, sum.get());
  RETURN_IF_ERROR(AttentionForward(a));
  StoreLogSums(t[log_sums], max, sum, rows);
  return Status();
}

Status LaunchInference(Call& call, const FlashParameters& p, const aclIntArray* q_lengths,
                       const aclIntArray* k_lengths, int64_t kv_heads, const aclTensor* log_sums) {
  FlashPlan plan;
  Arg args[kFlashOperands + 1];
  int count = 0;
  RETURN_IF_ERROR(PlanFlash(call, p, true, &plan, args, &count));
  const Attention& a = plan.attention;
  if (kv_heads != 0 && kv_heads != a.kv_heads)
    return call.Invalid("numKeyValueHeads is {}, but key has {} heads", kv_heads, a.kv_heads);
  if (plan.q_ends.empty()) {
    RETURN_IF_ERROR(ReadCounts(call, q_lengths, "actualSeqLengths", a.batches, a.q_len, &plan.q_counts));
    RETURN_IF_ERROR(ReadCounts(call, k_lengths, "actualSeqLengthsKv", a.batches, a.k_len, &plan.k_counts));
  }
  int log_sums_at = -1;
  if (log_sums != nullptr) {
    const int64_t rows = (plan.q_ends.empty() ? a.batches : 1) * a.heads * a.q_len;
    if (log_sums->view.numel() != rows)
      return call.Invalid("softmaxLse has shape {}, expected {} elements, one for each head and query",
                          ShapeString(log_sums->view), rows);
    RETURN_IF_ERROR(call.RequireDType(log_sums, "softmaxLse", DType::kFloat));
    log_sums_at = count;
    args[count++] = Out(log_sums);
  }
  if (p.out->view.empty()) return call.Nothing();
  const Cost cost = FlashCost(p, plan);
  return call.Launch(std::span<const Arg>(args, static_cast<size_t>(count)), cost,
                     [plan = std::move(plan), log_sums_at](const Run& t) -> Status {
                       return RunInference(t, plan, log_sums_at);
                     });
}

}  // namespace

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
    const aclTensor* keySharedPrefixOptional, const aclTensor* valueSharedPrefixOptional, const aclIntArray*,
    int64_t numHeads, double scaleValue, int64_t preTokens, int64_t nextTokens, char* inputLayout,
    int64_t numKeyValueHeads, int64_t sparseMode, int64_t, int64_t, int64_t, bool softmaxLseFlag, int64_t,
    int64_t, const aclTensor* attentionOut, const aclTensor* softmaxLse) {
  const std::pair<const aclTensor*, const char*> unsupported[] = {
      {deqScale1Optional, "deqScale1Optional"},
      {quantScale1Optional, "quantScale1Optional"},
      {deqScale2Optional, "deqScale2Optional"},
      {quantScale2Optional, "quantScale2Optional"},
      {quantOffset2Optional, "quantOffset2Optional"},
      {antiquantScaleOptional, "antiquantScaleOptional"},
      {antiquantOffsetOptional, "antiquantOffsetOptional"},
      {blockTableOptional, "blockTableOptional"},
      {queryPaddingSizeOptional, "queryPaddingSizeOptional"},
      {kvPaddingSizeOptional, "kvPaddingSizeOptional"},
      {keyAntiquantScaleOptional, "keyAntiquantScaleOptional"},
      {keyAntiquantOffsetOptional, "keyAntiquantOffsetOptional"},
      {valueAntiquantScaleOptional, "valueAntiquantScaleOptional"},
      {valueAntiquantOffsetOptional, "valueAntiquantOffsetOptional"},
      {keySharedPrefixOptional, "keySharedPrefixOptional"},
      {valueSharedPrefixOptional, "valueSharedPrefixOptional"}};
  for (const auto& [t, name] : unsupported)
    if (t != nullptr && t->view.numel() > 0)
      return call.Invalid("{} is given: quantised, paged and shared caches are not supported yet", name);
  if (inputLayout == nullptr) return call.Invalid("inputLayout is null");
  const bool turned = std::strcmp(inputLayout, "BNSD_BSND") == 0;
  FlashParameters p = {.query = query,
                       .pse = pseShiftOptional,
                       .mask = attenMaskOptional,
                       .q_lengths = actualSeqLengthsOptional,
                       .k_lengths = actualSeqLengthsKvOptional,
                       .scale = scaleValue,
                       .before = preTokens,
                       .after = nextTokens,
                       .heads = numHeads,
                       .layout = turned ? "BNSD" : inputLayout,
                       .sparse_mode = sparseMode,
                       .pse_type = static_cast<int64_t>(PositionBias::kScaledAfter),
                       .out = attentionOut,
                       .out_layout = turned ? "BSND" : nullptr};
  RETURN_IF_ERROR(OnlyTensor(call, key, "key", &p.key));
  RETURN_IF_ERROR(OnlyTensor(call, value, "value", &p.value));
  return LaunchInference(call, p, actualSeqLengthsOptional, actualSeqLengthsKvOptional, numKeyValueHeads,
                         softmaxLseFlag ? softmaxLse : nullptr);
}

}  // namespace anycann
