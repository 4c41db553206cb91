// Embedding tables: the gradient of the table, EmbeddingRenorm, EmbeddingBag. (The lookup is in
// index_select.cc.)
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"

namespace anycann {
namespace {

void FillZero(const TensorView& v) {
  ParallelFor(v.nbytes(), int64_t{1} << 18, [&](int64_t begin, int64_t end) {
    std::memset(v.bytes() + begin, 0, static_cast<size_t>(end - begin));
  });
}

// 1 / how often the row occurs, for each position.
template <class T>
Buffer<T> InverseFrequencies(const int64_t* rows, int64_t count, int64_t table) {
  std::vector<int64_t> counts(static_cast<size_t>(table), 0);
  for (int64_t i = 0; i < count; ++i)
    if (rows[i] >= 0) ++counts[static_cast<size_t>(rows[i])];
  Buffer<T> scales = NewBuffer<T>(count);
  for (int64_t i = 0; i < count; ++i)
    scales[i] = rows[i] >= 0 ? T(1) / static_cast<T>(counts[static_cast<size_t>(rows[i])]) : T(0);
  return scales;
}

Status TableGradient(const Run& t, int64_t padding, bool by_frequency) {
  const TensorView& out = t[2];
  const DType compute = ComputeType(out.dtype);
  const Dense grad(t[0], compute, Dense::kRead);
  Dense table(out, compute, Dense::kWrite);
  FillZero(table.view());
  const int64_t count = t[1].numel(), width = out.dims[1];
  const IndexOperand operand{t[1], 0, out.dims[0], width};
  Buffer<int64_t> positions;
  RETURN_IF_ERROR(ResolvePositions(t.plan().name, std::span(&operand, 1), false, &positions, padding));
  const SliceSpace space = SliceSpace::Along(table.view(), 0);
  if (!by_frequency) {
    AccumulateSlices(table.view(), space, positions.get(), count, grad.ptr<void>(), false, nullptr, nullptr);
  } else {
    Buffer<int64_t> rows = NewBuffer<int64_t>(count);
    for (int64_t i = 0; i < count; ++i)
      rows[i] = positions[i] < 0 ? -1 : positions[i] / std::max<int64_t>(1, width);
    const auto accumulate = [&](auto scales) {
      AccumulateSlices(table.view(), space, positions.get(), count, grad.ptr<void>(), false, nullptr,
                       scales.get());
    };
    if (compute == DType::kDouble)
      accumulate(InverseFrequencies<double>(rows.get(), count, out.dims[0]));
    else
      accumulate(InverseFrequencies<float>(rows.get(), count, out.dims[0]));
  }
  table.Commit();
  return Status();
}

template <class T>
double Norm(const T* x, int64_t n, double p) {
  double sum = 0;
  if (std::isinf(p)) {
    for (int64_t i = 0; i < n; ++i) sum = std::max(sum, std::abs(static_cast<double>(x[i])));
    return sum;
  }
  if (p == 2) {
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return std::sqrt(sum);
  }
  for (int64_t i = 0; i < n; ++i) sum += std::pow(std::abs(static_cast<double>(x[i])), p);
  return std::pow(sum, 1 / p);
}

// Scales each row of the table that occurs in `rows` and is longer than max_norm.
template <class T>
void Renormalise(T* table, int64_t width, std::vector<int64_t> rows, double max_norm, double p) {
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  ParallelFor(static_cast<int64_t>(rows.size()), std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)),
              [&](int64_t begin, int64_t end) {
                for (int64_t k = begin; k < end; ++k) {
                  T* row = table + rows[static_cast<size_t>(k)] * width;
                  const double norm = Norm(row, width, p);
                  if (!(norm > max_norm)) continue;
                  const T scale = static_cast<T>(max_norm / (norm + 1e-7));
                  for (int64_t i = 0; i < width; ++i) row[i] *= scale;
                }
              });
}

struct BagShape {
  int64_t bags, count;  // bags, indices
  int64_t mode;         // 0 sum, 1 mean, 2 max
  int64_t padding;      // -1: none
};

// One bag: reduces the table's rows first..last of `index` into out.
template <class T>
void ReduceBag(const T* table, int64_t width, const int64_t* index, const T* weights, int64_t first,
               int64_t last, const BagShape& s, T* out, int64_t* chosen, int64_t* size) {
  std::fill(out, out + width, T(0));
  int64_t members = 0;
  for (int64_t i = first; i < last; ++i) {
    if (index[i] == s.padding) continue;
    const T* row = table + index[i] * width;
    if (s.mode == 2) {
      for (int64_t k = 0; k < width; ++k) {
        if (members > 0 && !(row[k] > out[k]) && !std::isnan(row[k])) continue;
        out[k] = row[k];
        if (chosen != nullptr) chosen[k] = index[i];
      }
    } else if (weights != nullptr) {
      for (int64_t k = 0; k < width; ++k) out[k] += weights[i] * row[k];
    } else {
      for (int64_t k = 0; k < width; ++k) out[k] += row[k];
    }
    ++members;
  }
  if (s.mode == 1 && members > 0)
    for (int64_t k = 0; k < width; ++k) out[k] /= static_cast<T>(members);
  *size = members;
}

template <class T>
Status RunBags(const Run& t, BagShape s, bool has_weights) {
  const DType compute = kDTypeOf<T>;
  const Dense table(t[0], compute, Dense::kRead);
  const int64_t width = t[0].dims[1];
  if (s.padding < 0) s.padding = s.padding == -1 ? -1 : s.padding + t[0].dims[0];
  Buffer<int64_t> index, starts;
  RETURN_IF_ERROR(ResolveIndices(t.plan().name, t[1], 0, t[0].dims[0], false, &index));
  RETURN_IF_ERROR(ResolveIndices(t.plan().name, t[2], 0, s.count + 1, false, &starts));
  for (int64_t b = 1; b < t[2].numel(); ++b)
    if (starts[b] < starts[b - 1])
      return Error(kRuntimeError, "{}: offsets decrease at position {} ({} after {})", t.plan().name, b,
                   starts[b], starts[b - 1]);
  Dense out(t[3], compute, Dense::kWrite);
  Buffer<int64_t> size = NewBuffer<int64_t>(s.bags),
                  chosen = NewBuffer<int64_t>(s.mode == 2 ? s.bags * width : 0);
  if (s.mode == 2) std::fill(chosen.get(), chosen.get() + s.bags * width, int64_t{0});
  Buffer<int64_t> bag_of = NewBuffer<int64_t>(s.count);
  std::fill(bag_of.get(), bag_of.get() + s.count, int64_t{0});
  const Dense weights(has_weights ? t[7] : t[3], compute, has_weights ? Dense::kRead : Dense::kWrite);
  ParallelFor(s.bags, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t last = b + 1 < t[2].numel() ? starts[b + 1] : s.count;
      for (int64_t i = starts[b]; i < last; ++i) bag_of[i] = b;
      ReduceBag(table.ptr<T>(), width, index.get(), has_weights ? weights.ptr<const T>() : nullptr, starts[b],
                last, s, out.ptr<T>() + b * width, s.mode == 2 ? chosen.get() + b * width : nullptr,
                size.get() + b);
    }
  });
  out.Commit();
  const auto store = [](const TensorView& to, int64_t* from, int64_t n) {
    if (to.rank == 1 && to.dims[0] == n) CopyCast(to, TensorView::Contiguous(from, DType::kInt64, &n, 1));
  };
  store(t[4], bag_of.get(), s.count);
  store(t[5], size.get(), s.bags);
  if (s.mode == 2 && t[6].rank == 2)
    CopyCast(t[6], TensorView::Contiguous(chosen.get(), DType::kInt64, {s.bags, width}));
  else
    store(t[6], size.get(), s.bags);
  return Status();
}

}  // namespace

Status aclnn::EmbeddingDenseBackward(Call& call, const aclTensor* grad, const aclTensor* indices,
                                     uint64_t numWeights, uint64_t paddingIdx, bool scaleGradByFreq,
                                     const aclTensor* out) {
  if (!IsIndexType(indices->view.dtype))
    return call.Invalid("indices has type {}, expected an integer", Name(indices->view.dtype));
  if (!IsFloating(out->view.dtype))
    return call.Invalid("out has type {}, expected a floating one", Name(out->view.dtype));
  RETURN_IF_ERROR(call.RequireRank(grad, "grad", 1, kMaxRank));
  const TensorView& g = grad->view;
  const int64_t width = g.dims[g.rank - 1];
  if (g.numel() != indices->view.numel() * width)
    return call.Invalid("grad has shape {}, expected that of indices, {}, and one dimension more",
                        ShapeString(g), ShapeString(indices->view));
  const int64_t expected[] = {static_cast<int64_t>(numWeights), width};
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, 2));
  if (out->view.empty()) return call.Nothing();
  const int64_t padding = static_cast<int64_t>(paddingIdx);
  return call.Launch(
      {In(grad), In(indices), Out(out)},
      Cost{static_cast<double>(g.numel()), 3.0 * static_cast<double>(g.nbytes() + out->view.nbytes())},
      [=](const Run& t) -> Status { return TableGradient(t, padding, scaleGradByFreq); });
}

Status aclnn::EmbeddingRenorm(Call& call, aclTensor* selfRef, const aclTensor* indices, double maxNorm,
                              double normType) {
  RETURN_IF_ERROR(call.RequireRank(selfRef, "selfRef", 2, 2));
  if (!IsFloating(selfRef->view.dtype))
    return call.Invalid("selfRef has type {}, expected a floating one", Name(selfRef->view.dtype));
  if (!IsIndexType(indices->view.dtype))
    return call.Invalid("indices has type {}, expected an integer", Name(indices->view.dtype));
  if (selfRef->view.empty() || indices->view.empty()) return call.Nothing();
  return call.Launch({In(indices), Out(selfRef)}, Cost{0, 2.0 * static_cast<double>(selfRef->view.nbytes())},
                     [=](const Run& t) -> Status {
                       Buffer<int64_t> index;
                       RETURN_IF_ERROR(ResolveIndices(t.plan().name, t[0], 0, t[1].dims[0], false, &index));
                       const DType compute = ComputeType(t[1].dtype);
                       Dense table(t[1], compute, Dense::kUpdate);
                       std::vector<int64_t> rows(index.get(), index.get() + t[0].numel());
                       if (compute == DType::kDouble)
                         Renormalise(table.ptr<double>(), t[1].dims[1], std::move(rows), maxNorm, normType);
                       else
                         Renormalise(table.ptr<float>(), t[1].dims[1], std::move(rows), maxNorm, normType);
                       table.Commit();
                       return Status();
                     });
}

Status aclnn::EmbeddingBag(Call& call, const aclTensor* weight, const aclTensor* indices,
                           const aclTensor* offsets, bool, int64_t mode, bool,
                           const aclTensor* perSampleWeights, bool includeLastOffset, int64_t paddingIdx,
                           aclTensor* output, aclTensor* offset2bag, aclTensor* bagSize,
                           aclTensor* maxIndices) {
  if (mode < 0 || mode > 2) return call.Invalid("mode is {}, expected 0 (sum), 1 (mean) or 2 (max)", mode);
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(indices, "indices", 1, 1));
  RETURN_IF_ERROR(call.RequireRank(offsets, "offsets", 1, 1));
  if (!IsFloating(weight->view.dtype))
    return call.Invalid("weight has type {}, expected a floating one", Name(weight->view.dtype));
  for (const aclTensor* t : {indices, offsets})
    if (!IsIndexType(t->view.dtype))
      return call.Invalid("{} has type {}, expected an integer", t == indices ? "indices" : "offsets",
                          Name(t->view.dtype));
  const int64_t count = indices->view.dims[0];
  const int64_t bags = std::max<int64_t>(0, offsets->view.dims[0] - (includeLastOffset ? 1 : 0));
  const int64_t expected[] = {bags, weight->view.dims[1]};
  RETURN_IF_ERROR(call.RequireShape(output, "output", expected, 2));
  if (perSampleWeights != nullptr && perSampleWeights->view.numel() != count)
    return call.Invalid("perSampleWeights has shape {}, expected [{}]", ShapeString(perSampleWeights->view),
                        count);
  if (mode == 2 && maxIndices->view.rank == 2)
    RETURN_IF_ERROR(call.RequireShape(maxIndices, "maxIndices", expected, 2));
  if (output->view.empty()) return call.Nothing();
  std::vector<Arg> args = {In(weight),      In(indices),  In(offsets),    Out(output),
                           Out(offset2bag), Out(bagSize), Out(maxIndices)};
  if (perSampleWeights != nullptr) args.push_back(In(perSampleWeights));
  const BagShape shape{bags, count, mode, paddingIdx};
  return call.Launch(std::span<const Arg>(args),
                     Cost{static_cast<double>(count * weight->view.dims[1]),
                          static_cast<double>(count * weight->view.dims[1] * SizeOf(weight->view.dtype))},
                     [shape, weighted = perSampleWeights != nullptr](const Run& t) -> Status {
                       return t[0].dtype == DType::kDouble ? RunBags<double>(t, shape, weighted)
                                                           : RunBags<float>(t, shape, weighted);
                     });
}

}  // namespace anycann
