// Root-mean-square normalisation, alone and after an addition: y = s / sqrt(mean(s^2) + eps) * gamma over
// gamma's dimensions, with s = x or x1 + x2.
#include "aclnn_ops.h"
#include "ops/norm/row_operators.h"

namespace anycann {
namespace {

constexpr RowNorm Rms(double eps, double gamma_offset = 0) {
  return {.eps = eps, .centred = false, .gamma_offset = gamma_offset};
}

Status AddRms(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* gamma,
              const aclTensor* beta, double eps, const aclTensor* y, const aclTensor* y2,
              const aclTensor* rstd, const aclTensor* sum) {
  RowNormHandles h;
  h.x = x1, h.residual = x2, h.gamma = gamma, h.beta = beta, h.y = y, h.y2 = y2, h.rstd = rstd, h.sum = sum;
  return LaunchRowNorm(call, h, gamma->view.rank, Rms(eps));
}

}  // namespace

Status aclnn::RmsNorm(Call& call, const aclTensor* x, const aclTensor* gamma, double epsilon,
                      const aclTensor* yOut, const aclTensor* rstdOut) {
  RowNormHandles h;
  h.x = x, h.gamma = gamma, h.y = yOut, h.rstd = rstdOut;
  return LaunchRowNorm(call, h, gamma->view.rank, Rms(epsilon));
}

Status aclnn::GemmaRmsNorm(Call& call, const aclTensor* x, const aclTensor* gamma, double epsilon,
                           const aclTensor* yOut, const aclTensor* rstdOut) {
  RowNormHandles h;
  h.x = x, h.gamma = gamma, h.y = yOut, h.rstd = rstdOut;
  return LaunchRowNorm(call, h, gamma->view.rank, Rms(epsilon, 1));
}

Status aclnn::RmsNormGrad(Call& call, const aclTensor* dy, const aclTensor* x, const aclTensor* rstd,
                          const aclTensor* gamma, const aclTensor* dxOut, const aclTensor* dgammaOut) {
  RowNormBackwardHandles h;
  h.dy = dy, h.x = x, h.rstd = rstd, h.gamma = gamma, h.dx = dxOut, h.dgamma = dgammaOut;
  return LaunchRowNormBackward(call, h, gamma->view.rank, Rms(0));
}

Status aclnn::AddRmsNorm(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* gamma,
                         double epsilon, aclTensor* yOut, aclTensor* rstdOut, aclTensor* xOut) {
  return AddRms(call, x1, x2, gamma, nullptr, epsilon, yOut, nullptr, rstdOut, xOut);
}
Status aclnn::AddRmsNormBias(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* gamma,
                             const aclTensor* betaOptional, double epsilon, const aclTensor* yOut,
                             const aclTensor* rstdOut, const aclTensor* xOut) {
  return AddRms(call, x1, x2, gamma, betaOptional, epsilon, yOut, nullptr, rstdOut, xOut);
}
Status aclnn::AddRmsNormCast(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* gamma,
                             double epsilon, const aclTensor* y1Out, const aclTensor* y2Out,
                             const aclTensor* rstdOut, const aclTensor* xOut) {
  return AddRms(call, x1, x2, gamma, nullptr, epsilon, y1Out, y2Out, rstdOut, xOut);
}
// x1 becomes the normalised sum, x2 the sum.
Status aclnn::InplaceAddRmsNorm(Call& call, aclTensor* x1Ref, aclTensor* x2Ref, const aclTensor* gamma,
                                double epsilon, const aclTensor* rstdOut) {
  return AddRms(call, x1Ref, x2Ref, gamma, nullptr, epsilon, x1Ref, nullptr, rstdOut, x2Ref);
}

}  // namespace anycann
