// How a Source draws the arguments of one call, and how a refusal teaches it what fits.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

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

bool Repairs::Learn(const std::string& sentence) {
  for (const char* kind : {" has shape ", " has type "}) {
    const size_t at = sentence.find(kind),
                 expected = sentence.find("expected ", at == std::string::npos ? 0 : at);
    if (at == std::string::npos || expected == std::string::npos) continue;
    const size_t begin = sentence.rfind(' ', at - 1);
    const std::string name = sentence.substr(begin + 1, at - begin - 1),
                      value = sentence.substr(expected + 9);
    if (kind[5] == 't') {
      for (const auto& [type, text] : kTypeNames)
        if (value.compare(0, std::strlen(text), text) == 0) return types.insert_or_assign(name, type).second;
      continue;
    }
    if (value.empty() || value[0] != '[') continue;
    std::vector<int64_t> shape;
    for (const char* p = value.c_str() + 1; *p != ']';) {
      char* end;
      shape.push_back(std::strtoll(p, &end, 10));
      if (end == p || (*end != ',' && *end != ']') || shape.back() < 0 || shape.back() > 4096) return false;
      p = *end == ',' ? end + 1 : end;
    }
    return shape.size() <= 8 && shapes.insert_or_assign(name, shape).second;
  }
  return false;
}

Source::Source(uint64_t seed, const Repairs& repairs, bool describe)
    : random_(seed), repairs_(repairs), describe_(describe) {
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

std::vector<int64_t> Source::Shape() {
  std::vector<int64_t> shape = base_;
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

aclTensor* Source::Tensor(const char* name, bool output, bool in_list) {
  if (!in_list) {
    if (Once(60)) return Say(name, "null"), nullptr;
    if (Once(200)) return Say(name, "a foreign address"), reinterpret_cast<aclTensor*>(&base_);
    if (!tensors_.empty() && Once(12)) {
      aclTensor* again = tensors_[Below(tensors_.size())];
      return Say(name, "an earlier tensor"), again;
    }
  }
  std::vector<int64_t> shape = Shape();
  aclDataType type = Type(name);
  if (const auto repair = repairs_.shapes.find(name); repair != repairs_.shapes.end()) shape = repair->second;
  if (const auto repair = repairs_.types.find(name); repair != repairs_.types.end()) type = repair->second;
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
  if (t == nullptr || in_list) return t;
  if (Once(300)) {
    aclDestroyTensor(t);
    return Say(name, "destroyed"), t;
  }
  tensors_.push_back(t);
  return t;
}

aclScalar* Source::Scalar(const char* name) {
  if (Once(40)) return Say(name, "null"), nullptr;
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
  if (Once(40)) return Say(name, "null"), nullptr;
  std::vector<aclTensor*> members;
  for (uint64_t n = Below(4); members.size() < n;) {
    aclTensor* t = Tensor(name, output, true);
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

int64_t Source::Integer() {
  if (Once(25)) return Of(kOddIntegers);
  if (Once(6) && !base_.empty()) return base_[Below(base_.size())];
  return static_cast<int64_t>(Below(9)) - 3;
}

double Source::Real() {
  if (Once(40))
    return Once(2) ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  return Of(kReals);
}

#define FUZZ_DRAW(type, ...)                               \
  template <>                                              \
  type Source::Draw<type>(const char* name, bool output) { \
    (void)output;                                          \
    __VA_ARGS__                                            \
  }
FUZZ_DRAW(const aclTensor*, return Tensor(name, output, false);)
FUZZ_DRAW(aclTensor*, return Tensor(name, output, false);)
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
FUZZ_DRAW(const char*, const char* s = Once(20) ? nullptr : Of(kStrings); Say(name, s ? s : "null");
          return s;)
FUZZ_DRAW(char*, return const_cast<char*>(Draw<const char*>(name, output));)

template <>
aclIntArray* Source::Draw<aclIntArray*>(const char* name, bool) {
  if (Once(30)) return Say(name, "null"), nullptr;
  std::vector<int64_t> v(Once(3) ? base_.size() : Below(5));
  for (int64_t& x : v) x = Integer();
  if (Once(6)) v = base_;
  Say(name, Text(v));
  aclIntArray* a = aclCreateIntArray(v.data(), v.size());
  if (a != nullptr) int_arrays_.push_back(a);
  return a;
}
FUZZ_DRAW(const aclIntArray*, return Draw<aclIntArray*>(name, output);)

template <>
aclFloatArray* Source::Draw<aclFloatArray*>(const char* name, bool) {
  if (Once(30)) return Say(name, "null"), nullptr;
  std::vector<float> v(Below(5));
  for (float& x : v) x = static_cast<float>(Real());
  aclFloatArray* a = aclCreateFloatArray(v.data(), v.size());
  if (a != nullptr) float_arrays_.push_back(a);
  return a;
}
FUZZ_DRAW(const aclFloatArray*, return Draw<aclFloatArray*>(name, output);)

template <>
const aclBoolArray* Source::Draw<const aclBoolArray*>(const char* name, bool) {
  if (Once(30)) return Say(name, "null"), nullptr;
  bool v[4];
  for (bool& x : v) x = Once(2);
  aclBoolArray* a = aclCreateBoolArray(v, Below(5));
  if (a != nullptr) bool_arrays_.push_back(a);
  return a;
}

template <>
const aclScalarList* Source::Draw<const aclScalarList*>(const char* name, bool) {
  if (Once(30)) return Say(name, "null"), nullptr;
  std::vector<aclScalar*> members;
  for (uint64_t n = Below(4); members.size() < n;) {
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
