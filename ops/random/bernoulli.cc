// Zeros and ones, one with a given probability.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/random/draw.h"

namespace anycann {
namespace {

struct Below {
  uint64_t threshold;  // probability * 2^32
  bool operator()(uint32_t word) const { return word < threshold; }
};
struct BelowTensor {
  bool operator()(uint32_t word, float probability) const {
    return static_cast<float>(word >> 8) * 0x1p-24f < probability;
  }
};

Status ByScalar(Call& call, const aclScalar* prob, int64_t seed, int64_t offset, const aclTensor* out) {
  const double p = prob->value.ToDouble();
  if (!(p >= 0 && p <= 1)) return call.Invalid("prob is {}, expected a number from 0 to 1", p);
  return LaunchRandomMap<uint32_t>(call, &DrawWords, {seed, offset}, {}, out,
                                   Below{static_cast<uint64_t>(std::llround(std::ldexp(p, 32)))});
}
Status ByTensor(Call& call, const aclTensor* prob, int64_t seed, int64_t offset, const aclTensor* out) {
  return LaunchRandomMap<uint32_t, float>(call, &DrawWords, {seed, offset}, {prob}, out, BelowTensor{});
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
