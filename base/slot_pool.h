// SlotPool: type-stable memory for the engine's small objects. A slot never changes its type and is never returned to
// the system, so a pointer that a client passes can be checked (Owns) and read even when it was freed. Taking and
// giving cost no lock: each thread keeps a short list and exchanges batches with the shared one.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace anycann {

// T needs a member `T* next_free` (used while free only) and must be valid when filled with zero bytes. The pool
// neither constructs nor destroys: Take() returns a slot as Give() left it, or zeroed.
template <class T>
class SlotPool {
 public:
  // nullptr when memory is exhausted.
  static T* Take() {
    if (!dead_) {
      if (local_.head == nullptr) Refill(local_);
      if (local_.head != nullptr) return local_.Pop();
      return nullptr;
    }
    std::lock_guard<std::mutex> lock(shared().mutex);
    return TakeShared();
  }

  static void Give(T* slot) {
    if (dead_) {
      std::lock_guard<std::mutex> lock(shared().mutex);
      GiveShared(slot);
      return;
    }
    local_.Push(slot);
    if (local_.count < 2 * kBatch) return;
    std::lock_guard<std::mutex> lock(shared().mutex);
    for (int i = 0; i < kBatch; ++i) GiveShared(local_.Pop());
  }

  // True when `p` is the address of a slot that was handed out at least once. Safe for any pointer.
  static bool Owns(const void* p) {
    const Shared& s = shared();
    const uintptr_t base = s.base.load(std::memory_order_acquire), a = reinterpret_cast<uintptr_t>(p);
    if (a < base || a >= s.committed.load(std::memory_order_acquire)) return false;
    return (a - base) % sizeof(T) == 0 && (a - base) / sizeof(T) < (s.size / sizeof(T));
  }

 private:
  static constexpr int kBatch = 32;
  static constexpr size_t kCommitStep = size_t{1} << 20;

  struct Shared {
    std::mutex mutex;
    T* head = nullptr;
    std::atomic<uintptr_t> base{0}, committed{0};
    uintptr_t fresh = 0;  // first slot that was never handed out
    size_t size = 0;      // of the reservation
  };
  static Shared& shared() {
    static Shared* s = new Shared;  // never destroyed: threads give slots back during exit
    return *s;
  }

  struct Local {
    T* head = nullptr;
    int count = 0;
    ~Local() {
      dead_ = true;
      std::lock_guard<std::mutex> lock(shared().mutex);
      while (head != nullptr) GiveShared(Pop());
    }
    T* Pop() {
      T* p = head;
      head = p->next_free;
      --count;
      return p;
    }
    void Push(T* p) {
      p->next_free = head;
      head = p;
      ++count;
    }
  };
  static inline thread_local bool dead_ = false;  // the thread's list is gone; use the shared one
  static inline thread_local Local local_;

  static void Refill(Local& l) {
    std::lock_guard<std::mutex> lock(shared().mutex);
    for (int i = 0; i < kBatch; ++i) {
      T* p = TakeShared();
      if (p == nullptr) break;
      l.Push(p);
    }
  }
  static void GiveShared(T* slot) {  // mutex held
    slot->next_free = shared().head;
    shared().head = slot;
  }
  static T* TakeShared() {  // mutex held
    Shared& s = shared();
    if (s.head != nullptr) {
      T* p = s.head;
      s.head = p->next_free;
      return p;
    }
    if (s.base == 0 && !Reserve(s)) return nullptr;
    if (s.fresh + sizeof(T) > s.committed) {
      const uintptr_t end = s.committed;
      if (end + kCommitStep > s.base + s.size) return nullptr;
      if (mprotect(reinterpret_cast<void*>(end), kCommitStep, PROT_READ | PROT_WRITE) != 0) return nullptr;
      s.committed.store(end + kCommitStep, std::memory_order_release);
    }
    T* p = reinterpret_cast<T*>(s.fresh);
    s.fresh += sizeof(T);
    return p;
  }
  static bool Reserve(Shared& s) {
    // Address space only. Smaller under an address-space limit (ulimit -v, sanitizers).
    for (size_t size : {size_t{1} << 34, size_t{1} << 30, size_t{1} << 26}) {
      void* p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) continue;
      s.size = size;
      s.fresh = reinterpret_cast<uintptr_t>(p);
      s.committed.store(s.fresh, std::memory_order_release);
      s.base.store(s.fresh, std::memory_order_release);
      return true;
    }
    return false;
  }
};

}  // namespace anycann
