// Legacy normalisations. They keep the variance where aclnn keeps the reciprocal deviation, and split batch
// normalisation into steps.
#include <cmath>
#include <numeric>

#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/aclop/layer_norm.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {
namespace {

double Reciprocal(double variance, double epsilon) { return 1 / std::sqrt(variance + epsilon); }

// 1 / sqrt(variance + epsilon), as a step before.
Status Deviation(Arguments& a, const aclTensor* variance, double epsilon, aclTensor** result) {
  *result = a.TemporaryLike(variance, variance->view.dtype);
  RETURN_IF_ERROR(a.status());
  return a.Before([&](Call& call) {
    return Pointwise<1, 1>(call, {variance}, {*result}, [epsilon](const double(&x)[1], double(&y)[1]) {
      y[0] = Reciprocal(x[0], epsilon);
    });
  });
}

Value AllBut(const aclTensor* x, int kept) {
  std::vector<int64_t> dims;
  for (int d = 0; d < x->view.rank; ++d)
    if (d != kept) dims.push_back(d);
  return Value(dims);
}

// The dimensions of x from the attribute's on.
Status Normalized(Arguments& a, const aclTensor* x, aclIntArray** dims) {
  *dims = a.Integers(a.From(a.Dims(x), a.Attr("begin_norm_axis", int64_t{0})));
  return a.status();
}

// One value per row: [rows, 1...] as far as it matters.
aclTensor* PerRow(Arguments& a, const aclTensor* t, const aclTensor* x, const aclIntArray* normalized) {
  std::vector<int64_t> dims(x->view.dims, x->view.dims + x->view.rank);
  for (size_t i = dims.size() - normalized->size; i < dims.size(); ++i) dims[i] = 1;
  return t->view.numel() == std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<>())
             ? a.View(TensorView::Contiguous(t->view.data, t->view.dtype, dims.data(),
                                             static_cast<int>(dims.size())))
             : const_cast<aclTensor*>(t);
}

// gamma and beta lie along the last dimensions, whatever shape the client gave them.
aclTensor* Along(Arguments& a, const aclTensor* t, const aclIntArray* normalized) {
  return a.View(TensorView::Contiguous(t->view.data, t->view.dtype, normalized->values,
                                       static_cast<int>(normalized->size)));
}

// y, mean and 1 / sqrt(variance + epsilon).
Status LayerNormTo(Call& call, Arguments& a, aclTensor* mean, aclTensor* rstd) {
  const double first = a.Number("begin_norm_axis", 0);
  if (first == a.In(0)->view.rank && a.In(0)->view.rank < kMaxRank) {  // rows of single elements
    const aclIntArray* one = a.Integers(int64_t{1});
    const int rank = a.In(0)->view.rank;
    aclTensor *x = a.View(a.In(0)->view.Unsqueeze(rank)), *y = a.View(a.Out(0)->view.Unsqueeze(rank)),
              *m = a.View(
                  TensorView::Contiguous(mean->view.data, mean->view.dtype, x->view.dims, x->view.rank)),
              *r = a.View(
                  TensorView::Contiguous(rstd->view.data, rstd->view.dtype, x->view.dims, x->view.rank));
    const aclTensor *gamma = a.Flat(a.In(1)), *beta = a.Flat(a.In(2));
    RETURN_IF_ERROR(a.status());
    if (mean->view.numel() != x->view.numel() || rstd->view.numel() != x->view.numel() ||
        gamma->view.numel() != 1 || beta->view.numel() != 1)
      return call.Invalid("begin_norm_axis is {} for x {} and gamma {}", first, ShapeString(a.In(0)->view),
                          ShapeString(a.In(1)->view));
    return aclnn::LayerNorm(call, x, one, gamma, beta, a.Number("epsilon", 1e-5), y, m, r);
  }
  aclIntArray* dims = nullptr;
  RETURN_IF_ERROR(Normalized(a, a.In(0), &dims));
  const double epsilon = a.Number("epsilon", 1e-5);
  const aclTensor *gamma = Along(a, a.In(1), dims), *beta = Along(a, a.In(2), dims);
  aclTensor *m = PerRow(a, mean, a.In(0), dims), *r = PerRow(a, rstd, a.In(0), dims);
  RETURN_IF_ERROR(a.status());
  if (gamma->view.numel() != a.In(1)->view.numel() || beta->view.numel() != a.In(2)->view.numel())
    return call.Invalid("gamma has shape {} and beta {}, expected {} elements", ShapeString(a.In(1)->view),
                        ShapeString(a.In(2)->view), gamma->view.numel());
  return aclnn::LayerNorm(call, a.In(0), dims, gamma, beta, epsilon, a.Out(0), m, r);
}

// The variance of x over `dims`; n - correction in the denominator.
Status Variance(Arguments& a, const Value& dims, int64_t correction, bool keep, aclTensor* out) {
  const aclIntArray* axes = a.Integers(dims);
  RETURN_IF_ERROR(a.status());
  return a.Before([&](Call& c) { return aclnn::VarCorrection(c, a.In(0), axes, correction, keep, out); });
}

}  // namespace

Status LayerNormV3(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 3));
  return LayerNormTo(call, a, a.Out(1), a.Out(2));
}

Status LayerNorm(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 3));
  const aclTensor* variance = a.Out(2);
  aclTensor* rstd = a.TemporaryLike(variance, DType::kFloat);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) { return LayerNormTo(c, a, a.Out(1), rstd); }));
  return Pointwise<1, 1>(call, {rstd}, {a.Out(2)},
                         [](const double(&x)[1], double(&y)[1]) { y[0] = KeptVariance(x[0]); });
}

// dy, x, variance (what LayerNorm keeps), mean, gamma.
Status LayerNormGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(5, 3));
  const TensorView &x = a.In(1)->view, &gamma = a.In(4)->view;
  const aclIntArray* dims = a.Integers(a.Tail(a.Dims(a.In(1)), std::min(gamma.rank, x.rank)));
  RETURN_IF_ERROR(a.status());
  aclTensor* rstd = nullptr;
  RETURN_IF_ERROR(Deviation(a, a.In(2), kGradEpsilon, &rstd));
  const aclBoolArray* mask = a.Bools(Value(std::vector<int64_t>{1, 1, 1}));
  RETURN_IF_ERROR(a.status());
  return aclnn::LayerNormBackward(call, a.In(0), a.In(1), dims, a.In(3), rstd, a.In(4), a.In(4), mask,
                                  a.Out(0), a.Out(1), a.Out(2));
}

Status GroupNorm(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 3));
  const TensorView& x = a.In(0)->view;
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "x", 2, kMaxRank));
  const int64_t groups = a.Integer(a.Attr("num_groups")), n = x.dims[0], c = x.dims[1];
  const double epsilon = a.Number("eps", 1e-4);
  aclTensor* rstd = a.TemporaryLike(a.Out(2), a.Out(2)->view.dtype);
  RETURN_IF_ERROR(a.status());
  const int64_t inner = n * c > 0 ? x.numel() / (n * c) : 0;
  RETURN_IF_ERROR(a.Before([&](Call& s) {
    return aclnn::GroupNorm(s, a.In(0), a.In(1), a.In(2), n, c, inner, groups, epsilon, a.Out(0), a.Out(1),
                            rstd);
  }));
  return Pointwise<1, 1>(call, {rstd}, {a.Out(2)}, [epsilon](const double(&r)[1], double(&y)[1]) {
    y[0] = std::max(0.0, 1 / (r[0] * r[0]) - epsilon);
  });
}

// x, sum, square_sum, scale, offset, mean, variance. The sums are x's, so x gives the same moments without
// the cancellation of the difference of squares.
Status BnTrainingUpdate(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(7, 5));
  const double momentum = a.Real(a.Attr("factor")), epsilon = a.Real(a.Attr("epsilon"));
  aclTensor *mean = a.Updated(a.Out(1), a.In(5)), *variance = a.Updated(a.Out(2), a.In(6));
  aclTensor* invstd = a.TemporaryLike(a.Out(4), DType::kFloat);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(Variance(a, AllBut(a.In(0), 1), 0, false, a.Out(4)));
  return aclnn::BatchNorm(call, a.In(0), a.In(3), a.In(4), mean, variance, true, momentum, epsilon, a.Out(0),
                          a.Out(3), invstd);
}

// grads, x, batch_mean, batch_variance.
Status BnTrainingUpdateGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 2));
  aclTensor* invstd = nullptr;
  RETURN_IF_ERROR(Deviation(a, a.In(3), a.Number("epsilon", 1e-4), &invstd));
  aclTensor *dy = a.TemporaryLike(a.In(2), DType::kFloat), *dyx = a.TemporaryLike(a.In(2), DType::kFloat);
  RETURN_IF_ERROR(a.status());
  return aclnn::BatchNormReduceBackward(call, a.In(0), a.In(1), a.In(2), invstd, nullptr, true, true, true,
                                        dy, dyx, a.Out(0), a.Out(1));
}

// grads, x, diff_scale, diff_offset, scale, batch_mean, batch_variance.
Status BnTrainingReduceGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(7, 1));
  RETURN_IF_ERROR(call.RequireRank(a.In(1), "x", 2, kMaxRank));
  const TensorView& x = a.In(1)->view;
  const double epsilon = a.Number("epsilon", 1e-4);
  aclTensor* invstd = nullptr;
  RETURN_IF_ERROR(Deviation(a, a.In(6), epsilon, &invstd));
  aclTensor* dyx = a.TemporaryLike(a.In(2), DType::kFloat);
  aclTensor* count = a.Temporary(DType::kInt32, std::array<int64_t, 1>{1});
  RETURN_IF_ERROR(a.status());
  // Host memory of this call: no kernel has seen it yet.
  *count->view.ptr<int32_t>() = static_cast<int32_t>(x.dims[1] > 0 ? x.numel() / x.dims[1] : 0);
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return Pointwise<2, 1>(c, {a.In(2), a.In(6)}, {dyx}, [epsilon](const double(&v)[2], double(&y)[1]) {
      y[0] = v[0] * std::sqrt(v[1] + epsilon);
    });
  }));
  return aclnn::BatchNormElemtBackward(call, a.In(0), a.In(1), a.In(5), invstd, a.In(4), a.In(3), dyx, count,
                                       a.Out(0));
}

Status BnInfer(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(5, 1));
  aclTensor *mean = a.TemporaryLike(a.In(3), DType::kFloat),
            *invstd = a.TemporaryLike(a.In(3), DType::kFloat);
  const double epsilon = a.Real(a.Attr("epsilon"));
  RETURN_IF_ERROR(a.status());
  return aclnn::BatchNorm(call, a.In(0), a.In(1), a.In(2), a.In(3), a.In(4), false, 0, epsilon, a.Out(0),
                          mean, invstd);
}

// grads, scale, batch_variance.
Status BnInferGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const double epsilon = a.Number("epsilon", 1e-4);
  const TensorView& g = a.In(0)->view;
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "grads", 2, kMaxRank));
  std::vector<int64_t> dims(static_cast<size_t>(g.rank - 1), 1);
  dims[0] = g.dims[1];
  std::vector<const aclTensor*> along;
  for (size_t i : {1, 2}) {
    const TensorView& v = a.In(i)->view;
    if (v.numel() != g.dims[1])
      return call.Invalid("input {} has shape {}, expected {} elements", i, ShapeString(v), g.dims[1]);
    along.push_back(a.View(TensorView::Contiguous(v.data, v.dtype, dims.data(), g.rank - 1)));
  }
  RETURN_IF_ERROR(a.status());
  return Pointwise<3, 1>(
      call, {a.In(0), along[0], along[1]}, {a.Out(0)},
      [epsilon](const double(&x)[3], double(&y)[1]) { y[0] = x[0] * x[1] * Reciprocal(x[2], epsilon); });
}

// grad_output, save_input, mean, invstd, weight, mean_dy, mean_dy_xmu, all of one shape.
Status SyncBatchNormBackwardElemt(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(7, 1));
  return Pointwise<7, 1>(call, {a.In(0), a.In(1), a.In(2), a.In(3), a.In(4), a.In(5), a.In(6)}, {a.Out(0)},
                         [](const double(&x)[7], double(&y)[1]) {
                           y[0] = (x[0] - x[5] - (x[1] - x[2]) * x[3] * x[3] * x[6]) * x[3] * x[4];
                         });
}

// sum_dy, sum of dy * x, mean, invstd.
Status SyncBatchNormBackwardReduce(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 2));
  return Pointwise<4, 2>(call, {a.In(0), a.In(1), a.In(2), a.In(3)}, {a.Out(0), a.Out(1)},
                         [](const double(&x)[4], double(&y)[2]) {
                           y[0] = x[1] - x[0] * x[2];
                           y[1] = y[0] * x[3];
                         });
}

Status SyncBnTrainingUpdate(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const double momentum = a.Number("momentum", 0.1);
  RETURN_IF_ERROR(a.status());
  return Pointwise<2, 1>(
      call, {a.In(0), a.In(1)}, {a.Out(0)},
      [momentum](const double(&x)[2], double(&y)[1]) { y[0] = (1 - momentum) * x[1] + momentum * x[0]; });
}

// mean_all, invert_std_all, count_all and mean_broadcast of [parts, channels]; count_sum and running_var of
// [1, channels].
Status SyncBatchNormGatherStatsWithCounts(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(6, 2));
  const double momentum = a.Number("momentum", 0.1), epsilon = a.Number("epsilon", 1e-3);
  aclTensor *squares = a.TemporaryLike(a.In(0), DType::kDouble),
            *total = a.TemporaryLike(a.In(4), DType::kDouble);
  const aclIntArray* rows = a.Integers(int64_t{0});
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return Pointwise<4, 1>(c, {a.In(0), a.In(1), a.In(2), a.In(3)}, {squares},
                           [epsilon](const double(&x)[4], double(&y)[1]) {
                             const double variance = 1 / (x[1] * x[1]) - epsilon, distance = x[0] - x[3];
                             y[0] = (variance + distance * distance) * x[2];
                           });
  }));
  RETURN_IF_ERROR(
      a.Before([&](Call& c) { return aclnn::ReduceSum(c, squares, rows, true, ACL_DOUBLE, total); }));
  aclTensor *invstd = a.Reshape(a.Out(0), {1, total->view.numel()}),
            *running = a.Reshape(a.Out(1), {1, total->view.numel()});
  RETURN_IF_ERROR(a.status());
  return Pointwise<3, 2>(call, {total, a.In(4), a.In(5)}, {invstd, running},
                         [momentum, epsilon](const double(&x)[3], double(&y)[2]) {
                           y[0] = Reciprocal(x[0] / x[1], epsilon);
                           y[1] = (1 - momentum) * x[2] + momentum * x[0] / (x[1] - 1);
                         });
}

// sum(x * count / count_sum) over the axes.
Status ReduceMeanWithCount(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const aclIntArray* axes = a.Integers(a.Attr("axes"));
  const bool keep = a.Flag(a.Attr("keep_dims", false));
  aclTensor* weighted = a.TemporaryLike(a.In(0), DType::kDouble);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return Pointwise<3, 1>(c, {a.In(0), a.In(1), a.In(2)}, {weighted},
                           [](const double(&x)[3], double(&y)[1]) { y[0] = x[0] * x[1] / x[2]; });
  }));
  return aclnn::ReduceSum(call, weighted, axes, keep, static_cast<aclDataType>(a.Out(0)->view.dtype),
                          a.Out(0));
}

// The client passes the mean too, which the engine finds by itself.
Status ReduceStdV2Update(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const bool unbiased = a.Flag(a.Attr("unbiased", true)), keep = a.Flag(a.Attr("keepdim", false));
  const int64_t correction = unbiased ? a.Integer(a.Attr("correction", int64_t{1})) : 0;
  const aclIntArray* axes = a.Integers(a.Attr("dim"));
  const bool deviation = a.Flag(a.Attr("if_std", false));
  RETURN_IF_ERROR(a.status());
  return deviation ? aclnn::Std(call, a.In(0), axes, correction, keep, a.Out(0))
                   : aclnn::VarCorrection(call, a.In(0), axes, correction, keep, a.Out(0));
}

Status ReduceStdWithMean(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const bool unbiased = a.Flag(a.Attr("unbiased", true)), keep = a.Flag(a.Attr("keepdim", false));
  const int64_t correction = unbiased ? a.Integer(a.Attr("correction", int64_t{1})) : 0;
  const Value dims = a.Attr("dim", std::vector<int64_t>());
  const double epsilon = a.Number("epsilon", 1e-3);
  if (!a.Flag(a.Attr("invert", false))) {
    const aclIntArray* axes = a.Integers(dims);
    RETURN_IF_ERROR(a.status());
    return aclnn::Std(call, a.In(0), axes, correction, keep, a.Out(0));
  }
  aclTensor* variance = a.TemporaryLike(a.Out(0), a.Out(0)->view.dtype);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(Variance(a, dims, correction, keep, variance));
  return Pointwise<1, 1>(call, {variance}, {a.Out(0)},
                         [epsilon](const double(&x)[1], double(&y)[1]) { y[0] = Reciprocal(x[0], epsilon); });
}

// The factors that bring each row along `dim` to a norm of at most maxnorm: not the scaled tensor.
Status Renorm(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "x", 1, kMaxRank));
  int dim = 0;
  RETURN_IF_ERROR(call.WrapDim(a.Integer(a.Attr("dim")), a.In(0)->view.rank, "dim", &dim));
  const aclScalar* p = a.Scalar(a.Attr("p"));
  const double most = a.Real(a.Attr("maxnorm"));
  const aclIntArray* axes = a.Integers(AllBut(a.In(0), dim));
  // One factor per row, first in y's memory: torch_npu also passes a y of x's shape and takes the factors
  // from its front.
  const TensorView &x = a.In(0)->view, &y = a.Out(0)->view;
  std::vector<int64_t> dims(static_cast<size_t>(x.rank), 1);
  dims[static_cast<size_t>(dim)] = x.dims[dim];
  if (y.numel() < x.dims[dim])
    return call.Invalid("y has shape {}, expected {} elements", ShapeString(y), x.dims[dim]);
  aclTensor *norms = a.Temporary(DType::kFloat, dims),
            *factors = a.View(TensorView::Contiguous(y.data, y.dtype, dims.data(), x.rank));
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::Norm(c, a.In(0), p, axes, true, norms); }));
  return Pointwise<1, 1>(call, {norms}, {factors}, [most](const double(&x)[1], double(&y)[1]) {
    y[0] = x[0] > most ? most / (x[0] + 1e-7) : 1;
  });
}

namespace {

// torch_npu says infinity as the largest or smallest int; GE's p of infinity is either.
Value NormOrder(Arguments& a) {
  const double p = a.Number("p", 2);
  return p >= 2147483647.0 ? Value(INFINITY) : p <= -2147483648.0 ? Value(-INFINITY) : Value(p);
}

}  // namespace

// LpNorm in two types: the sum of powers (or the extremum), and its root.
Status LpNormReduceV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const Value order = NormOrder(a);
  const double p = a.Real(order);
  const aclIntArray* axes = a.Integers(a.Attr("axes", std::vector<int64_t>()));
  const bool keep = a.Flag(a.Attr("keepdim", false));
  aclTensor* norm = a.TemporaryLike(a.Out(0), a.Out(0)->view.dtype);
  const aclScalar* scalar = a.Scalar(order);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return aclnn::LinalgVectorNorm(c, a.In(0), scalar, axes, keep, static_cast<aclDataType>(norm->view.dtype),
                                   norm);
  }));
  const bool power = std::isfinite(p) && p != 0 && p != 1;
  return Pointwise<1, 1>(call, {norm}, {a.Out(0)}, [power, p](const double(&x)[1], double(&y)[1]) {
    y[0] = power ? std::pow(x[0], p) : x[0];
  });
}

Status LpNormUpdateV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const double p = a.Real(NormOrder(a));
  RETURN_IF_ERROR(a.status());
  const bool root = std::isfinite(p) && p != 0 && p != 1;
  return Pointwise<1, 1>(call, {a.In(0)}, {a.Out(0)}, [root, p](const double(&x)[1], double(&y)[1]) {
    y[0] = root ? std::pow(x[0], 1 / p) : x[0];
  });
}

// mean, rstd and y = norm(alpha * x + gx) * gamma + beta, over the last dimensions, which are gamma's.
Status DeepNorm(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 3));
  const double alpha = a.Number("alpha", 0.3), epsilon = a.Number("epsilon", 1e-6);
  const aclTensor *x = a.In(0), *gamma = a.In(3);
  aclTensor* sum = a.TemporaryLike(x, DType::kFloat);
  const aclIntArray* dims = a.Integers(a.Dims(gamma));
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return Pointwise<2, 1>(c, {x, a.In(1)}, {sum},
                           [alpha](const double(&v)[2], double(&y)[1]) { y[0] = alpha * v[0] + v[1]; });
  }));
  const aclTensor *g = a.As(gamma, DType::kFloat), *b = a.As(a.In(2), DType::kFloat);
  aclTensor* y = a.TemporaryLike(x, DType::kFloat);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before(
      [&](Call& c) { return aclnn::LayerNorm(c, sum, dims, g, b, epsilon, y, a.Out(0), a.Out(1)); }));
  return aclnn::InplaceCopy(call, a.Out(2), y);
}

// dy, x, gx, gamma, mean, rstd -> dx, dgx, dbeta, dgamma.
Status DeepNormGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(6, 4));
  const double alpha = a.Number("alpha", 0.3);
  const aclTensor *x = a.In(1), *gamma = a.In(3);
  aclTensor *sum = a.TemporaryLike(x, DType::kFloat), *dsum = a.TemporaryLike(x, DType::kFloat);
  const aclIntArray* dims = a.Integers(a.Dims(gamma));
  const aclBoolArray* mask = a.Bools(Value(std::vector<int64_t>{1, 1, 1}));
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return Pointwise<2, 1>(c, {x, a.In(2)}, {sum},
                           [alpha](const double(&v)[2], double(&y)[1]) { y[0] = alpha * v[0] + v[1]; });
  }));
  const aclTensor *g = a.As(gamma, DType::kFloat), *dy = a.As(a.In(0), DType::kFloat);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return aclnn::LayerNormBackward(c, dy, sum, dims, a.In(4), a.In(5), g, g, mask, dsum, a.Out(3), a.Out(2));
  }));
  return Pointwise<1, 2>(call, {dsum}, {a.Out(0), a.Out(1)}, [alpha](const double(&v)[1], double(&y)[2]) {
    y[0] = alpha * v[0];
    y[1] = v[0];
  });
}

// (x - mean) / sqrt(variance), as torchvision's normalize of images.
Status NormalizeV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  return Pointwise<3, 1>(call, {a.In(0), a.In(1), a.In(2)}, {a.Out(0)},
                         [](const double(&x)[3], double(&y)[1]) { y[0] = (x[0] - x[1]) / x[2]; });
}

}  // namespace anycann::aclop
