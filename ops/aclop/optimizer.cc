// Adam as legacy operators.
#include <cmath>

#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {

// var, m, v, beta1_power, beta2_power, lr, beta1, beta2, epsilon, grad.
Status ApplyAdamD(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(10, 3));
  const bool nesterov = a.Flag(a.Attr("use_nesterov", false));
  RETURN_IF_ERROR(a.status());
  std::array<const aclTensor*, 10> in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = a.In(i);
  return Pointwise<10, 3>(call, in, {a.Out(0), a.Out(1), a.Out(2)},
                          [nesterov](const double(&x)[10], double(&y)[3]) {
                            const double beta1 = x[6], beta2 = x[7], grad = x[9];
                            const double rate = x[5] * std::sqrt(1 - x[4]) / (1 - x[3]);
                            y[1] = beta1 * x[1] + (1 - beta1) * grad;
                            y[2] = beta2 * x[2] + (1 - beta2) * grad * grad;
                            const double step = nesterov ? beta1 * y[1] + (1 - beta1) * grad : y[1];
                            y[0] = x[0] - rate * step / (std::sqrt(y[2]) + x[8]);
                          });
}

// var, m, v, lr, beta1, beta2, epsilon, grad, max_grad_norm, global_grad_norm, weight_decay, step_size.
// "adam": BERT's Adam, without correction of the moments' bias; "mbart_adam": fairseq's, whose caller
// corrects it in step_size and whose decay is apart from the step. A gradient whose norm over all parameters
// is above max_grad_norm is scaled down to it.
Status ApplyAdamV2(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(8, 3));
  const bool mbart = a.Flag(a.Index(a.Attr("adam_mode", "adam"), {"adam", "mbart_adam"}));
  for (size_t i : {9, 10})
    if (a.In(i) == nullptr) return call.Invalid("input {} is absent", i);
  if (mbart && a.In(11) == nullptr)
    return call.Invalid("adam_mode is mbart_adam and input 11, step_size, is absent");
  aclTensor* no_limit = a.Temporary(DType::kFloat, std::vector<int64_t>{1});
  const aclScalar* minus_one = a.Scalar(int64_t{-1});
  RETURN_IF_ERROR(a.status());
  if (a.In(8) == nullptr)
    RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::InplaceFillScalar(c, no_limit, minus_one); }));
  std::array<const aclTensor*, 12> in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = a.In(i);
  if (in[8] == nullptr) in[8] = no_limit;
  if (in[11] == nullptr) in[11] = in[3];
  return Pointwise<12, 3>(
      call, in, {a.Out(0), a.Out(1), a.Out(2)}, [mbart](const double(&x)[12], double(&y)[3]) {
        const double limit = x[8], norm = x[9], scale = limit > 0 && norm > limit ? limit / norm : 1,
                     grad = x[7] * scale;
        y[1] = x[4] * x[1] + (1 - x[4]) * grad;
        y[2] = x[5] * x[2] + (1 - x[5]) * grad * grad;
        const double update = y[1] / (std::sqrt(y[2]) + x[6]), decay = x[10] * x[0];
        y[0] = x[0] - (mbart ? x[11] * update + x[3] * decay : x[3] * (update + decay));
      });
}

}  // namespace anycann::aclop
