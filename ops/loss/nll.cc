// Negative log-likelihood of a class, with class weights and an ignored class, forward and backward.
#include <optional>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/elementwise/map.h"
#include "ops/loss/class_positions.h"
#include "ops/loss/mapped_sum.h"

namespace anycann {

Status CheckClasses(const Call& call, const aclTensor* self, const aclTensor* target,
                    const aclTensor* weight) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, kMaxRank));
  const TensorView& v = self->view;
  const int c = ClassDim(v);
  int64_t dims[kMaxRank];
  int rank = 0;
  for (int i = 0; i < v.rank; ++i)
    if (i != c) dims[rank++] = v.dims[i];
  // A single row of scores may come with a target of shape [] or [1].
  if (!(v.rank == 1 && target->view.numel() == 1))
    RETURN_IF_ERROR(call.RequireShape(target, "target", dims, rank));
  if (!IsInteger(target->view.dtype))
    return call.Invalid("target has type {}, expected an integer type", Name(target->view.dtype));
  if (weight) RETURN_IF_ERROR(call.RequireShape(weight, "weight", &v.dims[c], 1));
  return Status();
}

namespace {

constexpr int64_t kPiece = 16384;  // targets whose sum one thread makes

struct Classes {
  int64_t ignored;
  Reduction reduction;
  bool weighted;
};

template <class T>
Status Forward(const Run& t, const Classes& p) {
  const TensorView &scores = t[0], &out = t[3], &total = t[4];
  const int64_t classes = scores.dims[ClassDim(scores)], stride = scores.strides[ClassDim(scores)];
  const Dense targets(t[1], DType::kInt64, Dense::kRead);
  std::optional<Dense> weights;
  if (p.weighted) weights.emplace(t[2], kDTypeOf<T>, Dense::kRead);
  const int64_t *target = targets.ptr<int64_t>(), n = t[1].numel(), pieces = (n + kPiece - 1) / kPiece;
  const T* weight = p.weighted ? weights->ptr<T>() : nullptr;
  const bool each = p.reduction == Reduction::kNone;
  Buffer<T> values = NewBuffer<T>(each ? n : 0);
  Buffer<double> sums = NewBuffer<double>(2 * pieces);
  BadTarget bad;
  ParallelFor(pieces, 1, [&](int64_t begin, int64_t end) {
    Walk<1> walk = WalkScores(scores);
    walk.Seek(begin * kPiece);
    for (int64_t piece = begin; piece < end; ++piece) {
      double sum = 0, weight_sum = 0;
      for (int64_t i = piece * kPiece; i < std::min(n, (piece + 1) * kPiece); ++i, walk.Next()) {
        const int64_t c = target[i];
        if (each) values[i] = 0;
        if (c == p.ignored) continue;
        if (c < 0 || c >= classes) {
          bad.Set(i);
          continue;
        }
        const T w = weight ? weight[c] : T(1), loss = -LoadAs<T>(scores, walk.offset[0] + c * stride) * w;
        if (each) values[i] = loss;
        sum += loss;
        weight_sum += w;
      }
      sums[2 * piece] = sum;
      sums[2 * piece + 1] = weight_sum;
    }
  });
  RETURN_IF_ERROR(bad.ToStatus(t.plan().name, target, classes, p.ignored));
  double sum = 0, weight_sum = 0;
  for (int64_t i = 0; i < pieces; ++i) sum += sums[2 * i], weight_sum += sums[2 * i + 1];
  if (each)
    CopyCast(out, TensorView::Contiguous(values.get(), kDTypeOf<T>, out.dims, out.rank));
  else
    StoreAs<double>(out, 0, p.reduction == Reduction::kMean ? sum / weight_sum : sum);
  StoreAs<double>(total, 0, weight_sum);
  return Status();
}

template <class T>
Status Backward(const Run& t, const Classes& p) {
  const TensorView &grad = t[0], &total = t[3], &out = t[4];
  const int64_t classes = out.dims[ClassDim(out)], stride = out.strides[ClassDim(out)];
  const Dense targets(t[1], DType::kInt64, Dense::kRead);
  std::optional<Dense> weights;
  if (p.weighted) weights.emplace(t[2], kDTypeOf<T>, Dense::kRead);
  const Dense grads(grad, kDTypeOf<T>, Dense::kRead);
  const int64_t *target = targets.ptr<int64_t>(), n = t[1].numel();
  const T *weight = p.weighted ? weights->ptr<T>() : nullptr, *g = grads.ptr<T>();
  const int64_t step = grad.numel() == 1 ? 0 : 1;
  const T scale = p.reduction == Reduction::kMean ? 1 / LoadAs<T>(total, 0) : T(1);
  alignas(16) const char zero[16] = {};
  Fill(out, zero);
  BadTarget bad;
  ParallelFor(n, 4096, [&](int64_t begin, int64_t end) {
    Walk<1> walk = WalkScores(out);
    walk.Seek(begin);
    for (int64_t i = begin; i < end; ++i, walk.Next()) {
      const int64_t c = target[i];
      if (c == p.ignored) continue;
      if (c < 0 || c >= classes)
        bad.Set(i);
      else
        StoreAs<T>(out, walk.offset[0] + c * stride, -(weight ? weight[c] : T(1)) * (g[i * step] * scale));
    }
  });
  return bad.ToStatus(t.plan().name, target, classes, p.ignored);
}

Status Nll(Call& call, const aclTensor* self, const aclTensor* target, const aclTensor* weight,
           int64_t reduction, int64_t ignored, aclTensor* out, aclTensor* total) {
  Reduction r;
  RETURN_IF_ERROR(ToReduction(call, reduction, &r));
  RETURN_IF_ERROR(CheckClasses(call, self, target, weight));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (total->view.numel() != 1)
    return call.Invalid("totalWeightOut has shape {}, expected one element", ShapeString(total->view));
  if (r == Reduction::kNone)
    RETURN_IF_ERROR(call.RequireSameShape(out, "out", target, "target"));
  else if (out->view.numel() != 1)
    return call.Invalid("out has shape {}, expected one element", ShapeString(out->view));
  const Classes p{ignored, r, weight != nullptr};
  const double n = static_cast<double>(target->view.numel());
  Status status;
  if (!VisitCompute<kFloatTypes>(self->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(self), In(target), In(weight ? weight : self), Out(out), Out(total)},
                             Cost{n, 80 * n}, [p](const Run& t) { return Forward<T>(t, p); });
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

Status NllBackward(Call& call, const aclTensor* grad, const aclTensor* self, const aclTensor* target,
                   const aclTensor* weight, int64_t reduction, int64_t ignored, const aclTensor* total,
                   aclTensor* out) {
  Reduction r;
  RETURN_IF_ERROR(ToReduction(call, reduction, &r));
  RETURN_IF_ERROR(CheckClasses(call, self, target, weight));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (total->view.numel() != 1)
    return call.Invalid("totalWeight has shape {}, expected one element", ShapeString(total->view));
  if (grad->view.numel() != 1) RETURN_IF_ERROR(call.RequireSameShape(grad, "gradOutput", target, "target"));
  if (out->view.empty()) return call.Nothing();
  const Classes p{ignored, r, weight != nullptr};
  const double bytes = static_cast<double>(out->view.nbytes());
  Status status;
  if (!VisitCompute<kFloatTypes>(self->view.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        status = call.Launch({In(grad), In(target), In(weight ? weight : self), In(total), Out(out)},
                             Cost{bytes, bytes}, [p](const Run& t) { return Backward<T>(t, p); });
      }))
    return Unsupported(call, self->view.dtype);
  return status;
}

}  // namespace

Status aclnn::NLLLoss(Call& call, const aclTensor* self, const aclTensor* target, const aclTensor* weight,
                      int64_t reduction, int64_t ignoreIndex, aclTensor* out, aclTensor* totalWeightOut) {
  return Nll(call, self, target, weight, reduction, ignoreIndex, out, totalWeightOut);
}
Status aclnn::NLLLoss2d(Call& call, const aclTensor* self, const aclTensor* target, const aclTensor* weight,
                        int64_t reduction, int64_t ignoreIndex, aclTensor* out, aclTensor* totalWeightOut) {
  return Nll(call, self, target, weight, reduction, ignoreIndex, out, totalWeightOut);
}
Status aclnn::NLLLossBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                              const aclTensor* target, const aclTensor* weight, int64_t reduction,
                              int64_t ignoreIndex, const aclTensor* totalWeight, aclTensor* out) {
  return NllBackward(call, gradOutput, self, target, weight, reduction, ignoreIndex, totalWeight, out);
}
Status aclnn::NLLLoss2dBackward(Call& call, const aclTensor* gradOutput, const aclTensor* self,
                                const aclTensor* target, const aclTensor* weight, int64_t reduction,
                                int64_t ignoreIndex, aclTensor* totalWeight, aclTensor* out) {
  return NllBackward(call, gradOutput, self, target, weight, reduction, ignoreIndex, totalWeight, out);
}

}  // namespace anycann
