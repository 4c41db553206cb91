// Plan: an operation that is ready to run. A kernel with its attributes by value, its operands by value, a
// name for people, and its cost. Everything that runs on a stream is a Plan (docs/architecture.md).
//
// Ownership: reference-counted. A stream holds one reference while the Plan is queued or runs; an executor or
// a captured graph may hold more, and then the Plan must not be changed (Clone() it first).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#include "base/export.h"
#include "base/status.h"
#include "base/tensor_view.h"

namespace anycann {

enum class PlanKind : uint8_t {
  kKernel,        // an operator
  kCopy,          // memcpy or memset on a stream
  kHostCallback,  // client code: runs where it is subscribed, never on a helping thread, may block
  kEventRecord,
  kEventWait,  // never "runs": the stream is parked until the event completes
  kFlagWait,   // the same for an event that is a flag: looked at when the stream gets there
  kMarker,     // bookkeeping of the runtime (notify, label, capture markers)
};

struct Cost {
  double flops = 0;
  double bytes = 0;  // read + written
};

struct Operand {
  TensorView view;
  const void* source = nullptr;  // the client's handle, identity only: never dereferenced after phase one
  void* base = nullptr;          // the handle's data address; view.data lies at a fixed distance from it
  bool output = false;
};

class Plan;
// What a kernel sees while it runs: its operands, in the order in which they were given to Call::Launch.
class Run {
 public:
  explicit Run(const Plan& plan) : plan_(plan) {}
  inline const TensorView& operator[](int i) const;
  inline int size() const;
  const Plan& plan() const { return plan_; }

 private:
  const Plan& plan_;
};

class ANYCANN_API Plan {
 public:
  static constexpr int kInlineOperands = 5;
  static constexpr size_t kInlineKernel = 256;

  // Returns nullptr when memory is exhausted. Reference count 1.
  static Plan* Create(const char* name, PlanKind kind);
  void Ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unref();  // the last one destroys the kernel and returns the Plan to its pool
  bool shared() const { return references_.load(std::memory_order_acquire) > 1; }
  Plan* Clone() const;  // nullptr when memory is exhausted

  // Sets the kernel: a copyable callable Status(const Run&). False when memory is exhausted.
  template <class F>
  bool SetKernel(F&& f);
  // Makes room for n operands; false when memory is exhausted.
  bool ReserveOperands(int n);
  void AddOperand(const TensorView& view, const void* source, void* base, bool output) {
    Operand& o = operands_[count_++];
    o.view = view;
    o.source = source;
    o.base = base;
    o.output = output;
  }

  Status Invoke() const { return invoke_ ? invoke_(kernel_, Run(*this)) : Status(); }

  Operand& operand(int i) { return operands_[i]; }
  const Operand& operand(int i) const { return operands_[i]; }
  int operands() const { return count_; }

  const char* name;  // static storage, e.g. "aclnnAdd"
  const char* implementation =
      "";  // static storage: which kernel was chosen, e.g. "onednn"; for trace and dispatch
  PlanKind kind;
  Cost cost;
  void* payload =
      nullptr;  // of the runtime, for kinds other than kKernel and kCopy; the kernel keeps it alive
  Plan* next_free = nullptr;  // of SlotPool

 private:
  Plan() = default;
  ~Plan() = default;

  struct KernelOps {
    void (*destroy)(void* kernel);
    bool (*clone)(const void* from, void* to);  // may allocate; false when memory is exhausted
  };

  std::atomic<int32_t> references_{1};
  int count_ = 0;
  int capacity_ = kInlineOperands;
  Operand* operands_ = inline_operands_;
  Status (*invoke_)(const void* kernel, const Run&) = nullptr;
  const KernelOps* kernel_ops_ = nullptr;
  alignas(std::max_align_t) unsigned char kernel_[kInlineKernel];
  Operand inline_operands_[kInlineOperands];
};

inline const TensorView& Run::operator[](int i) const { return plan_.operand(i).view; }
inline int Run::size() const { return plan_.operands(); }

template <class F>
bool Plan::SetKernel(F&& f) {
  using Fn = std::decay_t<F>;
  if constexpr (sizeof(Fn) <= kInlineKernel && alignof(Fn) <= alignof(std::max_align_t)) {
    static constexpr KernelOps ops = {[](void* k) { static_cast<Fn*>(k)->~Fn(); },
                                      [](const void* from, void* to) {
                                        ::new (to) Fn(*static_cast<const Fn*>(from));
                                        return true;
                                      }};
    ::new (static_cast<void*>(kernel_)) Fn(std::forward<F>(f));
    kernel_ops_ = &ops;
    invoke_ = [](const void* k, const Run& run) -> Status { return (*static_cast<const Fn*>(k))(run); };
  } else {
    static constexpr KernelOps ops = {[](void* k) { delete *static_cast<Fn**>(k); },
                                      [](const void* from, void* to) {
                                        Fn* copy = new (std::nothrow) Fn(**static_cast<Fn* const*>(from));
                                        *static_cast<Fn**>(to) = copy;
                                        return copy != nullptr;
                                      }};
    Fn* heap = new (std::nothrow) Fn(std::forward<F>(f));
    if (heap == nullptr) return false;
    *reinterpret_cast<Fn**>(kernel_) = heap;
    kernel_ops_ = &ops;
    invoke_ = [](const void* k, const Run& run) -> Status { return (**static_cast<Fn* const*>(k))(run); };
  }
  return true;
}

}  // namespace anycann
