// Rotary position embedding: out = p(x) * cos + r(x) * sin, where r turns pairs of elements of the last
// dimension by a right angle and p is the identity, but for kInterleaveHalf, which also brings the pairs into
// halves.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/convert.h"

namespace anycann {
namespace {

enum class Rotation : int64_t {
  kHalf = 0,            // pairs (i, i + D/2)
  kInterleave = 1,      // pairs (2i, 2i + 1)
  kQuarter = 2,         // kHalf on each half of the row
  kInterleaveHalf = 3,  // pairs (2i, 2i + 1) of x become (i, i + D/2) of out
};

constexpr int64_t kMostDim = 4096;

// Calls f(a, b, i, j) for the pairs: x[a], x[b] turn into places i and j of out, r[i] = -x[b], r[j] = x[a].
template <class F>
void EachPair(Rotation mode, int64_t dim, F&& f) {
  const int64_t half = dim / 2;
  switch (mode) {
    case Rotation::kHalf:
      for (int64_t i = 0; i < half; ++i) f(i, i + half, i, i + half);
      break;
    case Rotation::kInterleave:
      for (int64_t i = 0; i < dim; i += 2) f(i, i + 1, i, i + 1);
      break;
    case Rotation::kQuarter:
      for (int64_t q = 0; q < 2; ++q)
        for (int64_t i = q * half; i < q * half + half / 2; ++i) f(i, i + half / 2, i, i + half / 2);
      break;
    case Rotation::kInterleaveHalf:
      for (int64_t i = 0; i < half; ++i) f(2 * i, 2 * i + 1, i, i + half);
      break;
  }
}

void LoadRow(float* to, const TensorView& v, const char* from) {
  const int64_t n = v.dims[v.rank - 1], stride = v.strides[v.rank - 1];
  if (stride == 1 || n == 1) return Convert(to, DType::kFloat, from, v.dtype, n);
  for (int64_t d = 0; d < n; ++d)
    Convert(to + d, DType::kFloat, from + d * stride * SizeOf(v.dtype), v.dtype, 1);
}
void StoreRow(const TensorView& v, char* to, const float* from) {
  const int64_t n = v.dims[v.rank - 1], stride = v.strides[v.rank - 1];
  if (stride == 1 || n == 1) return Convert(to, v.dtype, from, DType::kFloat, n);
  for (int64_t d = 0; d < n; ++d)
    Convert(to + d * stride * SizeOf(v.dtype), v.dtype, from + d, DType::kFloat, 1);
}

// Address of row `index` (over all dimensions but the last, of `dims`).
char* RowOf(const TensorView& v, const int64_t* dims, int64_t index) {
  int64_t offset = 0;
  for (int d = v.rank - 2; d >= 0; --d) {
    offset += index % dims[d] * v.strides[d];
    index /= dims[d];
  }
  return v.bytes() + offset * SizeOf(v.dtype);
}

struct RowBuffers {
  float x[kMostDim], cos[kMostDim], sin[kMostDim], out[kMostDim];
};

// cos and sin are broadcast to x. `rotate`: a matrix to use instead of r, r(x) = x @ rotate.
void RotateRows(const TensorView& x, const TensorView& cos, const TensorView& sin, Rotation mode,
                const TensorView* rotate, const TensorView& out) {
  const int64_t dim = x.dims[x.rank - 1], rows = x.numel() / dim;
  ParallelFor(rows, std::max<int64_t>(1, 16384 / dim), [&](int64_t begin, int64_t end) {
    RowBuffers b;
    for (int64_t row = begin; row < end; ++row) {
      LoadRow(b.x, x, RowOf(x, x.dims, row));
      LoadRow(b.cos, cos, RowOf(cos, x.dims, row));
      LoadRow(b.sin, sin, RowOf(sin, x.dims, row));
      if (rotate != nullptr) {
        alignas(64) float line[kMostDim];
        for (int64_t d = 0; d < dim; ++d) b.out[d] = b.x[d] * b.cos[d];
        for (int64_t e = 0; e < dim; ++e) {
          LoadRow(line, *rotate, RowOf(*rotate, rotate->dims, e));
          for (int64_t d = 0; d < dim; ++d) b.out[d] += b.x[e] * line[d] * b.sin[d];
        }
      } else {
        EachPair(mode, dim, [&b](int64_t p, int64_t q, int64_t i, int64_t j) {
          b.out[i] = b.x[p] * b.cos[i] - b.x[q] * b.sin[i];
          b.out[j] = b.x[q] * b.cos[j] + b.x[p] * b.sin[j];
        });
      }
      StoreRow(out, RowOf(out, x.dims, row), b.out);
    }
  });
}

// dx = p'(dy * cos) + r'(dy * sin)
void InputGradient(const TensorView& dy, const TensorView& cos, const TensorView& sin, Rotation mode,
                   const TensorView& dx) {
  const int64_t dim = dy.dims[dy.rank - 1], rows = dy.numel() / dim;
  ParallelFor(rows, std::max<int64_t>(1, 16384 / dim), [&](int64_t begin, int64_t end) {
    RowBuffers b;
    for (int64_t row = begin; row < end; ++row) {
      LoadRow(b.x, dy, RowOf(dy, dy.dims, row));
      LoadRow(b.cos, cos, RowOf(cos, dy.dims, row));
      LoadRow(b.sin, sin, RowOf(sin, dy.dims, row));
      EachPair(mode, dim, [&b](int64_t p, int64_t q, int64_t i, int64_t j) {
        b.out[p] = b.x[i] * b.cos[i] + b.x[j] * b.sin[j];
        b.out[q] = b.x[j] * b.cos[j] - b.x[i] * b.sin[i];
      });
      StoreRow(dx, RowOf(dx, dy.dims, row), b.out);
    }
  });
}

// dcos = sum of dy * p(x), dsin = sum of dy * r(x), over the rows to which a row of cos was broadcast.
void AngleGradients(const TensorView& dy, const TensorView& x, Rotation mode, const TensorView& dcos,
                    const TensorView& dsin) {
  const int64_t dim = dy.dims[dy.rank - 1], own = dcos.numel() / dim, rank = dy.rank - 1;
  int64_t shared_dims[kMaxRank], shared = 1;  // the dimensions along which cos is broadcast
  for (int d = 0; d < rank; ++d) {
    shared_dims[d] = dcos.dims[d] == dy.dims[d] ? 1 : dy.dims[d];
    shared *= shared_dims[d];
  }
  ParallelFor(own, std::max<int64_t>(1, 16384 / (dim * shared)), [&](int64_t begin, int64_t end) {
    RowBuffers b;
    alignas(64) float out[kMostDim];
    for (int64_t row = begin; row < end; ++row) {
      std::fill_n(b.cos, dim, 0.0f);
      std::fill_n(b.sin, dim, 0.0f);
      for (int64_t s = 0; s < shared; ++s) {
        int64_t a = row, c = s, dy_offset = 0, x_offset = 0;
        for (int64_t d = rank - 1; d >= 0; --d) {
          const int64_t i = a % dcos.dims[d] + c % shared_dims[d];
          a /= dcos.dims[d];
          c /= shared_dims[d];
          dy_offset += i * dy.strides[d];
          x_offset += i * x.strides[d];
        }
        LoadRow(out, dy, dy.bytes() + dy_offset * SizeOf(dy.dtype));
        LoadRow(b.x, x, x.bytes() + x_offset * SizeOf(x.dtype));
        EachPair(mode, dim, [&b, &out](int64_t p, int64_t q, int64_t i, int64_t j) {
          b.cos[i] += out[i] * b.x[p];
          b.cos[j] += out[j] * b.x[q];
          b.sin[i] -= out[i] * b.x[q];
          b.sin[j] += out[j] * b.x[p];
        });
      }
      StoreRow(dcos, RowOf(dcos, dcos.dims, row), b.cos);
      StoreRow(dsin, RowOf(dsin, dsin.dims, row), b.sin);
    }
  });
}

Status CheckMode(Call& call, int64_t mode, const TensorView& x) {
  if (mode < 0 || mode > 3) return call.Invalid("mode is {}, expected 0 to 3", mode);
  const int64_t dim = x.dims[x.rank - 1], multiple = mode == 2 ? 4 : 2;
  if (dim % multiple != 0 || dim < 1 || dim > kMostDim)
    return call.Invalid("x has shape {}: the last dimension must be a multiple of {} up to {}",
                        ShapeString(x), multiple, kMostDim);
  return Status();
}

Status CheckRows(Call& call, const aclTensor* t, const char* name) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 2, kMaxRank));
  const DType type = t->view.dtype;
  return type == DType::kFloat || IsReduced(type)
             ? Status()
             : call.Invalid("{} has type {}, which is not supported", name, Name(type));
}

// cos or sin, broadcast to x.
Status Angles(Call& call, const aclTensor* t, const char* name, const TensorView& x, TensorView* wide) {
  RETURN_IF_ERROR(CheckRows(call, t, name));
  if (t->view.dims[t->view.rank - 1] != x.dims[x.rank - 1] || !BroadcastTo(t->view, x.dims, x.rank, wide))
    return call.Invalid("{} {} can't be broadcast to x {}", name, ShapeString(t->view), ShapeString(x));
  return Status();
}

Cost CostOf(const TensorView& x) {
  return {3.0 * static_cast<double>(x.numel()), 2.0 * static_cast<double>(x.nbytes())};
}

Status LaunchRotary(Call& call, const aclTensor* x, const aclTensor* cos, const aclTensor* sin, int64_t mode,
                    const aclTensor* rotate, const aclTensor* out) {
  RETURN_IF_ERROR(CheckRows(call, x, "x"));
  RETURN_IF_ERROR(CheckRows(call, out, "out"));
  RETURN_IF_ERROR(call.RequireSameShape(out, "out", x, "x"));
  RETURN_IF_ERROR(CheckMode(call, mode, x->view));
  TensorView c, s;
  RETURN_IF_ERROR(Angles(call, cos, "cos", x->view, &c));
  RETURN_IF_ERROR(Angles(call, sin, "sin", x->view, &s));
  const int64_t dim = x->view.dims[x->view.rank - 1], square[] = {dim, dim};
  if (rotate != nullptr) {
    RETURN_IF_ERROR(CheckRows(call, rotate, "rotate"));
    RETURN_IF_ERROR(call.RequireShape(rotate, "rotate", square, 2));
  }
  if (x->view.empty()) return call.Nothing();
  const Rotation rotation = static_cast<Rotation>(mode);
  const bool by_matrix = rotate != nullptr;
  const Arg args[] = {In(x), In(cos, c), In(sin, s), Out(out), by_matrix ? In(rotate) : Out(out)};
  return call.Launch(std::span<const Arg>(args, by_matrix ? 5 : 4), CostOf(x->view),
                     [rotation, by_matrix](const Run& t) -> Status {
                       RotateRows(t[0], t[1], t[2], rotation, by_matrix ? &t[4] : nullptr, t[3]);
                       return Status();
                     });
}

Status LaunchApply(Call& call, const aclTensor* query, const aclTensor* key, const aclTensor* cos,
                   const aclTensor* sin, int64_t mode) {
  TensorView c[2], s[2];
  const aclTensor* targets[] = {query, key};
  for (int i = 0; i < 2; ++i) {
    RETURN_IF_ERROR(CheckRows(call, targets[i], i ? "keyRef" : "queryRef"));
    RETURN_IF_ERROR(CheckMode(call, mode, targets[i]->view));
    RETURN_IF_ERROR(Angles(call, cos, "cos", targets[i]->view, &c[i]));
    RETURN_IF_ERROR(Angles(call, sin, "sin", targets[i]->view, &s[i]));
  }
  const Cost cost{CostOf(query->view).flops + CostOf(key->view).flops,
                  CostOf(query->view).bytes + CostOf(key->view).bytes};
  return call.Launch({Out(query), In(cos, c[0]), In(sin, s[0]), Out(key), In(cos, c[1]), In(sin, s[1])}, cost,
                     [rotation = static_cast<Rotation>(mode)](const Run& t) -> Status {
                       for (int i = 0; i < 6; i += 3)
                         if (!t[i].empty()) RotateRows(t[i], t[i + 1], t[i + 2], rotation, nullptr, t[i]);
                       return Status();
                     });
}

}  // namespace

Status aclnn::RotaryPositionEmbedding(Call& call, const aclTensor* x, const aclTensor* cos,
                                      const aclTensor* sin, int64_t mode, const aclTensor* out) {
  return LaunchRotary(call, x, cos, sin, mode, nullptr, out);
}

Status aclnn::InterleaveRope(Call& call, const aclTensor* x, const aclTensor* cos, const aclTensor* sin,
                             aclTensor* out) {
  return LaunchRotary(call, x, cos, sin, static_cast<int64_t>(Rotation::kInterleaveHalf), nullptr, out);
}

Status aclnn::RotaryPositionEmbeddingV2(Call& call, const aclTensor* x, const aclTensor* cos,
                                        const aclTensor* sin, int64_t mode, const aclTensor* rotate,
                                        aclTensor* out) {
  return LaunchRotary(call, x, cos, sin, mode, rotate, out);
}

Status aclnn::RotaryPositionEmbeddingGrad(Call& call, const aclTensor* dy, const aclTensor* cos,
                                          const aclTensor* sin, const aclTensor* xOptional, int64_t mode,
                                          const aclTensor* dxOut, const aclTensor* dcosOut,
                                          const aclTensor* dsinOut) {
  RETURN_IF_ERROR(CheckRows(call, dy, "dy"));
  RETURN_IF_ERROR(CheckRows(call, dxOut, "dx"));
  RETURN_IF_ERROR(call.RequireSameShape(dxOut, "dx", dy, "dy"));
  RETURN_IF_ERROR(CheckMode(call, mode, dy->view));
  TensorView c, s;
  RETURN_IF_ERROR(Angles(call, cos, "cos", dy->view, &c));
  RETURN_IF_ERROR(Angles(call, sin, "sin", dy->view, &s));
  const bool angles = xOptional != nullptr;
  if (angles) {
    RETURN_IF_ERROR(CheckRows(call, xOptional, "x"));
    RETURN_IF_ERROR(call.RequireSameShape(xOptional, "x", dy, "dy"));
    RETURN_IF_ERROR(call.RequireSameShape(dcosOut, "dcos", cos, "cos"));
    RETURN_IF_ERROR(call.RequireSameShape(dsinOut, "dsin", sin, "sin"));
    RETURN_IF_ERROR(call.RequireSameShape(sin, "sin", cos, "cos"));
    if (cos->view.rank != dy->view.rank)
      return call.Invalid("cos {} and dy {} must have as many dimensions", ShapeString(cos->view),
                          ShapeString(dy->view));
  }
  if (dy->view.empty()) return call.Nothing();
  const Arg args[] = {In(dy),
                      In(cos, c),
                      In(sin, s),
                      Out(dxOut),
                      angles ? In(xOptional) : Out(dxOut),
                      Out(angles ? dcosOut : dxOut),
                      Out(angles ? dsinOut : dxOut)};
  return call.Launch(std::span<const Arg>(args, angles ? 7 : 4), CostOf(dy->view),
                     [rotation = static_cast<Rotation>(mode), angles](const Run& t) -> Status {
                       InputGradient(t[0], t[1], t[2], rotation, t[3]);
                       if (angles) AngleGradients(t[0], t[4], rotation, t[5], t[6]);
                       return Status();
                     });
}

Status aclnn::ApplyRotaryPosEmb(Call& call, aclTensor* queryRef, aclTensor* keyRef, const aclTensor* cos,
                                const aclTensor* sin, int64_t) {
  return LaunchApply(call, queryRef, keyRef, cos, sin, 0);
}

Status aclnn::ApplyRotaryPosEmbV2(Call& call, aclTensor* queryRef, aclTensor* keyRef, const aclTensor* cos,
                                  const aclTensor* sin, int64_t, char* rotaryMode) {
  static constexpr const char* kModes[] = {"half", "interleave", "quarter"};
  for (int mode = 0; mode < 3; ++mode)
    if (std::strcmp(rotaryMode, kModes[mode]) == 0)
      return LaunchApply(call, queryRef, keyRef, cos, sin, mode);
  return call.Invalid("rotaryMode is {}, expected half, interleave or quarter", rotaryMode);
}

Status aclnn::InplacePartialRotaryMul(Call& call, const aclTensor* xRef, const aclTensor* cos,
                                      const aclTensor* sin, int64_t rotary_mode,
                                      const aclIntArray* partialSlice) {
  RETURN_IF_ERROR(CheckRows(call, xRef, "xRef"));
  const int last = xRef->view.rank - 1;
  const int64_t dim = xRef->view.dims[last];
  if (partialSlice->size != 2 || (*partialSlice)[0] < 0 || (*partialSlice)[1] < (*partialSlice)[0] ||
      (*partialSlice)[1] > dim)
    return call.Invalid(
        "partialSlice has {} values{}, expected a begin and an end within 0 to {}", partialSlice->size,
        partialSlice->size == 2 ? fmt::format(" ({} and {})", (*partialSlice)[0], (*partialSlice)[1]) : "",
        dim);
  const TensorView x = xRef->view.Narrow(last, (*partialSlice)[0], (*partialSlice)[1] - (*partialSlice)[0]);
  if (x.empty()) return call.Nothing();
  RETURN_IF_ERROR(CheckMode(call, rotary_mode, x));
  TensorView c, s;
  RETURN_IF_ERROR(Angles(call, cos, "cos", x, &c));
  RETURN_IF_ERROR(Angles(call, sin, "sin", x, &s));
  return call.Launch({Out(xRef, x), In(cos, c), In(sin, s)}, CostOf(x),
                     [rotation = static_cast<Rotation>(rotary_mode)](const Run& t) -> Status {
                       RotateRows(t[0], t[1], t[2], rotation, nullptr, t[0]);
                       return Status();
                     });
}

}  // namespace anycann
