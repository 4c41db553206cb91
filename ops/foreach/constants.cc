// Lists of tensors with a constant: a scalar, a scalar per tensor, or a device tensor of them.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/foreach/foreach.h"

namespace anycann {
namespace {

namespace a = arithmetic;

template <class T>
struct AddConstant {
  T c;
  T operator()(T x) const { return a::Add(x, c); }
};
template <class T>
struct SubConstant {
  T c;
  T operator()(T x) const { return a::Sub(x, c); }
};
template <class T>
struct MulConstant {
  T c;
  T operator()(T x) const { return a::Mul(x, c); }
};
template <class T>
struct DivConstant {
  T c;
  T operator()(T x) const { return a::Div(x, c); }
};
template <class T>
struct MaxConstant {
  T c;
  T operator()(T x) const { return a::Max(x, c); }
};
template <class T>
struct MinConstant {
  T c;
  T operator()(T x) const { return a::Min(x, c); }
};

template <unsigned set, template <class> class F>
Status ByConstants(Call& call, const aclTensorList* x, const ForeachConstants& c, const aclTensorList* out) {
  return ForeachMap<set, F, 1>(call, {x}, c, out, 1, set & kIntTypes ? nullptr : &ToFloating);
}

ForeachConstants Of(const aclScalar* s) { return {.scalar = s}; }
ForeachConstants Of(const aclTensor* s) { return {.tensor = s}; }
ForeachConstants Of(const aclScalarList* s) { return {.scalars = s}; }

}  // namespace

Status aclnn::ForeachAddScalar(Call& call, const aclTensorList* x, const aclTensor* scalar,
                               const aclTensorList* out) {
  return ByConstants<kNumberTypes, AddConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachAddScalarV2(Call& call, const aclTensorList* x, const aclScalar* scalar,
                                 aclTensorList* out) {
  return ByConstants<kNumberTypes, AddConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachAddScalarList(Call& call, const aclTensorList* x, const aclScalarList* scalars,
                                   const aclTensorList* out) {
  return ByConstants<kNumberTypes, AddConstant>(call, x, Of(scalars), out);
}
Status aclnn::ForeachSubScalar(Call& call, const aclTensorList* x, const aclTensor* scalar,
                               const aclTensorList* out) {
  return ByConstants<kNumberTypes, SubConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachSubScalarV2(Call& call, const aclTensorList* x, const aclScalar* scalar,
                                 aclTensorList* out) {
  return ByConstants<kNumberTypes, SubConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachSubScalarList(Call& call, const aclTensorList* x, const aclScalarList* scalars,
                                   const aclTensorList* out) {
  return ByConstants<kNumberTypes, SubConstant>(call, x, Of(scalars), out);
}
Status aclnn::ForeachMulScalar(Call& call, const aclTensorList* x, const aclTensor* scalar,
                               const aclTensorList* out) {
  return ByConstants<kNumberTypes, MulConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachMulScalarV2(Call& call, const aclTensorList* x, const aclScalar* scalar,
                                 aclTensorList* out) {
  return ByConstants<kNumberTypes, MulConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachMulScalarList(Call& call, const aclTensorList* x, const aclScalarList* scalars,
                                   const aclTensorList* out) {
  return ByConstants<kNumberTypes, MulConstant>(call, x, Of(scalars), out);
}
Status aclnn::ForeachDivScalar(Call& call, const aclTensorList* x, const aclTensor* scalar,
                               aclTensorList* out) {
  return ByConstants<kFloatingTypes, DivConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachDivScalarV2(Call& call, const aclTensorList* x, const aclScalar* scalar,
                                 aclTensorList* out) {
  return ByConstants<kFloatingTypes, DivConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachDivScalarList(Call& call, const aclTensorList* x, const aclScalarList* scalars,
                                   const aclTensorList* out) {
  return ByConstants<kFloatingTypes, DivConstant>(call, x, Of(scalars), out);
}
Status aclnn::ForeachMaximumScalar(Call& call, const aclTensorList* x, const aclTensor* scalar,
                                   const aclTensorList* out) {
  return ByConstants<kRealTypes, MaxConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachMaximumScalarV2(Call& call, const aclTensorList* x, const aclScalar* scalar,
                                     aclTensorList* out) {
  return ByConstants<kRealTypes, MaxConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachMaximumScalarList(Call& call, const aclTensorList* x, const aclScalarList* scalars,
                                       const aclTensorList* out) {
  return ByConstants<kRealTypes, MaxConstant>(call, x, Of(scalars), out);
}
Status aclnn::ForeachMinimumScalar(Call& call, const aclTensorList* x, const aclTensor* scalar,
                                   const aclTensorList* out) {
  return ByConstants<kRealTypes, MinConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachMinimumScalarV2(Call& call, const aclTensorList* x, const aclScalar* scalar,
                                     aclTensorList* out) {
  return ByConstants<kRealTypes, MinConstant>(call, x, Of(scalar), out);
}
Status aclnn::ForeachMinimumScalarList(Call& call, const aclTensorList* x, const aclScalarList* scalars,
                                       const aclTensorList* out) {
  return ByConstants<kRealTypes, MinConstant>(call, x, Of(scalars), out);
}

}  // namespace anycann
