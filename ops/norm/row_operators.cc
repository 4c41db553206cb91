#include "ops/norm/row_operators.h"

#include "ops/norm/operands.h"

namespace anycann {
namespace {

// Operators name their parameters differently; errors name the role and the shape.
Status RequireFloating(Call& call, const aclTensor* t, const char* role) {
  if (t == nullptr || IsFloating(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected a floating-point type", role, Name(t->view.dtype));
}

Status RequireCount(Call& call, const aclTensor* t, const char* role, int64_t count) {
  if (t == nullptr) return Status();
  if (t->view.numel() != count)
    return call.Invalid("{} has shape {}, expected {} elements", role, ShapeString(t->view), count);
  return RequireFloating(call, t, role);
}

Status RequireLike(Call& call, const aclTensor* t, const char* role, const aclTensor* x) {
  if (t == nullptr) return Status();
  RETURN_IF_ERROR(call.RequireSameShape(t, role, x, "the input"));
  return RequireFloating(call, t, role);
}

Status SplitRows(Call& call, const aclTensor* x, int dims, RowNorm* norm) {
  RETURN_IF_ERROR(RequireFloating(call, x, "the input"));
  const TensorView& v = x->view;
  if (dims < 1 || dims > v.rank)
    return call.Invalid("{} dimensions are normalised, but the input has shape {}", dims, ShapeString(v));
  norm->rows = norm->n = 1;
  for (int i = 0; i < v.rank; ++i) (i < v.rank - dims ? norm->rows : norm->n) *= v.dims[i];
  return Status();
}

bool IsDouble(const aclTensor* x) { return x->view.dtype == DType::kDouble; }

}  // namespace

Status LaunchRowNorm(Call& call, const RowNormHandles& h, int dims, const RowNorm& given) {
  RowNorm norm = given;
  RETURN_IF_ERROR(SplitRows(call, h.x, dims, &norm));
  RETURN_IF_ERROR(RequireLike(call, h.residual, "the second input", h.x));
  RETURN_IF_ERROR(RequireLike(call, h.y, "the output", h.x));
  RETURN_IF_ERROR(RequireLike(call, h.y2, "the second output", h.x));
  RETURN_IF_ERROR(RequireLike(call, h.sum, "xOut", h.x));
  RETURN_IF_ERROR(RequireCount(call, h.gamma, "gamma", norm.n));
  RETURN_IF_ERROR(RequireCount(call, h.beta, "beta", norm.n));
  RETURN_IF_ERROR(RequireCount(call, h.bias, "bias", norm.n));
  RETURN_IF_ERROR(RequireCount(call, h.mean, "mean", norm.rows));
  RETURN_IF_ERROR(RequireCount(call, h.rstd, "rstd", norm.rows));
  if (norm.rows == 0 || norm.n == 0) return call.Nothing();
  Operands o;
  struct {
    int x, residual, gamma, beta, bias, y, mean, rstd, sum, y2;
  } at = {o.Input(h.x),  o.Input(h.residual), o.Input(h.gamma), o.Input(h.beta), o.Input(h.bias),
          o.Output(h.y), o.Output(h.mean),    o.Output(h.rstd), o.Output(h.sum), o.Output(h.y2)};
  const char* op = call.op();
  const double scale = h.x_scale;
  const bool wide = IsDouble(h.x);
  return call.Launch(o.list(), Cost{8.0 * static_cast<double>(norm.rows * norm.n), o.bytes()},
                     [op, norm, at, scale, wide](const Run& t) -> Status {
                       RowNormForward f;
                       f.x = At(t, at.x), f.residual = At(t, at.residual), f.x_scale = scale;
                       f.gamma = At(t, at.gamma), f.beta = At(t, at.beta), f.bias = At(t, at.bias);
                       f.y = At(t, at.y), f.mean = At(t, at.mean), f.rstd = At(t, at.rstd);
                       f.sum = At(t, at.sum), f.y2 = At(t, at.y2);
                       return wide ? RunRowNorm<double>(op, norm, f) : RunRowNorm<float>(op, norm, f);
                     });
}

Status LaunchRowNormBackward(Call& call, const RowNormBackwardHandles& h, int dims, const RowNorm& given) {
  RowNorm norm = given;
  RETURN_IF_ERROR(SplitRows(call, h.x, dims, &norm));
  RETURN_IF_ERROR(RequireLike(call, h.dy, "the output's gradient", h.x));
  RETURN_IF_ERROR(RequireLike(call, h.residual, "the second input", h.x));
  RETURN_IF_ERROR(RequireLike(call, h.dsum, "dsum", h.x));
  RETURN_IF_ERROR(RequireLike(call, h.dx, "the input's gradient", h.x));
  RETURN_IF_ERROR(RequireLike(call, h.dresidual, "the second input's gradient", h.x));
  RETURN_IF_ERROR(RequireCount(call, h.gamma, "gamma", norm.n));
  RETURN_IF_ERROR(RequireCount(call, h.mean, "mean", norm.rows));
  RETURN_IF_ERROR(RequireCount(call, h.rstd, "rstd", norm.rows));
  RETURN_IF_ERROR(RequireCount(call, h.dgamma, "gamma's gradient", norm.n));
  RETURN_IF_ERROR(RequireCount(call, h.dbeta, "beta's gradient", norm.n));
  if (norm.n == 0 || (h.dx == nullptr && h.dgamma == nullptr && h.dbeta == nullptr)) return call.Nothing();
  Operands o;
  struct {
    int dy, x, residual, mean, rstd, gamma, dsum, dx, dresidual, dgamma, dbeta;
  } at = {o.Input(h.dy),         o.Input(h.x),       o.Input(h.residual), o.Input(h.mean),
          o.Input(h.rstd),       o.Input(h.gamma),   o.Input(h.dsum),     o.Output(h.dx),
          o.Output(h.dresidual), o.Output(h.dgamma), o.Output(h.dbeta)};
  const char* op = call.op();
  const double scale = h.x_scale;
  const bool wide = IsDouble(h.x);
  return call.Launch(
      o.list(), Cost{16.0 * static_cast<double>(norm.rows * norm.n), o.bytes()},
      [op, norm, at, scale, wide](const Run& t) -> Status {
        RowNormBackward b;
        b.dy = At(t, at.dy), b.x = At(t, at.x), b.residual = At(t, at.residual), b.x_scale = scale;
        b.mean = At(t, at.mean), b.rstd = At(t, at.rstd), b.gamma = At(t, at.gamma), b.dsum = At(t, at.dsum);
        b.dx = At(t, at.dx), b.dresidual = At(t, at.dresidual);
        b.dgamma = At(t, at.dgamma), b.dbeta = At(t, at.dbeta);
        return wide ? RunRowNormBackward<double>(op, norm, b) : RunRowNormBackward<float>(op, norm, b);
      });
}

}  // namespace anycann
