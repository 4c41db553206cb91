// Distances between rows: of two sets (with gradient), and of all pairs of one set. Norms of order p.
#include <cmath>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "base/vector_math.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"

namespace anycann {
namespace {

enum class Order { kZero, kOne, kTwo, kInfinity, kGeneral };
Order OrderOf(double p) {
  if (p == 0) return Order::kZero;
  if (p == 1) return Order::kOne;
  if (p == 2) return Order::kTwo;
  return std::isinf(p) ? Order::kInfinity : Order::kGeneral;
}

template <Order order, class T>
struct Metric {
  T p;
  T Join(T acc, T d) const {  // d: difference of one coordinate
    const T a = std::abs(d);
    if constexpr (order == Order::kZero)
      return acc + (d != 0 ? T(1) : T(0));
    else if constexpr (order == Order::kOne)
      return acc + a;
    else if constexpr (order == Order::kTwo)
      return acc + d * d;
    else if constexpr (order == Order::kInfinity)
      return acc >= a || acc != acc ? acc : a;
    else
      return acc + std::pow(a, p);
  }
  T Merge(T a, T b) const {
    if constexpr (order == Order::kInfinity)
      return a >= b || a != a ? a : b;
    else
      return a + b;
  }
  T Finish(T acc) const {
    if constexpr (order == Order::kTwo)
      return std::sqrt(acc);
    else if constexpr (order == Order::kGeneral)
      return std::pow(acc, 1 / p);
    else
      return acc;
  }
  // d(distance)/d(coordinate)
  T Slope(T d, T distance) const {
    const T sign = d > 0 ? T(1) : d < 0 ? T(-1) : T(0);
    if constexpr (order == Order::kZero)
      return 0;
    else if constexpr (order == Order::kOne)
      return sign;
    else if constexpr (order == Order::kTwo)
      return distance == 0 ? T(0) : d / distance;
    else if constexpr (order == Order::kInfinity)
      return std::abs(d) == distance ? sign : T(0);
    else if (distance == 0 || d == 0)
      return 0;
    else
      return sign * std::pow(std::abs(d) / distance, p - 1);
  }
};

// Calls f(metric) with the metric of order p.
template <class T, class F>
void VisitMetric(double p, F&& f) {
  const T q = static_cast<T>(p);
  switch (OrderOf(p)) {
    case Order::kZero: return f(Metric<Order::kZero, T>{q});
    case Order::kOne: return f(Metric<Order::kOne, T>{q});
    case Order::kTwo: return f(Metric<Order::kTwo, T>{q});
    case Order::kInfinity: return f(Metric<Order::kInfinity, T>{q});
    case Order::kGeneral: return f(Metric<Order::kGeneral, T>{q});
  }
}

// out[j] = distance of x (m coordinates) from column j of columns (m rows, `ld` apart), j in [0, n).
// Coordinates are added in blocks, which meet in one more sum, so that long rows don't lose digits.
template <class M, class T>
void DistancesToColumns(const M& metric, const T* x, const T* columns, int64_t ld, int64_t m, int64_t n,
                        T* out) {
  constexpr int64_t kStrip = 256, kCoordinates = 64;
  T part[kStrip], total[kStrip];
  for (int64_t j0 = 0; j0 < n; j0 += kStrip) {
    const int64_t w = std::min(kStrip, n - j0);
    std::fill_n(total, w, T(0));
    for (int64_t k0 = 0; k0 < m; k0 += kCoordinates) {
      std::fill_n(part, w, T(0));
      for (int64_t k = k0; k < std::min(m, k0 + kCoordinates); ++k) {
        const T* c = columns + k * ld + j0;
        const T own = x[k];
        for (int64_t j = 0; j < w; ++j) part[j] = metric.Join(part[j], own - c[j]);
      }
      for (int64_t j = 0; j < w; ++j) total[j] = metric.Merge(total[j], part[j]);
    }
    for (int64_t j = 0; j < w; ++j) out[j0 + j] = metric.Finish(total[j]);
  }
}

struct Sizes {
  int64_t batch, p, r, m;  // batches of p and of r rows of m coordinates
};

template <class T>
Buffer<T> TransposedRows(const T* x, int64_t batch, int64_t rows, int64_t m) {
  Buffer<T> t = NewBuffer<T>(batch * rows * m);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < m; ++k) t[(b * m + k) * rows + i] = x[(b * rows + i) * m + k];
  return t;
}

int64_t Grain(int64_t work_per_item) {
  return std::max<int64_t>(1, 65536 / std::max<int64_t>(1, work_per_item));
}

template <class T>
Status RunCdist(const Run& t, const Sizes& s, double p) {
  const Dense x1(t[0], kDTypeOf<T>, Dense::kRead), x2(t[1], kDTypeOf<T>, Dense::kRead);
  Dense out(t[2], kDTypeOf<T>, Dense::kWrite);
  const Buffer<T> columns = TransposedRows(x2.ptr<T>(), s.batch, s.r, s.m);
  VisitMetric<T>(p, [&](const auto& metric) {
    ParallelFor(s.batch * s.p, Grain(s.r * s.m), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        DistancesToColumns(metric, x1.ptr<T>() + i * s.m, columns.get() + i / s.p * s.m * s.r, s.r, s.m, s.r,
                           out.ptr<T>() + i * s.r);
    });
  });
  out.Commit();
  return Status();
}

// t: gradient, x1, x2, distances, gradient of x1
template <class T>
Status RunCdistBackward(const Run& t, const Sizes& s, double p) {
  const Dense grad(t[0], kDTypeOf<T>, Dense::kRead), x1(t[1], kDTypeOf<T>, Dense::kRead),
      x2(t[2], kDTypeOf<T>, Dense::kRead), distances(t[3], kDTypeOf<T>, Dense::kRead);
  Dense out(t[4], kDTypeOf<T>, Dense::kWrite);
  VisitMetric<T>(p, [&](const auto& metric) {
    ParallelFor(s.batch * s.p, Grain(s.r * s.m), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T* a = x1.ptr<T>() + i * s.m;
        T* d = out.ptr<T>() + i * s.m;
        std::fill_n(d, s.m, T(0));
        for (int64_t j = 0; j < s.r; ++j) {
          const T* b = x2.ptr<T>() + (i / s.p * s.r + j) * s.m;
          const T g = grad.ptr<T>()[i * s.r + j], distance = distances.ptr<T>()[i * s.r + j];
          for (int64_t k = 0; k < s.m; ++k) d[k] += g * metric.Slope(a[k] - b[k], distance);
        }
      }
    });
  });
  out.Commit();
  return Status();
}

template <class T>
Status RunPdist(const Run& t, double p) {
  const int64_t n = t[0].dims[0], m = t[0].dims[1];
  const Dense x(t[0], kDTypeOf<T>, Dense::kRead);
  Dense out(t[1], kDTypeOf<T>, Dense::kWrite);
  const Buffer<T> columns = TransposedRows(x.ptr<T>(), 1, n, m);
  VisitMetric<T>(p, [&](const auto& metric) {
    ParallelFor(n, Grain(n * m / 2), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i * (n - 1) - i * (i - 1) / 2;  // of the pairs (i, i + 1), (i, i + 2), ...
        DistancesToColumns(metric, x.ptr<T>() + i * m, columns.get() + i + 1, n, m, n - i - 1,
                           out.ptr<T>() + first);
      }
    });
  });
  out.Commit();
  return Status();
}

// x1 [..., P, M] and x2 [..., R, M] with their leading dimensions broadcast to each other's.
Status CommonShape(const Call& call, const aclTensor* x1, const aclTensor* x2, TensorView* a, TensorView* b,
                   Sizes* s) {
  RETURN_IF_ERROR(call.RequireRank(x1, "x1", 2, kMaxRank));
  RETURN_IF_ERROR(call.RequireRank(x2, "x2", 2, kMaxRank));
  const TensorView &u = x1->view, &v = x2->view;
  int64_t dims[kMaxRank];
  int rank = u.rank - 2;
  std::copy_n(u.dims, rank, dims);
  if (u.dims[u.rank - 1] != v.dims[v.rank - 1] || !BroadcastShapes(dims, &rank, v.dims, v.rank - 2))
    return call.Invalid(
        "x1 has shape {} and x2 {}: expected [...,P,M] and [...,R,M] with leading dimensions that broadcast",
        ShapeString(u), ShapeString(v));
  *s = {1, u.dims[u.rank - 2], v.dims[v.rank - 2], u.dims[u.rank - 1]};
  for (int i = 0; i < rank; ++i) s->batch *= dims[i];
  dims[rank] = s->p;
  dims[rank + 1] = s->m;
  BroadcastTo(u, dims, rank + 2, a);
  dims[rank] = s->r;
  BroadcastTo(v, dims, rank + 2, b);
  return Status();
}

Status RequireOrder(const Call& call, double p) {
  return p >= 0 ? Status() : call.Invalid("p is {}, expected a number that isn't negative", p);
}

Status PairDistances(Call& call, const aclTensor* self, double p, aclTensor* out) {
  RETURN_IF_ERROR(RequireOrder(call, p));
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, 2));
  const int64_t n = self->view.dims[0], pairs = n * (n - 1) / 2;
  RETURN_IF_ERROR(call.RequireShape(out, "out", &pairs, 1));
  if (out->view.empty()) return call.Nothing();
  const double flops = 3.0 * static_cast<double>(pairs * self->view.dims[1]);
  Status status;
  if (!VisitCompute<kFloatTypes>(self->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(self), Out(out)}, Cost{flops, static_cast<double>(out->view.nbytes())},
                             [p](const Run& t) { return RunPdist<T>(t, p); });
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace

Status aclnn::Cdist(Call& call, const aclTensor* x1, const aclTensor* x2, float p, int64_t, aclTensor* out) {
  TensorView a, b;
  Sizes s;
  RETURN_IF_ERROR(RequireOrder(call, p));
  RETURN_IF_ERROR(CommonShape(call, x1, x2, &a, &b, &s));
  int64_t dims[kMaxRank];
  std::copy_n(a.dims, a.rank, dims);
  dims[a.rank - 1] = s.r;
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, a.rank));
  if (out->view.empty()) return call.Nothing();
  const double flops = 3.0 * static_cast<double>(out->view.numel() * s.m), order = p;
  Status status;
  if (!VisitCompute<kFloatTypes>(Promote(a.dtype, b.dtype), [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(x1, a), In(x2, b), Out(out)},
                             Cost{flops, static_cast<double>(out->view.nbytes())},
                             [s, order](const Run& t) { return RunCdist<T>(t, s, order); });
      }))
    return Unsupported(call, a.dtype);
  return status;
}

Status aclnn::CdistBackward(Call& call, const aclTensor* grad, const aclTensor* x1, const aclTensor* x2,
                            const aclTensor* cdist, float p, aclTensor* out) {
  TensorView a, b;
  Sizes s;
  RETURN_IF_ERROR(RequireOrder(call, p));
  RETURN_IF_ERROR(CommonShape(call, x1, x2, &a, &b, &s));
  RETURN_IF_ERROR(call.RequireShape(out, "out", a.dims, a.rank));
  int64_t dims[kMaxRank];
  std::copy_n(a.dims, a.rank, dims);
  dims[a.rank - 1] = s.r;
  RETURN_IF_ERROR(call.RequireShape(grad, "grad", dims, a.rank));
  RETURN_IF_ERROR(call.RequireShape(cdist, "cdist", dims, a.rank));
  if (out->view.empty()) return call.Nothing();
  const double flops = 5.0 * static_cast<double>(grad->view.numel() * s.m), order = p;
  Status status;
  if (!VisitCompute<kFloatTypes>(Promote(a.dtype, b.dtype), [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(grad), In(x1, a), In(x2, b), In(cdist), Out(out)},
                             Cost{flops, static_cast<double>(out->view.nbytes())},
                             [s, order](const Run& t) { return RunCdistBackward<T>(t, s, order); });
      }))
    return Unsupported(call, a.dtype);
  return status;
}

Status aclnn::Pdist(Call& call, const aclTensor* self, float p, aclTensor* out) {
  return PairDistances(call, self, p, out);
}
Status aclnn::PdistForward(Call& call, const aclTensor* self, const aclScalar* pScalar, aclTensor* out) {
  return PairDistances(call, self, pScalar->value.ToDouble(), out);
}

}  // namespace anycann
