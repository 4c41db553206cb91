// Greatest common divisor, never negative; gcd(0, 0) is 0.
#include <numeric>

#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct GcdOf {
  T operator()(T a, T b) const {
    // In the unsigned type: the smallest integer has no negative.
    using U = std::make_unsigned_t<T>;
    const U x = static_cast<U>(a < 0 ? arithmetic::Sub(T(0), a) : a);
    const U y = static_cast<U>(b < 0 ? arithmetic::Sub(T(0), b) : b);
    return static_cast<T>(std::gcd(x, y));
  }
};

}  // namespace

Status aclnn::Gcd(Call& call, const aclTensor* self, const aclTensor* other, aclTensor* out) {
  return MapBinary<kIntTypes>(
      call, self, other, out, Promote(self->view.dtype, other->view.dtype),
      [](auto tag) { return GcdOf<typename decltype(tag)::type>{}; }, 100);
}

}  // namespace anycann
