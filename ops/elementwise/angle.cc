// Between Cartesian and polar coordinates: atan2, and complex numbers from magnitude and angle.
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct Atan2Of {
  T operator()(T y, T x) const { return math::Atan2(y, x); }
};
template <class T>
struct PolarOf {
  std::complex<T> operator()(T magnitude, T angle) const {
    if (std::abs(angle) > math::kTrigonometricLimit) [[unlikely]]
      return {magnitude * std::cos(angle), magnitude * std::sin(angle)};
    return {magnitude * math::Cos(angle), magnitude * math::Sin(angle)};
  }
};

Status Angle(Call& call, const aclTensor* self, const aclTensor* other, const aclTensor* out) {
  return MapBinary<kFloatTypes>(
      call, self, other, out, ToFloating(Promote(self->view.dtype, other->view.dtype)),
      [](auto tag) { return Atan2Of<typename decltype(tag)::type>{}; }, 30);
}

}  // namespace

Status aclnn::Atan2(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return Angle(call, self, other, out);
}
Status aclnn::InplaceAtan2(Call& call, aclTensor* selfRef, aclTensor* other) {
  return Angle(call, selfRef, other, selfRef);
}
Status aclnn::Polar(Call& call, const aclTensor* input, const aclTensor* angle, aclTensor* out) {
  return MapBinary<kFloatTypes>(
      call, input, angle, out, Promote(input->view.dtype, angle->view.dtype),
      [](auto tag) { return PolarOf<typename decltype(tag)::type>{}; }, 30);
}

}  // namespace anycann
