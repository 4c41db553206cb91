// Lets torch_npu load beside the CUDA build of torch, which is the only one on PyPI.
//
// Both register allocator settings with libc10, and libc10 aborts on the second registration of a key. torch
// has registered by the time torch_npu is loaded; this library is initialised before torch_npu (which NEEDs
// it) and takes the keys back that both use. torch_npu then registers them again, so they stay valid
// settings. It lies in libge_runner because torch_npu alone loads it after torch: a library that something
// else may have loaded earlier would not be initialised again.
#include <dlfcn.h>

#include <string>
#include <unordered_set>

namespace {

constexpr const char* kSharedKeys[] = {"pinned_reserve_segment_size_mb", "per_process_memory_fraction"};

// libc10's exported accessor: std::unordered_set<std::string>& AcceleratorAllocatorConfig::getMutableKeys().
constexpr const char* kAccessor =
    "_ZN3c1016CachingAllocator26AcceleratorAllocatorConfig14getMutableKeysB5cxx11Ev";

__attribute__((constructor)) void GiveBackSharedKeys() {
  void* c10 = dlopen("libc10.so", RTLD_LAZY | RTLD_NOLOAD);  // only asks whether it is loaded
  if (c10 == nullptr) return;
  using Accessor = std::unordered_set<std::string>& (*)();
  if (auto keys = reinterpret_cast<Accessor>(dlsym(c10, kAccessor))) {
    for (const char* key : kSharedKeys) keys().erase(key);
  }
  dlclose(c10);
}

}  // namespace
