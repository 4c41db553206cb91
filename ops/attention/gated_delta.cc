// The gated delta rule: linear attention with a state [Dv,Dk] for each head, which each token decays,
// corrects and reads: S = S * exp(g) ; S += beta * (v - S k) k^T ; out = S q * scale.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

struct DeltaRule {
  int64_t tokens = 0, key_heads = 0, heads = 0, dk = 0, dv = 0, states = 0, batches = 0;
  float scale = 1;
  int query = -1, key = -1, value = -1, beta = -1, lengths = -1, index = -1, g = -1, gk = -1, accepted = -1;
  int state = -1, final_state = -1, out = -1;
};

struct Sequences {
  std::vector<int64_t> begins;  // of each batch, and the end
  std::vector<int64_t> initial,
      slot_of;  // the state that a batch starts from (-1: zeros); where a token's goes
};

Status ReadSequences(const Run& t, const DeltaRule& d, Sequences* s) {
  const char* op = t.plan().name;
  const Values<int64_t> lengths(t, d.lengths), index(t, d.index), accepted(t, d.accepted);
  if (!lengths.ok() || !index.ok() || !accepted.ok()) return ScratchFailed(op);
  int64_t begin = 0;
  for (int64_t b = 0; b < d.batches; ++b) {
    const int64_t n = lengths.get() != nullptr ? lengths[b] : d.tokens / d.batches;
    if (n < 0 || n > d.tokens - begin)
      return Error(kParamInvalid, "{}: actualSeqLengths has {} for batch {}, after {} of {} tokens", op, n, b,
                   begin, d.tokens);
    s->begins.push_back(begin);
    begin += n;
  }
  s->begins.push_back(begin);
  for (int64_t i = 0; i < d.tokens && d.index >= 0; ++i)
    if (index[i] < -1 || index[i] >= d.states)
      return Error(kParamInvalid, "{}: ssmStateIndices has {}, expected 0 to {}", op, index[i], d.states - 1);
  for (int64_t b = 0; b < d.batches; ++b) {
    const int64_t n = s->begins[b + 1] - s->begins[b], first = accepted.get() != nullptr ? accepted[b] : 1;
    if (n > 0 && d.index >= 0 && (first < 1 || first > n))
      return Error(kParamInvalid, "{}: numAcceptedTokens has {} for batch {}, expected 1 to {}", op, first, b,
                   n);
    s->initial.push_back(n == 0 ? -1 : d.index >= 0 ? index[s->begins[b] + first - 1] : b);
  }
  if (d.index >= 0) s->slot_of.assign(index.get(), index.get() + d.tokens);
  return Status();
}

// One head of one batch. state: [dv, dk], changed.
struct Head {
  const float *q, *k, *v, *beta, *g, *gk;
};

void Step(const DeltaRule& d, const Head& h, float* __restrict state, float* __restrict out) {
  const float decay = h.g != nullptr ? std::exp(*h.g) : 1.0f, beta = h.beta != nullptr ? *h.beta : 1.0f;
  for (int64_t i = 0; i < d.dv; ++i) {
    float* __restrict row = state + i * d.dk;
    float seen = 0;
    for (int64_t j = 0; j < d.dk; ++j) {
      row[j] *= h.gk != nullptr ? decay * std::exp(h.gk[j]) : decay;
      seen += row[j] * h.k[j];
    }
    const float change = (h.v[i] - seen) * beta;
    float result = 0;
    for (int64_t j = 0; j < d.dk; ++j) {
      row[j] += change * h.k[j];
      result += row[j] * h.q[j];
    }
    out[i] = result * d.scale;
  }
}

Status RunDeltaRule(const Run& t, const DeltaRule& d) {
  Sequences s;
  RETURN_IF_ERROR(ReadSequences(t, d, &s));
  const Values<float> q(t[d.query]), k(t[d.key]), v(t[d.value]), beta(t, d.beta), g(t, d.g), gk(t, d.gk);
  // Recurrent: states in place. By chunks: from initial ones (or zeros) to final ones.
  const Values<float> initial(t, d.state);
  const int to = d.final_state >= 0 ? d.final_state : d.state;
  const int64_t size = d.dv * d.dk;
  const Scratch<float> states(t[to].numel()), out(d.tokens * d.heads * d.dv);
  for (const Values<float>* x : {&q, &k, &v, &beta, &g, &gk, &initial})
    if (!x->ok()) return ScratchFailed(t.plan().name);
  if (!states.ok() || !out.ok()) return ScratchFailed(t.plan().name);
  if (d.final_state < 0) std::copy_n(initial.get(), t[to].numel(), states.get());
  std::fill_n(out.get(), d.tokens * d.heads * d.dv, 0.0f);
  std::atomic<bool> failed{false};
  ParallelFor(d.batches * d.heads, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> state(size);
    if (!state.ok()) {
      failed = true;
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / d.heads, n = i % d.heads, key_head = n / (d.heads / d.key_heads);
      if (initial.get() == nullptr || s.initial[b] < 0)
        std::fill_n(state.get(), size, 0.0f);
      else
        std::copy_n(initial.get() + (s.initial[b] * d.heads + n) * size, size, state.get());
      for (int64_t x = s.begins[b]; x < s.begins[b + 1]; ++x) {
        const int64_t key = (x * d.key_heads + key_head) * d.dk, head = x * d.heads + n;
        Step(d,
             {q.get() + key, k.get() + key, v.get() + head * d.dv,
              beta.get() != nullptr ? beta.get() + head : nullptr,
              g.get() != nullptr ? g.get() + head : nullptr,
              gk.get() != nullptr ? gk.get() + head * d.dk : nullptr},
             state.get(), out.get() + head * d.dv);
        if (d.index >= 0 && s.slot_of[x] >= 0)
          std::copy_n(state.get(), size, states.get() + (s.slot_of[x] * d.heads + n) * size);
      }
      if (d.index < 0) std::copy_n(state.get(), size, states.get() + (b * d.heads + n) * size);
    }
  });
  if (failed) return ScratchFailed(t.plan().name);
  StoreValues(t[to], states.get());
  StoreValues(t[d.out], out.get());
  return Status();
}

Status RequireIntegers(Call& call, const aclTensor* t, const char* name, int64_t count) {
  if (t->view.numel() == count && IsInteger(t->view.dtype)) return Status();
  return call.Invalid("{} has shape {} and type {}, expected {} integers", name, ShapeString(t->view),
                      Name(t->view.dtype), count);
}

struct DeltaTensors {
  const aclTensor *query, *key, *value, *beta, *lengths, *index, *g, *gk, *accepted, *out;
};

Status ReadDeltaRule(Call& call, const DeltaTensors& x, const aclTensor* state, const char* state_name,
                     double scale, DeltaRule* d) {
  RETURN_IF_ERROR(call.RequireRank(x.query, "query", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(x.value, "value", 3, 3));
  const TensorView &q = x.query->view, &v = x.value->view;
  d->tokens = q.dims[0], d->key_heads = q.dims[1], d->dk = q.dims[2];
  d->heads = v.dims[1], d->dv = v.dims[2];
  d->scale = static_cast<float>(scale);
  RETURN_IF_ERROR(call.RequireFloating(x.query, "query", {d->tokens, d->key_heads, d->dk}));
  RETURN_IF_ERROR(call.RequireFloating(x.key, "key", {d->tokens, d->key_heads, d->dk}));
  RETURN_IF_ERROR(call.RequireFloating(x.value, "value", {d->tokens, d->heads, d->dv}));
  RETURN_IF_ERROR(call.RequireFloating(x.out, "out", {d->tokens, d->heads, d->dv}));
  if (d->key_heads < 1 || d->heads < 1 || d->heads % d->key_heads != 0 || d->dk < 1 || d->dv < 1)
    return call.Invalid("query has shape {} and value {}: {} heads are not a multiple of {}", ShapeString(q),
                        ShapeString(v), d->heads, d->key_heads);
  if (x.beta != nullptr) RETURN_IF_ERROR(call.RequireFloating(x.beta, "beta", {d->tokens, d->heads}));
  if (x.g != nullptr) RETURN_IF_ERROR(call.RequireFloating(x.g, "g", {d->tokens, d->heads}));
  if (x.gk != nullptr) RETURN_IF_ERROR(call.RequireFloating(x.gk, "gk", {d->tokens, d->heads, d->dk}));
  RETURN_IF_ERROR(call.RequireRank(state, state_name, 4, 4));
  d->states = state->view.dims[0];
  RETURN_IF_ERROR(call.RequireFloating(state, state_name, {d->states, d->heads, d->dv, d->dk}));
  d->batches = x.lengths != nullptr ? x.lengths->view.numel() : x.index == nullptr ? d->states : d->tokens;
  if (x.lengths != nullptr) RETURN_IF_ERROR(RequireIntegers(call, x.lengths, "actualSeqLengths", d->batches));
  if (x.index != nullptr) RETURN_IF_ERROR(RequireIntegers(call, x.index, "ssmStateIndices", d->tokens));
  if (x.accepted != nullptr)
    RETURN_IF_ERROR(RequireIntegers(call, x.accepted, "numAcceptedTokens", d->batches));
  if (x.index == nullptr && d->states != d->batches)
    return call.Invalid("{} has shape {}, expected a state for each of {} sequences", state_name,
                        ShapeString(state->view), d->batches);
  if (x.lengths == nullptr && d->batches > 0 && d->tokens % d->batches != 0)
    return call.Invalid("{} tokens are not the same number for each of {} sequences: give actualSeqLengths",
                        d->tokens, d->batches);
  return Status();
}

Status LaunchDeltaRule(Call& call, const DeltaTensors& x, const aclTensor* initial, const aclTensor* state,
                       const aclTensor* final_state, DeltaRule d) {
  Operands o;
  d.query = o.Input(x.query), d.key = o.Input(x.key), d.value = o.Input(x.value);
  d.beta = o.Input(x.beta), d.lengths = o.Input(x.lengths), d.index = o.Input(x.index);
  d.g = o.Input(x.g), d.gk = o.Input(x.gk), d.accepted = o.Input(x.accepted);
  d.state = state != nullptr ? o.Output(state) : o.Input(initial);
  d.final_state = o.Output(final_state);
  d.out = o.Output(x.out);
  return call.Launch(
      o.list(),
      Cost{7.0 * static_cast<double>(d.tokens * d.heads) * static_cast<double>(d.dk * d.dv), o.bytes()},
      [d](const Run& t) { return RunDeltaRule(t, d); });
}

}  // namespace

Status aclnn::RecurrentGatedDeltaRule(Call& call, const aclTensor* query, const aclTensor* key,
                                      const aclTensor* value, const aclTensor* beta, aclTensor* stateRef,
                                      const aclTensor* actualSeqLengths, const aclTensor* ssmStateIndices,
                                      const aclTensor* g, const aclTensor* gk,
                                      const aclTensor* numAcceptedTokens, float scaleValue, aclTensor* out) {
  const DeltaTensors x{query,
                       key,
                       value,
                       Given(beta),
                       Given(actualSeqLengths),
                       Given(ssmStateIndices),
                       Given(g),
                       Given(gk),
                       Given(numAcceptedTokens),
                       out};
  DeltaRule d;
  RETURN_IF_ERROR(ReadDeltaRule(call, x, stateRef, "stateRef", scaleValue, &d));
  if (x.accepted != nullptr && x.index == nullptr)
    return call.Invalid("numAcceptedTokens is given without ssmStateIndices: whose states are they?");
  if (d.tokens == 0) return call.Nothing();
  return LaunchDeltaRule(call, x, nullptr, stateRef, nullptr, d);
}

Status aclnn::RecurrentGatedDeltaRuleV310(Call& call, const aclTensor* query, const aclTensor* key,
                                          const aclTensor* value, const aclTensor* beta, aclTensor* stateRef,
                                          const aclTensor* actualSeqLengths, const aclTensor* ssmStateIndices,
                                          const aclTensor* g, const aclTensor* gk,
                                          const aclTensor* numAcceptedTokens, float scaleValue,
                                          aclTensor* out) {
  return RecurrentGatedDeltaRule(call, query, key, value, beta, stateRef, actualSeqLengths, ssmStateIndices,
                                 g, gk, numAcceptedTokens, scaleValue, out);
}

Status aclnn::ChunkGatedDeltaRule(Call& call, const aclTensor* query, const aclTensor* key,
                                  const aclTensor* value, const aclTensor* beta,
                                  const aclTensor* initialState, const aclTensor* actualSeqLengths,
                                  const aclTensor* gOptional, float scaleValue, const aclTensor* out,
                                  const aclTensor* finalState) {
  const DeltaTensors x{
      query,   key,     value, Given(beta), Given(actualSeqLengths), nullptr, Given(gOptional),
      nullptr, nullptr, out};
  DeltaRule d;
  RETURN_IF_ERROR(ReadDeltaRule(call, x, finalState, "finalState", scaleValue, &d));
  const aclTensor* initial = Given(initialState);
  if (initial != nullptr)
    RETURN_IF_ERROR(call.RequireFloating(initial, "initialState", {d.states, d.heads, d.dv, d.dk}));
  if (d.batches == 0) return call.Nothing();
  return LaunchDeltaRule(call, x, initial, nullptr, finalState, d);
}

}  // namespace anycann
