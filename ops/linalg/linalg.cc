// Linear algebra over batches of matrices: inverse, determinants, triangular solves, Cholesky, QR, SVD.
#include <cmath>
#include <mutex>
#include <optional>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/elementwise/map.h"
#include "ops/linalg/factor.h"
#include "ops/operand.h"

namespace anycann {
namespace {

struct Batch {
  int64_t count = 1, rows = 0, columns = 0;
};

Status BatchOf(Call& call, const aclTensor* t, const char* name, Batch* b) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 2, kMaxRank));
  for (int i = 0; i + 2 < t->view.rank; ++i) b->count *= t->view.dims[i];
  b->rows = t->view.dims[t->view.rank - 2];
  b->columns = t->view.dims[t->view.rank - 1];
  return Status();
}

Status SquareBatch(Call& call, const aclTensor* t, const char* name, Batch* b) {
  RETURN_IF_ERROR(BatchOf(call, t, name, b));
  if (b->rows == b->columns) return Status();
  return call.Invalid("{} has shape {}, expected square matrices", name, ShapeString(t->view));
}

// `t` must be like's batch of rows x columns (columns < 0: of vectors of `rows` values; rows < 0 too: of
// values).
Status RequireBatch(Call& call, const aclTensor* t, const char* name, const aclTensor* like, int64_t rows,
                    int64_t columns) {
  int64_t dims[kMaxRank];
  int rank = 0;
  for (; rank + 2 < like->view.rank; ++rank) dims[rank] = like->view.dims[rank];
  if (rows >= 0) dims[rank++] = rows;
  if (columns >= 0) dims[rank++] = columns;
  RETURN_IF_ERROR(call.RequireShape(t, name, dims, rank));
  return call.RequireDType(t, name, like->view.dtype);
}

// Runs f(matrix index) for each matrix of a batch, large matrices one after another (their products use all
// threads), and returns the first failure.
template <class F>
Status ForMatrices(const Batch& b, F&& f) {
  Status first;
  int64_t failed = b.count;
  std::mutex lock;
  const bool large = b.rows * b.columns > 128 * 128;
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Status status = f(i);
      if (status.ok()) continue;
      const std::lock_guard<std::mutex> guard(lock);
      if (i < failed) failed = i, first = std::move(status);
    }
  };
  if (large)
    run(0, b.count);
  else
    ParallelFor(b.count, std::max<int64_t>(1, 4096 / std::max<int64_t>(1, b.rows * b.columns)), run);
  return first;
}

Cost CostOf(const Batch& b, double factor) {
  const double n = static_cast<double>(std::max(b.rows, b.columns)),
               k = static_cast<double>(std::min(b.rows, b.columns));
  return {factor * static_cast<double>(b.count) * n * k * k, 0};
}

// Calls run(tag, t) with the compute type of `type`.
template <class Run_>
Status LaunchFloating(Call& call, DType type, std::initializer_list<Arg> args, Cost cost, Run_ run) {
  Status status;
  for (const Arg& a : args) cost.bytes += static_cast<double>(a.view.nbytes());
  const bool known = VisitCompute<kFloatingTypes>(type, [&](auto tag) {
    status = call.Launch(args, cost, [run, tag](const Run& t) -> Status { return run(tag, t); });
  });
  return known ? status : Unsupported(call, type);
}

// sign and log |det| of each matrix.
template <class T>
Status Determinants(const Batch& b, const TensorView& a, T* sign, RealType<T>* log) {
  Dense copy(a, kDTypeOf<T>, Dense::kRead);
  return ForMatrices(b, [&](int64_t i) -> Status {
    const int64_t n = b.rows;
    const Buffer<T> lu = NewBuffer<T>(n * n);
    std::copy(copy.ptr<T>() + i * n * n, copy.ptr<T>() + (i + 1) * n * n, lu.get());
    const Buffer<int64_t> pivots = NewBuffer<int64_t>(n);
    int odd;
    RETURN_IF_ERROR(FactorLu(n, lu.get(), pivots.get(), &odd));
    sign[i] = T(static_cast<RealType<T>>(odd));
    log[i] = 0;
    for (int64_t k = 0; k < n; ++k) {
      const RealType<T> size = std::abs(lu[k * n + k]);
      sign[i] = size == 0 ? T(0) : sign[i] * (lu[k * n + k] / size);
      log[i] += std::log(size);
    }
    return Status();
  });
}

Status RequireSameBatch(Call& call, const Batch& a, const Batch& b, const aclTensor* A,
                        const aclTensor* self) {
  bool same = a.count == b.count && a.rows == b.rows && A->view.rank == self->view.rank;
  for (int i = 0; same && i + 2 < A->view.rank; ++i) same = A->view.dims[i] == self->view.dims[i];
  if (same) return Status();
  return call.Invalid("A has shape {} and self {}: expected equal batches and as many rows",
                      ShapeString(A->view), ShapeString(self->view));
}

}  // namespace

Status aclnn::Inverse(Call& call, const aclTensor* self, aclTensor* out) {
  Batch b;
  RETURN_IF_ERROR(SquareBatch(call, self, "self", &b));
  RETURN_IF_ERROR(RequireBatch(call, out, "out", self, b.rows, b.columns));
  if (out->view.empty()) return call.Nothing();
  const char* op = call.op();
  return LaunchFloating(
      call, self->view.dtype, {In(self), Out(out)}, CostOf(b, 2), [op, b](auto tag, const Run& t) -> Status {
        using T = typename decltype(tag)::type;
        const Dense a(t[0], kDTypeOf<T>, Dense::kRead);
        Dense x(t[1], kDTypeOf<T>, Dense::kWrite);
        const int64_t n = b.rows;
        RETURN_IF_ERROR(ForMatrices(b, [&](int64_t i) -> Status {
          const Buffer<T> lu = NewBuffer<T>(n * n);
          std::copy(a.ptr<T>() + i * n * n, a.ptr<T>() + (i + 1) * n * n, lu.get());
          const Buffer<int64_t> pivots = NewBuffer<int64_t>(n);
          int sign;
          RETURN_IF_ERROR(FactorLu(n, lu.get(), pivots.get(), &sign));
          T* to = x.ptr<T>() + i * n * n;
          for (int64_t k = 0; k < n; ++k) {
            if (lu[k * n + k] == T(0))
              return Error(kParamInvalid,
                           "{}: matrix {} of self is singular: pivot {} is zero, so it has no inverse", op, i,
                           k);
            for (int64_t j = 0; j < n; ++j) to[k * n + j] = T(k == j ? 1 : 0);
          }
          for (int64_t k = 0; k < n; ++k)
            if (pivots[k] != k) std::swap_ranges(to + k * n, to + (k + 1) * n, to + pivots[k] * n);
          RETURN_IF_ERROR(SolveTriangular<T>({false, false, true}, n, n, lu.get(), n, to, n));
          return SolveTriangular<T>({true, false, false}, n, n, lu.get(), n, to, n);
        }));
        x.Commit();
        return Status();
      });
}

Status aclnn::Slogdet(Call& call, const aclTensor* self, aclTensor* signOut, aclTensor* logOut) {
  Batch b;
  RETURN_IF_ERROR(SquareBatch(call, self, "self", &b));
  RETURN_IF_ERROR(RequireBatch(call, signOut, "signOut", self, -1, -1));
  if (!logOut->view.SameShape(signOut->view))
    return call.RequireSameShape(logOut, "logOut", signOut, "signOut");
  if (signOut->view.empty()) return call.Nothing();
  return LaunchFloating(
      call, self->view.dtype, {In(self), Out(signOut), Out(logOut)}, CostOf(b, 0.67),
      [b](auto tag, const Run& t) -> Status {
        using T = typename decltype(tag)::type;
        Dense sign(t[1], kDTypeOf<T>, Dense::kWrite), log(t[2], kDTypeOf<RealType<T>>, Dense::kWrite);
        RETURN_IF_ERROR(Determinants<T>(b, t[0], sign.template ptr<T>(), log.template ptr<RealType<T>>()));
        sign.Commit(), log.Commit();
        return Status();
      });
}

Status aclnn::Logdet(Call& call, const aclTensor* self, aclTensor* out) {
  Batch b;
  RETURN_IF_ERROR(SquareBatch(call, self, "self", &b));
  RETURN_IF_ERROR(RequireBatch(call, out, "out", self, -1, -1));
  if (out->view.empty()) return call.Nothing();
  return LaunchFloating(call, self->view.dtype, {In(self), Out(out)}, CostOf(b, 0.67),
                        [b](auto tag, const Run& t) -> Status {
                          using T = typename decltype(tag)::type;
                          Dense result(t[1], kDTypeOf<T>, Dense::kWrite);
                          const Buffer<RealType<T>> log = NewBuffer<RealType<T>>(b.count);
                          T* r = result.template ptr<T>();
                          RETURN_IF_ERROR(Determinants<T>(b, t[0], r, log.get()));
                          for (int64_t i = 0; i < b.count; ++i)
                            r[i] = r[i] == T(0) ? T(log[i]) : T(log[i]) + std::log(r[i]);
                          result.Commit();
                          return Status();
                        });
}

Status aclnn::TriangularSolve(Call& call, const aclTensor* self, const aclTensor* A, bool upper,
                              bool transpose, bool unitriangular, aclTensor* xOut, aclTensor* mOut) {
  Batch a, b;
  const Triangle triangle{upper, transpose, unitriangular};
  RETURN_IF_ERROR(SquareBatch(call, A, "A", &a));
  RETURN_IF_ERROR(BatchOf(call, self, "self", &b));
  RETURN_IF_ERROR(RequireSameBatch(call, a, b, A, self));
  RETURN_IF_ERROR(RequireBatch(call, xOut, "xOut", self, b.rows, b.columns));
  RETURN_IF_ERROR(RequireBatch(call, mOut, "mOut", A, a.rows, a.columns));
  RETURN_IF_ERROR(call.RequireDType(A, "A", self->view.dtype));
  if (A->view.empty()) return call.Nothing();
  return LaunchFloating(call, self->view.dtype, {In(self), In(A), Out(xOut), Out(mOut)},
                        CostOf(a, static_cast<double>(b.columns)),
                        [a, b, triangle](auto tag, const Run& t) -> Status {
                          using T = typename decltype(tag)::type;
                          const Dense m(t[1], kDTypeOf<T>, Dense::kRead);
                          Dense x(t[2], kDTypeOf<T>, Dense::kWrite);
                          CopyCast(x.view(), t[0]);
                          const int64_t n = a.rows;
                          RETURN_IF_ERROR(ForMatrices(a, [&](int64_t i) {
                            return SolveTriangular<T>(triangle, n, b.columns, m.template ptr<T>() + i * n * n,
                                                      n, x.template ptr<T>() + i * n * b.columns, b.columns);
                          }));
                          x.Commit();
                          CopyUnlessSame(t[3], t[1]);
                          return Status();
                        });
}

Status aclnn::LinalgCholesky(Call& call, const aclTensor* self, bool upper, aclTensor* out) {
  Batch b;
  RETURN_IF_ERROR(SquareBatch(call, self, "self", &b));
  RETURN_IF_ERROR(RequireBatch(call, out, "out", self, b.rows, b.columns));
  if (out->view.empty()) return call.Nothing();
  const char* op = call.op();
  return LaunchFloating(
      call, self->view.dtype, {In(self), Out(out)}, CostOf(b, 0.33),
      [op, b, upper](auto tag, const Run& t) -> Status {
        using T = typename decltype(tag)::type;
        const Dense a(t[0], kDTypeOf<T>, Dense::kRead);
        Dense x(t[1], kDTypeOf<T>, Dense::kWrite);
        const int64_t n = b.rows;
        RETURN_IF_ERROR(ForMatrices(b, [&](int64_t i) -> Status {
          const T* from = a.template ptr<T>() + i * n * n;
          T* to = x.template ptr<T>() + i * n * n;
          const Buffer<T> l = NewBuffer<T>(n * n);
          for (int64_t r = 0; r < n; ++r)
            for (int64_t c = 0; c <= r; ++c)
              l[r * n + c] = upper ? Conjugate(from[c * n + r]) : from[r * n + c];
          for (int64_t r = 0; r < n; ++r)
            for (int64_t c = r + 1; c < n; ++c) l[r * n + c] = Conjugate(l[c * n + r]);
          int64_t failed;
          RETURN_IF_ERROR(FactorCholesky(n, l.get(), &failed));
          if (failed != 0)
            return Error(
                kParamInvalid,
                "{}: matrix {} of self is not positive definite: its leading minor of order {} is not", op, i,
                failed);
          for (int64_t r = 0; r < n; ++r)
            for (int64_t c = 0; c < n; ++c) to[r * n + c] = upper ? Conjugate(l[c * n + r]) : l[r * n + c];
          return Status();
        }));
        x.Commit();
        return Status();
      });
}

Status aclnn::LinalgQr(Call& call, const aclTensor* self, int64_t mode, aclTensor* Q, aclTensor* R) {
  Batch b;
  RETURN_IF_ERROR(BatchOf(call, self, "self", &b));
  if (mode < 0 || mode > 2)
    return call.Invalid("mode is {}, expected 0 (reduced), 1 (complete) or 2 (R only)", mode);
  const int64_t k = std::min(b.rows, b.columns), q_columns = mode == 1 ? b.rows : k,
                r_rows = mode == 1 ? b.rows : k;
  RETURN_IF_ERROR(RequireBatch(call, R, "R", self, r_rows, b.columns));
  if (mode != 2) RETURN_IF_ERROR(RequireBatch(call, Q, "Q", self, b.rows, q_columns));
  if (b.count == 0 || b.rows == 0) return call.Nothing();
  const bool wants_q = mode != 2 && !Q->view.empty();
  return LaunchFloating(
      call, self->view.dtype, {In(self), Out(R), wants_q ? Out(Q) : Out(R)}, CostOf(b, 4),
      [b, wants_q, q_columns, r_rows](auto tag, const Run& t) -> Status {
        using T = typename decltype(tag)::type;
        const Dense a(t[0], kDTypeOf<T>, Dense::kRead);
        Dense r(t[1], kDTypeOf<T>, Dense::kWrite);
        std::optional<Dense> q;
        if (wants_q) q.emplace(t[2], kDTypeOf<T>, Dense::kWrite);
        const int64_t m = b.rows, n = b.columns;
        RETURN_IF_ERROR(ForMatrices(b, [&](int64_t i) -> Status {
          const Buffer<T> copy = NewBuffer<T>(m * n);
          std::copy(a.template ptr<T>() + i * m * n, a.template ptr<T>() + (i + 1) * m * n, copy.get());
          RETURN_IF_ERROR(
              FactorQr(m, n, copy.get(), q ? q->template ptr<T>() + i * m * q_columns : nullptr, q_columns));
          std::copy(copy.get(), copy.get() + r_rows * n, r.template ptr<T>() + i * r_rows * n);
          return Status();
        }));
        r.Commit();
        if (q) q->Commit();
        return Status();
      });
}

Status aclnn::Svd(Call& call, const aclTensor* input, const bool fullMatrices, const bool computeUV,
                  aclTensor* sigma, aclTensor* u, aclTensor* v) {
  Batch b;
  RETURN_IF_ERROR(BatchOf(call, input, "input", &b));
  const int64_t m = b.rows, n = b.columns, k = std::min(m, n), u_columns = fullMatrices ? m : k,
                v_columns = fullMatrices ? n : k;
  if (!IsFloating(input->view.dtype)) return Unsupported(call, input->view.dtype);
  RETURN_IF_ERROR(RequireBatch(call, sigma, "sigma", input, k, -1));
  if (computeUV) {
    RETURN_IF_ERROR(RequireBatch(call, u, "u", input, m, u_columns));
    RETURN_IF_ERROR(RequireBatch(call, v, "v", input, n, v_columns));
  }
  if (input->view.empty()) return call.Nothing();
  const auto run = [b, m, n, k, u_columns, v_columns, computeUV](auto tag, const Run& t) -> Status {
    using T = typename decltype(tag)::type;
    const Dense a(t[0], kDTypeOf<T>, Dense::kRead);
    Dense s(t[1], kDTypeOf<T>, Dense::kWrite);
    std::optional<Dense> left, right;
    if (computeUV)
      left.emplace(t[2], kDTypeOf<T>, Dense::kWrite), right.emplace(t[3], kDTypeOf<T>, Dense::kWrite);
    RETURN_IF_ERROR(ForMatrices(b, [&](int64_t i) {
      return FactorSvd<T>(m, n, a.template ptr<T>() + i * m * n, s.template ptr<T>() + i * k,
                          computeUV ? left->template ptr<T>() + i * m * u_columns : nullptr, u_columns,
                          computeUV ? right->template ptr<T>() + i * n * v_columns : nullptr, v_columns);
    }));
    s.Commit();
    if (computeUV) left->Commit(), right->Commit();
    return Status();
  };
  const Arg last = computeUV ? Out(u) : Out(sigma), second = computeUV ? Out(v) : Out(sigma);
  const std::initializer_list<Arg> args = {In(input), Out(sigma), last, second};
  if (input->view.dtype == DType::kDouble)
    return call.Launch(args, CostOf(b, 40), [run](const Run& t) { return run(TypeTag<double>{}, t); });
  return call.Launch(args, CostOf(b, 40), [run](const Run& t) { return run(TypeTag<float>{}, t); });
}

}  // namespace anycann
