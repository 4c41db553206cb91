// RepeatInterleave: every element (or slice) several times in a row, by one number or by a tensor of them.
#include <algorithm>

#include "aclnn_ops.h"
#include "ops/call.h"
#include "ops/indexing/positions.h"
#include "ops/indexing/slices.h"

namespace anycann {
namespace {

TensorView Flat(const Dense& d) {
  const int64_t n = d.view().numel();
  return TensorView::Contiguous(d.view().data, d.view().dtype, &n, 1);
}

Cost CopyCost(const aclTensor* self, const aclTensor* out) {
  return {0, static_cast<double>(self->view.nbytes() + out->view.nbytes())};
}

// For each position of the result the index that it repeats. repeats: one number for all, or one for each.
Status ExpandRepeats(const char* op, const TensorView& repeats, int64_t count, int64_t total,
                     Buffer<int64_t>* rows) {
  const Dense dense(repeats, DType::kInt64, Dense::kRead);
  const int64_t* r = dense.ptr<const int64_t>();
  const int64_t n = repeats.numel();
  int64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t x = r[n == 1 ? 0 : i];
    if (x < 0) return Error(kRuntimeError, "{}: repeats[{}] is {}, expected no negative number", op, i, x);
    if (x > total - sum) {
      sum = INT64_MAX;
      break;
    }
    sum += x;
  }
  if (sum != total)
    return Error(kRuntimeError, "{}: repeats add up to {}, but out has room for {}", op,
                 sum > total ? "more" : std::to_string(sum), total);
  *rows = NewBuffer<int64_t>(total);
  int64_t* out = rows->get();
  for (int64_t i = 0; i < count; ++i) out = std::fill_n(out, r[n == 1 ? 0 : i], i);
  return Status();
}

Status CheckRepeats(Call& call, const aclTensor* repeats, int64_t count) {
  if (!IsIndexType(repeats->view.dtype))
    return call.Invalid("repeats has type {}, expected an integer", Name(repeats->view.dtype));
  const int64_t n = repeats->view.numel();
  if (repeats->view.rank <= 1 && (n == 1 || n == count)) return Status();
  return call.Invalid("repeats has shape {}, expected [{}] or [1]", ShapeString(repeats->view), count);
}

// out's shape is self's with `size` in dimension d; -1 leaves that size to out.
Status CheckOut(Call& call, const TensorView& self, int d, int64_t size, const aclTensor* out) {
  TensorView expected = self;
  if (expected.rank == 0) expected = expected.Unsqueeze(0);
  expected.dims[d] = size >= 0 ? size : out->view.rank == expected.rank ? out->view.dims[d] : 0;
  return call.RequireShape(out, "out", expected.dims, expected.rank);
}

// The slices of t[0] along d, each repeated as t[1] says, into t[2].
Status RepeatSlices(const char* op, const TensorView& self, const TensorView& repeats, int d,
                    const TensorView& out) {
  Buffer<int64_t> rows;
  RETURN_IF_ERROR(ExpandRepeats(op, repeats, self.dims[d], out.dims[d], &rows));
  for (int64_t i = 0; i < out.dims[d]; ++i) rows[i] *= self.strides[d];
  Dense result(out, self.dtype, Dense::kWrite);
  GatherSlices(self, SliceSpace::Along(self, d), rows.get(), out.dims[d], result.ptr<void>());
  result.Commit();
  return Status();
}

// Each slice of `self` along d as often as the same number says.
void RepeatEvenly(const TensorView& self, int64_t repeats, int d, const TensorView& out) {
  const auto spread = [&](const TensorView& from, const TensorView& to, int dim) {
    TensorView in = from.Unsqueeze(dim + 1), result = to.Unsqueeze(dim + 1);
    in.dims[dim + 1] = result.dims[dim + 1] = repeats;
    result.dims[dim] = from.dims[dim];
    result.strides[dim + 1] = to.strides[dim];
    result.strides[dim] = to.strides[dim] * repeats;
    CopyCast(result, in);
  };
  if (self.rank < kMaxRank) {
    spread(self, out, d);
    return;
  }
  const int other = d == 0 ? 1 : 0;
  for (int64_t i = 0; i < self.dims[other]; ++i)
    spread(self.Select(other, i), out.Select(other, i), d - (other < d));
}

// `total` becomes count * repeats.
Status CountRepeated(Call& call, int64_t count, int64_t repeats, int64_t* total) {
  if (repeats < 0) return call.Invalid("repeats is {}, expected no negative number", repeats);
  if (__builtin_mul_overflow(count, repeats, total))
    return call.Invalid("repeats is {}, too many for {} elements", repeats, count);
  return Status();
}

}  // namespace

Status aclnn::RepeatInterleaveTensor(Call& call, const aclTensor* repeats, int64_t outputSize,
                                     aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(repeats, "repeats", 1, 1));
  RETURN_IF_ERROR(CheckRepeats(call, repeats, repeats->view.dims[0]));
  RETURN_IF_ERROR(call.RequireShape(out, "out", &outputSize, 1));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(repeats), Out(out)}, CopyCost(repeats, out), [](const Run& t) -> Status {
    Buffer<int64_t> rows;
    const int64_t total = t[1].dims[0];
    RETURN_IF_ERROR(ExpandRepeats(t.plan().name, t[0], t[0].dims[0], total, &rows));
    CopyCast(t[1], TensorView::Contiguous(rows.get(), DType::kInt64, &total, 1));
    return Status();
  });
}

Status aclnn::RepeatInterleaveWithDim(Call& call, const aclTensor* self, const aclTensor* repeats,
                                      int64_t dim, int64_t outputSize, aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(CheckRepeats(call, repeats, self->view.rank == 0 ? 1 : self->view.dims[d]));
  RETURN_IF_ERROR(CheckOut(call, self->view, d, outputSize, out));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), In(repeats), Out(out)}, CopyCost(self, out), [d](const Run& t) -> Status {
    return RepeatSlices(t.plan().name, t[0].rank == 0 ? t[0].Unsqueeze(0) : t[0], t[1], d, t[2]);
  });
}

Status aclnn::RepeatInterleave(Call& call, const aclTensor* self, const aclTensor* repeats,
                               int64_t outputSize, aclTensor* out) {
  RETURN_IF_ERROR(CheckRepeats(call, repeats, self->view.numel()));
  RETURN_IF_ERROR(call.RequireShape(out, "out", &outputSize, 1));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), In(repeats), Out(out)}, CopyCost(self, out), [](const Run& t) -> Status {
    const Dense self(t[0], Dense::kRead);
    return RepeatSlices(t.plan().name, Flat(self), t[1], 0, t[2]);
  });
}

Status aclnn::RepeatInterleaveInt(Call& call, const aclTensor* self, int64_t repeats, int64_t,
                                  aclTensor* out) {
  int64_t expected;
  RETURN_IF_ERROR(CountRepeated(call, self->view.numel(), repeats, &expected));
  RETURN_IF_ERROR(call.RequireShape(out, "out", &expected, 1));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), Out(out)}, CopyCost(self, out), [repeats](const Run& t) -> Status {
    const Dense self(t[0], Dense::kRead);
    RepeatEvenly(Flat(self), repeats, 0, t[1]);
    return Status();
  });
}

Status aclnn::RepeatInterleaveIntWithDim(Call& call, const aclTensor* self, int64_t repeats, int64_t dim,
                                         int64_t, aclTensor* out) {
  int d;
  int64_t expected;
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  RETURN_IF_ERROR(CountRepeated(call, self->view.rank == 0 ? 1 : self->view.dims[d], repeats, &expected));
  RETURN_IF_ERROR(CheckOut(call, self->view, d, expected, out));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), Out(out)}, CopyCost(self, out), [d, repeats](const Run& t) -> Status {
    RepeatEvenly(t[0].rank == 0 ? t[0].Unsqueeze(0) : t[0], repeats, d, t[1]);
    return Status();
  });
}

// The gradient: sums the slices that were repeated from the same one.
Status aclnn::RepeatInterleaveGrad(Call& call, const aclTensor* yGrad, const aclTensor* repeats, int64_t axis,
                                   const aclTensor* out) {
  int d;
  RETURN_IF_ERROR(call.WrapDim(axis, out->view.rank, "axis", &d));
  RETURN_IF_ERROR(call.RequireRank(out, "out", 1, kMaxRank));
  RETURN_IF_ERROR(CheckRepeats(call, repeats, out->view.dims[d]));
  RETURN_IF_ERROR(CheckOut(call, out->view, d, -1, yGrad));
  RETURN_IF_ERROR(call.RequireCastable(yGrad->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  const DType compute = ComputeType(yGrad->view.dtype);
  return call.Launch({In(yGrad), In(repeats), Out(out)}, CopyCost(yGrad, out),
                     [d, compute](const Run& t) -> Status {
                       const Dense grad(t[0], compute, Dense::kRead);
                       Buffer<int64_t> rows;
                       RETURN_IF_ERROR(ExpandRepeats(t.plan().name, t[1], t[2].dims[d], t[0].dims[d], &rows));
                       Strided sum(t[2], compute, Dense::kWrite);
                       const char zero[16] = {};
                       Fill(sum.view(), zero);
                       for (int64_t i = 0; i < t[0].dims[d]; ++i) rows[i] *= sum.view().strides[d];
                       AccumulateSlices(sum.view(), SliceSpace::Along(sum.view(), d), rows.get(),
                                        t[0].dims[d], grad.ptr<void>(), false, nullptr, nullptr);
                       sum.Commit();
                       return Status();
                     });
}

}  // namespace anycann
