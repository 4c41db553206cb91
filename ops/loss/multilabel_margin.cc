// Multi-label margin: every target class should score higher by 1 than every other class. A row of targets
// ends at -1.
#include "aclnn_ops.h"
#include "ops/elementwise/map.h"
#include "ops/loss/class_positions.h"
#include "ops/loss/mapped_sum.h"

namespace anycann {
namespace {

// in rows of `classes`; is_target gets 0 or 1 per class.
template <class T>
double LossOfRow(const T* x, const int64_t* target, int64_t classes, T* is_target) {
  for (int64_t c = 0; c < classes; ++c) is_target[c] = 0;
  int64_t count = 0;
  while (count < classes && target[count] >= 0) is_target[target[count++]] = 1;
  double sum = 0;
  for (int64_t k = 0; k < count; ++k) {
    const T own = x[target[k]];
    for (int64_t c = 0; c < classes; ++c)
      if (is_target[c] == 0) sum += std::max(T(0), 1 - own + x[c]);
  }
  return sum / static_cast<double>(classes);
}

// t: scores, targets, loss, is_target
template <class T>
Status RunMargin(const Run& t, Reduction reduction) {
  const Dense x(t[0], kDTypeOf<T>, Dense::kRead), targets(t[1], DType::kInt64, Dense::kRead);
  Dense is_target(t[3], kDTypeOf<T>, Dense::kWrite);
  const int64_t classes = t[0].rank == 0 ? 1 : t[0].dims[t[0].rank - 1],
                rows = classes ? t[0].numel() / classes : 0;
  const int64_t* target = targets.ptr<int64_t>();
  Buffer<double> losses = NewBuffer<double>(rows);
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = r * classes; i < (r + 1) * classes && target[i] != -1; ++i)
      if (target[i] < 0 || target[i] >= classes)
        return Error(kParamInvalid,
                     "{}: target is {} at position {}, expected a class in [0,{}) or -1 for the end",
                     t.plan().name, target[i], i, classes);
    losses[r] =
        LossOfRow(x.ptr<T>() + r * classes, target + r * classes, classes, is_target.ptr<T>() + r * classes);
    sum += losses[r];
  }
  is_target.Commit();
  if (reduction == Reduction::kNone)
    CopyCast(t[2], TensorView::Contiguous(losses.get(), DType::kDouble, t[2].dims, t[2].rank));
  else
    StoreAs<double>(t[2], 0, reduction == Reduction::kMean ? sum / static_cast<double>(rows) : sum);
  return Status();
}

}  // namespace

Status aclnn::MultilabelMarginLoss(Call& call, const aclTensor* self, const aclTensor* target,
                                   int64_t reduction, aclTensor* out, aclTensor* isTarget) {
  Reduction r;
  RETURN_IF_ERROR(ToReduction(call, reduction, &r));
  RETURN_IF_ERROR(call.RequireRank(self, "self", 0, 2));
  RETURN_IF_ERROR(call.RequireSameShape(target, "target", self, "self"));
  RETURN_IF_ERROR(call.RequireSameShape(isTarget, "isTarget", self, "self"));
  const int64_t rows = self->view.rank == 2 ? self->view.dims[0] : 1,
                results = r == Reduction::kNone ? rows : 1;
  if (out->view.numel() != results)
    return call.Invalid("out has shape {}, expected {} elements", ShapeString(out->view), results);
  if (!IsInteger(target->view.dtype))
    return call.Invalid("target has type {}, expected an integer type", Name(target->view.dtype));
  const double n = static_cast<double>(self->view.numel());
  Status status;
  if (!VisitCompute<kFloatTypes>(self->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(self), In(target), Out(out), Out(isTarget)}, Cost{10 * n, 16 * n},
                             [r](const Run& t) { return RunMargin<T>(t, r); });
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace anycann
