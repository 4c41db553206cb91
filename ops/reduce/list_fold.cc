// Element by element over a list of tensors: sum, maximum, minimum.
#include "aclnn_ops.h"
#include "ops/elementwise/arithmetic.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"
#include "ops/reduce/extremum.h"

namespace anycann {
namespace {

struct Plus {
  template <class T>
  T operator()(T a, T b) const {
    return arithmetic::Add(a, b);
  }
};
template <class Order>
struct Best {
  template <class T>
  T operator()(T a, T b) const {
    return Order::Keeps(a, b) ? a : b;
  }
};

template <class F, class T>
struct Joined {
  T operator()(T a, T b) const { return static_cast<T>(F()(a, b)); }
};

// Adds up in the compute type and rounds once.
template <class F, class T>
Status RunFold(const Run& t) {
  Dense out(t[0], kDTypeOf<T>, Dense::kWrite);
  TensorView view;
  BroadcastTo(t[1], t[0].dims, t[0].rank, &view);
  CopyCast(out.view(), view);
  const Joined<F, T> join;
  for (int i = 2; i < t.size(); ++i) {
    BroadcastTo(t[i], t[0].dims, t[0].rank, &view);
    RunElementwise(KernelOf<Joined<F, T>, T, T>(1), {out.view()}, {out.view(), view}, &join);
  }
  out.Commit();
  return Status();
}

template <class F, unsigned types>
Status Fold(Call& call, const aclTensorList* tensors, aclTensor* out) {
  if (tensors->size == 0) return call.Invalid("tensors is empty, expected at least one tensor");
  std::vector<Arg> args{Out(out)};
  DType type = DType::kBool;
  for (const aclTensor* t : *tensors) {
    if (t == nullptr) return call.Invalid("tensors holds a null tensor");
    TensorView spread;
    if (!BroadcastTo(t->view, out->view.dims, out->view.rank, &spread))
      return call.Invalid("a tensor has shape {}, which can't be broadcast to out's, {}",
                          ShapeString(t->view), ShapeString(out->view));
    if (t->view.data == out->view.data && args.size() > 1 && !out->view.empty())
      return call.Invalid("out is also a tensor after the first of the list, expected memory of its own");
    type = Promote(type, t->view.dtype);
    args.push_back(In(t));
  }
  RETURN_IF_ERROR(call.RequireCastable(type, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const double n = static_cast<double>(out->view.numel()) * static_cast<double>(tensors->size);
  Status status;
  if (!VisitCompute<types>(type, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch(std::span<const Arg>(args), Cost{n, n * sizeof(T)},
                             [](const Run& t) { return RunFold<F, T>(t); });
      }))
    return Unsupported(call, type);
  return status;
}

}  // namespace

Status aclnn::Sum(Call& call, const aclTensorList* tensors, aclTensor* out) {
  return Fold<Plus, kNumberTypes>(call, tensors, out);
}
Status aclnn::MaxN(Call& call, const aclTensorList* tensors, aclTensor* out) {
  return Fold<Best<Greater>, kRealTypes>(call, tensors, out);
}
Status aclnn::MinN(Call& call, const aclTensorList* tensors, aclTensor* out) {
  return Fold<Best<Less>, kRealTypes>(call, tensors, out);
}

}  // namespace anycann
