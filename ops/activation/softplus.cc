// Softplus and mish.
#include "aclnn_ops.h"
#include "base/vector_math.h"
#include "ops/elementwise/unary.h"

namespace anycann {
namespace {

template <class T>
struct SoftplusOf {
  T beta, threshold;
  T operator()(T x) const {
    const T v = x * beta;
    return v > threshold ? x : math::Log1p(math::Exp(v)) / beta;
  }
};
template <class T>
struct SoftplusGrad {
  T beta, threshold;
  T operator()(T g, T x) const {
    const T v = x * beta;
    return v > threshold ? g : g * math::Sigmoid(v);
  }
};

// tanh(log(1 + e^x)) = n / (n + 2) with n = e^x (e^x + 2); from x = 20 on it is 1 in any type.
template <class T>
struct MishParts {
  T e, n, r;  // e^x, n, 1 / (n + 2)
  explicit MishParts(T x) {
    e = math::Exp(x > 20 ? T(20) : x);
    n = e * (e + 2);
    r = 1 / (n + 2);
  }
};
template <class T>
struct MishOf {
  T operator()(T x) const {
    const MishParts<T> p(x);
    return x * (p.n * p.r);
  }
};
template <class T>
struct MishGrad {
  T operator()(T g, T x) const {
    const MishParts<T> p(x);
    const T slope = x > 20 ? T(0) : x * (p.e / (1 + p.e)) * (4 * (p.n + 1) * p.r * p.r);
    return g * (p.n * p.r + slope);
  }
};

bool FindMish(DType t, ElementwiseKernel* k) { return FindUnary<MishOf, kFloatTypes>(t, k, 4); }

}  // namespace

Status aclnn::Softplus(Call& call, const aclTensor* self, const aclScalar* beta, const aclScalar* threshold,
                       aclTensor* out) {
  return MapUnary<kFloatTypes>(
      call, self, out, self->view.dtype,
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return SoftplusOf<T>{beta->value.To<T>(), threshold->value.To<T>()};
      },
      8);
}
Status aclnn::SoftplusBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                               const aclScalar* beta, const aclScalar* threshold, aclTensor* gradInput) {
  return MapBinary<kFloatTypes>(
      call, gradOutput, self, gradInput, Promote(gradOutput->view.dtype, self->view.dtype),
      [&](auto tag) {
        using T = typename decltype(tag)::type;
        return SoftplusGrad<T>{beta->value.To<T>(), threshold->value.To<T>()};
      },
      4);
}

Status aclnn::Mish(Call& call, const aclTensor* self, aclTensor* out) {
  return UnaryExact(call, FindMish, self, out);
}
Status aclnn::MishBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                           aclTensor* gradInput) {
  return MapBinary<kFloatTypes>(
      call, gradOutput, self, gradInput, Promote(gradOutput->view.dtype, self->view.dtype),
      [](auto tag) { return MishGrad<typename decltype(tag)::type>{}; }, 5);
}

}  // namespace anycann
