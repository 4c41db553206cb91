// Products with few rows: matrix times vector, one token through a linear layer. B is read once, where it
// lies, without packing: what counts is the rate at which it streams from memory.
#pragma once

#include "ops/matmul/gemm.h"

namespace anycann {

inline constexpr int64_t kThinRows = 4;

const char* ThinRefusal(const GemmArgs& g);
bool ThinProduct(const GemmArgs& g);

}  // namespace anycann
