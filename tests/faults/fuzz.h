// Random arguments for phase one of every operator. A Source draws arguments of one call from a seed, and
// owns what they need; the list of operators is generated (abi/operators.py).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "acl/acl.h"
#include "aclnn/acl_meta.h"

namespace fuzz {

// What is known of an argument, from the sentences that refused others.
struct Repair {
  std::optional<std::vector<int64_t>> shape;
  std::optional<aclDataType> type;
  std::optional<bool> present;               // null, or not
  int64_t least_rank = 0, most_rank = -1;    // of a tensor
  int64_t least_count = 0, most_count = -1;  // values of an array, members of a list
  int64_t least = 0, most = -1;              // of a number, or of an array's values
  std::vector<std::string> words;            // of a string
  bool operator==(const Repair&) const = default;
};

// The repairs of one call, by argument; those of "" are every tensor's.
struct Repairs {
  std::map<std::string, Repair, std::less<>> of;
  // Reads what a refusal expects: "NAME has shape [..], expected [..]", "NAME is .., expected 1 to 3" and so
  // on. False when there is nothing to learn.
  bool Learn(const std::string& sentence);
};

// The seed of an operator's case of this number.
uint64_t SeedOf(const char* op, uint64_t seed, uint64_t number);

class Source {
 public:
  // describe: print each argument, for one case that is looked at.
  Source(uint64_t seed, const Repairs& repairs, bool describe);
  ~Source();
  Source(const Source&) = delete;

  // Every byte of the tensors that were drawn.
  std::string Contents() const;
  bool empty() const { return empty_; }  // one of them has no elements

  // The next argument, of type T and this name. Each has random numbers of its own: a repair of one leaves
  // the others as they are.
  template <class T>
  T Draw(const char* name, bool output) {
    Begin(name);
    return Make<T>(name, output);
  }

 private:
  template <class T>
  T Make(const char* name, bool output);
  void Begin(const char* name);
  // Whether this argument is to be NULL: as its repair says, or one in `in`.
  bool Null(const char* name, uint64_t in);
  void Repaired(std::vector<int64_t>* shape, aclDataType* type, const Repair& r);
  uint64_t Below(uint64_t n) { return n == 0 ? 0 : random_() % n; }
  bool Once(uint64_t in) { return Below(in) == 0; }
  template <class T, size_t n>
  const T& Of(const T (&values)[n]) {
    return values[Below(n)];
  }
  std::vector<int64_t> Shape();
  aclDataType Type(const std::string& name);
  aclTensor* Tensor(const char* name, bool output);
  aclTensor* NewTensor(const char* name, bool output, const std::vector<int64_t>& shape, aclDataType type);
  aclTensor* Member(const char* name, bool output, uint64_t index);
  aclScalar* Scalar(const char* name);
  aclTensorList* TensorList(const char* name, bool output);
  uint64_t Count(uint64_t drawn) const;
  int64_t Integer();
  double Real();
  void Fill(unsigned char* p, int64_t bytes, aclDataType type);
  void Say(const char* name, const std::string& value) const;

  // SplitMix64: cheap to start anew.
  struct Random {
    using result_type = uint64_t;
    static constexpr uint64_t min() { return 0; }
    static constexpr uint64_t max() { return UINT64_MAX; }
    uint64_t state;
    uint64_t operator()() {
      uint64_t z = state += 0x9e3779b97f4a7c15u;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
      return z ^ (z >> 31);
    }
  };
  const uint64_t seed_;
  Random random_;
  uint64_t arguments_ = 0;
  const Repairs& repairs_;
  const Repair* repair_ = nullptr;  // of the argument that is drawn
  bool describe_;
  std::vector<int64_t> base_;  // the shape that most tensors of a call have
  aclDataType type_;           // and their type
  struct Block {
    void* data;
    size_t bytes;
  };
  std::vector<Block> memory_;
  bool empty_ = false;
  std::vector<aclTensor*> tensors_;  // alive, not in a list
  std::vector<aclTensorList*> tensor_lists_;
  std::vector<aclScalar*> scalars_;
  std::vector<aclScalarList*> scalar_lists_;
  std::vector<aclIntArray*> int_arrays_;
  std::vector<aclFloatArray*> float_arrays_;
  std::vector<aclBoolArray*> bool_arrays_;
};

struct Operator {
  const char* name;
  int (*phase_one)(Source& source, uint64_t* size, aclOpExecutor** executor);
  int (*phase_two)(void* workspace, uint64_t size, aclOpExecutor* executor, aclrtStream stream);
};
const std::vector<Operator>& Operators();

// Called between the drawing of a call's arguments and the call.
inline std::function<void()> before_call;

template <class F, class... A>
int Apply(F phase_one, uint64_t* size, aclOpExecutor** executor, std::tuple<A...> arguments) {
  if (before_call) before_call();
  return std::apply([&](A... a) { return phase_one(a..., size, executor); }, arguments);
}

}  // namespace fuzz
