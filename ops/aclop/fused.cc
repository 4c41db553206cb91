// Legacy fusions: softmax with dropout, and the gradient of rotary embedding.
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/aclop/pointwise.h"

namespace anycann::aclop {
namespace {

Status Axis(Arguments& a, const char* name, int64_t* axis) {
  *axis = a.Integer(a.Attr(name, std::vector<int64_t>{-1}));
  return a.status();
}

}  // namespace

// x1, x2, mask -> softmax(x1 + alpha * x2), and what the mask of bytes keeps of it.
Status AxpyWithSoftmaxAndDropOutDoMask(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 2));
  int64_t axis = 0;
  RETURN_IF_ERROR(Axis(a, "axis", &axis));
  const double keep = a.Real(a.Attr("input_keep_prob"));
  const aclScalar* alpha = a.Scalar(a.Attr("alpha"));
  aclTensor* sum = a.TemporaryLike(a.In(0), a.In(0)->view.dtype);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::Add(c, a.In(0), a.In(1), alpha, sum); }));
  RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::Softmax(c, sum, axis, a.Out(0)); }));
  return Pointwise<2, 1>(
      call, {a.Out(0), a.Shaped(a.In(2), a.In(0))}, {a.Out(1)},
      [keep](const double(&x)[2], double(&y)[1]) { y[0] = x[1] != 0 && keep > 0 ? x[0] / keep : 0; });
}

// y_grad, mask, softmax_output: the gradient by x2 of the above.
Status DropoutWithMulsAndSoftmaxGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  int64_t axis = 0;
  RETURN_IF_ERROR(Axis(a, "axes", &axis));
  const double keep = a.Real(a.Attr("input_keep_prob")), alpha = a.Real(a.Attr("alpha"));
  aclTensor *kept = a.TemporaryLike(a.In(2), DType::kFloat), *dx = a.TemporaryLike(a.In(2), DType::kFloat);
  const aclTensor* softmax = a.As(a.In(2), DType::kFloat);
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(a.Before([&](Call& c) {
    return Pointwise<2, 1>(
        c, {a.In(0), a.Shaped(a.In(1), a.In(0))}, {kept},
        [keep](const double(&x)[2], double(&y)[1]) { y[0] = x[1] != 0 && keep > 0 ? x[0] / keep : 0; });
  }));
  RETURN_IF_ERROR(a.Before([&](Call& c) { return aclnn::SoftmaxBackward(c, kept, softmax, axis, dx); }));
  return Pointwise<1, 1>(call, {dx}, {a.Out(0)},
                         [alpha](const double(&x)[1], double(&y)[1]) { y[0] = alpha * x[0]; });
}

// x, r1, r2, dy of y = x * r1 + turned(x) * r2, where turned((a, b)) = (-b, a) by halves of the last
// dimension.
Status RotaryMulGrad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 3));
  const TensorView& x = a.In(0)->view;
  if (x.rank < 1 || x.dims[x.rank - 1] % 2 != 0)
    return call.Invalid("x has shape {}, expected an even last dimension", ShapeString(x));
  RETURN_IF_ERROR(call.RequireSameShape(a.In(3), "dy", a.In(0), "x"));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "dx", a.In(0), "x"));
  RETURN_IF_ERROR(call.RequireSameShape(a.In(2), "r2", a.In(1), "r1"));
  for (size_t i : {1, 2}) RETURN_IF_ERROR(call.RequireSameShape(a.Out(i), "a gradient", a.In(1), "r1"));
  if (a.In(1)->view.rank != x.rank || a.In(1)->view.dims[x.rank - 1] != x.dims[x.rank - 1])
    return call.Invalid("r1 has shape {} for x {}", ShapeString(a.In(1)->view), ShapeString(x));
  const int64_t half = x.dims[x.rank - 1] / 2;
  const auto part = [&](const aclTensor* t, int64_t first) {
    return a.View(t->view.Narrow(t->view.rank - 1, first, half));
  };
  std::vector<int64_t> summed;
  for (int d = 0; d < x.rank; ++d)
    if (a.In(1)->view.dims[d] != x.dims[d]) summed.push_back(d);
  aclTensor *by_r1 = a.TemporaryLike(a.In(0), DType::kFloat),
            *by_r2 = a.TemporaryLike(a.In(0), DType::kFloat);
  for (const int64_t first : {int64_t{0}, half}) {
    const double sign = first == 0 ? 1 : -1;
    const aclTensor *dy = part(a.In(3), first), *other_dy = part(a.In(3), half - first),
                    *here = part(a.In(0), first), *other = part(a.In(0), half - first),
                    *r1 = part(a.In(1), first), *other_r2 = part(a.In(2), half - first);
    aclTensor *dx = part(a.Out(0), first), *d1 = part(by_r1, first), *d2 = part(by_r2, first);
    RETURN_IF_ERROR(a.status());
    RETURN_IF_ERROR(a.Before([&](Call& c) {
      return Pointwise<6, 3>(c, {dy, other_dy, here, other, r1, other_r2}, {dx, d1, d2},
                             [sign](const double(&v)[6], double(&y)[3]) {
                               y[0] = v[0] * v[4] + sign * v[1] * v[5];
                               y[1] = v[0] * v[2];
                               y[2] = -sign * v[0] * v[3];
                             });
    }));
  }
  const aclIntArray* axes = a.Integers(Value(summed));
  RETURN_IF_ERROR(a.status());
  const auto reduce = [&](Call& c, const aclTensor* from, aclTensor* to) {
    return summed.empty()
               ? aclnn::InplaceCopy(c, to, from)
               : aclnn::ReduceSum(c, from, axes, true, static_cast<aclDataType>(to->view.dtype), to);
  };
  RETURN_IF_ERROR(a.Before([&](Call& c) { return reduce(c, by_r1, a.Out(1)); }));
  return reduce(call, by_r2, a.Out(2));
}

// input_x [N, C, D] and the number of steps of each row that count: (x - mean) / (deviation + epsilon) over
// them, of each channel ("per_feature") or of all ("all_features").
Status NormalizeBatch(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "input_x", 3, 3));
  RETURN_IF_ERROR(call.RequireSameShape(a.Out(0), "output_y", a.In(0), "input_x"));
  const bool all = a.Flag(a.Index(a.Attr("normalize_type"), {"per_feature", "all_features"}));
  const double epsilon = a.Number("epsilon", 1e-5);
  RETURN_IF_ERROR(a.status());
  const TensorView& x = a.In(0)->view;
  if (a.In(1)->view.numel() != x.dims[0])
    return call.Invalid("seq_len has shape {}, expected [{}]", ShapeString(a.In(1)->view), x.dims[0]);
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0))}, Cost{10.0 * static_cast<double>(x.numel()), 0},
      [all, epsilon](const Run& t) -> Status {
        const Dense in(t[0], DType::kDouble, Dense::kRead), counts(t[1], DType::kInt64, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite);
        const int64_t rows = all ? t[0].dims[1] : 1, d = t[0].dims[2],
                      groups = t[0].dims[0] * (all ? 1 : t[0].dims[1]);
        ParallelFor(groups, 4, [&](int64_t begin, int64_t end) {
          for (int64_t g = begin; g < end; ++g) {
            const int64_t row = all ? g : g / t[0].dims[1];
            const int64_t steps = std::clamp<int64_t>(counts.ptr<int64_t>()[row], 0, d);
            const double *v = in.ptr<double>() + g * rows * d, n = static_cast<double>(rows * steps);
            double sum = 0, squares = 0;
            for (int64_t i = 0; i < rows * d; ++i) sum += i % d < steps ? v[i] : 0;
            const double mean = n > 0 ? sum / n : 0;
            for (int64_t i = 0; i < rows * d; ++i)
              squares += i % d < steps ? (v[i] - mean) * (v[i] - mean) : 0;
            const double deviation = n > 1 ? std::sqrt(squares / (n - 1)) : 0;
            for (int64_t i = 0; i < rows * d; ++i)
              out.ptr<double>()[g * rows * d + i] = (v[i] - mean) / (deviation + epsilon);
          }
        });
        out.Commit();
        return Status();
      });
}

// assigned_gt_inds, overlaps [K, N], box_responsible_flags, max_overlaps and argmax_overlaps of [N],
// gt_max_overlaps and gt_argmax_overlaps of [K], num_gts: responsible boxes get the truth (from 1 on) that
// they overlap enough or best.
Status GridAssignPositive(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(8, 1));
  const double enough = a.Real(a.Attr("pos_iou_thr")), least = a.Real(a.Attr("min_pos_iou"));
  const bool all = a.Flag(a.Attr("gt_max_assign_all"));
  RETURN_IF_ERROR(a.status());
  const TensorView& overlaps = a.In(1)->view;
  RETURN_IF_ERROR(call.RequireRank(a.In(1), "overlaps", 2, 2));
  const int64_t k = overlaps.dims[0], n = overlaps.dims[1];
  for (size_t i : {0, 2, 3, 4})
    if (a.In(i)->view.numel() != n)
      return call.Invalid("input {} has shape {}, expected [{}]", i, ShapeString(a.In(i)->view), n);
  for (size_t i : {5, 6})
    if (a.In(i)->view.numel() != k)
      return call.Invalid("input {} has shape {}, expected [{}]", i, ShapeString(a.In(i)->view), k);
  if (a.Out(0)->view.numel() != n || a.In(7)->view.numel() != 1)
    return call.Invalid("the output has shape {} and num_gts {}, expected [{}] and [1]",
                        ShapeString(a.Out(0)->view), ShapeString(a.In(7)->view), n);
  std::vector<Arg> operands;
  for (size_t i = 0; i < 8; ++i) operands.push_back(In(a.In(i)));
  operands.push_back(Out(a.Out(0)));
  return call.Launch(operands, Cost{static_cast<double>(n * k), 0}, [=](const Run& t) -> Status {
    std::vector<Dense> in;
    for (int i = 0; i < 8; ++i) in.emplace_back(t[i], DType::kDouble, Dense::kRead);
    Dense out(t[8], DType::kDouble, Dense::kWrite);
    const auto at = [&](int i, int64_t j) { return in[static_cast<size_t>(i)].ptr<double>()[j]; };
    double* y = out.ptr<double>();
    for (int64_t j = 0; j < n; ++j) y[j] = at(2, j) != 0 && at(3, j) > enough ? at(4, j) + 1 : at(0, j);
    const int64_t truths = std::clamp<int64_t>(static_cast<int64_t>(at(7, 0)), 0, k);
    for (int64_t g = 0; g < truths; ++g) {
      if (!(at(5, g) > least)) continue;
      if (all) {
        for (int64_t j = 0; j < n; ++j)
          if (at(2, j) != 0 && at(1, g * n + j) == at(5, g)) y[j] = static_cast<double>(g + 1);
      } else {
        const double best = at(6, g);
        if (best >= 0 && best < static_cast<double>(n) && at(2, static_cast<int64_t>(best)) != 0)
          y[static_cast<int64_t>(best)] = static_cast<double>(g + 1);
      }
    }
    out.Commit();
    return Status();
  });
}

}  // namespace anycann::aclop
