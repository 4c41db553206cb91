// Where values belong in sorted sequences, and whether a value occurs in a tensor.
#include "aclnn_ops.h"
#include "ops/elementwise/map.h"
#include "ops/operand.h"
#include "ops/reduce/line_operator.h"
#include "ops/reduce/operator.h"

namespace anycann {
namespace {

// How many of the sequence's values lie before v: those that aren't >= v or, from the right, aren't > v.
// Written as torch compares, so that a NaN belongs at the end.
template <class T>
inline int64_t Place(const T* sequence, const int64_t* sorter, int64_t n, T v, bool right) {
  int64_t begin = 0;
  while (n > 0) {
    const int64_t half = n / 2, i = begin + half;
    const T middle = sequence[sorter ? sorter[i] : i];
    const bool after = right ? !(middle > v) : !(middle >= v);
    begin = after ? i + 1 : begin;
    n = after ? n - half - 1 : half;
  }
  return begin;
}

struct SearchParams {
  int64_t n;  // length of a sequence
  bool right;
};

template <class T>
struct Search {
  // in: values, sequence, and perhaps the order that sorts it
  template <bool with_sorter>
  static void Line(void* const* out, const void* const* in, int64_t m, void*, const void* params) {
    const auto& p = *static_cast<const SearchParams*>(params);
    const T *v = static_cast<const T*>(in[0]), *sequence = static_cast<const T*>(in[1]);
    const int64_t* sorter = with_sorter ? static_cast<const int64_t*>(in[2]) : nullptr;
    int64_t* place = static_cast<int64_t*>(out[0]);
    for (int64_t i = 0; i < m; ++i) place[i] = Place(sequence, sorter, p.n, v[i], p.right);
  }
  static LineKernel Kernel(bool with_sorter) {
    LineKernel k;
    k.inputs = with_sorter ? 3 : 2;
    k.in_types[0] = k.in_types[1] = kDTypeOf<T>;
    k.in_types[2] = k.out_types[0] = DType::kInt64;
    k.line = with_sorter ? &Line<true> : &Line<false>;
    k.cost = 200;
    return k;
  }
};

// Every index of `sorter` must be of the sequence of n elements that it orders.
Status CheckSorter(const Run& t, const Dense& sorter, int64_t n) {
  const int64_t* p = sorter.ptr<const int64_t>();
  for (int64_t i = 0; i < sorter.view().numel(); ++i)
    if (p[i] < 0 || p[i] >= n)
      return Error(kParamInvalid, "{}: sorter holds {} at position {}, expected indices in [0,{})",
                   t.plan().name, p[i], i, n);
  return Status();
}

// One sequence for all values: any shape, in parallel over the values.
template <class T>
struct SearchOne {
  const T* sequence;
  const int64_t* sorter;
  SearchParams p;
  int64_t operator()(T v) const { return Place(sequence, sorter, p.n, v, p.right); }
};

Status RequirePlaces(const Call& call, const aclTensor* out, bool int32) {
  return call.RequireDType(out, "out", int32 ? DType::kInt32 : DType::kInt64);
}

DType CommonType(const aclTensor* sequence, DType value) {
  return WideType(Promote(sequence->view.dtype, value));
}

// values: a tensor of any shape, or a view that the kernel replaces when `constant` is given.
Status SearchInOne(Call& call, const aclTensor* sequence, const aclTensor* values,
                   const ScalarValue* constant, const aclTensor* sorter, bool right, const aclTensor* out) {
  const SearchParams p{sequence->view.dims[0], right};
  if (out->view.empty()) return call.Nothing();
  const DType type = constant ? WideType(PromoteScalar(sequence->view.dtype, constant->dtype))
                              : CommonType(sequence, values->view.dtype);
  const ScalarValue value = constant ? *constant : ScalarValue();
  const bool has_value = constant != nullptr, has_sorter = sorter != nullptr;
  const Arg operands[] = {Out(out), In(sequence), In(has_value ? sequence : values),
                          In(has_sorter ? sorter : sequence)};
  Status status;
  const bool known = VisitWide<kFloatTypes>(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const double n = static_cast<double>(out->view.numel());
    status = call.Launch(operands, Cost{20 * n, 16 * n}, [=](const Run& t) -> Status {
      const Dense s(t[1], kDTypeOf<T>, Dense::kRead);
      std::unique_ptr<Dense> order;
      if (has_sorter) order = std::make_unique<Dense>(t[3], DType::kInt64, Dense::kRead);
      const SearchOne<T> f{s.ptr<T>(), has_sorter ? order->ptr<int64_t>() : nullptr, p};
      if (has_sorter) RETURN_IF_ERROR(CheckSorter(t, *order, p.n));
      T one = value.template To<T>();
      TensorView from = t[2];
      if (has_value) from = TensorView::Contiguous(&one, kDTypeOf<T>, t[0].dims, 0);
      RunElementwise(KernelOf<SearchOne<T>, T>(200), {t[0]}, {from}, &f);
      return Status();
    });
  });
  return known ? status : Unsupported(call, type);
}

Status SearchAlong(Call& call, const aclTensor* sequence, const aclTensor* values, const aclTensor* sorter,
                   bool right, const aclTensor* out) {
  const TensorView &s = sequence->view, &v = values->view;
  bool match = s.rank == v.rank;
  for (int i = 0; match && i + 1 < s.rank; ++i) match = s.dims[i] == v.dims[i];
  if (!match)
    return call.Invalid("self has shape {}, expected sortedSequence's {} but for the last dimension",
                        ShapeString(v), ShapeString(s));
  if (out->view.empty()) return call.Nothing();
  const SearchParams p{s.dims[s.rank - 1], right};
  Status status;
  const bool known = VisitWide<kFloatTypes>(CommonType(sequence, v.dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const LineKernel k = Search<T>::Kernel(sorter != nullptr);
    const Arg operands[] = {Out(out), In(values), In(sequence),
                            sorter != nullptr ? In(sorter) : In(sequence)};
    const double n = static_cast<double>(out->view.numel());
    status = call.Launch(operands, Cost{20 * n, 16 * n},
                         [k, p, dim = s.rank - 1, sorted = sorter != nullptr](const Run& t) -> Status {
                           if (sorted)
                             RETURN_IF_ERROR(CheckSorter(t, Dense(t[3], DType::kInt64, Dense::kRead), p.n));
                           const TensorView inputs[] = {t[1], t[2], t[3]};
                           return RunLines(k, {&t[0], 1}, {inputs, sorted ? size_t{3} : size_t{2}}, dim, &p);
                         });
  });
  return known ? status : Unsupported(call, v.dtype);
}

// Whether a constant occurs among the values.
template <class T>
struct OccursFold {
  using In = T;
  using Acc = bool;
  using Out = bool;
  T value;
  bool invert;
  bool Init() const { return false; }
  void Row(bool& acc, const T* x, int64_t n, int64_t) const {
    bool any = false;
    for (int64_t i = 0; i < n; ++i) any |= x[i] == value;
    acc |= any;
  }
  void Merge(bool& acc, const bool& later) const { acc |= later; }
  bool Finish(const bool& acc, int64_t) const { return acc != invert; }
};

template <class T>
struct EqualsConstant {
  T value;
  bool invert;
  bool operator()(T x) const { return (x == value) != invert; }
};

}  // namespace

Status aclnn::SearchSorted(Call& call, const aclTensor* sortedSequence, const aclTensor* self, bool outInt32,
                           bool right, const aclTensor* sorter, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(sortedSequence, "sortedSequence", 1, kMaxRank));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(RequirePlaces(call, out, outInt32));
  if (sorter) RETURN_IF_ERROR(call.RequireSameShape(sorter, "sorter", sortedSequence, "sortedSequence"));
  if (sortedSequence->view.rank == 1)
    return SearchInOne(call, sortedSequence, self, nullptr, sorter, right, out);
  return SearchAlong(call, sortedSequence, self, sorter, right, out);
}
Status aclnn::SearchSorteds(Call& call, const aclTensor* sortedSequence, const aclScalar* self,
                            const bool outInt32, const bool right, const aclTensor* sorter, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(sortedSequence, "sortedSequence", 1, 1));
  RETURN_IF_ERROR(RequirePlaces(call, out, outInt32));
  if (out->view.numel() != 1)
    return call.Invalid("out has shape {}, expected one element", ShapeString(out->view));
  if (sorter) RETURN_IF_ERROR(call.RequireSameShape(sorter, "sorter", sortedSequence, "sortedSequence"));
  return SearchInOne(call, sortedSequence, nullptr, &self->value, sorter, right, out);
}
Status aclnn::Bucketize(Call& call, const aclTensor* self, const aclTensor* boundaries, const bool outInt32,
                        const bool right, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(boundaries, "boundaries", 1, 1));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(RequirePlaces(call, out, outInt32));
  return SearchInOne(call, boundaries, self, nullptr, nullptr, right, out);
}

Status aclnn::IsInScalarTensor(Call& call, const aclScalar* element, const aclTensor* testElements, bool,
                               bool invert, aclTensor* out) {
  if (out->view.numel() != 1)
    return call.Invalid("out has shape {}, expected one element", ShapeString(out->view));
  Status status;
  const DType type = PromoteScalar(testElements->view.dtype, element->value.dtype);
  const bool known = VisitWide<kFloatTypes>(type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    TensorView one = out->view;
    one.rank = 0;
    const OccursFold<T> fold{element->value.To<T>(), invert};
    const uint32_t mask = AllDims(testElements->view.rank);
    const Arg operands[] = {In(testElements), Out(out, KeepDims(one, testElements->view.rank, mask))};
    const double n = static_cast<double>(testElements->view.numel());
    status = call.Launch(operands, Cost{n, static_cast<double>(testElements->view.nbytes())},
                         [fold, mask](const Run& t) {
                           return RunReduce(*ReducerOf<OccursFold<T>>(), {&t[1], 1}, t[0], mask, &fold);
                         });
  });
  return known ? status : Unsupported(call, type);
}
Status aclnn::IsInTensorScalar(Call& call, const aclTensor* element, const aclScalar* testElement, bool,
                               bool invert, aclTensor* out) {
  const DType type = PromoteScalar(element->view.dtype, testElement->value.dtype);
  return MapUnary<kAllTypes>(call, element, out, type, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return EqualsConstant<T>{testElement->value.To<T>(), invert};
  });
}

}  // namespace anycann
