// Grouped products with what comes after them: a gated unit and quantisation, the way back to the tokens, a
// sum.
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/moe/grouped_product.h"
#include "ops/quant/row_quant.h"

namespace anycann {
namespace {

GroupedProduct::Tensors One(const aclTensor* const& t) {
  return t == nullptr || t->view.empty() ? GroupedProduct::Tensors() : GroupedProduct::Tensors(&t, 1);
}
GroupedProduct::Tensors List(const aclTensorList* list) {
  return list == nullptr ? GroupedProduct::Tensors() : GroupedProduct::Tensors(list->values, list->size);
}

Status Refuse(Call& call, const aclTensor* t, const char* name) {
  if (t == nullptr || t->view.empty()) return Status();
  return call.Invalid("{} is given, which is not supported", name);
}

// Calls body(range, rows of the product as floats) for each group that has rows.
template <class Body>
Status ForEachProduct(const Run& t, const GroupedProduct& product, Body&& body) {
  std::vector<GroupRange> ranges;
  RETURN_IF_ERROR(product.Ranges(t, &ranges));
  GroupedProduct::Unpacked u;
  RETURN_IF_ERROR(product.Unpack(t, &u));
  for (const GroupRange& range : ranges) {
    const int64_t rows = product.split_depth() ? product.rows() : range.rows;
    const Scratch<float> sums(rows * product.columns());
    if (!sums.ok()) return ScratchFailed(t.plan().name);
    const TensorView to = TensorView::Contiguous(sums.get(), DType::kFloat, {rows, product.columns()});
    if (range.rows == 0)
      std::fill_n(sums.get(), rows * product.columns(), 0.0f);
    else
      RETURN_IF_ERROR(product.Multiply(t, u, range, to));
    RETURN_IF_ERROR(body(range, sums.get()));
  }
  return Status();
}

double BytesOf(const std::vector<Arg>& operands) {
  double bytes = 0;
  for (const Arg& a : operands) bytes += static_cast<double>(a.view.nbytes());
  return bytes;
}

// y = rows of silu(first half) * second half as 8 bits, each with its scale.
Status LaunchSwigluQuant(Call& call, const GroupedProduct::Inputs& in, const aclTensor* y,
                         const aclTensor* scale) {
  if (in.x[0]->view.dtype != DType::kInt8)
    return call.Invalid("x has type {}, expected int8", Name(in.x[0]->view.dtype));
  std::vector<Arg> operands;
  GroupedProduct product;
  RETURN_IF_ERROR(product.Read(call, in, &operands));
  if (in.scale.empty() || in.row_scale.empty())
    return call.Invalid("weightScale or xScale is absent, expected both");
  const int64_t dims[] = {product.rows(), product.columns() / 2};
  if (product.columns() % 2 != 0)
    return call.Invalid("weight has {} columns, expected an even number", product.columns());
  RETURN_IF_ERROR(call.RequireShape(y, "output", dims, 2));
  RETURN_IF_ERROR(call.RequireDType(y, "output", DType::kInt8));
  if (scale->view.numel() != product.rows() || !IsFloating(scale->view.dtype))
    return call.Invalid("outputScale has shape {} and type {}, expected [{}] of float32",
                        ShapeString(scale->view), Name(scale->view.dtype), product.rows());
  if (y->view.empty()) return call.Nothing();
  const int at = static_cast<int>(operands.size());
  operands.push_back(Out(y));
  operands.push_back(Out(scale));
  const Cost cost{product.flops(), BytesOf(operands)};
  return call.Launch(operands, cost, [product = std::move(product), at](const Run& t) -> Status {
    const int64_t n = product.columns() / 2, rows = product.rows();
    const RowFormat format{rows, n};
    const QuantRows y(format, t[at]);
    const Scratch<float> scales(rows), zeros(n);
    if (!y.ok() || !scales.ok() || !zeros.ok()) return ScratchFailed(t.plan().name);
    std::fill_n(scales.get(), rows, 0.0f);
    int64_t done = 0;
    RETURN_IF_ERROR(ForEachProduct(t, product, [&](const GroupRange& range, const float* sums) -> Status {
      done = range.begin + range.rows;
      const bool ok = ForEachRow(range.rows, n, [&](int64_t r, float* v) {
        const float *gate = sums + r * 2 * n, *up = gate + n;
        for (int64_t i = 0; i < n; ++i) v[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
        float& s = scales[range.begin + r];
        s = RowScale::Of(v, n).Scale(format, true);
        RowScale::Apply(v, n, s, 0);
        y.Store(range.begin + r, v);
      });
      return ok ? Status() : ScratchFailed(t.plan().name);
    }));
    for (; done < rows; ++done) {  // rows behind the last group have no expert
      std::fill_n(zeros.get(), n, 0.0f);
      y.Store(done, zeros.get());
    }
    y.Finish();
    StoreValues(t[at + 1], scales.get());
    return Status();
  });
}

Status LaunchSwigluLists(Call& call, const aclTensor* x, const aclTensorList* weight,
                         const aclTensorList* weight_scale, const aclTensorList* assist,
                         const aclTensor* bias, const aclTensor* x_scale, const aclTensor* smooth,
                         const aclTensor* group_list, int64_t dequant_mode, int64_t quant_mode,
                         int64_t group_list_type, const aclTensor* y, const aclTensor* scale) {
  RETURN_IF_ERROR(Refuse(call, bias, "bias"));
  RETURN_IF_ERROR(Refuse(call, smooth, "smoothScale"));
  for (const aclTensor* t : List(assist)) RETURN_IF_ERROR(Refuse(call, t, "weightAssistMatrix"));
  if (dequant_mode != 0 || quant_mode != 0)
    return call.Invalid("dequantMode is {} and quantMode {}, expected 0 (columns) and 0 (rows)", dequant_mode,
                        quant_mode);
  GroupedProduct::Inputs in;
  in.x = One(x);
  in.weight = List(weight);
  in.scale = List(weight_scale);
  in.row_scale = One(x_scale);
  in.group_list = group_list;
  RETURN_IF_ERROR(ReadGroupListType(call, group_list_type, &in.kind));
  if (in.x.empty()) return call.Nothing();
  return LaunchSwigluQuant(call, in, y, scale);
}

// out[row_index[i]] += logit[i] * row i, and a shared part added at an offset.
struct Finalize {
  const aclTensor *shared = nullptr, *logit = nullptr, *row_index = nullptr, *out = nullptr;
  double weight = 1;
  int64_t offset = 0;
};

Status LaunchFinalize(Call& call, const GroupedProduct::Inputs& in, Finalize f) {
  std::vector<Arg> operands;
  GroupedProduct product;
  if (in.x.empty()) return call.Invalid("x1 is empty");
  RETURN_IF_ERROR(product.Read(call, in, &operands));
  if (f.row_index == nullptr) return call.Invalid("rowIndex is absent, expected the token of each row");
  if (f.row_index->view.numel() != product.rows() || !IsInteger(f.row_index->view.dtype))
    return call.Invalid("rowIndex has shape {}, expected {} integers", ShapeString(f.row_index->view),
                        product.rows());
  if (f.logit != nullptr && (f.logit->view.numel() != product.rows() || !IsFloating(f.logit->view.dtype)))
    return call.Invalid("logit has shape {}, expected {} floats", ShapeString(f.logit->view), product.rows());
  RETURN_IF_ERROR(call.RequireRank(f.out, "out", 2, 2));
  const TensorView& v = f.out->view;
  if (v.dims[1] != product.columns() || !IsFloating(v.dtype))
    return call.Invalid("out has shape {} and type {}, expected rows of {} floats", ShapeString(v),
                        Name(v.dtype), product.columns());
  if (f.shared != nullptr) {
    const TensorView& s = f.shared->view;
    if (s.rank != 2 || s.dims[1] != product.columns() || f.offset < 0 || s.dims[0] > v.dims[0] - f.offset ||
        !IsFloating(s.dtype))
      return call.Invalid("sharedInput has shape {}, expected up to {} rows of {} from row {} on",
                          ShapeString(s), v.dims[0], product.columns(), f.offset);
  }
  if (v.empty()) return call.Nothing();
  const auto place = [&operands](const Arg& a) {
    operands.push_back(a);
    return static_cast<int>(operands.size()) - 1;
  };
  const int index = place(In(f.row_index)), logit = f.logit != nullptr ? place(In(f.logit)) : -1;
  const int shared = f.shared != nullptr ? place(In(f.shared)) : -1, out = place(Out(f.out));
  const Cost cost{product.flops(), BytesOf(operands)};
  const auto weight = static_cast<float>(f.weight);
  return call.Launch(
      operands, cost,
      [product = std::move(product), index, logit, shared, out, weight,
       offset = f.offset](const Run& t) -> Status {
        const int64_t n = product.columns(), tokens = t[out].dims[0];
        const Values<int64_t> row_index(t[index]);
        const Values<float> logits(t, logit);
        const Values<float> more(t, shared);
        const Scratch<float> sums(tokens * n);
        if (!row_index.ok() || !logits.ok() || !more.ok() || !sums.ok()) return ScratchFailed(t.plan().name);
        std::fill_n(sums.get(), tokens * n, 0.0f);
        for (int64_t i = 0; shared >= 0 && i < t[shared].numel(); ++i)
          sums[offset * n + i] = weight * more[i];
        RETURN_IF_ERROR(ForEachProduct(t, product, [&](const GroupRange& range, const float* rows) -> Status {
          for (int64_t r = 0; r < range.rows; ++r) {
            const int64_t token = row_index[range.begin + r];
            if (token < 0 || token >= tokens)
              return Error(kParamInvalid, "{}: rowIndex has {}, expected 0 to {}", t.plan().name, token,
                           tokens - 1);
            const float by = logits.get() != nullptr ? logits[range.begin + r] : 1.0f;
            float* __restrict to = &sums[token * n];
            const float* from = rows + r * n;
            for (int64_t j = 0; j < n; ++j) to[j] += by * from[j];
          }
          return Status();
        }));
        StoreValues(t[out], sums.get());
        return Status();
      });
}

Status LaunchFinalizeRouting(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* scale,
                             const aclTensor* bias, const aclTensor* row_scale, const aclTensor* group_list,
                             bool transpose1, bool transpose2, int64_t group_list_type, const Finalize& f) {
  GroupedProduct::Inputs in;
  in.x = One(x1);
  in.weight = One(x2);
  in.scale = One(scale);
  in.bias = One(bias);
  in.row_scale = One(row_scale);
  in.group_list = group_list;
  in.transpose_x = transpose1;
  in.transpose_weight = transpose2;
  RETURN_IF_ERROR(ReadGroupListType(call, group_list_type, &in.kind));
  return LaunchFinalize(call, in, f);
}

// y of each group += x of the group's depth, transposed or not, @ its rows of the weight.
Status LaunchAdd(Call& call, const aclTensor* x, const aclTensor* weight, const aclTensor* group_list,
                 aclTensor* y, bool transpose_x, bool transpose_weight, int64_t group_type,
                 int64_t group_list_type) {
  if (group_type != 2) return call.Invalid("groupType is {}, expected 2 (groups of the depth)", group_type);
  GroupedProduct::Inputs in;
  in.x = One(x);
  in.weight = One(weight);
  in.group_list = group_list;
  in.transpose_x = transpose_x;
  in.transpose_weight = transpose_weight;
  in.split_depth = true;
  RETURN_IF_ERROR(ReadGroupListType(call, group_list_type, &in.kind));
  if (in.x.empty() || in.weight.empty()) return call.Nothing();
  std::vector<Arg> operands;
  GroupedProduct product;
  RETURN_IF_ERROR(product.Read(call, in, &operands));
  const int64_t size = product.rows() * product.columns();
  if (y->view.numel() != product.groups() * size || !IsFloating(y->view.dtype))
    return call.Invalid("y has shape {} and type {}, expected {} floats: [{},{},{}]", ShapeString(y->view),
                        Name(y->view.dtype), product.groups() * size, product.groups(), product.rows(),
                        product.columns());
  if (y->view.empty()) return call.Nothing();
  const int at = static_cast<int>(operands.size());
  operands.push_back(Out(y));
  const Cost cost{product.flops(), BytesOf(operands)};
  return call.Launch(operands, cost, [product = std::move(product), at, size](const Run& t) -> Status {
    const Values<float> before(t[at]);
    const Scratch<float> sums(t[at].numel());
    if (!before.ok() || !sums.ok()) return ScratchFailed(t.plan().name);
    std::copy_n(before.get(), t[at].numel(), sums.get());
    RETURN_IF_ERROR(ForEachProduct(t, product, [&](const GroupRange& range, const float* rows) -> Status {
      float* __restrict to = &sums[range.group * size];
      for (int64_t i = 0; i < size; ++i) to[i] += rows[i];
      return Status();
    }));
    StoreValues(t[at], sums.get());
    return Status();
  });
}

}  // namespace

Status aclnn::GroupedMatmulSwigluQuant(Call& call, const aclTensor* x, const aclTensor* weight,
                                       const aclTensor* bias, const aclTensor* offset,
                                       const aclTensor* weightScale, const aclTensor* xScale,
                                       const aclTensor* groupList, aclTensor* output, aclTensor* outputScale,
                                       aclTensor* outputOffset) {
  (void)outputOffset;  // kept for later by the interface
  RETURN_IF_ERROR(Refuse(call, bias, "bias"));
  RETURN_IF_ERROR(Refuse(call, offset, "offset"));
  GroupedProduct::Inputs in;
  in.x = One(x);
  in.weight = One(weight);
  in.scale = One(weightScale);
  in.row_scale = One(xScale);
  in.group_list = groupList;
  if (in.x.empty()) return call.Nothing();
  return LaunchSwigluQuant(call, in, output, outputScale);
}

Status aclnn::GroupedMatmulSwigluQuantWeightNZ(Call& call, const aclTensor* x, const aclTensor* weight,
                                               const aclTensor* bias, const aclTensor* offset,
                                               const aclTensor* weightScale, const aclTensor* xScale,
                                               const aclTensor* groupList, aclTensor* output,
                                               aclTensor* outputScale, aclTensor* outputOffset) {
  return aclnn::GroupedMatmulSwigluQuant(call, x, weight, bias, offset, weightScale, xScale, groupList,
                                         output, outputScale, outputOffset);
}

Status aclnn::GroupedMatmulSwigluQuantV2(Call& call, const aclTensor* x, const aclTensorList* weight,
                                         const aclTensorList* weightScale,
                                         const aclTensorList* weightAssistMatrix, const aclTensor* bias,
                                         const aclTensor* xScale, const aclTensor* smoothScale,
                                         const aclTensor* groupList, int64_t dequantMode,
                                         int64_t dequantDtype, int64_t quantMode, int64_t groupListType,
                                         const aclIntArray* tuningConfigOptional, aclTensor* output,
                                         aclTensor* outputScale) {
  (void)dequantDtype, (void)tuningConfigOptional;  // we compute in float32, and tune nothing
  return LaunchSwigluLists(call, x, weight, weightScale, weightAssistMatrix, bias, xScale, smoothScale,
                           groupList, dequantMode, quantMode, groupListType, output, outputScale);
}

Status aclnn::GroupedMatmulSwigluQuantWeightNzV2(
    Call& call, const aclTensor* x, const aclTensorList* weight, const aclTensorList* weightScale,
    const aclTensorList* weightAssistMatrix, const aclTensor* bias, const aclTensor* xScale,
    const aclTensor* smoothScale, const aclTensor* groupList, int64_t dequantMode, int64_t dequantDtype,
    int64_t quantMode, int64_t groupListType, const aclIntArray* tuningConfigOptional, aclTensor* output,
    aclTensor* outputScale) {
  (void)dequantDtype, (void)tuningConfigOptional;
  return LaunchSwigluLists(call, x, weight, weightScale, weightAssistMatrix, bias, xScale, smoothScale,
                           groupList, dequantMode, quantMode, groupListType, output, outputScale);
}

Status aclnn::GroupedMatmulFinalizeRoutingV3(
    Call& call, const aclTensor* x1, aclTensor* x2, const aclTensor* scaleOptional,
    const aclTensor* biasOptional, const aclTensor* offsetOptional, const aclTensor* antiquantScaleOptional,
    const aclTensor* antiquantOffsetOptional, const aclTensor* pertokenScaleOptional,
    const aclTensor* groupListOptional, const aclTensor* sharedInputOptional, const aclTensor* logitOptional,
    const aclTensor* rowIndexOptional, int64_t dtype, float sharedInputWeight, int64_t sharedInputOffset,
    bool transposeX1, bool transposeX2, int64_t groupListType, const aclIntArray* tuningConfigOptional,
    aclTensor* out) {
  (void)dtype, (void)tuningConfigOptional;  // out has a type; we tune nothing
  RETURN_IF_ERROR(Refuse(call, offsetOptional, "offsetOptional"));
  RETURN_IF_ERROR(Refuse(call, antiquantScaleOptional, "antiquantScaleOptional"));
  RETURN_IF_ERROR(Refuse(call, antiquantOffsetOptional, "antiquantOffsetOptional"));
  return LaunchFinalizeRouting(
      call, x1, x2, scaleOptional, biasOptional, pertokenScaleOptional, groupListOptional, transposeX1,
      transposeX2, groupListType,
      {sharedInputOptional, logitOptional, rowIndexOptional, out, sharedInputWeight, sharedInputOffset});
}

Status aclnn::GroupedMatmulFinalizeRoutingV2(
    Call& call, const aclTensor* x1, aclTensor* x2, const aclTensor* scaleOptional,
    const aclTensor* biasOptional, const aclTensor* offsetOptional, const aclTensor* antiquantScaleOptional,
    const aclTensor* antiquantOffsetOptional, const aclTensor* pertokenScaleOptional,
    const aclTensor* groupListOptional, const aclTensor* sharedInputOptional, const aclTensor* logitOptional,
    const aclTensor* rowIndexOptional, int64_t dtype, float sharedInputWeight, int64_t sharedInputOffset,
    bool transposeX1, bool transposeX2, int64_t groupListType, aclTensor* out) {
  return aclnn::GroupedMatmulFinalizeRoutingV3(
      call, x1, x2, scaleOptional, biasOptional, offsetOptional, antiquantScaleOptional,
      antiquantOffsetOptional, pertokenScaleOptional, groupListOptional, sharedInputOptional, logitOptional,
      rowIndexOptional, dtype, sharedInputWeight, sharedInputOffset, transposeX1, transposeX2, groupListType,
      nullptr, out);
}

Status aclnn::GroupedMatmulFinalizeRoutingWeightNz(
    Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* scale, const aclTensor* bias,
    const aclTensor* pertokenScaleOptional, const aclTensor* groupList, const aclTensor* sharedInput,
    const aclTensor* logit, const aclTensor* rowIndex, int64_t dtype, float sharedInputWeight,
    int64_t sharedInputOffset, bool transposeX1, bool transposeX2, int64_t groupListType, aclTensor* out) {
  (void)dtype;
  return LaunchFinalizeRouting(call, x1, x2, scale, bias, pertokenScaleOptional, groupList, transposeX1,
                               transposeX2, groupListType,
                               {sharedInput, logit, rowIndex, out, sharedInputWeight, sharedInputOffset});
}

Status aclnn::GroupedMatmulFinalizeRoutingWeightNzV2(
    Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* scale, const aclTensor* bias,
    const aclTensor* offsetOptional, const aclTensor* antiquantScaleOptional,
    const aclTensor* antiquantOffsetOptional, const aclTensor* pertokenScaleOptional,
    const aclTensor* groupList, const aclTensor* sharedInput, const aclTensor* logit,
    const aclTensor* rowIndex, int64_t dtype, float sharedInputWeight, int64_t sharedInputOffset,
    bool transposeX1, bool transposeX2, int64_t groupListType, const aclIntArray* tuningConfigOptional,
    aclTensor* out) {
  (void)dtype, (void)tuningConfigOptional;
  RETURN_IF_ERROR(Refuse(call, offsetOptional, "offsetOptional"));
  RETURN_IF_ERROR(Refuse(call, antiquantScaleOptional, "antiquantScaleOptional"));
  RETURN_IF_ERROR(Refuse(call, antiquantOffsetOptional, "antiquantOffsetOptional"));
  return LaunchFinalizeRouting(call, x1, x2, scale, bias, pertokenScaleOptional, groupList, transposeX1,
                               transposeX2, groupListType,
                               {sharedInput, logit, rowIndex, out, sharedInputWeight, sharedInputOffset});
}

Status aclnn::GroupedMatmulAdd(Call& call, const aclTensor* x, const aclTensor* weight,
                               const aclTensor* groupList, aclTensor* yRef, bool transposeX,
                               bool transposeWeight, int64_t groupType) {
  return LaunchAdd(call, x, weight, groupList, yRef, transposeX, transposeWeight, groupType, 0);
}

Status aclnn::GroupedMatmulAddV2(Call& call, const aclTensor* x, const aclTensor* weight,
                                 const aclTensor* groupList, aclTensor* yRef, bool transposeX,
                                 bool transposeWeight, int64_t groupType, int64_t groupListType) {
  return LaunchAdd(call, x, weight, groupList, yRef, transposeX, transposeWeight, groupType, groupListType);
}

}  // namespace anycann
