// Legacy operators that copy a part of a tensor, or a tensor into a part: slices, strided views, padding.
#include <algorithm>

#include "aclnn_ops.h"
#include "aclop_operators.h"
#include "ops/convert.h"

namespace anycann::aclop {
namespace {

// True when the elements of a view lie within memory of `count` elements.
bool Within(const std::vector<int64_t>& dims, const std::vector<int64_t>& strides, int64_t offset,
            int64_t count) {
  __int128 low = offset, high = offset;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == 0) return true;
    const __int128 span = static_cast<__int128>(dims[i] - 1) * strides[i];
    (span < 0 ? low : high) += span;
  }
  return low >= 0 && high < count;
}

// The view of t's memory that sizes, strides and an offset in elements describe.
Status StridedView(Arguments& a, const aclTensor* t, const Value& sizes, const Value& strides,
                   const Value& offset, TensorView* view) {
  std::vector<int64_t> dims, steps;
  if (sizes.absent() || strides.absent() || sizes.size() != strides.size() || sizes.size() > kMaxRank)
    return a.call().Invalid("size is {} and stride {}, expected as many of both, at most {}", sizes.Show(),
                            strides.Show(), kMaxRank);
  for (size_t i = 0; i < sizes.size(); ++i) {
    dims.push_back(sizes.Integer(i));
    steps.push_back(strides.Integer(i));
    if (dims.back() < 0) return a.call().Invalid("size is {}, expected no negative numbers", sizes.Show());
  }
  const int64_t first = a.Integer(offset);
  RETURN_IF_ERROR(a.status());
  if (!Within(dims, steps, first, t->view.numel()))
    return a.call().Invalid("size {}, stride {} and offset {} reach beyond the {} elements of the tensor",
                            sizes.Show(), strides.Show(), first, t->view.numel());
  *view = TensorView::Contiguous(t->view.bytes() + first * SizeOf(t->view.dtype), t->view.dtype, dims.data(),
                                 static_cast<int>(dims.size()));
  std::copy(steps.begin(), steps.end(), view->strides);
  return Status();
}

Status CopyOf(Call& call, Arguments& a, const TensorView& target, const TensorView& source) {
  TensorView broadcast;
  if (!target.SameShape(source) && BroadcastTo(source, target.dims, target.rank, &broadcast)) {
    aclTensor *in = a.View(broadcast), *out = a.View(target);
    RETURN_IF_ERROR(a.status());
    return aclnn::InplaceCopy(call, out, in);
  }
  if (target.numel() != source.numel() || (!target.SameShape(source) && !target.contiguous()))
    return call.Invalid("y has shape {}, expected {}", ShapeString(target), ShapeString(source));
  const TensorView to = target.SameShape(source)
                            ? target
                            : TensorView::Contiguous(target.data, target.dtype, source.dims, source.rank);
  aclTensor *in = a.View(source), *out = a.View(to);
  RETURN_IF_ERROR(a.status());
  return aclnn::InplaceCopy(call, out, in);
}

struct Paddings {
  std::vector<int64_t> before, after;  // for each dimension
};

// [before, after] of each dimension, or first all of `before` and then all of `after`.
Status ReadPaddings(Arguments& a, const aclTensor* x, const Value& v, bool pairs, Paddings* p) {
  const size_t rank = static_cast<size_t>(x->view.rank);
  if (v.absent() || v.text() || v.size() != 2 * rank)
    return a.call().Invalid("paddings are {}, expected a pair for each of {} dimensions", v.Show(), rank);
  for (size_t d = 0; d < rank; ++d) {
    p->before.push_back(v.Integer(pairs ? 2 * d : d));
    p->after.push_back(v.Integer(pairs ? 2 * d + 1 : rank + d));
  }
  return Status();
}

using PadFunction = Status (*)(Call&, const aclTensor*, const aclIntArray*, aclTensor*);
using PadGradFunction = Status (*)(Call&, const aclTensor*, const aclTensor*, const aclIntArray*, aclTensor*);
constexpr PadFunction kReflect[] = {aclnn::ReflectionPad1d, aclnn::ReflectionPad2d, aclnn::ReflectionPad3d};
constexpr PadFunction kReplicate[] = {aclnn::ReplicationPad1d, aclnn::ReplicationPad2d,
                                      aclnn::ReplicationPad3d};
constexpr PadGradFunction kReflectGrad[] = {aclnn::ReflectionPad1dBackward, aclnn::ReflectionPad2dBackward,
                                            aclnn::ReflectionPad3dBackward};
constexpr PadGradFunction kReplicateGrad[] = {
    aclnn::ReplicationPad1dBackward, aclnn::ReplicationPad2dBackward, aclnn::ReplicationPad3dBackward};

// The last 1 to 3 dimensions of the padding, the last one first, as torch's functions take them. They also
// want one or two dimensions before: `lead` says how many the tensor lacks.
Status InnerPaddings(Arguments& a, const Paddings& p, std::vector<int64_t>* inner, size_t* count) {
  const size_t rank = p.before.size();
  size_t first = rank;
  for (size_t d = rank; d-- > 0;)
    if (p.before[d] != 0 || p.after[d] != 0) first = d;
  *count = std::max<size_t>(rank - first, 1);
  if (*count > 3 || *count >= rank)
    return a.call().Invalid("paddings reach {} dimensions of {}, expected the last 1 to 3 behind another one",
                            *count, rank);
  for (size_t d = rank; d-- > rank - *count;) {
    inner->push_back(p.before[d]);
    inner->push_back(p.after[d]);
  }
  return Status();
}

// The tensor with its outer dimensions joined to two: [N, C, inner...].
TensorView Joined(const TensorView& v, size_t inner) {
  std::vector<int64_t> dims = {1, 1};
  for (int d = 0; d < v.rank - static_cast<int>(inner); ++d) dims[1] *= v.dims[d];
  for (int d = v.rank - static_cast<int>(inner); d < v.rank; ++d) dims.push_back(v.dims[d]);
  return TensorView::Contiguous(v.data, v.dtype, dims.data(), static_cast<int>(dims.size()));
}

Status PadBy(Call& call, Arguments& a, const Paddings& p, const std::string& mode, const Value& value) {
  const aclTensor* x = a.In(0);
  aclTensor* y = a.Out(0);
  std::vector<int64_t> inner;
  size_t count = 0;
  if (mode == "constant") {
    for (size_t d = p.before.size(); d-- > 0;) {
      inner.push_back(p.before[d]);
      inner.push_back(p.after[d]);
    }
    const aclIntArray* paddings = a.Integers(Value(inner));
    const aclScalar* fill = a.Scalar(value.absent() ? Value(int64_t{0}) : value);
    RETURN_IF_ERROR(a.status());
    return aclnn::ConstantPadNd(call, x, paddings, fill, y);
  }
  if (mode != "edge" && mode != "reflect" && mode != "REFLECT")
    return call.Invalid("mode is \"{}\", expected \"constant\", \"edge\" or \"reflect\"", mode);
  RETURN_IF_ERROR(InnerPaddings(a, p, &inner, &count));
  const aclIntArray* paddings = a.Integers(Value(inner));
  aclTensor *in = a.View(Joined(x->view, count)), *out = a.View(Joined(y->view, count));
  RETURN_IF_ERROR(a.status());
  return (mode == "edge" ? kReplicate : kReflect)[count - 1](call, in, paddings, out);
}

}  // namespace

// The columns come as [N, C, kH * kW, L] too.
Status Col2im(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  const aclTensor* x = a.In(0);
  const TensorView& v = x->view;
  if (v.rank == 4) x = a.Reshape(x, {v.dims[0], v.dims[1] * v.dims[2], v.dims[3]});
  const aclIntArray *size = a.Integers(a.Constant(1)), *kernel = a.Integers(a.Attr("kernel_size")),
                    *dilation = a.Integers(a.Attr("dilation")), *padding = a.Integers(a.Attr("padding")),
                    *stride = a.Integers(a.Attr("stride"));
  RETURN_IF_ERROR(a.status());
  return aclnn::Im2colBackward(call, x, size, kernel, dilation, padding, stride, a.Out(0));
}

// torch_npu leaves empty tensors out: there may be none.
Status ConcatD(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(0, 1));
  const int64_t dim = a.Integer(a.Attr("concat_dim"));
  RETURN_IF_ERROR(a.status());
  if (a.input_count() == 0 && a.Out(0)->view.empty()) return call.Nothing();
  const aclTensorList* tensors = a.List(0);
  RETURN_IF_ERROR(a.status());
  return aclnn::Cat(call, tensors, dim, a.Out(0));
}

Status Slice(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(3, 1));
  const Value offsets = a.Constant(1), sizes = a.Constant(2);
  RETURN_IF_ERROR(a.status());
  TensorView v = a.In(0)->view;
  if (offsets.size() != static_cast<size_t>(v.rank) || sizes.size() != offsets.size())
    return call.Invalid("offsets are {} and size {}, expected a number for each of {} dimensions",
                        offsets.Show(), sizes.Show(), v.rank);
  for (int d = 0; d < v.rank; ++d) {
    const int64_t first = offsets.Integer(static_cast<size_t>(d));
    const int64_t wanted = sizes.Integer(static_cast<size_t>(d)),
                  n = wanted == -1 ? v.dims[d] - first : wanted;
    if (first < 0 || n < 0 || first > v.dims[d] || n > v.dims[d] - first)
      return call.Invalid("offsets {} and size {} reach beyond x of shape {}", offsets.Show(), sizes.Show(),
                          ShapeString(a.In(0)->view));
    v = v.Narrow(d, first, n);
  }
  return CopyOf(call, a, a.Out(0)->view, v);
}

Status AsStrided(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(4, 1));
  TensorView v;
  RETURN_IF_ERROR(StridedView(a, a.In(0), a.Constant(1), a.Constant(2), a.Constant(3), &v));
  return CopyOf(call, a, a.Out(0)->view, v);
}

Status ViewCopy(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(8, 1));
  // The output shows a view of the memory that the first input shows whole.
  aclTensor* target = a.Out(0)->view.data == a.In(0)->view.data ? a.In(0) : a.Updated(a.Out(0), a.In(0));
  TensorView to, from;
  RETURN_IF_ERROR(StridedView(a, target, a.Constant(1), a.Constant(2), a.Constant(3), &to));
  RETURN_IF_ERROR(StridedView(a, a.In(4), a.Constant(5), a.Constant(6), a.Constant(7), &from));
  return CopyOf(call, a, to, from);
}

Status Pad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Paddings p;
  RETURN_IF_ERROR(ReadPaddings(a, a.In(0), a.Constant(1), true, &p));
  return PadBy(call, a, p, "constant", Value());
}

Status PadV3(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Paddings p;
  RETURN_IF_ERROR(ReadPaddings(a, a.In(0), a.Constant(1), a.Flag(a.Attr("paddings_contiguous", true)), &p));
  return PadBy(call, a, p, a.Text("mode", "constant"), a.Constant(2));
}

Status MirrorPad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Paddings p;
  RETURN_IF_ERROR(ReadPaddings(a, a.In(0), a.Constant(1), true, &p));
  return PadBy(call, a, p, a.Text("mode", "REFLECT"), Value());
}

Status PadV3Grad(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(2, 1));
  Paddings p;
  RETURN_IF_ERROR(ReadPaddings(a, a.In(0), a.Constant(1), a.Flag(a.Attr("paddings_contiguous", true)), &p));
  const std::string mode = a.Text("mode", "reflect");
  if (mode != "reflect" && mode != "edge")
    return call.Invalid("mode is \"{}\", expected \"edge\" or \"reflect\"", mode);
  std::vector<int64_t> inner;
  size_t count = 0;
  RETURN_IF_ERROR(InnerPaddings(a, p, &inner, &count));
  const aclIntArray* paddings = a.Integers(Value(inner));
  aclTensor *grad = a.View(Joined(a.In(0)->view, count)), *dx = a.View(Joined(a.Out(0)->view, count));
  RETURN_IF_ERROR(a.status());
  // The engine takes only the shape of the input from its second parameter.
  return (mode == "edge" ? kReplicateGrad : kReflectGrad)[count - 1](call, grad, dx, paddings, dx);
}

// The input is reshaped and permuted, or permuted and reshaped: the elements' order is the permutation's.
Status ConfusionTransposeD(Call& call, Arguments& a) {
  RETURN_IF_ERROR(a.Require(1, 1));
  const Value perm = a.Attr("perm"), shape = a.Attr("shape"), first = a.Attr("transpose_first");
  const bool transpose_first = a.Flag(first);
  RETURN_IF_ERROR(a.status());
  const TensorView &x = a.In(0)->view, &y = a.Out(0)->view;
  TensorView v = x;
  if (!transpose_first) {
    int64_t n = 1;
    for (size_t i = 0; i < shape.size(); ++i) n *= shape.Integer(i);
    if (shape.size() > kMaxRank || n != x.numel())
      return call.Invalid("shape is {}, expected {} elements", shape.Show(), x.numel());
    v.rank = static_cast<int>(shape.size());
    for (size_t i = 0; i < shape.size(); ++i) v.dims[i] = shape.Integer(i);
    v = TensorView::Contiguous(x.data, x.dtype, v.dims, v.rank);
  }
  if (perm.size() != static_cast<size_t>(v.rank))
    return call.Invalid("perm is {}, expected {} numbers", perm.Show(), v.rank);
  TensorView permuted = v;
  unsigned seen = 0;
  for (int d = 0; d < v.rank; ++d) {
    const int64_t from = perm.Integer(static_cast<size_t>(d));
    if (from < 0 || from >= v.rank || (seen >> from & 1))
      return call.Invalid("perm is {}, expected each dimension of {} once", perm.Show(), v.rank);
    seen |= 1u << from;
    permuted.dims[d] = v.dims[from];
    permuted.strides[d] = v.strides[from];
  }
  return CopyOf(call, a, y, permuted);
}

}  // namespace anycann::aclop
