// Legacy losses whose attributes say more than aclnn's reductions do.
#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {
namespace {

struct Reduction {
  int64_t code;   // 0: none, 1: mean, 2: sum
  double divide;  // the result by this: "batchmean" is the sum over the number of rows
};

Status ReadReduction(Arguments& a, const aclTensor* x, Reduction* r) {
  r->code = a.Integer(a.Index(a.Attr("reduction", "mean"), {"none", "mean", "sum", "batchmean"}));
  r->divide = 1;
  if (r->code == 3) {
    r->code = 2;
    r->divide = x->view.rank > 0 ? static_cast<double>(x->view.dims[0]) : 1;
  }
  return a.status();
}

Status Divided(Call& call, Arguments& a, const aclTensor* x, double by) {
  return Pointwise<1, 1>(call, {x}, {a.Out(0)},
                         [by](const double(&v)[1], double(&y)[1]) { y[0] = v[0] / by; });
}

// torch_npu makes one row of an input without batch, and leaves its target and result without dimensions.
aclTensor* Rows(Arguments& a, const aclTensor* x, aclTensor* t) {
  return x->view.rank == 2 && t->view.rank == 0 && x->view.dims[0] == 1 ? a.View(t->view.Unsqueeze(0)) : t;
}

// torch_npu says the longest target as blank + longest * classes.
int64_t Blank(Arguments& a, const aclTensor* log_probs) {
  const int64_t blank = a.Integer(a.Attr("blank", int64_t{0}));
  const TensorView& v = log_probs->view;
  return v.rank > 0 && v.dims[v.rank - 1] > 0 && blank >= 0 ? blank % v.dims[v.rank - 1] : blank;
}

// The divergence or its gradient by run(call, reduction, log_target, out), and "batchmean" by a division
// after it.
template <class F>
Status Divergence(Call& call, Arguments& a, size_t inputs, const aclTensor* input, F run) {
  RETURN_IF_ERROR(a.Require(inputs, 1));
  Reduction r;
  RETURN_IF_ERROR(ReadReduction(a, input, &r));
  const bool logarithm = a.Flag(a.Attr("log_target", false));
  aclTensor* y = r.divide == 1 ? a.Out(0) : a.TemporaryLike(a.Out(0), a.Out(0)->view.dtype);
  RETURN_IF_ERROR(a.status());
  if (r.divide == 1) return run(call, r.code, logarithm, y);
  RETURN_IF_ERROR(a.Before([&](Call& c) { return run(c, r.code, logarithm, y); }));
  return Divided(call, a, y, r.divide);
}

}  // namespace

Status KLDiv(Call& call, Arguments& a) {
  return Divergence(call, a, 2, a.In(0), [&](Call& c, int64_t reduction, bool logarithm, aclTensor* y) {
    return aclnn::KlDiv(c, a.In(0), a.In(1), reduction, logarithm, y);
  });
}

// grad, input, target.
Status KlDivLossGrad(Call& call, Arguments& a) {
  return Divergence(call, a, 3, a.In(1), [&](Call& c, int64_t reduction, bool logarithm, aclTensor* y) {
    return aclnn::KlDivBackward(c, a.In(0), a.In(1), a.In(2), reduction, logarithm, y);
  });
}

Status LpLoss(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const double p = a.Number("p", 1);
  const int64_t reduction = a.Integer(a.Index(a.Attr("reduction", "mean"), {"none", "mean", "sum"}));
  RETURN_IF_ERROR(a.status());
  if (p != 1) return call.Invalid("p is {}, expected 1", p);
  return aclnn::L1Loss(call, a.In(0), a.In(1), reduction, a.Out(0));
}

Status NllLoss(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 2));
  const int64_t reduction = a.Integer(a.Index(a.Attr("reduction", "mean"), {"none", "mean", "sum"}));
  const int64_t ignored = a.Integer(a.Attr("ignore_index", int64_t{-100}));
  const aclTensor* target = Rows(a, a.In(0), a.In(1));
  aclTensor* y = reduction == 0 ? Rows(a, a.In(0), a.Out(0)) : a.Out(0);
  RETURN_IF_ERROR(a.status());
  return (a.In(0)->view.rank == 4 ? aclnn::NLLLoss2d : aclnn::NLLLoss)(call, a.In(0), target, a.In(2),
                                                                       reduction, ignored, y, a.Out(1));
}

// x, y_grad, target, weight, total_weight.
Status NllLossGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(5, 1));
  const int64_t reduction = a.Integer(a.Index(a.Attr("reduction", "mean"), {"none", "mean", "sum"}));
  const int64_t ignored = a.Integer(a.Attr("ignore_index", int64_t{-100}));
  const aclTensor* target = Rows(a, a.In(0), a.In(2));
  const aclTensor* grad = reduction == 0 ? Rows(a, a.In(0), a.In(1)) : a.In(1);
  RETURN_IF_ERROR(a.status());
  if (a.In(0)->view.rank == 4)
    return aclnn::NLLLoss2dBackward(call, a.In(1), a.In(0), a.In(2), a.In(3), reduction, ignored, a.In(4),
                                    a.Out(0));
  return aclnn::NLLLossBackward(call, grad, a.In(0), target, a.In(3), reduction, ignored, a.In(4), a.Out(0));
}

// log_probs, targets, input_lengths, target_lengths.
Status CTCLossV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 2));
  const aclIntArray *inputs = a.Integers(a.Constant(2)), *targets = a.Integers(a.Constant(3));
  const int64_t blank = Blank(a, a.In(0));
  const bool zero = a.Flag(a.Attr("zero_infinity", false));
  RETURN_IF_ERROR(a.status());
  return aclnn::CtcLoss(call, a.In(0), a.In(1), inputs, targets, blank, zero, a.Out(0), a.Out(1));
}

// grad_out, log_probs, targets, input_lengths, target_lengths, neg_log_likelihood, log_alpha.
Status CTCLossV2Grad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(7, 1));
  const aclIntArray *inputs = a.Integers(a.Constant(3)), *targets = a.Integers(a.Constant(4));
  const int64_t blank = Blank(a, a.In(1));
  const bool zero = a.Flag(a.Attr("zero_infinity", false));
  RETURN_IF_ERROR(a.status());
  return aclnn::CtcLossBackward(call, a.In(0), a.In(1), a.In(2), inputs, targets, a.In(5), a.In(6), blank,
                                zero, a.Out(0));
}

}  // namespace anycann::aclop
