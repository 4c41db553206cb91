// Causal convolutions along a sequence, a filter of K numbers for each channel: of packed sequences with what
// they saw before in a cache, and of padded ones with a mask and a gradient.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"
#include "ops/operand.h"

namespace anycann {
namespace {

// x: [rows, channels] of packed sequences, y the same. A line of the cache: [length, channels], the rows
// before the sequence's first.
struct CausalPlan {
  int64_t rows = 0, channels = 0, taps = 0, batches = 0, even = 0;  // even: rows of each batch without starts
  int64_t lines = 0, length = 0;
  int64_t pad_line = 0, block = 0;  // block: tokens between the lines that prefixes are kept in
  bool silu = false, residual = false, reset_head = false;
  bool from_end = false;  // a line's rows lie at its end, otherwise at its beginning
  int x = -1, weight = -1, bias = -1, states = -1, starts = -1, lines_of = -1, has_state = -1, accepted = -1,
      computed = -1, first_block = -1, last_block = -1, initial_block = -1, y = -1;
};

struct Sequence {
  int64_t begin = 0, rows = 0;
  int64_t read = -1, write = -1, offset = 0;      // lines; where the rows before begin in the line
  bool fresh = false;                             // nothing before
  int64_t reset = 0;                              // so many rows of the result are zeros
  std::vector<std::pair<int64_t, int64_t>> kept;  // {line, row}: the rows before `row` are kept there
};

class SequenceReader {
 public:
  SequenceReader(const Run& t, const CausalPlan& p) : t_(t), p_(p) {
    starts_ = Values<int64_t>(t, p.starts), lines_of_ = Values<int64_t>(t, p.lines_of),
    has_state_ = Values<int64_t>(t, p.has_state);
    accepted_ = Values<int64_t>(t, p.accepted), computed_ = Values<int64_t>(t, p.computed),
    first_ = Values<int64_t>(t, p.first_block);
    last_ = Values<int64_t>(t, p.last_block), initial_ = Values<int64_t>(t, p.initial_block);
    columns_ = p.lines_of >= 0 && t[p.lines_of].rank == 2 ? t[p.lines_of].dims[1] : 1;
  }
  bool ok() const {
    for (const Values<int64_t>* v :
         {&starts_, &lines_of_, &has_state_, &accepted_, &computed_, &first_, &last_, &initial_})
      if (!v->ok()) return false;
    return true;
  }
  Status Read(int64_t b, Sequence* s) const {
    const char* op = t_.plan().name;
    s->begin = starts_.get() != nullptr ? starts_[b] : b * p_.even;
    const int64_t end = starts_.get() != nullptr ? starts_[b + 1] : s->begin + p_.even;
    if (s->begin < 0 || end < s->begin || end > p_.rows)
      return Error(kParamInvalid, "{}: queryStartLoc has {} after {}, expected a rising list up to {}", op,
                   end, s->begin, p_.rows);
    s->rows = end - s->begin;
    const bool prefixes = last_.get() != nullptr;
    RETURN_IF_ERROR(LineOf(b, prefixes ? initial_[b] : 0, &s->read));
    RETURN_IF_ERROR(LineOf(b, prefixes ? last_[b] : 0, &s->write));
    if (s->read < 0) return Status();
    s->fresh = (computed_.get() != nullptr && computed_[b] == 0) ||
               (has_state_.get() != nullptr && has_state_[b] == 0);
    if (!s->fresh && accepted_.get() != nullptr) {
      s->offset = accepted_[b] - 1;
      if (s->offset < 0 || s->offset + p_.taps - 1 > p_.length)
        return Error(kParamInvalid, "{}: numAcceptedTokens has {} for sequence {}, expected 1 to {}", op,
                     accepted_[b], b, p_.length - p_.taps + 2);
    } else if (!s->fresh && p_.from_end) {
      s->offset = p_.length - (p_.taps - 1);
    }
    if (p_.reset_head)
      s->reset = std::clamp<int64_t>(p_.taps - 1 - std::clamp<int64_t>(computed_[b], 0, p_.taps), 0, s->rows);
    return prefixes ? ReadPrefixes(b, s) : Status();
  }

 private:
  Status LineOf(int64_t b, int64_t column, int64_t* line) const {
    const char* op = t_.plan().name;
    if (column < 0 || column >= columns_)
      return Error(kParamInvalid,
                   "{}: a block of sequence {} is {}, expected 0 to {}, a column of cacheIndices", op, b,
                   column, columns_ - 1);
    *line = lines_of_.get() != nullptr ? lines_of_[b * columns_ + column] : b;
    if (*line == p_.pad_line) {
      *line = -1;
      return Status();
    }
    if (*line >= 0 && *line < p_.lines) return Status();
    return Error(kParamInvalid, "{}: cacheIndices has {}, expected 0 to {} or padSlotId {}", op, *line,
                 p_.lines - 1, p_.pad_line);
  }
  Status ReadPrefixes(int64_t b, Sequence* s) const {
    const int64_t block = p_.block;
    const int64_t first = first_[b], last = last_[b];
    if (first < 0 || last < first || last >= columns_ || computed_[b] < 0)
      return Error(kParamInvalid, "{}: sequence {} has blocks {} to {} after {} tokens, expected 0 to {}",
                   t_.plan().name, b, first, last, computed_[b], columns_ - 1);
    const int64_t to_full = block - computed_[b] % block;
    const int64_t beyond = ((s->rows - to_full) % block + block) % block;
    const int64_t last_full = s->rows - beyond - (beyond == 0 ? block : 0);
    for (int64_t i = 0; i < last - first; ++i) {
      const int64_t row = last_full - (last - first - i - 1) * block;
      int64_t line;
      RETURN_IF_ERROR(LineOf(b, first + i, &line));
      if (row <= 0 || row > s->rows)
        return Error(kParamInvalid, "{}: sequence {} has {} rows, too few for blocks {} to {} of {}",
                     t_.plan().name, b, s->rows, first, last, block);
      if (line >= 0) s->kept.push_back({line, row});
    }
    return Status();
  }

  const Run& t_;
  const CausalPlan& p_;
  Values<int64_t> starts_, lines_of_, has_state_, accepted_, computed_, first_, last_, initial_;
  int64_t columns_ = 1;
};

// A part of the channels of one sequence. rows: [taps - 1 + rows of the sequence, n], those before first.
void Convolve(const CausalPlan& p, const Sequence& s, const float* rows, const float* weight,
              const float* bias, int64_t n, float* y) {
  for (int64_t i = 0; i < s.rows; ++i) {
    float* __restrict to = y + i * n;
    for (int64_t c = 0; c < n; ++c) to[c] = bias != nullptr ? bias[c] : 0.0f;
    for (int64_t k = 0; k < p.taps; ++k) {
      const float* __restrict from = rows + (i + k) * n;
      const float* __restrict w = weight + k * p.channels;
      for (int64_t c = 0; c < n; ++c) to[c] += from[c] * w[c];
    }
    if (p.silu)
      for (int64_t c = 0; c < n; ++c) to[c] = to[c] / (1 + std::exp(-to[c]));
    if (i < s.reset) std::fill_n(to, n, 0.0f);
    const float* own = rows + (i + p.taps - 1) * n;
    for (int64_t c = 0; c < n && p.residual; ++c) to[c] += own[c];
  }
}

Status RunCausal(const Run& t, const CausalPlan& p) {
  const SequenceReader reader(t, p);
  const DenseInput x(t[p.x]);
  const Values<float> weight(t[p.weight]), bias(t, p.bias);
  Dense states(t[p.states], Dense::kUpdate);
  const DenseOutput y(t[p.y]);
  if (!reader.ok() || !x.ok() || !weight.ok() || !bias.ok() || !y.ok()) return ScratchFailed(t.plan().name);
  std::vector<Sequence> sequences(static_cast<size_t>(p.batches));
  for (int64_t b = 0; b < p.batches; ++b) RETURN_IF_ERROR(reader.Read(b, &sequences[b]));
  const DenseReader<float> in(x.view()), state_reader(states.view());
  const DenseWriter<float> out(y.view()), state_writer(states.view());
  constexpr int64_t kPart = 256;  // channels at once
  const int64_t parts = (p.channels + kPart - 1) / kPart, before = p.taps - 1;
  std::atomic<bool> failed{false};
  // A sequence may read the line that another writes: in order, each one's channels side by side.
  for (const Sequence& s : sequences) {
    if (s.read < 0) continue;
    ParallelFor(parts, std::max<int64_t>(1, 64 / (s.rows + 1)), [&](int64_t begin, int64_t end) {
      const Scratch<float> rows((before + s.rows) * kPart), result(s.rows * kPart), buffer(kPart);
      if (!rows.ok() || !result.ok() || !buffer.ok()) {
        failed = true;
        return;
      }
      for (int64_t part = begin; part < end; ++part) {
        const int64_t first = part * kPart, n = std::min(kPart, p.channels - first);
        const auto load = [&](const DenseReader<float>& from, int64_t at, float* to) {
          const float* v = from.Read(at, n, to);
          if (v != to) std::copy_n(v, n, to);
        };
        const auto store = [&](int64_t line, int64_t row, const float* v) {
          const int64_t at = (line * p.length + row) * p.channels + first;
          float* to = state_writer.Begin(at, buffer.get());
          std::copy_n(v, n, to);
          state_writer.End(at, n, to);
        };
        for (int64_t i = 0; i < before; ++i)
          if (s.fresh)
            std::fill_n(rows.get() + i * n, n, 0.0f);
          else
            load(state_reader, (s.read * p.length + s.offset + i) * p.channels + first, rows.get() + i * n);
        for (int64_t i = 0; i < s.rows; ++i)
          load(in, (s.begin + i) * p.channels + first, rows.get() + (before + i) * n);
        Convolve(p, s, rows.get(), weight.get() + first, bias.get() == nullptr ? nullptr : bias.get() + first,
                 n, result.get());
        for (int64_t i = 0; i < s.rows; ++i) {
          const int64_t at = (s.begin + i) * p.channels + first;
          float* to = out.Begin(at, buffer.get());
          std::copy_n(result.get() + i * n, n, to);
          out.End(at, n, to);
        }
        if (s.write >= 0) {
          const int64_t total = before + s.rows;
          if (p.from_end) {  // all that fits, rows before the offset too
            const int64_t kept = std::min(p.length, total + s.offset),
                          older = std::max<int64_t>(0, kept - total);
            std::vector<float> old(static_cast<size_t>(older * n));
            for (int64_t i = 0; i < older; ++i)
              load(state_reader, (s.read * p.length + s.offset - older + i) * p.channels + first,
                   old.data() + i * n);
            for (int64_t i = 0; i < kept; ++i)
              store(s.write, p.length - kept + i,
                    i < older ? old.data() + i * n : rows.get() + (total - kept + i) * n);
          } else {  // with accepted tokens all new rows, otherwise what the next sequence needs
            const int64_t wanted = p.accepted >= 0 ? total - 1 : before,
                          kept = std::min({p.length, wanted, total});
            for (int64_t i = 0; i < kept; ++i) store(s.write, i, rows.get() + (total - kept + i) * n);
          }
        }
        for (const auto& [line, row] : s.kept)
          for (int64_t i = 0; i < before; ++i) store(line, p.length - before + i, rows.get() + (row + i) * n);
      }
    });
    if (failed) return ScratchFailed(t.plan().name);
  }
  states.Commit();
  y.Finish();
  return Status();
}

struct CausalTensors {
  const aclTensor *x, *weight, *bias, *states, *starts, *lines_of, *has_state, *accepted;
  const aclTensor *computed = nullptr, *first_block = nullptr, *last_block = nullptr,
                  *initial_block = nullptr;
  const aclTensor* y;
};

Status RequireIntegers(Call& call, const aclTensor* t, const char* name, int64_t count) {
  if (t == nullptr) return Status();
  if (t->view.numel() == count && (IsInteger(t->view.dtype) || t->view.dtype == DType::kBool))
    return Status();
  return call.Invalid("{} has shape {} and type {}, expected {} integers", name, ShapeString(t->view),
                      Name(t->view.dtype), count);
}

// The same tensor as input and output of a step in place: y may be x.
Status LaunchCausal(Call& call, CausalTensors c, CausalPlan p) {
  for (const aclTensor** t : {&c.bias, &c.starts, &c.lines_of, &c.has_state, &c.accepted, &c.computed,
                              &c.first_block, &c.last_block, &c.initial_block})
    *t = Given(*t);
  RETURN_IF_ERROR(call.RequireRank(c.x, "x", 2, 3));
  RETURN_IF_ERROR(call.RequireRank(c.weight, "weight", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(c.states, "convStates", 3, 3));
  RETURN_IF_ERROR(call.RequireSameShape(c.y, "y", c.x, "x"));
  const TensorView& v = c.x->view;
  p.channels = v.dims[v.rank - 1];
  p.rows = v.dims[0] * (v.rank == 3 ? v.dims[1] : 1);
  p.taps = c.weight->view.dims[0];
  p.lines = c.states->view.dims[0], p.length = c.states->view.dims[1];
  for (const auto& [t, name] :
       {std::pair{c.x, "x"}, std::pair{c.weight, "weight"}, std::pair{c.states, "convStates"},
        std::pair{c.y, "y"}, std::pair{c.bias, "bias"}})
    if (t != nullptr) RETURN_IF_ERROR(call.RequireFloating(t, name));
  if (p.taps < 1 || c.weight->view.dims[1] != p.channels)
    return call.Invalid("weight has shape {}, expected [K,{}]", ShapeString(c.weight->view), p.channels);
  if (p.length < p.taps - 1 || c.states->view.dims[2] != p.channels)
    return call.Invalid("convStates has shape {}, expected [lines,{} or more,{}]",
                        ShapeString(c.states->view), p.taps - 1, p.channels);
  if (c.bias != nullptr) RETURN_IF_ERROR(call.RequireShape(c.bias, "bias", &p.channels, 1));
  if (c.starts != nullptr)
    p.batches = c.starts->view.numel() - 1;
  else
    p.batches = v.dims[0], p.even = v.rank == 3 ? v.dims[1] : 1;
  RETURN_IF_ERROR(RequireIntegers(call, c.starts, "queryStartLoc", p.batches + 1));
  RETURN_IF_ERROR(RequireIntegers(call, c.has_state, "initialStateMode", p.batches));
  RETURN_IF_ERROR(RequireIntegers(call, c.accepted, "numAcceptedTokens", p.batches));
  RETURN_IF_ERROR(RequireIntegers(call, c.computed, "numComputedTokens", p.batches));
  RETURN_IF_ERROR(RequireIntegers(call, c.first_block, "blockIdxFirstScheduledToken", p.batches));
  RETURN_IF_ERROR(RequireIntegers(call, c.last_block, "blockIdxLastScheduledToken", p.batches));
  RETURN_IF_ERROR(RequireIntegers(call, c.initial_block, "initialStateIdx", p.batches));
  if (c.lines_of != nullptr) {
    const TensorView& l = c.lines_of->view;
    if (!IsInteger(l.dtype) || l.rank > 2 || l.rank < 1 || l.dims[0] < p.batches)
      return call.Invalid("cacheIndices has shape {} and type {}, expected {} rows of integers",
                          ShapeString(l), Name(l.dtype), p.batches);
  } else if (p.lines < p.batches) {
    return call.Invalid("convStates has shape {}, expected a line for each of {} sequences",
                        ShapeString(c.states->view), p.batches);
  }
  if (c.last_block != nullptr && (c.first_block == nullptr || c.initial_block == nullptr ||
                                  c.computed == nullptr || c.lines_of == nullptr || p.block < 1))
    return call.Invalid(
        "blockIdxLastScheduledToken is given, and needs blockIdxFirstScheduledToken, initialStateIdx, "
        "numComputedTokens, cacheIndices and a blockSize of 1 or more (it is {})",
        p.block);
  if (c.last_block == nullptr) c.first_block = c.initial_block = nullptr;
  if (p.reset_head && c.computed == nullptr)
    return call.Invalid("convMode is 1 without numComputedTokens, which it needs");
  if (v.empty() || p.batches <= 0) return call.Nothing();
  Operands o;
  p.x = o.Input(c.x), p.weight = o.Input(c.weight), p.bias = o.Input(c.bias);
  p.starts = o.Input(c.starts), p.lines_of = o.Input(c.lines_of), p.has_state = o.Input(c.has_state);
  p.accepted = o.Input(c.accepted), p.computed = o.Input(c.computed);
  p.first_block = o.Input(c.first_block), p.last_block = o.Input(c.last_block);
  p.initial_block = o.Input(c.initial_block);
  p.states = o.Output(c.states), p.y = o.Output(c.y);
  return call.Launch(o.list(),
                     Cost{2.0 * static_cast<double>(v.numel() * p.taps), static_cast<double>(3 * v.nbytes())},
                     [p](const Run& t) { return RunCausal(t, p); });
}

Status ReadActivation(Call& call, int64_t mode, bool* silu) {
  if (mode != 0 && mode != 1)
    return call.Invalid("activationMode is {}, expected 0 (none) or 1 (SiLU)", mode);
  *silu = mode == 1;
  return Status();
}

// x, y [S,B,H], weight [K,H], mask [B,S]: row s of batch b sees those before it; masked rows become zeros.
struct MaskedPlan {
  int64_t length = 0, batches = 0, channels = 0, taps = 0;
};

Status CheckMasked(Call& call, const aclTensor* x, const aclTensor* weight, const aclTensor* mask,
                   const aclTensor* y, const char* y_name, MaskedPlan* p) {
  RETURN_IF_ERROR(call.RequireRank(x, "x", 3, 3));
  RETURN_IF_ERROR(call.RequireRank(weight, "weight", 2, 2));
  RETURN_IF_ERROR(call.RequireSameShape(y, y_name, x, "x"));
  *p = {x->view.dims[0], x->view.dims[1], x->view.dims[2], weight->view.dims[0]};
  if (weight->view.dims[1] != p->channels || p->taps < 1)
    return call.Invalid("weight has shape {}, expected [K,{}]", ShapeString(weight->view), p->channels);
  for (const auto& [t, name] : {std::pair{x, "x"}, std::pair{weight, "weight"}, std::pair{y, y_name}})
    RETURN_IF_ERROR(call.RequireFloating(t, name));
  if (mask == nullptr) return Status();
  const int64_t dims[] = {p->batches, p->length};
  RETURN_IF_ERROR(call.RequireShape(mask, "mask", dims, 2));
  if (mask->view.dtype == DType::kBool || IsInteger(mask->view.dtype)) return Status();
  return call.Invalid("mask has type {}, expected bool", Name(mask->view.dtype));
}

}  // namespace

Status aclnn::CausalConv1d(Call& call, const aclTensor* x, const aclTensor* weight,
                           const aclTensor* biasOptional, const aclTensor* convStates,
                           const aclTensor* queryStartLocOptional, const aclTensor* cacheIndicesOptional,
                           const aclTensor* initialStateModeOptional,
                           const aclTensor* numAcceptedTokensOptional, int64_t activationMode,
                           int64_t padSlotId, int64_t runMode, const aclTensor* yOut) {
  if (runMode != 0 && runMode != 1)
    return call.Invalid("runMode is {}, expected 0 (whole sequences) or 1 (their next tokens)", runMode);
  CausalPlan p;
  RETURN_IF_ERROR(ReadActivation(call, activationMode, &p.silu));
  p.pad_line = padSlotId;
  return LaunchCausal(call,
                      {.x = x,
                       .weight = weight,
                       .bias = biasOptional,
                       .states = convStates,
                       .starts = queryStartLocOptional,
                       .lines_of = cacheIndicesOptional,
                       .has_state = initialStateModeOptional,
                       .accepted = numAcceptedTokensOptional,
                       .y = yOut},
                      p);
}

Status aclnn::CausalConv1dV310(Call& call, const aclTensor* x, const aclTensor* weight,
                               const aclTensor* biasOptional, const aclTensor* convStates,
                               const aclTensor* queryStartLocOptional, const aclTensor* cacheIndicesOptional,
                               const aclTensor* initialStateModeOptional,
                               const aclTensor* numAcceptedTokensOptional, int64_t activationMode,
                               int64_t padSlotId, int64_t runMode, const aclTensor* yOut) {
  return CausalConv1d(call, x, weight, biasOptional, convStates, queryStartLocOptional, cacheIndicesOptional,
                      initialStateModeOptional, numAcceptedTokensOptional, activationMode, padSlotId, runMode,
                      yOut);
}

Status aclnn::FusedCausalConv1d(
    Call& call, const aclTensor* x, const aclTensor* weight, aclTensor* convStates,
    const aclTensor* queryStartLoc, const aclTensor* cacheIndices, const aclTensor* initialStateMode,
    const aclTensor* bias, const aclTensor* numAcceptedTokens, const aclTensor* numComputedTokens,
    const aclTensor* blockIdxFirstScheduledToken, const aclTensor* blockIdxLastScheduledToken,
    const aclTensor* initialStateIdx, int64_t activationMode, int64_t padSlotId, int64_t, int64_t,
    int64_t residualConnection, int64_t blockSize, int64_t convMode, aclTensor* y) {
  if (convMode != 0 && convMode != 1)
    return call.Invalid("convMode is {}, expected 0 or 1 (the first rows of a sequence are zeros)", convMode);
  CausalPlan p;
  RETURN_IF_ERROR(ReadActivation(call, activationMode, &p.silu));
  p.pad_line = padSlotId, p.block = blockSize;
  p.residual = residualConnection != 0, p.reset_head = convMode == 1;
  p.from_end = true;
  return LaunchCausal(call,
                      {.x = x,
                       .weight = weight,
                       .bias = bias,
                       .states = convStates,
                       .starts = queryStartLoc,
                       .lines_of = cacheIndices,
                       .has_state = initialStateMode,
                       .accepted = numAcceptedTokens,
                       .computed = numComputedTokens,
                       .first_block = blockIdxFirstScheduledToken,
                       .last_block = blockIdxLastScheduledToken,
                       .initial_block = initialStateIdx,
                       .y = y},
                      p);
}

Status aclnn::InplaceFusedCausalConv1d(
    Call& call, aclTensor* x, const aclTensor* weight, aclTensor* convStates, const aclTensor* queryStartLoc,
    const aclTensor* cacheIndices, const aclTensor* initialStateMode, const aclTensor* bias,
    const aclTensor* numAcceptedTokens, const aclTensor* numComputedTokens,
    const aclTensor* blockIdxFirstScheduledToken, const aclTensor* blockIdxLastScheduledToken,
    const aclTensor* initialStateIdx, int64_t activationMode, int64_t padSlotId, int64_t runMode,
    int64_t maxQueryLen, int64_t residualConnection, int64_t blockSize, int64_t convMode) {
  return FusedCausalConv1d(call, x, weight, convStates, queryStartLoc, cacheIndices, initialStateMode, bias,
                           numAcceptedTokens, numComputedTokens, blockIdxFirstScheduledToken,
                           blockIdxLastScheduledToken, initialStateIdx, activationMode, padSlotId, runMode,
                           maxQueryLen, residualConnection, blockSize, convMode, x);
}

Status aclnn::MaskedCausalConv1d(Call& call, const aclTensor* x, const aclTensor* weight,
                                 const aclTensor* maskOptional, const aclTensor* out) {
  MaskedPlan p;
  RETURN_IF_ERROR(CheckMasked(call, x, weight, maskOptional, out, "out", &p));
  if (x->view.empty()) return call.Nothing();
  Operands o;
  const int at_x = o.Input(x), at_w = o.Input(weight), at_mask = o.Input(maskOptional), at_y = o.Output(out);
  return call.Launch(
      o.list(), Cost{2.0 * static_cast<double>(x->view.numel() * p.taps), o.bytes()},
      [=](const Run& t) -> Status {
        const Values<float> x(t[at_x]), w(t[at_w]);
        const Values<int8_t> mask(t, at_mask);
        const Scratch<float> y(t[at_y].numel());
        if (!x.ok() || !w.ok() || !mask.ok() || !y.ok()) return ScratchFailed(t.plan().name);
        const int64_t n = p.channels;
        ParallelFor(p.length * p.batches, std::max<int64_t>(1, 8192 / (n + 1)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        const int64_t s = i / p.batches, b = i % p.batches;
                        float* __restrict to = y.get() + i * n;
                        std::fill_n(to, n, 0.0f);
                        if (mask.get() != nullptr && mask[b * p.length + s] == 0) continue;
                        for (int64_t k = std::max<int64_t>(0, p.taps - 1 - s); k < p.taps; ++k) {
                          const float* __restrict from = x.get() + (i - (p.taps - 1 - k) * p.batches) * n;
                          for (int64_t c = 0; c < n; ++c) to[c] += from[c] * w[k * n + c];
                        }
                      }
                    });
        StoreValues(t[at_y], y.get());
        return Status();
      });
}

Status aclnn::MaskedCausalConv1dBackward(Call& call, const aclTensor* gradY, const aclTensor* x,
                                         const aclTensor* weight, const aclTensor* maskOptional,
                                         const aclTensor* gradXOut, const aclTensor* gradWeightOut) {
  MaskedPlan p;
  RETURN_IF_ERROR(CheckMasked(call, x, weight, maskOptional, gradXOut, "gradX", &p));
  RETURN_IF_ERROR(call.RequireSameShape(gradY, "gradY", x, "x"));
  RETURN_IF_ERROR(call.RequireSameShape(gradWeightOut, "gradWeight", weight, "weight"));
  for (const auto& [t, name] : {std::pair{gradY, "gradY"}, std::pair{gradWeightOut, "gradWeight"}})
    RETURN_IF_ERROR(call.RequireFloating(t, name));
  Operands o;
  const int at_g = o.Input(gradY), at_x = o.Input(x), at_w = o.Input(weight), at_mask = o.Input(maskOptional),
            at_gx = o.Output(gradXOut), at_gw = o.Output(gradWeightOut);
  return call.Launch(o.list(), Cost{4.0 * static_cast<double>(x->view.numel() * p.taps), o.bytes()},
                     [=](const Run& t) -> Status {
                       const Values<float> g(t[at_g]), x(t[at_x]), w(t[at_w]);
                       const Values<int8_t> mask(t, at_mask);
                       const Scratch<float> gx(t[at_gx].numel());
                       const Scratch<double> gw(p.taps * p.channels);
                       if (!g.ok() || !x.ok() || !w.ok() || !mask.ok() || !gx.ok() || !gw.ok())
                         return ScratchFailed(t.plan().name);
                       const int64_t n = p.channels;
                       std::fill_n(gx.get(), t[at_gx].numel(), 0.0f);
                       std::fill_n(gw.get(), p.taps * n, 0.0);
                       constexpr int64_t kPart = 64;  // channels at once: each thread has its own
                       ParallelFor((n + kPart - 1) / kPart, 1, [&](int64_t begin, int64_t end) {
                         const int64_t first = begin * kPart, last = std::min(n, end * kPart);
                         for (int64_t i = 0; i < p.length * p.batches; ++i) {
                           const int64_t s = i / p.batches, b = i % p.batches;
                           if (mask.get() != nullptr && mask[b * p.length + s] == 0) continue;
                           for (int64_t k = std::max<int64_t>(0, p.taps - 1 - s); k < p.taps; ++k) {
                             const int64_t from = (i - (p.taps - 1 - k) * p.batches) * n;
                             for (int64_t c = first; c < last; ++c) {
                               const float v = g[i * n + c];
                               gx[from + c] += v * w[k * n + c];
                               gw[k * n + c] += static_cast<double>(v) * x[from + c];
                             }
                           }
                         }
                       });
                       StoreValues(t[at_gx], gx.get());
                       StoreValues(t[at_gw], gw.get());
                       return Status();
                     });
}

}  // namespace anycann
