#include "ops/loss/mapped_sum.h"

#include <cstring>
#include <optional>

#include "base/parallel.h"
#include "ops/operand.h"
#include "ops/reduce/block_sum.h"

namespace anycann {
namespace {

constexpr int64_t kPiece = 32768;  // elements whose sum one thread makes
constexpr int64_t kStep = 1024;    // elements in the first-level cache at once

struct Source {
  const char* data;
  DType storage, compute;
  int64_t size;
};

double SumOfPiece(const ElementwiseKernel& kernel, const Source* sources, int64_t begin, int64_t end,
                  const void* params) {
  alignas(64) char converted[kMaxElementwiseInputs][kStep * 8];
  alignas(64) char values[kStep * 8];
  double sum = 0;
  for (int64_t i = begin; i < end; i += kStep) {
    const int64_t n = std::min(kStep, end - i);
    const void* in[kMaxElementwiseInputs];
    for (int k = 0; k < kernel.inputs; ++k) {
      const Source& s = sources[k];
      const char* from = s.data + i * s.size;
      if (s.storage != s.compute) Convert(converted[k], s.compute, from, s.storage, n);
      in[k] = s.storage == s.compute ? from : converted[k];
    }
    void* out = values;
    kernel.loop(&out, in, n, params);
    sum += kernel.out_types[0] == DType::kFloat ? SumOfValues(reinterpret_cast<const float*>(values), n)
                                                : SumOfValues(reinterpret_cast<const double*>(values), n);
  }
  return sum;
}

}  // namespace

Status RunMappedSum(const ElementwiseKernel& kernel, std::span<const TensorView> inputs,
                    const TensorView& out, double divisor, const void* params) {
  std::optional<Dense> dense[kMaxElementwiseInputs];
  Source sources[kMaxElementwiseInputs];
  for (size_t k = 0; k < inputs.size(); ++k) {
    dense[k].emplace(inputs[k], Dense::kRead);
    sources[k] = {dense[k]->view().bytes(), inputs[k].dtype, kernel.in_types[k], SizeOf(inputs[k].dtype)};
  }
  const int64_t n = inputs[0].numel(), pieces = (n + kPiece - 1) / kPiece;
  Buffer<double> sums = NewBuffer<double>(pieces);
  ParallelFor(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      sums[p] = SumOfPiece(kernel, sources, p * kPiece, std::min(n, (p + 1) * kPiece), params);
  });
  double sum = 0;
  for (int64_t p = 0; p < pieces; ++p) sum += sums[p];
  sum /= divisor;
  Convert(out.data, out.dtype, &sum, DType::kDouble, 1);
  return Status();
}

Status CheckMappedSum(Call& call, std::span<const aclTensor* const> inputs, const aclTensor* out,
                      std::span<Arg> args) {
  if (out->view.numel() != 1)
    return call.Invalid("out has shape {}, expected one element for a mean or sum", ShapeString(out->view));
  int64_t dims[kMaxRank];
  int rank = 0;
  for (const aclTensor* t : inputs)
    if (!BroadcastShapes(dims, &rank, t->view.dims, t->view.rank))
      return call.Invalid("an input of shape {} can't be broadcast to the others', {}", ShapeString(t->view),
                          ShapeString(dims, rank));
  for (size_t i = 0; i < inputs.size(); ++i) {
    args[i] = In(inputs[i]);
    BroadcastTo(inputs[i]->view, dims, rank, &args[i].view);
  }
  return Status();
}

Status ToReduction(const Call& call, int64_t value, Reduction* reduction) {
  if (value < 0 || value > 2)
    return call.Invalid("reduction is {}, expected 0 (none), 1 (mean) or 2 (sum)", value);
  *reduction = static_cast<Reduction>(value);
  return Status();
}

Status ToReduction(const Call& call, const char* name, Reduction* reduction) {
  *reduction = Reduction::kMean;
  if (name == nullptr || std::strcmp(name, "mean") == 0) return Status();
  if (std::strcmp(name, "none") == 0)
    *reduction = Reduction::kNone;
  else if (std::strcmp(name, "sum") == 0)
    *reduction = Reduction::kSum;
  else
    return call.Invalid("reduction is \"{}\", expected \"none\", \"mean\" or \"sum\"", name);
  return Status();
}

}  // namespace anycann
