// What the matmul operators share: checks, broadcasting, and the launch of one product.
#pragma once

#include "ops/call.h"
#include "ops/matmul/gemm.h"

namespace anycann {

struct FractalNz;

Status CheckProductTypes(Call& call, const aclTensor* a, const char* a_name, const aclTensor* b,
                         const char* b_name, const aclTensor* out);

// out = a @ b with numpy's rules. `nz`: how b is stored, nullptr when its view says it.
Status LaunchMatmul(Call& call, const aclTensor* self, const aclTensor* mat2, const aclTensor* out,
                    const FractalNz* nz);

// out = beta * self + alpha * (a @ b) for `rank` 2 or 3; self is broadcast to out.
Status LaunchAddProduct(Call& call, const aclTensor* self, const aclTensor* a, const char* a_name,
                        const aclTensor* b, const char* b_name, const aclScalar* beta, const aclScalar* alpha,
                        const aclTensor* out, int rank, const FractalNz* nz);

}  // namespace anycann
