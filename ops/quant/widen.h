// 8-bit and 4-bit integers as registers of floats. g++ 12 makes of the plain loops one insertion for each
// number, so the instructions are named here.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace anycann {

#if defined(__AVX512F__)
using FloatRegister = __m512;
#elif defined(__AVX2__)
using FloatRegister = __m256;
#else
using FloatRegister = __m128;
#endif
inline constexpr int kRegisterFloats = sizeof(FloatRegister) / sizeof(float);

// 16 numbers in order.
struct Floats16 {
  FloatRegister part[16 / kRegisterFloats];
};

namespace internal {

// The `kPart`-th kRegisterFloats of 16 int8.
template <int kPart>
inline FloatRegister WidenPart(__m128i bytes) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8 * kPart)));
#else
  return _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_srli_si128(bytes, 4 * kPart)));
#endif
}

}  // namespace internal

inline FloatRegister AllFloats(float value) { return value - FloatRegister{}; }

inline FloatRegister MultiplyAdd(FloatRegister a, FloatRegister b, FloatRegister c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

inline FloatRegister LoadFloats(const float* p) {
  typedef FloatRegister Unaligned __attribute__((aligned(4), may_alias));
  return *reinterpret_cast<const Unaligned*>(p);
}
inline void StoreFloats(float* p, FloatRegister value) {
  typedef FloatRegister Unaligned __attribute__((aligned(4), may_alias));
  *reinterpret_cast<Unaligned*>(p) = value;
}

inline Floats16 Widen16(__m128i bytes) {
  Floats16 to;
  to.part[0] = internal::WidenPart<0>(bytes);
  if constexpr (kRegisterFloats <= 8) to.part[1] = internal::WidenPart<1>(bytes);
  if constexpr (kRegisterFloats <= 4) {
    to.part[2] = internal::WidenPart<2>(bytes);
    to.part[3] = internal::WidenPart<3>(bytes);
  }
  return to;
}

inline void StoreFloats16(float* p, const Floats16& value) {
  for (int i = 0; i < 16 / kRegisterFloats; ++i) StoreFloats(p + i * kRegisterFloats, value.part[i]);
}

inline __m128i Load16(const int8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

// The lower and the upper halves of 16 bytes as int8.
inline __m128i SignedNibbles(__m128i nibbles) {
  const __m128i eight = _mm_set1_epi8(8);
  return _mm_sub_epi8(_mm_xor_si128(_mm_and_si128(nibbles, _mm_set1_epi8(15)), eight), eight);
}
inline __m128i LowerHalves(__m128i bytes) { return SignedNibbles(bytes); }
inline __m128i UpperHalves(__m128i bytes) { return SignedNibbles(_mm_srli_epi16(bytes, 4)); }

// The i-th of 4-bit numbers that lie two in a byte, the lower bits first.
inline int Nibble(const int8_t* bytes, int64_t i) {
  return i % 2 == 0 ? static_cast<int8_t>(bytes[i / 2] << 4) >> 4 : bytes[i / 2] >> 4;
}

}  // namespace anycann
