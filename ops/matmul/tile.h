// Tile kernels: the innermost loop of the packed product. A tile is kRows x (vectors * kLanes) accumulators
// in registers; it reads one panel of A and one of B (pack.h) and adds to, or overwrites, a piece of C.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <utility>

namespace anycann {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64, kTileRows = 14;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32, kTileRows = 6;
#else
inline constexpr int kVectorBytes = 16, kTileRows = 6;
#endif
inline constexpr int kTileVectors = 2;

// Arithmetic of one element type on registers. Element is what panels hold, Accumulator what C holds.
struct FloatLanes {
  using Element = float;
  using Accumulator = float;
  typedef float Register __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / 4;
  static Register MultiplyAdd(Register a, Register b, Register c) {
#if defined(__AVX512F__)
    return (Register)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (Register)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
  }
};
struct DoubleLanes {
  using Element = double;
  using Accumulator = double;
  typedef double Register __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / 8;
  static Register MultiplyAdd(Register a, Register b, Register c) {
#if defined(__AVX512F__)
    return (Register)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
    return (Register)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return a * b + c;
#endif
  }
};
template <class T>
struct IntegerLanes {
  using Element = T;
  using Accumulator = T;
  typedef T Register __attribute__((vector_size(kVectorBytes)));
  static constexpr int kLanes = kVectorBytes / sizeof(T);
  static Register MultiplyAdd(Register a, Register b, Register c) { return a * b + c; }
};

template <class L>
using TileKernel = void (*)(int64_t depth, const typename L::Element* a, const typename L::Element* b,
                            typename L::Accumulator* c, int64_t c_row, bool add);

template <class L, int kRows, int kVectors>
void Tile(int64_t depth, const typename L::Element* a, const typename L::Element* b,
          typename L::Accumulator* c, int64_t c_row, bool add) {
  using R = typename L::Register;
  typedef R Unaligned __attribute__((aligned(alignof(typename L::Element)), may_alias));
  R sum[kRows][kVectors] = {};
  for (int64_t u = 0; u < depth; ++u) {
    R right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) right[v] = *reinterpret_cast<const Unaligned*>(b + v * L::kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const R left = a[i] - R{};
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = L::MultiplyAdd(left, right[v], sum[i][v]);
    }
    a += kRows;
    b += kVectors * L::kLanes;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Unaligned* to = reinterpret_cast<Unaligned*>(c + i * c_row + v * L::kLanes);
      *to = add ? *to + sum[i][v] : sum[i][v];
    }
  }
}

// Registers of pairs of bfloat16 on AVX512-BF16; their kernels are in tile_bfloat16.cc.
struct BFloat16Lanes {
  using Element = uint32_t;  // a pair, the first in the low half
  using Accumulator = float;
  static constexpr int kLanes = kVectorBytes / 4;
};
bool HasBFloat16Dot();

// The kernel of `vectors` (1 or 2) and `rows` (1 to kTileRows). Defined in tile_*.cc, so that they are
// compiled once.
template <class L>
TileKernel<L> FindTile(int vectors, int rows);

template <class L>
struct TileTable {
  TileKernel<L> kernels[kTileVectors][kTileRows];
};
template <class L, int... kRows>
constexpr TileTable<L> MakeTiles(std::integer_sequence<int, kRows...>) {
  return {{{&Tile<L, kRows + 1, 1>...}, {&Tile<L, kRows + 1, 2>...}}};
}

}  // namespace anycann
