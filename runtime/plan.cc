// Plan's pool: type-stable memory with a free list per thread, so that creating a Plan costs no lock and no malloc.
#include "runtime/plan.h"

#include <cstdlib>
#include <mutex>

namespace anycann {

// Plans are created on a client's thread and released on the thread that ran them, so each thread's list is topped
// up from, and overflows into, one shared list in batches.
struct PlanPool {
  static constexpr int kBatch = 32;

  struct Shared {
    std::mutex mutex;
    Plan* head = nullptr;
  };
  static Shared& shared() {
    static Shared* s = new Shared;  // never destroyed: threads may release Plans during exit
    return *s;
  }

  struct Local {
    Plan* head = nullptr;
    int count = 0;
    ~Local() {
      dead = true;
      while (head) Give(Pop());
    }
    Plan* Pop() {
      Plan* p = head;
      head = p->next_free_;
      --count;
      return p;
    }
    void Push(Plan* p) {
      p->next_free_ = head;
      head = p;
      ++count;
    }
    static void Give(Plan* p) {
      Shared& s = shared();
      std::lock_guard<std::mutex> lock(s.mutex);
      p->next_free_ = s.head;
      s.head = p;
    }
    static inline thread_local bool dead = false;
  };
  static Local& local() {
    static thread_local Local l;
    return l;
  }

  static Plan* Take() {
    if (!Local::dead) {
      Local& l = local();
      if (l.head == nullptr) {
        Shared& s = shared();
        std::lock_guard<std::mutex> lock(s.mutex);
        for (int i = 0; i < kBatch && s.head; ++i) {
          Plan* p = s.head;
          s.head = p->next_free_;
          l.Push(p);
        }
      }
      if (l.head != nullptr) return l.Pop();
    }
    return new (std::nothrow) Plan;
  }

  static void Return(Plan* p) {
    if (Local::dead) return Local::Give(p);
    Local& l = local();
    l.Push(p);
    if (l.count >= 2 * kBatch) {
      Shared& s = shared();
      std::lock_guard<std::mutex> lock(s.mutex);
      for (int i = 0; i < kBatch; ++i) {
        Plan* q = l.Pop();
        q->next_free_ = s.head;
        s.head = q;
      }
    }
  }

  static void Reset(Plan* p) {
    if (p->kernel_ops_) p->kernel_ops_->destroy(p->kernel_);
    p->kernel_ops_ = nullptr;
    p->invoke_ = nullptr;
    if (p->operands_ != p->inline_operands_) {
      std::free(p->operands_);
      p->operands_ = p->inline_operands_;
      p->capacity_ = Plan::kInlineOperands;
    }
    p->count_ = 0;
  }
};

Plan* Plan::Create(const char* name, PlanKind kind) {
  Plan* p = PlanPool::Take();
  if (p == nullptr) return nullptr;
  p->references_.store(1, std::memory_order_relaxed);
  p->name = name;
  p->implementation = "";
  p->kind = kind;
  p->cost = Cost{};
  p->sequence = 0;
  p->payload = nullptr;
  return p;
}

void Plan::Unref() {
  if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  PlanPool::Reset(this);
  PlanPool::Return(this);
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
  for (int i = 0; i < count_; ++i) p->AddOperand(operands_[i].view, operands_[i].source, operands_[i].output);
  p->kernel_ops_ = kernel_ops_;
  p->invoke_ = invoke_;
  return p;
}

}  // namespace anycann
