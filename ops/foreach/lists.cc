// Lists of tensors with other lists: sums, products, quotients, extrema, addcmul, addcdiv, interpolation.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/foreach/foreach.h"

namespace anycann {
namespace {

namespace a = arithmetic;

template <class T>
struct AddScaled {
  T alpha;
  T operator()(T x, T y) const { return a::Add(x, a::Mul(alpha, y)); }
};
template <class T>
struct SubScaled {
  T alpha;
  T operator()(T x, T y) const { return a::Sub(x, a::Mul(alpha, y)); }
};
template <class T>
struct Product {
  T operator()(T x, T y) const { return a::Mul(x, y); }
};
template <class T>
struct Quotient {
  T operator()(T x, T y) const { return a::Div(x, y); }
};
template <class T>
struct Larger {
  T operator()(T x, T y) const { return a::Max(x, y); }
};
template <class T>
struct Smaller {
  T operator()(T x, T y) const { return a::Min(x, y); }
};
template <class T>
struct AddProduct {
  T value;
  T operator()(T x, T y, T z) const { return a::Add(x, a::Mul(a::Mul(value, y), z)); }
};
template <class T>
struct AddQuotient {
  T value;
  T operator()(T x, T y, T z) const { return a::Add(x, a::Div(a::Mul(value, y), z)); }
};
template <class T>
struct LerpBy {
  T weight;
  T operator()(T x, T y) const { return a::Lerp(x, y, weight); }
};
template <class T>
struct LerpTensors {
  T operator()(T x, T y, T weight) const { return a::Lerp(x, y, weight); }
};

template <unsigned set, template <class> class F, int arity>
Status ByConstants(Call& call, std::array<const aclTensorList*, arity> x, const ForeachConstants& c,
                   const aclTensorList* out) {
  return ForeachMap<set, F, arity>(call, x, c, out, 1, set & kIntTypes ? nullptr : &ToFloating);
}
template <unsigned set, template <class> class F, int arity>
Status Lists(Call& call, std::array<const aclTensorList*, arity> x, const aclTensorList* out) {
  return ByConstants<set, F, arity>(call, x, {}, out);
}

ForeachConstants Of(const aclScalar* s) { return {.scalar = s}; }
ForeachConstants Of(const aclTensor* s) { return {.tensor = s}; }

}  // namespace

Status aclnn::ForeachAddList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                             const aclTensor* alpha, aclTensorList* out) {
  return ByConstants<kNumberTypes, AddScaled, 2>(call, {x1, x2}, Of(alpha), out);
}
Status aclnn::ForeachAddListV2(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                               const aclScalar* alpha, aclTensorList* out) {
  return ByConstants<kNumberTypes, AddScaled, 2>(call, {x1, x2}, Of(alpha), out);
}
Status aclnn::ForeachSubList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                             const aclTensor* alpha, const aclTensorList* out) {
  return ByConstants<kNumberTypes, SubScaled, 2>(call, {x1, x2}, Of(alpha), out);
}
Status aclnn::ForeachSubListV2(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                               const aclScalar* alpha, aclTensorList* out) {
  return ByConstants<kNumberTypes, SubScaled, 2>(call, {x1, x2}, Of(alpha), out);
}
Status aclnn::ForeachMulList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                             aclTensorList* out) {
  return Lists<kAllTypes, Product, 2>(call, {x1, x2}, out);
}
Status aclnn::ForeachDivList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                             aclTensorList* out) {
  return Lists<kFloatingTypes, Quotient, 2>(call, {x1, x2}, out);
}
Status aclnn::ForeachMaximumList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                 const aclTensorList* out) {
  return Lists<kRealTypes, Larger, 2>(call, {x1, x2}, out);
}
Status aclnn::ForeachMinimumList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                 const aclTensorList* out) {
  return Lists<kRealTypes, Smaller, 2>(call, {x1, x2}, out);
}
Status aclnn::ForeachAddcmulScalar(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                   const aclTensorList* x3, const aclTensor* scalar,
                                   const aclTensorList* out) {
  return ByConstants<kNumberTypes, AddProduct, 3>(call, {x1, x2, x3}, Of(scalar), out);
}
Status aclnn::ForeachAddcmulScalarV2(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                     const aclTensorList* x3, const aclScalar* scalar, aclTensorList* out) {
  return ByConstants<kNumberTypes, AddProduct, 3>(call, {x1, x2, x3}, Of(scalar), out);
}
Status aclnn::ForeachAddcmulScalarList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                       const aclTensorList* x3, const aclTensor* scalars,
                                       const aclTensorList* out) {
  return ByConstants<kNumberTypes, AddProduct, 3>(call, {x1, x2, x3}, Of(scalars), out);
}
Status aclnn::ForeachAddcmulList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                 const aclTensorList* x3, const aclTensor* scalars,
                                 const aclTensorList* out) {
  return ByConstants<kNumberTypes, AddProduct, 3>(call, {x1, x2, x3}, Of(scalars), out);
}
Status aclnn::ForeachAddcdivScalar(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                   const aclTensorList* x3, const aclTensor* scalar, aclTensorList* out) {
  return ByConstants<kFloatingTypes, AddQuotient, 3>(call, {x1, x2, x3}, Of(scalar), out);
}
Status aclnn::ForeachAddcdivScalarV2(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                     const aclTensorList* x3, const aclScalar* scalar, aclTensorList* out) {
  return ByConstants<kFloatingTypes, AddQuotient, 3>(call, {x1, x2, x3}, Of(scalar), out);
}
Status aclnn::ForeachAddcdivScalarList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                       const aclTensorList* x3, const aclTensor* scalars,
                                       aclTensorList* out) {
  return ByConstants<kFloatingTypes, AddQuotient, 3>(call, {x1, x2, x3}, Of(scalars), out);
}
Status aclnn::ForeachAddcdivList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                 const aclTensorList* x3, const aclTensor* scalars,
                                 const aclTensorList* out) {
  return ByConstants<kFloatingTypes, AddQuotient, 3>(call, {x1, x2, x3}, Of(scalars), out);
}
Status aclnn::ForeachLerpScalar(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                                const aclScalar* weight, aclTensorList* out) {
  return ByConstants<kFloatingTypes, LerpBy, 2>(call, {x1, x2}, Of(weight), out);
}
Status aclnn::ForeachLerpList(Call& call, const aclTensorList* x1, const aclTensorList* x2,
                              const aclTensorList* weight, aclTensorList* out) {
  return Lists<kFloatingTypes, LerpTensors, 3>(call, {x1, x2, weight}, out);
}

}  // namespace anycann
