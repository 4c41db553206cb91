// Distinct values: of all elements, of runs, of slices along a dimension. How many there are decides the
// outputs' shapes, which the client reads back after it synchronised.
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "ops/operand.h"
#include "ops/reduce/operator.h"
#include "ops/sort/order.h"

namespace anycann {
namespace {

// torch_npu's "no dimension" for aclnnUniqueConsecutive.
constexpr int64_t kNoDim = 1000;

// The elements of one group are adjacent in `order`; group g is order[begin[g], begin[g + 1]).
struct Groups {
  Buffer<int64_t> order;  // positions of elements
  Buffer<int64_t> begin;
  int64_t count = 0;
};

// Groups of equal values, in ascending order or, when consecutive, runs in order of appearance.
template <class T>
Groups GroupValues(const T* x, int64_t n, bool consecutive) {
  Groups g{NewBuffer<int64_t>(n), NewBuffer<int64_t>(n + 1), 0};
  if (consecutive) {
    for (int64_t i = 0; i < n; ++i) g.order[i] = i;
  } else {
    using P = Packing<T>;
    Buffer<typename P::Packed> packed = NewBuffer<typename P::Packed>(2 * n);
    if (!SortNarrow(x, n, false, reinterpret_cast<uint64_t*>(packed.get()), g.order.get())) {
      for (int64_t i = 0; i < n; ++i) packed[i] = P::Pack(x[i], i, false);
      SortPacked<T>(packed.get(), packed.get() + n, n);
      for (int64_t i = 0; i < n; ++i) g.order[i] = P::Position(packed[i]);
    }
  }
  for (int64_t i = 0; i < n; ++i)
    if (i == 0 || x[g.order[i]] != x[g.order[i - 1]])
      g.begin[g.count++] = i;  // a NaN differs from every other
  g.begin[g.count] = n;
  return g;
}

// The same for slices of `size` values each, compared lexicographically.
template <class T>
Groups GroupSlices(const T* x, int64_t n, int64_t size, bool consecutive) {
  Groups g{NewBuffer<int64_t>(n), NewBuffer<int64_t>(n + 1), 0};
  for (int64_t i = 0; i < n; ++i) g.order[i] = i;
  if (!consecutive)
    std::stable_sort(g.order.get(), g.order.get() + n, [&](int64_t a, int64_t b) {
      for (const T *p = x + a * size, *q = x + b * size, *end = p + size; p != end; ++p, ++q)
        if (KeyOf(*p) != KeyOf(*q)) return KeyOf(*p) < KeyOf(*q);
      return false;
    });
  const auto equal = [&](int64_t a, int64_t b) {
    return std::equal(x + a * size, x + (a + 1) * size, x + b * size);
  };
  for (int64_t i = 0; i < n; ++i)
    if (i == 0 || !equal(g.order[i], g.order[i - 1])) g.begin[g.count++] = i;
  g.begin[g.count] = n;
  return g;
}

Groups Group(const TensorView& x, int64_t n, int64_t size, bool consecutive) {
  Groups g;
  VisitWide<kFloatTypes>(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Dense values(x, kDTypeOf<T>, Dense::kRead);
    g = size == 1 ? GroupValues(values.ptr<T>(), n, consecutive)
                  : GroupSlices(values.ptr<T>(), n, size, consecutive);
  });
  return g;
}

// Writes n values into the dense start of `out`, whatever its size was, in its type.
void WriteInt64(const TensorView& out, const int64_t* values, int64_t n) {
  Convert(out.data, out.dtype, values, DType::kInt64, n);
}

struct Wanted {
  bool inverse, counts;
};

void WriteInverseAndCounts(const Groups& g, int64_t n, Wanted wanted, const TensorView& inverse,
                           const TensorView& counts) {
  Buffer<int64_t> values = NewBuffer<int64_t>(std::max(n, g.count));
  if (wanted.inverse) {
    for (int64_t k = 0; k < g.count; ++k)
      for (int64_t i = g.begin[k]; i < g.begin[k + 1]; ++i) values[g.order[i]] = k;
    const TensorView from = TensorView::Contiguous(values.get(), DType::kInt64, inverse.dims, inverse.rank);
    CopyCast(inverse, from);
  }
  if (wanted.counts) {
    for (int64_t k = 0; k < g.count; ++k) values[k] = g.begin[k + 1] - g.begin[k];
    WriteInt64(counts, values.get(), g.count);
  }
}

// Distinct elements of a tensor as one sequence.
Status UniqueValues(Call& call, const aclTensor* self, bool consecutive, Wanted wanted, aclTensor* values,
                    aclTensor* inverse, aclTensor* counts) {
  const int64_t n = self->view.numel();
  if (!VisitWide<kFloatTypes>(self->view.dtype, [](auto) {})) return Unsupported(call, self->view.dtype);
  RETURN_IF_ERROR(call.RequireDType(values, "valueOut", self->view.dtype));
  if (values->view.numel() < n || !values->view.contiguous())
    return call.Invalid("valueOut has shape {}, expected contiguous room for {} values",
                        ShapeString(values->view), n);
  if (wanted.inverse) RETURN_IF_ERROR(call.RequireSameShape(inverse, "inverseOut", self, "self"));
  if (wanted.counts && (counts->view.numel() < n || !counts->view.contiguous()))
    return call.Invalid("countsOut has shape {}, expected contiguous room for {} values",
                        ShapeString(counts->view), n);
  const aclTensor* count_tensor = counts ? counts : values;  // a Plan has no absent operands
  const Cost cost{20.0 * static_cast<double>(n), 3.0 * static_cast<double>(self->view.nbytes())};
  return call.Launch(
      {In(self), Out(values), Out(inverse), Out(count_tensor)}, cost,
      [=, value_ref = TensorRef(values), count_ref = TensorRef(count_tensor)](const Run& t) -> Status {
        const int64_t m = t[0].numel();
        const Groups g = Group(t[0], m, 1, consecutive);
        const Dense x(t[0], Dense::kRead);
        const int64_t size = SizeOf(t[0].dtype);
        for (int64_t k = 0; k < g.count; ++k)
          std::memcpy(t[1].bytes() + k * size, x.view().bytes() + g.order[g.begin[k]] * size,
                      static_cast<size_t>(size));
        WriteInverseAndCounts(g, m, wanted, t[2], t[3]);
        value_ref.SetShape(&g.count, 1);
        if (wanted.counts) count_ref.SetShape(&g.count, 1);
        return Status();
      });
}

// Distinct slices along a dimension.
Status UniqueSlices(Call& call, const aclTensor* self, int64_t dim, bool consecutive, Wanted wanted,
                    aclTensor* values, aclTensor* inverse, aclTensor* counts) {
  int d;
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, kMaxRank));
  RETURN_IF_ERROR(call.WrapDim(dim, self->view.rank, "dim", &d));
  if (!VisitWide<kFloatTypes>(self->view.dtype, [](auto) {})) return Unsupported(call, self->view.dtype);
  const int64_t n = self->view.dims[d];
  RETURN_IF_ERROR(call.RequireDType(values, "valueOut", self->view.dtype));
  if (values->view.numel() < self->view.numel() || !values->view.contiguous())
    return call.Invalid("valueOut has shape {}, expected contiguous room for {} values",
                        ShapeString(values->view), self->view.numel());
  if (wanted.inverse) RETURN_IF_ERROR(call.RequireShape(inverse, "inverseOut", &n, 1));
  if (wanted.counts && (counts->view.numel() < n || !counts->view.contiguous()))
    return call.Invalid("countsOut has shape {}, expected contiguous room for {} values",
                        ShapeString(counts->view), n);
  const Cost cost{20.0 * static_cast<double>(self->view.numel()),
                  3.0 * static_cast<double>(self->view.nbytes())};
  return call.Launch(
      {In(self), Out(values), Out(inverse), Out(counts)}, cost,
      [=, value_ref = TensorRef(values), count_ref = TensorRef(counts)](const Run& t) -> Status {
        TensorView front = t[0];  // the dimension first: slices are then dense
        for (int i = d; i > 0; --i) front = front.Transpose(i - 1, i);
        const Dense slices(front, Dense::kRead);
        const int64_t m = front.dims[0], size = m == 0 ? 0 : front.numel() / m;
        Groups g;
        if (size > 0)
          g = Group(front, m, size, consecutive);
        else
          g.count = 0;
        TensorView picked = front;
        picked.dims[0] = g.count;
        Buffer<char> memory = NewBuffer<char>(picked.nbytes());
        picked = TensorView::Contiguous(memory.get(), front.dtype, picked.dims, front.rank);
        const int64_t bytes = size * SizeOf(front.dtype);
        for (int64_t k = 0; k < g.count; ++k)
          std::memcpy(memory.get() + k * bytes, slices.view().bytes() + g.order[g.begin[k]] * bytes,
                      static_cast<size_t>(bytes));
        for (int i = 0; i < d; ++i) picked = picked.Transpose(i, i + 1);
        CopyCast(TensorView::Contiguous(t[1].data, t[1].dtype, picked.dims, picked.rank), picked);
        if (size > 0) WriteInverseAndCounts(g, m, wanted, t[2], t[3]);
        value_ref.SetShape(picked.dims, picked.rank);
        if (wanted.counts) count_ref.SetShape(&g.count, 1);
        return Status();
      });
}

}  // namespace

Status aclnn::Unique(Call& call, const aclTensor* self, bool, bool returnInverse, aclTensor* valueOut,
                     aclTensor* inverseOut) {
  return UniqueValues(call, self, false, {returnInverse, false}, valueOut, inverseOut, nullptr);
}
Status aclnn::Unique2(Call& call, const aclTensor* self, bool, bool returnInverse, bool returnCounts,
                      aclTensor* valueOut, aclTensor* inverseOut, aclTensor* countsOut) {
  return UniqueValues(call, self, false, {returnInverse, returnCounts}, valueOut, inverseOut, countsOut);
}
Status aclnn::UniqueConsecutive(Call& call, const aclTensor* self, bool returnInverse, bool returnCounts,
                                int64_t dim, aclTensor* valueOut, aclTensor* inverseOut,
                                aclTensor* countsOut) {
  const Wanted wanted{returnInverse, returnCounts};
  if (dim == kNoDim) return UniqueValues(call, self, true, wanted, valueOut, inverseOut, countsOut);
  return UniqueSlices(call, self, dim, true, wanted, valueOut, inverseOut, countsOut);
}
Status aclnn::UniqueDim(Call& call, const aclTensor* self, bool, bool returnInverse, int64_t dim,
                        aclTensor* valueOut, aclTensor* inverseOut, aclTensor* countsOut) {
  return UniqueSlices(call, self, dim, false, {returnInverse, true}, valueOut, inverseOut, countsOut);
}

}  // namespace anycann
