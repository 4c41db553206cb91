// A product with what follows it: y = f(x1 @ x2 + bias, x3) with f an addition, a product or an activation.
#include <atomic>
#include <string_view>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/activation/gelu.h"
#include "ops/dense.h"
#include "ops/matmul/gemm.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

enum class After { kNothing, kAdd, kMul, kGelu, kGeluTanh, kRelu };

struct FusedPlaces {
  int a, b, bias, x3, y;
};

void Follow(After after, const float* __restrict x3, int64_t n, float* __restrict v) {
  switch (after) {
    case After::kNothing: return;
    case After::kAdd:
      for (int64_t i = 0; i < n; ++i) v[i] += x3[i];
      return;
    case After::kMul:
      for (int64_t i = 0; i < n; ++i) v[i] *= x3[i];
      return;
    case After::kGelu:
      for (int64_t i = 0; i < n; ++i) v[i] = GeluExact<float>()(v[i]);
      return;
    case After::kGeluTanh:
      for (int64_t i = 0; i < n; ++i) v[i] = GeluTanh<float>()(v[i]);
      return;
    case After::kRelu:
      for (int64_t i = 0; i < n; ++i) v[i] = v[i] < 0 ? 0 : v[i];
      return;
  }
}

Status RunFused(const Run& t, After after, const FusedPlaces& at) {
  const char* op = t.plan().name;
  const TensorView* bias = at.bias >= 0 ? &t[at.bias] : nullptr;
  if (after == After::kNothing) return Gemm(MakeGemm(t[at.a], t[at.b], t[at.y], bias));
  const DenseOutput y(t[at.y]);
  const DenseInput x3(t[at.x3 >= 0 ? at.x3 : at.y]);  // read only where given
  const int64_t count = t[at.y].numel();
  const Scratch<float> sums(count);
  if (!y.ok() || !x3.ok() || !sums.ok()) return ScratchFailed(op);
  const TensorView to = TensorView::Contiguous(sums.get(), DType::kFloat, t[at.y].dims, t[at.y].rank);
  RETURN_IF_ERROR(Gemm(MakeGemm(t[at.a], t[at.b], to, bias)));
  const DenseReader<float> reader(x3.view());
  const DenseWriter<float> writer(y.view());
  constexpr int64_t kBlock = 4096;
  std::atomic<bool> failed{false};
  ParallelFor((count + kBlock - 1) / kBlock, 2, [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(kBlock);
    if (!buffer.ok()) {
      failed = true;
      return;
    }
    for (int64_t i = begin * kBlock; i < std::min(count, end * kBlock); i += kBlock) {
      const int64_t n = std::min(kBlock, count - i);
      float* v = sums.get() + i;
      Follow(after, at.x3 >= 0 ? reader.Read(i, n, buffer.get()) : nullptr, n, v);
      float* target = writer.Begin(i, v);
      if (target != v) std::copy_n(v, n, target);
      writer.End(i, n, v);
    }
  });
  if (failed) return ScratchFailed(op);
  y.Finish();
  return Status();
}

}  // namespace

Status aclnn::FusedMatmul(Call& call, const aclTensor* x1, const aclTensor* x2, const aclTensor* bias,
                          const aclTensor* x3, const char* fusedOpType, int8_t, const aclTensor* y) {
  const std::string_view name = fusedOpType;
  After after = After::kNothing;
  if (name == "add")
    after = After::kAdd;
  else if (name == "mul")
    after = After::kMul;
  else if (name == "gelu_erf")
    after = After::kGelu;
  else if (name == "gelu_tanh")
    after = After::kGeluTanh;
  else if (name == "relu")
    after = After::kRelu;
  else if (name != "" && name != "16cast32")
    return call.Invalid(
        "fusedOpType is \"{}\", expected \"\", \"16cast32\", \"add\", \"mul\", \"gelu_erf\", \"gelu_tanh\" "
        "or "
        "\"relu\"",
        name);
  const bool two = after == After::kAdd || after == After::kMul;
  if (two && x3 == nullptr) return call.Invalid("x3 is absent, which fusedOpType \"{}\" needs", name);
  RETURN_IF_ERROR(call.RequireRank(x1, "x1", 2, kMaxRank));
  RETURN_IF_ERROR(call.RequireRank(x2, "x2", 2, kMaxRank));
  for (const aclTensor* t : {x1, x2, bias, two ? x3 : nullptr, y})
    if (t != nullptr && (!IsFloating(t->view.dtype) || t->view.dtype == DType::kDouble))
      return call.Invalid("an operand has type {}, expected float16, bfloat16 or float32",
                          Name(t->view.dtype));
  const TensorView &a = x1->view, &b = x2->view;
  if (a.dims[a.rank - 1] != b.dims[b.rank - 2])
    return call.Invalid("x1 {} and x2 {} don't match: {} columns, {} rows", ShapeString(a), ShapeString(b),
                        a.dims[a.rank - 1], b.dims[b.rank - 2]);
  const int rank = std::max(a.rank, b.rank);
  int64_t dims[kMaxRank];
  for (int i = 0; i < rank - 2; ++i) {
    const int ia = i - (rank - a.rank), ib = i - (rank - b.rank);
    const int64_t da = ia < 0 ? 1 : a.dims[ia], db = ib < 0 ? 1 : b.dims[ib];
    if (da != db && da != 1 && db != 1)
      return call.Invalid("x1 {} and x2 {} don't broadcast", ShapeString(a), ShapeString(b));
    dims[i] = da == 1 ? db : da;
  }
  dims[rank - 2] = a.dims[a.rank - 2], dims[rank - 1] = b.dims[b.rank - 1];
  RETURN_IF_ERROR(call.RequireShape(y, "y", dims, rank));
  if (two) RETURN_IF_ERROR(call.RequireSameShape(x3, "x3", y, "y"));
  TensorView wide;
  if (bias != nullptr && !BroadcastTo(bias->view, dims, rank, &wide))
    return call.Invalid("bias has shape {}, expected one that broadcasts to y's {}", ShapeString(bias->view),
                        ShapeString(y->view));
  if (y->view.empty()) return call.Nothing();
  Operands o;
  const FusedPlaces at = {o.Input(x1), o.Input(x2), o.Input(bias), o.Input(two ? x3 : nullptr), o.Output(y)};
  const double work = 2.0 * static_cast<double>(y->view.numel()) * static_cast<double>(a.dims[a.rank - 1]);
  return call.Launch(o.list(), Cost{work, o.bytes()},
                     [after, at](const Run& t) { return RunFused(t, after, at); });
}

}  // namespace anycann
