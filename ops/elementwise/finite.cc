// Tests for infinities and NaN, and their replacement.
#include <cmath>
#include <limits>

#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

// x - x is NaN exactly for infinities and NaN.
template <class T>
bool Finite(T x) {
  if constexpr (kIsComplexType<T>)
    return Finite(x.real()) && Finite(x.imag());
  else if constexpr (std::is_floating_point_v<T>)
    return x - x == 0;
  else
    return true;
}

template <class T>
struct IsFiniteOf {
  bool operator()(T x) const { return Finite(x); }
};
template <class T>
struct IsInfOf {
  bool operator()(T x) const {
    if constexpr (kIsComplexType<T>)
      return std::isinf(x.real()) || std::isinf(x.imag());
    else if constexpr (std::is_floating_point_v<T>)
      return std::fabs(x) == std::numeric_limits<T>::infinity();
    else
      return false;
  }
};
template <class T>
struct IsPosInfOf {
  bool operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return x == std::numeric_limits<T>::infinity();
    else
      return false;
  }
};
template <class T>
struct IsNegInfOf {
  bool operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return x == -std::numeric_limits<T>::infinity();
    else
      return false;
  }
};
template <class T>
struct NanToNumOf {
  using Real = typename RealOf<T>::type;
  Real nan, posinf, neginf;
  T operator()(T x) const {
    if constexpr (kIsComplexType<T>)
      return {Replace(x.real()), Replace(x.imag())};
    else if constexpr (std::is_floating_point_v<T>)
      return Replace(x);
    else
      return x;
  }
  Real Replace(Real x) const {
    if constexpr (std::is_floating_point_v<Real>) {
      const Real y = x == std::numeric_limits<Real>::infinity() ? posinf : x;
      return x == -std::numeric_limits<Real>::infinity() ? neginf : x == x ? y : nan;
    } else {
      return x;
    }
  }
};

bool FindIsFinite(DType t, ElementwiseKernel* k) { return FindUnary<IsFiniteOf, kAllTypes>(t, k, 1); }
bool FindIsInf(DType t, ElementwiseKernel* k) { return FindUnary<IsInfOf, kAllTypes>(t, k, 1); }
bool FindIsPosInf(DType t, ElementwiseKernel* k) {
  return FindUnary<IsPosInfOf, kRealTypes | kBoolType>(t, k, 1);
}
bool FindIsNegInf(DType t, ElementwiseKernel* k) {
  return FindUnary<IsNegInfOf, kRealTypes | kBoolType>(t, k, 1);
}

}  // namespace

Status aclnn::IsFinite(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindIsFinite, self, out);
}
Status aclnn::IsInf(Call& call, const aclTensor* x, const aclTensor* out) {
  return UnaryExact(call, FindIsInf, x, out);
}
Status aclnn::IsPosInf(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindIsPosInf, self, out);
}
Status aclnn::IsNegInf(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindIsNegInf, self, out);
}
Status aclnn::NanToNum(Call& call, const aclTensor* self, float nan, float posinf, float neginf,
                       aclTensor* out) {
  return MapUnary<kAllTypes>(call, self, out, self->view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Real = typename RealOf<T>::type;
    if constexpr (std::is_floating_point_v<Real>)
      return NanToNumOf<T>{Real(nan), Real(posinf), Real(neginf)};
    else
      return NanToNumOf<T>{};
  });
}

}  // namespace anycann
