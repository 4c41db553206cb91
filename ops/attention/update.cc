// Attention in parts: results over different keys put together by their softmax statistics, and a softmax of
// scores with a bias and a mask.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string_view>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

// Where the statistics of head n of row r are: both attentions have them [.., copies].
struct RingSizes {
  int64_t rows = 0, heads = 0, dim = 0;  // rows: of all batches; numbers in a head
  int64_t length = 0, batches = 0;       // of statistics [batches, heads, length]; 0: [rows, heads]
  int64_t statistics() const { return rows * heads; }
  // Rows of the SBH layout count batches fastest.
  int64_t At(int64_t row, int64_t head) const {
    return batches == 0 ? row * heads + head : (row % batches * heads + head) * length + row / batches;
  }
};

// Statistics in the order [N, T] of a packed softmax that isn't laid out as TND.
struct RingPlan {
  RingSizes sizes;
  int64_t copies = 1;
  bool heads_first = false;
};

Status RunRing(const Run& t, const RingPlan& p) {
  const RingSizes& s = p.sizes;
  const Values<float> previous(t[0]), current(t[3]);
  const Values<float> max0(t[1]), sum0(t[2]), max1(t[4]), sum1(t[5]);
  const Scratch<float> out(s.rows * s.heads * s.dim), max(s.statistics() * p.copies),
      sum(s.statistics() * p.copies);
  for (const Values<float>* v : {&previous, &current, &max0, &sum0, &max1, &sum1})
    if (!v->ok()) return ScratchFailed(t.plan().name);
  if (!out.ok() || !max.ok() || !sum.ok()) return ScratchFailed(t.plan().name);
  ParallelFor(s.rows, std::max<int64_t>(1, 4096 / (s.heads * s.dim + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t n = 0; n < s.heads; ++n) {
        const int64_t at = (p.heads_first ? n * s.rows + r : s.At(r, n)) * p.copies;
        const float top = std::max(max0[at], max1[at]);
        const float part0 = max0[at] == top ? sum0[at] : sum0[at] * std::exp(max0[at] - top);
        const float part1 = max1[at] == top ? sum1[at] : sum1[at] * std::exp(max1[at] - top);
        const float total = part0 + part1;
        std::fill_n(max.get() + at, p.copies, top);
        std::fill_n(sum.get() + at, p.copies, total);
        const float w0 = total == 0 ? 0 : part0 / total, w1 = total == 0 ? 0 : part1 / total;
        const int64_t first = (r * s.heads + n) * s.dim;
        for (int64_t i = first; i < first + s.dim; ++i) out[i] = previous[i] * w0 + current[i] * w1;
      }
  });
  StoreValues(t[6], out.get());
  StoreValues(t[7], max.get());
  StoreValues(t[8], sum.get());
  return Status();
}

Status LaunchRing(Call& call, const aclTensor* prev_out, const aclTensor* prev_max, const aclTensor* prev_sum,
                  const aclTensor* cur_out, const aclTensor* cur_max, const aclTensor* cur_sum,
                  const char* layout_name, const char* softmax_layout, const aclTensor* out,
                  const aclTensor* max, const aclTensor* sum) {
  const std::string_view layout = layout_name == nullptr || *layout_name == 0 ? "SBH" : layout_name;
  if (layout != "SBH" && layout != "TND")
    return call.Invalid("inputLayout is {}, expected SBH or TND", layout);
  RETURN_IF_ERROR(call.RequireRank(prev_out, "prevAttnOut", 3, 3));
  RETURN_IF_ERROR(call.RequireSameShape(cur_out, "curAttnOut", prev_out, "prevAttnOut"));
  RETURN_IF_ERROR(call.RequireSameShape(out, "attnOut", prev_out, "prevAttnOut"));
  const TensorView &v = prev_out->view, &m = prev_max->view;
  const int rank = layout == "SBH" ? 4 : 3;
  RETURN_IF_ERROR(call.RequireRank(prev_max, "prevSoftmaxMax", rank, rank));
  for (const auto& [t, name] :
       {std::pair{prev_sum, "prevSoftmaxSum"}, std::pair{cur_max, "curSoftmaxMax"},
        std::pair{cur_sum, "curSoftmaxSum"}, std::pair{max, "softmaxMax"}, std::pair{sum, "softmaxSum"}})
    RETURN_IF_ERROR(call.RequireSameShape(t, name, prev_max, "prevSoftmaxMax"));
  for (const auto& [t, name] :
       {std::pair{prev_out, "prevAttnOut"}, std::pair{cur_out, "curAttnOut"},
        std::pair{prev_max, "prevSoftmaxMax"}, std::pair{prev_sum, "prevSoftmaxSum"},
        std::pair{cur_max, "curSoftmaxMax"}, std::pair{cur_sum, "curSoftmaxSum"}, std::pair{out, "attnOut"},
        std::pair{max, "softmaxMax"}, std::pair{sum, "softmaxSum"}})
    RETURN_IF_ERROR(call.RequireFloating(t, name));
  RingPlan p;
  p.copies = m.dims[rank - 1];
  if (layout == "SBH") {
    p.sizes = {v.dims[0] * v.dims[1], m.dims[1], 0, v.dims[0], v.dims[1]};
    if (m.dims[0] != v.dims[1] || m.dims[2] != v.dims[0] || m.dims[1] < 1 || v.dims[2] % m.dims[1] != 0)
      return call.Invalid("prevSoftmaxMax has shape {} with prevAttnOut {}, expected [B,N,S,8] for [S,B,H]",
                          ShapeString(m), ShapeString(v));
    p.sizes.dim = v.dims[2] / m.dims[1];
  } else {
    p.sizes = {v.dims[0], v.dims[1], v.dims[2], 0, 0};
    const std::string_view order = softmax_layout == nullptr ? "" : softmax_layout;
    p.heads_first = order != "TND" && m.dims[0] == v.dims[1] && m.dims[1] == v.dims[0];
    if (!p.heads_first && (m.dims[0] != v.dims[0] || m.dims[1] != v.dims[1]))
      return call.Invalid("prevSoftmaxMax has shape {} with prevAttnOut {}, expected [T,N,8] for [T,N,D]",
                          ShapeString(m), ShapeString(v));
  }
  if (v.empty() || m.empty()) return call.Nothing();
  return call.Launch({In(prev_out), In(prev_max), In(prev_sum), In(cur_out), In(cur_max), In(cur_sum),
                      Out(out), Out(max), Out(sum)},
                     Cost{4.0 * static_cast<double>(v.numel()), static_cast<double>(3 * v.nbytes())},
                     [p](const Run& t) { return RunRing(t, p); });
}

}  // namespace

Status aclnn::RingAttentionUpdateV2(Call& call, const aclTensor* prevAttnOut, const aclTensor* prevSoftmaxMax,
                                    const aclTensor* prevSoftmaxSum, const aclTensor* curAttnOut,
                                    const aclTensor* curSoftmaxMax, const aclTensor* curSoftmaxSum,
                                    const aclTensor*, char* inputLayoutOptional,
                                    char* inputSoftmaxLayoutOptional, const aclTensor* attnOutOut,
                                    const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut) {
  return LaunchRing(call, prevAttnOut, prevSoftmaxMax, prevSoftmaxSum, curAttnOut, curSoftmaxMax,
                    curSoftmaxSum, inputLayoutOptional, inputSoftmaxLayoutOptional, attnOutOut, softmaxMaxOut,
                    softmaxSumOut);
}

Status aclnn::RingAttentionUpdate(Call& call, const aclTensor* prevAttnOut, const aclTensor* prevSoftmaxMax,
                                  const aclTensor* prevSoftmaxSum, const aclTensor* curAttnOut,
                                  const aclTensor* curSoftmaxMax, const aclTensor* curSoftmaxSum,
                                  const aclTensor*, char* inputLayoutOptional, const aclTensor* attnOutOut,
                                  const aclTensor* softmaxMaxOut, const aclTensor* softmaxSumOut) {
  return LaunchRing(call, prevAttnOut, prevSoftmaxMax, prevSoftmaxSum, curAttnOut, curSoftmaxMax,
                    curSoftmaxSum, inputLayoutOptional, nullptr, attnOutOut, softmaxMaxOut, softmaxSumOut);
}

// lse: [N] each; localOut: [N,H] each; the result, and with updateType 1 the logarithm of all sums.
Status aclnn::AttentionUpdate(Call& call, const aclTensorList* lse, const aclTensorList* localOut,
                              int64_t updateType, aclTensor* out, aclTensor* lseOut) {
  if (updateType != 0 && updateType != 1)
    return call.Invalid("updateType is {}, expected 0 (no lseOut) or 1", updateType);
  if (lse->size == 0 || lse->size != localOut->size)
    return call.Invalid("lse has {} tensors and localOut {}, expected as many and at least one", lse->size,
                        localOut->size);
  const aclTensor* first = (*localOut)[0];
  RETURN_IF_ERROR(call.RequireRank(first, "localOut[0]", 2, 2));
  const int64_t rows = first->view.dims[0], width = first->view.dims[1];
  std::vector<Arg> args;
  for (size_t i = 0; i < lse->size; ++i) {
    RETURN_IF_ERROR(call.RequireShape((*lse)[i], "lse", &rows, 1));
    RETURN_IF_ERROR(call.RequireFloating((*lse)[i], "lse"));
    RETURN_IF_ERROR(call.RequireSameShape((*localOut)[i], "localOut", first, "localOut[0]"));
    RETURN_IF_ERROR(call.RequireFloating((*localOut)[i], "localOut"));
    args.push_back(In((*lse)[i]));
    args.push_back(In((*localOut)[i]));
  }
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", first, "localOut[0]"));
  RETURN_IF_ERROR(call.RequireFloating(out, "out"));
  args.push_back(Out(out));
  if (updateType == 1) {
    if (lseOut == nullptr) return call.Invalid("lseOut is null, but updateType is 1");
    RETURN_IF_ERROR(call.RequireShape(lseOut, "lseOut", &rows, 1));
    RETURN_IF_ERROR(call.RequireFloating(lseOut, "lseOut"));
    args.push_back(Out(lseOut));
  }
  if (rows == 0) return call.Nothing();
  const size_t parts = lse->size;
  const bool want_lse = updateType == 1;
  return call.Launch(
      args, Cost{2.0 * static_cast<double>(rows * width) * static_cast<double>(parts), 0},
      [parts, rows, width, want_lse](const Run& t) -> Status {
        std::vector<Values<float>> lses, outs;
        for (size_t i = 0; i < parts; ++i) {
          lses.emplace_back(t[2 * i]);
          outs.emplace_back(t[2 * i + 1]);
          if (!lses[i].ok() || !outs[i].ok()) return ScratchFailed(t.plan().name);
        }
        const Scratch<float> sum(rows * width), total(rows);
        if (!sum.ok() || !total.ok()) return ScratchFailed(t.plan().name);
        ParallelFor(rows, std::max<int64_t>(1, 8192 / (width + 1)), [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r) {
            float top = lses[0][r];
            for (const Values<float>& l : lses) top = std::max(top, l[r]);
            double exponents = 0;
            // An infinite maximum (no keys at all) weighs nothing.
            for (const Values<float>& l : lses)
              if (std::isfinite(top)) exponents += std::exp(static_cast<double>(l[r]) - top);
            total[r] = exponents > 0 ? static_cast<float>(top + std::log(exponents)) : top;
            float* __restrict to = sum.get() + r * width;
            std::fill_n(to, width, 0.0f);
            for (size_t i = 0; i < parts && exponents > 0; ++i) {
              const float weight =
                  static_cast<float>(std::exp(static_cast<double>(lses[i][r]) - top) / exponents);
              const float* from = outs[i].get() + r * width;
              for (int64_t j = 0; j < width; ++j) to[j] += weight * from[j];
            }
          }
        });
        StoreValues(t[2 * parts], sum.get());
        if (want_lse) StoreValues(t[2 * parts + 1], total.get());
        return Status();
      });
}

// softmax(x * scaleValue + attenMask + relativePosBias) over the last dimension. The mask and the bias are
// broadcast: x [B,W,N,S1,S2], mask [W,S1,S2], [W,1,S1,S2] or [1,W,1,S1,S2], bias [N,S1,S2] or [1,1,N,S1,S2].
Status aclnn::MaskedSoftmaxWithRelPosBias(Call& call, const aclTensor* x, const aclTensor* attenMaskOptional,
                                          const aclTensor* relativePosBias, double scaleValue, int64_t,
                                          const aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 4, 5));
  RETURN_IF_ERROR(call.RequireFloating(x, "x"));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", x, "x"));
  RETURN_IF_ERROR(call.RequireFloating(out, "out"));
  const TensorView& v = x->view;
  // [BW,N,S1,S2] without the windows apart: one window.
  const int64_t heads = v.dims[v.rank - 3], rows = v.dims[v.rank - 2], keys = v.dims[v.rank - 1];
  const aclTensor* mask = attenMaskOptional;
  const int64_t plane = rows * keys;
  int64_t windows = v.rank == 5 ? v.dims[1] : 1;
  if (mask != nullptr) {
    RETURN_IF_ERROR(call.RequireFloating(mask, "attenMask"));
    const int64_t given = plane > 0 ? mask->view.numel() / plane : windows;
    if (v.rank == 4 && given > 0 && v.dims[0] % given == 0) windows = given;
    if (mask->view.numel() != windows * plane)
      return call.Invalid("attenMask has shape {}, expected [{},{},{}] for x {}", ShapeString(mask->view),
                          windows, rows, keys, ShapeString(v));
  }
  RETURN_IF_ERROR(call.RequireFloating(relativePosBias, "relativePosBias"));
  if (relativePosBias->view.numel() != heads * plane)
    return call.Invalid("relativePosBias has shape {}, expected [{},{},{}] for x {}",
                        ShapeString(relativePosBias->view), heads, rows, keys, ShapeString(v));
  if (v.empty()) return call.Nothing();
  Operands o;
  const int at_x = o.Input(x), at_bias = o.Input(relativePosBias), at_mask = o.Input(mask),
            at_out = o.Output(out);
  return call.Launch(
      o.list(), Cost{20.0 * static_cast<double>(v.numel()), o.bytes()},
      [=, scale = static_cast<float>(scaleValue)](const Run& t) -> Status {
        const DenseInput x(t[at_x]);
        const DenseOutput y(t[at_out]);
        const Values<float> bias(t[at_bias]);
        const Values<float> mask(t, at_mask);
        if (!x.ok() || !y.ok() || !bias.ok() || !mask.ok()) return ScratchFailed(t.plan().name);
        const DenseReader<float> reader(x.view());
        const DenseWriter<float> writer(y.view());
        const int64_t count = x.view().numel() / keys;
        std::atomic<bool> failed{false};
        ParallelFor(count, std::max<int64_t>(1, 4096 / keys), [&](int64_t begin, int64_t end) {
          const Scratch<float> from(keys), to(keys);
          if (!from.ok() || !to.ok()) {
            failed = true;
            return;
          }
          for (int64_t r = begin; r < end; ++r) {
            const int64_t row = r % rows, head = r / rows % heads, window = r / rows / heads % windows;
            const float* in = reader.Read(r * keys, keys, from.get());
            const float* b = bias.get() + (head * rows + row) * keys;
            const float* m = mask.get() == nullptr ? nullptr : mask.get() + (window * rows + row) * keys;
            float* v = writer.Begin(r * keys, to.get());
            float top = -std::numeric_limits<float>::infinity();
            for (int64_t i = 0; i < keys; ++i) {
              v[i] = in[i] * scale + b[i] + (m != nullptr ? m[i] : 0.0f);
              top = std::max(top, v[i]);
            }
            double sum = 0;
            for (int64_t i = 0; i < keys; ++i) sum += v[i] = std::exp(v[i] - top);
            for (int64_t i = 0; i < keys; ++i) v[i] = static_cast<float>(v[i] / sum);
            writer.End(r * keys, keys, v);
          }
        });
        if (failed) return ScratchFailed(t.plan().name);
        y.Finish();
        return Status();
      });
}

}  // namespace anycann
