#include "ops/convert.h"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "ops/elementwise/engine.h"

namespace anycann {
namespace {

template <class To, class From>
inline To Cast(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>) {
    return Cast<To>(static_cast<float>(x));
  } else if constexpr (std::is_same_v<From, ComplexHalf>) {
    return Cast<To>(static_cast<Complex64>(x));
  } else if constexpr (std::is_same_v<From, Complex64> || std::is_same_v<From, Complex128>) {
    if constexpr (std::is_same_v<To, bool>)
      return x.real() != 0 || x.imag() != 0;
    else if constexpr (std::is_same_v<To, Complex64> || std::is_same_v<To, Complex128>)
      return static_cast<To>(x);
    else if constexpr (std::is_same_v<To, ComplexHalf>)
      return ComplexHalf(Complex64(x));
    else
      return Cast<To>(x.real());
  } else if constexpr (std::is_same_v<To, ComplexHalf>) {
    return ComplexHalf(Complex64(static_cast<float>(x), 0));
  } else if constexpr (std::is_same_v<To, Complex64> || std::is_same_v<To, Complex128>) {
    return To(static_cast<typename To::value_type>(x), 0);
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != 0;
  } else if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, BFloat16>) {
    return To(static_cast<float>(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To> && sizeof(To) < 8) {
    // Through int64: out-of-range values wrap, as torch's CPU gives on x86, instead of being undefined.
    return static_cast<To>(static_cast<int64_t>(x));
  } else {
    return static_cast<To>(x);
  }
}

template <class To, class From>
void ConvertLoop(void* dst, const void* src, int64_t n) {
  To* d = static_cast<To*>(dst);
  const From* s = static_cast<const From*>(src);
  for (int64_t i = 0; i < n; ++i) d[i] = Cast<To>(s[i]);
}

#if defined(__F16C__)
// g++ 12 does not vectorise the scalar conversions.
template <>
[[maybe_unused]] void ConvertLoop<float, Half>(void* dst, const void* src, int64_t n) {
  float* d = static_cast<float*>(dst);
  const Half* s = static_cast<const Half*>(src);
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps(d + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(s + i))));
#endif
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(d + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(s + i))));
  for (; i < n; ++i) d[i] = s[i];
}
template <>
[[maybe_unused]] void ConvertLoop<Half, float>(void* dst, const void* src, int64_t n) {
  Half* d = static_cast<Half*>(dst);
  const float* s = static_cast<const float*>(src);
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(d + i), _mm512_cvtps_ph(_mm512_loadu_ps(s + i), 0));
#endif
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(d + i), _mm256_cvtps_ph(_mm256_loadu_ps(s + i), 0));
  for (; i < n; ++i) d[i] = s[i];
}
#endif

using Loop = void (*)(void*, const void*, int64_t);

Loop FindLoop(DType to, DType from) {
  Loop loop = nullptr;
  VisitType(to, [&](auto t) {
    VisitType(from,
              [&](auto f) { loop = &ConvertLoop<typename decltype(t)::type, typename decltype(f)::type>; });
  });
  return loop;
}

class LoopTable {
 public:
  LoopTable() {
    for (int to = 0; to < kTypes; ++to)
      for (int from = 0; from < kTypes; ++from)
        loops_[to][from] = FindLoop(static_cast<DType>(to), static_cast<DType>(from));
  }
  Loop Find(DType to, DType from) const {
    const auto t = static_cast<unsigned>(to), f = static_cast<unsigned>(from);
    return t < kTypes && f < kTypes ? loops_[t][f] : nullptr;
  }

 private:
  static constexpr int kTypes = static_cast<int>(DType::kComplex32) + 1;
  Loop loops_[kTypes][kTypes];
};

template <class T>
void PackLoop(T* __restrict dst, const T* __restrict src, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = src[i * stride];
}
template <class T>
void UnpackLoop(T* __restrict dst, int64_t stride, const T* __restrict src, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i * stride] = src[i];
}
}  // namespace

void Convert(void* dst, DType dst_type, const void* src, DType src_type, int64_t n) {
  if (dst_type == src_type) {
    // A client may pass an output that overlaps an input: the values are then its affair.
    if (dst != src) std::memmove(dst, src, static_cast<size_t>(n * SizeOf(dst_type)));
    return;
  }
  // A look into a table: short pieces are converted often.
  static const LoopTable table;
  if (Loop loop = table.Find(dst_type, src_type)) return loop(dst, src, n);
  std::memset(dst, 0, static_cast<size_t>(n * SizeOf(dst_type)));  // sanitizer builds have few types
}

void PackStrided(void* dst, const void* src, int64_t stride, int64_t n, int64_t size) {
  if (stride == 1) {
    std::memcpy(dst, src, static_cast<size_t>(n * size));
    return;
  }
  if (n <= 0) return;  // there may be no element to repeat
  VisitBytes(size, [&](auto x) {
    using T = decltype(x);
    const T* s = static_cast<const T*>(src);
    T* d = static_cast<T*>(dst);
    if (stride == 0) {
      const T value = s[0];
      for (int64_t i = 0; i < n; ++i) d[i] = value;
    } else {
      PackLoop(d, s, stride, n);
    }
  });
}

void UnpackStrided(void* dst, int64_t stride, const void* src, int64_t n, int64_t size) {
  if (stride == 1) {
    std::memcpy(dst, src, static_cast<size_t>(n * size));
    return;
  }
  VisitBytes(size, [&](auto x) {
    using T = decltype(x);
    UnpackLoop(static_cast<T*>(dst), stride, static_cast<const T*>(src), n);
  });
}

void StreamCopy(void* to, const void* from, int64_t n) {
  char* dst = static_cast<char*>(to);
  const char* src = static_cast<const char*>(from);
#if defined(__AVX512F__)
  const int64_t head = std::min<int64_t>(n, -reinterpret_cast<intptr_t>(dst) & 63);
  std::memcpy(dst, src, head);
  dst += head, src += head, n -= head;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(dst + i), _mm512_loadu_si512(src + i));
  std::memcpy(dst + i, src + i, n - i);
#elif defined(__SSE2__)
  const int64_t head = std::min<int64_t>(n, -reinterpret_cast<intptr_t>(dst) & 15);
  std::memcpy(dst, src, head);
  dst += head, src += head, n -= head;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i)));
  std::memcpy(dst + i, src + i, n - i);
#else
  std::memcpy(dst, src, n);
#endif
}

void StreamFence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

ElementwiseKernel CopyKernel(DType t) {
  ElementwiseKernel k;
  k.inputs = k.outputs = 1;
  k.in_types[0] = k.out_types[0] = t;
  k.cost = 0.5;
  VisitBytes(SizeOf(t), [&](auto x) {
    using T = decltype(x);
    k.loop = [](void* const* out, const void* const* in, int64_t n, const void*) {
      std::memcpy(out[0], in[0], static_cast<size_t>(n) * sizeof(T));
    };
  });
  return k;
}

ElementwiseKernel FillKernel(DType t) {
  ElementwiseKernel k = CopyKernel(t);
  k.inputs = 0;
  VisitBytes(SizeOf(t), [&](auto x) {
    using T = decltype(x);
    k.loop = [](void* const* out, const void* const*, int64_t n, const void* value) {
      T v;
      std::memcpy(&v, value, sizeof(T));
      T* o = static_cast<T*>(out[0]);
      for (int64_t i = 0; i < n; ++i) o[i] = v;
    };
  });
  return k;
}

Element ElementOf(const ScalarValue& value, DType dtype) {
  Element e;
  if (IsComplex(value.dtype))
    Convert(e.bytes, dtype, value.c, DType::kComplex128, 1);
  else if (IsFloating(value.dtype))
    Convert(e.bytes, dtype, &value.d, DType::kDouble, 1);
  else
    Convert(e.bytes, dtype, &value.i, DType::kInt64, 1);
  return e;
}

double ReadDouble(const TensorView& v) {
  double d;
  Convert(&d, DType::kDouble, v.data, v.dtype, 1);
  return d;
}
int64_t ReadInt64(const TensorView& v) {
  int64_t i;
  Convert(&i, DType::kInt64, v.data, v.dtype, 1);
  return i;
}

void Fill(const TensorView& dst, const void* value) {
  RunElementwise(FillKernel(dst.dtype), {dst}, {}, value);
}

}  // namespace anycann
