// Routing by a map [tokens, experts] of zeros and ones: rows of tokens into slots, expert by expert, back
// again, and the gradients of both.
#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

// With `padded`, each expert has the same number of slots, and an index names the token of each slot;
// otherwise it names the slot of each pair of a token and an expert, token by token.
struct RoutingMap {
  int64_t tokens = 0, experts = 0, slots = 0, width = 0;
  bool padded = false;

  int64_t capacity() const { return experts > 0 ? slots / experts : 0; }
};

// The pairs of each token: those of token t are [starts[t], starts[t + 1]).
struct Pairs {
  struct Pair {
    int32_t slot, expert;  // expert -1: there's no map
  };
  std::vector<int64_t> starts;
  std::vector<Pair> pairs;
  std::vector<int32_t> token_of;  // each slot's; -1: none

  int64_t count() const { return static_cast<int64_t>(pairs.size()); }
};

// Each slot's pair, from the tokens of all slots. Slots of one token stay in order.
void ListBySlot(const RoutingMap& r, Pairs* p) {
  p->starts.assign(static_cast<size_t>(r.tokens + 1), 0);
  p->pairs.resize(p->token_of.size());
  for (const int32_t token : p->token_of) ++p->starts[token + 1];
  for (int64_t t = 0; t < r.tokens; ++t) p->starts[t + 1] += p->starts[t];
  std::vector<int64_t> at(p->starts.begin(), p->starts.end() - 1);
  const int64_t capacity = r.capacity();
  for (int64_t s = 0; s < static_cast<int64_t>(p->token_of.size()); ++s)
    p->pairs[at[p->token_of[s]]++] = {static_cast<int32_t>(s),
                                      static_cast<int32_t>(capacity > 0 ? s / capacity : -1)};
}

Status CountPairs(const char* op, const RoutingMap& r, const int8_t* map, std::vector<int64_t>* of_expert) {
  of_expert->assign(static_cast<size_t>(r.experts), 0);
  int64_t ones = 0;
  for (int64_t i = 0; i < r.tokens * r.experts; ++i)
    if (map[i] != 0) ++(*of_expert)[i % r.experts], ++ones;
  if (ones != r.slots)
    return Error(kParamInvalid, "{}: routingMap has {} ones, expected {}, one for each permuted row", op,
                 ones, r.slots);
  return Status();
}

// Slots by the map alone, as the permutation makes them.
Status MakePairs(const char* op, const RoutingMap& r, const int8_t* map, Pairs* p) {
  p->token_of.assign(static_cast<size_t>(r.slots), -1);
  if (r.padded) {  // those with a one first, then the others
    const int64_t capacity = r.capacity();
    for (int64_t e = 0; e < r.experts; ++e) {
      int64_t rank = 0;
      for (const bool wanted : {true, false})
        for (int64_t t = 0; t < r.tokens && rank < capacity; ++t)
          if ((map[t * r.experts + e] != 0) == wanted)
            p->token_of[e * capacity + rank++] = static_cast<int32_t>(t);
    }
    ListBySlot(r, p);
    return Status();
  }
  std::vector<int64_t> next;
  RETURN_IF_ERROR(CountPairs(op, r, map, &next));
  int64_t start = 0;
  for (int64_t& n : next) start += std::exchange(n, start);
  p->starts.push_back(0);
  for (int64_t t = 0; t < r.tokens; ++t) {
    for (int64_t e = 0; e < r.experts; ++e)
      if (map[t * r.experts + e] != 0) {
        const int32_t slot = static_cast<int32_t>(next[e]++);
        p->token_of[slot] = static_cast<int32_t>(t);
        p->pairs.push_back({slot, static_cast<int32_t>(e)});
      }
    p->starts.push_back(p->count());
  }
  return Status();
}

// The same from an index that is given. map: nullptr where every token has as many pairs.
Status ReadPairs(const char* op, const char* name, const RoutingMap& r, const int8_t* map,
                 const int32_t* index, Pairs* p) {
  const int64_t most = r.padded ? r.tokens : r.slots;
  for (int64_t i = 0; i < r.slots; ++i)
    if (index[i] < 0 || index[i] >= most)
      return Error(kParamInvalid, "{}: {} has {}, expected 0 to {}", op, name, index[i], most - 1);
  if (r.padded) {
    p->token_of.assign(index, index + r.slots);
    ListBySlot(r, p);
    return Status();
  }
  std::vector<int64_t> of_expert;
  if (map != nullptr) RETURN_IF_ERROR(CountPairs(op, r, map, &of_expert));
  p->token_of.assign(static_cast<size_t>(r.slots), -1);
  p->starts.push_back(0);
  const int64_t k = r.tokens > 0 ? r.slots / r.tokens : 0;
  const auto add = [&](int64_t token, int64_t expert) {
    const int32_t slot = index[p->count()];
    p->token_of[slot] = static_cast<int32_t>(token);
    p->pairs.push_back({slot, static_cast<int32_t>(expert)});
  };
  for (int64_t t = 0; t < r.tokens; ++t) {
    for (int64_t j = 0; map == nullptr && j < k; ++j) add(t, -1);
    for (int64_t e = 0; map != nullptr && e < r.experts; ++e)
      if (map[t * r.experts + e] != 0) add(t, e);
    p->starts.push_back(p->count());
  }
  return Status();
}

// Each slot's weight: probabilities of all tokens and experts by pair.
void WeighSlots(const RoutingMap& r, const Pairs& p, const float* probs, float* weights) {
  std::fill_n(weights, r.slots, 0.0f);
  for (int64_t t = 0; t < r.tokens; ++t)
    for (int64_t i = p.starts[t]; i < p.starts[t + 1]; ++i)
      weights[p.pairs[i].slot] = probs[t * r.experts + p.pairs[i].expert];
}

// slots[s] = rows[token of s] * weight of s.
Status Spread(const Run& t, const RoutingMap& r, const Pairs& p, const TensorView& rows, const float* weights,
              const TensorView& slots) {
  const DenseInput in(rows);
  const DenseOutput out(slots);
  if (!in.ok() || !out.ok()) return ScratchFailed(t.plan().name);
  const DenseReader<float> reader(in.view());
  const DenseWriter<float> writer(out.view());
  const int64_t n = r.width;
  std::atomic<bool> failed{false};
  ParallelFor(r.slots, std::max<int64_t>(1, 16384 / (n + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> from(n), to(n);
    if (!from.ok() || !to.ok()) {
      failed = true;
      return;
    }
    for (int64_t s = begin; s < end; ++s) {
      float* y = writer.Begin(s * n, to.get());
      const int32_t token = p.token_of[s];
      const float weight = weights != nullptr ? weights[s] : 1.0f;
      if (token < 0) {
        std::fill_n(y, n, 0.0f);
      } else {
        const float* x = reader.Read(token * n, n, from.get());
        for (int64_t i = 0; i < n; ++i) y[i] = x[i] * weight;
      }
      writer.End(s * n, n, y);
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  out.Finish();
  return Status();
}

// rows[t] = the sum of its slots, each times its weight.
Status Gather(const Run& t, const RoutingMap& r, const Pairs& p, const TensorView& slots,
              const float* weights, const TensorView& rows) {
  const DenseInput in(slots);
  const DenseOutput out(rows);
  if (!in.ok() || !out.ok()) return ScratchFailed(t.plan().name);
  const DenseReader<float> reader(in.view());
  const DenseWriter<float> writer(out.view());
  const int64_t n = r.width;
  std::atomic<bool> failed{false};
  ParallelFor(r.tokens, std::max<int64_t>(1, 16384 / (n + 1)), [&](int64_t begin, int64_t end) {
    const Scratch<float> from(n), sum(n), to(n);
    if (!from.ok() || !sum.ok() || !to.ok()) {
      failed = true;
      return;
    }
    for (int64_t token = begin; token < end; ++token) {
      float* __restrict total = sum.get();
      std::fill_n(total, n, 0.0f);
      for (int64_t i = p.starts[token]; i < p.starts[token + 1]; ++i) {
        const int32_t slot = p.pairs[i].slot;
        const float weight = weights != nullptr ? weights[slot] : 1.0f;
        const float* x = reader.Read(slot * n, n, from.get());
        for (int64_t j = 0; j < n; ++j) total[j] += x[j] * weight;
      }
      float* y = writer.Begin(token * n, to.get());
      std::copy_n(total, n, y);
      writer.End(token * n, n, y);
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  out.Finish();
  return Status();
}

struct RoutingOperands {
  int rows = -1, slots = -1, map = -1, probs = -1, slot_probs = -1, index = -1, order = -1, tokens_out = -1;
};

// The parts of a run that most operators need.
struct MapReader {
  Values<int8_t> map;
  Values<int32_t> index;
  Values<float> probs;
  MapReader(const Run& t, const RoutingOperands& at)
      : map(t, at.map), index(t, at.index), probs(t, at.probs) {}
  bool ok() const { return map.ok() && index.ok() && probs.ok(); }
};

Status RequireMap(Call& call, const aclTensor* map, const RoutingMap& r) {
  if (map == nullptr) return Status();
  RETURN_IF_ERROR(call.RequireRank(map, "routingMap", 2, 2));
  if (map->view.dtype != DType::kInt8 && map->view.dtype != DType::kBool && map->view.dtype != DType::kUint8)
    return call.Invalid("routingMap has type {}, expected bool or int8", Name(map->view.dtype));
  const int64_t dims[] = {r.tokens, r.experts};
  return call.RequireShape(map, "routingMap", dims, 2);
}

// An index or a weight of each slot; nullptr is left alone.
Status RequireSlots(Call& call, const aclTensor* t, const char* name, const RoutingMap& r, bool integers) {
  if (t == nullptr) return Status();
  if (t->view.numel() != r.slots)
    return call.Invalid("{} has shape {}, expected [{}]", name, ShapeString(t->view), r.slots);
  if (integers ? !IsInteger(t->view.dtype) : !IsFloating(t->view.dtype))
    return call.Invalid("{} has type {}, expected {}", name, Name(t->view.dtype),
                        integers ? "int32" : "a floating type");
  return Status();
}

Status RequireCapacity(Call& call, const RoutingMap& r) {
  if (r.tokens > std::numeric_limits<int32_t>::max() || r.slots > std::numeric_limits<int32_t>::max())
    return call.Invalid("{} tokens and {} permuted rows are more than an int32 counts", r.tokens, r.slots);
  if (!r.padded || r.slots == 0) return Status();
  if (r.experts == 0 || r.slots % r.experts != 0)
    return call.Invalid("{} permuted rows are not the same number for each of {} experts", r.slots,
                        r.experts);
  return Status();
}

// Without a map every token has as many pairs.
Status RequireEven(Call& call, const RoutingMap& r, const aclTensor* map) {
  if (r.padded || map != nullptr || (r.tokens == 0 ? r.slots == 0 : r.slots % r.tokens == 0)) return Status();
  return call.Invalid("{} permuted rows are not the same number for each of {} tokens: give routingMap",
                      r.slots, r.tokens);
}

Status RequireRestored(Call& call, const RoutingMap& r, const aclIntArray* shape, const char* name) {
  if (shape == nullptr || !r.padded) return Status();
  if (shape->size == 2 && shape->values[0] == r.tokens && shape->values[1] == r.width) return Status();
  return call.Invalid("restoreShape doesn't name the shape of {}, [{},{}]", name, r.tokens, r.width);
}

// The map's number of experts, or that of the probabilities, which need the map or padding.
Status ReadExperts(Call& call, const aclTensor* map, const aclTensor* probs, RoutingMap* r) {
  for (const auto& [t, name] : {std::pair{map, "routingMap"}, std::pair{probs, "probs"}}) {
    if (t == nullptr) continue;
    RETURN_IF_ERROR(call.RequireRank(t, name, 2, 2));
    r->experts = t->view.dims[1];
  }
  RETURN_IF_ERROR(RequireMap(call, map, *r));
  if (probs == nullptr) return Status();
  RETURN_IF_ERROR(call.RequireFloating(probs, "probs", {r->tokens, r->experts}));
  if (map == nullptr && !r->padded)
    return call.Invalid("probs is given without routingMap: whose probabilities are they?");
  return RequireCapacity(call, *r);
}

}  // namespace

Status aclnn::MoeTokenPermuteWithRoutingMap(Call& call, const aclTensor* tokens, const aclTensor* routingMap,
                                            const aclTensor* probsOptional, int64_t numOutTokens,
                                            bool dropAndPad, aclTensor* permuteTokensOut,
                                            aclTensor* permuteProbsOutOptional, aclTensor* sortedIndicesOut) {
  RETURN_IF_ERROR(call.RequireRank(tokens, "tokens", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(routingMap, "routingMap", 2, 2));
  RoutingMap r;
  r.tokens = tokens->view.dims[0], r.width = tokens->view.dims[1];
  r.experts = routingMap->view.dims[1];
  r.padded = dropAndPad;
  RETURN_IF_ERROR(RequireMap(call, routingMap, r));
  if (numOutTokens < 0)
    return call.Invalid("numOutTokens is {}, expected a number of rows, 0 or more", numOutTokens);
  if (dropAndPad && r.experts > 0) numOutTokens = numOutTokens / r.experts * r.experts;
  r.slots = numOutTokens;
  RETURN_IF_ERROR(call.RequireFloating(permuteTokensOut, "permuteTokensOut", {r.slots, r.width}));
  RETURN_IF_ERROR(RequireSlots(call, sortedIndicesOut, "sortedIndicesOut", r, true));
  RETURN_IF_ERROR(RequireCapacity(call, r));
  if (dropAndPad && r.capacity() > r.tokens)
    return call.Invalid("numOutTokens is {}, {} for each of {} experts: more than there are tokens, {}",
                        numOutTokens, r.capacity(), r.experts, r.tokens);
  const aclTensor *probs = Given(probsOptional), *probs_out = Given(permuteProbsOutOptional);
  if (probs != nullptr) {
    RETURN_IF_ERROR(call.RequireFloating(probs, "probs", {r.tokens, r.experts}));
    RETURN_IF_ERROR(RequireSlots(call, probs_out, "permuteProbsOut", r, false));
  }
  if (r.slots == 0) return call.Nothing();
  Operands o;
  RoutingOperands at;
  at.rows = o.Input(tokens), at.map = o.Input(routingMap), at.probs = o.Input(probs);
  at.slots = o.Output(permuteTokensOut), at.index = o.Output(sortedIndicesOut);
  at.slot_probs = probs != nullptr ? o.Output(probs_out) : -1;
  return call.Launch(o.list(), Cost{0, o.bytes()}, [r, at](const Run& t) -> Status {
    RoutingOperands inputs = at;
    inputs.index = -1;
    const MapReader in(t, inputs);
    if (!in.ok()) return ScratchFailed(t.plan().name);
    Pairs p;
    RETURN_IF_ERROR(MakePairs(t.plan().name, r, in.map.get(), &p));
    RETURN_IF_ERROR(Spread(t, r, p, t[at.rows], nullptr, t[at.slots]));
    if (r.padded) {
      StoreValues(t[at.index], p.token_of.data());
    } else {
      std::vector<int32_t> slot_of;
      for (const Pairs::Pair& pair : p.pairs) slot_of.push_back(pair.slot);
      StoreValues(t[at.index], slot_of.data());
    }
    if (at.slot_probs < 0) return Status();
    std::vector<float> weights(static_cast<size_t>(r.slots));
    WeighSlots(r, p, in.probs.get(), weights.data());
    StoreValues(t[at.slot_probs], weights.data());
    return Status();
  });
}

Status aclnn::MoeTokenPermuteWithRoutingMapGrad(Call& call, const aclTensor* permutedTokenOutputGrad,
                                                const aclTensor* permutedProbsOutputGradOptional,
                                                const aclTensor* sortedIndices,
                                                const aclTensor* routingMapOptional, int64_t numExperts,
                                                int64_t tokensNum, bool dropAndPad, aclTensor* tokensGradOut,
                                                aclTensor* probsGradOutOptional) {
  RETURN_IF_ERROR(call.RequireRank(permutedTokenOutputGrad, "permutedTokenOutputGrad", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(tokensGradOut, "tokensGradOut", 2, 2));
  RoutingMap r;
  r.slots = permutedTokenOutputGrad->view.dims[0], r.width = permutedTokenOutputGrad->view.dims[1];
  r.tokens = tokensNum, r.experts = numExperts;
  r.padded = dropAndPad;
  const aclTensor* map = Given(routingMapOptional);
  RETURN_IF_ERROR(call.RequireFloating(tokensGradOut, "tokensGradOut", {r.tokens, r.width}));
  RETURN_IF_ERROR(
      call.RequireFloating(permutedTokenOutputGrad, "permutedTokenOutputGrad", {r.slots, r.width}));
  RETURN_IF_ERROR(RequireMap(call, map, r));
  RETURN_IF_ERROR(RequireSlots(call, sortedIndices, "sortedIndices", r, true));
  RETURN_IF_ERROR(RequireCapacity(call, r));
  const aclTensor *probs_grad = Given(permutedProbsOutputGradOptional), *out = Given(probsGradOutOptional);
  if (probs_grad == nullptr) out = nullptr;
  RETURN_IF_ERROR(RequireSlots(call, probs_grad, "permutedProbsOutputGrad", r, false));
  if (out != nullptr) {
    RETURN_IF_ERROR(call.RequireFloating(out, "probsGradOut", {r.tokens, r.experts}));
    if (map == nullptr && !dropAndPad)
      return call.Invalid("probsGradOut is given without routingMap: whose gradients are they?");
  }
  RETURN_IF_ERROR(RequireEven(call, r, map));
  if (tokensGradOut->view.empty() && out == nullptr) return call.Nothing();
  Operands o;
  RoutingOperands at;
  at.slots = o.Input(permutedTokenOutputGrad), at.slot_probs = o.Input(out == nullptr ? nullptr : probs_grad);
  at.index = o.Input(sortedIndices), at.map = o.Input(map);
  at.rows = o.Output(tokensGradOut), at.tokens_out = o.Output(out);
  return call.Launch(o.list(), Cost{0, o.bytes()}, [r, at](const Run& t) -> Status {
    const MapReader in(t, at);
    const Values<float> slot_probs(t, at.slot_probs);
    if (!in.ok() || !slot_probs.ok()) return ScratchFailed(t.plan().name);
    Pairs p;
    RETURN_IF_ERROR(ReadPairs(t.plan().name, "sortedIndices", r, in.map.get(), in.index.get(), &p));
    RETURN_IF_ERROR(Gather(t, r, p, t[at.slots], nullptr, t[at.rows]));
    if (at.tokens_out < 0) return Status();
    std::vector<float> grads(static_cast<size_t>(r.tokens * r.experts), 0.0f);
    for (int64_t i = 0; i < r.tokens; ++i)
      for (int64_t j = p.starts[i]; j < p.starts[i + 1]; ++j)
        grads[i * r.experts + p.pairs[j].expert] += slot_probs[p.pairs[j].slot];
    StoreValues(t[at.tokens_out], grads.data());
    return Status();
  });
}

Status aclnn::MoeTokenUnpermuteWithRoutingMap(Call& call, const aclTensor* permutedTokens,
                                              const aclTensor* sortedIndices,
                                              const aclTensor* routingMapOptional,
                                              const aclTensor* probsOptional, bool paddedMode,
                                              const aclIntArray* restoreShapeOptional,
                                              aclTensor* unpermutedTokens, aclTensor* outIndex,
                                              aclTensor* permuteTokenId, aclTensor* permuteProbs) {
  RETURN_IF_ERROR(call.RequireRank(permutedTokens, "permutedTokens", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(unpermutedTokens, "unpermutedTokens", 2, 2));
  const aclTensor *map = Given(routingMapOptional), *probs = Given(probsOptional);
  RoutingMap r;
  r.slots = permutedTokens->view.dims[0], r.width = permutedTokens->view.dims[1];
  r.tokens = unpermutedTokens->view.dims[0];
  r.padded = paddedMode;
  RETURN_IF_ERROR(RequireRestored(call, r, restoreShapeOptional, "unpermutedTokens"));
  RETURN_IF_ERROR(ReadExperts(call, map, probs, &r));
  RETURN_IF_ERROR(call.RequireFloating(unpermutedTokens, "unpermutedTokens", {r.tokens, r.width}));
  RETURN_IF_ERROR(call.RequireFloating(permutedTokens, "permutedTokens", {r.slots, r.width}));
  RETURN_IF_ERROR(RequireSlots(call, sortedIndices, "sortedIndices", r, true));
  if (probs != nullptr) RETURN_IF_ERROR(RequireSlots(call, permuteProbs, "permuteProbs", r, false));
  if (paddedMode) {
    RETURN_IF_ERROR(RequireSlots(call, outIndex, "outIndex", r, true));
    RETURN_IF_ERROR(RequireSlots(call, permuteTokenId, "permuteTokenId", r, true));
  }
  RETURN_IF_ERROR(RequireEven(call, r, map));
  if (unpermutedTokens->view.empty() && r.slots == 0) return call.Nothing();
  Operands o;
  RoutingOperands at;
  at.slots = o.Input(permutedTokens), at.index = o.Input(sortedIndices), at.map = o.Input(map);
  at.probs = o.Input(probs);
  at.rows = o.Output(unpermutedTokens);
  at.slot_probs = o.Output(probs == nullptr ? nullptr : permuteProbs);
  at.order = o.Output(paddedMode ? outIndex : nullptr);
  at.tokens_out = o.Output(paddedMode ? permuteTokenId : nullptr);
  return call.Launch(o.list(), Cost{0, o.bytes()}, [r, at](const Run& t) -> Status {
    const MapReader in(t, at);
    if (!in.ok()) return ScratchFailed(t.plan().name);
    Pairs p;
    RETURN_IF_ERROR(ReadPairs(t.plan().name, "sortedIndices", r, in.map.get(), in.index.get(), &p));
    std::vector<float> weights(static_cast<size_t>(r.slots));
    const bool weighed = in.probs.get() != nullptr;
    if (weighed) WeighSlots(r, p, in.probs.get(), weights.data());
    RETURN_IF_ERROR(Gather(t, r, p, t[at.slots], weighed ? weights.data() : nullptr, t[at.rows]));
    std::vector<int32_t> order, tokens;
    std::vector<float> by_pair;  // token by token; with padding, slot by slot
    for (int64_t i = 0; i < r.tokens; ++i)
      for (int64_t j = p.starts[i]; j < p.starts[i + 1]; ++j) {
        order.push_back(p.pairs[j].slot);
        tokens.push_back(static_cast<int32_t>(i));
        by_pair.push_back(weights[p.pairs[j].slot]);
      }
    if (at.order >= 0) StoreValues(t[at.order], order.data());
    if (at.tokens_out >= 0) StoreValues(t[at.tokens_out], tokens.data());
    if (at.slot_probs >= 0) StoreValues(t[at.slot_probs], r.padded ? weights.data() : by_pair.data());
    return Status();
  });
}

Status aclnn::MoeTokenUnpermuteWithRoutingMapGrad(Call& call, const aclTensor* unpermutedTokensGrad,
                                                  const aclTensor* outIndex, const aclTensor* permuteTokenId,
                                                  const aclTensor* routingMapOptional,
                                                  const aclTensor* permutedTokensOptional,
                                                  const aclTensor* probsOptional, bool dropAndPad,
                                                  const aclIntArray* restoreShapeOptional,
                                                  const aclTensor* permutedTokensGradOut,
                                                  const aclTensor* probsGradOutOptional) {
  RETURN_IF_ERROR(call.RequireRank(unpermutedTokensGrad, "unpermutedTokensGrad", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(permutedTokensGradOut, "permutedTokensGradOut", 2, 2));
  const aclTensor *map = Given(routingMapOptional), *probs = Given(probsOptional),
                  *out = Given(probsGradOutOptional);
  RoutingMap r;
  r.tokens = unpermutedTokensGrad->view.dims[0], r.width = unpermutedTokensGrad->view.dims[1];
  r.slots = permutedTokensGradOut->view.dims[0];
  r.padded = dropAndPad;
  RETURN_IF_ERROR(RequireRestored(call, r, restoreShapeOptional, "unpermutedTokensGrad"));
  RETURN_IF_ERROR(ReadExperts(call, map, probs, &r));
  RETURN_IF_ERROR(call.RequireFloating(unpermutedTokensGrad, "unpermutedTokensGrad", {r.tokens, r.width}));
  RETURN_IF_ERROR(call.RequireFloating(permutedTokensGradOut, "permutedTokensGradOut", {r.slots, r.width}));
  RETURN_IF_ERROR(RequireSlots(call, outIndex, "outIndex", r, true));
  if (dropAndPad) RETURN_IF_ERROR(RequireSlots(call, permuteTokenId, "permuteTokenId", r, true));
  if (probs == nullptr) out = nullptr;
  if (out != nullptr) {
    RETURN_IF_ERROR(call.RequireFloating(out, "probsGradOut", {r.tokens, r.experts}));
    if (permutedTokensOptional == nullptr)
      return call.Invalid("probsGradOut is given without permutedTokens, which it needs");
    RETURN_IF_ERROR(call.RequireFloating(permutedTokensOptional, "permutedTokens", {r.slots, r.width}));
  }
  RETURN_IF_ERROR(RequireEven(call, r, map));
  if (permutedTokensGradOut->view.empty() && out == nullptr) return call.Nothing();
  Operands o;
  RoutingOperands at;
  at.rows = o.Input(unpermutedTokensGrad), at.index = o.Input(outIndex);
  at.order = o.Input(dropAndPad ? permuteTokenId : nullptr);
  at.map = o.Input(map), at.probs = o.Input(probs);
  const int permuted = o.Input(out == nullptr ? nullptr : permutedTokensOptional);
  at.slots = o.Output(permutedTokensGradOut), at.slot_probs = o.Output(out);
  return call.Launch(o.list(), Cost{0, o.bytes()}, [r, at, permuted](const Run& t) -> Status {
    const MapReader in(t, at);
    const Values<int32_t> tokens(t, at.order);
    if (!in.ok() || !tokens.ok()) return ScratchFailed(t.plan().name);
    const char* op = t.plan().name;
    Pairs p;
    if (r.padded) {  // sorted by token: outIndex names the slot of each
      std::vector<int32_t> token_of(static_cast<size_t>(r.slots), -1);
      for (int64_t i = 0; i < r.slots; ++i) {
        const int32_t slot = in.index[i];
        if (slot < 0 || slot >= r.slots || token_of[slot] >= 0)
          return Error(kParamInvalid, "{}: outIndex has {}, expected each of 0 to {} once", op, slot,
                       r.slots - 1);
        token_of[slot] = tokens[i];
        if (tokens[i] < 0)
          return Error(kParamInvalid, "{}: permuteTokenId has {}, expected 0 to {}", op, tokens[i],
                       r.tokens - 1);
      }
      RETURN_IF_ERROR(ReadPairs(op, "permuteTokenId", r, in.map.get(), token_of.data(), &p));
    } else {
      RETURN_IF_ERROR(ReadPairs(op, "outIndex", r, in.map.get(), in.index.get(), &p));
    }
    std::vector<float> weights(static_cast<size_t>(r.slots));
    const bool weighed = in.probs.get() != nullptr;
    if (weighed) WeighSlots(r, p, in.probs.get(), weights.data());
    RETURN_IF_ERROR(Spread(t, r, p, t[at.rows], weighed ? weights.data() : nullptr, t[at.slots]));
    if (at.slot_probs < 0) return Status();
    const Values<float> grads(t[at.rows]), rows(t[permuted]);
    if (!grads.ok() || !rows.ok()) return ScratchFailed(op);
    std::vector<float> out(static_cast<size_t>(r.tokens * r.experts), 0.0f);
    ParallelFor(r.tokens, std::max<int64_t>(1, 8192 / (r.width + 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = p.starts[i]; j < p.starts[i + 1]; ++j) {
          const float *g = grads.get() + i * r.width, *x = rows.get() + p.pairs[j].slot * r.width;
          double sum = 0;
          for (int64_t k = 0; k < r.width; ++k) sum += static_cast<double>(g[k]) * x[k];
          out[i * r.experts + p.pairs[j].expert] += static_cast<float>(sum);
        }
    });
    StoreValues(t[at.slot_probs], out.data());
    return Status();
  });
}

}  // namespace anycann
