// log(exp(a) + exp(b)) and its base-2 form, without overflow: the larger operand is taken out.
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/elementwise/arithmetic.h"
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
template <class T>
struct LogSumExpBase2 {
  T operator()(T a, T b) const {
    constexpr T kLog2E = T(1.44269504088896340735992468100189214);
    return Combine(a, b, math::Log1p(math::Exp2(-std::abs(a - b))) * kLog2E);
  }
};

template <template <class> class F>
Status Tensors(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  return MapBinary<kFloatTypes>(
      call, self, other, out, ToFloating(Promote(self->view.dtype, other->view.dtype)),
      [](auto tag) { return F<typename decltype(tag)::type>{}; }, 30);
}

}  // namespace

Status aclnn::LogAddExp(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<LogSumExpBaseE>(call, self, other, out);
}
Status aclnn::LogAddExp2(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Tensors<LogSumExpBase2>(call, self, other, out);
}

}  // namespace anycann
