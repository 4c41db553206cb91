// The packed engine's Problem of a matrix product, and its loop over a batch. Product says the arithmetic:
//   Lanes, kColumns (real columns per column: 2 for complex), kAccumulator (what the epilogue sees), kPerUnit
//   (elements of depth per unit, negative: units per element), PackLeft/PackRight(to, padded, lines, width,
//   k)
#pragma once

#include "ops/matmul/epilogue.h"
#include "ops/matmul/pack.h"
#include "ops/matmul/packed.h"
#include "ops/matmul/packed_engine.h"

namespace anycann {

template <class Product>
class GemmProblem {
 public:
  using Lanes = typename Product::Lanes;
  using Element = typename Lanes::Element;
  using Accumulator = typename Lanes::Accumulator;

  GemmProblem(const GemmArgs& g, int64_t item)
      : m(g.m), n(g.n * Product::kColumns), units(Units(g.k)), k_(g.k) {
    int64_t a = 0, b = 0, out = 0, addend = 0;
    for (int d = g.batch_rank - 1; d >= 0; --d) {
      const int64_t i = item % g.batch[d];
      item /= g.batch[d];
      a += i * g.a.batch[d];
      b += i * g.b.batch[d];
      out += i * g.out.batch[d];
      addend += i * g.addend.batch[d];
    }
    left_ = {g.a.bytes() + a * SizeOf(g.a.dtype), g.a.dtype, g.a.row, g.a.column};
    right_ = {g.b.bytes() + b * SizeOf(g.b.dtype), g.b.dtype, g.b.column, g.b.row};
    epilogue_ = MakeEpilogue(g, Product::kAccumulator, g.out.bytes() + out * SizeOf(g.out.dtype),
                             g.addend.data ? g.addend.bytes() + addend * SizeOf(g.addend.dtype) : nullptr);
    direct_ =
        g.out.dtype == Product::kAccumulator && g.out.column == 1 && !epilogue_.addend && !epilogue_.scaled;
  }

  void PackLeft(Element* to, int64_t first, int lines, int64_t u0, int64_t u1) const {
    Product::PackLeft(to, lines, At(left_, first, u0), lines, Depth(u0, u1));
  }
  void PackRight(Element* to, int padded, int64_t first, int lines, int64_t u0, int64_t u1) const {
    constexpr int c = Product::kColumns;
    Product::PackRight(to, padded, At(right_, first / c, u0), lines / c, Depth(u0, u1));
  }
  Accumulator* Direct(int64_t* ld) const {
    *ld = epilogue_.out_row * Product::kColumns;
    return direct_ ? reinterpret_cast<Accumulator*>(epilogue_.out) : nullptr;
  }
  void Store(const Accumulator* acc, int64_t ld, int64_t row, int64_t rows, int64_t column,
             int64_t columns) const {
    constexpr int c = Product::kColumns;
    epilogue_.Store(acc, ld / c, row, rows, column / c, columns / c);
  }

  const int64_t m, n, units;

 private:
  static int64_t Units(int64_t k) {
    return Product::kPerUnit > 0 ? (k + Product::kPerUnit - 1) / Product::kPerUnit : -Product::kPerUnit * k;
  }
  static int64_t Elements(int64_t u) {
    return Product::kPerUnit > 0 ? u * Product::kPerUnit : u / -Product::kPerUnit;
  }
  int64_t Depth(int64_t u0, int64_t u1) const { return std::min(k_, Elements(u1)) - Elements(u0); }
  static Lines At(const Lines& l, int64_t line, int64_t unit) {
    Lines at = l.Skip(line);
    at.data += Elements(unit) * l.k_stride * SizeOf(l.dtype);
    return at;
  }

  const int64_t k_;
  Lines left_, right_;
  Epilogue epilogue_;
  bool direct_;  // accumulators are out itself
};

// False when memory is exhausted.
template <class Product>
bool RunPackedGemm(const GemmArgs& g) {
  using Problem = GemmProblem<Product>;
  using Engine = PackedEngine<Problem>;
  const int64_t items = g.batches();
  const Problem first(g, 0);
  if (items == 1 || !Engine::Small(first)) {
    for (int64_t i = 0; i < items; ++i)
      if (!Engine(Problem(g, i)).Run(false)) return false;
    return true;
  }
  std::atomic<bool> ok{true};
  ParallelFor(items, Engine::ItemGrain(first), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Problem problem(g, i);
      if (!Engine(problem).Run(true)) ok.store(false, std::memory_order_relaxed);
    }
  });
  return ok.load();
}

}  // namespace anycann
