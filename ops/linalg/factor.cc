#include "ops/linalg/factor.h"

#include <algorithm>
#include <cmath>

#include "ops/matmul/gemm.h"
#include "ops/operand.h"

namespace anycann {
namespace {

constexpr int64_t kPanel =
    64;  // columns that are worked on one by one before a matrix product updates the rest

// c (m x n) -= a (m x k) @ b (k x n)
template <class T>
Status SubtractProduct(int64_t m, int64_t n, int64_t k, const MatrixView& a, const MatrixView& b, T* c,
                       int64_t ldc) {
  if (m == 0 || n == 0 || k == 0) return Status();
  GemmArgs g;
  g.m = m, g.n = n, g.k = k;
  g.a = a, g.b = b, g.out = g.addend = MatrixView::OfRows(c, ldc);
  g.alpha.dtype = DType::kDouble;
  g.alpha.d = -1;
  return Gemm(g);
}

// to[j] -= factor * from[j]
template <class T>
void SubtractRow(T* __restrict to, const T* __restrict from, T factor, int64_t n) {
  for (int64_t j = 0; j < n; ++j) to[j] -= factor * from[j];
}

template <class T>
void SolveBlock(const Triangle& t, int64_t n, int64_t columns, const T* a, int64_t lda, T* b, int64_t ldb) {
  const bool forward = t.upper == t.transposed;  // the effective matrix is lower
  for (int64_t step = 0; step < n; ++step) {
    const int64_t i = forward ? step : n - 1 - step;
    if (!t.unit) {
      const T d = T(1) / a[i * lda + i];
      for (int64_t j = 0; j < columns; ++j) b[i * ldb + j] *= d;
    }
    for (int64_t r = forward ? i + 1 : 0; r < (forward ? n : i); ++r)
      SubtractRow(b + r * ldb, b + i * ldb, t.transposed ? a[i * lda + r] : a[r * lda + i], columns);
  }
}

template <class T>
void SwapRows(T* a, int64_t lda, int64_t i, int64_t j, int64_t begin, int64_t end) {
  if (i != j) std::swap_ranges(a + i * lda + begin, a + i * lda + end, a + j * lda + begin);
}

template <class T>
void FactorLuPanel(int64_t n, T* a, int64_t begin, int64_t end, int64_t* pivots, int* sign) {
  for (int64_t k = begin; k < end; ++k) {
    int64_t pivot = k;
    for (int64_t i = k + 1; i < n; ++i)
      if (std::abs(a[i * n + k]) > std::abs(a[pivot * n + k])) pivot = i;
    pivots[k] = pivot;
    if (pivot != k) *sign = -*sign;
    SwapRows(a, n, k, pivot, 0, n);
    if (a[k * n + k] == T(0)) continue;
    const T inverse = T(1) / a[k * n + k];
    for (int64_t i = k + 1; i < n; ++i) {
      a[i * n + k] *= inverse;
      SubtractRow(a + i * n + k + 1, a + k * n + k + 1, a[i * n + k], end - k - 1);
    }
  }
}

}  // namespace

template <class T>
Status SolveTriangular(const Triangle& t, int64_t n, int64_t columns, const T* a, int64_t lda, T* b,
                       int64_t ldb) {
  const bool forward = t.upper == t.transposed;
  const int64_t blocks = (n + kPanel - 1) / kPanel;
  for (int64_t step = 0; step < blocks; ++step) {
    const int64_t begin = (forward ? step : blocks - 1 - step) * kPanel, size = std::min(kPanel, n - begin);
    SolveBlock(t, size, columns, a + begin * lda + begin, lda, b + begin * ldb, ldb);
    const int64_t rest = forward ? begin + size : 0, count = forward ? n - rest : begin;
    const MatrixView factors = t.transposed ? MatrixView::OfRows(a + begin * lda + rest, lda).Transposed()
                                            : MatrixView::OfRows(a + rest * lda + begin, lda);
    RETURN_IF_ERROR(SubtractProduct(count, columns, size, factors, MatrixView::OfRows(b + begin * ldb, ldb),
                                    b + rest * ldb, ldb));
  }
  return Status();
}

template <class T>
Status FactorLu(int64_t n, T* a, int64_t* pivots, int* sign) {
  *sign = 1;
  for (int64_t begin = 0; begin < n; begin += kPanel) {
    const int64_t end = std::min(n, begin + kPanel);
    FactorLuPanel(n, a, begin, end, pivots, sign);
    if (end == n) break;
    RETURN_IF_ERROR(SolveTriangular<T>({false, false, true}, end - begin, n - end, a + begin * n + begin, n,
                                       a + begin * n + end, n));
    RETURN_IF_ERROR(SubtractProduct(n - end, n - end, end - begin, MatrixView::OfRows(a + end * n + begin, n),
                                    MatrixView::OfRows(a + begin * n + end, n), a + end * n + end, n));
  }
  return Status();
}

template <class T>
Status FactorCholesky(int64_t n, T* a, int64_t* failed) {
  *failed = 0;
  const Buffer<T> conjugated = NewBuffer<T>(n * kPanel);
  for (int64_t begin = 0; begin < n; begin += kPanel) {
    const int64_t end = std::min(n, begin + kPanel), size = end - begin;
    for (int64_t k = begin; k < end; ++k) {
      RealType<T> d = std::real(a[k * n + k]);
      for (int64_t j = begin; j < k; ++j) d -= std::norm(a[k * n + j]);
      if (!(d > 0)) {
        *failed = k + 1;
        return Status();
      }
      d = std::sqrt(d);
      a[k * n + k] = T(d);
      for (int64_t i = k + 1; i < n; ++i) {
        T sum = a[i * n + k];
        for (int64_t j = begin; j < k; ++j) sum -= a[i * n + j] * Conjugate(a[k * n + j]);
        a[i * n + k] = sum / d;
      }
    }
    if (end == n) break;
    for (int64_t i = end; i < n; ++i)
      for (int64_t j = 0; j < size; ++j) conjugated[(i - end) * size + j] = Conjugate(a[i * n + begin + j]);
    RETURN_IF_ERROR(SubtractProduct(n - end, n - end, size, MatrixView::OfRows(a + end * n + begin, n),
                                    MatrixView::OfRows(conjugated.get(), size).Transposed(),
                                    a + end * n + end, n));
  }
  for (int64_t i = 0; i < n; ++i) std::fill(a + i * n + i + 1, a + (i + 1) * n, T(0));
  return Status();
}

namespace {

// rows [0, m) of c (row-major, ld apart) minus factor * v * (v^H c), over n columns.
template <class T>
void Reflect(int64_t m, int64_t n, const T* v, T factor, T* c, int64_t ld, T* work) {
  if (factor == T(0)) return;
  std::fill(work, work + n, T(0));
  for (int64_t i = 0; i < m; ++i) SubtractRow(work, c + i * ld, -Conjugate(v[i]), n);
  for (int64_t i = 0; i < m; ++i) SubtractRow(c + i * ld, work, factor * v[i], n);
}

// The reflection that maps x (m elements) to (beta, 0, ...): v with v[0] = 1 in place of x; returns tau, and
// beta.
template <class T>
T MakeReflection(int64_t m, T* x, T* beta) {
  RealType<T> rest = 0;
  for (int64_t i = 1; i < m; ++i) rest = std::hypot(rest, std::abs(x[i]));
  const T alpha = x[0];
  if (rest == 0 && std::imag(alpha) == 0) {
    *beta = alpha;
    std::fill(x + 1, x + m, T(0));
    x[0] = T(1);
    return T(0);
  }
  const RealType<T> length = std::hypot(std::abs(alpha), rest), b = std::real(alpha) >= 0 ? -length : length;
  const T scale = T(1) / (alpha - T(b));
  for (int64_t i = 1; i < m; ++i) x[i] *= scale;
  x[0] = T(1);
  *beta = T(b);
  return (T(b) - alpha) / T(b);
}

}  // namespace

template <class T>
Status FactorQr(int64_t m, int64_t n, T* a, T* q, int64_t q_columns) {
  const int64_t k = std::min(m, n);
  const Buffer<T> v = NewBuffer<T>(k * m), tau = NewBuffer<T>(k), work = NewBuffer<T>(std::max(n, q_columns));
  for (int64_t j = 0; j < k; ++j) {
    T* x = v.get() + j * m;
    for (int64_t i = j; i < m; ++i) x[i - j] = a[i * n + j];
    T beta;
    tau[j] = MakeReflection(m - j, x, &beta);
    a[j * n + j] = beta;
    for (int64_t i = j + 1; i < m; ++i) a[i * n + j] = T(0);
    Reflect(m - j, n - j - 1, x, Conjugate(tau[j]), a + j * n + j + 1, n, work.get());
  }
  if (q == nullptr) return Status();
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < q_columns; ++j) q[i * q_columns + j] = T(i == j ? 1 : 0);
  for (int64_t j = k - 1; j >= 0; --j)
    Reflect(m - j, q_columns, v.get() + j * m, tau[j], q + j * q_columns, q_columns, work.get());
  return Status();
}

namespace {

double Dot(const double* a, const double* b, int64_t n) {
  double sum[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; ++j) sum[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) sum[0] += a[i] * b[i];
  return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

void Rotate(double* __restrict a, double* __restrict b, int64_t n, double c, double s) {
  for (int64_t i = 0; i < n; ++i) {
    const double x = a[i], y = b[i];
    a[i] = c * x - s * y;
    b[i] = s * x + c * y;
  }
}

// Makes the `n` rows of w (m elements each) orthogonal by rotations, which are applied to the rows of v (n
// elements) too. `v` may be nullptr.
void OrthogonaliseRows(int64_t n, int64_t m, double* w, double* v) {
  constexpr int kSweeps = 60;
  constexpr double kTolerance = 1e-15;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool rotated = false;
    for (int64_t p = 0; p + 1 < n; ++p)
      for (int64_t q = p + 1; q < n; ++q) {
        const double a = Dot(w + p * m, w + p * m, m), b = Dot(w + q * m, w + q * m, m),
                     c = Dot(w + p * m, w + q * m, m);
        if (!(std::abs(c) > kTolerance * std::sqrt(a * b)) || c == 0) continue;
        rotated = true;
        const double zeta = (b - a) / (2 * c);
        const double t = (zeta >= 0 ? 1 : -1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        const double cosine = 1 / std::sqrt(1 + t * t), sine = cosine * t;
        Rotate(w + p * m, w + q * m, m, cosine, sine);
        if (v != nullptr) Rotate(v + p * n, v + q * n, n, cosine, sine);
      }
    if (!rotated) return;
  }
}

// Rows [have, want) of `rows` (n elements each) become unit vectors orthogonal to all rows before them.
void CompleteBasis(int64_t n, int64_t have, int64_t want, double* rows) {
  int64_t candidate = 0;
  for (int64_t r = have; r < want; ++r) {
    double* x = rows + r * n;
    for (; candidate < n; ++candidate) {
      std::fill(x, x + n, 0.0);
      x[candidate] = 1;
      for (int pass = 0; pass < 2; ++pass)
        for (int64_t i = 0; i < r; ++i) {
          const double d = Dot(rows + i * n, x, n);
          for (int64_t j = 0; j < n; ++j) x[j] -= d * rows[i * n + j];
        }
      const double length = std::sqrt(Dot(x, x, n));
      if (length < 1e-3 / std::sqrt(static_cast<double>(n))) continue;
      for (int64_t j = 0; j < n; ++j) x[j] /= length;
      ++candidate;
      break;
    }
  }
}

template <class T>
void StoreColumns(const double* rows, int64_t n, int64_t columns, T* out) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < columns; ++j) out[i * columns + j] = static_cast<T>(rows[j * n + i]);
}

}  // namespace

template <class T>
Status FactorSvd(int64_t m, int64_t n, const T* a, T* s, T* u, int64_t u_columns, T* v, int64_t v_columns) {
  // The columns of the taller of A and A^H, as rows of w: rotated until they are orthogonal, they are U S.
  const bool tall = m >= n;
  const int64_t length = std::max(m, n), count = std::min(m, n);
  const int64_t left_columns = std::max(count, tall ? u_columns : v_columns), right_columns = count;
  const Buffer<double> w = NewBuffer<double>(count * length), right = NewBuffer<double>(count * count);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < length; ++j)
      w[i * length + j] = static_cast<double>(tall ? a[j * n + i] : a[i * n + j]);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t j = 0; j < count; ++j) right[i * count + j] = i == j ? 1 : 0;
  const bool vectors = u != nullptr || v != nullptr;
  OrthogonaliseRows(count, length, w.get(), vectors ? right.get() : nullptr);
  const Buffer<double> size = NewBuffer<double>(count);
  const Buffer<int64_t> order = NewBuffer<int64_t>(count);
  for (int64_t i = 0; i < count; ++i)
    size[i] = std::sqrt(Dot(&w[i * length], &w[i * length], length)), order[i] = i;
  std::stable_sort(order.get(), order.get() + count, [&](int64_t i, int64_t j) { return size[i] > size[j]; });
  for (int64_t i = 0; i < count; ++i) s[i] = static_cast<T>(size[order[i]]);
  if (!vectors) return Status();
  const Buffer<double> left = NewBuffer<double>(left_columns * length),
                       sorted = NewBuffer<double>(count * count);
  int64_t rank = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double z = size[order[i]];
    std::copy(&right[order[i] * count], &right[order[i] * count] + count, &sorted[i * count]);
    if (!(z > size[order[0]] * 1e-300) || z == 0) continue;
    for (int64_t j = 0; j < length; ++j) left[i * length + j] = w[order[i] * length + j] / z;
    rank = i + 1;
  }
  CompleteBasis(length, rank, left_columns, left.get());
  T *left_out = tall ? u : v, *right_out = tall ? v : u;
  if (left_out != nullptr) StoreColumns(left.get(), length, tall ? u_columns : v_columns, left_out);
  if (right_out != nullptr) StoreColumns(sorted.get(), count, right_columns, right_out);
  return Status();
}

#define ANYCANN_INSTANTIATE(T)                                                                           \
  template Status SolveTriangular<T>(const Triangle&, int64_t, int64_t, const T*, int64_t, T*, int64_t); \
  template Status FactorLu<T>(int64_t, T*, int64_t*, int*);                                              \
  template Status FactorCholesky<T>(int64_t, T*, int64_t*);                                              \
  template Status FactorQr<T>(int64_t, int64_t, T*, T*, int64_t);
ANYCANN_INSTANTIATE(float)
ANYCANN_INSTANTIATE(double)
ANYCANN_INSTANTIATE(Complex64)
ANYCANN_INSTANTIATE(Complex128)
#undef ANYCANN_INSTANTIATE
template Status FactorSvd<float>(int64_t, int64_t, const float*, float*, float*, int64_t, float*, int64_t);
template Status FactorSvd<double>(int64_t, int64_t, const double*, double*, double*, int64_t, double*,
                                  int64_t);

}  // namespace anycann
