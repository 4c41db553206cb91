// Products of bfloat16 pairs on AVX512-BF16, which no x86-64 level includes: compiled for it here, used when
// it's there.
#include "ops/matmul/packed_engine.h"

#if defined(__AVX512F__)

namespace anycann {
namespace {

struct BFloat16Lanes {
  using Element = uint32_t;  // a pair
  using Accumulator = float;
  typedef float Register __attribute__((vector_size(64)));
  static constexpr int kLanes = 16;
};

// Registers hold pairs of A and B as bits; accumulators are floats.
template <int kRows, int kVectors>
__attribute__((target("avx512bf16"))) void PairTile(int64_t depth, const uint32_t* a, const uint32_t* b,
                                                    float* c, int64_t c_row, bool add) {
  __m512 sum[kRows][kVectors] = {};
  for (int64_t u = 0; u < depth; ++u) {
    __m512bh right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) right[v] = (__m512bh)_mm512_loadu_si512(b + v * 16);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const __m512bh left = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i]));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], left, right[v]);
    }
    a += kRows;
    b += kVectors * 16;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + i * c_row + v * 16;
      _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][v]) : sum[i][v]);
    }
  }
}

template <int... kRows>
constexpr TileTable<BFloat16Lanes> MakePairTiles(std::integer_sequence<int, kRows...>) {
  return {{{&PairTile<kRows + 1, 1>...}, {&PairTile<kRows + 1, 2>...}}};
}

}  // namespace

template <>
inline constexpr TileTable<BFloat16Lanes> kTiles<BFloat16Lanes> =
    MakePairTiles(std::make_integer_sequence<int, kTileRows>());

namespace {

struct BFloat16Product {
  using Lanes = BFloat16Lanes;
  static constexpr int kColumns = 1;
  static constexpr DType kAccumulator = DType::kFloat;
  static int64_t Units(int64_t k) { return (k + 1) / 2; }
  static void PackLeft(uint32_t* to, int padded, const Lines& l, int width, int64_t k) {
    PackPairs(to, padded, l, width, k);
  }
  static void PackRight(uint32_t* to, int padded, const Lines& l, int width, int64_t k) {
    PackPairs(to, padded, l, width, k);
  }
};

}  // namespace

bool HasBFloat16Dot() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
}
bool PackedBFloat16(const GemmArgs& g) { return PackedEngine<BFloat16Product>(g).Run(); }

}  // namespace anycann
#else
namespace anycann {
bool HasBFloat16Dot() { return false; }
bool PackedBFloat16(const GemmArgs&) { return false; }
}  // namespace anycann
#endif
