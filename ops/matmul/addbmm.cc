// Addbmm: out = beta * self + alpha * sum over the batch of batch1 @ batch2. The sum is kept in the
// accumulator's type and rounded once.
#include "aclnn_ops.h"
#include "base/scratch.h"
#include "ops/matmul/gemm.h"
#include "ops/matmul/product.h"

namespace anycann {
namespace {

Status SumOfProducts(const TensorView& self, const TensorView& a, const TensorView& b, const TensorView& out,
                     const ScalarValue& alpha, const ScalarValue& beta) {
  const bool exact = IsInteger(out.dtype) || out.dtype == DType::kBool;
  TensorView sum =
      TensorView::Contiguous(nullptr, exact ? DType::kInt64 : ComputeType(out.dtype), out.dims, 2);
  const int64_t items = a.dims[0];
  if (items == 0) {  // an empty sum: beta * self, a product of depth 0
    TensorView left = TensorView::Contiguous(nullptr, a.dtype, {out.dims[0], 0});
    TensorView right = TensorView::Contiguous(nullptr, b.dtype, {0, out.dims[1]});
    GemmArgs g = MakeGemm(left, right, out, &self);
    g.beta = beta;
    return Gemm(g);
  }
  if (items > 1) {
    sum.data = ThreadScratch(ScratchSlot::kShared2, static_cast<size_t>(sum.nbytes()));
    if (sum.data == nullptr)
      return Error(kBadAlloc, "no memory for the sum of products {}", ShapeString(out));
  }
  for (int64_t i = 0; i < items; ++i) {
    GemmArgs g = MakeGemm(a.Select(0, i), b.Select(0, i), i + 1 == items ? out : sum, i == 0 ? &self : &sum);
    g.alpha = alpha;
    if (i == 0) g.beta = beta;
    RETURN_IF_ERROR(Gemm(g));
  }
  return Status();
}

}  // namespace

Status aclnn::Addbmm(Call& call, const aclTensor* self, const aclTensor* batch1, const aclTensor* batch2,
                     const aclScalar* beta, const aclScalar* alpha, aclTensor* out, int8_t) {
  RETURN_IF_ERROR(CheckProductTypes(call, batch1, "batch1", batch2, "batch2", out));
  RETURN_IF_ERROR(call.RequireRank(batch1, "batch1", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(batch2, "batch2", 3, 3));
  const TensorView &a = batch1->view, &b = batch2->view;
  if (a.dims[0] != b.dims[0] || a.dims[2] != b.dims[1])
    return call.Invalid("batch1 {} and batch2 {} don't match", ShapeString(a), ShapeString(b));
  const int64_t dims[] = {a.dims[1], b.dims[2]};
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, 2));
  TensorView addend;
  if (!GemmSupports(self->view.dtype) || !BroadcastTo(self->view, dims, 2, &addend))
    return call.Invalid("self {} {} can't be added to out {}", ShapeString(self->view),
                        Name(self->view.dtype), ShapeString(out->view));
  if (out->view.empty()) return call.Nothing();
  const Cost cost{2.0 * static_cast<double>(out->view.numel() * a.dims[0] * a.dims[2]),
                  static_cast<double>(a.nbytes() + b.nbytes() + 2 * out->view.nbytes())};
  return call.Launch({In(self, addend), In(batch1), In(batch2), Out(out)}, cost,
                     [alpha = alpha->value, beta = beta->value](const Run& t) -> Status {
                       return SumOfProducts(t[0], t[1], t[2], t[3], alpha, beta);
                     });
}

}  // namespace anycann
