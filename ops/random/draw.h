// The random engine: an elementwise operation whose first argument is drawn. A source turns the generator's
// words into values (words, uniform or normal numbers) for a chunk of elements; a functor turns value i and
// the elements i of the inputs into element i of the output. Elements are counted in the order of the
// output's memory.
#pragma once

#include <span>
#include <utility>

#include "base/parallel.h"
#include "ops/call.h"
#include "ops/elementwise/map.h"
#include "ops/random/philox.h"

namespace anycann {

// Writes the values of elements [first, first + n); first is a multiple of Philox::kGroup, and `values` has
// room for n rounded up to one.
using Source = void (*)(const Philox& philox, int64_t first, int64_t n, void* values);

void DrawWords(const Philox& philox, int64_t first, int64_t n, void* values);      // uint32_t
void DrawWideWords(const Philox& philox, int64_t first, int64_t n, void* values);  // uint64_t
// The standard normal distribution, by Box and Muller's method: pairs of values from pairs of words.
void DrawNormal(const Philox& philox, int64_t first, int64_t n, void* values);        // float
void DrawNormalDouble(const Philox& philox, int64_t first, int64_t n, void* values);  // double

// Seed and offset: known now, or in device tensors that are read when the Plan runs (under graph capture),
// and then `offset` is added.
struct Seeding {
  int64_t seed = 0, offset = 0;
  const aclTensor* seed_tensor = nullptr;
  const aclTensor* offset_tensor = nullptr;
};
// Checks the tensors; appends them to the operands of a Plan.
Status CheckSeeding(const Call& call, const Seeding& seeding);
// The generator. `first`: the operand that is the seed tensor, when the seeding has tensors.
struct SeedingAtRun {
  int64_t seed, offset;
  int first;  // -1: no tensors
  Philox Get(const Run& t) const;
};

// What the loop of a random kernel gets as `params`.
struct Drawn {
  const void* f;       // the functor
  const void* values;  // of the chunk
  mutable int64_t used = 0;
};

// The engine's description of a functor R operator()(V value, In...) const; its inputs are the In.
template <class F, class V, class... In>
ElementwiseKernel RandomKernelOf(double cost) {
  using R = decltype(std::declval<const F&>()(std::declval<V>(), std::declval<In>()...));
  ElementwiseKernel k;
  k.inputs = sizeof...(In);
  k.out_types[0] = kDTypeOf<R>;
  const DType types[] = {DType::kUndefined, kDTypeOf<In>...};
  for (size_t i = 0; i < sizeof...(In); ++i) k.in_types[i] = types[i + 1];
  k.cost = cost;
  k.loop = [](void* const* out, const void* const* in, int64_t n, const void* params) {
    const Drawn& drawn = *static_cast<const Drawn*>(params);
    const F f = *static_cast<const F*>(drawn.f);
    const Loaded<V>* v = static_cast<const Loaded<V>*>(drawn.values) + drawn.used;
    drawn.used += n;
    R* r = static_cast<R*>(out[0]);
    [&]<size_t... I>(std::index_sequence<I...>) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) r[i] = f(v[i], static_cast<const Loaded<In>*>(in[I])[i]...);
    }
    (std::index_sequence_for<In...>{});
  };
  return k;
}

// Elements whose values are drawn at a time: 16 KiB of words, half of the first-level cache.
inline constexpr int64_t kDrawChunk = 4096;

// Runs such a kernel in parallel; fill(first, n, values) writes the values of elements [first, first + n).
// Inputs have the output's shape.
template <class Fill>
void RunDrawn(const ElementwiseKernel& kernel, const TensorView& out, std::span<const TensorView> inputs,
              const void* f, const Fill& fill) {
  const int64_t n = out.numel(), chunks = (n + kDrawChunk - 1) / kDrawChunk;
  const int64_t grain = std::max<int64_t>(1, ParallelGrain(kernel) / kDrawChunk);
  ParallelFor(chunks, grain, [&](int64_t begin, int64_t end) {
    alignas(64) unsigned char values[kDrawChunk * sizeof(uint64_t)];
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kDrawChunk, last = std::min(n, first + kDrawChunk);
      fill(first, last - first, values);
      const Drawn drawn{f, values};
      RunElementwiseRange(kernel, {&out, 1}, inputs, &drawn, first, last);
    }
  });
}

// Launches it over inputs that broadcast to out's shape; `params` are the functor's bytes.
Status LaunchRandom(Call& call, const ElementwiseKernel& kernel, Source source, const Seeding& seeding,
                    std::span<const aclTensor* const> inputs, const aclTensor* out,
                    const ElementwiseParams& params);

template <class V, class... In, class F>
Status LaunchRandomMap(Call& call, Source source, const Seeding& seeding,
                       std::initializer_list<const aclTensor*> inputs, const aclTensor* out, const F& f) {
  return LaunchRandom(call, RandomKernelOf<F, V, In...>(4), source, seeding,
                      std::span(inputs.begin(), inputs.size()), out, ElementwiseParams(f));
}

}  // namespace anycann
