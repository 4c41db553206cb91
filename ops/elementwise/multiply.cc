// Multiplication: tensor by tensor, tensor by scalar.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct Product {
  T operator()(T a, T b) const { return arithmetic::Mul(a, b); }
};
template <class T>
struct Scaled {
  T factor;
  T operator()(T a) const { return arithmetic::Mul(a, factor); }
};

}  // namespace

Status aclnn::Mul(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return MapBinary<kAllTypes>(call, self, other, out, Promote(self->view.dtype, other->view.dtype),
                              [](auto tag) { return Product<typename decltype(tag)::type>{}; });
}
Status aclnn::Muls(Call& call, const aclTensor* self, const aclScalar* other, aclTensor* out) {
  return MapUnary<kAllTypes>(call, self, out, PromoteScalar(self->view.dtype, other->value.dtype),
                             [&](auto tag) {
                               using T = typename decltype(tag)::type;
                               return Scaled<T>{other->value.To<T>()};
                             });
}

}  // namespace anycann
