// The product of a row of half-precision numbers with a column of 8-bit or 4-bit ones, in integers: each 32
// of the row become levels of 16 bits, split in halves that AVX512-VNNI multiplies. A level is 1 / 32512 of
// the largest of its 32, far below what float16 keeps.
#pragma once

#include <cstdint>

namespace anycann {

// Whether this machine has it, for groups of `group` numbers that share a scale in a column of k.
bool HasLevelDot(bool four_bits, int64_t k, int64_t group);

// Bytes of a row of k numbers as levels, to be aligned to 64.
int64_t LevelBytes(bool four_bits, int64_t k);

// x as levels. False: x isn't finite.
bool ToLevels(const float* x, bool four_bits, int64_t k, char* levels);

// Sum over i < k of w[i] * scale[i / group] * x[i]. Two 4-bit numbers lie in a byte, the lower bits first.
float LevelDot(const int8_t* w, bool four_bits, const char* levels, int64_t k, int64_t group,
               const float* scale);

}  // namespace anycann
