// Addition and subtraction: out = self + alpha * other, and the reversed forms.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

using arithmetic::Mul;

template <class T>
struct Sum {
  T operator()(T a, T b) const { return arithmetic::Add(a, b); }
};
template <class T>
struct Difference {
  T operator()(T a, T b) const { return arithmetic::Sub(a, b); }
};
template <class T>
struct AddScaled {
  T alpha;
  T operator()(T a, T b) const { return arithmetic::Add(a, Mul(alpha, b)); }
};
// scale * a + constant
template <class T>
struct Affine {
  T scale, constant;
  T operator()(T a) const { return arithmetic::Add(Mul(scale, a), constant); }
};
template <class T>
struct AddConstant {
  T constant;
  T operator()(T a) const { return arithmetic::Add(a, constant); }
};

// In T: alpha with its sign. Integers wrap as the tensors' own arithmetic does.
template <class T>
T Signed(const aclScalar* alpha, int sign) {
  const T a = alpha->value.To<T>();
  if constexpr (std::is_same_v<T, bool>)
    return a;
  else
    return sign > 0 ? a : arithmetic::Sub(T(0), a);
}

Status AddTensors(Call& call, const aclTensor* self, const aclTensor* other, const aclScalar* alpha,
                  const aclTensor* out, int sign) {
  const DType compute = Promote(self->view.dtype, other->view.dtype);
  if (!alpha->value.IsComplex() && alpha->value.ToDouble() == sign)
    return MapBinary<kAllTypes>(call, self, other, out, compute,
                                [](auto tag) { return Sum<typename decltype(tag)::type>{}; });
  if (!alpha->value.IsComplex() && alpha->value.ToDouble() == -sign)
    return MapBinary<kAllTypes>(call, self, other, out, compute,
                                [](auto tag) { return Difference<typename decltype(tag)::type>{}; });
  return MapBinary<kAllTypes>(call, self, other, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return AddScaled<T>{Signed<T>(alpha, sign)};
  });
}

Status AddScalar(Call& call, const aclTensor* self, const aclScalar* other, const aclScalar* alpha,
                 const aclTensor* out, int sign) {
  const DType compute = PromoteScalar(self->view.dtype, other->value.dtype);
  return MapUnary<kAllTypes>(call, self, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return AddConstant<T>{Mul(Signed<T>(alpha, sign), other->value.To<T>())};
  });
}

// scalar + sign * alpha * tensor
Status AddToScalar(Call& call, const aclScalar* scalar, const aclTensor* tensor, const aclScalar* alpha,
                   const aclTensor* out, int sign) {
  const DType compute = PromoteScalar(tensor->view.dtype, scalar->value.dtype);
  return MapUnary<kAllTypes>(call, tensor, out, compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return Affine<T>{Signed<T>(alpha, sign), scalar->value.To<T>()};
  });
}

}  // namespace

Status aclnn::Add(Call& call, const aclTensor* self, const aclTensor* other, const aclScalar* alpha,
                  aclTensor* out) {
  return AddTensors(call, self, other, alpha, out, 1);
}
Status aclnn::Adds(Call& call, const aclTensor* self, const aclScalar* other, const aclScalar* alpha,
                   aclTensor* out) {
  return AddScalar(call, self, other, alpha, out, 1);
}
Status aclnn::AddV3(Call& call, const aclScalar* self, const aclTensor* other, const aclScalar* alpha,
                    aclTensor* out) {
  return AddToScalar(call, self, other, alpha, out, 1);
}
Status aclnn::Sub(Call& call, const aclTensor* self, const aclTensor* other, const aclScalar* alpha,
                  aclTensor* out) {
  return AddTensors(call, self, other, alpha, out, -1);
}
Status aclnn::Subs(Call& call, const aclTensor* self, const aclScalar* other, const aclScalar* alpha,
                   aclTensor* out) {
  return AddScalar(call, self, other, alpha, out, -1);
}
Status aclnn::Rsub(Call& call, const aclTensor* self, const aclTensor* other, const aclScalar* alpha,
                   aclTensor* out) {
  return AddTensors(call, other, self, alpha, out, -1);
}
Status aclnn::Rsubs(Call& call, const aclTensor* self, const aclScalar* other, const aclScalar* alpha,
                    aclTensor* out) {
  return AddToScalar(call, other, self, alpha, out, -1);
}

}  // namespace anycann
