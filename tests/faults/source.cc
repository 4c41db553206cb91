// How a Source draws the arguments of one call, and how a refusal teaches it what fits.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "tests/faults/fuzz.h"

namespace fuzz {
namespace {

constexpr aclDataType kTypes[] = {ACL_FLOAT,  ACL_FLOAT16, ACL_BF16,   ACL_DOUBLE,    ACL_INT64,
                                  ACL_INT32,  ACL_INT16,   ACL_INT8,   ACL_UINT8,     ACL_BOOL,
                                  ACL_UINT64, ACL_UINT32,  ACL_UINT16, ACL_COMPLEX64, ACL_COMPLEX128};
// Those that the sanitizer build has loops for.
constexpr aclDataType kBuiltTypes[] = {ACL_FLOAT, ACL_FLOAT, ACL_INT64, ACL_BOOL, ACL_UINT8};
constexpr int64_t kOddIntegers[] = {INT64_MAX,  INT64_MIN, INT32_MAX, INT32_MIN,
                                    1000000007, -100,      64,        1 << 20};
constexpr double kReals[] = {0, 1, -1, 2, 0.5, 0.1, 1e-5, 3, -2.5, 1e30, -1e300, 0.999, 100};
constexpr const char* kStrings[] = {"none",  "sum",      "mean",     "BSND",      "BNSD",  "BSH",
                                    "SBH",   "TND",      "",         "round",     "floor", "trunc",
                                    "tanh",  "update",   "constant", "reflect",   "add",   "half",
                                    "split", "bilinear", "MULTIPLY", "BNSD_BSND", "edge",  "rint"};

constexpr std::pair<aclDataType, const char*> kTypeNames[] = {
    {ACL_FLOAT, "float32"}, {ACL_INT64, "int64"}, {ACL_INT32, "int32"},   {ACL_UINT8, "uint8"},
    {ACL_INT8, "int8"},     {ACL_BOOL, "bool"},   {ACL_FLOAT, "a float"}, {ACL_INT64, "an integer"}};

int64_t SizeOfType(aclDataType t) { return static_cast<int64_t>(aclDataTypeSize(t)); }

std::string Text(const std::vector<int64_t>& v) {
  std::string s = "[";
  for (int64_t x : v) s += (s.size() > 1 ? "," : "") + std::to_string(x);
  return s + "]";
}

}  // namespace

uint64_t SeedOf(const char* op, uint64_t seed, uint64_t number) {
  uint64_t h = 1469598103934665603u ^ seed;
  for (const char* p = op; *p != 0; ++p) h = (h ^ static_cast<unsigned char>(*p)) * 1099511628211u;
  return (h ^ number) * 0x9e3779b97f4a7c15u;
}

namespace {

// The integers of a text, in order.
std::vector<int64_t> Integers(std::string_view text) {
  std::vector<int64_t> all;
  for (size_t i = 0; i < text.size();) {
    const bool sign = text[i] == '-' && i + 1 < text.size();
    const size_t digit = i + (sign ? 1 : 0);
    const bool starts = i == 0 || std::isalnum(static_cast<unsigned char>(text[i - 1])) == 0;
    if (!starts || std::isdigit(static_cast<unsigned char>(text[digit])) == 0) {
      ++i;
      continue;
    }
    int64_t value = 0;
    size_t end = digit;
    for (; end < text.size() && std::isdigit(static_cast<unsigned char>(text[end])) != 0 && end < digit + 18;
         ++end)
      value = value * 10 + (text[end] - '0');
    all.push_back(sign ? -value : value);
    i = end;
  }
  return all;
}

bool Has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }
bool Starts(std::string_view text, std::string_view part) { return text.substr(0, part.size()) == part; }

// "[2,3]" at the start of a text, or after "expected that of NAME, ".
std::optional<std::vector<int64_t>> ShapeIn(std::string_view expected) {
  if (Starts(expected, "one element")) return std::vector<int64_t>{1};
  if (Starts(expected, "that of")) {
    const size_t comma = expected.find(", [");
    if (comma == std::string_view::npos) return std::nullopt;
    expected.remove_prefix(comma + 2);
  }
  const size_t end = expected.find(']');
  if (!Starts(expected, "[") || end == std::string_view::npos) return std::nullopt;
  const std::string_view inside = expected.substr(1, end - 1);
  std::vector<int64_t> shape = Integers(inside);
  if (shape.size() > 8 || (shape.empty() && !inside.empty())) return std::nullopt;
  int64_t elements = 1;
  for (int64_t d : shape) {
    if (d < 0 || d > 4096 || elements * d > 1 << 16) return std::nullopt;  // too large to try
    elements *= std::max<int64_t>(d, 1);
  }
  return shape;
}

// `"none", "mean" or "sum"`, `half, interleave or quarter`, `BSH, SBH or TND`.
std::vector<std::string> Words(std::string_view expected) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : std::string(expected) + " ") {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_') {
      word += c;
      continue;
    }
    if (!word.empty() && word != "or") words.push_back(word);
    word.clear();
    if (c == ':' || c == '(') break;
  }
  return words;
}

// Small ranges as they are, of open or large ones the beginning.
void SetRange(std::string_view expected, int64_t* least, int64_t* most) {
  const std::vector<int64_t> numbers = Integers(expected);
  if (numbers.empty()) return;
  *least = numbers.front(), *most = numbers.front() + 3;
  if (!Has(expected, "at least") && numbers.size() > 1)
    *most = std::min(*std::max_element(numbers.begin(), numbers.end()), *least + 8);
  if (numbers.size() == 1 && !Has(expected, "at least")) *most = *least;
}

void LearnType(std::string_view rest, std::string_view expected, Repair* r) {
  if (Has(rest, "not supported")) r->type = ACL_FLOAT;
  for (const auto& [type, text] : kTypeNames) {
    if (!Starts(expected, text)) continue;
    r->type = type;
    return;
  }
}

void LearnShape(std::string_view rest, std::string_view expected, Repair* r) {
  if (std::optional<std::vector<int64_t>> shape = ShapeIn(expected)) {
    r->shape = shape;
  } else if (Has(rest, "dimensions, expected") || Has(rest, "dimensions (") || Has(expected, "dimensions")) {
    SetRange(expected, &r->least_rank, &r->most_rank);
  } else if (Has(rest, " elements, expected ") || Has(expected, " elements")) {
    const std::vector<int64_t> numbers = Integers(expected);
    if (numbers.empty() || numbers[0] < 0 || numbers[0] > 4096) return;
    r->shape = {numbers[0]};
    if (r->least_rank == 2) r->shape->push_back(1);
  } else if (Has(rest, " values, expected ") || Has(rest, " tensors, expected ") ||
             Has(rest, " tensors: one is supported") || Has(rest, " members, expected ")) {
    SetRange(expected, &r->least_count, &r->most_count);
    const std::vector<int64_t> numbers = Integers(expected);  // "2 for each of 5" or "one for each of 5"
    if (Has(expected, " for each of ") && numbers.size() > 1) r->least_count *= numbers[1];
    if (Has(expected, " for each of "))
      r->least_count = r->most_count = std::min<int64_t>(32, r->least_count);
    if (expected.empty()) r->least_count = r->most_count = 1;
    if (numbers.empty() && Has(expected, " and ")) r->least_count = r->most_count = 2;
  }
}

}  // namespace

bool Repairs::Learn(const std::string& sentence) {
  // "EZ1001: aclnnAdd: self has .."
  size_t at = sentence.find(": ");
  at = at == std::string::npos ? at : sentence.find(": ", at + 2);
  if (at == std::string::npos) return false;
  std::string_view rest = std::string_view(sentence).substr(at + 2);
  const size_t space = rest.find(' '), comma = rest.find("expected ");
  if (space == std::string_view::npos) return false;
  std::string_view name = rest.substr(0, space);
  rest.remove_prefix(space);
  const std::string_view expected =
      comma == std::string_view::npos ? "" : std::string_view(sentence).substr(at + 2 + comma + 9);
  if (name == "the" || name == "The") {  // of which argument it speaks, only people can tell
    name = "";
    if (Has(rest, " has type ")) rest.remove_prefix(rest.find(" has type "));
  }
  if (name == "type") of[""].type = ACL_FLOAT;
  // "query [..] has 4 heads, headNum is 2": headNum is to be 4.
  const size_t has = rest.find("] has "), other = rest.rfind(", ");
  if (Starts(rest, " [") && has != std::string_view::npos && other != std::string_view::npos && other > has) {
    const std::vector<int64_t> count = Integers(rest.substr(has + 2, other - has - 2));
    const std::string_view tail = rest.substr(other + 2);
    const size_t is = tail.find(" is ");
    if (count.size() == 1 && is != std::string_view::npos) {
      Repair& r = of[std::string(tail.substr(0, is))];
      if (r.least == count[0] && r.most == count[0]) return false;
      r.least = r.most = count[0];
      return true;
    }
  }
  std::string key(name);
  // An array's value: the array's. A list's tensor: its own.
  if (!name.empty() && name.back() == ']' && Starts(rest, " is ") && !Has(rest, "null"))
    key.resize(key.find('['));
  Repair r = of[key];
  const Repair before = r;
  if (Starts(rest, " is null") || Starts(rest, " (0x")) {
    r.present = true;
  } else if (Has(rest, " is given") || Starts(rest, " is not supported") || Has(expected, "null")) {
    r.present = false;
  } else if (Starts(rest, " has type ")) {
    LearnType(rest, expected, &r);
  } else if (Starts(rest, " has ")) {
    LearnShape(rest, expected, &r);
  } else if (Starts(rest, " is ") && (Starts(expected, "[") || Has(expected, "the shape of"))) {
    r.shape = ShapeIn(expected.substr(std::min(expected.find('['), expected.size())));  // an array's values
  } else if (Starts(rest, " is ") && !expected.empty()) {
    r.words = Words(expected);
    SetRange(expected, &r.least, &r.most);
  }
  if (r == before) {
    // Nothing that is understood: every tensor alike, with elements, is right more often than not.
    Repair& all = of[""];
    if (!Has(sentence, "has ") && !Has(sentence, "match") && !Has(sentence, "have ") && name != "type")
      return false;
    return !std::exchange(all.present, true).has_value();
  }
  of[key] = r;
  return true;
}

Source::Source(uint64_t seed, const Repairs& repairs, bool describe)
    : seed_(seed), random_{seed}, repairs_(repairs), describe_(describe) {
  const int64_t rank = static_cast<int64_t>(Below(5));
  for (int64_t i = 0; i < rank; ++i) base_.push_back(Once(20) ? 0 : static_cast<int64_t>(1 + Below(5)));
  if (Once(20)) base_ = {static_cast<int64_t>(100 + Below(400))};
  type_ = Once(2) ? ACL_FLOAT : Of(kBuiltTypes);
}

Source::~Source() {
  for (auto* t : tensors_) aclDestroyTensor(t);
  for (auto* t : tensor_lists_) aclDestroyTensorList(t);
  for (auto* t : scalars_) aclDestroyScalar(t);
  for (auto* t : scalar_lists_) aclDestroyScalarList(t);
  for (auto* t : int_arrays_) aclDestroyIntArray(t);
  for (auto* t : float_arrays_) aclDestroyFloatArray(t);
  for (auto* t : bool_arrays_) aclDestroyBoolArray(t);
  for (const Block& b : memory_) std::free(b.data);
}

std::string Source::Contents() const {
  std::string all;
  for (const Block& b : memory_) all.append(static_cast<const char*>(b.data), b.bytes);
  return all;
}

void Source::Say(const char* name, const std::string& value) const {
  if (describe_) std::printf("  %s = %s\n", name, value.c_str());
}

void Source::Begin(const char* name) {
  random_.state = seed_ + 0xd1342543de82ef95u * ++arguments_;
  auto found = repairs_.of.find(std::string_view(name));
  // Sentences leave these endings out, or say gradOutput of gradOut.
  if (found == repairs_.of.end()) found = repairs_.of.find(std::string(name) + "put");
  for (const std::string_view ending : {"Optional", "Out", "In", "Ref"}) {
    const std::string_view whole = name;
    if (found == repairs_.of.end() && whole.size() > ending.size() && whole.ends_with(ending))
      found = repairs_.of.find(whole.substr(0, whole.size() - ending.size()));
  }
  static const Repair none;
  repair_ = found == repairs_.of.end() ? &none : &found->second;
}

bool Source::Null(const char* name, uint64_t in) {
  const bool drawn = Once(in);
  if (!repair_->present.value_or(!drawn)) return Say(name, "null"), true;
  return false;
}

void Source::Repaired(std::vector<int64_t>* shape, aclDataType* type, const Repair& r) {
  if (r.most_rank >= 0) {
    shape->resize(static_cast<size_t>(std::clamp<int64_t>(static_cast<int64_t>(shape->size()), r.least_rank,
                                                          std::min<int64_t>(8, r.most_rank))),
                  static_cast<int64_t>(1 + Below(4)));
    for (int64_t& d : *shape) d = std::max<int64_t>(d, 1);
  }
  if (r.shape) *shape = *r.shape;
  if (r.type) *type = *r.type;
}

std::vector<int64_t> Source::Shape() {
  std::vector<int64_t> shape = base_;
  if (const auto all = repairs_.of.find(""); all != repairs_.of.end() && all->second.present) {
    for (int64_t& d : shape) d = std::max<int64_t>(d, 1);
    return shape;
  }
  switch (Below(12)) {
    case 0: {  // any
      shape.assign(Below(6), 0);
      for (int64_t& d : shape) d = static_cast<int64_t>(Below(5));
      break;
    }
    case 1:  // one of the sizes
      shape = {base_.empty() ? 1 : base_[Below(base_.size())]};
      break;
    case 2:  // broadcasts
      for (int64_t& d : shape)
        if (Once(2)) d = 1;
      break;
    case 3:  // fewer dimensions
      if (!shape.empty()) shape.erase(Once(2) ? shape.begin() : shape.end() - 1);
      break;
    case 4: shape.push_back(static_cast<int64_t>(1 + Below(4))); break;
    case 5: std::reverse(shape.begin(), shape.end()); break;
    case 6:
      if (!shape.empty()) shape[Below(shape.size())] = static_cast<int64_t>(Below(6));
      break;
    default: break;
  }
  if (shape.size() > 8) shape.resize(8);
  return shape;
}

aclDataType Source::Type(const std::string& name) {
  const bool position =
      name.find("nd") != std::string::npos || name.find("dx") != std::string::npos;  // index, indices
  if (position && !Once(4)) return Once(4) ? ACL_INT32 : ACL_INT64;
  if (name.find("ask") != std::string::npos && !Once(4)) return ACL_BOOL;
  return !Once(5) ? type_ : Once(2) ? Of(kBuiltTypes) : Of(kTypes);
}

// Small values; of floating types a few that are special. As bytes: any type's rounding is left out of it.
void Source::Fill(unsigned char* p, int64_t bytes, aclDataType type) {
  const int64_t size = SizeOfType(type);
  for (int64_t i = 0; i + size <= bytes; i += size) {
    const int64_t small = static_cast<int64_t>(Below(9)) - 2;
    switch (type) {
      case ACL_FLOAT: {
        const float f = Once(30) ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(small) * 0.5f;
        std::memcpy(p + i, &f, 4);
        break;
      }
      case ACL_DOUBLE: {
        const double d = static_cast<double>(small) * 0.5;
        std::memcpy(p + i, &d, 8);
        break;
      }
      case ACL_BOOL: p[i] = static_cast<unsigned char>(small & 1); break;
      default: {
        const int64_t value = Once(50) ? Of(kOddIntegers) : small;
        for (int64_t b = 0; b < size; ++b)
          p[i + b] = static_cast<unsigned char>(value >> (8 * std::min<int64_t>(b, 7)));
      }
    }
  }
}

aclTensor* Source::Tensor(const char* name, bool output) {
  if (Null(name, 60)) return nullptr;
  const bool sound = repair_->present.has_value();
  if (Once(200) && !sound) return Say(name, "a foreign address"), reinterpret_cast<aclTensor*>(&base_);
  if (Once(12) && !tensors_.empty() && !sound) {
    aclTensor* again = tensors_[Below(tensors_.size())];
    return Say(name, "an earlier tensor"), again;
  }
  std::vector<int64_t> shape = Shape();
  aclDataType type = Type(name);
  if (const auto all = repairs_.of.find(""); all != repairs_.of.end() && all->second.type)
    type = *all->second.type;
  Repaired(&shape, &type, *repair_);
  aclTensor* t = NewTensor(name, output, shape, type);
  if (t == nullptr) return t;
  if (Once(300) && !sound) {
    aclDestroyTensor(t);
    return Say(name, "destroyed"), t;
  }
  tensors_.push_back(t);
  return t;
}

aclTensor* Source::Member(const char* name, bool output, uint64_t index) {
  std::vector<int64_t> shape = Shape();
  aclDataType type = Type(name);
  Repaired(&shape, &type, *repair_);
  const auto own = repairs_.of.find(name + ("[" + std::to_string(index) + "]"));
  if (own != repairs_.of.end()) Repaired(&shape, &type, own->second);
  return NewTensor(name, output, shape, type);
}

aclTensor* Source::NewTensor(const char* name, bool output, const std::vector<int64_t>& shape,
                             aclDataType type) {
  // Strides: a row-major order of some permutation, gaps, an offset; inputs may repeat along a dimension.
  std::vector<size_t> order(shape.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  if (Once(3)) std::shuffle(order.begin(), order.end(), random_);
  std::vector<int64_t> strides(shape.size());
  int64_t step = Once(5) ? static_cast<int64_t>(2 + Below(2)) : 1, last = 0;
  for (size_t i = order.size(); i-- > 0;) {
    const size_t d = order[i];
    strides[d] = !output && Once(15) ? 0 : step;
    step *= std::max<int64_t>(1, shape[d]) + (Once(10) ? 1 : 0);
    last += strides[d] * std::max<int64_t>(0, shape[d] - 1);
  }
  const int64_t offset = Once(4) ? static_cast<int64_t>(Below(5)) : 0;
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  const int64_t storage = empty ? 0 : offset + last + 1, bytes = storage * SizeOfType(type);
  unsigned char* p = static_cast<unsigned char*>(std::malloc(static_cast<size_t>(bytes)));
  memory_.push_back({p, static_cast<size_t>(bytes)});
  empty_ |= empty;
  if (bytes > 0) Fill(p, bytes, type);
  const int64_t storage_dims[] = {storage};
  const aclFormat format = Once(3) ? (shape.size() == 4 ? ACL_FORMAT_NCHW : ACL_FORMAT_ND) : ACL_FORMAT_ND;
  aclTensor* t = aclCreateTensor(shape.data(), shape.size(), type, strides.data(), empty ? 0 : offset, format,
                                 storage_dims, 1, p);
  Say(name, "type " + std::to_string(type) + " " + Text(shape) + " strides " + Text(strides) + " offset " +
                std::to_string(offset));
  return t;
}

aclScalar* Source::Scalar(const char* name) {
  if (Null(name, 40)) return nullptr;
  const aclDataType type = Once(2) ? ACL_FLOAT : Of(kTypes);
  unsigned char value[16] = {};
  if (type == ACL_FLOAT) {
    const float f = static_cast<float>(Real());
    std::memcpy(value, &f, 4);
  } else {
    Fill(value, SizeOfType(type), type);
  }
  aclScalar* s = aclCreateScalar(value, type);
  Say(name, "scalar of type " + std::to_string(type));
  if (s != nullptr) scalars_.push_back(s);
  return s;
}

aclTensorList* Source::TensorList(const char* name, bool output) {
  if (Null(name, 40)) return nullptr;
  std::vector<aclTensor*> members;
  for (uint64_t n = Count(Below(4)); members.size() < n;) {
    aclTensor* t = Member(name, output, members.size());
    if (t == nullptr) break;
    members.push_back(t);
  }
  aclTensorList* l = aclCreateTensorList(members.data(), members.size());
  if (l != nullptr)
    tensor_lists_.push_back(l);
  else
    tensors_.insert(tensors_.end(), members.begin(), members.end());
  return l;
}

uint64_t Source::Count(uint64_t drawn) const {
  if (repair_->most_count < 0) return drawn;
  return static_cast<uint64_t>(std::clamp<int64_t>(static_cast<int64_t>(drawn), repair_->least_count,
                                                   std::min<int64_t>(32, repair_->most_count)));
}

int64_t Source::Integer() {
  if (repair_->most >= repair_->least)
    return repair_->least +
           static_cast<int64_t>(Below(static_cast<uint64_t>(repair_->most - repair_->least) + 1));
  if (Once(25)) return Of(kOddIntegers);
  if (Once(6) && !base_.empty()) return base_[Below(base_.size())];
  return static_cast<int64_t>(Below(9)) - 3;
}

double Source::Real() {
  if (repair_->most >= repair_->least)
    return static_cast<double>(repair_->least) +
           static_cast<double>(repair_->most - repair_->least) * static_cast<double>(Below(5)) / 4;
  if (Once(40))
    return Once(2) ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  return Of(kReals);
}

#define FUZZ_DRAW(type, ...)                               \
  template <>                                              \
  type Source::Make<type>(const char* name, bool output) { \
    (void)output;                                          \
    __VA_ARGS__                                            \
  }
FUZZ_DRAW(const aclTensor*, return Tensor(name, output);)
FUZZ_DRAW(aclTensor*, return Tensor(name, output);)
FUZZ_DRAW(const aclScalar*, return Scalar(name);)
FUZZ_DRAW(aclScalar*, return Scalar(name);)
FUZZ_DRAW(const aclTensorList*, return TensorList(name, output);)
FUZZ_DRAW(aclTensorList*, return TensorList(name, output);)
FUZZ_DRAW(int64_t, const int64_t v = Integer(); Say(name, std::to_string(v)); return v;)
FUZZ_DRAW(uint64_t, const int64_t v = Integer(); Say(name, std::to_string(v));
          return static_cast<uint64_t>(v);)
FUZZ_DRAW(int32_t, const int64_t v = Integer(); Say(name, std::to_string(v)); return static_cast<int32_t>(v);)
FUZZ_DRAW(int8_t, const int64_t v = Integer(); Say(name, std::to_string(v)); return static_cast<int8_t>(v);)
FUZZ_DRAW(bool, const bool v = Once(2); Say(name, v ? "true" : "false"); return v;)
FUZZ_DRAW(double, const double v = Real(); Say(name, std::to_string(v)); return v;)
FUZZ_DRAW(float, const double v = Real(); Say(name, std::to_string(v)); return static_cast<float>(v);)
FUZZ_DRAW(aclDataType, const aclDataType t = Once(3) ? Of(kTypes) : type_; Say(name, std::to_string(t));
          return t;)
FUZZ_DRAW(const char*, if (Null(name, 20)) return nullptr;
          const char* s = repair_->words.empty() ? Of(kStrings)
                                                 : repair_->words[Below(repair_->words.size())].c_str();
          Say(name, s); return s;)
FUZZ_DRAW(char*, return const_cast<char*>(Make<const char*>(name, output));)

template <>
aclIntArray* Source::Make<aclIntArray*>(const char* name, bool) {
  if (Null(name, 30)) return nullptr;
  std::vector<int64_t> v(Count(Once(3) ? base_.size() : Below(5)));
  for (int64_t& x : v) x = Integer();
  if (Once(6) && *repair_ == Repair()) v = base_;
  if (repair_->shape) v = *repair_->shape;
  Say(name, Text(v));
  aclIntArray* a = aclCreateIntArray(v.data(), v.size());
  if (a != nullptr) int_arrays_.push_back(a);
  return a;
}
FUZZ_DRAW(const aclIntArray*, return Make<aclIntArray*>(name, output);)

template <>
aclFloatArray* Source::Make<aclFloatArray*>(const char* name, bool) {
  if (Null(name, 30)) return nullptr;
  std::vector<float> v(Count(Below(5)));
  for (float& x : v) x = static_cast<float>(Real());
  aclFloatArray* a = aclCreateFloatArray(v.data(), v.size());
  if (a != nullptr) float_arrays_.push_back(a);
  return a;
}
FUZZ_DRAW(const aclFloatArray*, return Make<aclFloatArray*>(name, output);)

template <>
const aclBoolArray* Source::Make<const aclBoolArray*>(const char* name, bool) {
  if (Null(name, 30)) return nullptr;
  bool v[32];
  for (bool& x : v) x = Once(2);
  aclBoolArray* a = aclCreateBoolArray(v, Count(Below(5)));
  if (a != nullptr) bool_arrays_.push_back(a);
  return a;
}

template <>
const aclScalarList* Source::Make<const aclScalarList*>(const char* name, bool) {
  if (Null(name, 30)) return nullptr;
  std::vector<aclScalar*> members;
  for (uint64_t n = Count(Below(4)); members.size() < n;) {
    aclScalar* s = Scalar(name);
    if (s == nullptr) break;
    members.push_back(s);
    scalars_.pop_back();
  }
  aclScalarList* l = aclCreateScalarList(members.data(), members.size());
  if (l != nullptr)
    scalar_lists_.push_back(l);
  else
    scalars_.insert(scalars_.end(), members.begin(), members.end());
  return l;
}

}  // namespace fuzz
