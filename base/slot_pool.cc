#include "base/slot_pool.h"

#include <cstdlib>

namespace anycann {
namespace {

std::atomic<int> pools{0};
void (*take_back[SlotLists::kPools])(SlotLists::List*);

}  // namespace

SlotLists::~SlotLists() {
  for (int i = 0; i < pools; ++i) take_back[i](&lists[i]);
}

int SlotLists::Register(void (*function)(List*)) {
  const int number = pools.fetch_add(1);
  if (number >= kPools) std::abort();  // raise kPools: reached while the library is loaded, never later
  take_back[number] = function;
  return number;
}

}  // namespace anycann
