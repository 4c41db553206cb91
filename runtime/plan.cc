// Plan's life cycle. Plans are created on a client's thread and released on the thread that ran them;
// SlotPool keeps that free of locks and of malloc.
#include "runtime/plan.h"

#include <cstdlib>

#include "base/slot_pool.h"

namespace anycann {

Plan* Plan::Create(const char* name, PlanKind kind) {
  Plan* p = SlotPool<Plan>::Take();
  if (p == nullptr) return nullptr;
  if (p->operands_ == nullptr) {  // a fresh slot is all zeros
    p->operands_ = p->inline_operands_;
    p->capacity_ = kInlineOperands;
  }
  p->references_.store(1, std::memory_order_relaxed);
  p->name = name;
  p->implementation = "";
  p->kind = kind;
  p->cost = Cost{};
  p->payload = nullptr;
  return p;
}

void Plan::Unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (kernel_ops_) kernel_ops_->destroy(kernel_);
  kernel_ops_ = nullptr;
  invoke_ = nullptr;
  if (operands_ != inline_operands_) {
    std::free(operands_);
    operands_ = inline_operands_;
    capacity_ = kInlineOperands;
  }
  count_ = 0;
  SlotPool<Plan>::Give(this);
}

bool Plan::ReserveOperands(int n) {
  if (n <= capacity_) return true;
  auto* grown = static_cast<Operand*>(std::malloc(sizeof(Operand) * static_cast<size_t>(n)));
  if (grown == nullptr) return false;
  for (int i = 0; i < count_; ++i) ::new (grown + i) Operand(operands_[i]);
  if (operands_ != inline_operands_) std::free(operands_);
  operands_ = grown;
  capacity_ = n;
  return true;
}

Plan* Plan::Clone() const {
  Plan* p = Create(name, kind);
  if (p == nullptr) return nullptr;
  p->implementation = implementation;
  p->cost = cost;
  p->payload = payload;
  if (!p->ReserveOperands(count_) || (kernel_ops_ && !kernel_ops_->clone(kernel_, p->kernel_))) {
    p->Unref();
    return nullptr;
  }
  for (int i = 0; i < count_; ++i) {
    const Operand& o = operands_[i];
    p->AddOperand(o.view, o.source, o.base, o.output);
  }
  p->kernel_ops_ = kernel_ops_;
  p->invoke_ = invoke_;
  return p;
}

}  // namespace anycann
