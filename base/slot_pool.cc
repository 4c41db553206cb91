#include "base/slot_pool.h"

#include <cstdlib>
#include <new>
#include <utility>

namespace anycann {
namespace {

std::atomic<int> pools{0};
void (*take_back[SlotLists::kPools])(SlotLists::List*);

// Ends the thread's lists. Objects that are destroyed even later use the pools' shared lists.
struct Closer {
  bool closed = false;
  ~Closer() {
    closed = true;
    SlotLists* lists = std::exchange(SlotLists::current, nullptr);
    if (lists == nullptr) return;
    for (int i = 0; i < pools; ++i) take_back[i](&lists->lists[i]);
    delete lists;
  }
};
thread_local Closer closer;

}  // namespace

thread_local SlotLists* SlotLists::current = nullptr;

SlotLists* SlotLists::Open() {
  if (closer.closed) return nullptr;
  return current = new (std::nothrow) SlotLists;
}

int SlotLists::Register(void (*function)(List*)) {
  const int number = pools.fetch_add(1);
  if (number >= kPools) std::abort();  // raise kPools: reached while the library is loaded, never later
  take_back[number] = function;
  return number;
}

}  // namespace anycann
