// Normally distributed numbers; mean and standard deviation are numbers or tensors.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/complex_parts.h"
#include "ops/random/draw.h"

namespace anycann {
namespace {

template <class T>
struct Constants {
  T mean, std;
  T operator()(T z) const { return mean + std * z; }
};
template <class T>
struct MeanTensor {
  T std;
  T operator()(T z, T mean) const { return mean + std * z; }
};
template <class T>
struct StdTensor {
  T mean;
  T operator()(T z, T std) const { return mean + std * z; }
};
template <class T>
struct BothTensors {
  T operator()(T z, T mean, T std) const { return mean + std * z; }
};

Status CheckStd(Call& call, const aclTensor* out, float std) {
  if (!IsFloating(out->view.dtype))
    return call.Invalid("the output has type {}, expected a floating type", Name(out->view.dtype));
  if (!(std >= 0)) return call.Invalid("std is {}, expected a number that isn't negative", std);
  return Status();
}

Status Normal(Call& call, const aclTensor* out, float mean, float std, const Seeding& seeding) {
  if (IsComplex(out->view.dtype)) {  // the variance is shared between the parts
    const RealParts parts(out);
    return parts.get() ? Normal(call, parts.get(), mean, std / std::sqrt(2.0f), seeding) : call.NoMemory();
  }
  RETURN_IF_ERROR(CheckStd(call, out, std));
  if (out->view.dtype == DType::kDouble)
    return LaunchRandomMap<double>(call, &DrawNormalDouble, seeding, {}, out, Constants<double>{mean, std});
  return LaunchRandomMap<float>(call, &DrawNormal, seeding, {}, out, Constants<float>{mean, std});
}

}  // namespace

Status aclnn::InplaceNormal(Call& call, const aclTensor* selfRef, float mean, float std, int64_t seed,
                            int64_t offset) {
  return Normal(call, selfRef, mean, std, {seed, offset});
}
Status aclnn::InplaceNormalTensor(Call& call, const aclTensor* selfRef, float mean, float std,
                                  const aclTensor* seedTensor, const aclTensor* offsetTensor,
                                  int64_t offset) {
  return Normal(call, selfRef, mean, std, {0, offset, seedTensor, offsetTensor});
}
Status aclnn::NormalFloatFloat(Call& call, float mean, float std, int64_t seed, int64_t offset,
                               aclTensor* out) {
  return Normal(call, out, mean, std, {seed, offset});
}
Status aclnn::NormalTensorFloat(Call& call, const aclTensor* mean, float std, int64_t seed, int64_t offset,
                                aclTensor* out) {
  RETURN_IF_ERROR(CheckStd(call, out, std));
  if (out->view.dtype == DType::kDouble)
    return LaunchRandomMap<double, double>(call, &DrawNormalDouble, {seed, offset}, {mean}, out,
                                           MeanTensor<double>{std});
  return LaunchRandomMap<float, float>(call, &DrawNormal, {seed, offset}, {mean}, out,
                                       MeanTensor<float>{std});
}
Status aclnn::NormalFloatTensor(Call& call, float mean, const aclTensor* std, int64_t seed, int64_t offset,
                                aclTensor* out) {
  RETURN_IF_ERROR(CheckStd(call, out, 0));
  if (out->view.dtype == DType::kDouble)
    return LaunchRandomMap<double, double>(call, &DrawNormalDouble, {seed, offset}, {std}, out,
                                           StdTensor<double>{mean});
  return LaunchRandomMap<float, float>(call, &DrawNormal, {seed, offset}, {std}, out, StdTensor<float>{mean});
}
Status aclnn::NormalTensorTensor(Call& call, const aclTensor* mean, const aclTensor* std, int64_t seed,
                                 int64_t offset, aclTensor* out) {
  RETURN_IF_ERROR(CheckStd(call, out, 0));
  if (out->view.dtype == DType::kDouble)
    return LaunchRandomMap<double, double, double>(call, &DrawNormalDouble, {seed, offset}, {mean, std}, out,
                                                   BothTensors<double>{});
  return LaunchRandomMap<float, float, float>(call, &DrawNormal, {seed, offset}, {mean, std}, out,
                                              BothTensors<float>{});
}

}  // namespace anycann
