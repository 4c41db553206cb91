#include "ops/matmul/pack.h"

#include <algorithm>
#include <cstring>

#include "ops/matmul/transpose.h"

namespace anycann {
namespace {

template <class To, class From>
inline To Load(From x) {
  if constexpr (std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>) {
    return static_cast<To>(static_cast<float>(x));
  } else if constexpr (std::is_same_v<From, Complex64> || std::is_same_v<From, Complex128>) {
    return static_cast<To>(x.real());
  } else if constexpr (std::is_integral_v<To> && std::is_integral_v<From> && !std::is_same_v<From, bool>) {
    return static_cast<To>(static_cast<std::make_signed_t<To>>(x));
  } else {
    return static_cast<To>(x);
  }
}

// Lines side by side in memory: one run of `width` elements per u. The usual widths are compiled as
// constants.
template <int kWidth, class To, class From>
void PackRuns(To* dst, int padded, const From* src, int64_t k_stride, int width, int64_t k) {
  const int w = kWidth ? kWidth : width;
  for (int64_t u = 0; u < k; ++u, dst += padded, src += k_stride) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<To, float> && std::is_same_v<From, Half> && kWidth == 32) {
      for (int i = 0; i < 32; i += 16)
        _mm512_storeu_ps(dst + i,
                         _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i))));
      continue;
    }
#endif
#pragma GCC ivdep
    for (int i = 0; i < w; ++i) dst[i] = Load<To>(src[i]);
  }
}

#if defined(__AVX512F__)
using Square = __m512i;
inline __mmask16 Mask(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }
template <class From>
inline Square LoadRun(const From* p, int64_t n) {
  const __mmask16 m = Mask(n);
  if constexpr (sizeof(From) == 4) {
    return _mm512_maskz_loadu_epi32(m, p);
  } else {
    __m256i h;
    if (n >= 16) {
      h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    } else {
      alignas(32) uint16_t tail[16] = {};
      std::memcpy(tail, p, static_cast<size_t>(n) * 2);
      h = _mm256_load_si256(reinterpret_cast<const __m256i*>(tail));
    }
    if constexpr (std::is_same_v<From, Half>)
      return _mm512_castps_si512(_mm512_cvtph_ps(h));
    else
      return _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
  }
}
inline void StoreRun(void* p, Square v, int n) { _mm512_mask_storeu_epi32(p, Mask(n), v); }
inline Square Zero() { return _mm512_setzero_si512(); }
#elif defined(__AVX2__)
using Square = __m256i;
template <class From>
inline Square LoadRun(const From* p, int64_t n) {
  alignas(32) From tail[8] = {};
  const From* q = p;
  if (n < 8) {
    std::memcpy(static_cast<void*>(tail), p, static_cast<size_t>(n) * sizeof(From));
    q = tail;
  }
  if constexpr (sizeof(From) == 4) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
  } else {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
    if constexpr (std::is_same_v<From, Half>)
      return _mm256_castps_si256(_mm256_cvtph_ps(h));
    else
      return _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
  }
}
inline void StoreRun(void* p, Square v, int n) {
  if (n >= 8) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), v);
  } else {
    alignas(32) uint32_t tail[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(tail), v);
    std::memcpy(p, tail, static_cast<size_t>(n) * 4);
  }
}
inline Square Zero() { return _mm256_setzero_si256(); }
#endif

#if defined(__AVX2__)
// Each line contiguous: squares are transposed in registers. 4-byte elements as they are; Half and BFloat16
// to float.
template <class From>
void PackTransposed(void* dst, int padded, const From* src, int64_t line_stride, int width, int64_t k) {
  constexpr int kSize = kTransposeSize;
  for (int64_t u = 0; u < k; u += kSize) {
    const int64_t depth = std::min<int64_t>(kSize, k - u);
    for (int first = 0; first < padded; first += kSize) {
      const int lines = std::clamp(width - first, 0, kSize);
      Square r[kSize];
      const From* p = src + first * line_stride + u;
      if (lines == kSize && depth == kSize) {
#pragma GCC unroll 16
        for (int i = 0; i < kSize; ++i) r[i] = LoadRun(p + i * line_stride, kSize);
      } else {
        for (int i = 0; i < kSize; ++i) r[i] = i < lines ? LoadRun(p + i * line_stride, depth) : Zero();
      }
      TransposeSquare(r);
      char* to = static_cast<char*>(dst) + (u * padded + first) * 4;
      const int stored = std::min(kSize, padded - first);
      if (stored == kSize && depth == kSize) {
#pragma GCC unroll 16
        for (int i = 0; i < kSize; ++i) StoreRun(to + static_cast<int64_t>(i) * padded * 4, r[i], kSize);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < kSize; ++i)
          if (i < depth) StoreRun(to + static_cast<int64_t>(i) * padded * 4, r[i], stored);
      }
    }
  }
}
#endif

template <class To>
void ZeroLines(To* dst, int padded, int width, int64_t k) {
  if (width == padded) return;
  for (int64_t u = 0; u < k; ++u)
    for (int i = width; i < padded; ++i) dst[u * padded + i] = To();
}

template <class To, class From>
constexpr bool kTransposes = kTransposeSize > 0 && sizeof(To) == 4 &&
                             (std::is_same_v<To, From> ||
                              (std::is_same_v<To, float> && sizeof(From) == 2 &&
                               (std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>)));

template <class To, class From>
void PackFrom(To* dst, int padded, const Lines& lines, int width, int64_t k) {
  const From* src = reinterpret_cast<const From*>(lines.data);
#if defined(__AVX2__)
  if constexpr (kTransposes<To, From>) {
    if (lines.k_stride == 1 && lines.line_stride != 1 && k > 1)
      return PackTransposed(dst, padded, src, lines.line_stride, width, k);
  }
#endif
  if (lines.line_stride == 1 || width == 1) {
    if (width == 32)
      PackRuns<32>(dst, padded, src, lines.k_stride, width, k);
    else if (width == 14)
      PackRuns<14>(dst, padded, src, lines.k_stride, width, k);
    else
      PackRuns<0>(dst, padded, src, lines.k_stride, width, k);
  } else {
    // Blocks of the depth keep both sides in the first-level cache.
    for (int64_t u0 = 0; u0 < k; u0 += 64) {
      const int64_t u1 = std::min(k, u0 + 64);
      for (int i = 0; i < width; ++i) {
        const From* p = src + i * lines.line_stride;
        for (int64_t u = u0; u < u1; ++u) dst[u * padded + i] = Load<To>(p[u * lines.k_stride]);
      }
    }
  }
  ZeroLines(dst, padded, width, k);
}

template <class To>
void PackFloating(To* dst, int padded, const Lines& src, int width, int64_t k) {
  switch (src.dtype) {
    case DType::kFloat: return PackFrom<To, float>(dst, padded, src, width, k);
    case DType::kFloat16: return PackFrom<To, Half>(dst, padded, src, width, k);
    case DType::kBFloat16: return PackFrom<To, BFloat16>(dst, padded, src, width, k);
    case DType::kDouble: return PackFrom<To, double>(dst, padded, src, width, k);
    default: return;  // GemmSupports has refused it
  }
}

template <class To>
void PackInteger(To* dst, int padded, const Lines& src, int width, int64_t k) {
  switch (src.dtype) {
    case DType::kBool:
    case DType::kUint8: return PackFrom<To, uint8_t>(dst, padded, src, width, k);
    case DType::kInt8: return PackFrom<To, int8_t>(dst, padded, src, width, k);
    case DType::kInt16: return PackFrom<To, int16_t>(dst, padded, src, width, k);
    case DType::kUint16: return PackFrom<To, uint16_t>(dst, padded, src, width, k);
    case DType::kInt32:
      return PackFrom<To, std::conditional_t<sizeof(To) == 4, uint32_t, int32_t>>(dst, padded, src, width, k);
    case DType::kUint32: return PackFrom<To, uint32_t>(dst, padded, src, width, k);
    case DType::kInt64:
    case DType::kUint64: return PackFrom<To, uint64_t>(dst, padded, src, width, k);
    default: return;  // GemmSupports has refused it
  }
}

template <class T, class From, class F>
void EachComplex(const Lines& src, int width, int64_t k, F&& f) {
  const From* p = reinterpret_cast<const From*>(src.data);
  for (int64_t u = 0; u < k; ++u) {
    for (int i = 0; i < width; ++i) {
      const From x = p[i * src.line_stride + u * src.k_stride];
      if constexpr (std::is_same_v<From, T>)
        f(u, i, x, T(0));
      else
        f(u, i, static_cast<T>(x.real()), static_cast<T>(x.imag()));
    }
  }
}

// A real operand of a complex product counts as one with imaginary part 0.
template <class T, class F>
void VisitComplex(const Lines& src, int width, int64_t k, F&& f) {
  switch (src.dtype) {
    case DType::kComplex64: return EachComplex<T, Complex64>(src, width, k, f);
    case DType::kComplex128: return EachComplex<T, Complex128>(src, width, k, f);
    default: return;  // GemmSupports has refused it
  }
}

}  // namespace

void Pack(float* dst, int padded, const Lines& src, int width, int64_t k) {
  PackFloating(dst, padded, src, width, k);
}
void Pack(double* dst, int padded, const Lines& src, int width, int64_t k) {
  PackFloating(dst, padded, src, width, k);
}
void Pack(uint32_t* dst, int padded, const Lines& src, int width, int64_t k) {
  PackInteger(dst, padded, src, width, k);
}
void Pack(uint64_t* dst, int padded, const Lines& src, int width, int64_t k) {
  PackInteger(dst, padded, src, width, k);
}

void PackPairs(uint32_t* dst, int padded, const Lines& src, int width, int64_t k) {
  const int64_t whole = k / 2;
  const uint16_t* p = reinterpret_cast<const uint16_t*>(src.data);
  bool done = false;
#if defined(__AVX2__)
  if (src.k_stride == 1 && src.line_stride % 2 == 0 && src.line_stride != 0 && whole > 1) {
    PackTransposed(dst, padded, reinterpret_cast<const uint32_t*>(p), src.line_stride / 2, width, whole);
    done = true;
  }
#endif
  for (int64_t u = done ? whole : 0; u < (k + 1) / 2; ++u) {
    uint32_t* to = dst + u * padded;
    const uint16_t* low = p + 2 * u * src.k_stride;
    const uint16_t* high = 2 * u + 1 < k ? low + src.k_stride : nullptr;
    if (src.line_stride == 1 && high != nullptr) {
#pragma GCC ivdep
      for (int i = 0; i < width; ++i) to[i] = low[i] | static_cast<uint32_t>(high[i]) << 16;
    } else {
      for (int i = 0; i < width; ++i) {
        const int64_t at = i * src.line_stride;
        to[i] = low[at] | (high ? static_cast<uint32_t>(high[at]) << 16 : 0u);
      }
    }
    for (int i = width; i < padded; ++i) to[i] = 0;
  }
}

template <class T>
void PackComplexLeft(T* dst, int padded, const Lines& src, int width, int64_t k) {
  VisitComplex<T>(src, width, k, [&](int64_t u, int i, T real, T imaginary) {
    dst[2 * u * padded + i] = real;
    dst[(2 * u + 1) * padded + i] = imaginary;
  });
  ZeroLines(dst, padded, width, 2 * k);
}

template <class T>
void PackComplexRight(T* dst, int padded, const Lines& src, int width, int64_t k) {
  VisitComplex<T>(src, width, k, [&](int64_t u, int i, T real, T imaginary) {
    T* to = dst + 2 * u * padded + 2 * i;
    to[0] = real;
    to[1] = imaginary;
    to[padded] = -imaginary;
    to[padded + 1] = real;
  });
  ZeroLines(dst, padded, 2 * width, 2 * k);
}

template void PackComplexLeft(float*, int, const Lines&, int, int64_t);
template void PackComplexLeft(double*, int, const Lines&, int, int64_t);
template void PackComplexRight(float*, int, const Lines&, int, int64_t);
template void PackComplexRight(double*, int, const Lines&, int, int64_t);

}  // namespace anycann
