// Rotated overlaps, and the suppression of boxes that overlap a better one.
#include <algorithm>
#include <numeric>

#include "aclop_operators.h"
#include "base/parallel.h"
#include "ops/aclop/polygon.h"

namespace anycann::aclop {
namespace {

RotatedBox BoxAt(const Dense& boxes, int64_t batch, int64_t i, bool corners) {
  const int64_t n = boxes.view().dims[2];
  double v[5];
  for (int k = 0; k < 5; ++k) v[k] = boxes.ptr<double>()[(batch * 5 + k) * n + i];
  return RotatedBox::Of(v, corners);
}

enum class Share { kArea, kOfUnion, kOfFirst };

double Shared(const RotatedBox& a, const RotatedBox& b, Share share) {
  const double inner = SharedArea(a, b);
  if (share == Share::kArea) return inner;
  const double whole = share == Share::kOfFirst ? a.Area() : a.Area() + b.Area() - inner;
  return whole > 0 ? inner / whole : 0;
}

// boxes of [B, 5, N], query_boxes of [B, 5, K] -> [B, N, K].
Status RotatedShares(Call& call, Arguments& a, Share share) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const TensorView &x = a.In(0)->view, &q = a.In(1)->view;
  if (x.rank != 3 || q.rank != 3 || x.dims[1] != 5 || q.dims[1] != 5 || x.dims[0] != q.dims[0])
    return call.Invalid("boxes has shape {} and query_boxes {}, expected [B,5,N] and [B,5,K]", ShapeString(x),
                        ShapeString(q));
  const bool corners = a.Flag(a.Attr("trans", false)), cross = a.Flag(a.Attr("is_cross", true));
  RETURN_IF_ERROR(a.status());
  if (!cross) return call.Invalid("is_cross is false, expected true");
  const int64_t n = x.dims[2], k = q.dims[2], dims[] = {x.dims[0], n, k};
  RETURN_IF_ERROR(call.RequireShape(a.Out(0), "the output", dims, 3));
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0))}, Cost{300.0 * static_cast<double>(a.Out(0)->view.numel()), 0},
      [=](const Run& t) -> Status {
        const Dense boxes(t[0], DType::kDouble, Dense::kRead), queries(t[1], DType::kDouble, Dense::kRead);
        Dense out(t[2], DType::kDouble, Dense::kWrite);
        ParallelFor(out.view().numel(), 32, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            out.ptr<double>()[i] = Shared(BoxAt(boxes, i / (n * k), i / k % n, corners),
                                          BoxAt(queries, i / (n * k), i % k, corners), share);
        });
        out.Commit();
        return Status();
      });
}

// The candidates that no better one overlaps by more than the threshold, best first, at most `most`.
// overlap(i, j): of two candidates.
template <class F>
std::vector<int64_t> Survivors(const std::vector<int64_t>& candidates, double threshold, int64_t most,
                               F overlap) {
  std::vector<int64_t> kept;
  for (int64_t i : candidates) {
    if (static_cast<int64_t>(kept.size()) >= most) break;
    if (std::none_of(kept.begin(), kept.end(), [&](int64_t j) { return overlap(i, j) > threshold; }))
      kept.push_back(i);
  }
  return kept;
}

// Those with a score above the threshold, best first.
std::vector<int64_t> Ranked(const double* scores, int64_t n, double threshold) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < n; ++i)
    if (scores[i] > threshold) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return scores[i] > scores[j]; });
  return order;
}

// Boxes given by any two opposite corners; `stride` numbers apart.
double UprightOverlap(const double* boxes, int64_t stride, int64_t i, int64_t j) {
  double low[2][2], high[2][2], area[2];
  for (int b = 0; b < 2; ++b) {
    const double* v = boxes + (b == 0 ? i : j) * stride;
    for (int d = 0; d < 2; ++d) low[b][d] = std::min(v[d], v[d + 2]), high[b][d] = std::max(v[d], v[d + 2]);
    area[b] = (high[b][0] - low[b][0]) * (high[b][1] - low[b][1]);
  }
  double inner = 1;
  for (int d = 0; d < 2; ++d)
    inner *= std::max(0.0, std::min(high[0][d], high[1][d]) - std::max(low[0][d], low[1][d]));
  const double whole = area[0] + area[1] - inner;
  return whole > 0 ? inner / whole : 0;
}

}  // namespace

Status RotatedOverlaps(Call& call, Arguments& a) { return RotatedShares(call, a, Share::kArea); }
Status RotatedIou(Call& call, Arguments& a) {
  const bool of_first = a.Flag(a.Index(a.Attr("mode", "iou"), {"iou", "iof"}));
  RETURN_IF_ERROR(a.status());
  return RotatedShares(call, a, of_first ? Share::kOfFirst : Share::kOfUnion);
}

// boxes, scores, max_output_size, iou_threshold, score_threshold -> selected_indices, valid_outputs.
Status NonMaxSuppressionV4(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(5, 2));
  const TensorView &boxes = a.In(0)->view, &out = a.Out(0)->view;
  const int64_t n = boxes.rank == 2 ? boxes.dims[0] : -1;
  if (n < 0 || boxes.dims[1] != 4 || a.In(1)->view.numel() != n || a.Out(1)->view.numel() != 1 ||
      out.rank != 1)
    return call.Invalid(
        "boxes has shape {}, scores {}, selected_indices {} and valid_outputs {}, expected [N,4], [N], [M], "
        "[1]",
        ShapeString(boxes), ShapeString(a.In(1)->view), ShapeString(out), ShapeString(a.Out(1)->view));
  const int64_t most = std::min(a.Integer(a.Constant(2)), out.dims[0]);
  const double overlap = a.Real(a.Constant(3)), score = a.Real(a.Constant(4));
  RETURN_IF_ERROR(a.status());
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0)), Out(a.Out(1))}, Cost{20.0 * static_cast<double>(n * most), 0},
      [=](const Run& t) -> Status {
        const Dense b(t[0], DType::kDouble, Dense::kRead), s(t[1], DType::kDouble, Dense::kRead);
        Dense chosen(t[2], DType::kInt64, Dense::kWrite), valid(t[3], DType::kInt64, Dense::kWrite);
        const auto kept =
            Survivors(Ranked(s.ptr<double>(), n, score), overlap, most,
                      [&](int64_t i, int64_t j) { return UprightOverlap(b.ptr<double>(), 4, i, j); });
        std::fill(chosen.ptr<int64_t>(), chosen.ptr<int64_t>() + chosen.view().numel(), int64_t{0});
        std::copy(kept.begin(), kept.end(), chosen.ptr<int64_t>());
        *valid.ptr<int64_t>() = static_cast<int64_t>(kept.size());
        chosen.Commit();
        valid.Commit();
        return Status();
      });
}

// Boxes of [N, 8], best first: four coordinates, a score, and three numbers for other uses.
Status NMSWithMask(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 3));
  const TensorView& x = a.In(0)->view;
  const int64_t n = x.rank == 2 ? x.dims[0] : -1;
  const double threshold = a.Number("iou_threshold", 0.5);
  RETURN_IF_ERROR(a.status());
  if (n < 0 || x.dims[1] < 5 || a.Out(0)->view.numel() != 5 * n || a.Out(1)->view.numel() != n ||
      a.Out(2)->view.numel() != n)
    return call.Invalid(
        "box_scores has shape {} and the outputs {}, {} and {}, expected [N,8], [N,5], [N] and [N]",
        ShapeString(x), ShapeString(a.Out(0)->view), ShapeString(a.Out(1)->view),
        ShapeString(a.Out(2)->view));
  return call.Launch({In(a.In(0)), Out(a.Out(0)), Out(a.Out(1)), Out(a.Out(2))},
                     Cost{20.0 * static_cast<double>(n * n), 0}, [=](const Run& t) -> Status {
                       const Dense in(t[0], DType::kDouble, Dense::kRead);
                       Dense boxes(t[1], DType::kDouble, Dense::kWrite),
                           index(t[2], DType::kInt64, Dense::kWrite),
                           mask(t[3], DType::kUint8, Dense::kWrite);
                       std::vector<int64_t> order(static_cast<size_t>(n));
                       std::iota(order.begin(), order.end(), 0);
                       const int64_t columns = t[0].dims[1];
                       const auto kept = Survivors(order, threshold, n, [&](int64_t i, int64_t j) {
                         return UprightOverlap(in.ptr<double>(), columns, i, j);
                       });
                       std::fill(mask.ptr<uint8_t>(), mask.ptr<uint8_t>() + n, uint8_t{0});
                       for (int64_t i : kept) mask.ptr<uint8_t>()[i] = 1;
                       for (int64_t i = 0; i < n; ++i) {
                         index.ptr<int64_t>()[i] = i;
                         std::copy_n(in.ptr<double>() + i * columns, 5, boxes.ptr<double>() + i * 5);
                       }
                       boxes.Commit();
                       index.Commit();
                       mask.Commit();
                       return Status();
                     });
}

// dets of [N, 5], scores, labels -> the boxes and indices that stay: as many as the data decide.
Status RotatedNMS(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 2));
  const TensorView& x = a.In(0)->view;
  const int64_t n = x.rank == 2 ? x.dims[0] : -1;
  const double overlap = a.Real(a.Attr("iou_threshold")), score = a.Number("score_threshold", 0);
  const int64_t limit = a.Integer(a.Attr("max_output_size", int64_t{-1}));
  const bool corners = a.Integer(a.Attr("mode", int64_t{0})) == 1;
  RETURN_IF_ERROR(a.status());
  if (n < 0 || x.dims[1] != 5 || a.In(1)->view.numel() != n || a.Out(0)->view.numel() < 5 * n ||
      a.Out(1)->view.numel() < n)
    return call.Invalid(
        "boxes has shape {}, scores {} and the outputs {} and {}, expected [N,5], [N], [N,5] and [N]",
        ShapeString(x), ShapeString(a.In(1)->view), ShapeString(a.Out(0)->view), ShapeString(a.Out(1)->view));
  const int64_t most = limit < 0 ? n : limit;
  return call.Launch(
      {In(a.In(0)), In(a.In(1)), Out(a.Out(0)), Out(a.Out(1))}, Cost{300.0 * static_cast<double>(n * n), 0},
      [=, boxes_shape = TensorRef(a.Out(0)), index_shape = TensorRef(a.Out(1))](const Run& t) -> Status {
        const Dense b(t[0], DType::kDouble, Dense::kRead), s(t[1], DType::kDouble, Dense::kRead);
        const auto box = [&](int64_t i) {
          double v[5];
          std::copy_n(b.ptr<double>() + 5 * i, 5, v);
          return RotatedBox::Of(v, corners);
        };
        const auto kept =
            Survivors(Ranked(s.ptr<double>(), n, score), overlap, most,
                      [&](int64_t i, int64_t j) { return Shared(box(i), box(j), Share::kOfUnion); });
        const int64_t count = static_cast<int64_t>(kept.size()), box_dims[] = {count, 5},
                      index_dims[] = {count};
        Dense boxes(TensorView::Contiguous(t[2].data, t[2].dtype, box_dims, 2), DType::kDouble,
                    Dense::kWrite),
            index(TensorView::Contiguous(t[3].data, t[3].dtype, index_dims, 1), DType::kInt64, Dense::kWrite);
        for (int64_t i = 0; i < count; ++i) {
          index.ptr<int64_t>()[i] = kept[static_cast<size_t>(i)];
          std::copy_n(b.ptr<double>() + 5 * kept[static_cast<size_t>(i)], 5, boxes.ptr<double>() + 5 * i);
        }
        boxes.Commit();
        index.Commit();
        boxes_shape.SetShape(box_dims, 2);
        index_shape.SetShape(index_dims, 1);
        return Status();
      });
}

namespace {

struct MultiClass {
  double score, overlap;
  int64_t of_class, of_image;  // the most boxes that stay
  bool relative;               // boxes become parts of the window
};

struct Chosen {
  double box[4], score;
  int64_t label;
};

// One image: boxes [N, q, 4], q: 1 or the number of classes; scores [N, classes].
std::vector<Chosen> ChooseBoxes(const MultiClass& m, const double* boxes, const double* scores, int64_t n,
                                int64_t q, int64_t classes) {
  std::vector<Chosen> chosen;
  std::vector<double> of_class(static_cast<size_t>(n)), corners(static_cast<size_t>(n) * 4);
  for (int64_t label = 0; label < classes; ++label) {
    for (int64_t i = 0; i < n; ++i) {
      of_class[static_cast<size_t>(i)] = scores[i * classes + label];
      std::copy_n(boxes + (i * q + (q == 1 ? 0 : label)) * 4, 4, corners.data() + 4 * i);
    }
    for (int64_t i :
         Survivors(Ranked(of_class.data(), n, m.score), m.overlap, m.of_class,
                   [&](int64_t i, int64_t j) { return UprightOverlap(corners.data(), 4, i, j); })) {
      Chosen c{{}, of_class[static_cast<size_t>(i)], label};
      std::copy_n(corners.data() + 4 * i, 4, c.box);
      chosen.push_back(c);
    }
  }
  std::stable_sort(chosen.begin(), chosen.end(),
                   [](const Chosen& a, const Chosen& b) { return a.score > b.score; });
  if (static_cast<int64_t>(chosen.size()) > m.of_image) chosen.resize(static_cast<size_t>(m.of_image));
  return chosen;
}

}  // namespace

// boxes [B, N, q, 4] ([B, q, 4, N] with transpose_box), scores [B, N, classes], clip_window [B, 4],
// num_valid_boxes [B] -> for each image the best boxes of all classes with their scores and classes, zeros
// behind them, and their number.
Status BatchMultiClassNonMaxSuppression(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 4));
  MultiClass m{a.Real(a.Attr("score_threshold")), a.Real(a.Attr("iou_threshold")),
               a.Integer(a.Attr("max_size_per_class")), a.Integer(a.Attr("max_total_size")),
               a.Flag(a.Attr("change_coordinate_frame", false))};
  const bool transposed = a.Flag(a.Attr("transpose_box", false));
  const Value image_size = a.Attr("image_size", std::vector<int64_t>());
  RETURN_IF_ERROR(a.status());
  RETURN_IF_ERROR(call.RequireRank(a.In(0), "boxes", 4, 4));
  RETURN_IF_ERROR(call.RequireRank(a.In(1), "scores", 3, 3));
  const TensorView boxes = transposed ? a.In(0)->view.Transpose(2, 3).Transpose(1, 2) : a.In(0)->view;
  const int64_t images = boxes.dims[0], n = boxes.dims[1], q = boxes.dims[2];
  const bool by_class = transposed && a.In(1)->view.dims[1] != n;  // scores [B, classes, N], as the boxes are
  const TensorView scores = by_class ? a.In(1)->view.Transpose(1, 2) : a.In(1)->view;
  const int64_t classes = scores.dims[2];
  if (boxes.dims[3] != 4 || scores.dims[0] != images || scores.dims[1] != n || (q != 1 && q != classes))
    return call.Invalid(
        "boxes has shape {} and scores {}, expected [B,N,q,4] and [B,N,classes], q being 1 or classes",
        ShapeString(a.In(0)->view), ShapeString(a.In(1)->view));
  if (m.of_class < 0 || m.of_image < 0 || image_size.size() != 0)
    return call.Invalid(
        "max_size_per_class is {}, max_total_size {} and image_size {}, expected two numbers and none",
        m.of_class, m.of_image, image_size.Show());
  const aclTensor *window = a.In(2), *valid = a.In(3);
  if ((window != nullptr && window->view.numel() != 4 * images) ||
      (valid != nullptr && valid->view.numel() != images))
    return call.Invalid("clip_window and num_valid_boxes have {} and {} elements, expected {} and {}",
                        window == nullptr ? 0 : window->view.numel(),
                        valid == nullptr ? 0 : valid->view.numel(), 4 * images, images);
  if (m.relative && window == nullptr)
    return call.Invalid("change_coordinate_frame is true, but there is no clip_window to be relative to");
  const int64_t wanted[] = {images, m.of_image, 4};
  RETURN_IF_ERROR(call.RequireShape(a.Out(0), "nmsed_boxes", wanted, 3));
  RETURN_IF_ERROR(call.RequireShape(a.Out(1), "nmsed_scores", wanted, 2));
  RETURN_IF_ERROR(call.RequireShape(a.Out(2), "nmsed_classes", wanted, 2));
  RETURN_IF_ERROR(call.RequireShape(a.Out(3), "nmsed_num", wanted, 1));
  const bool clipped = window != nullptr, counted = valid != nullptr;
  return call.Launch(
      {In(a.In(0), boxes), In(a.In(1), scores), In(clipped ? window : a.In(1)), In(counted ? valid : a.In(1)),
       Out(a.Out(0)), Out(a.Out(1)), Out(a.Out(2)), Out(a.Out(3))},
      Cost{50.0 * static_cast<double>(images * n * classes), 0}, [=](const Run& t) -> Status {
        const Dense b(t[0], DType::kDouble, Dense::kRead), s(t[1], DType::kDouble, Dense::kRead),
            w(t[2], DType::kDouble, Dense::kRead), v(t[3], DType::kInt64, Dense::kRead);
        Dense out_boxes(t[4], DType::kDouble, Dense::kWrite), out_scores(t[5], DType::kDouble, Dense::kWrite),
            out_classes(t[6], DType::kDouble, Dense::kWrite), out_count(t[7], DType::kInt64, Dense::kWrite);
        Dense* outs[] = {&out_boxes, &out_scores, &out_classes};
        for (Dense* d : outs) std::fill(d->ptr<double>(), d->ptr<double>() + d->view().numel(), 0.0);
        for (int64_t i = 0; i < images; ++i) {
          const int64_t candidates = counted ? std::clamp<int64_t>(v.ptr<int64_t>()[i], 0, n) : n;
          const auto chosen = ChooseBoxes(m, b.ptr<double>() + i * n * q * 4,
                                          s.ptr<double>() + i * n * classes, candidates, q, classes);
          const double* frame = w.ptr<double>() + 4 * i;
          for (size_t k = 0; k < chosen.size(); ++k) {
            const int64_t at = i * m.of_image + static_cast<int64_t>(k);
            for (int d = 0; d < 4; ++d) {
              double x = chosen[k].box[d];
              if (clipped) x = std::min(std::max(x, frame[d % 2]), frame[d % 2 + 2]);
              if (m.relative) x = (x - frame[d % 2]) / (frame[d % 2 + 2] - frame[d % 2]);
              out_boxes.ptr<double>()[4 * at + d] = x;
            }
            out_scores.ptr<double>()[at] = chosen[k].score;
            out_classes.ptr<double>()[at] = static_cast<double>(chosen[k].label);
          }
          out_count.ptr<int64_t>()[i] = static_cast<int64_t>(chosen.size());
        }
        for (Dense* d : outs) d->Commit();
        out_count.Commit();
        return Status();
      });
}

}  // namespace anycann::aclop
