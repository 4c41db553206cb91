// Zeros and ones, one with a given probability.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/random/draw.h"

namespace anycann {
namespace {

// Compared in 31 bits, so that a probability of 1 is a threshold, too. The result is written as a number of
// type R: a float directly, all else through bool.
template <class R>
struct Below {
  uint32_t threshold;  // probability * 2^31
  R operator()(uint32_t word) const { return (word >> 1) < threshold ? R(1) : R(0); }
};
template <class R>
struct BelowTensor {
  R operator()(uint32_t word, float probability) const {
    return static_cast<float>(word >> 8) * 0x1p-24f < probability ? R(1) : R(0);
  }
};

Status ByScalar(Call& call, const aclScalar* prob, int64_t seed, int64_t offset, const aclTensor* out) {
  const double p = prob->value.ToDouble();
  if (!(p >= 0 && p <= 1)) return call.Invalid("prob is {}, expected a number from 0 to 1", p);
  const uint32_t threshold = static_cast<uint32_t>(std::llround(std::ldexp(p, 31)));
  if (ComputeType(out->view.dtype) == DType::kFloat)
    return LaunchRandomMap<uint32_t>(call, &DrawWords, {seed, offset}, {}, out, Below<float>{threshold});
  return LaunchRandomMap<uint32_t>(call, &DrawWords, {seed, offset}, {}, out, Below<bool>{threshold});
}
Status ByTensor(Call& call, const aclTensor* prob, int64_t seed, int64_t offset, const aclTensor* out) {
  if (ComputeType(out->view.dtype) == DType::kFloat)
    return LaunchRandomMap<uint32_t, float>(call, &DrawWords, {seed, offset}, {prob}, out,
                                            BelowTensor<float>{});
  return LaunchRandomMap<uint32_t, float>(call, &DrawWords, {seed, offset}, {prob}, out, BelowTensor<bool>{});
}
Status SameShape(Call& call, const aclTensor* self, const aclTensor* out) {
  return call.RequireSameShape(out, "out", self, "self");
}

}  // namespace

Status aclnn::InplaceBernoulli(Call& call, const aclTensor* selfRef, const aclScalar* prob, int64_t seed,
                               int64_t offset) {
  return ByScalar(call, prob, seed, offset, selfRef);
}
Status aclnn::InplaceBernoulliTensor(Call& call, const aclTensor* selfRef, const aclTensor* prob,
                                     int64_t seed, int64_t offset) {
  return ByTensor(call, prob, seed, offset, selfRef);
}
Status aclnn::Bernoulli(Call& call, const aclTensor* self, const aclScalar* prob, int64_t seed,
                        int64_t offset, aclTensor* out) {
  RETURN_IF_ERROR(SameShape(call, self, out));
  return ByScalar(call, prob, seed, offset, out);
}
Status aclnn::BernoulliTensor(Call& call, const aclTensor* self, const aclTensor* prob, int64_t seed,
                              int64_t offset, aclTensor* out) {
  RETURN_IF_ERROR(SameShape(call, self, out));
  return ByTensor(call, prob, seed, offset, out);
}

}  // namespace anycann
