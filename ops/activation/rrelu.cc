// Rrelu: in training the slope of each negative element is drawn; otherwise it is the middle of the range.
#include "aclnn_ops.h"
#include "ops/random/draw.h"

namespace anycann {
namespace {

template <class T>
struct Slope {
  T low, width;
  T operator()(uint32_t word, T x) const {
    return x <= 0 ? low + width * static_cast<T>(static_cast<int32_t>(word >> 8)) * T(0x1p-24) : T(1);
  }
};
template <class T>
struct Times {
  T operator()(T x, T slope) const { return x * slope; }
};
template <class T>
struct Leaky {
  T slope;
  T operator()(T x) const { return x <= 0 ? x * slope : x; }
};

// Writes the slopes to noise (1 for the elements that pass) and self times them to out.
template <class T>
Status Draw(Call& call, const aclTensor* self, const aclTensor* noise, double low, double high, int64_t seed,
            int64_t offset, const aclTensor* out) {
  const Cost cost{10.0 * static_cast<double>(self->view.numel()),
                  3.0 * static_cast<double>(self->view.nbytes())};
  return call.Launch(
      {In(self), Out(noise), Out(out)}, cost,
      [f = Slope<T>{T(low), T(high - low)}, source = SeedingAtRun{seed, offset, -1}](const Run& t) -> Status {
        const Philox philox = source.Get(t);
        RunDrawn(RandomKernelOf<Slope<T>, uint32_t, T>(4), t[1], {&t[0], 1}, &f,
                 [&](int64_t first, int64_t n, void* values) { DrawWords(philox, first, n, values); });
        const Times<T> times;
        RunElementwise(KernelOf<Times<T>, T, T>(1), {t[2]}, {t[0], t[1]}, &times);
        return Status();
      });
}

}  // namespace

Status aclnn::RReluWithNoise(Call& call, const aclTensor* self, const aclTensor* noise,
                             const aclScalar* lower, const aclScalar* upper, bool training, int64_t seed,
                             int64_t offset, aclTensor* out) {
  const double low = lower->value.ToDouble(), high = upper->value.ToDouble();
  if (!(low <= high))
    return call.Invalid("lower is {} and upper {}, expected lower not above upper", low, high);
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  if (!training)
    return MapUnary<kFloatTypes>(call, self, out, self->view.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return Leaky<T>{T((low + high) / 2)};
    });
  RETURN_IF_ERROR(call.RequireSameShape(noise, "noise", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, noise, "noise"));
  if (self->view.empty()) return call.Nothing();
  Status status;
  const bool known = VisitCompute<kFloatTypes>(self->view.dtype, [&](auto tag) {
    status = Draw<typename decltype(tag)::type>(call, self, noise, low, high, seed, offset, out);
  });
  return known ? status : Unsupported(call, self->view.dtype);
}

Status aclnn::InplaceRReluWithNoise(Call& call, const aclTensor* self, const aclTensor* noise,
                                    const aclScalar* lower, const aclScalar* upper, bool training,
                                    int64_t seed, int64_t offset) {
  return RReluWithNoise(call, self, noise, lower, upper, training, seed, offset,
                        const_cast<aclTensor*>(self));
}

}  // namespace anycann
