// Addition and subtraction: out = self + alpha * other.
#include "aclnn_ops.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct AddScaled {
  T alpha;
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, bool>) return a || (alpha && b);
    else return a + alpha * b;
  }
};

template <class T>
struct AddConstant {
  T b;  // alpha * other
  T operator()(T a) const {
    if constexpr (std::is_same_v<T, bool>) return a || b;
    else return a + b;
  }
};

Status AddTensors(Call& call, const aclTensor* self, const aclTensor* other, const aclScalar* alpha, const aclTensor* out,
                  int sign) {
  const DType compute = Promote(self->view.dtype, other->view.dtype);
  return MapBinary<kAllTypes>(call, self, other, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return AddScaled<T>{static_cast<T>(alpha->value.To<T>() * T(sign))};
  });
}

Status AddScalar(Call& call, const aclTensor* self, const aclScalar* other, const aclScalar* alpha, const aclTensor* out,
                 int sign) {
  const DType compute = PromoteScalar(self->view.dtype, other->value.dtype);
  return MapUnary<kAllTypes>(call, self, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return AddConstant<T>{static_cast<T>(alpha->value.To<T>() * T(sign) * other->value.To<T>())};
  });
}

}  // namespace

Status aclnn::Add(Call& call, const aclTensor* self, const aclTensor* other, const aclScalar* alpha, aclTensor* out) {
  return AddTensors(call, self, other, alpha, out, 1);
}
Status aclnn::Adds(Call& call, const aclTensor* self, const aclScalar* other, const aclScalar* alpha, aclTensor* out) {
  return AddScalar(call, self, other, alpha, out, 1);
}
Status aclnn::Sub(Call& call, const aclTensor* self, const aclTensor* other, const aclScalar* alpha, aclTensor* out) {
  return AddTensors(call, self, other, alpha, out, -1);
}
Status aclnn::Subs(Call& call, const aclTensor* self, const aclScalar* other, const aclScalar* alpha, aclTensor* out) {
  return AddScalar(call, self, other, alpha, out, -1);
}

}  // namespace anycann
