// Map: from a functor on single elements to an operator. The elementwise family's operators are thin over it:
//
//   template <class T> struct Sigmoid { T operator()(T x) const { return 1 / (1 + std::exp(-x)); } };
//   Status aclnn::Sigmoid(Call& call, const aclTensor* self, aclTensor* out) {
//     return MapUnary<kFloatingTypes>(call, self, out, ToFloating(self->view.dtype), [](auto t) {
//       return ::anycann::Sigmoid<typename decltype(t)::type>{};
//     });
//   }
//
// The maker is called with the tag of the compute type and returns the functor, with its attributes converted
// to that type. The result type is the functor's.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <span>
#include <type_traits>
#include <utility>

#include "ops/call.h"
#include "ops/elementwise/engine.h"
#include "ops/promote.h"

namespace anycann {

// Sets of compute types.
enum TypeSet : unsigned {
  kFloatTypes = 1,  // float, double
  kIntTypes = 2,    // the eight integers
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

// The type in which a loop loads an element: bools as bytes, for g++ 12 does not vectorise loads of bool.
template <class T>
using Loaded = std::conditional_t<std::is_same_v<T, bool>, uint8_t, T>;

// r[i] = f(p[i]...). A functor that is fast only for ordinary arguments has also bool Hard(In...) const, true
// for the others, and R Exact(In...) const: pieces that hold a hard argument are computed by Exact.
template <class F, class R, class... In>
void MapLoop(const F& f, R* r, int64_t n, const In*... p) {
  if constexpr (requires { f.Hard(*p...); }) {
    constexpr int64_t kPiece = 512;
    for (int64_t start = 0; start < n; start += kPiece) {
      const int64_t end = std::min(n, start + kPiece);
      int hard = 0;
      for (int64_t i = start; i < end; ++i) hard |= f.Hard(p[i]...) ? 1 : 0;
      if (hard) {
        for (int64_t i = start; i < end; ++i) r[i] = f.Exact(p[i]...);
      } else {
#pragma GCC ivdep
        for (int64_t i = start; i < end; ++i) r[i] = f(p[i]...);
      }
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) r[i] = f(p[i]...);
  }
}

template <class F, class R, class... In>
void MapLoop(const F& f, R* r, R* s, int64_t n, const In*... p) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const std::array<R, 2> x = f(p[i]...);
    r[i] = x[0];
    s[i] = x[1];
  }
}

// A functor's result: one value, or a std::array of two, one for each output.
template <class R>
struct ResultOf {
  using type = R;
  static constexpr int kCount = 1;
};
template <class R, size_t n>
struct ResultOf<std::array<R, n>> {
  using type = R;
  static constexpr int kCount = static_cast<int>(n);
};

// The engine's description of a functor R operator()(In...) const or std::array<R, 2> operator()(In...)
// const.
template <class F, class... In>
ElementwiseKernel KernelOf(double cost) {
  using Result = decltype(std::declval<const F&>()(std::declval<In>()...));
  using R = typename ResultOf<Result>::type;
  ElementwiseKernel k;
  k.inputs = sizeof...(In);
  k.outputs = ResultOf<Result>::kCount;
  for (int i = 0; i < k.outputs; ++i) k.out_types[i] = kDTypeOf<R>;
  const DType types[] = {kDTypeOf<In>...};
  for (size_t i = 0; i < sizeof...(In); ++i) k.in_types[i] = types[i];
  k.cost = cost;
  k.loop = [](void* const* out, const void* const* in, int64_t n, const void* params) {
    const F f = *static_cast<const F*>(params);
    [&]<size_t... I>(std::index_sequence<I...>) {
      if constexpr (std::is_same_v<Result, std::array<R, 2>>)
        MapLoop(f, static_cast<R*>(out[0]), static_cast<R*>(out[1]), n,
                static_cast<const Loaded<In>*>(in[I])...);
      else
        MapLoop(f, static_cast<R*>(out[0]), n, static_cast<const Loaded<In>*>(in[I])...);
    }
    (std::index_sequence_for<In...>{});
  };
  return k;
}

// Broadcasts the inputs to out's shape, which must be exactly their broadcast. `views` gets the expanded
// inputs.
ANYCANN_API Status BroadcastInputs(Call& call, std::span<const aclTensor* const> inputs, const aclTensor* out,
                                   std::span<Arg> args);

// A functor's bytes, carried by a Plan.
struct ElementwiseParams {
  static constexpr size_t kSize = 64;
  alignas(16) unsigned char bytes[kSize] = {};
  ElementwiseParams() = default;
  template <class F>
  explicit ElementwiseParams(const F& f) {
    static_assert(sizeof(F) <= kSize && alignof(F) <= 16 && std::is_trivially_copyable_v<F>);
    std::memcpy(bytes, &f, sizeof(F));
  }
};

// Launches `kernel` over operands whose views all have one shape: the inputs, then the outputs.
ANYCANN_API Status LaunchElementwise(Call& call, std::span<const Arg> operands,
                                     const ElementwiseKernel& kernel, const ElementwiseParams& params);

// Launches `kernel` over inputs, broadcast to the outputs' shape. All outputs have outputs[0]'s shape, which
// the caller has checked for those after the first.
ANYCANN_API Status LaunchElementwise(Call& call, std::span<const aclTensor* const> inputs,
                                     std::span<const aclTensor* const> outputs,
                                     const ElementwiseKernel& kernel, const ElementwiseParams& params);

// Launches functor f over inputs (broadcast to out's shape), each read as type In.
template <class F, class... In>
Status LaunchMap(Call& call, std::initializer_list<const aclTensor*> inputs, const aclTensor* out, const F& f,
                 double cost) {
  const aclTensor* outputs[] = {out};
  return LaunchElementwise(call, std::span(inputs.begin(), inputs.size()), outputs, KernelOf<F, In...>(cost),
                           ElementwiseParams(f));
}

// "aclnnExp: self has type bool, which is not supported"
inline Status Unsupported(Call& call, DType t) { return call.Invalid("type {} is not supported", Name(t)); }

// One, two or three tensors read in `compute`'s type; `make(TypeTag<T>)` gives the functor. `cost` as in
// ElementwiseKernel: about 1 for arithmetic, 10 for a transcendental.
template <unsigned set, class Make>
Status MapUnary(Call& call, const aclTensor* a, const aclTensor* out, DType compute, Make make,
                double cost = 1) {
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
Status MapBinary(Call& call, const aclTensor* a, const aclTensor* b, const aclTensor* out, DType compute,
                 Make make, double cost = 1) {
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
Status MapTernary(Call& call, const aclTensor* a, const aclTensor* b, const aclTensor* c,
                  const aclTensor* out, DType compute, Make make, double cost = 1) {
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
