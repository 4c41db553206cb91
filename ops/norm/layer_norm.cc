// Layer normalisation, alone and after an addition: y = (s - mean) / sqrt(var + eps) * gamma + beta over the
// last dimensions, with s the input, x1 + x2 + bias (AddLayerNorm) or alpha * x + gx (DeepNorm).
#include "aclnn_ops.h"
#include "ops/norm/row_operators.h"

namespace anycann {
namespace {

Status RequireNormalizedShape(Call& call, const aclTensor* x, const aclIntArray* shape) {
  const TensorView& v = x->view;
  const int dims = static_cast<int>(shape->size);
  bool same = dims >= 1 && dims <= v.rank;
  for (int i = 0; same && i < dims; ++i) same = shape->values[i] == v.dims[v.rank - dims + i];
  if (same) return Status();
  return call.Invalid("normalizedShape is {}, which is not the end of input's shape {}",
                      ShapeString(shape->values, dims), ShapeString(v));
}

Status Forward(Call& call, const aclTensor* input, const aclIntArray* shape, const aclTensor* weight,
               const aclTensor* bias, double eps, const aclTensor* out, const aclTensor* mean,
               const aclTensor* rstd) {
  RETURN_IF_ERROR(RequireNormalizedShape(call, input, shape));
  RowNormHandles h;
  h.x = input, h.gamma = weight, h.beta = bias, h.y = out, h.mean = mean, h.rstd = rstd;
  return LaunchRowNorm(call, h, static_cast<int>(shape->size), {.eps = eps});
}

}  // namespace

Status aclnn::LayerNorm(Call& call, const aclTensor* input, const aclIntArray* normalizedShape,
                        const aclTensor* weightOptional, const aclTensor* biasOptional, double eps,
                        aclTensor* out, aclTensor* meanOutOptional, aclTensor* rstdOutOptional) {
  return Forward(call, input, normalizedShape, weightOptional, biasOptional, eps, out, meanOutOptional,
                 rstdOutOptional);
}
Status aclnn::FastLayerNorm(Call& call, const aclTensor* input, const aclIntArray* normalizedShape,
                            const aclTensor* weightOptional, const aclTensor* biasOptional, double eps,
                            aclTensor* out, aclTensor* meanOutOptional, aclTensor* rstdOutOptional) {
  return Forward(call, input, normalizedShape, weightOptional, biasOptional, eps, out, meanOutOptional,
                 rstdOutOptional);
}
Status aclnn::LayerNormWithImplMode(Call& call, const aclTensor* input, const aclIntArray* normalizedShape,
                                    const aclTensor* weightOptional, const aclTensor* biasOptional,
                                    double eps, aclTensor* out, aclTensor* meanOutOptional,
                                    aclTensor* rstdOutOptional, int32_t implMode) {
  (void)implMode;  // precision or speed: the same here
  return Forward(call, input, normalizedShape, weightOptional, biasOptional, eps, out, meanOutOptional,
                 rstdOutOptional);
}

Status aclnn::LayerNormBackward(Call& call, const aclTensor* gradOut, const aclTensor* input,
                                const aclIntArray* normalizedShape, const aclTensor* mean,
                                const aclTensor* rstd, const aclTensor* weightOptional,
                                const aclTensor* biasOptional, const aclBoolArray* outputMask,
                                aclTensor* gradInputOut, aclTensor* gradWeightOut, aclTensor* gradBiasOut) {
  (void)biasOptional;
  RETURN_IF_ERROR(RequireNormalizedShape(call, input, normalizedShape));
  if (outputMask->size != 3) return call.Invalid("outputMask has {} values, expected 3", outputMask->size);
  RowNormBackwardHandles h;
  h.dy = gradOut, h.x = input, h.mean = mean, h.rstd = rstd, h.gamma = weightOptional;
  if ((*outputMask)[0]) h.dx = gradInputOut;
  if ((*outputMask)[1]) h.dgamma = gradWeightOut;
  if ((*outputMask)[2]) h.dbeta = gradBiasOut;
  return LaunchRowNormBackward(call, h, static_cast<int>(normalizedShape->size), {});
}

Status aclnn::AddLayerNorm(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* gamma,
                           const aclTensor* beta, const aclTensor* biasOptional, double epsilon,
                           bool additionalOutput, const aclTensor* yOut, const aclTensor* meanOut,
                           const aclTensor* rstdOut, const aclTensor* xOut) {
  RowNormHandles h;
  h.x = x1, h.residual = x2, h.gamma = gamma, h.beta = beta, h.bias = biasOptional;
  h.y = yOut, h.mean = meanOut, h.rstd = rstdOut, h.sum = additionalOutput ? xOut : nullptr;
  return LaunchRowNorm(call, h, gamma->view.rank, {.eps = epsilon});
}

Status aclnn::AddLayerNormGrad(Call& call, const aclTensor* dy, const aclTensor* x1, const aclTensor* x2,
                               const aclTensor* rstd, const aclTensor* mean, const aclTensor* gamma,
                               const aclTensor* dsumOptional, const aclTensor* dxOut,
                               const aclTensor* dgammaOut, const aclTensor* dbetaOut) {
  RowNormBackwardHandles h;
  h.dy = dy, h.x = x1, h.residual = x2, h.mean = mean, h.rstd = rstd, h.gamma = gamma, h.dsum = dsumOptional;
  h.dx = dxOut, h.dgamma = dgammaOut, h.dbeta = dbetaOut;
  return LaunchRowNormBackward(call, h, gamma->view.rank, {});
}

Status aclnn::DeepNorm(Call& call, const aclTensor* x, const aclTensor* gx, const aclTensor* beta,
                       const aclTensor* gamma, double alpha, double epsilon, const aclTensor* meanOut,
                       const aclTensor* rstdOut, const aclTensor* yOut) {
  RowNormHandles h;
  h.x = x, h.residual = gx, h.x_scale = alpha, h.gamma = gamma, h.beta = beta;
  h.y = yOut, h.mean = meanOut, h.rstd = rstdOut;
  return LaunchRowNorm(call, h, gamma->view.rank, {.eps = epsilon});
}

Status aclnn::DeepNormGrad(Call& call, const aclTensor* dy, const aclTensor* x, const aclTensor* gx,
                           const aclTensor* gamma, const aclTensor* mean, const aclTensor* rstd, double alpha,
                           const aclTensor* dxOut, const aclTensor* dgxOut, const aclTensor* dbetaOut,
                           const aclTensor* dgammaOut) {
  RowNormBackwardHandles h;
  h.dy = dy, h.x = x, h.residual = gx, h.x_scale = alpha, h.mean = mean, h.rstd = rstd, h.gamma = gamma;
  h.dx = dxOut, h.dresidual = dgxOut, h.dgamma = dgammaOut, h.dbeta = dbetaOut;
  return LaunchRowNormBackward(call, h, gamma->view.rank, {});
}

}  // namespace anycann
