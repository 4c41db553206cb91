// Dense factorisations of one matrix in row-major memory: LU with partial pivoting, Cholesky, triangular
// solves, QR by Householder reflections, singular values by one-sided Jacobi rotations.
//
// Large matrices are worked on in blocks, so that most of the work is matrix products. All are deterministic.
// Signs are those of LAPACK's algorithms where an algorithm decides them (QR).
#pragma once

#include <complex>
#include <cstdint>

#include "base/dtype.h"
#include "base/status.h"
#include "ops/elementwise/complex_math.h"

namespace anycann {

template <class T>
using RealType = typename RealOf<T>::type;

template <class T>
T Conjugate(T x) {
  if constexpr (std::is_same_v<T, RealType<T>>)
    return x;
  else
    return std::conj(x);
}

// A triangle of a matrix as the coefficients of a solve.
struct Triangle {
  bool upper = true, transposed = false, unit = false;
};

// Solves op(A) X = B in place of B: A is n x n, B n x columns, both row-major with rows `lda`, `ldb` elements
// apart.
template <class T>
Status SolveTriangular(const Triangle& t, int64_t n, int64_t columns, const T* a, int64_t lda, T* b,
                       int64_t ldb);

// P A = L U in place of A; pivots[i] is the row that was swapped with row i. *sign becomes -1 for an odd
// permutation. A zero pivot stays in U.
template <class T>
Status FactorLu(int64_t n, T* a, int64_t* pivots, int* sign);

// A = L L^H in place of the lower triangle of A; the upper one becomes 0. *failed gets the order of the
// leading minor that is not positive definite, 0 for none.
template <class T>
Status FactorCholesky(int64_t n, T* a, int64_t* failed);

// A (m x n) = Q R. `a` becomes R with zeros below its diagonal; q, m x q_columns, gets the first columns of Q
// unless it's nullptr.
template <class T>
Status FactorQr(int64_t m, int64_t n, T* a, T* q, int64_t q_columns);

// Singular values of A (m x n), descending, into s (min(m, n)). u (m x u_columns) and v (n x v_columns) get
// the left and right singular vectors as columns, unless nullptr. T is real.
template <class T>
Status FactorSvd(int64_t m, int64_t n, const T* a, T* s, T* u, int64_t u_columns, T* v, int64_t v_columns);

}  // namespace anycann
