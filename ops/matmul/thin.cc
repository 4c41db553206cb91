// Two kernels. B's columns contiguous (a weight [out, in] seen transposed): sums along the depth, lane by
// lane, several columns at a time. B's rows contiguous: rows are added, four at a time, to accumulators in
// the first-level cache. Tasks are pieces of columns, and of the depth when there are few columns; pieces of
// depth are added in order.
#include "ops/matmul/thin.h"

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "base/scratch.h"
#include "ops/matmul/epilogue.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/tile.h"

namespace anycann {
namespace {

constexpr int64_t kTaskBytes = 128 << 10;  // of B
constexpr int64_t kTasks = 16;
constexpr int64_t kDepthPiece = 4096;  // at least, when the depth is split

template <class T>
using LanesOf = std::conditional_t<std::is_same_v<T, double>, DoubleLanes, FloatLanes>;

template <class T, class From>
inline typename LanesOf<T>::Register LoadLanes(const From* p) {
  using R = typename LanesOf<T>::Register;
  if constexpr (std::is_same_v<T, From>) {
    typedef R Unaligned __attribute__((aligned(alignof(T)), may_alias));
    return *reinterpret_cast<const Unaligned*>(p);
  } else {
#if defined(__AVX512F__)
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    if constexpr (std::is_same_v<From, Half>)
      return (R)_mm512_cvtph_ps(h);
    else
      return (R)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
#elif defined(__AVX2__)
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if constexpr (std::is_same_v<From, Half>)
      return (R)_mm256_cvtph_ps(h);
    else
      return (R)_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
#else
    R r;
    for (int i = 0; i < LanesOf<T>::kLanes; ++i) r[i] = static_cast<float>(p[i]);
    return r;
#endif
  }
}

// The sum of a register's lanes, by halves.
template <class T>
inline T SumLanes(typename LanesOf<T>::Register r) {
  constexpr int kLanes = LanesOf<T>::kLanes;
  T lanes[kLanes];
  std::memcpy(lanes, &r, sizeof(r));
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  return lanes[0];
}

// acc[i * ld + j] = sum over u of a[i * lda + u] * b[j * b_line + u].
template <class T, class From, int kRows, int kColumns>
void DotTile(const T* a, int64_t lda, const From* b, int64_t b_line, int64_t k, T* acc, int64_t ld) {
  using L = LanesOf<T>;
  using R = typename L::Register;
  R sum[kRows][kColumns] = {};
  int64_t u = 0;
  for (; u + L::kLanes <= k; u += L::kLanes) {
    R left[kRows];
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) left[i] = LoadLanes<T, T>(a + i * lda + u);
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) {
      const R right = LoadLanes<T, From>(b + j * b_line + u);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) sum[i][j] = L::MultiplyAdd(left[i], right, sum[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      T total = 0;
      for (int64_t t = u; t < k; ++t) total += a[i * lda + t] * static_cast<T>(b[j * b_line + t]);
      acc[i * ld + j] = total + SumLanes<T>(sum[i][j]);
    }
  }
}

// The same of one row and one column: memory is read from one end to the other, as it is fastest.
template <class T, class From>
T DotLine(const T* a, const From* b, int64_t k) {
  using L = LanesOf<T>;
  constexpr int kParts = 4;
  typename L::Register sum[kParts] = {};
  int64_t u = 0;
  for (; u + kParts * L::kLanes <= k; u += kParts * L::kLanes)
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p)
      sum[p] = L::MultiplyAdd(LoadLanes<T, T>(a + u + p * L::kLanes),
                              LoadLanes<T, From>(b + u + p * L::kLanes), sum[p]);
  for (; u + L::kLanes <= k; u += L::kLanes)
    sum[0] = L::MultiplyAdd(LoadLanes<T, T>(a + u), LoadLanes<T, From>(b + u), sum[0]);
  T total = SumLanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; u < k; ++u) total += a[u] * static_cast<T>(b[u]);
  return total;
}

template <class T, class From, int kRows>
void DotColumns(const T* a, int64_t lda, const void* right, int64_t b_line, int64_t k, int64_t n, T* acc,
                int64_t ld) {
  const From* b = static_cast<const From*>(right);
  int64_t j = 0;
  if constexpr (kRows == 1)
    for (; j < n; ++j) acc[j] = DotLine<T, From>(a, b + j * b_line, k);
  for (; j + 4 <= n; j += 4) DotTile<T, From, kRows, 4>(a, lda, b + j * b_line, b_line, k, acc + j, ld);
  for (; j < n; ++j) DotTile<T, From, kRows, 1>(a, lda, b + j * b_line, b_line, k, acc + j, ld);
}

// acc[i * ld + j] = sum over u of a[i * lda + u] * b[u * b_row + j]
template <class T, class From, int kRows>
void AddRows(const T* a, int64_t lda, const void* right, int64_t b_row, int64_t k, int64_t n, T* acc,
             int64_t ld) {
  using L = LanesOf<T>;
  using R = typename L::Register;
  typedef R Unaligned __attribute__((aligned(alignof(T)), may_alias));
  const From* b = static_cast<const From*>(right);
  for (int i = 0; i < kRows; ++i) std::fill_n(acc + i * ld, n, T(0));
  for (int64_t u = 0; u < k; u += 4) {
    const int64_t rows = std::min<int64_t>(4, k - u);
    const From* row[4];
    T left[kRows][4] = {};
    for (int64_t t = 0; t < 4; ++t) row[t] = b + (u + std::min(t, rows - 1)) * b_row;
    for (int i = 0; i < kRows; ++i)
      for (int64_t t = 0; t < rows; ++t) left[i][t] = a[i * lda + u + t];
    int64_t j = 0;
    if (rows == 4) {
      for (; j + L::kLanes <= n; j += L::kLanes) {
        R line[4];
#pragma GCC unroll 4
        for (int t = 0; t < 4; ++t) line[t] = LoadLanes<T, From>(row[t] + j);
#pragma GCC unroll 4
        for (int i = 0; i < kRows; ++i) {
          Unaligned* to = reinterpret_cast<Unaligned*>(acc + i * ld + j);
          R sum = *to;
#pragma GCC unroll 4
          for (int t = 0; t < 4; ++t) sum = L::MultiplyAdd(left[i][t] - R{}, line[t], sum);
          *to = sum;
        }
      }
    }
    for (int64_t t = 0; t < rows; ++t)
      for (int i = 0; i < kRows; ++i)
        for (int64_t c = j; c < n; ++c) acc[i * ld + c] += left[i][t] * static_cast<T>(row[t][c]);
  }
}

template <class T>
using ThinKernel = void (*)(const T* a, int64_t lda, const void* b, int64_t stride, int64_t k, int64_t n,
                            T* acc, int64_t ld);

template <class T, class From>
ThinKernel<T> KernelFor(bool dot, int64_t rows) {
  static constexpr ThinKernel<T> kernels[2][kThinRows] = {
      {AddRows<T, From, 1>, AddRows<T, From, 2>, AddRows<T, From, 3>, AddRows<T, From, 4>},
      {DotColumns<T, From, 1>, DotColumns<T, From, 2>, DotColumns<T, From, 3>, DotColumns<T, From, 4>}};
  return kernels[dot][rows - 1];
}

template <class T>
ThinKernel<T> FindKernel(DType b, bool dot, int64_t rows) {
  if constexpr (std::is_same_v<T, double>)
    return KernelFor<double, double>(dot, rows);
  else if (b == DType::kFloat16)
    return KernelFor<float, Half>(dot, rows);
  else if (b == DType::kBFloat16)
    return KernelFor<float, BFloat16>(dot, rows);
  else
    return KernelFor<float, float>(dot, rows);
}

// One row of A as T, contiguous.
void LoadRow(float* to, const Lines& l, int64_t k) { Pack(to, 1, l, 1, k); }
void LoadRow(double* to, const Lines& l, int64_t k) { Pack(to, 1, l, 1, k); }

template <class T>
bool RunThin(const GemmArgs& g, DType accumulator) {
  const bool dot = g.b.row == 1 && g.b.column != 1;
  const int64_t size = SizeOf(g.b.dtype), row_bytes = std::max<int64_t>(1, g.k * size);
  // Pieces of columns of at least kTaskBytes and 64 columns (whole lines of B's rows), then of the depth.
  int64_t columns = std::max<int64_t>((g.n + kTasks - 1) / kTasks, (kTaskBytes + row_bytes - 1) / row_bytes);
  columns = std::min({g.n, (columns + 63) / 64 * 64, int64_t{1024}});
  const int64_t pieces = (g.n + columns - 1) / columns;
  int64_t depths = std::clamp<int64_t>(kTasks / pieces, 1, std::max<int64_t>(1, g.k / kDepthPiece));
  const int64_t depth = (((g.k + depths - 1) / depths) + 63) / 64 * 64;
  depths = (g.k + depth - 1) / depth;
  T* a = static_cast<T*>(
      ThreadScratch(ScratchSlot::kShared, static_cast<size_t>(g.m * g.k + depths * g.m * g.n) * sizeof(T)));
  if (a == nullptr) return false;
  T* sums = a + g.m * g.k;  // [depths][m][n]
  for (int64_t i = 0; i < g.m; ++i)
    LoadRow(a + i * g.k, Lines{g.a.bytes() + i * g.a.row * SizeOf(g.a.dtype), g.a.dtype, 0, g.a.column}, g.k);
  const ThinKernel<T> kernel = FindKernel<T>(g.b.dtype, dot, g.m);
  const Epilogue epilogue = MakeEpilogue(g, accumulator, g.out.bytes(), g.addend.bytes());
  ParallelFor(pieces * depths, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t j = t / depths * columns, n = std::min(columns, g.n - j);
      const int64_t d = t % depths, u = d * depth, k = std::min(depth, g.k - u);
      T* acc = sums + d * g.m * g.n + j;
      kernel(a + u, g.k, g.b.bytes() + (j * g.b.column + u * g.b.row) * size, dot ? g.b.column : g.b.row, k,
             n, acc, g.n);
      if (depths == 1) epilogue.Store(acc, g.n, 0, g.m, j, n);
    }
  });
  if (depths == 1) return true;
  for (int64_t d = 1; d < depths; ++d)
    for (int64_t i = 0; i < g.m * g.n; ++i) sums[i] += sums[d * g.m * g.n + i];
  epilogue.Store(sums, g.n, 0, g.m, 0, g.n);
  return true;
}

bool Short(DType t) { return t == DType::kFloat || IsReduced(t); }

}  // namespace

const char* ThinRefusal(const GemmArgs& g) {
  if (g.m > kThinRows) return "more than 4 rows";
  if (g.batch_rank > 0) return "a batch";
  if (g.b.row != 1 && g.b.column != 1) return "neither rows nor columns of b are contiguous";
  const bool doubles = g.a.dtype == DType::kDouble && g.b.dtype == DType::kDouble;
  return doubles || (Short(g.a.dtype) && Short(g.b.dtype)) ? nullptr
                                                           : "types other than double or shorter floats";
}

bool ThinProduct(const GemmArgs& g) {
  return g.b.dtype == DType::kDouble ? RunThin<double>(g, DType::kDouble) : RunThin<float>(g, DType::kFloat);
}

}  // namespace anycann
