// log(exp(a) + exp(b)) and its base-2 form, without overflow: the larger operand is taken out.
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

// max(a, b) + rest, but a where both are the same infinity: their difference is NaN.
template <class T>
T Combine(T a, T b, T rest) {
  const T r = arithmetic::Max(a, b) + rest;
  return (a == b) & (std::abs(a) == std::numeric_limits<T>::infinity()) ? a : r;
}

template <class T>
struct LogSumExpBaseE {
  T operator()(T a, T b) const { return Combine(a, b, math::Log1p(math::Exp(-std::abs(a - b)))); }
};
// The operand with the larger real part is taken out.
template <class T>
struct LogSumExpBaseE<std::complex<T>> {
  std::complex<T> operator()(std::complex<T> a, std::complex<T> b) const {
    const std::complex<T> max = a.real() < b.real() ? b : a, min = a.real() < b.real() ? a : b;
    for (T part : {a.real(), a.imag(), b.real(), b.imag()})
      if (std::isnan(part)) return {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::quiet_NaN()};
    if (std::isinf(max.real()) && max.real() == min.real())
      return max.real() < 0 ? min : std::log(std::exp(min) + std::exp(max));
    return max + math::Log1p(std::exp(min - max));
  }
};
template <class T>
struct LogSumExpBase2 {
  T operator()(T a, T b) const {
    constexpr T kLog2E = T(1.44269504088896340735992468100189214);
    return Combine(a, b, math::Log1p(math::Exp2(-std::abs(a - b))) * kLog2E);
  }
};

template <template <class> class F, int set>
Status Tensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  return MapBinary<set>(
      call, self, other, out, ToFloating(Promote(self->view.dtype, other->view.dtype)),
      [](auto tag) { return F<typename decltype(tag)::type>{}; }, 30);
}

}  // namespace

Status aclnn::LogAddExp(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<LogSumExpBaseE, kFloatingTypes>(call, self, other, out);
}
Status aclnn::LogAddExp2(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<LogSumExpBase2, kFloatTypes>(call, self, other, out);
}

}  // namespace anycann
