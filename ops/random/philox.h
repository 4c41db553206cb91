// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a function from a
// counter and a key to four 32-bit words. Element i of a tensor takes word i of the sequence that (seed,
// offset) names, so results depend neither on the number of threads nor on the vector width.
//
// The sequence comes in groups of 64 words, from 16 consecutive counters: word w of counter c is number w *
// 16 + c of its group, so that a group is computed in vectors over the counters and stored without a
// transposition.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace anycann {

struct Philox {
  static constexpr int64_t kGroup = 64;

  uint64_t seed = 0;    // the key
  uint64_t offset = 0;  // the upper half of the counter

  // The words of one group. `stream` (0 or 1) selects one of two independent sequences, for values that need
  // more bits.
  void Group(uint64_t group, uint32_t stream, uint32_t* __restrict words) const {
    for (int lane = 0; lane < kCounters; lane += Lanes::kWidth) {
      const uint64_t block = group * kCounters + static_cast<uint64_t>(lane);
      Lanes a = Lanes::Ascending(block);  // 16 counters never cross a multiple of 2^32
      Lanes b = Lanes::All(static_cast<uint32_t>(block >> 32) ^ (stream << 31));
      Lanes c = Lanes::All(static_cast<uint32_t>(offset)),
            d = Lanes::All(static_cast<uint32_t>(offset >> 32));
      Rounds(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), &a, &b, &c, &d);
      a.Store(words + lane);
      b.Store(words + kCounters + lane);
      c.Store(words + 2 * kCounters + lane);
      d.Store(words + 3 * kCounters + lane);
    }
  }

  // Several 32-bit numbers, each in the lower half of a 64-bit lane; what the upper halves hold doesn't
  // count. So a product of 32 by 32 bits is one instruction and its upper half one shift.
#if defined(__AVX512F__)
  // The forms with a full mask: g++ 12 warns that the plain ones use something uninitialised.
  struct Lanes {
    static constexpr int kWidth = 8;
    __m512i v;
    static Lanes All(uint32_t x) { return {_mm512_set1_epi64(x)}; }
    static Lanes Ascending(uint64_t x) {
      return {_mm512_add_epi64(_mm512_set1_epi64(static_cast<int64_t>(x)),
                               _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0))};
    }
    static Lanes Product(Lanes a, Lanes b) { return {_mm512_maskz_mul_epu32(0xff, a.v, b.v)}; }
    Lanes Upper() const { return {_mm512_maskz_srli_epi64(0xff, v, 32)}; }
    static Lanes Xor(Lanes a, Lanes b, Lanes c) { return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0x96)}; }
    void Store(uint32_t* to) const {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_maskz_cvtepi64_epi32(0xff, v));
    }
  };
#elif defined(__AVX2__)
  struct Lanes {
    static constexpr int kWidth = 4;
    __m256i v;
    static Lanes All(uint32_t x) { return {_mm256_set1_epi64x(x)}; }
    static Lanes Ascending(uint64_t x) {
      return {_mm256_add_epi64(_mm256_set1_epi64x(static_cast<int64_t>(x)), _mm256_set_epi64x(3, 2, 1, 0))};
    }
    static Lanes Product(Lanes a, Lanes b) { return {_mm256_mul_epu32(a.v, b.v)}; }
    Lanes Upper() const { return {_mm256_srli_epi64(v, 32)}; }
    static Lanes Xor(Lanes a, Lanes b, Lanes c) {
      return {_mm256_xor_si256(_mm256_xor_si256(a.v, b.v), c.v)};
    }
    void Store(uint32_t* to) const {
      const __m256i packed = _mm256_permutevar8x32_epi32(v, _mm256_set_epi32(6, 4, 2, 0, 6, 4, 2, 0));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
    }
  };
#else
  struct Lanes {
    static constexpr int kWidth = 1;
    uint64_t v;
    static Lanes All(uint32_t x) { return {x}; }
    static Lanes Ascending(uint64_t x) { return {x}; }
    static Lanes Product(Lanes a, Lanes b) {
      return {static_cast<uint64_t>(static_cast<uint32_t>(a.v)) * static_cast<uint32_t>(b.v)};
    }
    Lanes Upper() const { return {v >> 32}; }
    static Lanes Xor(Lanes a, Lanes b, Lanes c) { return {a.v ^ b.v ^ c.v}; }
    void Store(uint32_t* to) const { *to = static_cast<uint32_t>(v); }
  };
#endif

  // Ten rounds, in place.
  static void Rounds(uint32_t key0, uint32_t key1, Lanes* x0, Lanes* x1, Lanes* x2, Lanes* x3) {
    const Lanes first = Lanes::All(0xD2511F53), second = Lanes::All(0xCD9E8D57);
    Lanes a = *x0, b = *x1, c = *x2, d = *x3;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Lanes p = Lanes::Product(first, a), q = Lanes::Product(second, c);
      a = Lanes::Xor(q.Upper(), b, Lanes::All(key0));
      b = q;
      c = Lanes::Xor(p.Upper(), d, Lanes::All(key1));
      d = p;
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    *x0 = a, *x1 = b, *x2 = c, *x3 = d;
  }

 private:
  static constexpr int kCounters = 16;
};

}  // namespace anycann
