#include "tests/faults/failing_memory.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>

// Who really allocates: glibc, or the sanitizer's runtime, which then still checks every access. This file
// itself is compiled without instrumentation (cmake/tests.cmake).
#if defined(UNDER_ADDRESS_SANITIZER)
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
extern "C" {
void* REAL(malloc)(size_t);
void* REAL(calloc)(size_t, size_t);
void* REAL(realloc)(void*, size_t);
void* REAL(memalign)(size_t, size_t);
void REAL(free)(void*);
}

namespace failing_memory {
namespace {

std::atomic<long> countdown{0}, seen{0};
std::atomic<bool> armed{false}, lasts{false};
std::atomic<int64_t> live{0};

bool Fails() {
  if (!armed.load(std::memory_order_relaxed)) return false;
  seen.fetch_add(1, std::memory_order_relaxed);
  const long left = countdown.fetch_sub(1, std::memory_order_relaxed);
  return left == 0 || (left < 0 && lasts.load(std::memory_order_relaxed));
}

template <class Allocate>
void* Counted(Allocate allocate) {
  void* p = Fails() ? nullptr : allocate();
  if (p == nullptr) return errno = ENOMEM, nullptr;
  live.fetch_add(1, std::memory_order_relaxed);
  return p;
}

}  // namespace

void Arm(long n, bool lasting) {
  countdown = n;
  seen = 0;
  lasts = lasting;
  armed = true;
}

long Disarm() {
  armed = false;
  return seen;
}

int64_t LiveBlocks() { return live; }

}  // namespace failing_memory

using failing_memory::Counted;
using failing_memory::Fails;

extern "C" {
void* malloc(size_t n) {
  return Counted([&] { return REAL(malloc)(n); });
}
void* calloc(size_t n, size_t m) {
  return Counted([&] { return REAL(calloc)(n, m); });
}
void* realloc(void* p, size_t n) {
  if (p == nullptr) return malloc(n);
  if (n != 0 && Fails()) return errno = ENOMEM, nullptr;
  void* moved = REAL(realloc)(p, n);
  if (moved == nullptr && n == 0) failing_memory::live.fetch_sub(1, std::memory_order_relaxed);
  return moved;
}
void* memalign(size_t a, size_t n) {
  return Counted([&] { return REAL(memalign)(a, n); });
}
void* aligned_alloc(size_t a, size_t n) { return memalign(a, n); }
int posix_memalign(void** p, size_t a, size_t n) {
  void* block = memalign(a, n);
  if (block == nullptr) return ENOMEM;
  *p = block;
  return 0;
}
void free(void* p) {
  if (p != nullptr) failing_memory::live.fetch_sub(1, std::memory_order_relaxed);
  REAL(free)(p);
}
void* mmap(void* a, size_t n, int prot, int flags, int fd, off_t offset) {
  static auto real = reinterpret_cast<decltype(&mmap)>(dlsym(RTLD_NEXT, "mmap"));
  if (Fails()) return errno = ENOMEM, MAP_FAILED;
  return real(a, n, prot, flags, fd, offset);
}
int mprotect(void* a, size_t n, int prot) {
  static auto real = reinterpret_cast<decltype(&mprotect)>(dlsym(RTLD_NEXT, "mprotect"));
  if (Fails()) return errno = ENOMEM, -1;
  return real(a, n, prot);
}
}

#if defined(UNDER_ADDRESS_SANITIZER)
// The sanitizer's operator new doesn't come by malloc.
void* operator new(size_t n) {
  if (void* p = malloc(n)) return p;
  throw std::bad_alloc();
}
void* operator new[](size_t n) { return operator new(n); }
void* operator new(size_t n, const std::nothrow_t&) noexcept { return malloc(n); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return malloc(n); }
void operator delete(void* p) noexcept { free(p); }
void operator delete[](void* p) noexcept { free(p); }
void operator delete(void* p, size_t) noexcept { free(p); }
void operator delete[](void* p, size_t) noexcept { free(p); }
#endif
