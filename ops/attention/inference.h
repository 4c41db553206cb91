// What the attention operators for inference have in common: their parameters, checked, translated and run.
#pragma once

#include <span>

#include "ops/call.h"

namespace anycann {

struct InferenceParameters {
  using Tensors = std::span<const aclTensor* const>;
  const aclTensor* query = nullptr;
  Tensors key, value;  // one of all batches, or one for each
  const aclTensor *pse = nullptr, *mask = nullptr, *sink = nullptr;
  const aclIntArray *q_lengths = nullptr, *k_lengths = nullptr;
  const aclIntArray *q_start = nullptr, *k_start = nullptr;
  const aclTensor *out_scale = nullptr, *out_offset = nullptr;  // of an int8 output
  // Of int8 caches: for both with two in the first dimension, or for each.
  const aclTensor *both_scale = nullptr, *both_offset = nullptr;
  const aclTensor *key_scale = nullptr, *key_offset = nullptr, *value_scale = nullptr,
                  *value_offset = nullptr;
  int64_t both_mode = 0, key_mode = 0, value_mode = 0;
  const aclTensor* block_table = nullptr;
  int64_t block_size = 0;
  const aclTensor *key_prefix = nullptr, *value_prefix = nullptr;
  const aclIntArray* prefix_length = nullptr;
  const aclTensor *query_rope = nullptr, *key_rope = nullptr;
  int64_t heads = 1, kv_heads = 0;  // 0: as many as heads
  double scale = 1;
  int64_t before = 2147483647, after = 2147483647, sparse_mode = 0, pse_type = 0;
  const char* layout = nullptr;
  const aclTensor *out = nullptr, *log_sums = nullptr;
  bool want_log_sums = false;
};

inline InferenceParameters::Tensors TensorsOf(const aclTensorList* list) {
  return {list->values, list->size};
}

// The first of the named tensors that is given is refused.
struct NamedTensor {
  const aclTensor* tensor;
  const char* name;
};
Status RefuseTensors(Call& call, std::span<const NamedTensor> tensors, const char* why);

Status LaunchInference(Call& call, const InferenceParameters& p);

}  // namespace anycann
