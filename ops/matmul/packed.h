// The packed product: one operand is packed whole and shared by all tasks, each task packs its strip of the
// other, and tiles run over blocks that stay in the second-level cache. See packed_engine.h.
#pragma once

#include "ops/matmul/gemm.h"

namespace anycann {

// Each computes one item (g.batch_rank == 0) or, serially within a task, many; false when memory is
// exhausted. The operand types must be the ones that the function's name says.
bool PackedFloat(const GemmArgs& g);     // float32, float16, bfloat16 -> float accumulators
bool PackedDouble(const GemmArgs& g);    // any floating type
bool PackedInteger(const GemmArgs& g);   // integers and bool; wraps
bool PackedComplex(const GemmArgs& g);   // complex64, complex128
bool PackedBFloat16(const GemmArgs& g);  // both operands bfloat16, on a processor with AVX512-BF16

}  // namespace anycann
