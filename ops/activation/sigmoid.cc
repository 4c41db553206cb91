// The sigmoid and what is made of it: silu, swish, log sigmoid, logit; and the gradient of tanh.
#include "aclnn_ops.h"
#include "ops/elementwise/complex_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
T Conjugate(T x) {
  if constexpr (kIsComplexType<T>)
    return std::conj(x);
  else
    return x;
}

template <class T>
struct SigmoidOf {
  T operator()(T x) const { return math::Sigmoid(x); }
};
template <class T>
struct SigmoidGrad {
  T operator()(T g, T y) const { return g * Conjugate((T(1) - y) * y); }
};
template <class T>
struct TanhGrad {
  T operator()(T g, T y) const { return g * Conjugate(T(1) - y * y); }
};
template <class T>
struct SiluOf {
  T operator()(T x) const { return x * math::Sigmoid(x); }
};
template <class T>
struct SiluGrad {
  T operator()(T g, T x) const {
    const T s = math::Sigmoid(x);
    return g * Conjugate(s * (T(1) + x * (T(1) - s)));
  }
};
template <class T>
struct SwishOf {
  T beta;
  T operator()(T x) const { return x * math::Sigmoid(beta * x); }
};
template <class T>
struct SwishGrad {
  T beta;
  T operator()(T g, T x) const {
    const T s = math::Sigmoid(beta * x);
    return g * s * (T(1) + beta * x * (T(1) - s));
  }
};
template <class T>
struct LogSigmoidOf {
  T operator()(T x) const { return (x < 0 ? x : x == x ? T(0) : x) - math::Log1p(math::Exp(-std::fabs(x))); }
};
template <class T>
struct LogSigmoidWithBuffer {
  std::array<T, 2> operator()(T x) const { return {LogSigmoidOf<T>{}(x), math::Exp(-std::fabs(x))}; }
};
template <class T>
struct LogSigmoidGrad {
  T operator()(T g, T x) const { return g * math::Sigmoid(-x); }
};
template <class T>
struct LogitOf {
  T low, high;
  T operator()(T x) const {
    const T y = x < low ? low : x > high ? high : x;  // in this order: low may exceed high
    return math::Log(y / (1 - y));
  }
};
template <class T>
struct LogitGradOf {
  T low, high, outside;
  T operator()(T x, T g) const {
    const T bend = x * (1 - x);
    return x < low || x > high ? outside : g / (bend == 0 ? T(0) : bend);  // +inf at -0 too
  }
};

bool FindSilu(DType t, ElementwiseKernel* k) { return FindUnary<SiluOf, kFloatingTypes>(t, k, 3); }
bool FindLogSigmoid(DType t, ElementwiseKernel* k) { return FindUnary<LogSigmoidOf, kFloatTypes>(t, k, 8); }

template <template <class> class F, unsigned set>
Status Gradient(Call& call, const aclTensor* g, const aclTensor* x, const aclTensor* out, double cost) {
  return MapBinary<set>(
      call, g, x, out, Promote(g->view.dtype, x->view.dtype),
      [](auto tag) { return F<typename decltype(tag)::type>{}; }, cost);
}

// eps below 0 stands for none: the ends are 0 and 1.
constexpr double kNoClamp = std::numeric_limits<double>::infinity();

}  // namespace

bool FindSigmoid(DType t, ElementwiseKernel* k) { return FindUnary<SigmoidOf, kFloatingTypes>(t, k, 3); }

Status aclnn::Sigmoid(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryFloating(call, FindSigmoid, self, out);
}
Status aclnn::SigmoidBackward(Call& call, const aclTensor* gradOutput, const aclTensor* output,
                              aclTensor* gradInput) {
  return Gradient<SigmoidGrad, kFloatingTypes>(call, gradOutput, output, gradInput, 1);
}
Status aclnn::TanhBackward(Call& call, const aclTensor* gradOutput, const aclTensor* output,
                           aclTensor* gradInput) {
  return Gradient<TanhGrad, kFloatingTypes>(call, gradOutput, output, gradInput, 1);
}

Status aclnn::Silu(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindSilu, self, out);
}
Status aclnn::SiluBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                           aclTensor* gradInput) {
  return Gradient<SiluGrad, kFloatingTypes>(call, gradOutput, self, gradInput, 4);
}

Status aclnn::Swish(Call& call, const aclTensor* self, const aclScalar* betaOptional, aclTensor* out) {
  const double beta = betaOptional ? betaOptional->value.ToDouble() : 1;
  return MapUnary<kFloatTypes>(
      call, self, out, self->view.dtype,
      [beta](auto tag) {
        using T = typename decltype(tag)::type;
        return SwishOf<T>{T(beta)};
      },
      3);
}
Status aclnn::SwishBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                            const aclScalar* betaOptional, aclTensor* gradInput) {
  const double beta = betaOptional ? betaOptional->value.ToDouble() : 1;
  return MapBinary<kFloatTypes>(
      call, gradOutput, self, gradInput, Promote(gradOutput->view.dtype, self->view.dtype),
      [beta](auto tag) {
        using T = typename decltype(tag)::type;
        return SwishGrad<T>{T(beta)};
      },
      4);
}

Status aclnn::LogSigmoid(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindLogSigmoid, self, out);
}
// buffer: e^-|x| where the client gave it room, nothing where it is empty. The backward operator doesn't need
// it.
Status aclnn::LogSigmoidForward(Call& call, const aclTensor* self, aclTensor* out, aclTensor* buffer) {
  if (buffer->view.empty()) return UnaryExact(call, FindLogSigmoid, self, out);
  RETURN_IF_ERROR(call.RequireSameShape(buffer, "buffer", self, "self"));
  ElementwiseKernel kernel;
  if (!FindUnary<LogSigmoidWithBuffer, kFloatTypes>(self->view.dtype, &kernel, 8))
    return Unsupported(call, self->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, buffer, "buffer"));
  const aclTensor* inputs[] = {self};
  const aclTensor* outputs[] = {out, buffer};
  return LaunchElementwise(call, inputs, outputs, kernel, ElementwiseParams());
}
Status aclnn::LogSigmoidBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                 const aclTensor*, aclTensor* gradInput) {
  return Gradient<LogSigmoidGrad, kFloatTypes>(call, gradOutput, self, gradInput, 4);
}

Status aclnn::Logit(Call& call, const aclTensor* input, double eps, const aclTensor* out) {
  return MapUnary<kFloatTypes>(
      call, input, out, ToFloating(input->view.dtype),
      [eps](auto tag) {
        using T = typename decltype(tag)::type;
        return eps < 0 ? LogitOf<T>{T(-kNoClamp), T(kNoClamp)} : LogitOf<T>{T(eps), T(1) - T(eps)};
      },
      4);
}
Status aclnn::LogitGrad(Call& call, const aclTensor* x, const aclTensor* dy, double eps,
                        const aclTensor* out) {
  return MapBinary<kFloatTypes>(call, x, dy, out, Promote(x->view.dtype, dy->view.dtype), [eps](auto tag) {
    using T = typename decltype(tag)::type;
    return eps < 0 ? LogitGradOf<T>{T(0), T(1), std::numeric_limits<T>::quiet_NaN()}
                   : LogitGradOf<T>{T(eps), T(1) - T(eps), T(0)};
  });
}

}  // namespace anycann
