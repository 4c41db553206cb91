// Random arguments for phase one of every operator. A Source draws arguments of one call from a seed, and
// owns what they need; the list of operators is generated (abi/operators.py).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "acl/acl.h"
#include "aclnn/acl_meta.h"

namespace fuzz {

// What to draw instead of a random shape or type for a tensor of that name: learnt from a refusal.
struct Repairs {
  std::map<std::string, std::vector<int64_t>> shapes;
  std::map<std::string, aclDataType> types;
  // Reads "NAME has shape [..], expected [..]" and "NAME has type .., expected ..". False when there is
  // nothing to learn.
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

  // The next argument, of type T and this name.
  template <class T>
  T Draw(const char* name, bool output);

 private:
  uint64_t Below(uint64_t n) { return n == 0 ? 0 : random_() % n; }
  bool Once(uint64_t in) { return Below(in) == 0; }
  template <class T, size_t n>
  const T& Of(const T (&values)[n]) {
    return values[Below(n)];
  }
  std::vector<int64_t> Shape();
  aclDataType Type(const std::string& name);
  aclTensor* Tensor(const char* name, bool output, bool in_list);
  aclScalar* Scalar(const char* name);
  aclTensorList* TensorList(const char* name, bool output);
  int64_t Integer();
  double Real();
  void Fill(unsigned char* p, int64_t bytes, aclDataType type);
  void Say(const char* name, const std::string& value) const;

  std::mt19937_64 random_;
  const Repairs& repairs_;
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
