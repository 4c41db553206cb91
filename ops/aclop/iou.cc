// Overlaps of upright boxes: IoU, GIoU, DIoU and CIoU, and the gradients of the last three.
#include <numbers>

#include "aclop_operators.h"
#include "base/parallel.h"
#include "ops/aclop/dual.h"

namespace anycann::aclop {
namespace {

enum class Measure { kGeneral, kDistance, kComplete };

constexpr double kTiny = 1e-7;  // keeps divisions by the area of empty boxes finite

template <class T>
struct Corners {
  T x1, y1, x2, y2;
  T width() const { return x2 - x1; }
  T height() const { return y2 - y1; }
};

// Four numbers as a box: its corners, or its centre, width and height.
template <class T>
Corners<T> CornersOf(const T (&v)[4], bool centre) {
  if (!centre) return {v[0], v[1], v[2], v[3]};
  const T half(0.5);
  return {v[0] - v[2] * half, v[1] - v[3] * half, v[0] + v[2] * half, v[1] + v[3] * half};
}

template <class T>
T Square(const T& x) {
  return x * x;
}

// The measure of two boxes; `angle`: the difference of the arctangents of their aspect ratios, for kComplete.
template <class T>
T Compare(Measure measure, const Corners<T>& a, const Corners<T>& b, bool of_b, double* angle) {
  const T zero(0), tiny(kTiny);
  const T inner = Larger(Smaller(a.x2, b.x2) - Larger(a.x1, b.x1), zero) *
                  Larger(Smaller(a.y2, b.y2) - Larger(a.y1, b.y1), zero);
  const T area_a = a.width() * a.height(), area_b = b.width() * b.height();
  const T all = area_a + area_b - inner;
  const T iou = inner / ((of_b ? area_b : all) + tiny);
  const T hull_w = Larger(a.x2, b.x2) - Smaller(a.x1, b.x1),
          hull_h = Larger(a.y2, b.y2) - Smaller(a.y1, b.y1);
  if (measure == Measure::kGeneral) {
    const T hull = hull_w * hull_h + tiny;
    return iou - (hull - all) / hull;
  }
  const T quarter(0.25);
  const T distance = quarter * (Square(a.x1 + a.x2 - b.x1 - b.x2) + Square(a.y1 + a.y2 - b.y1 - b.y2));
  const T diou = iou - distance / (Square(hull_w) + Square(hull_h) + tiny);
  if (measure == Measure::kDistance) return diou;
  const T turn = Arctangent(b.width() / (b.height() + tiny)) - Arctangent(a.width() / (a.height() + tiny));
  const T v = T(4 / (std::numbers::pi * std::numbers::pi)) * Square(turn);
  // The weight of the aspect ratios counts as a constant in the gradient.
  const double weight = Plain(v) / (1 - Plain(iou) + Plain(v) + kTiny);
  *angle = Plain(turn);
  return diou - T(weight) * v;
}

struct Settings {
  bool centre, cross, of_b;
};

Status ReadSettings(Arguments& a, bool cross, Settings* s) {
  s->centre = a.Flag(a.Attr("trans", false));
  s->cross = a.Flag(a.Attr("is_cross", cross));
  s->of_b = a.Flag(a.Index(a.Attr("mode", "iou"), {"iou", "iof"}));
  return a.status();
}

Status RequireBoxes(Call& call, const aclTensor* t, const char* name) {
  if (t->view.rank == 2 && t->view.dims[0] == 4) return Status();
  return call.Invalid("{} has shape {}, expected [4,N]", name, ShapeString(t->view));
}

void Load(const Dense& boxes, int64_t i, double (&v)[4]) {
  const int64_t n = boxes.view().dims[1];
  for (int k = 0; k < 4; ++k) v[k] = boxes.ptr<double>()[k * n + i];
}

// bboxes, gtboxes of [4, N] -> [M, N] when crossed, [1, N] pairwise; CIoU's angles too.
Status Overlap(Call& call, Arguments& a, Measure measure, bool cross) {
  RETURN_IF_ERROR(a.Require(2, measure == Measure::kComplete ? 2 : 1));
  RETURN_IF_ERROR(RequireBoxes(call, a.In(0), "bboxes"));
  RETURN_IF_ERROR(RequireBoxes(call, a.In(1), "gtboxes"));
  Settings s;
  RETURN_IF_ERROR(ReadSettings(a, cross, &s));
  const int64_t n = a.In(0)->view.dims[1], m = a.In(1)->view.dims[1], rows = s.cross ? m : 1;
  if (!s.cross && m != n)
    return call.Invalid("there are {} bboxes and {} gtboxes, expected as many of both", n, m);
  if (a.Out(0)->view.numel() != rows * n ||
      (measure == Measure::kComplete && a.Out(1)->view.numel() != rows * n))
    return call.Invalid("overlap has shape {}, expected [{},{}]", ShapeString(a.Out(0)->view), rows, n);
  aclTensor* angles = measure == Measure::kComplete ? a.Out(1) : a.TemporaryLike(a.Out(0), DType::kFloat);
  RETURN_IF_ERROR(a.status());
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0)), Out(angles)}, Cost{50.0 * static_cast<double>(rows * n), 0},
      [=](const Run& t) -> Status {
        const Dense boxes(t[0], DType::kDouble, Dense::kRead), truths(t[1], DType::kDouble, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite), angle(t[3], DType::kDouble, Dense::kWrite);
        ParallelFor(rows * n, 256, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            double x[4], y[4], turn = 0;
            Load(boxes, i % n, x);
            Load(truths, s.cross ? i / n : i, y);
            out.ptr<double>()[i] =
                Compare<double>(measure, CornersOf(x, s.centre), CornersOf(y, s.centre), s.of_b, &turn);
            angle.ptr<double>()[i] = turn;
          }
        });
        out.Commit();
        angle.Commit();
        return Status();
      });
}

// dy of [N] (or [1, N]), bboxes and gtboxes of [4, N], pairwise.
Status OverlapGrad(Call& call, Arguments& a, Measure measure, bool cross) {
  RETURN_IF_ERROR(a.Require(3, 2));
  RETURN_IF_ERROR(RequireBoxes(call, a.In(1), "bboxes"));
  RETURN_IF_ERROR(call.RequireSameShape(a.In(2), "gtboxes", a.In(1), "bboxes"));
  for (size_t i : {0, 1}) RETURN_IF_ERROR(call.RequireSameShape(a.Out(i), "a gradient", a.In(1), "bboxes"));
  Settings s;
  RETURN_IF_ERROR(ReadSettings(a, cross, &s));
  const int64_t n = a.In(1)->view.dims[1];
  if (s.cross) return call.Invalid("is_cross is true, expected false");
  if (a.In(0)->view.numel() != n)
    return call.Invalid("dy has shape {}, expected [{}]", ShapeString(a.In(0)->view), n);
  return call.Launch({In(a.In(0)), In(a.In(1)), In(a.In(2)), Out(a.Out(0)), Out(a.Out(1))},
                     Cost{400.0 * static_cast<double>(n), 0}, [=](const Run& t) -> Status {
                       using Number = Dual<8>;
                       const Dense dy(t[0], DType::kDouble, Dense::kRead),
                           boxes(t[1], DType::kDouble, Dense::kRead),
                           truths(t[2], DType::kDouble, Dense::kRead);
                       Dense da(t[3], DType::kDouble, Dense::kWrite), db(t[4], DType::kDouble, Dense::kWrite);
                       ParallelFor(n, 64, [&](int64_t begin, int64_t end) {
                         for (int64_t i = begin; i < end; ++i) {
                           double x[4], y[4], turn;
                           Load(boxes, i, x);
                           Load(truths, i, y);
                           Number p[4], q[4];
                           for (int k = 0; k < 4; ++k)
                             p[k] = Number::Variable(x[k], k), q[k] = Number::Variable(y[k], 4 + k);
                           const Number value = Compare<Number>(measure, CornersOf(p, s.centre),
                                                                CornersOf(q, s.centre), s.of_b, &turn);
                           for (int k = 0; k < 4; ++k) {
                             da.ptr<double>()[k * n + i] = value.by[k] * dy.ptr<double>()[i];
                             db.ptr<double>()[k * n + i] = value.by[4 + k] * dy.ptr<double>()[i];
                           }
                         }
                       });
                       da.Commit();
                       db.Commit();
                       return Status();
                     });
}

}  // namespace

Status GIoU(Call& call, Arguments& a) { return Overlap(call, a, Measure::kGeneral, true); }
Status DIoU(Call& call, Arguments& a) { return Overlap(call, a, Measure::kDistance, true); }
Status CIoU(Call& call, Arguments& a) { return Overlap(call, a, Measure::kComplete, true); }
Status GIoUGrad(Call& call, Arguments& a) { return OverlapGrad(call, a, Measure::kGeneral, true); }
Status DIoUGrad(Call& call, Arguments& a) { return OverlapGrad(call, a, Measure::kDistance, true); }
Status CIoUGrad(Call& call, Arguments& a) { return OverlapGrad(call, a, Measure::kComplete, true); }

// bboxes of [N, 4] and gtboxes of [M, 4] -> [M, N]. eps is added to every width and height: boxes of pixels
// have 1.
Status Iou(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const double eps = a.Number("eps", 1);
  const bool of_b = a.Flag(a.Index(a.Attr("mode", "iou"), {"iou", "iof"}));
  RETURN_IF_ERROR(a.status());
  for (size_t i : {0, 1})
    if (a.In(i)->view.rank != 2 || a.In(i)->view.dims[1] != 4)
      return call.Invalid("input {} has shape {}, expected [N,4]", i, ShapeString(a.In(i)->view));
  const int64_t n = a.In(0)->view.dims[0], m = a.In(1)->view.dims[0], dims[] = {m, n};
  RETURN_IF_ERROR(call.RequireShape(a.Out(0), "overlap", dims, 2));
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0))}, Cost{20.0 * static_cast<double>(n * m), 0},
      [=](const Run& t) -> Status {
        const Dense boxes(t[0], DType::kDouble, Dense::kRead), truths(t[1], DType::kDouble, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite);
        ParallelFor(n * m, 256, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const double *x = boxes.ptr<double>() + i % n * 4, *y = truths.ptr<double>() + i / n * 4;
            const double w = Smaller(x[2], y[2]) - Larger(x[0], y[0]) + eps,
                         h = Smaller(x[3], y[3]) - Larger(x[1], y[1]) + eps;
            const double inner = Larger(w, 0) * Larger(h, 0);
            const double area_x = (x[2] - x[0] + eps) * (x[3] - x[1] + eps),
                         area_y = (y[2] - y[0] + eps) * (y[3] - y[1] + eps);
            const double whole = of_b ? area_y : area_x + area_y - inner;
            out.ptr<double>()[i] = inner > 0 ? inner / whole : 0;
          }
        });
        out.Commit();
        return Status();
      });
}

}  // namespace anycann::aclop
