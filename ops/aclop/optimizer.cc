// ApplyAdamD: var, m, v, beta1_power, beta2_power, lr, beta1, beta2, epsilon, grad.
#include <cmath>

#include "aclop_operators.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {

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

}  // namespace anycann::aclop
