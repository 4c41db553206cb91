// Powers over lists of tensors.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/foreach/foreach.h"

namespace anycann {
namespace {

template <class T>
struct PowerBy {
  T exponent;
  T operator()(T x) const { return arithmetic::Pow(x, exponent); }
};
template <class T>
struct PowerOfConstant {
  T base;
  T operator()(T x) const { return arithmetic::Pow(base, x); }
};
template <class T>
struct Power {
  T operator()(T x, T y) const { return arithmetic::Pow(x, y); }
};

Status ByConstants(Call& call, const aclTensorList* x, const ForeachConstants& c, const aclTensorList* out) {
  return ForeachMap<kNumberTypes, PowerBy, 1>(call, {x}, c, out, 20);
}

}  // namespace

Status aclnn::ForeachPowScalar(Call& call, const aclTensorList* x, const aclTensor* scalar,
                               const aclTensorList* out) {
  return ByConstants(call, x, {.tensor = scalar}, out);
}
Status aclnn::ForeachPowScalarV2(Call& call, const aclTensorList* x, const aclScalar* scalar,
                                 aclTensorList* out) {
  return ByConstants(call, x, {.scalar = scalar}, out);
}
Status aclnn::ForeachPowScalarList(Call& call, const aclTensorList* x, const aclScalarList* scalars,
                                   const aclTensorList* out) {
  return ByConstants(call, x, {.scalars = scalars}, out);
}
Status aclnn::ForeachPowScalarAndTensor(Call& call, const aclScalar* scalar, const aclTensorList* x,
                                        const aclTensorList* out) {
  return ForeachMap<kNumberTypes, PowerOfConstant, 1>(call, {x}, {.scalar = scalar}, out, 20);
}
Status aclnn::ForeachPowList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                             const aclTensorList* out) {
  return ForeachMap<kNumberTypes, Power, 2>(call, {x1, x2}, {}, out, 20);
}

}  // namespace anycann
