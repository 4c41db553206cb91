// Products whose right operand may be stored in FRACTAL_NZ, and the call that would put it there.
#include "aclnn_ops.h"
#include "ops/matmul/fractal_nz.h"
#include "ops/matmul/product.h"

namespace anycann {

Status aclnn::MatmulWeightNz(Call& call, const aclTensor* self, const aclTensor* mat2, aclTensor* out,
                             int8_t) {
  FractalNz nz;
  return LaunchMatmul(call, self, mat2, out, FractalNz::Of(mat2, &nz) ? &nz : nullptr);
}

Status aclnn::BatchMatMulWeightNz(Call& call, const aclTensor* self, const aclTensor* mat2, aclTensor* out,
                                  int8_t) {
  FractalNz nz;
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, kMaxRank));
  return LaunchMatmul(call, self, mat2, out, FractalNz::Of(mat2, &nz) ? &nz : nullptr);
}

Status aclnn::AddmmWeightNz(Call& call, const aclTensor* self, const aclTensor* mat1, const aclTensor* mat2,
                            const aclScalar* beta, const aclScalar* alpha, aclTensor* out, int8_t) {
  FractalNz nz;
  return LaunchAddProduct(call, self, mat1, "mat1", mat2, "mat2", beta, alpha, out, 2,
                          FractalNz::Of(mat2, &nz) ? &nz : nullptr);
}

// The weight stays as it is: our products read row-major weights at full speed.
Status aclnn::TransMatmulWeight(Call& call, aclTensor*) { return call.Nothing(); }

}  // namespace anycann
