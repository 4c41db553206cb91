// Normalisation over rows: the loops of layer and root-mean-square normalisation, forward and backward.
//
// The operands are M dense rows of n elements; gamma and beta run along the row. A row is read from memory
// once: its statistics and the scaling are passes over a copy in cache. The backward pass adds the gradients
// of gamma and beta over blocks of rows whose number depends on the shape only, so results don't depend on
// the number of threads.
#pragma once

#include "base/status.h"
#include "ops/dense.h"

namespace anycann {

struct RowNorm {
  int64_t rows = 0, n = 0;
  double eps = 0;
  bool centred = true;      // subtract the mean (layer norm) or not (root mean square)
  double gamma_offset = 0;  // y = xhat * (gamma_offset + gamma) + beta
};

// T is float or double. Absent tensors are nullptr; x, y, dy, dx and `sum` hold rows * n elements of any
// floating type and layout; gamma, beta and their gradients n elements; mean and rstd one per row.
struct RowNormForward {
  const TensorView *x = nullptr, *residual = nullptr;
  double x_scale = 1;                                                   // normalise x_scale * x + residual
  const TensorView *gamma = nullptr, *beta = nullptr, *bias = nullptr;  // bias: added to x, along the row
  const TensorView *y = nullptr, *mean = nullptr, *rstd = nullptr,
                   *sum = nullptr;  // sum: what was normalised
  const TensorView* y2 = nullptr;   // y again, in another type
};
template <class T>
Status RunRowNorm(const char* op, const RowNorm& norm, const RowNormForward& t);

struct RowNormBackward {
  const TensorView *dy = nullptr, *x = nullptr, *residual = nullptr, *mean = nullptr, *rstd = nullptr,
                   *gamma = nullptr;
  double x_scale = 1;
  const TensorView* dsum = nullptr;  // added to the gradient of what was normalised
  const TensorView *dx = nullptr, *dresidual = nullptr, *dgamma = nullptr, *dbeta = nullptr;
};
template <class T>
Status RunRowNormBackward(const char* op, const RowNorm& norm, const RowNormBackward& t);

}  // namespace anycann
