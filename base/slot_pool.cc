#include "base/slot_pool.h"

#include <cstdlib>

#include "base/thread_object.h"

namespace anycann {
namespace {

std::atomic<int> pools{0};
void (*take_back[SlotLists::kPools])(SlotLists::List*);

// Ends a thread's lists. Objects that it destroys even later use the pools' shared lists.
struct ThreadLists : SlotLists {
  ~ThreadLists() {
    current = nullptr;
    for (int i = 0; i < pools; ++i) take_back[i](&lists[i]);
  }
};

}  // namespace

thread_local SlotLists* SlotLists::current = nullptr;

SlotLists* SlotLists::Open() { return current = ThreadObject<ThreadLists>::Get(); }

int SlotLists::Register(void (*function)(List*)) {
  const int number = pools.fetch_add(1);
  if (number >= kPools) std::abort();  // raise kPools: reached while the library is loaded, never later
  take_back[number] = function;
  return number;
}

}  // namespace anycann
