#include "ops/quant/level_dot.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace anycann {

#if defined(__AVX512BW__)
namespace {

constexpr int64_t kStep = 32;  // numbers that share a level's size

// 64 bytes of a column with what they are multiplied with. Bytes are two numbers each of 4 bits, whose lower
// ones are the even ones, or one of 8 bits. Lane l sums the products of bytes 4 l to 4 l + 3.
template <bool kFourBits>
struct Chunk {
  static constexpr int kHalves = kFourBits ? 2 : 1;
  static constexpr int64_t kNumbers = 64 * kHalves;
  static constexpr int kZero =
      kFourBits ? 8 : 128;                     // added to a number of the column: VNNI wants it unsigned
  int8_t high[kHalves][64], low[kHalves][64];  // x = size * (256 * high + low)
  int32_t start[16];                           // takes kZero out of the sums again
  float size[16];
};

template <bool kFourBits>
bool Split(const float* x, int64_t k, char* levels) {
  using C = Chunk<kFourBits>;
  C* chunk = reinterpret_cast<C*>(levels);
  constexpr int kLanes = static_cast<int>(kStep / C::kHalves / 4);  // of a step
  for (int64_t i = 0; i < k; i += C::kNumbers, ++chunk) {
    std::memset(static_cast<void*>(chunk), 0, sizeof(C));
    const int64_t end = std::min(k, i + C::kNumbers);
    for (int64_t s = i; s < end; s += kStep) {
      float most = 0;
      for (int64_t j = s; j < s + kStep; ++j) most = std::max(most, std::abs(x[j]));
      for (int64_t j = s; j < s + kStep; ++j)
        if (!(std::abs(x[j]) <= 3.0e38f)) return false;
      const float inverse = most > 0 ? 32512.0f / most : 0.0f;
      const int first = static_cast<int>((s - i) / C::kHalves / 4);
      std::fill_n(chunk->size + first, kLanes, most / 32512.0f);
      for (int64_t j = s; j < s + kStep; ++j) {
        const int level = static_cast<int>(std::nearbyint(x[j] * inverse));
        const int high = (level + 128) >> 8, low = level - high * 256;
        const int64_t byte = (j - i) / C::kHalves;
        chunk->high[(j - i) % C::kHalves][byte] = static_cast<int8_t>(high);
        chunk->low[(j - i) % C::kHalves][byte] = static_cast<int8_t>(low);
        chunk->start[byte / 4] -= C::kZero * level;
      }
    }
  }
  return true;
}

#define ANYCANN_VNNI __attribute__((target("avx512vnni")))

// The scales of a chunk's lanes: of each step, or one of all.
template <bool kFourBits>
inline __m512 LaneScales(const float* scale, int64_t i, int64_t group, __mmask8 steps) {
  if (group != kStep) return _mm512_set1_ps(scale[i / group]);
  const __m512 four = _mm512_castps128_ps512(_mm_maskz_loadu_ps(steps, scale + i / kStep));
  const __m512i lanes = kFourBits ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                                  : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  return _mm512_maskz_permutexvar_ps(0xffff, lanes, four);
}

template <bool kFourBits>
ANYCANN_VNNI inline __m512 AddChunk(__m512i bytes, const Chunk<kFourBits>& c, __m512 scale, __m512 total) {
  const __m512i unsigned_bytes = _mm512_xor_si512(bytes, _mm512_set1_epi8(kFourBits ? '\x88' : '\x80'));
  __m512i high = _mm512_setzero_si512(), low = high;
  if constexpr (kFourBits) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i even = _mm512_and_si512(unsigned_bytes, mask),
                  odd = _mm512_and_si512(_mm512_maskz_srli_epi16(0xffffffff, unsigned_bytes, 4), mask);
    high = _mm512_dpbusd_epi32(high, even, _mm512_load_si512(c.high[0]));
    low = _mm512_dpbusd_epi32(low, even, _mm512_load_si512(c.low[0]));
    high = _mm512_dpbusd_epi32(high, odd, _mm512_load_si512(c.high[1]));
    low = _mm512_dpbusd_epi32(low, odd, _mm512_load_si512(c.low[1]));
  } else {
    high = _mm512_dpbusd_epi32(high, unsigned_bytes, _mm512_load_si512(c.high[0]));
    low = _mm512_dpbusd_epi32(low, unsigned_bytes, _mm512_load_si512(c.low[0]));
  }
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(_mm512_maskz_slli_epi32(0xffff, high, 8), low),
                                       _mm512_load_si512(c.start));
  return _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(0xffff, sum), _mm512_mul_ps(scale, _mm512_load_ps(c.size)),
                         total);
}

template <bool kFourBits>
ANYCANN_VNNI float Dot(const int8_t* w, const char* levels, int64_t k, int64_t group, const float* scale) {
  using C = Chunk<kFourBits>;
  const C* chunk = reinterpret_cast<const C*>(levels);
  __m512 total = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + C::kNumbers <= k; i += C::kNumbers, ++chunk, w += 64)
    total = AddChunk<kFourBits>(_mm512_loadu_si512(w), *chunk, LaneScales<kFourBits>(scale, i, group, 0xf),
                                total);
  if (i < k) {
    const __mmask64 bytes = (uint64_t{1} << ((k - i) / C::kHalves)) - 1;
    const __mmask8 steps = static_cast<__mmask8>((1 << ((k - i) / kStep)) - 1);
    total = AddChunk<kFourBits>(_mm512_maskz_loadu_epi8(bytes, w), *chunk,
                                LaneScales<kFourBits>(scale, i, group, steps), total);
  }
  const __m256 eight = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, total, 0),
                                     _mm512_maskz_extractf32x8_ps(0xff, total, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace

bool HasLevelDot(bool four_bits, int64_t k, int64_t group) {
  static const bool has = __builtin_cpu_supports("avx512vnni");
  const int64_t chunk = four_bits ? Chunk<true>::kNumbers : Chunk<false>::kNumbers;
  return has && k > 0 && k % kStep == 0 && (group == kStep || group >= k || group % chunk == 0);
}

int64_t LevelBytes(bool four_bits, int64_t k) {
  const int64_t size = four_bits ? sizeof(Chunk<true>) : sizeof(Chunk<false>);
  const int64_t numbers = four_bits ? Chunk<true>::kNumbers : Chunk<false>::kNumbers;
  return (k + numbers - 1) / numbers * size;
}

bool ToLevels(const float* x, bool four_bits, int64_t k, char* levels) {
  return four_bits ? Split<true>(x, k, levels) : Split<false>(x, k, levels);
}

float LevelDot(const int8_t* w, bool four_bits, const char* levels, int64_t k, int64_t group,
               const float* scale) {
  return four_bits ? Dot<true>(w, levels, k, group, scale) : Dot<false>(w, levels, k, group, scale);
}
#else
bool HasLevelDot(bool, int64_t, int64_t) { return false; }
int64_t LevelBytes(bool, int64_t) { return 0; }
bool ToLevels(const float*, bool, int64_t, char*) { return false; }
float LevelDot(const int8_t*, bool, const char*, int64_t, int64_t, const float*) { return 0; }
#endif

}  // namespace anycann
