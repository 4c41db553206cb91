// Tiles of bfloat16 pairs on AVX512-BF16, which no x86-64 level includes: compiled for it here, used where
// it's there.
#include "ops/matmul/tile.h"

namespace anycann {

#if defined(__AVX512F__)
namespace {

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
TileKernel<BFloat16Lanes> FindTile<BFloat16Lanes>(int vectors, int rows) {
  static constexpr auto table = MakePairTiles(std::make_integer_sequence<int, kTileRows>());
  return table.kernels[vectors - 1][rows - 1];
}

bool HasBFloat16Dot() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
}
#else
template <>
TileKernel<BFloat16Lanes> FindTile<BFloat16Lanes>(int, int) {
  return nullptr;
}
bool HasBFloat16Dot() { return false; }
#endif

}  // namespace anycann
