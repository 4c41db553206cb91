// Operands of an operator that has optional ones: absent tensors (nullptr handles) are left out of the Plan,
// and the kernel finds the others by the index that Add gave.
#pragma once

#include <span>

#include "ops/call.h"

namespace anycann {

class Operands {
 public:
  static constexpr int kMax = 32;
  int Input(const aclTensor* t) { return t ? Add(anycann::In(t)) : -1; }
  int Input(const Arg& a) { return Add(a); }
  int Output(const aclTensor* t) { return t ? Add(anycann::Out(t)) : -1; }
  std::span<const Arg> list() const { return {args_, static_cast<size_t>(count_)}; }
  double bytes() const {
    double sum = 0;
    for (int i = 0; i < count_; ++i) sum += static_cast<double>(args_[i].view.nbytes());
    return sum;
  }

 private:
  int Add(const Arg& a) {
    args_[count_] = a;
    return count_++;
  }
  Arg args_[kMax];
  int count_ = 0;
};

// Operand i of a run, nullptr for an absent one (i < 0).
inline const TensorView* At(const Run& t, int i) { return i < 0 ? nullptr : &t[i]; }

}  // namespace anycann
