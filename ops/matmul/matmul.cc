// Matrix products: Matmul, Mm, BatchMatMul, Mv, Dot and the forms with an addend. cubeMathType is accepted
// and not needed: float32 is computed in float32.
#include <algorithm>
#include <utility>

#include "aclnn_ops.h"
#include "ops/matmul/fractal_nz.h"
#include "ops/matmul/product.h"
#include "ops/promote.h"

namespace anycann {
namespace {

ScalarValue Factor(const aclScalar* s) { return s == nullptr ? ScalarValue() : s->value; }

struct Product {
  const aclTensor* a;
  const aclTensor* b;
  const aclTensor* out;
  TensorView a_view, b_view, out_view;  // at least two dimensions each
  const aclTensor* addend = nullptr;
  TensorView addend_view;
  ScalarValue alpha, beta;
  const FractalNz* nz = nullptr;
};

// b as Gemm reads it: its view, or the row-major copy of what NZ stores.
struct RightOperand {
  TensorView view;
  bool nz, transposed;

  Arg Operand(const Product& p) const { return In(p.b, nz ? p.nz->storage : view); }
  TensorView Resolve(const TensorView& operand) const {
    return nz ? FractalNz::Unpack(operand, view, transposed) : operand;
  }
};

Status LaunchProduct(Call& call, const Product& p) {
  if (p.out_view.empty()) return call.Nothing();
  const double k = static_cast<double>(p.a_view.dims[p.a_view.rank - 1]);
  const Cost cost{2 * k * static_cast<double>(p.out_view.numel()),
                  static_cast<double>(p.a_view.nbytes() + p.b_view.nbytes() + p.out_view.nbytes())};
  const RightOperand right{p.b_view, p.nz != nullptr, p.nz != nullptr && p.nz->transposed};
  const auto kernel = [alpha = p.alpha, beta = p.beta, right,
                       added = p.addend != nullptr](const Run& t) -> Status {
    const TensorView b = right.Resolve(t[1]);
    if (b.data == nullptr && !b.empty()) return anycann::Error(kBadAlloc, "no memory to unpack the weight");
    GemmArgs g = MakeGemm(t[0], b, t[2], added ? &t[3] : nullptr);
    g.alpha = alpha;
    g.beta = beta;
    return Gemm(g);
  };
  Arg args[] = {In(p.a, p.a_view), right.Operand(p), Out(p.out, p.out_view), Out(p.out, p.out_view)};
  if (p.addend != nullptr) args[3] = In(p.addend, p.addend_view);
  return call.Launch(std::span<const Arg>(args, p.addend != nullptr ? 4 : 3), cost, kernel);
}

}  // namespace

Status CheckProductTypes(Call& call, const aclTensor* a, const char* a_name, const aclTensor* b,
                         const char* b_name, const aclTensor* out) {
  for (const auto& [t, name] : {std::pair{a, a_name}, std::pair{b, b_name}, std::pair{out, "out"}})
    if (!GemmSupports(t->view.dtype))
      return call.Invalid("{} has type {}, which is not supported", name, Name(t->view.dtype));
  if (IsComplex(a->view.dtype) != IsComplex(b->view.dtype))
    return call.Invalid("{} has type {} and {} has type {}: both or neither must be complex", a_name,
                        Name(a->view.dtype), b_name, Name(b->view.dtype));
  return call.RequireCastable(Promote(a->view.dtype, b->view.dtype), out, "out");
}

// numpy's matmul: vectors become matrices of one row or column, leading dimensions broadcast.
Status LaunchMatmul(Call& call, const aclTensor* self, const aclTensor* mat2, const aclTensor* out,
                    const FractalNz* nz) {
  RETURN_IF_ERROR(CheckProductTypes(call, self, "self", mat2, "mat2", out));
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, kMaxRank));
  RETURN_IF_ERROR(call.RequireRank(mat2, "mat2", 1, kMaxRank));
  Product p{self, mat2, out, self->view, mat2->view, out->view, nullptr, {}, {}, {}, nz};
  const bool row = self->view.rank == 1, column = mat2->view.rank == 1;
  if (row) p.a_view = p.a_view.Unsqueeze(0);
  if (column) p.b_view = p.b_view.Unsqueeze(1);
  const int ra = p.a_view.rank, rb = p.b_view.rank;
  if (p.a_view.dims[ra - 1] != p.b_view.dims[rb - 2])
    return call.Invalid("self {} and mat2 {} don't match: {} columns, {} rows", ShapeString(self->view),
                        ShapeString(mat2->view), p.a_view.dims[ra - 1], p.b_view.dims[rb - 2]);
  int64_t dims[kMaxRank];
  int rank = ra - 2;
  std::copy_n(p.a_view.dims, rank, dims);
  if (!BroadcastShapes(dims, &rank, p.b_view.dims, rb - 2))
    return call.Invalid("leading dimensions of self {} and mat2 {} can't be broadcast",
                        ShapeString(self->view), ShapeString(mat2->view));
  if (!row) dims[rank++] = p.a_view.dims[ra - 2];
  if (!column) dims[rank++] = p.b_view.dims[rb - 1];
  if (out->view.rank != rank && rank == 0 && out->view.numel() == 1) {  // a dot product into shape [1]
    p.out_view = TensorView::Contiguous(out->view.data, out->view.dtype, {1, 1});
    return LaunchProduct(call, p);
  }
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, rank));
  if (row) p.out_view = p.out_view.Unsqueeze(column ? p.out_view.rank : p.out_view.rank - 1);
  if (column) p.out_view = p.out_view.Unsqueeze(p.out_view.rank);
  return LaunchProduct(call, p);
}

// out = beta * self + alpha * (a @ b); self is broadcast to out.
Status LaunchAddProduct(Call& call, const aclTensor* self, const aclTensor* a, const char* a_name,
                        const aclTensor* b, const char* b_name, const aclScalar* beta, const aclScalar* alpha,
                        const aclTensor* out, int rank, const FractalNz* nz) {
  RETURN_IF_ERROR(CheckProductTypes(call, a, a_name, b, b_name, out));
  RETURN_IF_ERROR(call.RequireRank(a, a_name, rank, rank));
  RETURN_IF_ERROR(call.RequireRank(b, b_name, rank, rank));
  if (!GemmSupports(self->view.dtype))
    return call.Invalid("self has type {}, which is not supported", Name(self->view.dtype));
  if (IsComplex(self->view.dtype) && !IsComplex(a->view.dtype))
    return call.Invalid("self has type {}, but {} and {} are real", Name(self->view.dtype), a_name, b_name);
  if (a->view.dims[rank - 1] != b->view.dims[rank - 2])
    return call.Invalid("{} {} and {} {} don't match: {} columns, {} rows", a_name, ShapeString(a->view),
                        b_name, ShapeString(b->view), a->view.dims[rank - 1], b->view.dims[rank - 2]);
  int64_t dims[3];
  int n = rank - 2;
  if (rank == 3) dims[0] = a->view.dims[0];
  if (rank == 3 && !BroadcastShapes(dims, &n, b->view.dims, 1))
    return call.Invalid("{} has {} matrices, {} has {}", a_name, a->view.dims[0], b_name, b->view.dims[0]);
  dims[rank - 2] = a->view.dims[rank - 2];
  dims[rank - 1] = b->view.dims[rank - 1];
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, rank));
  Product p{a, b, out, a->view, b->view, out->view, self, {}, Factor(alpha), Factor(beta), nz};
  if (!BroadcastTo(self->view, dims, rank, &p.addend_view))
    return call.Invalid("self {} can't be broadcast to out {}", ShapeString(self->view),
                        ShapeString(out->view));
  return LaunchProduct(call, p);
}

Status aclnn::Matmul(Call& call, const aclTensor* self, const aclTensor* mat2, aclTensor* out, int8_t) {
  return LaunchMatmul(call, self, mat2, out, nullptr);
}

Status aclnn::Mm(Call& call, const aclTensor* self, const aclTensor* mat2, aclTensor* out, int8_t) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(mat2, "mat2", 2, 2));
  return LaunchMatmul(call, self, mat2, out, nullptr);
}

Status aclnn::BatchMatMul(Call& call, const aclTensor* self, const aclTensor* mat2, aclTensor* out, int8_t) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, kMaxRank));
  RETURN_IF_ERROR(call.RequireRank(mat2, "mat2", 2, kMaxRank));
  return LaunchMatmul(call, self, mat2, out, nullptr);
}

Status aclnn::Mv(Call& call, const aclTensor* self, const aclTensor* vec, aclTensor* out, int8_t) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(vec, "vec", 1, 1));
  return LaunchMatmul(call, self, vec, out, nullptr);
}

Status aclnn::Dot(Call& call, const aclTensor* self, const aclTensor* tensor, aclTensor* out) {
  RETURN_IF_ERROR(call.RequireRank(self, "self", 1, 1));
  RETURN_IF_ERROR(call.RequireRank(tensor, "tensor", 1, 1));
  return LaunchMatmul(call, self, tensor, out, nullptr);
}

Status aclnn::Addmm(Call& call, const aclTensor* self, const aclTensor* mat1, const aclTensor* mat2,
                    const aclScalar* beta, const aclScalar* alpha, aclTensor* out, int8_t) {
  return LaunchAddProduct(call, self, mat1, "mat1", mat2, "mat2", beta, alpha, out, 2, nullptr);
}

Status aclnn::Baddbmm(Call& call, const aclTensor* self, const aclTensor* batch1, const aclTensor* batch2,
                      const aclScalar* beta, const aclScalar* alpha, aclTensor* out, int8_t) {
  return LaunchAddProduct(call, self, batch1, "batch1", batch2, "batch2", beta, alpha, out, 3, nullptr);
}

Status aclnn::Addmv(Call& call, const aclTensor* self, const aclTensor* mat, const aclTensor* vec,
                    const aclScalar* alpha, const aclScalar* beta, aclTensor* out, int8_t) {
  RETURN_IF_ERROR(CheckProductTypes(call, mat, "mat", vec, "vec", out));
  RETURN_IF_ERROR(call.RequireRank(mat, "mat", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(vec, "vec", 1, 1));
  const int64_t rows = mat->view.dims[0];
  if (mat->view.dims[1] != vec->view.dims[0])
    return call.Invalid("mat {} and vec {} don't match", ShapeString(mat->view), ShapeString(vec->view));
  RETURN_IF_ERROR(call.RequireShape(out, "out", &rows, 1));
  Product p{mat,  vec, out,           mat->view,   vec->view.Unsqueeze(1), out->view.Unsqueeze(1),
            self, {},  Factor(alpha), Factor(beta)};
  TensorView wide;
  if (!GemmSupports(self->view.dtype) || !BroadcastTo(self->view, &rows, 1, &wide))
    return call.Invalid("self {} {} can't be added to out {}", ShapeString(self->view),
                        Name(self->view.dtype), ShapeString(out->view));
  p.addend_view = wide.Unsqueeze(1);
  return LaunchProduct(call, p);
}

Status aclnn::Addr(Call& call, const aclTensor* self, const aclTensor* vec1, const aclTensor* vec2,
                   const aclScalar* betaOptional, const aclScalar* alphaOptional, aclTensor* out) {
  RETURN_IF_ERROR(CheckProductTypes(call, vec1, "vec1", vec2, "vec2", out));
  RETURN_IF_ERROR(call.RequireRank(vec1, "vec1", 1, 1));
  RETURN_IF_ERROR(call.RequireRank(vec2, "vec2", 1, 1));
  const int64_t dims[] = {vec1->view.dims[0], vec2->view.dims[0]};
  RETURN_IF_ERROR(call.RequireShape(out, "out", dims, 2));
  Product p{vec1,      vec2, out, vec1->view.Unsqueeze(1), vec2->view.Unsqueeze(0),
            out->view, self, {},  Factor(alphaOptional),   Factor(betaOptional)};
  if (!GemmSupports(self->view.dtype) || !BroadcastTo(self->view, dims, 2, &p.addend_view))
    return call.Invalid("self {} {} can't be added to out {}", ShapeString(self->view),
                        Name(self->view.dtype), ShapeString(out->view));
  return LaunchProduct(call, p);
}

}  // namespace anycann
