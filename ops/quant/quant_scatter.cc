// Quantised rows written into a cache: along `axis`, from the position that indices give for each batch.
#include "aclnn_ops.h"
#include "ops/norm/operands.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

struct ScatterPlaces {
  int self, indices, updates, scales, zeros;
};

// y = round(update / scale + zero point), self[batch, .., position + s, ..] = y[.., s, ..]
Status RunScatter(const Run& t, const RowFormat& f, int axis, const ScatterPlaces& at) {
  const char* op = t.plan().name;
  const TensorView &self = t[at.self], &shape = t[at.updates];
  const Values<int64_t> indices(t[at.indices]);
  const DenseInput updates(shape);
  const GroupValues scale(t[at.scales], 1, f.n);
  const GroupValues zero = at.zeros >= 0 ? GroupValues(t[at.zeros], 1, f.n) : GroupValues();
  const Scratch<int8_t> rows(shape.numel());
  if (!indices.ok() || !updates.ok() || !scale.ok() || !zero.ok() || !rows.ok()) return ScratchFailed(op);
  const bool pairs = t[at.indices].rank == 2;
  const int64_t span = shape.dims[axis], room = self.dims[axis] - span;
  for (int64_t i = 0; i < shape.dims[0]; ++i) {
    const int64_t batch = pairs ? indices[2 * i] : i, position = indices[pairs ? 2 * i + 1 : i];
    if (batch < 0 || batch >= self.dims[0] || position < 0 || position > room)
      return Error(kParamInvalid, "{}: indices has batch {} and position {} at {}, expected below {} and {}",
                   op, batch, position, i, self.dims[0], room + 1);
  }
  TensorView quantised = TensorView::Contiguous(rows.get(), DType::kInt8, shape.dims, shape.rank);
  const QuantRows y(f, quantised);
  const DenseReader<float> reader(updates.view());
  if (!ForEachRow(f.rows, f.n, [&](int64_t r, float* v) {
        const float* p = reader.Read(r * f.n, f.n, v);
        if (p != v) std::copy_n(p, f.n, v);
        scale.Apply(0, f.n, v, [](float a, float b) { return a / b; });
        if (zero) zero.Apply(0, f.n, v, [](float a, float b) { return a + b; });
        y.Store(r, v);
      }))
    return ScratchFailed(op);
  for (int64_t i = 0; i < shape.dims[0]; ++i) {
    const int64_t batch = pairs ? indices[2 * i] : i, position = indices[pairs ? 2 * i + 1 : i];
    CopyCast(self.Select(0, batch).Narrow(axis - 1, position, span), quantised.Select(0, i));
  }
  return Status();
}

}  // namespace

Status aclnn::InplaceQuantScatter(Call& call, aclTensor* selfRef, const aclTensor* indices,
                                  const aclTensor* updates, const aclTensor* quantScales,
                                  const aclTensor* quantZeroPoints, int64_t axis, int64_t quantAxis,
                                  int64_t reduction) {
  return InplaceQuantScatterV2(call, selfRef, indices, updates, quantScales, quantZeroPoints, axis, quantAxis,
                               reduction, "rint");
}

Status aclnn::InplaceQuantScatterV2(Call& call, aclTensor* selfRef, const aclTensor* indices,
                                    const aclTensor* updates, const aclTensor* quantScales,
                                    const aclTensor* quantZeroPoints, int64_t axis, int64_t quantAxis,
                                    int64_t reduction, const char* roundMode) {
  const TensorView &self = selfRef->view, &shape = updates->view;
  RETURN_IF_ERROR(call.RequireRank(selfRef, "selfRef", 3, kMaxRank));
  RETURN_IF_ERROR(call.RequireRank(updates, "updates", self.rank, self.rank));
  RETURN_IF_ERROR(call.RequireDType(selfRef, "selfRef", DType::kInt8));
  if (!IsFloating(shape.dtype))
    return call.Invalid("updates has type {}, expected a floating type", Name(shape.dtype));
  if (reduction != 1) return call.Invalid("reduction is {}, expected 1 (update)", reduction);
  int dim, quant_dim;
  RETURN_IF_ERROR(call.WrapDim(axis, self.rank, "axis", &dim));
  RETURN_IF_ERROR(call.WrapDim(quantAxis, self.rank, "quantAxis", &quant_dim));
  if (dim == 0 || dim == self.rank - 1)
    return call.Invalid("axis is {}, expected neither the first nor the last dimension", axis);
  if (quant_dim != self.rank - 1)
    return call.Invalid("quantAxis is {}, expected the last dimension (-1)", quantAxis);
  const TensorView& at_index = indices->view;
  if ((at_index.dtype != DType::kInt32 && at_index.dtype != DType::kInt64) || at_index.rank < 1 ||
      at_index.rank > 2 || at_index.dims[0] != shape.dims[0] || (at_index.rank == 2 && at_index.dims[1] != 2))
    return call.Invalid("indices is {}, expected [{}] or [{},2] of int32", Describe(indices), shape.dims[0],
                        shape.dims[0]);
  for (int i = 0; i < self.rank; ++i)
    if (i == 0 || i == dim ? shape.dims[i] > self.dims[i] : shape.dims[i] != self.dims[i])
      return call.Invalid("updates has shape {}, expected selfRef's {}, less only in dimensions 0 and {}",
                          ShapeString(shape), ShapeString(self), dim);
  RowFormat f;
  RETURN_IF_ERROR(ReadRounding(call, roundMode, "roundMode", &f));
  f.n = shape.dims[shape.rank - 1];
  f.rows = f.n == 0 ? 0 : shape.numel() / f.n;
  RETURN_IF_ERROR(GroupValues::Check(call, quantScales, "quantScales", 1, f.n));
  RETURN_IF_ERROR(GroupValues::Check(call, quantZeroPoints, "quantZeroPoints", 1, f.n));
  if (shape.empty()) return call.Nothing();
  Operands o;
  const ScatterPlaces at = {o.Output(selfRef), o.Input(indices), o.Input(updates), o.Input(quantScales),
                            o.Input(quantZeroPoints)};
  return call.Launch(o.list(), Cost{4.0 * static_cast<double>(shape.numel()), o.bytes()},
                     [f, dim, at](const Run& t) { return RunScatter(t, f, dim, at); });
}

}  // namespace anycann
