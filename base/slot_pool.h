// SlotPool: type-stable memory for the engine's small objects. A slot never changes its type and is never
// returned to the system, so a pointer that a client passes can be checked (Owns) and read even when it was
// freed. Taking and giving cost no lock: each thread keeps a short list and exchanges batches with the shared
// one.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <type_traits>

namespace anycann {

// The short lists of all pools of one thread, behind one thread-local pointer: space for thread-local
// variables is scarce in a library that is loaded late (glibc reserves about 1.6 KiB for all of them
// together).
struct SlotLists {
  static constexpr int kPools = 64;
  struct List {
    void* head = nullptr;
    int count = 0;
  };
  List lists[kPools];

  static thread_local SlotLists* current;  // nullptr before the thread's first use and after its end
  // The calling thread's lists; nullptr while it ends, or when memory is exhausted.
  static SlotLists* Open();
  // A number for a pool, and the function that takes back what a thread has left in its list when it ends.
  static int Register(void (*take_back)(List*));
};

// T needs a member `T* next_free` (used while free only) and must be valid when filled with zero bytes. The
// pool neither constructs nor destroys: Take() returns a slot as Give() left it, or zeroed.
template <class T>
class SlotPool {
 public:
  // nullptr when memory is exhausted.
  static T* Take() {
    if (SlotLists::List* l = local()) [[likely]] {
      if (l->head == nullptr) Refill(l);
      return l->head != nullptr ? Pop(l) : nullptr;
    }
    std::lock_guard<std::mutex> lock(shared().mutex);
    return TakeShared();
  }

  static void Give(T* slot) {
    SlotLists::List* l = local();
    if (l == nullptr) [[unlikely]] {
      std::lock_guard<std::mutex> lock(shared().mutex);
      GiveShared(slot);
      return;
    }
    Push(l, slot);
    if (l->count < 2 * kBatch) return;
    std::lock_guard<std::mutex> lock(shared().mutex);
    for (int i = 0; i < kBatch; ++i) GiveShared(Pop(l));
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
  // There from the start and never destroyed: threads give slots back during exit.
  static inline constinit Shared shared_;
  static_assert(std::is_trivially_destructible_v<Shared>);
  static Shared& shared() { return shared_; }

  static void TakeBack(SlotLists::List* l) {
    std::lock_guard<std::mutex> lock(shared().mutex);
    while (l->head != nullptr) GiveShared(Pop(l));
  }
  static inline const int number_ = SlotLists::Register(TakeBack);

  static SlotLists::List* local() {
    SlotLists* lists = SlotLists::current;
    if (lists == nullptr) [[unlikely]]
      lists = SlotLists::Open();
    return lists != nullptr ? &lists->lists[number_] : nullptr;
  }
  static T* Pop(SlotLists::List* l) {
    T* p = static_cast<T*>(l->head);
    l->head = p->next_free;
    --l->count;
    return p;
  }
  static void Push(SlotLists::List* l, T* p) {
    p->next_free = static_cast<T*>(l->head);
    l->head = p;
    ++l->count;
  }
  static void Refill(SlotLists::List* l) {
    std::lock_guard<std::mutex> lock(shared().mutex);
    for (int i = 0; i < kBatch; ++i) {
      T* p = TakeShared();
      if (p == nullptr) break;
      Push(l, p);
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
