#include "ops/attention/flash_parameters.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace anycann {
namespace {

constexpr int64_t kUnbounded = int64_t{1} << 40;  // tokens

bool Is(const char* layout, const char* name) { return std::strcmp(layout, name) == 0; }

Status CheckTensor(Call& call, const aclTensor* t, const char* name, const char* layout) {
  const int rank = Is(layout, "BNSD") || Is(layout, "BSND") ? 4 : 3;
  RETURN_IF_ERROR(call.RequireRank(t, name, rank, rank));
  const DType type = t->view.dtype;
  if (type != DType::kFloat && !IsReduced(type))
    return call.Invalid("{} has type {}, which is not supported", name, Name(type));
  return Status();
}

// The heads of query, key and value, and that they fit each other.
Status CheckSizes(Call& call, const FlashParameters& p, Attention* a) {
  if (p.heads < 1) return call.Invalid("headNum is {}, expected at least 1", p.heads);
  const TensorView &q = p.query->view, &k = p.key->view, &v = p.value->view;
  const bool flat = Is(p.layout, "BSH") || Is(p.layout, "SBH");
  if (flat && q.dims[2] % p.heads != 0)
    return call.Invalid("query {} can't be cut into headNum {} heads", ShapeString(q), p.heads);
  const HeadSizes qs = SizesOf(q, p.layout, p.heads);
  const int64_t kv_heads = flat ? (qs.dim > 0 ? k.dims[2] / qs.dim : 0) : 1;
  if (qs.dim < 1 || (flat && (kv_heads < 1 || k.dims[2] % qs.dim != 0 || v.dims[2] % kv_heads != 0)))
    return call.Invalid("query {}, key {} and value {} don't have heads of one size", ShapeString(q),
                        ShapeString(k), ShapeString(v));
  const HeadSizes ks = SizesOf(k, p.layout, kv_heads), vs = SizesOf(v, p.layout, kv_heads);
  if (qs.heads != p.heads)
    return call.Invalid("query {} has {} heads, headNum is {}", ShapeString(q), qs.heads, p.heads);
  if (ks.batches != qs.batches || vs.batches != qs.batches || ks.dim != qs.dim || ks.length != vs.length ||
      ks.heads != vs.heads || ks.heads < 1 || qs.heads % ks.heads != 0)
    return call.Invalid("query {}, key {} and value {} don't match in layout {} with headNum {}",
                        ShapeString(q), ShapeString(k), ShapeString(v), p.layout, p.heads);
  a->batches = qs.batches;
  a->heads = qs.heads;
  a->kv_heads = ks.heads;
  a->dim = qs.dim;
  a->value_dim = vs.dim;
  a->q_len = qs.length;
  a->k_len = ks.length;
  return Status();
}

Status CheckLengths(Call& call, const FlashParameters& p, FlashPlan* plan) {
  Attention& a = plan->attention;
  const auto read = [&](const aclIntArray* list, const char* name, int64_t total,
                        std::vector<int64_t>* to) -> Status {
    int64_t previous = 0;
    for (const int64_t end : *list) {
      if (end < previous || end > total)
        return call.Invalid("{} has {} after {}: expected a rising list up to {}", name, end, previous,
                            total);
      previous = end;
    }
    to->assign(list->begin(), list->end());
    return Status();
  };
  if (p.q_lengths == nullptr || p.k_lengths == nullptr || p.q_lengths->size == 0 ||
      p.q_lengths->size != p.k_lengths->size)
    return call.Invalid("layout TND needs actualSeqQLen and actualSeqKvLen of the same size");
  RETURN_IF_ERROR(read(p.q_lengths, "actualSeqQLen", a.q_len, &plan->q_ends));
  RETURN_IF_ERROR(read(p.k_lengths, "actualSeqKvLen", a.k_len, &plan->k_ends));
  a.batches = static_cast<int64_t>(p.q_lengths->size);
  return Status();
}

// The mask that a sparse mode stands for. Compressed ones (a fixed triangle) are never read.
Status SparseMode(Call& call, const FlashParameters& p, FlashPlan* plan) {
  Attention& a = plan->attention;
  const auto band = [&](bool lower_right, int64_t before, int64_t after) {
    a.banded = true;
    a.from_lower_right = lower_right;
    a.before = std::clamp(before, -kUnbounded, kUnbounded);
    a.after = std::clamp(after, -kUnbounded, kUnbounded);
  };
  switch (p.sparse_mode) {
    case 0:
      plan->has_mask = p.mask != nullptr;
      if (plan->has_mask) band(false, p.before, p.after);
      return Status();
    case 1:
    case 5:
      plan->has_mask = p.mask != nullptr;
      return plan->has_mask ? Status() : call.Invalid("sparseMode {} needs attenMask", p.sparse_mode);
    case 2: return band(false, kUnbounded, 0), Status();
    case 3: return band(true, kUnbounded, 0), Status();
    case 4: return band(true, p.before, p.after), Status();
    case 6:
      if (p.prefix == nullptr || static_cast<int64_t>(p.prefix->size) != a.batches)
        return call.Invalid("sparseMode 6 needs a prefix for each of {} batches", a.batches);
      plan->prefix.assign(p.prefix->begin(), p.prefix->end());
      return band(true, kUnbounded, 0), Status();
    default: return call.Invalid("sparseMode is {}, expected 0 to 6", p.sparse_mode);
  }
}

// The longest of packed sequences, or the length of all.
int64_t Longest(const std::vector<int64_t>& ends, int64_t length) {
  if (ends.empty()) return length;
  int64_t longest = 0, previous = 0;
  for (const int64_t end : ends) {
    longest = std::max(longest, end - previous);
    previous = end;
  }
  return longest;
}

Status CheckBias(Call& call, const FlashParameters& p, FlashPlan* plan) {
  Attention& a = plan->attention;
  if (p.pse_type < 0 || p.pse_type > 3) return call.Invalid("pseType is {}, expected 0 to 3", p.pse_type);
  a.pse_kind = static_cast<PositionBias>(p.pse_type);
  a.q_start = p.q_start != nullptr && p.q_start->size > 0 ? (*p.q_start)[0] : 0;
  a.k_start = p.k_start != nullptr && p.k_start->size > 0 ? (*p.k_start)[0] : 0;
  if (p.pse == nullptr || p.pse->view.numel() == 0) return Status();
  plan->has_pse = true;
  const TensorView& v = p.pse->view;
  if (!IsFloating(v.dtype)) return call.Invalid("pse has type {}, which is not supported", Name(v.dtype));
  if (a.pse_kind >= PositionBias::kSlopes) {
    const bool fits = v.rank <= 2 && v.rank >= 1 && v.dims[v.rank - 1] == a.heads &&
                      (v.rank == 1 || v.dims[0] == a.batches);
    if (!fits)
      return call.Invalid("pse has shape {}, expected [{}] or [{},{}]", ShapeString(v), a.heads, a.batches,
                          a.heads);
    a.pse.dtype = v.dtype;
    a.pse.head = v.strides[v.rank - 1];
    a.pse.batch = v.rank == 2 ? v.strides[0] : 0;
    return Status();
  }
  const int64_t dims[4] = {a.batches, a.heads, Longest(plan->q_ends, a.q_len),
                           Longest(plan->k_ends, a.k_len)};
  if (!BroadcastOverScores(v, dims, !plan->q_ends.empty(), &a.pse))
    return call.Invalid("pse has shape {}, expected one that broadcasts to {}", ShapeString(v),
                        ShapeString(dims, 4));
  return Status();
}

Status CheckMasks(Call& call, const FlashParameters& p, FlashPlan* plan) {
  Attention& a = plan->attention;
  if (plan->has_mask) {
    const TensorView& v = p.mask->view;
    const bool packed = !plan->q_ends.empty();
    const int64_t dims[4] = {a.batches, a.heads, Longest(plan->q_ends, a.q_len),
                             Longest(plan->k_ends, a.k_len)};
    if (SizeOf(v.dtype) != 1)
      return call.Invalid("attenMask has type {}, expected bool or uint8", Name(v.dtype));
    if (!BroadcastOverScores(v, dims, packed, &a.mask))
      return call.Invalid("attenMask has shape {}, expected one that broadcasts to {}", ShapeString(v),
                          ShapeString(dims, 4));
  }
  a.keep = p.keep;
  if (p.keep < 0 || p.keep > 1) return call.Invalid("keepProb is {}, expected 0 to 1", p.keep);
  if (p.drop_mask == nullptr || p.drop_mask->view.numel() == 0) {
    if (p.keep < 1) return call.Invalid("keepProb is {} but dropMask is absent", p.keep);
    return Status();
  }
  if (p.keep == 1) return Status();
  plan->has_drop = true;
  int64_t scores = a.batches * a.heads * a.q_len * a.k_len;
  if (!plan->q_ends.empty()) {
    scores = 0;
    for (size_t i = 0; i < plan->q_ends.size(); ++i)
      scores += (plan->q_ends[i] - (i ? plan->q_ends[i - 1] : 0)) *
                (plan->k_ends[i] - (i ? plan->k_ends[i - 1] : 0)) * a.heads;
  }
  const TensorView& d = p.drop_mask->view;
  if (SizeOf(d.dtype) != 1 || !d.contiguous() || d.numel() * 8 < scores)
    return call.Invalid("dropMask has shape {} {}, expected at least {} contiguous bytes", ShapeString(d),
                        Name(d.dtype), (scores + 7) / 8);
  return Status();
}

// max and sum: [B, N, S, copies] or [T, N, copies], float32.
Status CheckRowValues(Call& call, const aclTensor* t, const char* name, const FlashPlan& plan, HeadView* to) {
  const Attention& a = plan.attention;
  const TensorView& v = t->view;
  const bool packed = !plan.q_ends.empty();
  const int64_t dims[3] = {packed ? a.q_len : a.batches, a.heads, a.q_len};
  const int rank = packed ? 3 : 4;
  if (v.dtype != DType::kFloat || v.rank != rank || !std::equal(dims, dims + rank - 1, v.dims) ||
      v.strides[rank - 1] != 1 || v.dims[rank - 1] < 1)
    return call.Invalid("{} has shape {} {}, expected {} with a last dimension of 8, float32", name,
                        ShapeString(v), Name(v.dtype), ShapeString(dims, rank - 1));
  to->dtype = DType::kFloat;
  to->batch = packed ? 0 : v.strides[0];
  to->head = v.strides[1];
  to->sequence = packed ? v.strides[0] : v.strides[2];
  to->dim = v.dims[rank - 1];
  return Status();
}

Status CheckOutput(Call& call, const FlashParameters& p, Attention* a) {
  const bool turned = p.out_layout != nullptr;  // BNSD to BSND
  const char* layout = turned ? p.out_layout : p.layout;
  TensorView expected = p.query->view;
  if (turned) {
    expected.dims[1] = p.query->view.dims[2];
    expected.dims[2] = p.query->view.dims[1];
  }
  expected.dims[expected.rank - 1] =
      Is(layout, "BSH") || Is(layout, "SBH") ? a->heads * a->value_dim : a->value_dim;
  if (!p.out->view.SameShape(expected))
    return call.Invalid("{} has shape {}, expected {}", p.out_name, ShapeString(p.out->view),
                        ShapeString(expected));
  a->out = HeadsOf(p.out->view, layout, a->heads);
  return Status();
}

// Rows of query and key that go on in other tensors.
Status CheckRope(Call& call, const FlashParameters& p, FlashPlan* plan) {
  if (p.query_rope == nullptr && p.key_rope == nullptr) return Status();
  if (p.query_rope == nullptr || p.key_rope == nullptr)
    return call.Invalid("{} is absent, but {} is given", p.query_rope == nullptr ? "queryRope" : "keyRope",
                        p.query_rope == nullptr ? "keyRope" : "queryRope");
  if (Is(p.layout, "BSH") || Is(p.layout, "SBH"))
    return call.Invalid("inputLayout is {}, but queryRope needs one with heads apart: BSND, BNSD or TND",
                        p.layout);
  const auto join = [&](const aclTensor* t, const char* name, const aclTensor* rope, const char* rope_name,
                        TensorView* to) -> Status {
    RETURN_IF_ERROR(CheckTensor(call, rope, rope_name, p.layout));
    const TensorView &v = t->view, &r = rope->view;
    if (!std::equal(v.dims, v.dims + v.rank - 1, r.dims) || r.dtype != v.dtype)
      return call.Invalid("{} is {} and {} is {}: only the last dimensions may differ", rope_name,
                          Describe(rope), name, Describe(t));
    *to = v;
    to->dims[v.rank - 1] += r.dims[v.rank - 1];
    *to = TensorView::Contiguous(nullptr, v.dtype, to->dims, v.rank);
    return Status();
  };
  RETURN_IF_ERROR(join(p.query, "query", p.query_rope, "queryRope", &plan->joined_q));
  RETURN_IF_ERROR(join(p.key, "key", p.key_rope, "keyRope", &plan->joined_k));
  const int64_t dim = plan->joined_q.dims[plan->joined_q.rank - 1];
  if (plan->joined_k.dims[plan->joined_k.rank - 1] != dim)
    return call.Invalid("queryRope has shape {} and keyRope {}, expected rows of one length",
                        ShapeString(p.query_rope->view), ShapeString(p.key_rope->view));
  plan->attention.dim = dim;
  plan->has_rope = true;
  return Status();
}

Status FillPlan(Call& call, const FlashParameters& p, FlashPlan* plan) {
  Attention& a = plan->attention;
  RETURN_IF_ERROR(CheckSizes(call, p, &a));
  if (Is(p.layout, "TND")) RETURN_IF_ERROR(CheckLengths(call, p, plan));
  a.scale = p.scale;
  RETURN_IF_ERROR(SparseMode(call, p, plan));
  RETURN_IF_ERROR(CheckBias(call, p, plan));
  RETURN_IF_ERROR(CheckMasks(call, p, plan));
  if (p.max != nullptr) RETURN_IF_ERROR(CheckRowValues(call, p.max, "softmaxMax", *plan, &a.max));
  if (p.sum != nullptr) RETURN_IF_ERROR(CheckRowValues(call, p.sum, "softmaxSum", *plan, &a.sum));
  if (p.sink != nullptr) {
    const TensorView& s = p.sink->view;
    if (s.dtype != DType::kFloat || s.numel() != a.heads || !s.contiguous())
      return call.Invalid("sink has shape {} {}, expected [{}] float32", ShapeString(s), Name(s.dtype),
                          a.heads);
    plan->has_sink = true;
  }
  RETURN_IF_ERROR(CheckRope(call, p, plan));
  a.q = HeadsOf(plan->has_rope ? plan->joined_q : p.query->view, p.layout, a.heads);
  a.k = HeadsOf(plan->has_rope ? plan->joined_k : p.key->view, p.layout, a.kv_heads);
  a.v = HeadsOf(p.value->view, p.layout, a.kv_heads);
  RETURN_IF_ERROR(CheckOutput(call, p, &a));
  return Status();
}

}  // namespace

HeadSizes SizesOf(const TensorView& v, const char* layout, int64_t heads) {
  const int64_t* d = v.dims;
  if (Is(layout, "BSH")) return {d[0], d[1], heads, d[2] / heads};
  if (Is(layout, "SBH")) return {d[1], d[0], heads, d[2] / heads};
  if (Is(layout, "BNSD")) return {d[0], d[2], d[1], d[3]};
  if (Is(layout, "NBSD")) return {d[1], d[2], d[0], d[3]};
  if (Is(layout, "BSND")) return {d[0], d[1], d[2], d[3]};
  if (Is(layout, "NTD")) return {1, d[1], d[0], d[2]};
  return {1, d[0], d[1], d[2]};  // TND
}

bool BroadcastOverScores(const TensorView& v, const int64_t (&dims)[4], bool at_least, HeadView* to) {
  if (v.rank > 4) return false;
  int64_t strides[4] = {0, 0, 0, 0};
  for (int i = 0; i < v.rank; ++i) {
    const int d = 4 - v.rank + i;
    const bool fits = v.dims[i] == dims[d] || (at_least && d >= 2 && v.dims[i] >= dims[d]);
    if (!fits && v.dims[i] != 1) return false;
    strides[d] = v.dims[i] == 1 && dims[d] != 1 ? 0 : v.strides[i];
  }
  to->dtype = v.dtype;
  to->batch = strides[0];
  to->head = strides[1];
  to->sequence = strides[2];
  to->dim = strides[3];
  return true;
}

HeadView HeadsOf(const TensorView& v, const char* layout, int64_t heads) {
  HeadView h;
  h.dtype = v.dtype;
  h.dim = v.strides[v.rank - 1];
  if (Is(layout, "BSH") || Is(layout, "SBH")) {
    const bool batch_first = Is(layout, "BSH");
    h.batch = v.strides[batch_first ? 0 : 1];
    h.sequence = v.strides[batch_first ? 1 : 0];
    h.head = v.dims[2] / heads * v.strides[2];
  } else if (v.rank == 3) {  // TND, NTD
    h.sequence = v.strides[Is(layout, "TND") ? 0 : 1];
    h.head = v.strides[Is(layout, "TND") ? 1 : 0];
  } else if (Is(layout, "NBSD")) {
    h.head = v.strides[0];
    h.batch = v.strides[1];
    h.sequence = v.strides[2];
  } else {
    h.batch = v.strides[0];
    h.head = v.strides[Is(layout, "BNSD") ? 1 : 2];
    h.sequence = v.strides[Is(layout, "BNSD") ? 2 : 1];
  }
  return h;
}

TensorView NewJoined(const TensorView& shape, Scratch<char>* memory) {
  *memory = Scratch<char>(shape.nbytes());
  return TensorView::Contiguous(memory->get(), shape.dtype, shape.dims, shape.rank);
}

void Join(const TensorView& plain, const TensorView& rope, const TensorView& joined) {
  const int last = joined.rank - 1;
  CopyCast(joined.Narrow(last, 0, plain.dims[last]), plain);
  CopyCast(joined.Narrow(last, plain.dims[last], rope.dims[last]), rope);
}

void Split(const TensorView& joined, const TensorView& plain, const TensorView& rope) {
  const int last = joined.rank - 1;
  CopyCast(plain, joined.Narrow(last, 0, plain.dims[last]));
  CopyCast(rope, joined.Narrow(last, plain.dims[last], rope.dims[last]));
}

Attention FlashPlan::Bind(const Run& t, JoinedRows* joined) const {
  Attention a = attention;
  a.q.data = t[0].bytes();
  a.k.data = t[1].bytes();
  a.v.data = t[2].bytes();
  a.out.data = t[3].bytes();
  int next = 4;
  if (a.max.dtype == DType::kFloat) a.max.data = t[next++].bytes();
  if (a.sum.dtype == DType::kFloat) a.sum.data = t[next++].bytes();
  if (has_pse) a.pse.data = t[next++].bytes();
  if (has_drop) a.drop = t[next++].ptr<uint8_t>();
  if (has_mask) a.mask.data = t[next++].bytes();
  if (has_sink) a.sink = t[next++].ptr<float>();
  if (has_rope) {
    const TensorView q = NewJoined(joined_q, &joined->q), k = NewJoined(joined_k, &joined->k);
    if (q.data == nullptr || k.data == nullptr) throw std::bad_alloc();
    Join(t[0], t[next], q);
    Join(t[1], t[next + 1], k);
    a.q.data = q.bytes();
    a.k.data = k.bytes();
  }
  if (!q_ends.empty()) a.q_ends = q_ends.data(), a.k_ends = k_ends.data();
  if (!prefix.empty()) a.prefix = prefix.data();
  if (!q_counts.empty()) a.q_counts = q_counts.data();
  if (!k_counts.empty()) a.k_counts = k_counts.data();
  return a;
}

Cost FlashCost(const FlashParameters& p, const FlashPlan& plan) {
  const Attention& a = plan.attention;
  const double scores = static_cast<double>(a.heads * a.q_len) * static_cast<double>(a.k_len) *
                        static_cast<double>(plan.q_ends.empty() ? a.batches : 1);
  return {2 * scores * static_cast<double>(a.dim + a.value_dim),
          static_cast<double>(p.query->view.nbytes() + p.key->view.nbytes() + p.value->view.nbytes() +
                              p.out->view.nbytes())};
}

Status PlanFlash(Call& call, const FlashParameters& p, bool forward, FlashPlan* plan, Arg* args, int* count) {
  if (p.layout == nullptr) return call.Invalid("inputLayout is null");
  bool known = false;
  for (const char* name : {"BSH", "SBH", "BNSD", "BSND", "TND"}) known = known || Is(p.layout, name);
  if (!known) return call.Invalid("inputLayout is {}, expected BSH, SBH, BNSD, BSND or TND", p.layout);
  RETURN_IF_ERROR(CheckTensor(call, p.query, "query", p.layout));
  RETURN_IF_ERROR(CheckTensor(call, p.key, "key", p.layout));
  RETURN_IF_ERROR(CheckTensor(call, p.value, "value", p.layout));
  RETURN_IF_ERROR(CheckTensor(call, p.out, p.out_name, p.layout));
  try {
    RETURN_IF_ERROR(FillPlan(call, p, plan));
  } catch (const std::bad_alloc&) {
    return call.NoMemory();
  }
  const auto result = [&](const aclTensor* t) { return forward ? Out(t) : In(t); };
  int n = 0;
  args[n++] = In(p.query);
  args[n++] = In(p.key);
  args[n++] = In(p.value);
  args[n++] = result(p.out);
  if (p.max != nullptr) args[n++] = result(p.max);
  if (p.sum != nullptr) args[n++] = result(p.sum);
  if (plan->has_pse) args[n++] = In(p.pse);
  if (plan->has_drop) args[n++] = In(p.drop_mask);
  if (plan->has_mask) args[n++] = In(p.mask);
  if (plan->has_sink) args[n++] = In(p.sink);
  if (plan->has_rope) args[n++] = In(p.query_rope), args[n++] = In(p.key_rope);
  *count = n;
  return Status();
}

}  // namespace anycann
