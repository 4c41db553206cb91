#include "ops/quant/integer_matrix.h"

#include "base/parallel.h"
#include "ops/matmul/fractal_nz.h"
#include "ops/quant/int4.h"

namespace anycann {
namespace {

Status RefuseType(Call& call, const aclTensor* t, const char* name) {
  return call.Invalid("{} has type {}, expected int8, int4 or int32 (eight int4)", name, Name(t->view.dtype));
}

}  // namespace

Status ReadIntegerMatrix(Call& call, const aclTensor* t, const char* name, bool transpose, IntegerMatrix* m,
                         Arg* arg) {
  if (IsFloating(t->view.dtype)) return RefuseType(call, t, name);
  return ReadWeight(call, t, name, transpose, m, arg);
}

Status ReadWeight(Call& call, const aclTensor* t, const char* name, bool transpose, IntegerMatrix* m,
                  Arg* arg) {
  RETURN_IF_ERROR(call.RequireRank(t, name, 2, kMaxRank));
  TensorView v = t->view;
  const bool floats = IsFloating(v.dtype);
  if (!floats && v.dtype != DType::kInt8 && v.dtype != DType::kInt4 && v.dtype != DType::kInt32)
    return RefuseType(call, t, name);
  FractalNz nz;
  m->nz = FractalNz::Of(t, &nz);
  if (m->nz && !nz.Holds(v))
    return call.Invalid("{} has shape {}, which its storage {} in FRACTAL_NZ doesn't hold", name,
                        ShapeString(v), ShapeString(nz.storage));
  m->nz_transposed = m->nz && nz.transposed;
  if (transpose) v = v.Transpose(v.rank - 2, v.rank - 1);
  if (transpose) m->nz_transposed = m->nz && !m->nz_transposed;
  *arg = In(t, m->nz ? nz.storage : v);
  const int last = v.rank - 1;
  const bool single = v.dims[last] == 1 && v.dims[last - 1] == 1;
  m->columns_first =
      v.strides[last - 1] == 1 && (v.strides[last] != 1 || v.dims[last - 1] == 1) && !(single && !transpose);
  m->four_bits = !floats && v.dtype != DType::kInt8;
  m->packed = v.dtype == DType::kInt32 ? 8 : 1;
  m->stored = m->view = v;
  if (!floats) m->view.dtype = DType::kInt8;
  int64_t& inner = m->view.dims[m->columns_first ? last - 1 : last];
  if (inner > (int64_t{1} << 40)) return call.Invalid("{} has shape {}, too large", name, ShapeString(v));
  inner *= m->packed;
  if (!m->four_bits) return Status();
  const int fast = m->columns_first ? last - 1 : last;
  bool whole = v.strides[fast] == 1 || v.dims[fast] <= 1;
  for (int i = 0; i < v.rank && v.dtype == DType::kInt4; ++i)
    whole &= i == fast || v.dims[i] <= 1 || v.strides[i] % 2 == 0;
  if (!whole)
    return call.Invalid("{} has 4-bit numbers with gaps or half bytes between them: make it contiguous",
                        name);
  return Status();
}

Status ResolveWeight(const char* op, const IntegerMatrix& m, const TensorView& operand,
                     Buffer<int8_t>* memory, TensorView* numbers) {
  TensorView from = m.nz ? FractalNz::Unpack(operand, m.stored, m.nz_transposed) : operand;
  if (from.data == nullptr && !from.empty()) return Error(kBadAlloc, "{}: no memory to unpack a weight", op);
  if (!m.four_bits) {
    *numbers = from;
    return Status();
  }
  // Lines of neighbours: the other dimensions of the transposed or plain view.
  const int last = from.rank - 1;
  if (m.columns_first) from = from.Transpose(last - 1, last);
  const int64_t length = from.dims[last] * m.packed, lines = length == 0 ? 0 : from.numel() / from.dims[last];
  *memory = NewBuffer<int8_t>(lines * length);
  TensorView to = from;
  to.dims[last] = length;
  to = TensorView::Contiguous(memory->get(), DType::kInt8, to.dims, to.rank);
  int8_t* out = memory->get();
  ParallelFor(lines, std::max<int64_t>(1, 65536 / (length + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      int64_t at = 0, rest = line;
      for (int d = last - 1; d >= 0; --d) {
        at += rest % from.dims[d] * from.strides[d];
        rest /= from.dims[d];
      }
      UnpackInt4(from.bytes() + (m.packed == 8 ? at * 4 : at / 2), length, out + line * length);
    }
  });
  *numbers = m.columns_first ? to.Transpose(last - 1, last) : to;
  return Status();
}

}  // namespace anycann
