// GroupedMatmul in all its versions: y of each group = act(x of the group @ its weight + bias).
#include <algorithm>
#include <cmath>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/moe/grouped_product.h"

namespace anycann {
namespace {

enum class Activation : int64_t {
  kNone = 0,
  kRelu = 1,
  kGeluTanh = 2,
  kGeluErf = 3,
  kFastGelu = 4,
  kSilu = 5
};

void Activate(Activation act, float* v, int64_t n) {
  switch (act) {
    case Activation::kNone: return;
    case Activation::kRelu:
      for (int64_t i = 0; i < n; ++i) v[i] = std::max(v[i], 0.0f);
      return;
    case Activation::kGeluTanh:
      for (int64_t i = 0; i < n; ++i)
        v[i] = 0.5f * v[i] * (1 + std::tanh(0.7978845608f * (v[i] + 0.044715f * v[i] * v[i] * v[i])));
      return;
    case Activation::kGeluErf:
      for (int64_t i = 0; i < n; ++i) v[i] = 0.5f * v[i] * (1 + std::erf(v[i] * 0.70710678f));
      return;
    case Activation::kFastGelu:
      for (int64_t i = 0; i < n; ++i) v[i] = v[i] / (1 + std::exp(-1.702f * v[i]));
      return;
    case Activation::kSilu:
      for (int64_t i = 0; i < n; ++i) v[i] = v[i] / (1 + std::exp(-v[i]));
      return;
  }
}

struct GroupedMatmulOutputs {
  int first = 0, count = 1;
  Activation act = Activation::kNone;
};

void Zero(const TensorView& v) {
  const float zero = 0;
  TensorView from = v;
  from.data = const_cast<float*>(&zero);
  from.dtype = DType::kFloat;
  std::fill_n(from.strides, v.rank, 0);
  if (!v.empty()) CopyCast(v, from);
}

// The group's part of the output as two dimensions.
TensorView Place(const Run& t, const GroupedProduct& product, const GroupedMatmulOutputs& out,
                 const GroupRange& range) {
  if (out.count > 1) {
    const TensorView& v = t[out.first + range.group];
    return v.rank == 2 ? v : TensorView::Contiguous(v.data, v.dtype, {range.rows, product.columns()});
  }
  const TensorView& v = t[out.first];
  return product.split_depth() ? (v.rank == 3 ? v.Select(0, range.group) : v)
                               : v.Narrow(0, range.begin, range.rows);
}

Status RunGroupedMatmul(const Run& t, const GroupedProduct& product, const GroupedMatmulOutputs& out) {
  std::vector<GroupRange> ranges;
  RETURN_IF_ERROR(product.Ranges(t, &ranges));
  GroupedProduct::Unpacked u;
  RETURN_IF_ERROR(product.Unpack(t, &u));
  int64_t done = 0;
  for (const GroupRange& range : ranges) {
    const TensorView to = Place(t, product, out, range);
    done = range.begin + range.rows;
    if (to.dims[0] < range.rows && !product.split_depth())
      return Error(kParamInvalid, "{}: groupList gives group {} {} rows, its output has {}", t.plan().name,
                   range.group, range.rows, to.dims[0]);
    if (range.rows == 0) {
      Zero(to);
      continue;
    }
    if (out.act == Activation::kNone) {
      RETURN_IF_ERROR(product.Multiply(t, u, range, to));
      continue;
    }
    const int64_t count = to.numel();
    const Scratch<float> sums(count);
    if (!sums.ok()) return ScratchFailed(t.plan().name);
    RETURN_IF_ERROR(
        product.Multiply(t, u, range, TensorView::Contiguous(sums.get(), DType::kFloat, to.dims, to.rank)));
    ParallelFor(count, 4096, [&](int64_t b, int64_t e) { Activate(out.act, sums.get() + b, e - b); });
    StoreValues(to, sums.get());
  }
  // Rows behind the last group have no expert.
  if (out.count == 1 && !product.split_depth() && t[out.first].dims[0] > done)
    Zero(t[out.first].Narrow(0, done, t[out.first].dims[0] - done));
  return Status();
}

GroupedProduct::Tensors Of(const aclTensorList* list) {
  if (list == nullptr) return {};
  return {list->values, list->size};
}

// groupType: -1 each x has its own weight, 0 groups of rows, 2 groups of the depth.
Status LaunchGroupedMatmul(Call& call, GroupedProduct::Inputs in, int64_t group_type, int64_t act,
                           const aclTensorList* y) {
  if (group_type != -1 && group_type != 0 && group_type != 2)
    return call.Invalid("groupType is {}, expected -1 (no groups), 0 (rows) or 2 (depth)", group_type);
  if (act < 0 || act > 5)
    return call.Invalid(
        "actType is {}, expected 0 (none), 1 (relu), 2 (gelu, tanh), 3 (gelu), 4 (fast gelu) or 5 (silu)",
        act);
  in.split_depth = group_type == 2;
  std::vector<Arg> operands;
  GroupedProduct product;
  RETURN_IF_ERROR(product.Read(call, in, &operands));
  if (y == nullptr || y->size == 0) return call.Invalid("y has no tensors");
  const auto count = static_cast<int64_t>(y->size);
  if (count != 1 && count != product.groups())
    return call.Invalid("y has {} tensors, expected 1 or {}, one for each group", count, product.groups());
  int64_t rows = 0;
  for (int64_t g = 0; g < count; ++g) {
    const aclTensor* t = y->values[g];
    if (t == nullptr) return call.Error(kParamNullptr, "y holds a null tensor");
    RETURN_IF_ERROR(call.RequireRank(t, "y", 2, kMaxRank));
    const TensorView& v = t->view;
    const DType type = v.dtype;
    if (v.dims[v.rank - 1] != product.columns())
      return call.Invalid("y has shape {}, expected rows of {}, the columns of weight", ShapeString(v),
                          product.columns());
    if (!IsFloating(type) && type != DType::kInt8 && type != DType::kInt32)
      return call.Invalid("y has type {}, expected a floating type, int8 or int32", Name(type));
    if (!IsFloating(type) && (in.x[0]->view.dtype != DType::kInt8 || act != 0))
      return call.Invalid("y has type {}, expected a floating type{}", Name(type),
                          act != 0 ? " with an activation" : " as x has");
    if (v.rank > 2 && !v.contiguous())
      return call.Invalid("y has shape {} with gaps between its rows: make it contiguous", ShapeString(v));
    const bool stacked = product.split_depth() && count == 1 && v.rank == 3;
    if (v.rank > 2 && !stacked && in.x.size() == 1)
      return call.Invalid("y has shape {}, expected two dimensions as x has", ShapeString(v));
    if (product.split_depth() &&
        (v.dims[v.rank - 2] != product.rows() || (stacked && v.dims[0] != product.groups()) ||
         (!stacked && count != product.groups())))
      return call.Invalid("y has shape {}, expected [{},{},{}]", ShapeString(v), product.groups(),
                          product.rows(), product.columns());
    rows += v.dims[v.rank - 1] == 0 ? 0 : v.numel() / v.dims[v.rank - 1];
  }
  if (!product.split_depth() && rows != product.rows())
    return call.Invalid("y has {} rows, expected {} as x has", rows, product.rows());
  if (count > 1 && in.x.size() > 1)
    for (int64_t g = 0; g < count; ++g) {
      const TensorView &a = in.x[g]->view, &b = y->values[g]->view;
      if (a.dims[a.rank - 1] != 0 && a.numel() / a.dims[a.rank - 1] * product.columns() != b.numel())
        return call.Invalid("y {} has shape {} for x of {}", g, ShapeString(b), ShapeString(a));
    }
  const GroupedMatmulOutputs out = {static_cast<int>(operands.size()), static_cast<int>(count),
                                    static_cast<Activation>(act)};
  for (int64_t g = 0; g < count; ++g) operands.push_back(Out(y->values[g]));
  if (product.columns() == 0 || rows == 0) return call.Nothing();
  double bytes = 0;
  for (const Arg& a : operands) bytes += static_cast<double>(a.view.nbytes());
  return call.Launch(
      operands, Cost{product.flops(), bytes},
      [product = std::move(product), out](const Run& t) { return RunGroupedMatmul(t, product, out); });
}

struct Lists {
  const aclTensorList *x, *weight, *bias, *scale, *offset, *antiquant_scale, *antiquant_offset;
};

Status ReadLists(Call& call, const Lists& l, GroupedProduct::Inputs* in) {
  in->x = Of(l.x);
  in->weight = Of(l.weight);
  in->bias = Of(l.bias);
  in->scale = Of(l.scale);
  in->antiquant_scale = Of(l.antiquant_scale);
  in->antiquant_offset = Of(l.antiquant_offset);
  for (const aclTensor* t : Of(l.offset))
    if (t != nullptr && !t->view.empty())
      return call.Invalid("offsetOptional is given, which is not supported: fold it into the bias");
  return Status();
}

// Versions with a list on the host; groups of rows unless each x has its own weight.
Status LaunchHostList(Call& call, const Lists& lists, const aclIntArray* group_list, int64_t split_item,
                      int64_t group_type, const aclTensorList* y) {
  if (split_item < 0 || split_item > 3) return call.Invalid("splitItem is {}, expected 0 to 3", split_item);
  GroupedProduct::Inputs in;
  RETURN_IF_ERROR(ReadLists(call, lists, &in));
  if (group_list != nullptr) in.ends = {group_list->values, group_list->size};
  return LaunchGroupedMatmul(call, in, group_type, 0, y);
}

Status LaunchTensorList(Call& call, const Lists& lists, const aclTensorList* row_scale,
                        const aclTensor* group_list, const aclTensorList* activation_input,
                        const aclTensorList* activation_scale, const aclTensorList* activation_offset,
                        int64_t split_item, int64_t group_type, int64_t group_list_type, int64_t act,
                        const aclTensorList* y) {
  if (split_item < 0 || split_item > 3) return call.Invalid("splitItem is {}, expected 0 to 3", split_item);
  for (const aclTensorList* list : {activation_input, activation_scale, activation_offset})
    if (list != nullptr && list->size > 0 && list->values[0] != nullptr && !list->values[0]->view.empty())
      return call.Invalid("an activation's input, scale or offset is given, which is not supported");
  GroupedProduct::Inputs in;
  RETURN_IF_ERROR(ReadLists(call, lists, &in));
  in.row_scale = Of(row_scale);
  in.group_list = group_list;
  RETURN_IF_ERROR(ReadGroupListType(call, group_list_type, &in.kind));
  return LaunchGroupedMatmul(call, in, group_type, act, y);
}

}  // namespace

Status aclnn::GroupedMatmul(Call& call, const aclTensorList* x, const aclTensorList* weight,
                            const aclTensorList* biasOptional, const aclTensorList* scaleOptional,
                            const aclTensorList* offsetOptional, const aclTensorList* antiquantScaleOptional,
                            const aclTensorList* antiquantOffsetOptional,
                            const aclIntArray* groupListOptional, int64_t splitItem, const aclTensorList* y) {
  const bool grouped = groupListOptional != nullptr && groupListOptional->size > 0;
  return LaunchHostList(call,
                        {x, weight, biasOptional, scaleOptional, offsetOptional, antiquantScaleOptional,
                         antiquantOffsetOptional},
                        groupListOptional, splitItem, grouped ? 0 : -1, y);
}

Status aclnn::GroupedMatmulV2(Call& call, const aclTensorList* x, const aclTensorList* weight,
                              const aclTensorList* biasOptional, const aclTensorList* scaleOptional,
                              const aclTensorList* offsetOptional,
                              const aclTensorList* antiquantScaleOptional,
                              const aclTensorList* antiquantOffsetOptional,
                              const aclIntArray* groupListOptional, int64_t splitItem, int64_t groupType,
                              const aclTensorList* y) {
  if (groupType == 2)
    return call.Invalid("groupType is 2 (depth), which this version does not support: call V4");
  return LaunchHostList(call,
                        {x, weight, biasOptional, scaleOptional, offsetOptional, antiquantScaleOptional,
                         antiquantOffsetOptional},
                        groupListOptional, splitItem, groupType, y);
}

Status aclnn::GroupedMatmulV3(Call& call, const aclTensorList* x, const aclTensorList* weight,
                              const aclTensorList* biasOptional, const aclTensorList* scaleOptional,
                              const aclTensorList* offsetOptional,
                              const aclTensorList* antiquantScaleOptional,
                              const aclTensorList* antiquantOffsetOptional,
                              const aclTensor* groupListOptional, int64_t splitItem, int64_t groupType,
                              const aclTensorList* y) {
  return LaunchTensorList(call,
                          {x, weight, biasOptional, scaleOptional, offsetOptional, antiquantScaleOptional,
                           antiquantOffsetOptional},
                          nullptr, groupListOptional, nullptr, nullptr, nullptr, splitItem, groupType, 0, 0,
                          y);
}

Status aclnn::GroupedMatmulV4(
    Call& call, const aclTensorList* x, const aclTensorList* weight, const aclTensorList* biasOptional,
    const aclTensorList* scaleOptional, const aclTensorList* offsetOptional,
    const aclTensorList* antiquantScaleOptional, const aclTensorList* antiquantOffsetOptional,
    const aclTensorList* perTokenScaleOptional, const aclTensor* groupListOptional,
    const aclTensorList* activationInputOptional, const aclTensorList* activationQuantScaleOptional,
    const aclTensorList* activationQuantOffsetOptional, int64_t splitItem, int64_t groupType,
    int64_t groupListType, int64_t actType, aclTensorList* out, aclTensorList*, aclTensorList*) {
  return LaunchTensorList(call,
                          {x, weight, biasOptional, scaleOptional, offsetOptional, antiquantScaleOptional,
                           antiquantOffsetOptional},
                          perTokenScaleOptional, groupListOptional, activationInputOptional,
                          activationQuantScaleOptional, activationQuantOffsetOptional, splitItem, groupType,
                          groupListType, actType, out);
}

Status aclnn::GroupedMatmulV5(Call& call, const aclTensorList* x, const aclTensorList* weight,
                              const aclTensorList* biasOptional, const aclTensorList* scaleOptional,
                              const aclTensorList* offsetOptional,
                              const aclTensorList* antiquantScaleOptional,
                              const aclTensorList* antiquantOffsetOptional,
                              const aclTensorList* perTokenScaleOptional, const aclTensor* groupListOptional,
                              const aclTensorList* activationInputOptional,
                              const aclTensorList* activationQuantScaleOptional,
                              const aclTensorList* activationQuantOffsetOptional, int64_t splitItem,
                              int64_t groupType, int64_t groupListType, int64_t actType, aclIntArray*,
                              aclTensorList* out, aclTensorList*, aclTensorList*) {
  return LaunchTensorList(call,
                          {x, weight, biasOptional, scaleOptional, offsetOptional, antiquantScaleOptional,
                           antiquantOffsetOptional},
                          perTokenScaleOptional, groupListOptional, activationInputOptional,
                          activationQuantScaleOptional, activationQuantOffsetOptional, splitItem, groupType,
                          groupListType, actType, out);
}

Status aclnn::GroupedMatmulWeightNz(
    Call& call, const aclTensorList* x, const aclTensorList* weight, const aclTensorList* biasOptional,
    const aclTensorList* scaleOptional, const aclTensorList* offsetOptional,
    const aclTensorList* antiquantScaleOptional, const aclTensorList* antiquantOffsetOptional,
    const aclTensorList* perTokenScaleOptional, const aclTensor* groupListOptional,
    const aclTensorList* activationInputOptional, const aclTensorList* activationQuantScaleOptional,
    const aclTensorList* activationQuantOffsetOptional, int64_t splitItem, int64_t groupType,
    int64_t groupListType, int64_t actType, aclIntArray*, int64_t quantGroupSize, aclTensorList* out,
    aclTensorList*, aclTensorList*) {
  if (quantGroupSize != 0) return call.Invalid("quantGroupSize is {}, expected 0", quantGroupSize);
  return LaunchTensorList(call,
                          {x, weight, biasOptional, scaleOptional, offsetOptional, antiquantScaleOptional,
                           antiquantOffsetOptional},
                          perTokenScaleOptional, groupListOptional, activationInputOptional,
                          activationQuantScaleOptional, activationQuantOffsetOptional, splitItem, groupType,
                          groupListType, actType, out);
}

Status aclnn::MoeGroupedMatmulWeightNz(Call& call, const aclTensorList* x, const aclTensorList* weight,
                                       const aclTensor* groupList, bool transposeWeight, aclTensorList* out) {
  GroupedProduct::Inputs in;
  in.x = Of(x);
  in.weight = Of(weight);
  in.group_list = groupList;
  in.transpose_weight = transposeWeight;
  return LaunchGroupedMatmul(call, in, 0, 0, out);
}

}  // namespace anycann
