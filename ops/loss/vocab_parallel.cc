// Cross entropy over a part of the vocabulary: the product with the part's weights, each row's largest logit
// and sum of exponents; the loss from those of all parts; and the gradient.
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

// Eight targets in a byte, the first the highest bit: 1 where it lies in another part.
bool MaskBit(const uint8_t* mask, int64_t row) { return (mask[row / 8] >> (7 - row % 8) & 1) != 0; }

struct Sizes {
  int64_t rows = 0, width = 0, words = 0;
};

// input [rows,width], weight [words,width].
Status ReadSizes(Call& call, const aclTensor* input, const aclTensor* weight, Sizes* s) {
  RETURN_IF_ERROR(call.RequireRank(input, "input", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 2, 2));
  *s = {input->view.dims[0], input->view.dims[1], weight->view.dims[0]};
  RETURN_IF_ERROR(call.RequireFloating(input, "input", {s->rows, s->width}));
  RETURN_IF_ERROR(call.RequireFloating(weight, "weight", {s->words, s->width}));
  if (s->words > 0) return Status();
  return call.Invalid("weight has shape {}: there are no words", ShapeString(weight->view));
}

Status RequireTargets(Call& call, const aclTensor* t, const char* name, int64_t rows) {
  RETURN_IF_ERROR(call.RequireShape(t, name, &rows, 1));
  if (IsInteger(t->view.dtype)) return Status();
  return call.Invalid("{} has type {}, expected int32 or int64", name, Name(t->view.dtype));
}

Status RequireMask(Call& call, const aclTensor* t, int64_t rows) {
  const int64_t bytes = (rows + 7) / 8;
  RETURN_IF_ERROR(call.RequireShape(t, "targetMask", &bytes, 1));
  return call.RequireDType(t, "targetMask", DType::kUint8);
}

TensorView Floats(const Scratch<float>& s, int64_t rows, int64_t columns) {
  return TensorView::Contiguous(s.get(), DType::kFloat, {rows, columns});
}

Status RequireNoSmoothing(Call& call, float smoothing) {
  return smoothing == 0 ? Status() : call.Invalid("labelSmoothing is {}, expected 0", smoothing);
}

}  // namespace

Status aclnn::FusedLinearOnlineMaxSum(Call& call, const aclTensor* input, const aclTensor* weight,
                                      const aclTensor* target, int64_t vocabStartIndex, int64_t vocabEndIndex,
                                      aclTensor* logitsMaxLocalOut, aclTensor* sumExpLogitsLocalOut,
                                      aclTensor* predictedLogitsLocalOut, aclTensor* targetMaskOut,
                                      aclTensor* maskedTargetOut, aclTensor* vocabParallelLogitsOutOptional) {
  Sizes s;
  RETURN_IF_ERROR(ReadSizes(call, input, weight, &s));
  RETURN_IF_ERROR(RequireTargets(call, target, "target", s.rows));
  if (vocabStartIndex < 0 || vocabEndIndex < vocabStartIndex || vocabEndIndex - vocabStartIndex > s.words)
    return call.Invalid("vocabStartIndex is {} and vocabEndIndex {}, expected a range of at most {} words",
                        vocabStartIndex, vocabEndIndex, s.words);
  for (const auto& [t, name] : {std::pair{logitsMaxLocalOut, "logitsMaxLocalOut"},
                                std::pair{sumExpLogitsLocalOut, "sumExpLogitsLocalOut"},
                                std::pair{predictedLogitsLocalOut, "predictedLogitsLocalOut"}})
    RETURN_IF_ERROR(call.RequireFloating(t, name, {s.rows}));
  RETURN_IF_ERROR(RequireMask(call, targetMaskOut, s.rows));
  RETURN_IF_ERROR(RequireTargets(call, maskedTargetOut, "maskedTargetOut", s.rows));
  const aclTensor* logits_out = Given(vocabParallelLogitsOutOptional);
  if (logits_out != nullptr)
    RETURN_IF_ERROR(call.RequireFloating(logits_out, "vocabParallelLogitsOut", {s.rows, s.words}));
  if (s.rows == 0) return call.Nothing();
  Operands o;
  const int in = o.Input(input), w = o.Input(weight), y = o.Input(target), max = o.Output(logitsMaxLocalOut),
            sum = o.Output(sumExpLogitsLocalOut), predicted = o.Output(predictedLogitsLocalOut),
            mask = o.Output(targetMaskOut), masked = o.Output(maskedTargetOut), out = o.Output(logits_out);
  const double flops = 2.0 * static_cast<double>(s.rows * s.width) * static_cast<double>(s.words);
  return call.Launch(o.list(), Cost{flops, o.bytes()}, [=](const Run& t) -> Status {
    const Scratch<float> logits(s.rows * s.words), maxima(s.rows), sums(s.rows), chosen(s.rows);
    const Values<int64_t> targets(t[y]);
    const Scratch<uint8_t> bits((s.rows + 7) / 8);
    const Scratch<int64_t> within(s.rows);
    if (!logits.ok() || !maxima.ok() || !sums.ok() || !chosen.ok() || !targets.ok() || !bits.ok() ||
        !within.ok())
      return ScratchFailed(t.plan().name);
    RETURN_IF_ERROR(Gemm(MakeGemm(t[in], t[w].Transpose(0, 1), Floats(logits, s.rows, s.words), nullptr)));
    std::fill_n(bits.get(), (s.rows + 7) / 8, uint8_t{0});
    for (int64_t r = 0; r < (s.rows + 7) / 8 * 8; ++r) {
      const bool hidden = r >= s.rows || targets[r] < vocabStartIndex || targets[r] > vocabEndIndex;
      if (hidden) bits[r / 8] |= static_cast<uint8_t>(1 << (7 - r % 8));
      if (r >= s.rows) continue;
      within[r] = hidden ? 0 : targets[r] - vocabStartIndex;
      if (within[r] >= s.words)
        return Error(kParamInvalid, "{}: target has {} at {}, word {} of a part of {}", t.plan().name,
                     targets[r], r, within[r], s.words);
    }
    ParallelFor(s.rows, std::max<int64_t>(1, 4096 / s.words), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float* row = logits.get() + r * s.words;
        const float top = *std::max_element(row, row + s.words);
        double total = 0;
        for (int64_t i = 0; i < s.words; ++i) total += std::exp(row[i] - top);
        maxima[r] = top;
        sums[r] = static_cast<float>(total);
        chosen[r] = MaskBit(bits.get(), r) ? 0 : row[within[r]] - top;
      }
    });
    StoreValues(t[max], maxima.get());
    StoreValues(t[sum], sums.get());
    StoreValues(t[predicted], chosen.get());
    StoreValues(t[mask], bits.get());
    StoreValues(t[masked], within.get());
    if (out >= 0) StoreValues(t[out], logits.get());
    return Status();
  });
}

Status aclnn::FusedCrossEntropyLossWithMaxSum(Call& call, const aclTensor* logitsMax,
                                              const aclTensor* sumExpLogits, const aclTensor* predictedLogits,
                                              float labelSmoothing, const aclTensor*, const aclTensor*,
                                              const aclTensor* vocabParallelLogitsOptional,
                                              aclTensor* lossOut, aclTensor* softMaxOutOptional) {
  RETURN_IF_ERROR(RequireNoSmoothing(call, labelSmoothing));
  RETURN_IF_ERROR(call.RequireRank(logitsMax, "logitsMax", 1, 1));
  const int64_t rows = logitsMax->view.dims[0];
  for (const auto& [t, name] : {std::pair{logitsMax, "logitsMax"}, std::pair{sumExpLogits, "sumExpLogits"},
                                std::pair{predictedLogits, "predictedLogits"},
                                std::pair<const aclTensor*, const char*>{lossOut, "loss"}})
    RETURN_IF_ERROR(call.RequireFloating(t, name, {rows}));
  const aclTensor* logits = Given(vocabParallelLogitsOptional);
  const aclTensor* softmax = logits == nullptr ? nullptr : Given(softMaxOutOptional);
  int64_t words = 0;
  if (softmax != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(logits, "vocabParallelLogits", 2, 2));
    words = logits->view.dims[1];
    RETURN_IF_ERROR(call.RequireFloating(logits, "vocabParallelLogits", {rows, words}));
    RETURN_IF_ERROR(call.RequireFloating(softmax, "softMaxOut", {rows, words}));
  }
  if (rows == 0) return call.Nothing();
  Operands o;
  const int max = o.Input(logitsMax), sum = o.Input(sumExpLogits), predicted = o.Input(predictedLogits),
            in = o.Input(softmax == nullptr ? nullptr : logits), loss = o.Output(lossOut),
            out = o.Output(softmax);
  return call.Launch(o.list(), Cost{8.0 * static_cast<double>(rows * words), o.bytes()},
                     [=](const Run& t) -> Status {
                       const Values<float> m(t[max]), s(t[sum]), p(t[predicted]);
                       const Scratch<float> losses(rows), weights(rows * words);
                       const Values<float> x(t, in);
                       if (!m.ok() || !s.ok() || !p.ok() || !losses.ok() || !weights.ok() || !x.ok())
                         return ScratchFailed(t.plan().name);
                       for (int64_t r = 0; r < rows; ++r)
                         losses[r] = static_cast<float>(std::log(static_cast<double>(s[r])) - p[r]);
                       ParallelFor(out >= 0 ? rows : 0, std::max<int64_t>(1, 4096 / (words + 1)),
                                   [&](int64_t begin, int64_t end) {
                                     for (int64_t r = begin; r < end; ++r)
                                       for (int64_t i = r * words; i < (r + 1) * words; ++i)
                                         weights[i] = std::exp(x[i] - m[r]) / s[r];
                                   });
                       StoreValues(t[loss], losses.get());
                       if (out >= 0) StoreValues(t[out], weights.get());
                       return Status();
                     });
}

Status aclnn::FusedLinearCrossEntropyLossGrad(Call& call, const aclTensor* grad, const aclTensor* input,
                                              const aclTensor* weight, const aclTensor* targetMask,
                                              const aclTensor* maskedTarget, float labelSmoothing,
                                              const aclTensor* logitsMaxOptional,
                                              const aclTensor* sumExpLogitsOptional,
                                              const aclTensor* softmaxOptional, aclTensor* inputGradOut,
                                              aclTensor* weightGradOut) {
  RETURN_IF_ERROR(RequireNoSmoothing(call, labelSmoothing));
  Sizes s;
  RETURN_IF_ERROR(ReadSizes(call, input, weight, &s));
  RETURN_IF_ERROR(call.RequireFloating(grad, "grad", {s.rows}));
  RETURN_IF_ERROR(RequireMask(call, targetMask, s.rows));
  RETURN_IF_ERROR(RequireTargets(call, maskedTarget, "maskedTarget", s.rows));
  RETURN_IF_ERROR(call.RequireFloating(inputGradOut, "inputGrad", {s.rows, s.width}));
  RETURN_IF_ERROR(call.RequireFloating(weightGradOut, "weightGrad", {s.words, s.width}));
  const aclTensor *softmax = Given(softmaxOptional), *maxima = nullptr, *sums = nullptr;
  if (softmax != nullptr) {
    RETURN_IF_ERROR(call.RequireFloating(softmax, "softmax", {s.rows, s.words}));
  } else {
    maxima = Given(logitsMaxOptional), sums = Given(sumExpLogitsOptional);
    if (maxima == nullptr || sums == nullptr)
      return call.Invalid(
          "softmaxOptional is absent, so logitsMaxOptional and sumExpLogitsOptional are needed");
    RETURN_IF_ERROR(call.RequireFloating(maxima, "logitsMax", {s.rows}));
    RETURN_IF_ERROR(call.RequireFloating(sums, "sumExpLogits", {s.rows}));
  }
  Operands o;
  const int g = o.Input(grad), in = o.Input(input), w = o.Input(weight), mask = o.Input(targetMask),
            target = o.Input(maskedTarget), p = o.Input(softmax), max = o.Input(maxima), sum = o.Input(sums),
            gx = o.Output(inputGradOut), gw = o.Output(weightGradOut);
  const double flops = 6.0 * static_cast<double>(s.rows * s.width) * static_cast<double>(s.words);
  return call.Launch(o.list(), Cost{flops, o.bytes()}, [=](const Run& t) -> Status {
    const Values<float> grads(t[g]);
    const Values<uint8_t> bits(t[mask]);
    const Values<int64_t> within(t[target]);
    const Scratch<float> logits(s.rows * s.words);
    if (!grads.ok() || !bits.ok() || !within.ok() || !logits.ok()) return ScratchFailed(t.plan().name);
    const TensorView d = Floats(logits, s.rows, s.words);
    for (int64_t r = 0; r < s.rows; ++r)
      if (within[r] < 0 || within[r] >= s.words)
        return Error(kParamInvalid, "{}: maskedTarget has {}, expected 0 to {}", t.plan().name, within[r],
                     s.words - 1);
    if (p >= 0) {
      CopyCast(d, t[p]);
    } else {
      const Values<float> m(t[max]), n(t[sum]);
      if (!m.ok() || !n.ok()) return ScratchFailed(t.plan().name);
      RETURN_IF_ERROR(Gemm(MakeGemm(t[in], t[w].Transpose(0, 1), d, nullptr)));
      ParallelFor(s.rows, std::max<int64_t>(1, 4096 / s.words), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
          for (int64_t i = r * s.words; i < (r + 1) * s.words; ++i)
            logits[i] = std::exp(logits[i] - m[r]) / n[r];
      });
    }
    for (int64_t r = 0; r < s.rows; ++r) {
      float* row = logits.get() + r * s.words;
      if (!MaskBit(bits.get(), r)) row[within[r]] -= 1;
      for (int64_t i = 0; i < s.words; ++i) row[i] *= grads[r];
    }
    RETURN_IF_ERROR(Gemm(MakeGemm(d, t[w], t[gx], nullptr)));
    return Gemm(MakeGemm(d.Transpose(0, 1), t[in], t[gw], nullptr));
  });
}

}  // namespace anycann
