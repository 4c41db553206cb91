// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a function from a
// counter and a key to four 32-bit words. Element i of a tensor takes word i of the sequence that (seed,
// offset) names, so results depend neither on the number of threads nor on the vector width.
//
// The sequence comes in groups of 64 words, from 16 consecutive counters: word w of counter c is number w *
// 16 + c of its group, so that a group is computed by loops over 16 lanes and stored without a transposition.
#pragma once

#include <cstdint>

namespace anycann {

struct Philox {
  static constexpr int64_t kGroup = 64;

  uint64_t seed = 0;    // the key
  uint64_t offset = 0;  // the upper half of the counter

  // The words of one group. `stream` (0 or 1) selects one of two independent sequences, for values that need
  // more bits.
  void Group(uint64_t group, uint32_t stream, uint32_t* __restrict words) const {
    constexpr int kLanes = 16;
    const uint32_t high = static_cast<uint32_t>(offset >> 32), low = static_cast<uint32_t>(offset);
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint64_t block = group * kLanes + static_cast<uint64_t>(lane);
      uint32_t x0 = static_cast<uint32_t>(block), x1 = static_cast<uint32_t>(block >> 32) ^ (stream << 31),
               x2 = low, x3 = high;
      Rounds(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), &x0, &x1, &x2, &x3);
      words[lane] = x0;
      words[kLanes + lane] = x1;
      words[2 * kLanes + lane] = x2;
      words[3 * kLanes + lane] = x3;
    }
  }

  static void Rounds(uint32_t key0, uint32_t key1, uint32_t* x0, uint32_t* x1, uint32_t* x2, uint32_t* x3) {
    uint32_t a = *x0, b = *x1, c = *x2, d = *x3;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t p = uint64_t{0xD2511F53} * a, q = uint64_t{0xCD9E8D57} * c;
      a = static_cast<uint32_t>(q >> 32) ^ b ^ key0;
      b = static_cast<uint32_t>(q);
      c = static_cast<uint32_t>(p >> 32) ^ d ^ key1;
      d = static_cast<uint32_t>(p);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    *x0 = a, *x1 = b, *x2 = c, *x3 = d;
  }
};

}  // namespace anycann
