// Three-operand arithmetic: addcmul, addcdiv, linear interpolation, and the rescaled bias of attention
// projections.
#include <cmath>

#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

using arithmetic::Add;
using arithmetic::Div;
using arithmetic::Mul;

template <class T>
struct AddProduct {
  T value;
  T operator()(T self, T a, T b) const { return Add(self, Mul(Mul(value, a), b)); }
};
template <class T>
struct AddQuotient {
  T value;
  T operator()(T self, T a, T b) const { return Add(self, Div(Mul(value, a), b)); }
};
template <class T>
struct Interpolated {
  T operator()(T start, T end, T weight) const { return arithmetic::Lerp(start, end, weight); }
};
// The weight is near to one end for all elements: decided once.
template <class T>
struct InterpolatedBy {
  T weight;
  T operator()(T start, T end) const { return arithmetic::Lerp(start, end, weight); }
};

DType Promote3(const aclTensor* a, const aclTensor* b, const aclTensor* c) {
  return Promote(Promote(a->view.dtype, b->view.dtype), c->view.dtype);
}

}  // namespace

Status aclnn::Addcmul(Call& call, const aclTensor* self, const aclTensor* tensor1, const aclTensor* tensor2,
                      const aclScalar* value, aclTensor* out) {
  return MapTernary<kAllTypes>(call, self, tensor1, tensor2, out, Promote3(self, tensor1, tensor2),
                               [&](auto tag) {
                                 using T = typename decltype(tag)::type;
                                 return AddProduct<T>{value->value.To<T>()};
                               });
}

Status aclnn::Addcdiv(Call& call, const aclTensor* self, const aclTensor* tensor1, const aclTensor* tensor2,
                      const aclScalar* value, const aclTensor* out) {
  return MapTernary<kFloatingTypes>(call, self, tensor1, tensor2, out,
                                    ToFloating(Promote3(self, tensor1, tensor2)), [&](auto tag) {
                                      using T = typename decltype(tag)::type;
                                      return AddQuotient<T>{value->value.To<T>()};
                                    });
}

Status aclnn::Lerp(Call& call, const aclTensor* self, const aclTensor* end, const aclTensor* weight,
                   aclTensor* out) {
  return MapTernary<kFloatingTypes>(call, self, end, weight, out, ToFloating(Promote3(self, end, weight)),
                                    [](auto tag) { return Interpolated<typename decltype(tag)::type>{}; });
}

Status aclnn::Lerps(Call& call, const aclTensor* self, const aclTensor* end, const aclScalar* weight,
                    aclTensor* out) {
  return MapBinary<kFloatingTypes>(call, self, end, out,
                                   ToFloating(Promote(self->view.dtype, end->view.dtype)), [&](auto tag) {
                                     using T = typename decltype(tag)::type;
                                     return InterpolatedBy<T>{weight->value.To<T>()};
                                   });
}

namespace {

// (qkv + bias) * factor for one of q, k, v: qkv is [B,T,3,H,D] and out [B,H,T,D].
template <class T>
struct BiasRescale {
  T factor;
  T operator()(T x, T bias) const { return (x + bias) * factor; }
};

// Part `which` of [.., 3*H*D] as [B,H,T,D] (the bias with strides 0 over B and T).
TensorView Part(const TensorView& v, int which, int64_t batch, int64_t length, int64_t heads, int64_t depth) {
  TensorView r = v;
  const int64_t inner = v.strides[v.rank - 1];
  r.data = v.bytes() + which * heads * depth * inner * SizeOf(v.dtype);
  r.rank = 4;
  const int64_t dims[] = {batch, heads, length, depth};
  const int64_t strides[] = {v.rank == 3 ? v.strides[0] : 0, depth * inner, v.rank == 3 ? v.strides[1] : 0,
                             inner};
  for (int i = 0; i < 4; ++i) r.dims[i] = dims[i], r.strides[i] = strides[i];
  return r;
}

}  // namespace

// q = (qkv[0] + bias[0]) / sqrt(D), k and v without the scale.
Status aclnn::TransformBiasRescaleQkv(Call& call, const aclTensor* qkv, const aclTensor* qkvBias,
                                      int64_t numHeads, const aclTensor* qOut, const aclTensor* kOut,
                                      const aclTensor* vOut) {
  RETURN_IF_ERROR(call.RequireRank(qkv, "qkv", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(qkvBias, "qkvBias", 1, 1));
  const int64_t batch = qkv->view.dims[0], length = qkv->view.dims[1], width = qkv->view.dims[2];
  if (numHeads <= 0 || numHeads > width / 3 || width % (3 * numHeads) != 0)
    return call.Invalid(
        "numHeads is {}, expected a positive number such that 3*numHeads divides qkv's last dimension {}",
        numHeads, width);
  const int64_t depth = width / 3 / numHeads;
  RETURN_IF_ERROR(call.RequireShape(qkvBias, "qkvBias", &width, 1));
  const int64_t shape[] = {batch, numHeads, length, depth};
  const aclTensor* outs[] = {qOut, kOut, vOut};
  const char* names[] = {"qOut", "kOut", "vOut"};
  const DType compute = Promote(qkv->view.dtype, qkvBias->view.dtype);
  for (int i = 0; i < 3; ++i) {
    RETURN_IF_ERROR(call.RequireShape(outs[i], names[i], shape, 4));
    RETURN_IF_ERROR(call.RequireCastable(compute, outs[i], names[i]));
  }
  if (qkv->view.empty()) return call.Nothing();
  Status status;
  const bool known = VisitCompute<kFloatTypes>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const double n = static_cast<double>(qkv->view.numel());
    status = call.Launch({In(qkv), In(qkvBias), Out(qOut), Out(kOut), Out(vOut)},
                         Cost{2 * n, 2 * n * static_cast<double>(SizeOf(qkv->view.dtype))},
                         [=](const Run& t) -> Status {
                           const ElementwiseKernel kernel = KernelOf<BiasRescale<T>, T, T>(1);
                           for (int i = 0; i < 3; ++i) {
                             const BiasRescale<T> f{i == 0 ? T(1) / std::sqrt(static_cast<T>(depth)) : T(1)};
                             RunElementwise(kernel, {t[2 + i]},
                                            {Part(t[0], i, batch, length, numHeads, depth),
                                             Part(t[1], i, batch, length, numHeads, depth)},
                                            &f);
                           }
                           return Status();
                         });
  });
  return known ? status : Unsupported(call, compute);
}

}  // namespace anycann
