// Map: from a functor on single elements to an operator. The elementwise family's operators are thin over it:
//
//   template <class T> struct Sigmoid { T operator()(T x) const { return 1 / (1 + std::exp(-x)); } };
//   Status aclnn::Sigmoid(Call& call, const aclTensor* self, aclTensor* out) {
//     return MapUnary<kFloatingTypes>(call, self, out, ToFloating(self->view.dtype), [](auto t) {
//       return ::anycann::Sigmoid<typename decltype(t)::type>{};
//     });
//   }
//
// The maker is called with the tag of the compute type and returns the functor, with its attributes converted to that
// type. The result type is the functor's.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <span>
#include <utility>

#include "ops/call.h"
#include "ops/elementwise/engine.h"
#include "ops/promote.h"

namespace anycann {

// Sets of compute types.
enum TypeSet : unsigned {
  kFloatTypes = 1,    // float, double
  kIntTypes = 2,      // the eight integers
  kBoolType = 4,
  kComplexTypes = 8,  // complex64, complex128
  kRealTypes = kFloatTypes | kIntTypes,
  kFloatingTypes = kFloatTypes | kComplexTypes,
  kNumberTypes = kRealTypes | kComplexTypes,
  kAllTypes = kNumberTypes | kBoolType,
};

// Calls f(TypeTag<T>{}) with the compute type of `t` if `set` holds it; false otherwise.
template <unsigned set, class F>
bool VisitCompute(DType t, F&& f) {
  if constexpr (set & kFloatTypes) {
    if (ComputeType(t) == DType::kFloat) return f(TypeTag<float>{}), true;
#ifndef ANYCANN_FEW_TYPES
    if (t == DType::kDouble) return f(TypeTag<double>{}), true;
#endif
  }
  if constexpr (set & kIntTypes) {
    if (t == DType::kInt64) return f(TypeTag<int64_t>{}), true;
#ifndef ANYCANN_FEW_TYPES
    if (t == DType::kInt32) return f(TypeTag<int32_t>{}), true;
    if (t == DType::kInt16) return f(TypeTag<int16_t>{}), true;
    if (t == DType::kInt8) return f(TypeTag<int8_t>{}), true;
    if (t == DType::kUint8) return f(TypeTag<uint8_t>{}), true;
    if (t == DType::kUint16) return f(TypeTag<uint16_t>{}), true;
    if (t == DType::kUint32) return f(TypeTag<uint32_t>{}), true;
    if (t == DType::kUint64) return f(TypeTag<uint64_t>{}), true;
#endif
  }
  if constexpr (set & kBoolType) {
    if (t == DType::kBool) return f(TypeTag<bool>{}), true;
  }
#ifndef ANYCANN_FEW_TYPES
  if constexpr (set & kComplexTypes) {
    if (ComputeType(t) == DType::kComplex64) return f(TypeTag<Complex64>{}), true;
    if (t == DType::kComplex128) return f(TypeTag<Complex128>{}), true;
  }
#endif
  return false;
}

// The engine's description of a functor R operator()(In...) const.
template <class F, class... In>
ElementwiseKernel KernelOf(double cost) {
  using R = decltype(std::declval<const F&>()(std::declval<In>()...));
  ElementwiseKernel k;
  k.inputs = sizeof...(In);
  k.outputs = 1;
  k.out_types[0] = kDTypeOf<R>;
  const DType types[] = {kDTypeOf<In>...};
  for (size_t i = 0; i < sizeof...(In); ++i) k.in_types[i] = types[i];
  k.cost = cost;
  k.loop = [](void* const* out, const void* const* in, int64_t n, const void* params) {
    const F f = *static_cast<const F*>(params);
    R* r = static_cast<R*>(out[0]);
    const auto run = [&](const In*... p) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) r[i] = f(p[i]...);
    };
    [&]<size_t... I>(std::index_sequence<I...>) {
      run(static_cast<const In*>(in[I])...);
    }(std::index_sequence_for<In...>{});
  };
  return k;
}

// Broadcasts the inputs to out's shape, which must be exactly their broadcast. `views` gets the expanded inputs.
ANYCANN_API Status BroadcastInputs(Call& call, std::span<const aclTensor* const> inputs, const aclTensor* out,
                                   std::span<Arg> args);

// Launches functor f over inputs (broadcast to out's shape), each read as type In.
template <class F, class... In>
Status LaunchMap(Call& call, std::initializer_list<const aclTensor*> inputs, const aclTensor* out, const F& f,
                 double cost) {
  constexpr size_t kInputs = sizeof...(In);
  Arg args[kInputs + 1];
  RETURN_IF_ERROR(BroadcastInputs(call, std::span(inputs.begin(), inputs.size()), out, std::span(args, kInputs)));
  if (out->view.empty()) return call.Nothing();
  args[kInputs] = Out(out);
  double bytes = 0;
  for (const Arg& a : args) bytes += static_cast<double>(out->view.numel() * SizeOf(a.view.dtype));
  const ElementwiseKernel kernel = KernelOf<F, In...>(cost);
  return call.Launch(std::span<const Arg>(args), Cost{static_cast<double>(out->view.numel()), bytes},
                     [f, kernel](const Run& t) -> Status {
                       TensorView in[kInputs];
                       for (size_t i = 0; i < kInputs; ++i) in[i] = t[static_cast<int>(i)];
                       RunElementwise(kernel, std::span(&t[kInputs], 1), std::span<const TensorView>(in, kInputs), &f);
                       return Status();
                     });
}

// "aclnnExp: self has type bool, which is not supported"
inline Status Unsupported(Call& call, DType t) { return call.Invalid("type {} is not supported", Name(t)); }

// One, two or three tensors read in `compute`'s type; `make(TypeTag<T>)` gives the functor. `cost` as in
// ElementwiseKernel: about 1 for arithmetic, 10 for a transcendental.
template <unsigned set, class Make>
Status MapUnary(Call& call, const aclTensor* a, const aclTensor* out, DType compute, Make make, double cost = 1) {
  Status status;
  const bool known = VisitCompute<set>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto f = make(tag);
    using R = decltype(f(T()));
    status = call.RequireCastable(std::is_same_v<R, T> ? compute : kDTypeOf<R>, out, "out");
    if (status.ok()) status = LaunchMap<std::decay_t<decltype(f)>, T>(call, {a}, out, f, cost);
  });
  return known ? status : Unsupported(call, compute);
}
template <unsigned set, class Make>
Status MapBinary(Call& call, const aclTensor* a, const aclTensor* b, const aclTensor* out, DType compute, Make make,
                 double cost = 1) {
  Status status;
  const bool known = VisitCompute<set>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto f = make(tag);
    using R = decltype(f(T(), T()));
    status = call.RequireCastable(std::is_same_v<R, T> ? compute : kDTypeOf<R>, out, "out");
    if (status.ok()) status = LaunchMap<std::decay_t<decltype(f)>, T, T>(call, {a, b}, out, f, cost);
  });
  return known ? status : Unsupported(call, compute);
}
template <unsigned set, class Make>
Status MapTernary(Call& call, const aclTensor* a, const aclTensor* b, const aclTensor* c, const aclTensor* out,
                  DType compute, Make make, double cost = 1) {
  Status status;
  const bool known = VisitCompute<set>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto f = make(tag);
    using R = decltype(f(T(), T(), T()));
    status = call.RequireCastable(std::is_same_v<R, T> ? compute : kDTypeOf<R>, out, "out");
    if (status.ok()) status = LaunchMap<std::decay_t<decltype(f)>, T, T, T>(call, {a, b, c}, out, f, cost);
  });
  return known ? status : Unsupported(call, compute);
}

}  // namespace anycann
