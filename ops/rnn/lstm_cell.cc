// One step of an LSTM whose gates' matrix products are done: the fused cell of torch's lstm_cell.
#include <algorithm>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "base/vector_math.h"
#include "ops/norm/operands.h"
#include "ops/operand.h"

namespace anycann {
namespace {

struct StepAt {
  int input, hidden, cx, input_bias, hidden_bias, hy, cy, storage;
};

Status RequireCell(Call& call, const aclTensor* gates, const char* name, const aclTensor* cx) {
  RETURN_IF_ERROR(call.RequireRank(cx, "cx", 2, 2));
  if (!IsFloating(cx->view.dtype))
    return call.Invalid("cx has type {}, expected a floating-point type", Name(cx->view.dtype));
  const int64_t expected[] = {cx->view.dims[0], 4 * cx->view.dims[1]};
  return call.RequireShape(gates, name, expected, 2);
}

// The gates are stored after their activations, in torch's order: input, forget, cell, output.
template <class T>
Status Step(const StepAt& at, const Run& t) {
  const TensorView& shape = t[at.cx];
  const int64_t rows = shape.dims[0], n = shape.dims[1];
  const Dense in(t[at.input], kDTypeOf<T>, Dense::kRead), hidden(t[at.hidden], kDTypeOf<T>, Dense::kRead),
      cx(shape, kDTypeOf<T>, Dense::kRead);
  Dense hy(t[at.hy], kDTypeOf<T>, Dense::kWrite), cy(t[at.cy], kDTypeOf<T>, Dense::kWrite),
      storage(t[at.storage], kDTypeOf<T>, Dense::kWrite);
  const Buffer<T> bias = NewBuffer<T>(4 * n);
  std::fill(bias.get(), bias.get() + 4 * n, T(0));
  for (int place : {at.input_bias, at.hidden_bias}) {
    if (place < 0) continue;
    const Dense b(t[place], kDTypeOf<T>, Dense::kRead);
    for (int64_t j = 0; j < 4 * n; ++j) bias[j] += b.ptr<T>()[j];
  }
  ParallelFor(rows, std::max<int64_t>(1, 2048 / n), [&](int64_t b, int64_t e) {
    for (; b < e; ++b) {
      const T *x = in.ptr<T>() + b * 4 * n, *h = hidden.ptr<T>() + b * 4 * n, *c = cx.ptr<T>() + b * n;
      T* __restrict gates = storage.ptr<T>() + b * 4 * n, * __restrict h_out = hy.ptr<T>() + b * n, * __restrict c_out = cy.ptr<T>() + b * n;
      for (int64_t j = 0; j < 4 * n; ++j) gates[j] = x[j] + h[j] + bias[j];
      for (int64_t j = 0; j < n; ++j) {
        const T i = math::Sigmoid(gates[j]), f = math::Sigmoid(gates[n + j]),
                g = math::Tanh(gates[2 * n + j]), o = math::Sigmoid(gates[3 * n + j]);
        gates[j] = i, gates[n + j] = f, gates[2 * n + j] = g, gates[3 * n + j] = o;
        c_out[j] = f * c[j] + i * g;
        h_out[j] = o * math::Tanh(c_out[j]);
      }
    }
  });
  hy.Commit(), cy.Commit(), storage.Commit();
  return Status();
}

struct BackwardAt {
  int dhy, dcy, cx, cy, storage, dgates, dcx, dbias;
};

template <class T>
Status StepBackward(const BackwardAt& at, const Run& t) {
  const TensorView& shape = t[at.cx];
  const int64_t rows = shape.dims[0], n = shape.dims[1];
  const auto read = [&](int place) { return Dense(place < 0 ? shape : t[place], kDTypeOf<T>, Dense::kRead); };
  const Dense dhy = read(at.dhy), dcy = read(at.dcy), cx = read(at.cx), cy = read(at.cy),
              storage = read(at.storage);
  Dense dgates(t[at.dgates], kDTypeOf<T>, Dense::kWrite), dcx(t[at.dcx], kDTypeOf<T>, Dense::kWrite);
  const bool has_h = at.dhy >= 0, has_c = at.dcy >= 0;
  ParallelFor(rows, std::max<int64_t>(1, 2048 / n), [&](int64_t b, int64_t e) {
    for (; b < e; ++b) {
      const T *gates = storage.ptr<T>() + b * 4 * n, *before = cx.ptr<T>() + b * n,
              *after = cy.ptr<T>() + b * n, *gh = dhy.ptr<T>() + b * n, *gc = dcy.ptr<T>() + b * n;
      T* __restrict d = dgates.ptr<T>() + b * 4 * n, * __restrict dc = dcx.ptr<T>() + b * n;
      for (int64_t j = 0; j < n; ++j) {
        const T i = gates[j], f = gates[n + j], g = gates[2 * n + j], o = gates[3 * n + j],
                bounded = math::Tanh(after[j]);
        const T dh = has_h ? gh[j] : T(0), total = (has_c ? gc[j] : T(0)) + dh * o * (1 - bounded * bounded);
        d[j] = total * g * i * (1 - i);
        d[n + j] = total * before[j] * f * (1 - f);
        d[2 * n + j] = total * i * (1 - g * g);
        d[3 * n + j] = dh * bounded * o * (1 - o);
        dc[j] = total * f;
      }
    }
  });
  if (at.dbias >= 0) {
    const Buffer<double> sum = NewBuffer<double>(4 * n);
    std::fill(sum.get(), sum.get() + 4 * n, 0.0);
    for (int64_t b = 0; b < rows; ++b)
      for (int64_t j = 0; j < 4 * n; ++j) sum[j] += static_cast<double>(dgates.ptr<T>()[b * 4 * n + j]);
    CopyCast(t[at.dbias], TensorView::Contiguous(sum.get(), DType::kDouble, {4 * n}));
  }
  dgates.Commit(), dcx.Commit();
  return Status();
}

}  // namespace

Status aclnn::ThnnFusedLstmCell(Call& call, const aclTensor* inputGates, const aclTensor* hiddenGates,
                                const aclTensor* cx, const aclTensor* inputBiasOptional,
                                const aclTensor* hiddenBiasOptional, aclTensor* hyOut, aclTensor* cyOut,
                                aclTensor* storageOut) {
  RETURN_IF_ERROR(RequireCell(call, inputGates, "inputGates", cx));
  RETURN_IF_ERROR(RequireCell(call, hiddenGates, "hiddenGates", cx));
  RETURN_IF_ERROR(RequireCell(call, storageOut, "storageOut", cx));
  RETURN_IF_ERROR(call.RequireSameShape(hyOut, "hyOut", cx, "cx"));
  RETURN_IF_ERROR(call.RequireSameShape(cyOut, "cyOut", cx, "cx"));
  const int64_t bias[] = {4 * cx->view.dims[1]};
  if (inputBiasOptional) RETURN_IF_ERROR(call.RequireShape(inputBiasOptional, "inputBiasOptional", bias, 1));
  if (hiddenBiasOptional)
    RETURN_IF_ERROR(call.RequireShape(hiddenBiasOptional, "hiddenBiasOptional", bias, 1));
  if (cx->view.empty()) return call.Nothing();
  Operands o;
  const StepAt at = {
      o.Input(inputGates),         o.Input(hiddenGates), o.Input(cx),     o.Input(inputBiasOptional),
      o.Input(hiddenBiasOptional), o.Output(hyOut),      o.Output(cyOut), o.Output(storageOut)};
  const bool wide = cx->view.dtype == DType::kDouble;
  return call.Launch(o.list(), Cost{60.0 * static_cast<double>(cx->view.numel()), o.bytes()},
                     [at, wide](const Run& t) { return wide ? Step<double>(at, t) : Step<float>(at, t); });
}

Status aclnn::ThnnFusedLstmCellBackward(Call& call, const aclTensor* gradHyOptional,
                                        const aclTensor* gradCOptional, const aclTensor* cx,
                                        const aclTensor* cy, const aclTensor* storage, bool hasBias,
                                        aclTensor* gradGatesOut, aclTensor* gradCxOut,
                                        aclTensor* gradBiasOut) {
  RETURN_IF_ERROR(RequireCell(call, storage, "storage", cx));
  RETURN_IF_ERROR(RequireCell(call, gradGatesOut, "gradGatesOut", cx));
  RETURN_IF_ERROR(call.RequireSameShape(cy, "cy", cx, "cx"));
  RETURN_IF_ERROR(call.RequireSameShape(gradCxOut, "gradCxOut", cx, "cx"));
  if (gradHyOptional) RETURN_IF_ERROR(call.RequireSameShape(gradHyOptional, "gradHyOptional", cx, "cx"));
  if (gradCOptional) RETURN_IF_ERROR(call.RequireSameShape(gradCOptional, "gradCOptional", cx, "cx"));
  if (!hasBias) gradBiasOut = nullptr;
  const int64_t bias[] = {4 * cx->view.dims[1]};
  if (gradBiasOut) RETURN_IF_ERROR(call.RequireShape(gradBiasOut, "gradBiasOut", bias, 1));
  if (cx->view.dims[1] == 0) return call.Nothing();
  Operands o;
  const BackwardAt at = {
      o.Input(gradHyOptional), o.Input(gradCOptional), o.Input(cx),         o.Input(cy),
      o.Input(storage),        o.Output(gradGatesOut), o.Output(gradCxOut), o.Output(gradBiasOut)};
  const bool wide = cx->view.dtype == DType::kDouble;
  return call.Launch(
      o.list(), Cost{40.0 * static_cast<double>(cx->view.numel()), o.bytes()},
      [at, wide](const Run& t) { return wide ? StepBackward<double>(at, t) : StepBackward<float>(at, t); });
}

}  // namespace anycann
