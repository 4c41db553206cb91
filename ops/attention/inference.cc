#include "ops/attention/inference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "ops/attention/cache_rows.h"
#include "ops/attention/flash_parameters.h"

namespace anycann {
namespace {

constexpr int64_t kUnbounded = int64_t{1} << 40;  // tokens

// Operands of a Plan; -1: absent. Lists count from their first.
struct Places {
  int query = -1, key = -1, value = -1, out = -1, pse = -1, mask = -1, sink = -1, table = -1;
  int query_rope = -1, key_rope = -1, key_prefix = -1, value_prefix = -1, log_sums = -1;
  int out_scale = -1, out_offset = -1, key_scale = -1, key_offset = -1, value_scale = -1, value_offset = -1;
};

// How the scales of a cache are laid out.
struct ScaleStrides {
  int64_t batch = 0, head = 0, token = 0, dim = 0;
  bool paged = false;
};

// A kernel's attributes by value.
struct InferencePlan {
  Attention attention;
  Places at;
  std::string layout, out_layout;
  std::vector<int64_t> q_ends, k_ends, q_counts, k_counts;
  int64_t rope = 0, prefix = 0;
  int64_t tensors = 1;                         // of key and of value
  std::vector<HeadView> key, key_rope, value;  // one, or one for each batch
  HeadView key_prefix, value_prefix;
  bool paged = false, nz = false;
  int64_t page = 0, pages = 0, table_row = 0;
  ScaleStrides key_scale, value_scale;

  bool needs_rows() const {
    return paged || tensors > 1 || rope > 0 || prefix > 0 || at.key_scale >= 0 || at.value_scale >= 0;
  }
};

class Planner {
 public:
  Planner(Call& call, const InferenceParameters& p, InferencePlan* plan)
      : call_(call), p_(p), plan_(*plan), a_(plan->attention) {}

  Status Run() {
    RETURN_IF_ERROR(ReadLayout());
    RETURN_IF_ERROR(ReadSizes());
    RETURN_IF_ERROR(ReadQueryLengths());
    RETURN_IF_ERROR(plan_.paged ? ReadPages() : ReadTensors());
    RETURN_IF_ERROR(ReadPrefix());
    RETURN_IF_ERROR(ReadKeyLengths());
    RETURN_IF_ERROR(ReadRope());
    RETURN_IF_ERROR(ReadScales());
    RETURN_IF_ERROR(ReadMask());
    RETURN_IF_ERROR(ReadBias());
    return ReadOutput();
  }
  std::vector<Arg>& operands() { return operands_; }

 private:
  int Add(const Arg& a) {
    operands_.push_back(a);
    return static_cast<int>(operands_.size()) - 1;
  }
  int Input(const aclTensor* t) { return Given(t) != nullptr ? Add(In(t)) : -1; }
  bool packed() const { return plan_.layout == "TND" || plan_.layout == "NTD"; }
  bool flat() const { return plan_.layout == "BSH"; }

  Status ReadLayout() {
    if (p_.layout == nullptr) return call_.Invalid("inputLayout is null");
    const std::string name = p_.layout;
    const size_t cut = name.find('_');
    plan_.layout = name.substr(0, cut);
    plan_.out_layout = cut == std::string::npos ? plan_.layout : name.substr(cut + 1);
    for (const char* known : {"BSH", "BSND", "BNSD", "TND", "NTD", "BNSD_BSND", "BSH_NBSD", "BSND_NBSD",
                              "BNSD_NBSD", "TND_NTD", "NTD_TND", "BSH_BNSD", "BSND_BNSD"})
      if (name == known) return Status();
    return call_.Invalid(
        "inputLayout is {}, expected BSH, BSND, BNSD, TND or NTD, or one of them and the output's, as in "
        "BNSD_BSND",
        name);
  }

  Status RequireFloats(const aclTensor* t, const char* name, bool or_int8) {
    const DType type = t->view.dtype;
    if (type == DType::kFloat || IsReduced(type) || (or_int8 && type == DType::kInt8)) return Status();
    return call_.Invalid("{} has type {}, expected float16, bfloat16{} or float32", name, Name(type),
                         or_int8 ? ", int8" : "");
  }

  Status ReadSizes() {
    const int rank = flat() || packed() ? 3 : 4;
    RETURN_IF_ERROR(call_.RequireRank(p_.query, "query", rank, rank));
    RETURN_IF_ERROR(RequireFloats(p_.query, "query", false));
    if (p_.heads < 1) return call_.Invalid("numHeads is {}, expected 1 or more", p_.heads);
    const TensorView& q = p_.query->view;
    if (flat() && q.dims[2] % p_.heads != 0)
      return call_.Invalid("query has shape {}, which can't be cut into numHeads {}", ShapeString(q),
                           p_.heads);
    const HeadSizes s = SizesOf(q, plan_.layout.c_str(), p_.heads);
    if (s.heads != p_.heads)
      return call_.Invalid("query has shape {} with {} heads, numHeads is {}", ShapeString(q), s.heads,
                           p_.heads);
    if (s.dim < 1) return call_.Invalid("query has shape {} with heads of no numbers", ShapeString(q));
    a_.batches = s.batches;
    a_.heads = s.heads;
    a_.dim = s.dim;
    a_.q_len = s.length;
    a_.kv_heads = p_.kv_heads == 0 ? s.heads : p_.kv_heads;
    if (a_.kv_heads < 1 || a_.heads % a_.kv_heads != 0)
      return call_.Invalid("numKeyValueHeads is {}, expected a divisor of numHeads {}", p_.kv_heads,
                           a_.heads);
    a_.scale = p_.scale;
    a_.q = HeadsOf(q, plan_.layout.c_str(), a_.heads);
    plan_.at.query = Add(In(p_.query));
    plan_.paged = Given(p_.block_table) != nullptr;
    for (const auto& [list, name] : {std::pair{p_.key, "key"}, std::pair{p_.value, "value"}}) {
      if (list.empty()) return call_.Invalid("{} has no tensors", name);
      for (const aclTensor* t : list) {
        if (t == nullptr) return call_.Error(kParamNullptr, "{} holds a null tensor", name);
        RETURN_IF_ERROR(RequireFloats(t, name, true));
        if (t->view.dtype != list[0]->view.dtype)
          return call_.Invalid("{} has types {} and {}, expected one", name, Name(list[0]->view.dtype),
                               Name(t->view.dtype));
      }
    }
    if (p_.key.size() != p_.value.size())
      return call_.Invalid("key has {} tensors, value {}", p_.key.size(), p_.value.size());
    plan_.tensors = static_cast<int64_t>(p_.key.size());
    return Status();
  }

  Status ReadEnds(const aclIntArray* list, const char* name, int64_t total, std::vector<int64_t>* ends) {
    int64_t previous = 0;
    for (const int64_t end : *list) {
      if (end < previous || end > total)
        return call_.Invalid("{} has {} after {}: expected a rising list up to {}", name, end, previous,
                             total);
      previous = end;
    }
    ends->assign(list->begin(), list->end());
    return Status();
  }

  // How many rows of each batch count; a list of one is for all, numbers behind the last batch are left out.
  Status ReadCounts(const aclIntArray* list, const char* name, int64_t most, std::vector<int64_t>* counts) {
    if (list == nullptr || list->size == 0) return Status();
    const int64_t n = static_cast<int64_t>(list->size);
    if (n != 1 && n < a_.batches)
      return call_.Invalid("{} has {} lengths, expected 1 or {}", name, n, a_.batches);
    for (int64_t b = 0; b < a_.batches; ++b) {
      const int64_t length = (*list)[n == 1 ? 0 : b];
      if (length < 0 || length > most)
        return call_.Invalid("{} has length {}, expected 0 to {}", name, length, most);
      counts->push_back(length);
    }
    return Status();
  }

  Status ReadQueryLengths() {
    if (!packed()) return ReadCounts(p_.q_lengths, "actualSeqLengths", a_.q_len, &plan_.q_counts);
    if (p_.q_lengths == nullptr || p_.q_lengths->size == 0)
      return call_.Invalid("actualSeqLengths is absent: layout {} needs the ends of the sequences",
                           plan_.layout);
    a_.batches = static_cast<int64_t>(p_.q_lengths->size);
    return ReadEnds(p_.q_lengths, "actualSeqLengths", a_.q_len, &plan_.q_ends);
  }

  // Pages [pages, heads, rows, dims], [pages, rows, heads, dims], [pages, rows, heads * dims] or FRACTAL_NZ
  // [pages, heads, dims / 16, rows, 16].
  Status ReadPage(const aclTensor* t, const char* name, int64_t* dims, HeadView* view) {
    const TensorView& v = t->view;
    const int64_t n = a_.kv_heads;
    view->dtype = v.dtype;
    int64_t pages = v.dims[0], rows = -1;
    if (v.rank == 5 && v.dims[1] == n && v.dims[4] == 16) {
      rows = v.dims[3];
      *dims = v.dims[2] * 16;
      *view = {nullptr, v.dtype, v.strides[0], v.strides[1], v.strides[3], v.strides[4]};
      plan_.nz = true;
      if (v.strides[4] != 1) rows = -1;
    } else if (v.rank == 4 && v.dims[1] == n && (v.dims[2] == p_.block_size || v.dims[2] != n)) {
      rows = v.dims[2];
      *dims = v.dims[3];
      *view = {nullptr, v.dtype, v.strides[0], v.strides[1], v.strides[2], v.strides[3]};
    } else if (v.rank == 4 && v.dims[2] == n) {
      rows = v.dims[1];
      *dims = v.dims[3];
      *view = {nullptr, v.dtype, v.strides[0], v.strides[2], v.strides[1], v.strides[3]};
    } else if (v.rank == 3 && v.dims[2] % n == 0) {
      rows = v.dims[1];
      *dims = v.dims[2] / n;
      *view = {nullptr, v.dtype, v.strides[0], *dims * v.strides[2], v.strides[1], v.strides[2]};
    }
    if (rows < 1 || *dims < 1 || (p_.block_size != 0 && rows != p_.block_size) ||
        (plan_.page != 0 && rows != plan_.page) || (plan_.pages != 0 && pages != plan_.pages))
      return call_.Invalid(
          "{} has shape {}, expected pages [blocks,{},blockSize,D] or [blocks,blockSize,{}*D] of blockSize "
          "{}",
          name, ShapeString(v), n, n, p_.block_size != 0 ? p_.block_size : plan_.page);
    plan_.page = rows;
    plan_.pages = pages;
    return Status();
  }

  Status ReadPages() {
    const TensorView& table = p_.block_table->view;
    if (table.rank != 2 || table.dtype != DType::kInt32 || table.dims[0] < a_.batches)
      return call_.Invalid("blockTable has shape {} and type {}, expected [{},blocks] of int32",
                           ShapeString(table), Name(table.dtype), a_.batches);
    if (plan_.tensors != 1)
      return call_.Invalid("key has {} tensors, expected one with blockTable", plan_.tensors);
    int64_t dim = 0;
    RETURN_IF_ERROR(ReadPage(p_.key[0], "key", &dim, &plan_.key.emplace_back()));
    RETURN_IF_ERROR(ReadPage(p_.value[0], "value", &a_.value_dim, &plan_.value.emplace_back()));
    if (dim != a_.dim) return call_.Invalid("key has rows of {} numbers, query of {}", dim, a_.dim);
    plan_.table_row = table.dims[1];
    a_.k_len = table.dims[1] * plan_.page;
    plan_.at.key = Add(In(p_.key[0]));
    plan_.at.value = Add(In(p_.value[0]));
    plan_.at.table = Input(p_.block_table);
    return Status();
  }

  Status ReadTensor(const aclTensor* t, const char* name, int64_t* length, int64_t* dim, HeadView* view) {
    const int rank = flat() || packed() ? 3 : 4;
    RETURN_IF_ERROR(call_.RequireRank(t, name, rank, rank));
    const TensorView& v = t->view;
    if (flat() && v.dims[2] % a_.kv_heads != 0)
      return call_.Invalid("{} has shape {}, which can't be cut into numKeyValueHeads {}", name,
                           ShapeString(v), a_.kv_heads);
    const HeadSizes s = SizesOf(v, plan_.layout.c_str(), a_.kv_heads);
    const int64_t batches = plan_.tensors > 1 || packed() ? 1 : a_.batches;
    if (s.heads != a_.kv_heads || s.batches != batches)
      return call_.Invalid("{} has shape {}, expected {} batches of numKeyValueHeads {}", name,
                           ShapeString(v), batches, a_.kv_heads);
    *length = s.length;
    *dim = s.dim;
    *view = HeadsOf(v, plan_.layout.c_str(), a_.kv_heads);
    return Status();
  }

  Status ReadTensors() {
    if (plan_.tensors > 1 && (packed() || plan_.tensors != a_.batches))
      return call_.Invalid("key has {} tensors, expected 1{}", plan_.tensors,
                           packed() ? "" : fmt::format(" or {}, one for each batch", a_.batches));
    std::vector<int64_t> lengths;
    a_.k_len = 0;
    for (int64_t i = 0; i < plan_.tensors; ++i) {
      int64_t k_length = 0, v_length = 0, k_dim = 0, v_dim = 0;
      HeadView k, v;
      RETURN_IF_ERROR(ReadTensor(p_.key[i], "key", &k_length, &k_dim, &k));
      RETURN_IF_ERROR(ReadTensor(p_.value[i], "value", &v_length, &v_dim, &v));
      if (k_length != v_length || k_dim != a_.dim || (i > 0 && v_dim != a_.value_dim))
        return call_.Invalid("query {}, key {} and value {} don't match in layout {}",
                             ShapeString(p_.query->view), ShapeString(p_.key[i]->view),
                             ShapeString(p_.value[i]->view), plan_.layout);
      plan_.key.push_back(k);
      plan_.value.push_back(v);
      a_.value_dim = v_dim;
      a_.k_len = std::max(a_.k_len, k_length);
      lengths.push_back(k_length);
    }
    plan_.at.key = static_cast<int>(operands_.size());
    for (const aclTensor* t : p_.key) Add(In(t));
    plan_.at.value = static_cast<int>(operands_.size());
    for (const aclTensor* t : p_.value) Add(In(t));
    if (plan_.tensors > 1) plan_.k_counts = lengths;
    return Status();
  }

  Status ReadPrefix() {
    const aclTensor *k = Given(p_.key_prefix), *v = Given(p_.value_prefix);
    if ((k == nullptr) != (v == nullptr))
      return call_.Invalid(
          "only one of keySharedPrefix and valueSharedPrefix is given, expected both or none");
    if (k == nullptr) return Status();
    if (packed() || plan_.paged)
      return call_.Invalid("keySharedPrefix is given, which layout {} {}does not support", plan_.layout,
                           plan_.paged ? "with blockTable " : "");
    const int rank = flat() ? 3 : 4;
    int64_t lengths[2];
    HeadView* views[2] = {&plan_.key_prefix, &plan_.value_prefix};
    const int64_t dims[2] = {a_.dim, a_.value_dim};
    for (int i = 0; i < 2; ++i) {
      const aclTensor* t = i == 0 ? k : v;
      const char* name = i == 0 ? "keySharedPrefix" : "valueSharedPrefix";
      RETURN_IF_ERROR(call_.RequireRank(t, name, rank, rank));
      RETURN_IF_ERROR(RequireFloats(t, name, false));
      const bool cuts = !flat() || t->view.dims[2] % a_.kv_heads == 0;
      const HeadSizes s = cuts ? SizesOf(t->view, plan_.layout.c_str(), a_.kv_heads) : HeadSizes{0, 0, 0, 0};
      if (s.batches != 1 || s.heads != a_.kv_heads || s.dim != dims[i])
        return call_.Invalid("{} has shape {}, expected one batch of {} heads of {}", name,
                             ShapeString(t->view), a_.kv_heads, dims[i]);
      lengths[i] = s.length;
      *views[i] = HeadsOf(t->view, plan_.layout.c_str(), a_.kv_heads);
    }
    if (lengths[0] != lengths[1])
      return call_.Invalid("keySharedPrefix has {} rows, valueSharedPrefix {}", lengths[0], lengths[1]);
    plan_.prefix = lengths[0];
    if (p_.prefix_length != nullptr && p_.prefix_length->size > 0) {
      plan_.prefix = (*p_.prefix_length)[0];
      if (plan_.prefix < 0 || plan_.prefix > lengths[0])
        return call_.Invalid("actualSharedPrefixLen is {}, expected 0 to {}", plan_.prefix, lengths[0]);
    }
    plan_.at.key_prefix = Input(k);
    plan_.at.value_prefix = Input(v);
    return Status();
  }

  Status ReadKeyLengths() {
    if (packed() && !plan_.paged) {
      if (p_.k_lengths == nullptr || static_cast<int64_t>(p_.k_lengths->size) != a_.batches)
        return call_.Invalid("actualSeqLengthsKv has {} numbers, expected {}, the ends of the sequences",
                             p_.k_lengths == nullptr ? 0 : p_.k_lengths->size, a_.batches);
      return ReadEnds(p_.k_lengths, "actualSeqLengthsKv", a_.k_len, &plan_.k_ends);
    }
    if (plan_.paged && (p_.k_lengths == nullptr || p_.k_lengths->size == 0))
      return call_.Invalid(
          "actualSeqLengthsKv is absent, expected the lengths of the sequences in blockTable");
    std::vector<int64_t> counts;
    RETURN_IF_ERROR(ReadCounts(p_.k_lengths, "actualSeqLengthsKv", a_.k_len, &counts));
    if (!counts.empty()) {
      for (size_t b = 0; b < plan_.k_counts.size(); ++b)
        if (counts[b] > plan_.k_counts[b])
          return call_.Invalid("actualSeqLengthsKv has length {}, key {} has {}", counts[b], b,
                               plan_.k_counts[b]);
      plan_.k_counts = counts;
    }
    if (plan_.prefix > 0) {
      if (plan_.k_counts.empty()) plan_.k_counts.assign(static_cast<size_t>(a_.batches), a_.k_len);
      for (int64_t& n : plan_.k_counts) n += plan_.prefix;
      a_.k_len += plan_.prefix;
    }
    return Status();
  }

  Status ReadRope() {
    const aclTensor *q = Given(p_.query_rope), *k = Given(p_.key_rope);
    if ((q == nullptr) != (k == nullptr))
      return call_.Invalid("only one of queryRope and keyRope is given, expected both or none");
    if (q == nullptr) return Status();
    if (plan_.prefix > 0 || plan_.tensors > 1)
      return call_.Invalid("queryRope is given with {}, which is not supported",
                           plan_.prefix > 0 ? "a shared prefix" : "a key of several tensors");
    RETURN_IF_ERROR(call_.RequireRank(q, "queryRope", p_.query->view.rank, p_.query->view.rank));
    RETURN_IF_ERROR(RequireFloats(k, "keyRope", false));
    RETURN_IF_ERROR(call_.RequireDType(q, "queryRope", p_.query->view.dtype));
    const bool cuts = !flat() || q->view.dims[2] % a_.heads == 0;
    const HeadSizes s = cuts ? SizesOf(q->view, plan_.layout.c_str(), a_.heads) : HeadSizes{0, 0, 0, 0};
    const bool same = s.batches == (packed() ? 1 : a_.batches) && s.heads == a_.heads && s.length == a_.q_len;
    if (!same || s.dim < 1)
      return call_.Invalid("queryRope has shape {}, expected that of query {} but for the last dimension",
                           ShapeString(q->view), ShapeString(p_.query->view));
    plan_.rope = s.dim;
    int64_t dim = 0, length = 0;
    if (plan_.paged)
      RETURN_IF_ERROR(ReadPage(k, "keyRope", &dim, &plan_.key_rope.emplace_back()));
    else
      RETURN_IF_ERROR(ReadTensor(k, "keyRope", &length, &dim, &plan_.key_rope.emplace_back()));
    if (dim != s.dim || (!plan_.paged && length != a_.k_len))
      return call_.Invalid("keyRope has shape {}, expected {} numbers for each of key's rows",
                           ShapeString(k->view), s.dim);
    plan_.at.query_rope = Input(q);
    plan_.at.key_rope = Input(k);
    return Status();
  }

  // Where the scales of a cache are by its mode.
  Status ScaleOf(const aclTensor* t, const char* name, int64_t mode, int64_t dims, int64_t numel,
                 ScaleStrides* s) {
    if (!IsFloating(t->view.dtype))
      return call_.Invalid("{} has type {}, expected a floating type", name, Name(t->view.dtype));
    const int64_t n = a_.kv_heads;
    const int64_t rows =
        (plan_.k_counts.empty() ? a_.k_len
                                : *std::max_element(plan_.k_counts.begin(), plan_.k_counts.end())) -
        plan_.prefix;
    const int64_t longest = mode == 1 || mode == 3 ? t->view.dims[t->view.rank - 1] : 0;  // may be padded
    int64_t expected = 0;
    switch (mode) {
      case 0:
        if (numel == 1) return Status();
        expected = n * dims;
        *s = {0, dims, 0, 1, false};
        break;
      case 1:
        expected = longest >= rows ? a_.batches * longest : -1;
        *s = {longest, 0, 1, 0, false};
        break;
      case 2:
        expected = n;
        *s = {0, 1, 0, 0, false};
        break;
      case 3:
        expected = longest >= rows ? a_.batches * n * longest : -1;
        *s = {n * longest, longest, 1, 0, false};
        break;
      case 4:
        expected = plan_.pages * plan_.page;
        *s = {plan_.page, 0, 1, 0, true};
        break;
      case 5:
        expected = plan_.pages * n * plan_.page;
        *s = {n * plan_.page, plan_.page, 1, 0, true};
        break;
      default: return call_.Invalid("the mode of {} is {}, expected 0 to 5", name, mode);
    }
    if (s->paged && !plan_.paged)
      return call_.Invalid("the mode of {} is {}, which needs blockTable", name, mode);
    if (numel != expected)
      return call_.Invalid(
          "{} has shape {}, which does not fit mode {} with {} heads of {}, {} batches and {} rows", name,
          ShapeString(t->view), mode, n, dims, a_.batches, rows);
    return Status();
  }

  Status ReadScales() {
    const bool key8 = p_.key[0]->view.dtype == DType::kInt8, value8 = p_.value[0]->view.dtype == DType::kInt8;
    const aclTensor* both = Given(p_.both_scale);
    if (key8 != value8) return call_.Invalid("only one of key and value is int8");
    if (!key8) {
      if (both != nullptr || Given(p_.key_scale) != nullptr || Given(p_.value_scale) != nullptr)
        return call_.Invalid("antiquantScale is given, but key has type {}, expected int8",
                             Name(p_.key[0]->view.dtype));
      return Status();
    }
    const aclTensor* handles[4] = {Given(p_.key_scale), Given(p_.key_offset), Given(p_.value_scale),
                                   Given(p_.value_offset)};
    int64_t key_mode = p_.key_mode, value_mode = p_.value_mode;
    if (both != nullptr) {
      handles[0] = handles[2] = both;
      handles[1] = handles[3] = Given(p_.both_offset);
      key_mode = value_mode = p_.both_mode;
      if (both->view.rank < 1 || both->view.dims[0] != 2)
        return call_.Invalid("antiquantScale has shape {}, expected 2 first: for key and value",
                             ShapeString(both->view));
    }
    if (handles[0] == nullptr || handles[2] == nullptr)
      return call_.Invalid("key is int8 without keyAntiquantScale and valueAntiquantScale");
    for (int i = 1; i < 4; i += 2)
      if (handles[i] != nullptr && handles[i]->view.numel() != handles[i - 1]->view.numel())
        return call_.Invalid("the antiquant offset has shape {}, expected that of the scale, {}",
                             ShapeString(handles[i]->view), ShapeString(handles[i - 1]->view));
    const int64_t parts = both != nullptr ? 2 : 1;
    RETURN_IF_ERROR(ScaleOf(handles[0], "keyAntiquantScale", key_mode, a_.dim,
                            handles[0]->view.numel() / parts, &plan_.key_scale));
    RETURN_IF_ERROR(ScaleOf(handles[2], "valueAntiquantScale", value_mode, a_.value_dim,
                            handles[2]->view.numel() / parts, &plan_.value_scale));
    const auto place = [&](const aclTensor* t, int64_t half) {
      if (t == nullptr) return -1;
      return Add(both != nullptr ? In(t, t->view.Narrow(0, half, 1)) : In(t));
    };
    plan_.at.key_scale = place(handles[0], 0);
    plan_.at.key_offset = place(handles[1], 0);
    plan_.at.value_scale = place(handles[2], 1);
    plan_.at.value_offset = place(handles[3], 1);
    return Status();
  }

  int64_t LongestQuery() const {
    if (plan_.q_ends.empty()) return a_.q_len;
    int64_t longest = 0, previous = 0;
    for (const int64_t end : plan_.q_ends) {
      longest = std::max(longest, end - previous);
      previous = end;
    }
    return longest;
  }

  Status ReadMask() {
    const aclTensor* mask = Given(p_.mask);
    const bool one = LongestQuery() <= 1 && plan_.rope == 0;  // modes and bands don't count then
    const auto band = [&](bool lower_right, int64_t before, int64_t after) {
      if (one) return;
      a_.banded = true;
      a_.from_lower_right = lower_right;
      a_.before = std::clamp(before, -kUnbounded, kUnbounded);
      a_.after = std::clamp(after, -kUnbounded, kUnbounded);
    };
    switch (p_.sparse_mode) {
      case 0:
        if (mask == nullptr) return Status();
        band(false, p_.before, p_.after);
        break;
      case 1:
        if (mask == nullptr) return call_.Invalid("sparseMode 1 needs attenMask");
        break;
      case 2: return band(false, kUnbounded, 0), Status();
      case 3: return band(true, kUnbounded, 0), Status();
      case 4: return band(true, p_.before, p_.after), Status();
      default: return call_.Invalid("sparseMode is {}, expected 0 to 4", p_.sparse_mode);
    }
    TensorView v = mask->view;
    if (SizeOf(v.dtype) != 1)
      return call_.Invalid("attenMask has type {}, expected bool, int8 or uint8", Name(v.dtype));
    const int64_t dims[4] = {a_.batches, a_.heads, LongestQuery(), a_.k_len};
    // [batches, keys] of one query each, [batches, queries, keys].
    const bool rows_are_batches = v.rank == 2 && dims[2] == 1 && v.dims[0] == a_.batches;
    if (rows_are_batches) v = v.Unsqueeze(1);
    if (v.rank == 3) v = v.Unsqueeze(1);
    if (!BroadcastOverScores(v, dims, true, &a_.mask))
      return call_.Invalid("attenMask has shape {}, expected one that broadcasts to {}",
                           ShapeString(mask->view), ShapeString(dims, 4));
    plan_.at.mask = Input(mask);
    return Status();
  }

  Status ReadBias() {
    if (const aclTensor* sink = Given(p_.sink); sink != nullptr) {
      if (sink->view.numel() != a_.heads || !IsFloating(sink->view.dtype))
        return call_.Invalid("learnableSink has shape {} and type {}, expected {} floats",
                             ShapeString(sink->view), Name(sink->view.dtype), a_.heads);
      plan_.at.sink = Input(sink);
    }
    const aclTensor* pse = Given(p_.pse);
    if (pse == nullptr) return Status();
    const TensorView& v = pse->view;
    if (!IsFloating(v.dtype))
      return call_.Invalid("pseShift has type {}, expected a floating type", Name(v.dtype));
    a_.q_start = p_.q_start != nullptr && p_.q_start->size > 0 ? (*p_.q_start)[0] : 0;
    a_.k_start = p_.k_start != nullptr && p_.k_start->size > 0 ? (*p_.k_start)[0] : 0;
    if (p_.pse_type < 0 || p_.pse_type > 3)
      return call_.Invalid("pseType is {}, expected 0 to 3", p_.pse_type);
    a_.pse_kind = static_cast<PositionBias>(p_.pse_type);
    const int64_t dims[4] = {a_.batches, a_.heads, LongestQuery(), a_.k_len};
    if (a_.pse_kind >= PositionBias::kSlopes) {
      if (v.rank != 1 || v.dims[0] != a_.heads)
        return call_.Invalid("pseShift has shape {}, expected [{}] slopes", ShapeString(v), a_.heads);
      a_.pse.dtype = v.dtype;
      a_.pse.head = v.strides[0];
    } else if (!BroadcastOverScores(v, dims, true, &a_.pse)) {
      return call_.Invalid("pseShift has shape {}, expected one that broadcasts to {}", ShapeString(v),
                           ShapeString(dims, 4));
    }
    plan_.at.pse = Input(pse);
    return Status();
  }

  Status ReadOutput() {
    const char* layout = plan_.out_layout.c_str();
    const int rank = plan_.out_layout == "BSH" || packed() ? 3 : 4;
    RETURN_IF_ERROR(call_.RequireRank(p_.out, "attentionOut", rank, rank));
    const TensorView& v = p_.out->view;
    const HeadSizes s = SizesOf(v, layout, a_.heads);
    if (s.batches != (packed() ? 1 : a_.batches) || s.length != a_.q_len || s.heads != a_.heads ||
        s.dim != a_.value_dim || (plan_.out_layout == "BSH" && v.dims[2] != a_.heads * a_.value_dim))
      return call_.Invalid("attentionOut has shape {}, expected {} heads of {} for each query in layout {}",
                           ShapeString(v), a_.heads, a_.value_dim, layout);
    const bool bytes = v.dtype == DType::kInt8;
    if (!bytes) RETURN_IF_ERROR(RequireFloats(p_.out, "attentionOut", false));
    if (bytes != (Given(p_.out_scale) != nullptr))
      return call_.Invalid("attentionOut has type {}: quantScale2 goes with int8, and int8 with it",
                           Name(v.dtype));
    for (const auto& [t, name] :
         {std::pair{Given(p_.out_scale), "quantScale2"}, std::pair{Given(p_.out_offset), "quantOffset2"}})
      if (t != nullptr && ((t->view.numel() != 1 && t->view.numel() != a_.heads * a_.value_dim) ||
                           !IsFloating(t->view.dtype)))
        return call_.Invalid("{} has shape {} and type {}, expected 1 or {} floats", name,
                             ShapeString(t->view), Name(t->view.dtype), a_.heads * a_.value_dim);
    a_.out = HeadsOf(v, layout, a_.heads);
    plan_.at.out = Add(Out(p_.out));
    if (bytes) {
      plan_.at.out_scale = Input(p_.out_scale);
      plan_.at.out_offset = Input(p_.out_offset);
    }
    if (!p_.want_log_sums) return Status();
    const int64_t rows = (packed() ? 1 : a_.batches) * a_.heads * a_.q_len;
    if (p_.log_sums == nullptr || p_.log_sums->view.numel() != rows)
      return call_.Invalid("softmaxLse has shape {}, expected {} elements, one for each head and query",
                           p_.log_sums == nullptr ? "null" : ShapeString(p_.log_sums->view), rows);
    RETURN_IF_ERROR(call_.RequireDType(p_.log_sums, "softmaxLse", DType::kFloat));
    plan_.at.log_sums = rows > 0 ? Add(Out(p_.log_sums)) : -1;
    return Status();
  }

  Call& call_;
  const InferenceParameters& p_;
  InferencePlan& plan_;
  Attention& a_;
  std::vector<Arg> operands_;
};

// The rows' maxima and sums [batch, head, sequence] (of packed sequences [sequence, head]), dense.
HeadView RowValues(const Attention& a, float* p) {
  HeadView v;
  v.data = reinterpret_cast<char*>(p);
  v.dtype = DType::kFloat;
  v.batch = a.q_ends == nullptr ? a.heads * a.q_len : 0;
  v.head = a.q_ends == nullptr ? a.q_len : 1;
  v.sequence = a.q_ends == nullptr ? 1 : a.heads;
  return v;
}

// What a run needs beside the operands; `attention` points into it.
class InferenceRun {
 public:
  InferenceRun(const Run& t, const InferencePlan& plan) : t_(t), plan_(plan), a_(plan.attention) {}

  Status Compute() {
    RETURN_IF_ERROR(Bind());
    const Places& at = plan_.at;
    if (plan_.needs_rows()) RETURN_IF_ERROR(BindRows());
    if (plan_.rope > 0) RETURN_IF_ERROR(JoinQuery());
    Scratch<float> floats(at.out_scale >= 0 ? t_[at.out].numel() : 0);
    const TensorView& out = t_[at.out];
    const TensorView wide = TensorView::Contiguous(floats.get(), DType::kFloat, out.dims, out.rank);
    if (at.out_scale >= 0) {
      if (!floats.ok()) return ScratchFailed(t_.plan().name);
      std::fill_n(floats.get(), wide.numel(), 0.0f);
      a_.out = HeadsOf(wide, plan_.out_layout.c_str(), a_.heads);
      a_.out.data = wide.bytes();
    } else if (a_.q_counts != nullptr || !plan_.q_ends.empty()) {
      const char zero[16] = {};
      Fill(out, zero);  // rows that don't count
    }
    const int64_t rows = at.log_sums >= 0 ? t_[at.log_sums].numel() : 0;
    const Scratch<float> max(rows), sum(rows);
    if (!max.ok() || !sum.ok()) return ScratchFailed(t_.plan().name);
    if (rows > 0) {
      std::fill_n(sum.get(), rows, 0.0f);
      a_.max = RowValues(a_, max.get());
      a_.sum = RowValues(a_, sum.get());
    }
    RETURN_IF_ERROR(AttentionForward(a_));
    if (rows > 0) {  // infinity where a query sees nothing
      for (int64_t i = 0; i < rows; ++i)
        max[i] = sum[i] > 0 ? max[i] + std::log(sum[i]) : std::numeric_limits<float>::infinity();
      StoreValues(t_[at.log_sums], max.get());
    }
    return at.out_scale >= 0 ? Quantise(wide) : Status();
  }

 private:
  Status Bind() {
    const Places& at = plan_.at;
    a_.q.data = t_[at.query].bytes();
    a_.out.data = t_[at.out].bytes();
    if (!plan_.needs_rows()) {
      a_.k = plan_.key[0];
      a_.v = plan_.value[0];
      a_.k.data = t_[at.key].bytes();
      a_.v.data = t_[at.value].bytes();
    }
    if (at.mask >= 0) a_.mask.data = t_[at.mask].bytes();
    if (at.pse >= 0) a_.pse.data = t_[at.pse].bytes();
    if (at.sink >= 0) {
      sink_ = Values<float>(t_[at.sink]);
      if (!sink_.ok()) return ScratchFailed(t_.plan().name);
      a_.sink = sink_.get();
    }
    if (!plan_.q_ends.empty()) a_.q_ends = plan_.q_ends.data();
    if (!plan_.k_ends.empty()) a_.k_ends = plan_.k_ends.data();
    if (!plan_.q_counts.empty()) a_.q_counts = plan_.q_counts.data();
    if (!plan_.k_counts.empty()) a_.k_counts = plan_.k_counts.data();
    return Status();
  }

  void BindPart(CachePart* part, const std::vector<HeadView>& views, int place, int64_t dims) {
    part->views = views;
    part->dims = dims;
    for (size_t i = 0; i < views.size(); ++i) part->views[i].data = t_[place + static_cast<int>(i)].bytes();
    part->nz = plan_.nz && t_[place].rank == 5;
    if (part->nz) part->piece = t_[place].strides[2];
  }

  Status BindScales(int place, const ScaleStrides& s, RowScales* scales, const RowScales** to) {
    if (place < 0) return Status();
    *scales = {Values<float>(t_[place]), s.batch, s.head, s.token, s.dim, s.paged};
    *to = scales;
    return scales->values.ok() ? Status() : ScratchFailed(t_.plan().name);
  }

  Status BindRows() {
    const Places& at = plan_.at;
    BindPart(&rows_.key, plan_.key, at.key, plan_.attention.dim);
    BindPart(&rows_.value, plan_.value, at.value, plan_.attention.value_dim);
    if (plan_.rope > 0) BindPart(&rows_.rope, plan_.key_rope, at.key_rope, plan_.rope);
    RETURN_IF_ERROR(BindScales(at.key_scale, plan_.key_scale, &scales_[0], &rows_.key.scale));
    RETURN_IF_ERROR(BindScales(at.key_offset, plan_.key_scale, &scales_[1], &rows_.key.offset));
    RETURN_IF_ERROR(BindScales(at.value_scale, plan_.value_scale, &scales_[2], &rows_.value.scale));
    RETURN_IF_ERROR(BindScales(at.value_offset, plan_.value_scale, &scales_[3], &rows_.value.offset));
    if (plan_.prefix > 0) {
      rows_.prefix = plan_.prefix;
      rows_.key.prefix = plan_.key_prefix;
      rows_.key.prefix.data = t_[at.key_prefix].bytes();
      rows_.value.prefix = plan_.value_prefix;
      rows_.value.prefix.data = t_[at.value_prefix].bytes();
    }
    a_.rows = &rows_;
    if (!plan_.k_ends.empty()) return PackedRows();
    return plan_.paged ? BindTable() : Status();
  }

  // Packed keys whose rows are made: each batch begins where the one before it ended.
  Status PackedRows() {
    for (CachePart* part : {&rows_.key, &rows_.rope, &rows_.value}) {
      if (part->views.empty()) continue;
      HeadView view = part->views[0];
      view.batch = 0;
      part->views.clear();
      for (int64_t b = 0; b < a_.batches; ++b) {
        part->views.push_back(view);
        part->views.back().data = view.At(0, 0, b > 0 ? plan_.k_ends[b - 1] : 0);
      }
    }
    for (int64_t b = 0; b < a_.batches; ++b)
      counts_.push_back(plan_.k_ends[b] - (b > 0 ? plan_.k_ends[b - 1] : 0));
    a_.k_ends = nullptr;
    a_.k_counts = counts_.data();
    return Status();
  }

  Status BindTable() {
    table_ = Values<int32_t>(t_[plan_.at.table]);
    if (!table_.ok()) return ScratchFailed(t_.plan().name);
    for (int64_t b = 0; b < a_.batches; ++b)
      for (int64_t i = 0; i * plan_.page < plan_.k_counts[b]; ++i) {
        const int32_t block = table_[b * plan_.table_row + i];
        if (block < 0 || block >= plan_.pages)
          return Error(kParamInvalid, "{}: blockTable has block {} at [{},{}], the cache has {}",
                       t_.plan().name, block, b, i, plan_.pages);
      }
    rows_.table = table_.get();
    rows_.table_row = plan_.table_row;
    rows_.page = plan_.page;
    return Status();
  }

  // Each query behind its rotated part's end: one row of both.
  Status JoinQuery() {
    const int64_t dim = plan_.attention.dim, whole = dim + plan_.rope, n = a_.heads, length = a_.q_len;
    const int64_t batches = a_.q_ends != nullptr ? 1 : a_.batches, size = SizeOf(a_.q.dtype);
    query_ = Scratch<char>(batches * n * length * whole * size);
    if (!query_.ok()) return ScratchFailed(t_.plan().name);
    HeadView rope = HeadsOf(t_[plan_.at.query_rope], plan_.layout.c_str(), n);
    rope.data = t_[plan_.at.query_rope].bytes();
    const HeadView from = a_.q;
    a_.q = {query_.get(), from.dtype, n * length * whole, length * whole, whole, 1};
    if (a_.q_ends != nullptr) a_.q.batch = 0;
    const auto copy = [size](char* to, const char* p, int64_t stride, int64_t count) {
      for (int64_t d = 0; d < count; ++d) std::memcpy(to + d * size, p + d * stride * size, size);
    };
    ParallelFor(batches * n * length, std::max<int64_t>(1, 16384 / whole), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / (n * length), head = i / length % n, s = i % length;
        char* to = a_.q.At(b, head, s);
        copy(to, from.At(b, head, s), from.dim, dim);
        copy(to + dim * size, rope.At(b, head, s), rope.dim, plan_.rope);
      }
    });
    a_.dim = whole;
    return Status();
  }

  Status Quantise(const TensorView& wide) {
    const Values<float> scale(t_[plan_.at.out_scale]);
    const Values<float> offset(t_, plan_.at.out_offset);
    if (!scale.ok() || !offset.ok()) return ScratchFailed(t_.plan().name);
    const bool each = t_[plan_.at.out_scale].numel() > 1;
    const bool each_offset = plan_.at.out_offset >= 0 && t_[plan_.at.out_offset].numel() > 1;
    const int64_t batches = a_.q_ends != nullptr ? 1 : a_.batches;
    for (int64_t b = 0; b < batches; ++b)
      for (int64_t n = 0; n < a_.heads; ++n)
        for (int64_t s = 0; s < a_.q_len; ++s) {
          float* row = reinterpret_cast<float*>(a_.out.At(b, n, s));
          for (int64_t d = 0; d < a_.value_dim; ++d) {
            const int64_t i = n * a_.value_dim + d;
            const float shift = offset.get() != nullptr ? offset[each_offset ? i : 0] : 0.0f;
            float& v = row[d * a_.out.dim];
            v = std::clamp(std::nearbyint(v * scale[each ? i : 0] + shift), -128.0f, 127.0f);
          }
        }
    CopyCast(t_[plan_.at.out], wide);
    return Status();
  }

  const Run& t_;
  const InferencePlan& plan_;
  Attention a_;
  CacheRows rows_;
  RowScales scales_[4];
  Values<int32_t> table_;
  Values<float> sink_;
  Scratch<char> query_;
  std::vector<int64_t> counts_;
};

}  // namespace

Status RefuseTensors(Call& call, std::span<const NamedTensor> tensors, const char* why) {
  for (const auto& [t, name] : tensors)
    if (Given(t) != nullptr) return call.Invalid("{} is given: {}", name, why);
  return Status();
}

Status LaunchInference(Call& call, const InferenceParameters& p) {
  InferencePlan plan;
  Planner planner(call, p, &plan);
  RETURN_IF_ERROR(planner.Run());
  if (p.out->view.empty()) return call.Nothing();
  const Attention& a = plan.attention;
  double keys = 0, bytes = 0;
  for (int64_t b = 0; b < a.batches; ++b)
    keys += static_cast<double>(!plan.k_counts.empty() ? plan.k_counts[b] : a.k_len);
  const double queries =
      static_cast<double>(a.q_len * a.heads) / (plan.q_ends.empty() ? 1.0 : static_cast<double>(a.batches));
  for (const Arg& arg : planner.operands()) bytes += static_cast<double>(arg.view.nbytes());
  const Cost cost{2 * queries * keys * static_cast<double>(a.dim + plan.rope + a.value_dim), bytes};
  return call.Launch(planner.operands(), cost, [plan = std::move(plan)](const Run& t) -> Status {
    return InferenceRun(t, plan).Compute();
  });
}

}  // namespace anycann
