// The sum over a batch of quantised products: y = sum of x1[b] @ x2[b] * x1Scale[b] over b, times x2Scale.
#include <algorithm>
#include <memory>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"
#include "ops/quant/integer_matrix.h"
#include "ops/quant/scale_rows.h"

namespace anycann {
namespace {

Status RunReduceSum(const Run& t, const IntegerMatrix& x1, const IntegerMatrix& x2) {
  const char* op = t.plan().name;
  Buffer<int8_t> left, right;
  TensorView a, b;
  RETURN_IF_ERROR(ResolveWeight(op, x2, t[1], &right, &b));
  RETURN_IF_ERROR(ResolveWeight(op, x1, t[0], &left, &a));
  const int64_t batch = a.dims[0], m = a.dims[1], n = b.dims[2];
  const Values<float> row(t[2]);
  const Scratch<int32_t> sums(m * n);
  const Scratch<float> total(m * n);
  if (!row.ok() || !sums.ok() || !total.ok()) return ScratchFailed(op);
  std::fill_n(total.get(), m * n, 0.0f);
  const TensorView to = TensorView::Contiguous(sums.get(), DType::kInt32, {m, n});
  for (int64_t i = 0; i < batch; ++i) {
    RETURN_IF_ERROR(Gemm(MakeGemm(a.Select(0, i), b.Select(0, i), to, nullptr)));
    ParallelFor(m, std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const float scale = row[i * m + r];
        float* __restrict v = total.get() + r * n;
        const int32_t* __restrict p = sums.get() + r * n;
        for (int64_t j = 0; j < n; ++j) v[j] += static_cast<float>(p[j]) * scale;
      }
    });
  }
  return ScaleRows(op, total.get(), t[3], t[4]);
}

}  // namespace

Status aclnn::QuantMatmulReduceSumWeightNz(Call& call, const aclTensor* x1, const aclTensor* x2,
                                           const aclTensor* x1Scale, const aclTensor* x2Scale,
                                           const aclTensor* yScale, const aclTensor* x1Offset,
                                           const aclTensor* x2Offset, const aclTensor* yOffset,
                                           const aclTensor* bias, bool transposeX1, bool transposeX2,
                                           int64_t groupSize, const aclIntArray* dims, bool keepDims,
                                           aclTensor* out) {
  for (const aclTensor* t : {yScale, x1Offset, x2Offset, yOffset, bias})
    if (t != nullptr && !t->view.empty())
      return call.Invalid("yScale, an offset or bias is given, expected x1Scale and x2Scale alone");
  if (x1Scale == nullptr || x2Scale == nullptr)
    return call.Invalid("x1Scale or x2Scale is absent, expected both");
  if (groupSize > 0) return call.Invalid("groupSize is {}, expected 0", groupSize);
  // The value is not read: there is one batch, and op-plugin passes an array whose memory it has given up.
  if (dims->size != 1) return call.Invalid("dims has {} values, expected 1 (the batch)", dims->size);
  RETURN_IF_ERROR(call.RequireRank(x1, "x1", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(x2, "x2", 3, 3));
  RETURN_IF_ERROR(call.RequireDType(x1, "x1", DType::kInt8));
  RETURN_IF_ERROR(call.RequireDType(x2, "x2", DType::kInt8));
  IntegerMatrix a, b;
  Arg args[5];
  RETURN_IF_ERROR(ReadIntegerMatrix(call, x1, "x1", transposeX1, &a, &args[0]));
  RETURN_IF_ERROR(ReadIntegerMatrix(call, x2, "x2", transposeX2, &b, &args[1]));
  const int64_t batch = a.view.dims[0], m = a.rows(), k = a.columns(), n = b.columns();
  if (b.view.dims[0] != batch || b.rows() != k)
    return call.Invalid("x1 {} and x2 {} don't match as products of a batch", ShapeString(x1->view),
                        ShapeString(x2->view));
  const int64_t shape[] = {1, m, n};
  RETURN_IF_ERROR(call.RequireShape(out, "out", keepDims ? shape : shape + 1, keepDims ? 3 : 2));
  RETURN_IF_ERROR(call.RequireFloating(out, "out"));
  if (x1Scale->view.numel() != batch * m || !IsFloating(x1Scale->view.dtype))
    return call.Invalid("x1Scale is {}, expected [{},{}] of float32", Describe(x1Scale), batch, m);
  RETURN_IF_ERROR(CheckRowScale(call, x2Scale, "x2Scale", n));
  if (out->view.empty()) return call.Nothing();
  args[2] = In(x1Scale), args[3] = In(x2Scale), args[4] = Out(out);
  struct Matrices {
    IntegerMatrix x1, x2;
  };
  auto matrices = std::make_shared<const Matrices>(Matrices{a, b});
  const double work = 2.0 * static_cast<double>(batch * m) * static_cast<double>(n) * static_cast<double>(k);
  return call.Launch(std::span<const Arg>(args, 5),
                     Cost{work, static_cast<double>(x1->view.nbytes() + x2->view.nbytes())},
                     [matrices](const Run& t) { return RunReduceSum(t, matrices->x1, matrices->x2); });
}

}  // namespace anycann
