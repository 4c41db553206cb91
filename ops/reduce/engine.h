// The reduction engine: folds any set of dimensions of one tensor into accumulators, for any strides and
// types.
//
// An operator gives a Reducer: how to start an accumulator, fold contiguous values into one (a row) or fold
// rows into many (columns), merge two and turn them into results. The engine chooses between rows (the
// fastest dimension is reduced) and columns (it is kept), gathers and converts what isn't contiguous in the
// compute type, and cuts long reductions into pieces. The cut depends on the shape alone, so results don't
// depend on the number of threads.
#pragma once

#include <cstdint>
#include <new>
#include <span>

#include "base/status.h"
#include "base/tensor_view.h"

namespace anycann {

inline constexpr int kMaxReduceOutputs = 2;

// Accumulators are trivially copyable. `first` is the row-major index, among the reduced elements, of the
// first value given; rows come in ascending order, and merge(acc, other) gets the accumulator of later values
// as `other`.
struct Reducer {
  DType in_type;  // what row and columns read; other types are converted
  int outputs = 1;
  DType out_types[kMaxReduceOutputs];
  int64_t acc_bytes;
  bool ordered =
      false;  // needs `first` and the ascending order; otherwise dimensions may be visited in any order
  void (*init)(void* acc, int64_t n, const void* params);
  void (*row)(void* acc, const void* x, int64_t n, int64_t first, const void* params);
  // acc[j] folds x[i * ld + j] for i in [0, rows), j in [0, cols)
  void (*columns)(void* acc, const void* x, int64_t ld, int64_t rows, int64_t cols, int64_t first,
                  const void* params);
  void (*merge)(void* acc, const void* other, int64_t n, const void* params);
  // out[k][j] = result of acc[j] for j in [0, n); `count`: how many values each accumulator folded
  void (*finish)(void* const* out, const void* acc, int64_t n, int64_t count, const void* params);
};

// Bit i of `mask`: dimension i of `in` is reduced. `outputs` have in's rank, with size 1 in reduced
// dimensions (KeepDims makes them so). Fails only when memory is exhausted.
Status RunReduce(const Reducer& reducer, std::span<const TensorView> outputs, const TensorView& in,
                 uint32_t mask, const void* params);

// `out`, whose reduced dimensions were removed, as a view with them of size 1.
TensorView KeepDims(const TensorView& out, int rank, uint32_t mask);

// The Reducer of a class R:
//   using In, Acc, Out (and Out2 for a second output);
//   Acc Init() const;
//   void Row(Acc& acc, const In* x, int64_t n, int64_t first) const;
//   void Columns(Acc* acc, const In* x, int64_t ld, int64_t rows, int64_t cols, int64_t first) const;   //
//   optional void Merge(Acc& acc, const Acc& later) const; Out Finish(const Acc& acc, int64_t count) const;
//   // with Out2: void Finish(acc, count, Out*, Out2*) static constexpr bool kOrdered = true;             //
//   optional
template <class R>
const Reducer* ReducerOf() {
  using In = typename R::In;
  using Acc = typename R::Acc;
  using Out = typename R::Out;
  static const Reducer table = [] {
    Reducer t{};
    t.in_type = kDTypeOf<In>;
    t.out_types[0] = kDTypeOf<Out>;
    t.acc_bytes = sizeof(Acc);
    if constexpr (requires { R::kOrdered; }) t.ordered = R::kOrdered;
    t.init = [](void* acc, int64_t n, const void* p) {
      const Acc start = static_cast<const R*>(p)->Init();
      for (int64_t i = 0; i < n; ++i) ::new (static_cast<Acc*>(acc) + i) Acc(start);
    };
    t.row = [](void* acc, const void* x, int64_t n, int64_t first, const void* p) {
      static_cast<const R*>(p)->Row(*static_cast<Acc*>(acc), static_cast<const In*>(x), n, first);
    };
    t.columns = [](void* acc, const void* x, int64_t ld, int64_t rows, int64_t cols, int64_t first,
                   const void* p) {
      const R& r = *static_cast<const R*>(p);
      Acc* a = static_cast<Acc*>(acc);
      const In* in = static_cast<const In*>(x);
      if constexpr (requires { r.Columns(a, in, ld, rows, cols, first); }) {
        r.Columns(a, in, ld, rows, cols, first);
      } else {
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < cols; ++j) r.Row(a[j], in + i * ld + j, 1, first + i);
      }
    };
    t.merge = [](void* acc, const void* other, int64_t n, const void* p) {
      const R& r = *static_cast<const R*>(p);
      for (int64_t i = 0; i < n; ++i) r.Merge(static_cast<Acc*>(acc)[i], static_cast<const Acc*>(other)[i]);
    };
    t.finish = [](void* const* out, const void* acc, int64_t n, int64_t count, const void* p) {
      const R& r = *static_cast<const R*>(p);
      const Acc* a = static_cast<const Acc*>(acc);
      Out* o = static_cast<Out*>(out[0]);
      if constexpr (requires { typename R::Out2; }) {
        auto* second = static_cast<typename R::Out2*>(out[1]);
        for (int64_t i = 0; i < n; ++i) r.Finish(a[i], count, o + i, second + i);
      } else {
        for (int64_t i = 0; i < n; ++i) o[i] = r.Finish(a[i], count);
      }
    };
    if constexpr (requires { typename R::Out2; }) {
      t.outputs = 2;
      t.out_types[1] = kDTypeOf<typename R::Out2>;
    }
    return t;
  }();
  return &table;
}

}  // namespace anycann
