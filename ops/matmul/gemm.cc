#include "ops/matmul/gemm.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ops/matmul/epilogue.h"
#include "ops/matmul/packed.h"
#include "ops/matmul/thin.h"
#include "ops/matmul/tile.h"

namespace anycann {
namespace {

bool VerboseDispatch() {
  static const bool on = [] {
    const char* v = std::getenv("ANYCANN_VERBOSE");
    return v != nullptr && std::strstr(v, "dispatch") != nullptr;
  }();
  return on;
}

bool Floating16Or32(DType t) { return t == DType::kFloat || IsReduced(t); }
bool IntegerOrBool(DType t) { return IsInteger(t) || t == DType::kBool; }

// An implementation: why it can't or shouldn't do it (nullptr: it can), and the work. False: memory is
// exhausted.
struct Implementation {
  const char* name;
  const char* (*refusal)(const GemmArgs&);
  bool (*run)(const GemmArgs&);
};

constexpr Implementation kImplementations[] = {
    {"thin", ThinRefusal, ThinProduct},
    {"bfloat16 tiles",
     [](const GemmArgs& g) -> const char* {
       if (g.a.dtype != DType::kBFloat16 || g.b.dtype != DType::kBFloat16)
         return "operands aren't both bfloat16";
       return HasBFloat16Dot() ? nullptr : "the processor lacks AVX512-BF16";
     },
     PackedBFloat16},
    {"float tiles",
     [](const GemmArgs& g) -> const char* {
       return Floating16Or32(g.a.dtype) && Floating16Or32(g.b.dtype) ? nullptr
                                                                     : "an operand isn't float32 or shorter";
     },
     PackedFloat},
    {"double tiles",
     [](const GemmArgs& g) -> const char* {
       return IsFloating(g.a.dtype) && IsFloating(g.b.dtype) ? nullptr : "an operand isn't floating";
     },
     PackedDouble},
    {"integer tiles",
     [](const GemmArgs& g) -> const char* {
       return IntegerOrBool(g.a.dtype) && IntegerOrBool(g.b.dtype) ? nullptr : "an operand isn't an integer";
     },
     PackedInteger},
    {"complex tiles",
     [](const GemmArgs& g) -> const char* {
       const auto fits = [](DType t) { return t == DType::kComplex64 || t == DType::kComplex128; };
       return fits(g.a.dtype) && fits(g.b.dtype) ? nullptr : "an operand isn't complex64 or complex128";
     },
     PackedComplex},
};

// Drops batch dimensions of size 1, and makes a batch whose items share B and continue each other's rows one
// tall matrix: [batch, rows, k] @ [k, n].
void FoldBatch(GemmArgs* g) {
  int kept = 0;
  for (int d = 0; d < g->batch_rank; ++d) {
    if (g->batch[d] == 1) continue;
    g->batch[kept] = g->batch[d];
    for (MatrixView* v : {&g->a, &g->b, &g->out, &g->addend}) v->batch[kept] = v->batch[d];
    ++kept;
  }
  g->batch_rank = kept;
  while (g->batch_rank > 0) {
    const int d = g->batch_rank - 1;
    const auto continues = [&](const MatrixView& v) { return g->m == 1 || v.batch[d] == g->m * v.row; };
    if (g->b.batch[d] != 0 || !continues(g->a) || !continues(g->out)) return;
    if (g->addend.data != nullptr && !continues(g->addend)) return;
    if (g->m == 1)
      for (MatrixView* v : {&g->a, &g->out, &g->addend}) v->row = v->batch[d];
    g->m *= g->batch[d];
    --g->batch_rank;
  }
}

void Transpose(GemmArgs* g) {
  std::swap(g->m, g->n);
  std::swap(g->a, g->b);
  for (MatrixView* v : {&g->a, &g->b, &g->out, &g->addend}) *v = v->Transposed();
}

std::string Describe(const GemmArgs& g) {
  const auto view = [](const MatrixView& v) {
    return fmt::format("{}({},{})", Name(v.dtype), v.row, v.column);
  };
  return fmt::format("gemm {}x{}x{} batch {} a {} b {} out {}", g.m, g.n, g.k, g.batches(), view(g.a),
                     view(g.b), view(g.out));
}

// k == 0: the product is zero, out is beta * addend. One zero row and column stand for the missing operands.
Status EmptyProduct(GemmArgs g) {
  static constexpr char kZero[16] = {};
  for (MatrixView* v : {&g.a, &g.b}) {
    *v = MatrixView();
    v->data = const_cast<char*>(kZero);
    v->dtype = ComputeType(g.out.dtype);
  }
  g.k = 1;
  return Gemm(g);
}

}  // namespace

bool GemmSupports(DType t) {
  return IsFloating(t) || IntegerOrBool(t) || t == DType::kComplex64 || t == DType::kComplex128;
}

Status Gemm(const GemmArgs& args) {
  if (args.m == 0 || args.n == 0 || args.batches() == 0) return Status();
  if (args.k == 0) return EmptyProduct(args);
  GemmArgs g = args;
  FoldBatch(&g);
  // Rows of out are contiguous, and a product with few columns becomes one with few rows.
  const bool column_major = g.out.column != 1 && g.out.row == 1;
  if (column_major || (g.n < g.m && g.n <= kThinRows && g.batch_rank == 0)) Transpose(&g);
  for (const Implementation& implementation : kImplementations) {
    const char* refusal = implementation.refusal(g);
    if (refusal != nullptr) {
      if (VerboseDispatch())
        std::fprintf(stderr, "anycann: %s: %s: no, %s\n", Describe(g).c_str(), implementation.name, refusal);
      continue;
    }
    if (VerboseDispatch())
      std::fprintf(stderr, "anycann: %s: %s\n", Describe(g).c_str(), implementation.name);
    if (!implementation.run(g)) return Error(kBadAlloc, "{}: no memory for packed operands", Describe(g));
    return Status();
  }
  return Error(kInner, "{}: no implementation for these types", Describe(g));
}

GemmArgs MakeGemm(const TensorView& a, const TensorView& b, const TensorView& out, const TensorView* addend) {
  GemmArgs g;
  const int r = out.rank;
  g.m = out.dims[r - 2];
  g.n = out.dims[r - 1];
  g.k = a.dims[a.rank - 1];
  g.batch_rank = r - 2;
  std::copy_n(out.dims, g.batch_rank, g.batch);
  const auto fill = [&](MatrixView* v, const TensorView& t) {
    v->data = t.data;
    v->dtype = t.dtype;
    v->row = t.strides[t.rank - 2];
    v->column = t.strides[t.rank - 1];
    for (int d = 0; d < g.batch_rank; ++d) {
      const int e = d - (r - t.rank);
      v->batch[d] = e < 0 || t.dims[e] == 1 ? 0 : t.strides[e];
    }
  };
  fill(&g.a, a);
  fill(&g.b, b);
  fill(&g.out, out);
  if (addend != nullptr) {
    TensorView wide;
    if (BroadcastTo(*addend, out.dims, r, &wide)) fill(&g.addend, wide);
  }
  return g;
}

}  // namespace anycann
