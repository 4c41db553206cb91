// Vector norms over any dimensions, and renorm, which shortens the slices whose norm exceeds a limit.
#include <cmath>
#include <vector>

#include "aclnn_ops.h"
#include "base/scratch_array.h"
#include "ops/elementwise/engine.h"
#include "ops/reduce/block_sum.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

enum class NormKind { kZero, kOne, kTwo, kInfinity, kMinusInfinity, kGeneral };

NormKind KindOf(double p) {
  if (p == 0) return NormKind::kZero;
  if (p == 1) return NormKind::kOne;
  if (p == 2) return NormKind::kTwo;
  if (std::isinf(p)) return p > 0 ? NormKind::kInfinity : NormKind::kMinusInfinity;
  return NormKind::kGeneral;
}

// Adds in float64: squares of large float32 values don't overflow, and no rounding is seen in a float32
// result.
template <class T, NormKind kind>
struct NormFold {
  using In = T;
  using Acc = double;
  using Out = double;
  static constexpr bool kExtremum = kind == NormKind::kInfinity || kind == NormKind::kMinusInfinity;
  double p;

  double Init() const { return kind == NormKind::kMinusInfinity ? HUGE_VAL : 0; }
  double Term(T x) const {
    if constexpr (kind == NormKind::kTwo) {
      if constexpr (std::is_floating_point_v<T>)
        return static_cast<double>(x) * x;
      else
        return std::norm(Complex128(x));
    } else {
      double magnitude;
      if constexpr (std::is_floating_point_v<T>)
        magnitude = std::abs(static_cast<double>(x));
      else
        magnitude = std::abs(Complex128(x));
      if constexpr (kind == NormKind::kZero)
        return magnitude != 0 ? 1 : 0;
      else if constexpr (kind == NormKind::kGeneral)
        return std::pow(magnitude, p);
      else
        return magnitude;
    }
  }
  static double Join(double a, double b) {
    if constexpr (kind == NormKind::kInfinity)
      return a >= b || a != a ? a : b;
    else if constexpr (kind == NormKind::kMinusInfinity)
      return a <= b || a != a ? a : b;
    else
      return a + b;
  }
  void Row(double& acc, const T* x, int64_t n, int64_t first) const {
    if constexpr (kind == NormKind::kTwo && std::is_same_v<T, float>) {
      // In float32 first: only if that left its range are the squares taken in float64.
      for (int64_t i = 0; i < n; i += kSumBlock) {
        const int64_t m = std::min(kSumBlock, n - i);
        const double sum = DotOfValues(x + i, x + i, m);
        if (sum > 1e-25 && sum < 1e37)
          acc += sum;
        else
          Slowly(acc, x + i, m, first);
      }
    } else {
      Slowly(acc, x, n, first);
    }
  }
  void Slowly(double& acc, const T* x, int64_t n, int64_t) const {
    constexpr int kLanes = 32;
    double lanes[kLanes];
    for (double& l : lanes) l = Init();
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      for (int k = 0; k < kLanes; ++k) lanes[k] = Join(lanes[k], Term(x[i + k]));
    for (; i < n; ++i) acc = Join(acc, Term(x[i]));
    for (double l : lanes) acc = Join(acc, l);
  }
  void Columns(double* __restrict acc, const T* __restrict x, int64_t ld, int64_t rows, int64_t cols,
               int64_t) const {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) acc[j] = Join(acc[j], Term(x[i * ld + j]));
  }
  void Merge(double& acc, const double& later) const { acc = Join(acc, later); }
  double Finish(const double& acc, int64_t count) const {
    if constexpr (kExtremum) return count == 0 ? 0 : acc;
    if constexpr (kind == NormKind::kTwo) return std::sqrt(acc);
    if constexpr (kind == NormKind::kGeneral) return std::pow(acc, 1 / p);
    return acc;
  }
};

// Calls f with the reducer of the norm of order p on values of type `t`; false when the type has none.
template <class F>
bool VisitNorm(DType t, double p, F&& f) {
  return VisitCompute<kFloatingTypes>(t, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (KindOf(p)) {
      case NormKind::kZero: return f(NormFold<T, NormKind::kZero>{p});
      case NormKind::kOne: return f(NormFold<T, NormKind::kOne>{p});
      case NormKind::kTwo: return f(NormFold<T, NormKind::kTwo>{p});
      case NormKind::kInfinity: return f(NormFold<T, NormKind::kInfinity>{p});
      case NormKind::kMinusInfinity: return f(NormFold<T, NormKind::kMinusInfinity>{p});
      case NormKind::kGeneral: return f(NormFold<T, NormKind::kGeneral>{p});
    }
  });
}

Status VectorNorm(Call& call, const aclTensor* self, double p, const aclIntArray* dims, bool keepdim,
                  DType dtype, aclTensor* out) {
  uint32_t mask;
  RETURN_IF_ERROR(ReducedDims(call, dims, self->view.rank, "dim", &mask));
  RETURN_IF_ERROR(RequireReducedShape(call, self, mask, keepdim, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(DType::kFloat, out, "out"));
  const DType read =
      IsFloating(dtype) || IsComplex(dtype) ? Promote(self->view.dtype, dtype) : self->view.dtype;
  Status status;
  if (!VisitNorm(read, p, [&](const auto& fold) { status = LaunchReduce(call, self, mask, {out}, fold, 2); }))
    return Unsupported(call, self->view.dtype);
  return status;
}

// out = x * (norm > limit ? limit / (norm + 1e-7) : 1)
template <class T>
void ScaleLoop(void* const* out, const void* const* in, int64_t n, const void* params) {
  const double limit = *static_cast<const double*>(params);
  const T* x = static_cast<const T*>(in[0]);
  const double* norm = static_cast<const double*>(in[1]);
  T* y = static_cast<T*>(out[0]);
  using Real = std::conditional_t<std::is_same_v<T, Complex64>, float,
                                  std::conditional_t<std::is_same_v<T, Complex128>, double, T>>;
  for (int64_t i = 0; i < n; ++i)
    y[i] = norm[i] > limit ? x[i] * static_cast<Real>(limit / (norm[i] + 1e-7)) : x[i];
}

Status RunRenorm(const Reducer& table, const void* fold, InnerLoop loop, double limit, uint32_t mask,
                 const Run& t) {
  const TensorView &x = t[0], &out = t[1];
  int64_t shape[kMaxRank];
  for (int i = 0; i < x.rank; ++i) shape[i] = mask >> i & 1 ? 1 : x.dims[i];
  ScratchArray<double> norms(x.numel());
  if (!norms) return Error(kInner, "aclnnRenorm: out of memory");
  TensorView norm = TensorView::Contiguous(norms.get(), DType::kDouble, shape, x.rank), spread;
  RETURN_IF_ERROR(RunReduce(table, {&norm, 1}, x, mask, fold));
  BroadcastTo(norm, x.dims, x.rank, &spread);
  ElementwiseKernel k;
  k.inputs = 2;
  k.in_types[0] = k.out_types[0] = table.in_type;
  k.in_types[1] = DType::kDouble;
  k.loop = loop;
  RunElementwise(k, {out}, {x, spread}, &limit);
  return Status();
}

// The first half of the operands reduced to the second half, each to one value.
Status LaunchListReduction(Call& call, std::span<const Arg> operands, Cost cost, const Reducer* table,
                           double p) {
  return call.Launch(operands, cost, [table, p](const Run& t) -> Status {
    const int count = t.size() / 2;
    for (int i = 0; i < count; ++i) {
      const uint32_t mask = AllDims(t[i].rank);
      TensorView one = t[count + i];
      one.rank = t[i].rank;
      for (int d = 0; d < one.rank; ++d) one.dims[d] = one.strides[d] = 1;
      RETURN_IF_ERROR(RunReduce(*table, {&one, 1}, t[i], mask, &p));
    }
    return Status();
  });
}

}  // namespace

Status aclnn::LinalgVectorNorm(Call& call, const aclTensor* self, const aclScalar* ord,
                               const aclIntArray* dims, bool keepDims, aclDataType dtype, aclTensor* out) {
  return VectorNorm(call, self, ord->value.ToDouble(), dims, keepDims, static_cast<DType>(dtype), out);
}
Status aclnn::Norm(Call& call, const aclTensor* self, const aclScalar* pScalar, const aclIntArray* dim,
                   bool keepdim, aclTensor* out) {
  return VectorNorm(call, self, pScalar->value.ToDouble(), dim, keepdim, out->view.dtype, out);
}

Status aclnn::Renorm(Call& call, const aclTensor* self, const aclScalar* p, int64_t dim,
                     const aclScalar* maxNorm, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, kMaxRank));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  const double order = p->value.ToDouble(), limit = maxNorm->value.ToDouble();
  if (!(order > 0)) return call.Invalid("p is {}, expected a positive number", order);
  if (!(limit >= 0)) return call.Invalid("maxNorm is {}, expected a number that isn't negative", limit);
  uint32_t kept;
  RETURN_IF_ERROR(ReducedDim(call, dim, self->view.rank, "dim", &kept));
  if (out->view.empty()) return call.Nothing();
  const uint32_t mask = AllDims(self->view.rank) & ~kept;
  Status status;
  const double n = static_cast<double>(self->view.numel());
  if (!VisitNorm(self->view.dtype, order, [&](const auto& fold) {
        using R = std::decay_t<decltype(fold)>;
        const Reducer* table = ReducerOf<R>();
        status =
            call.Launch({In(self), Out(out)}, Cost{3 * n, 3.0 * static_cast<double>(self->view.nbytes())},
                        [table, fold, limit, mask](const Run& t) {
                          return RunRenorm(*table, &fold, &ScaleLoop<typename R::In>, limit, mask, t);
                        });
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

// One norm per tensor of the list.
Status aclnn::ForeachNorm(Call& call, const aclTensorList* x, const aclScalar* scalar,
                          const aclTensorList* out) {
  if (out->size != x->size) return call.Invalid("out has {} tensors, expected {}", out->size, x->size);
  if (x->size == 0) return call.Nothing();
  const int count = static_cast<int>(x->size);
  std::vector<Arg> operands;
  double values = 0;
  for (int i = 0; i < 2 * count; ++i) {
    const bool output = i >= count;
    const aclTensor* t = output ? out->values[i - count] : x->values[i];
    if (t == nullptr) return call.Invalid("tensor {} of {} is null", i % count, output ? "out" : "x");
    if (output && t->view.numel() != 1)
      return call.Invalid("tensor {} of out has shape {}, expected one element", i - count,
                          ShapeString(t->view));
    if (!output && ComputeType(t->view.dtype) != ComputeType(x->values[0]->view.dtype))
      return call.Invalid("tensor {} of x has type {}, expected that of the list's first, {}", i,
                          Name(t->view.dtype), Name(x->values[0]->view.dtype));
    if (output) RETURN_IF_ERROR(call.RequireCastable(DType::kFloat, t, "a tensor of out"));
    operands.push_back(output ? Out(t) : In(t));
    values += output ? 0 : static_cast<double>(t->view.numel());
  }
  const Cost cost{2 * values, values * static_cast<double>(SizeOf(x->values[0]->view.dtype))};
  Status status;
  const DType type = x->values[0]->view.dtype;
  if (!VisitNorm(type, scalar->value.ToDouble(), [&](const auto& fold) {
        const Reducer* table = ReducerOf<std::decay_t<decltype(fold)>>();
        static_assert(sizeof(fold) == sizeof(double));  // the order is all that a fold holds
        status = LaunchListReduction(call, operands, cost, table, fold.p);
      }))
    return Unsupported(call, type);
  return status;
}

}  // namespace anycann
