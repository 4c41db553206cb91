#include "ops/moe/grouped_product.h"

#include <algorithm>

#include "base/parallel.h"
#include "ops/matmul/fractal_nz.h"
#include "ops/matmul/gemm.h"
#include "ops/quant/scaled_product.h"

namespace anycann {
namespace {

// Clients give absent lists as nullptr, as lists of nothing, or as lists of one empty tensor.
bool Absent(GroupedProduct::Tensors tensors) {
  return tensors.empty() || (tensors.size() == 1 && (tensors[0] == nullptr || tensors[0]->view.empty()));
}

}  // namespace

Status ReadGroupListType(Call& call, int64_t type, GroupList* kind) {
  if (type < 0 || type > 2)
    return call.Invalid("groupListType is {}, expected 0 (ends), 1 (counts) or 2 (pairs)", type);
  *kind = static_cast<GroupList>(type);
  return Status();
}

Status GroupedProduct::ReadX(Call& call, const Inputs& in, std::vector<Arg>* operands) {
  const Tensors x = in.x;
  if (x.empty()) return call.Invalid("x has no tensors");
  x_first_ = static_cast<int>(operands->size());
  x_count_ = static_cast<int>(x.size());
  const DType type = x[0]->view.dtype;
  integer_x_ = type == DType::kInt8;
  if (!integer_x_ && !IsFloating(type))
    return call.Invalid("x has type {}, expected int8 or a floating type", Name(type));
  rows_ = 0;
  k_ = -1;
  for (const aclTensor* t : x) {
    RETURN_IF_ERROR(call.RequireRank(t, "x", 2, kMaxRank));
    TensorView v = t->view;
    if (in.transpose_x && v.rank == 2) v = v.Transpose(0, 1);
    if (v.dtype != type)
      return call.Invalid("x has types {} and {}, expected one", Name(type), Name(v.dtype));
    const int64_t k = v.dims[v.rank - 1];
    if (x.size() == 1 && v.rank != 2)
      return call.Invalid("x has shape {}, expected two dimensions", ShapeString(v));
    if (v.rank > 2 && !v.contiguous())
      return call.Invalid("x has shape {} with gaps between its rows: make it contiguous", ShapeString(v));
    if (k_ >= 0 && k != k_ && weights_.size() <= 1)
      return call.Invalid("x has rows of {} and of {}, expected one length", k_, k);
    k_ = k;
    rows_ += k == 0 ? 0 : v.numel() / k;
    operands->push_back(In(t, v));
  }
  return Status();
}

Status GroupedProduct::ReadWeights(Call& call, const Inputs& in, std::vector<Arg>* operands) {
  if (in.weight.empty()) return call.Invalid("weight has no tensors");
  const bool one = in.weight.size() == 1;
  const DType type = in.weight[0]->view.dtype;
  integer_weight_ = !IsFloating(type);
  for (const aclTensor* t : in.weight) {
    const int rank = one && t->view.rank == 3 ? 3 : 2;
    RETURN_IF_ERROR(call.RequireRank(t, "weight", rank, rank));
    if (t->view.dtype != type)
      return call.Invalid("weight has types {} and {}, expected one", Name(type), Name(t->view.dtype));
    Weight w;
    w.operand = static_cast<int>(operands->size());
    Arg arg = In(t);
    RETURN_IF_ERROR(ReadWeight(call, t, "weight", in.transpose_weight, &w.numbers, &arg));
    operands->push_back(arg);
    weights_.push_back(w);
  }
  const IntegerMatrix& first = weights_[0].numbers;
  n_ = first.columns();
  groups_ = one ? (first.view.rank == 3 ? first.view.dims[0] : 1) : static_cast<int64_t>(in.weight.size());
  return Status();
}

Status GroupedProduct::ReadGroups(Call& call, const Inputs& in, std::vector<Arg>* operands) {
  kind_ = in.kind;
  if (!in.ends.empty()) {
    ends_.assign(in.ends.begin(), in.ends.end());
    if (static_cast<int64_t>(ends_.size()) > groups_)
      return call.Invalid("groupList has {} numbers, expected at most {}, the number of weights",
                          ends_.size(), groups_);
    return Status();
  }
  if (in.group_list == nullptr || in.group_list->view.empty()) {
    if (x_count_ != groups_)
      return call.Invalid("groupList is absent, expected one: x has {} tensors for {} weights", x_count_,
                          groups_);
    return Status();
  }
  const TensorView& v = in.group_list->view;
  if (!IsInteger(v.dtype)) return call.Invalid("groupList has type {}, expected int64", Name(v.dtype));
  const bool pairs = kind_ == GroupList::kPairs;
  if (pairs ? v.rank != 2 || v.dims[1] != 2 : v.rank != 1 || v.dims[0] > groups_)
    return call.Invalid("groupList has shape {}, expected {} for {} weights", ShapeString(v),
                        pairs ? "[groups,2]" : "[groups]", groups_);
  // Several tensors say their own rows.
  if (x_count_ == 1) {
    list_ = static_cast<int>(operands->size());
    operands->push_back(In(in.group_list));
  }
  return Status();
}

Status GroupedProduct::ReadParameter(Call& call, const char* name, Tensors tensors, bool by_depth,
                                     GroupedParameter* p, std::vector<Arg>* operands) const {
  if (Absent(tensors)) return Status();
  const auto count = static_cast<int64_t>(tensors.size());
  if (count != 1 && count != groups_)
    return call.Invalid("{} has {} tensors, expected 1 or {}, one for each weight", name, count, groups_);
  p->first = static_cast<int>(operands->size());
  p->count = static_cast<int>(count);
  for (const aclTensor* t : tensors) {
    const TensorView& v = t->view;
    // [N], [1,N] or, where groups of the depth have their own, [K groups,N]; before that the groups of rows.
    int rank = v.rank, first = 0;
    if (count == 1 && rank > 1 && (weights_[0].numbers.view.rank == 3 || groups_ > 1)) {
      p->stacked = true;
      if (v.dims[0] != groups_)
        return call.Invalid("{} has shape {}, expected {} first, the number of weights", name, ShapeString(v),
                            groups_);
      first = 1;
    } else if (count == 1 && groups_ > 1) {
      return call.Invalid("{} has shape {}, expected [{},{}]", name, ShapeString(v), groups_, n_);
    }
    const bool fits = rank - first == 1 ? v.dims[first] == n_
                                        : rank - first == 2 && v.dims[first + 1] == n_ &&
                                              (v.dims[first] == 1 ||
                                               (by_depth && v.dims[first] > 0 && k_ % v.dims[first] == 0));
    if (!fits)
      return call.Invalid("{} has shape {}, expected {} numbers for each group{}", name, ShapeString(v), n_,
                          by_depth ? ", or that for each part of its depth" : "");
    operands->push_back(In(t));
  }
  return Status();
}

Status GroupedProduct::Read(Call& call, const Inputs& in, std::vector<Arg>* operands) {
  for (const auto& [list, name] : {std::pair{in.x, "x"}, std::pair{in.weight, "weight"}})
    for (const aclTensor* t : list)
      if (t == nullptr) return call.Error(kParamNullptr, "{} holds a null tensor", name);
  for (const Tensors& list : {in.bias, in.scale, in.antiquant_scale, in.antiquant_offset, in.row_scale})
    for (const aclTensor* t : list)
      if (t == nullptr && !Absent(list))
        return call.Error(kParamNullptr, "a list of parameters holds a null tensor");
  split_depth_ = in.split_depth;
  RETURN_IF_ERROR(ReadWeights(call, in, operands));
  RETURN_IF_ERROR(ReadX(call, in, operands));
  if (x_count_ != 1 && x_count_ != groups_)
    return call.Invalid("x has {} tensors, expected 1 or {}, the number of weights", x_count_, groups_);
  if (split_depth_ && (x_count_ != 1 || weights_.size() != 1 || weights_[0].numbers.view.rank != 2))
    return call.Invalid("x has {} tensors and weight {}: groups of the depth need one of two dimensions each",
                        x_count_, weights_.size());
  for (size_t g = 0; g < weights_.size(); ++g) {
    const IntegerMatrix& m = weights_[g].numbers;
    const TensorView& v = in.x[x_count_ == 1 ? 0 : g]->view;
    const int64_t k = v.dims[in.transpose_x && v.rank == 2 ? 0 : v.rank - 1];
    if (m.rows() != k)
      return call.Invalid("x has rows of {} numbers, weight {} has shape {}", k, g, ShapeString(m.view));
  }
  if (split_depth_) {
    if (in.group_list == nullptr) return call.Invalid("groupList is absent, expected one");
    groups_ = in.group_list->view.rank > 0 ? in.group_list->view.dims[0] : 0;
  }
  RETURN_IF_ERROR(ReadGroups(call, in, operands));
  RETURN_IF_ERROR(ReadParameter(call, "bias", in.bias, false, &bias_, operands));
  RETURN_IF_ERROR(ReadParameter(call, "scale", in.scale, false, &scale_, operands));
  RETURN_IF_ERROR(
      ReadParameter(call, "antiquantScale", in.antiquant_scale, true, &antiquant_scale_, operands));
  RETURN_IF_ERROR(
      ReadParameter(call, "antiquantOffset", in.antiquant_offset, true, &antiquant_offset_, operands));
  if (!Absent(in.row_scale)) {
    int64_t rows = 0;
    row_scale_first_ = static_cast<int>(operands->size());
    row_scale_count_ = static_cast<int>(in.row_scale.size());
    if (row_scale_count_ != x_count_)
      return call.Invalid("perTokenScale has {} tensors, expected {} as x has", row_scale_count_, x_count_);
    for (size_t i = 0; i < in.row_scale.size(); ++i) {
      const TensorView &v = in.row_scale[i]->view, &x = (*operands)[x_first_ + i].view;
      const int64_t expected = x.dims[x.rank - 1] == 0 ? 0 : x.numel() / x.dims[x.rank - 1];
      if (v.numel() != expected || !IsFloating(v.dtype))
        return call.Invalid("perTokenScale has shape {} and type {}, expected {} floats", ShapeString(v),
                            Name(v.dtype), expected);
      rows += v.numel();
      operands->push_back(In(in.row_scale[i]));
    }
  }
  if (integer_x_ && !integer_weight_)
    return call.Invalid("x is int8 and weight is of a floating type, expected integers too");
  if (integer_x_ && weights_[0].numbers.four_bits)
    return call.Invalid("x is int8 and weight has 4 bits, which is not supported: give weight as int8");
  if (integer_x_ && antiquant_scale_.given())
    return call.Invalid("antiquantScale is given with x of int8, expected scale");
  if (!integer_x_ && integer_weight_ && !antiquant_scale_.given())
    return call.Invalid("weight is of integers without antiquantScale");
  if (split_depth_ && (integer_x_ || integer_weight_))
    return call.Invalid("groups of the depth are of floating types only");
  return Status();
}

Status GroupedProduct::Ranges(const Run& t, std::vector<GroupRange>* ranges) const {
  const char* op = t.plan().name;
  const int64_t whole = split_depth_ ? k_ : rows_;
  int64_t begin = 0;
  const auto add = [&](int64_t group, int64_t rows) -> Status {
    if (rows < 0 || rows > whole - begin || group < 0 || group >= groups_)
      return Error(kParamInvalid,
                   "{}: groupList gives group {} {} of {} rows from row {}, expected groups of 0 to {}", op,
                   group, rows, whole, begin, groups_ - 1);
    if (rows > 0 || split_depth_) ranges->push_back({group, begin, rows});
    begin += rows;
    return Status();
  };
  if (x_count_ > 1 || (list_ < 0 && ends_.empty())) {
    for (int g = 0; g < x_count_; ++g) {
      const TensorView& v = t[x_first_ + g];
      const int64_t k = v.dims[v.rank - 1];
      RETURN_IF_ERROR(add(g, k == 0 ? 0 : v.numel() / k));
    }
    return Status();
  }
  const Values<int64_t> list(t, list_);
  if (!list.ok()) return ScratchFailed(op);
  const int64_t* numbers = list_ >= 0 ? list.get() : ends_.data();
  const int64_t count = list_ >= 0 ? t[list_].dims[0] : static_cast<int64_t>(ends_.size());
  for (int64_t g = 0; g < count; ++g) {
    if (kind_ == GroupList::kPairs) {
      if (numbers[2 * g + 1] == 0) break;  // the end of the pairs
      RETURN_IF_ERROR(add(numbers[2 * g], numbers[2 * g + 1]));
    } else {
      const int64_t n = numbers[g];
      RETURN_IF_ERROR(add(g, kind_ == GroupList::kCounts ? n : n < begin ? -1 : n - begin));
    }
  }
  return Status();
}

Status GroupedProduct::Resolve(const Run& t, const Weight& w, Unpacked* u) const {
  return ResolveWeight(t.plan().name, w.numbers, t[w.operand], &u->memory, &u->weight);
}

Status GroupedProduct::Unpack(const Run& t, Unpacked* u) const {
  return weights_.size() == 1 ? Resolve(t, weights_[0], u) : Status();
}

// The group's part of x as two dimensions.
TensorView GroupedProduct::RowsOf(const Run& t, const GroupRange& range) const {
  if (x_count_ == 1) return t[x_first_].Narrow(split_depth_ ? 1 : 0, range.begin, range.rows);
  const TensorView& v = t[x_first_ + range.group];
  if (v.rank == 2) return v;
  return TensorView::Contiguous(v.data, v.dtype, {range.rows, v.dims[v.rank - 1]});
}

Status GroupedProduct::MultiplyFloats(const Run& t, const TensorView& x, const TensorView& w, int64_t group,
                                      const TensorView& to) const {
  const TensorView bias = bias_.given() ? bias_.Of(t, group) : TensorView();
  if (!integer_weight_) return Gemm(MakeGemm(x, w, to, bias_.given() ? &bias : nullptr));
  // (number + offset) * scale first.
  const int64_t k = w.dims[0], n = w.dims[1];
  const Values<float> scale(antiquant_scale_.Of(t, group));
  const Values<float> offset =
      antiquant_offset_.given() ? Values<float>(antiquant_offset_.Of(t, group)) : Values<float>();
  const Scratch<float> plain(k * n);
  if (!scale.ok() || !offset.ok() || !plain.ok()) return ScratchFailed(t.plan().name);
  const TensorView floats = TensorView::Contiguous(plain.get(), DType::kFloat, {k, n});
  CopyCast(floats, w);
  const int64_t parts = std::max<int64_t>(1, antiquant_scale_.Of(t, group).numel() / n), part = k / parts;
  ParallelFor(k, std::max<int64_t>(1, 65536 / n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* __restrict row = plain.get() + i * n;
      const float* s = scale.get() + i / part * n;
      const float* o = offset.get() != nullptr ? offset.get() + i / part * n : nullptr;
      for (int64_t j = 0; j < n; ++j) row[j] = (row[j] + (o != nullptr ? o[j] : 0.0f)) * s[j];
    }
  });
  return Gemm(MakeGemm(x, floats, to, bias_.given() ? &bias : nullptr));
}

Status GroupedProduct::MultiplyIntegers(const Run& t, const TensorView& x, const TensorView& w,
                                        const GroupRange& range, const TensorView& to) const {
  const QuantScales scale = scale_.given() ? QuantScales(scale_.Of(t, range.group)) : QuantScales();
  const Values<float> row_scale =
      row_scale_count_ > 0 ? Values<float>(t[row_scale_first_ + (row_scale_count_ == 1 ? 0 : range.group)])
                           : Values<float>();
  if (!scale.ok() || !row_scale.ok()) return ScratchFailed(t.plan().name);
  const TensorView bias = bias_.given() ? bias_.Of(t, range.group) : TensorView();
  ProductScales s;
  s.column = scale_.given() ? scale.get() : nullptr;
  s.per_column = true;
  if (row_scale.get() != nullptr) {
    s.row = row_scale.get() + (row_scale_count_ == 1 && x_count_ == 1 ? range.begin : 0);
    s.row_count = range.rows;
  }
  s.bias = bias_.given() ? &bias : nullptr;
  return RunScaledProduct(t.plan().name, x, w, to, s);
}

Status GroupedProduct::Multiply(const Run& t, const Unpacked& u, const GroupRange& range,
                                const TensorView& to) const {
  Unpacked own;
  if (weights_.size() > 1) RETURN_IF_ERROR(Resolve(t, weights_[range.group], &own));
  TensorView w = weights_.size() > 1 ? own.weight : u.weight;
  if (w.rank == 3) w = w.Select(0, range.group);
  if (split_depth_) w = w.Narrow(0, range.begin, range.rows);
  const TensorView x = RowsOf(t, range);
  return integer_x_ ? MultiplyIntegers(t, x, w, range, to) : MultiplyFloats(t, x, w, range.group, to);
}

}  // namespace anycann
