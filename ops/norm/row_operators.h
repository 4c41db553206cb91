// Phase one of the operators over rows (layer and root-mean-square normalisation): from handles to a Plan.
#pragma once

#include "ops/call.h"
#include "ops/norm/rows.h"

namespace anycann {

struct RowNormHandles {
  const aclTensor *x = nullptr, *residual = nullptr;
  double x_scale = 1;
  const aclTensor *gamma = nullptr, *beta = nullptr, *bias = nullptr;
  const aclTensor *y = nullptr, *mean = nullptr, *rstd = nullptr, *sum = nullptr, *y2 = nullptr;
};
struct RowNormBackwardHandles {
  const aclTensor *dy = nullptr, *x = nullptr, *residual = nullptr, *mean = nullptr, *rstd = nullptr,
                  *gamma = nullptr;
  double x_scale = 1;
  const aclTensor* dsum = nullptr;
  const aclTensor *dx = nullptr, *dresidual = nullptr, *dgamma = nullptr, *dbeta = nullptr;
};

// Normalises over the last `dims` dimensions of x. Checks everything.
Status LaunchRowNorm(Call& call, const RowNormHandles& h, int dims, const RowNorm& norm);
Status LaunchRowNormBackward(Call& call, const RowNormBackwardHandles& h, int dims, const RowNorm& norm);

}  // namespace anycann
