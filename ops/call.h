// Call: one phase-one call of an operator. Checks the handles for the door, and turns what the operator
// decided into a Plan. See docs/add-an-operator.md.
//
//   Status aclnn::Frobnicate(Call& call, const aclTensor* self, const aclScalar* alpha, aclTensor* out) {
//     RETURN_IF_ERROR(call.RequireSameShape(self, "self", out, "out"));
//     const double a = alpha->value.ToDouble();
//     return call.Launch({In(self), Out(out)}, cost, [a](const Run& t) -> Status { ... t[0] ... t[1] ... });
//   }
//
// A kernel sees its tensors only through Run (by value, addresses may be updated before a run) and captures
// attributes by value; it may run on any thread, several times, long after the client destroyed the handles.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/export.h"
#include "base/status.h"
#include "base/tensor_view.h"
#include "ops/handles.h"
#include "runtime/plan.h"

namespace anycann {

// A tensor as an operand of a Plan. `view` is the handle's own, or one derived from it (broadcast,
// transposed).
struct Arg {
  const aclTensor* handle;
  TensorView view;
  bool output;
};
inline Arg In(const aclTensor* t) { return {t, t->view, false}; }
inline Arg In(const aclTensor* t, const TensorView& view) { return {t, view, false}; }
inline Arg Out(const aclTensor* t) { return {t, t->view, true}; }
inline Arg Out(const aclTensor* t, const TensorView& view) { return {t, view, true}; }

class ANYCANN_API Call {
 public:
  Call(const char* op, aclOpExecutor* executor) : op_(op), executor_(executor) {}
  Call(const Call&) = delete;

  const char* op() const { return op_; }

  // For the doors: the handle is there, alive and of the right kind. Input/Output also register the tensor
  // with the executor for address updates. 161001 for null, 161002 otherwise.
  Status Input(const aclTensor* t, const char* name) { return Tensor(t, name, false, true); }
  Status Output(const aclTensor* t, const char* name) { return Tensor(t, name, true, true); }
  Status OptionalInput(const aclTensor* t, const char* name) { return Tensor(t, name, false, false); }
  Status OptionalOutput(const aclTensor* t, const char* name) { return Tensor(t, name, true, false); }
  Status Input(const aclTensorList* l, const char* name) { return List(l, name, false, true); }
  Status Output(const aclTensorList* l, const char* name) { return List(l, name, true, true); }
  Status OptionalInput(const aclTensorList* l, const char* name) { return List(l, name, false, false); }
  Status OptionalOutput(const aclTensorList* l, const char* name) { return List(l, name, true, false); }
  template <class H>
  Status Input(const H* h, const char* name) {
    return h != nullptr && handles::Alive(h) ? Status() : BadHandle(h, name, KindName(h));
  }
  template <class H>
  Status OptionalInput(const H* h, const char* name) {
    return h == nullptr || handles::Alive(h) ? Status() : BadHandle(h, name, KindName(h));
  }
  Status Input(const char* s, const char* name) { return s ? Status() : BadHandle(nullptr, name, "string"); }
  Status OptionalInput(const char*, const char*) { return Status(); }

  // An error of this call: the sentence gets the operator's name in front.
  template <class... A>
  Status Error(int32_t code, fmt::format_string<A...> format, A&&... args) const {
    return Status(code, std::string(op_) + ": " + fmt::format(format, std::forward<A>(args)...));
  }
  template <class... A>
  Status Invalid(fmt::format_string<A...> format, A&&... args) const {
    return Error(kParamInvalid, format, std::forward<A>(args)...);
  }

  // Checks that operators share. Each error names the parameter, what it is and what was expected.
  Status RequireShape(const aclTensor* t, const char* name, const int64_t* dims, int rank) const;
  Status RequireSameShape(const aclTensor* t, const char* name, const aclTensor* like,
                          const char* like_name) const;
  Status RequireDType(const aclTensor* t, const char* name, DType dtype) const;
  Status RequireFloating(const aclTensor* t, const char* name) const;
  Status RequireFloating(const aclTensor* t, const char* name, std::initializer_list<int64_t> dims) const;
  // So many elements of a floating type, in any shape.
  Status RequireFloats(const aclTensor* t, const char* name, int64_t count) const;
  Status RequireRank(const aclTensor* t, const char* name, int min_rank, int max_rank) const;
  // Wraps a negative dim and checks its range; a 0-d tensor accepts 0 and -1.
  Status WrapDim(int64_t dim, int rank, const char* name, int* wrapped) const;
  // Out's type must be one that `computed` may be cast to (int -> float, float -> int, real -> complex, bool
  // -> any, never complex -> real, and nothing but bool -> bool).
  Status RequireCastable(DType computed, const aclTensor* out, const char* name) const;

  // Makes the Plan: operands in the order in which the kernel sees them. kernel: Status(const Run&),
  // copyable.
  template <class F>
  Status Launch(std::span<const Arg> operands, Cost cost, F&& kernel,
                const char* implementation = "anycann") {
    RETURN_IF_ERROR(NewPlan(operands, cost, implementation));
    if (!executor_->plan->SetKernel(std::forward<F>(kernel))) return NoMemory();
    return Status();
  }
  template <class F>
  Status Launch(std::initializer_list<Arg> operands, Cost cost, F&& kernel,
                const char* implementation = "anycann") {
    return Launch(std::span<const Arg>(operands.begin(), operands.size()), cost, std::forward<F>(kernel),
                  implementation);
  }
  // Nothing to do (empty tensors): a valid executor without a Plan.
  Status Nothing() { return Status(); }
  Status NoMemory() const;

 private:
  template <class H>
  static const char* KindName(const H*) {
    return HandleTraits<H>::kName;
  }
  Status Tensor(const aclTensor* t, const char* name, bool output, bool required);
  Status List(const aclTensorList* l, const char* name, bool output, bool required);
  Status BadHandle(const void* h, const char* name, const char* kind) const;
  void Register(const aclTensor* t, bool output);
  Status NewPlan(std::span<const Arg> operands, Cost cost, const char* implementation);

  const char* op_;
  aclOpExecutor* executor_;
};

// An optional tensor, nullptr if it isn't there or has nothing.
inline const aclTensor* Given(const aclTensor* t) { return t == nullptr || t->view.empty() ? nullptr : t; }

// "self [2,3] float32": how error messages describe a tensor.
ANYCANN_API std::string Describe(const aclTensor* t);

}  // namespace anycann
