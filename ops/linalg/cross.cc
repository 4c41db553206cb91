// The cross product of three-dimensional vectors along a dimension.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"

namespace anycann {
namespace {

template <class T>
struct Minor {
  T operator()(T a, T b, T c, T d) const {
    return arithmetic::Sub(arithmetic::Mul(a, b), arithmetic::Mul(c, d));
  }
};

}  // namespace

Status aclnn::LinalgCross(Call& call, const aclTensor* self, const aclTensor* other, int64_t dim,
                          aclTensor* out) {
  Arg args[3];
  const aclTensor* inputs[] = {self, other};
  RETURN_IF_ERROR(BroadcastInputs(call, inputs, out, args));
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, out->view.rank, "dim", &d));
  if (out->view.rank == 0 || out->view.dims[d] != 3)
    return call.Invalid("out has shape {}, expected 3 elements in dimension {}", ShapeString(out->view), d);
  if (out->view.empty()) return call.Nothing();
  args[2] = Out(out);
  Status status;
  const DType compute = Promote(self->view.dtype, other->view.dtype);
  RETURN_IF_ERROR(call.RequireCastable(compute, out, "out"));
  const bool known = VisitCompute<kNumberTypes>(compute, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ElementwiseKernel k = KernelOf<Minor<T>, T, T, T, T>(2);
    const double n = static_cast<double>(out->view.numel());
    status = call.Launch(
        std::span<const Arg>(args), Cost{3 * n, 3 * n * static_cast<double>(SizeOf(out->view.dtype))},
        [k, d](const Run& t) -> Status {
          const Minor<T> f;
          for (int i = 0; i < 3; ++i) {
            const int j = (i + 1) % 3, l = (i + 2) % 3;
            RunElementwise(k, {t[2].Select(d, i)},
                           {t[0].Select(d, j), t[1].Select(d, l), t[0].Select(d, l), t[1].Select(d, j)}, &f);
          }
          return Status();
        });
  });
  return known ? status : Unsupported(call, compute);
}

}  // namespace anycann
