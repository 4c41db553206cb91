// Values placed by coordinate: Tril, Triu, Eye, InplaceFillDiagonal.
#include <algorithm>
#include <cstring>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/call.h"
#include "ops/operand.h"
#include "ops/walk.h"

namespace anycann {
namespace {

// Rows of out: the elements up to (lower) or from (upper) the diagonal are self's, the others zero.
template <class T>
void Triangle(const TensorView& in, const TensorView& out, int64_t diagonal, bool lower) {
  const int64_t cols = out.dims[out.rank - 1], height = out.dims[out.rank - 2];
  const int64_t in_step = in.strides[in.rank - 1], out_step = out.strides[out.rank - 1];
  Walk<2> rows;
  for (int i = 0; i < out.rank - 1; ++i) rows.Add(out.dims[i], {in.strides[i], out.strides[i]});
  const bool same = in.data == out.data;
  ParallelFor(out.numel() / cols, std::max<int64_t>(1, 16384 / cols), [&](int64_t begin, int64_t end) {
    Walk<2> walk = rows;
    walk.Seek(begin);
    for (int64_t r = begin; r < end; ++r, walk.Next()) {
      const T* from = in.ptr<const T>() + walk.offset[0];
      T* to = out.ptr<T>() + walk.offset[1];
      // Columns [0, edge) are on or below the diagonal (lower), strictly below it (upper).
      const int64_t edge = std::clamp<int64_t>(r % height + diagonal + (lower ? 1 : 0), 0, cols);
      const int64_t keep = lower ? 0 : edge, kept = lower ? edge : cols, zero = lower ? edge : 0,
                    zeroed = lower ? cols : edge;
      if (in_step == 1 && out_step == 1) {
        if (!same)
          std::memcpy(static_cast<void*>(to + keep), from + keep,
                      static_cast<size_t>(kept - keep) * sizeof(T));
        std::memset(static_cast<void*>(to + zero), 0, static_cast<size_t>(zeroed - zero) * sizeof(T));
      } else {
        for (int64_t c = keep; c < kept && !same; ++c) to[c * out_step] = from[c * in_step];
        for (int64_t c = zero; c < zeroed; ++c) to[c * out_step] = T{};
      }
    }
  });
}

Status LaunchTriangle(Call& call, const aclTensor* self, int64_t diagonal, const aclTensor* out, bool lower) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, kMaxRank));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", self, "self"));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (out->view.empty()) return call.Nothing();
  // Beyond the matrix all diagonals are alike; keeps the row arithmetic from overflowing.
  const int64_t rows = self->view.dims[self->view.rank - 2], cols = self->view.dims[self->view.rank - 1];
  diagonal = std::clamp<int64_t>(diagonal, -rows - 1, cols + 1);
  return call.Launch(
      {In(self), Out(out)}, Cost{0, static_cast<double>(self->view.nbytes() + out->view.nbytes())},
      [diagonal, lower](const Run& t) -> Status {
        TensorView in = t[0];
        bool alias = in.data == t[1].data;
        for (int i = 0; alias && i < in.rank; ++i)
          alias = in.dims[i] == 1 || in.strides[i] == t[1].strides[i];
        if (in.dtype != t[1].dtype || (in.data == t[1].data && !alias)) {
          CopyCast(t[1], in);
          in = t[1];
        }
        VisitBytes(SizeOf(in.dtype), [&](auto x) { Triangle<decltype(x)>(in, t[1], diagonal, lower); });
        return Status();
      });
}

// A view of the diagonal that starts at element [first, 0].
TensorView Diagonal(const TensorView& v, int64_t length, int64_t stride, int64_t offset) {
  TensorView d = v;
  d.rank = 1;
  d.dims[0] = length;
  d.strides[0] = stride;
  d.data = v.bytes() + offset * SizeOf(v.dtype);
  return d;
}

}  // namespace

Status aclnn::Tril(Call& call, const aclTensor* self, int64_t diagonal, aclTensor* out) {
  return LaunchTriangle(call, self, diagonal, out, true);
}
Status aclnn::Triu(Call& call, const aclTensor* self, int64_t diagonal, aclTensor* out) {
  return LaunchTriangle(call, self, diagonal, out, false);
}

Status aclnn::Eye(Call& call, int64_t n, int64_t m, aclTensor* out) {
  if (n < 0 || m < 0) return call.Invalid("n is {} and m is {}, expected no negative number", n, m);
  const int64_t expected[] = {n, m};
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, 2));
  if (out->view.empty()) return call.Nothing();
  ScalarValue one;
  one.dtype = DType::kInt64;
  one.i = 1;
  const Element element = ElementOf(one, out->view.dtype);
  return call.Launch(
      {Out(out)}, Cost{0, static_cast<double>(out->view.nbytes())}, [element](const Run& t) -> Status {
        const char zero[16] = {};
        Fill(t[0], zero);
        Fill(Diagonal(t[0], std::min(t[0].dims[0], t[0].dims[1]), t[0].strides[0] + t[0].strides[1], 0),
             element.bytes);
        return Status();
      });
}

Status aclnn::InplaceFillDiagonal(Call& call, aclTensor* selfRef, const aclScalar* fillValue, bool wrap) {
  const TensorView& v = selfRef->view;
  RETURN_IF_ERROR(call.RequireRank(selfRef, "selfRef", 2, kMaxRank));
  for (int i = 1; v.rank > 2 && i < v.rank; ++i)
    if (v.dims[i] != v.dims[0])
      return call.Invalid("selfRef has shape {}, expected equal sizes", ShapeString(v));
  if (v.empty()) return call.Nothing();
  const Element element = ElementOf(fillValue->value, v.dtype);
  return call.Launch(
      {Out(selfRef)}, Cost{0, static_cast<double>(v.nbytes())}, [element, wrap](const Run& t) -> Status {
        const TensorView& v = t[0];
        int64_t length = v.dims[0], stride = 0;
        for (int i = 0; i < v.rank; ++i) {
          length = std::min(length, v.dims[i]);
          stride += v.strides[i];
        }
        Fill(Diagonal(v, length, stride, 0), element.bytes);
        const int64_t width = v.dims[1];
        if (!wrap || v.rank != 2) return Status();
        // A tall matrix starts a new diagonal after each `width` rows and an empty one.
        for (int64_t row = width + 1; row < v.dims[0]; row += width + 1)
          Fill(Diagonal(v, std::min(width, v.dims[0] - row), stride, row * v.strides[0]), element.bytes);
        return Status();
      });
}

// A vector becomes a matrix with it on the diagonal; of a matrix the diagonal is taken.
Status aclnn::Diag(Call& call, const aclTensor* self, int64_t diagonal, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, 2));
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (diagonal < -INT32_MAX || diagonal > INT32_MAX) return call.Invalid("diagonal is {}", diagonal);
  const TensorView& s = self->view;
  const bool make = s.rank == 1;
  const int64_t rows = std::max<int64_t>(0, -diagonal), columns = std::max<int64_t>(0, diagonal);
  if (make) {
    const int64_t n = s.dims[0] + rows + columns, expected[] = {n, n};
    RETURN_IF_ERROR(call.RequireShape(out, "out", expected, 2));
  } else {
    const int64_t n = std::max<int64_t>(0, std::min(s.dims[0] - rows, s.dims[1] - columns));
    RETURN_IF_ERROR(call.RequireShape(out, "out", &n, 1));
  }
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), Out(out)}, Cost{0, static_cast<double>(s.nbytes() + out->view.nbytes())},
                     [=](const Run& t) -> Status {
                       const TensorView& matrix = t[make ? 1 : 0];
                       const TensorView& vector = t[make ? 0 : 1];
                       if (make) {
                         const char zero[16] = {};
                         Fill(matrix, zero);
                       }
                       const TensorView line =
                           Diagonal(matrix, vector.dims[0], matrix.strides[0] + matrix.strides[1],
                                    rows * matrix.strides[0] + columns * matrix.strides[1]);
                       if (vector.dims[0] > 0) make ? CopyCast(line, vector) : CopyCast(vector, line);
                       return Status();
                     });
}

Status aclnn::DiagFlat(Call& call, const aclTensor* self, int64_t diagonal, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireCastable(self->view.dtype, out, "out"));
  if (diagonal < -INT32_MAX || diagonal > INT32_MAX) return call.Invalid("diagonal is {}", diagonal);
  const int64_t n = self->view.numel() + std::abs(diagonal), expected[] = {n, n};
  RETURN_IF_ERROR(call.RequireShape(out, "out", expected, 2));
  if (out->view.empty()) return call.Nothing();
  return call.Launch({In(self), Out(out)}, Cost{0, static_cast<double>(out->view.nbytes())},
                     [diagonal](const Run& t) -> Status {
                       const char zero[16] = {};
                       Fill(t[1], zero);
                       const Dense self(t[0], Dense::kRead);
                       const int64_t n = self.view().numel();
                       if (n == 0) return Status();
                       const int64_t first =
                           diagonal < 0 ? -diagonal * t[1].strides[0] : diagonal * t[1].strides[1];
                       CopyCast(Diagonal(t[1], n, t[1].strides[0] + t[1].strides[1], first),
                                TensorView::Contiguous(self.ptr<void>(), t[0].dtype, &n, 1));
                       return Status();
                     });
}

}  // namespace anycann
