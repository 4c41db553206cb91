// Samples from discrete distributions (multinomial) and random permutations.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <vector>

#include "aclnn_ops.h"
#include "base/scratch_array.h"
#include "base/vector_math.h"
#include "ops/convert.h"
#include "ops/random/draw.h"

namespace anycann {
namespace {

// Words for the numbers [first, first + n) of a sequence, whatever first is.
void WordsFrom(const Philox& philox, int64_t first, int64_t n, uint32_t* words) {
  uint32_t group[Philox::kGroup];
  for (int64_t i = 0; i < n;) {
    const int64_t at = first + i, inside = at % Philox::kGroup, m = std::min(n - i, Philox::kGroup - inside);
    philox.Group(static_cast<uint64_t>(at / Philox::kGroup), 0, group);
    std::copy_n(group + inside, m, words + i);
    i += m;
  }
}

// One row of weights as doubles; false when it is not a distribution.
bool LoadWeights(const TensorView& row, double* weights, int64_t n) {
  CopyCast(TensorView::Contiguous(weights, DType::kDouble, row.dims, row.rank), row);
  int bad = 0;
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) bad |= !((weights[i] >= 0) & (weights[i] < HUGE_VAL));
  for (int64_t i = 0; i < n; ++i) largest = weights[i] > largest ? weights[i] : largest;
  return !bad && largest > 0;
}

// Weights summed up to each class, in eight segments that are summed side by side: one running sum would wait
// for every addition.
class Cumulative {
 public:
  Cumulative(double* sums, int64_t n) : sums_(sums), length_((n + kSegments - 1) / kSegments) {
    double running[kSegments] = {};
    for (int64_t j = 0; j < length_; ++j)
      for (int k = 0; k < kSegments; ++k)
        if (k * length_ + j < n) running[k] = sums[k * length_ + j] += running[k];
    for (int k = 0; k < kSegments; ++k) {
      begin_[k] = std::min(n, k * length_);
      end_[k] = std::min(n, (k + 1) * length_);
      before_[k] = total_;
      total_ += running[k];
      if (running[k] > 0) last_ = k;
    }
  }
  double total() const { return total_; }

  // The class whose share of [0, total) holds u; never one of weight 0.
  int64_t Find(double u) const {
    int k = 0;
    while (k < last_ && u >= before_[k + 1]) ++k;
    const double* first = sums_ + begin_[k];
    const double* end = sums_ + end_[k];
    // Rounding may put u at the segment's very end: then it is the last class that counts.
    const double* found = std::upper_bound(first, end, u - before_[k]);
    if (found == end) found = std::lower_bound(first, end, end[-1]);
    return found - sums_;
  }

 private:
  static constexpr int kSegments = 8;
  const double* sums_;
  int64_t length_;
  int64_t begin_[kSegments], end_[kSegments];
  double before_[kSegments];
  double total_ = 0;
  int last_ = 0;
};

void SampleWithReplacement(const Philox& philox, int64_t row, double* weights, int64_t n, int64_t samples,
                           int64_t* out) {
  const Cumulative cumulative(weights, n);
  constexpr int64_t kPiece = 256;
  uint32_t words[2 * kPiece];
  for (int64_t start = 0; start < samples; start += kPiece) {
    const int64_t m = std::min(kPiece, samples - start);
    WordsFrom(philox, 2 * (row * samples + start), 2 * m, words);
    for (int64_t i = 0; i < m; ++i) {
      const uint64_t bits = static_cast<uint64_t>(words[2 * i]) << 32 | words[2 * i + 1];
      out[start + i] = cumulative.Find(static_cast<double>(bits >> 11) * 0x1p-53 * cumulative.total());
    }
  }
}

// The classes with the largest weight / exponential number: samples without replacement, in the order in
// which they would be drawn.
bool SampleWithoutReplacement(const Philox& philox, int64_t row, double* weights, int64_t n, int64_t samples,
                              int64_t* out) {
  constexpr int64_t kPiece = 512;
  uint32_t words[kPiece];
  for (int64_t start = 0; start < n; start += kPiece) {
    const int64_t m = std::min(kPiece, n - start);
    WordsFrom(philox, row * n + start, m, words);
    for (int64_t i = 0; i < m; ++i) {
      const float u = static_cast<float>((words[i] >> 8) + 1) * 0x1p-24f - 0x1p-25f;  // inside (0, 1)
      weights[start + i] /= static_cast<double>(-math::Log(u));
    }
  }
  if (samples == 1) {
    out[0] = std::max_element(weights, weights + n) - weights;
    return true;
  }
  ScratchArray<int64_t> order(n);
  if (!order) return false;
  std::iota(order.get(), order.get() + n, int64_t{0});
  std::partial_sort(order.get(), order.get() + samples, order.get() + n, [weights](int64_t a, int64_t b) {
    return weights[a] != weights[b] ? weights[a] > weights[b] : a < b;
  });
  std::copy_n(order.get(), samples, out);
  return true;
}

Status RunMultinomial(const TensorView& self, const TensorView& out, int64_t samples, bool replacement,
                      const Philox& philox) {
  const bool rows_given = self.rank == 2;
  const int64_t rows = rows_given ? self.dims[0] : 1, n = self.dims[self.rank - 1];
  ScratchArray<int64_t> drawn(rows * samples);
  if (!drawn) return Status(kInner, "out of memory");
  std::atomic<int64_t> bad{-1};
  std::atomic<bool> no_memory{false};
  ParallelFor(rows, std::max<int64_t>(1, 20000 / n), [&](int64_t begin, int64_t end) {
    ScratchArray<double> weights(n);
    if (!weights) no_memory = true;
    for (int64_t row = begin; row < end && weights; ++row) {
      int64_t* to = drawn.get() + row * samples;
      std::fill_n(to, samples, int64_t{0});
      if (!LoadWeights(rows_given ? self.Select(0, row) : self, weights.get(), n)) {
        bad = row;
      } else if (replacement) {
        SampleWithReplacement(philox, row, weights.get(), n, samples, to);
      } else if (!SampleWithoutReplacement(philox, row, weights.get(), n, samples, to)) {
        no_memory = true;
      }
    }
  });
  if (no_memory) return Status(kInner, "out of memory");
  if (bad >= 0)
    return Error(kParamInvalid,
                 "the weights of row {} are no distribution: they must be finite, not negative, and have a "
                 "positive sum",
                 bad.load());
  CopyCast(out, TensorView::Contiguous(drawn.get(), DType::kInt64, out.dims, out.rank));
  return Status();
}

Status Sample(Call& call, const aclTensor* self, int64_t samples, bool replacement, const Seeding& seeding,
              const aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, 2));
  RETURN_IF_ERROR(CheckSeeding(call, seeding));
  const DType type = self->view.dtype;
  if (!IsFloating(type)) return call.Invalid("self has type {}, expected a floating type", Name(type));
  const int rank = self->view.rank;
  const int64_t n = self->view.dims[rank - 1];
  if (n == 0) return call.Invalid("self has shape {}, expected at least one class", ShapeString(self->view));
  if (samples <= 0) return call.Invalid("numsamples is {}, expected a positive number", samples);
  if (!replacement && samples > n)
    return call.Invalid("numsamples is {}, expected at most the {} classes without replacement", samples, n);
  const int64_t shape[] = {self->view.dims[0], samples};
  RETURN_IF_ERROR(rank == 2 ? call.RequireShape(out, "out", shape, 2)
                            : call.RequireShape(out, "out", shape + 1, 1));
  RETURN_IF_ERROR(call.RequireCastable(DType::kInt64, out, "out"));
  if (out->view.empty()) return call.Nothing();
  Arg operands[4] = {In(self), Out(out)};
  size_t count = 2;
  SeedingAtRun at_run{seeding.seed, seeding.offset, -1};
  if (seeding.seed_tensor != nullptr) {
    at_run.first = 2;
    operands[count++] = In(seeding.seed_tensor);
    operands[count++] = In(seeding.offset_tensor);
  }
  return call.Launch(
      std::span<const Arg>(operands, count),
      Cost{20.0 * static_cast<double>(self->view.numel()), static_cast<double>(self->view.nbytes())},
      [=](const Run& t) { return RunMultinomial(t[0], t[1], samples, replacement, at_run.Get(t)); });
}

// Fisher and Yates's shuffle. T holds the indices; words of 64 bits keep the permutations equally likely.
template <class T>
void Shuffle(const Philox& philox, T* order, int64_t n) {
  std::iota(order, order + n, T(0));
  constexpr int64_t kPiece = 512;
  uint64_t words[kPiece];
  for (int64_t start = 0; start < n; start += kPiece) {
    const int64_t m = std::min(kPiece, n - start);
    DrawWideWords(philox, start, m, words);
    for (int64_t i = start; i < start + m; ++i) {
      const uint64_t left = static_cast<uint64_t>(n - i);
      const int64_t j =
          i + static_cast<int64_t>(static_cast<unsigned __int128>(words[i - start]) * left >> 64);
      std::swap(order[i], order[j]);
    }
  }
}

template <class T>
Status RunRandperm(const TensorView& out, const Philox& philox) {
  const int64_t n = out.dims[0];
  if (out.dtype == kDTypeOf<T> && out.contiguous()) {
    Shuffle(philox, out.ptr<T>(), n);
    return Status();
  }
  ScratchArray<T> order(n);
  if (!order) return Status(kInner, "out of memory");
  Shuffle(philox, order.get(), n);
  CopyCast(out, TensorView::Contiguous(order.get(), kDTypeOf<T>, {n}));
  return Status();
}

}  // namespace

Status aclnn::Multinomial(Call& call, const aclTensor* self, int64_t numsamples, bool replacement,
                          int64_t seed, int64_t offset, aclTensor* out) {
  return Sample(call, self, numsamples, replacement, {seed, offset}, out);
}
Status aclnn::MultinomialTensor(Call& call, const aclTensor* self, int64_t numsamples, bool replacement,
                                const aclTensor* seedTensor, const aclTensor* offsetTensor, int64_t offset,
                                aclTensor* out) {
  return Sample(call, self, numsamples, replacement, {0, offset, seedTensor, offsetTensor}, out);
}

Status aclnn::Randperm(Call& call, int64_t n, int64_t seed, int64_t offset, aclTensor* out) {
  if (n < 0) return call.Invalid("n is {}, expected a number that isn't negative", n);
  RETURN_IF_ERROR(call.RequireShape(out, "out", &n, 1));
  RETURN_IF_ERROR(call.RequireCastable(DType::kInt64, out, "out"));
  if (n == 0) return call.Nothing();
  const Philox philox{static_cast<uint64_t>(seed), static_cast<uint64_t>(offset)};
  return call.Launch({Out(out)}, Cost{5.0 * static_cast<double>(n), static_cast<double>(out->view.nbytes())},
                     [philox](const Run& t) {
                       return t[0].dtype == DType::kInt64 || t[0].dims[0] > INT32_MAX
                                  ? RunRandperm<int64_t>(t[0], philox)
                                  : RunRandperm<int32_t>(t[0], philox);
                     });
}

}  // namespace anycann
