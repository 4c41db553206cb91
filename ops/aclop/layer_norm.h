// What the legacy LayerNorm keeps for its gradient. LayerNormGrad gets no epsilon and adds one of its own to
// the variance, so the forward keeps variance + epsilon - kGradEpsilon: the gradient is right for every
// epsilon, and the variance is the data's own where epsilon is the 1e-5 that torch's layers have.
#pragma once

namespace anycann::aclop {

inline constexpr double kGradEpsilon = 1e-5;

// rstd: 1 / sqrt(variance + epsilon)
inline double KeptVariance(double rstd) { return 1 / (rstd * rstd) - kGradEpsilon; }

}  // namespace anycann::aclop
