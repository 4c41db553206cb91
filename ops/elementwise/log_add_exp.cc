// log(exp(a) + exp(b)) and its base-2 form, without overflow: the larger operand is taken out.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct LogSumExpBaseE {
  T operator()(T a, T b) const {
    if (a == b && std::isinf(a)) return a;
    return arithmetic::Max(a, b) + std::log1p(std::exp(-std::abs(a - b)));
  }
};
template <class T>
struct LogSumExpBase2 {
  T operator()(T a, T b) const {
    if (a == b && std::isinf(a)) return a;
    constexpr T kLog2E = T(1.44269504088896340735992468100189214);
    return arithmetic::Max(a, b) + std::log1p(std::exp2(-std::abs(a - b))) * kLog2E;
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
