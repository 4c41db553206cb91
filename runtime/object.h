// Object: what the runtime's opaque handles point to. Objects live in slot pools, so that any pointer a
// client passes can be checked for life and kind before it is used; they are reference-counted, so that a
// handle can be destroyed while Plans that need the object are queued.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>
#include <utility>

#include "base/export.h"

namespace anycann {

enum class ObjectKind : uint32_t {
  kFree = 0,
  kContext = 0xacc10001,
  kStream,
  kFence,
  kEvent,
  kNotify,
  kModel,
  kTaskGroup,
  kMemory,
  kStreamConfig,
};

// T derives from Object<T, kind> and is default-constructible; its destructor runs when the last reference
// goes. The functions that know the pool are defined in object_pool.h, for T's own .cc file: a pool exists
// once, in the engine.
template <class T, ObjectKind K>
class ANYCANN_API Object {
 public:
  T* next_free = nullptr;  // of the pool, while free

  // A live object with one reference, the handle's. nullptr when memory is exhausted.
  static T* New();
  // The object behind a client's handle; nullptr for any pointer that isn't one, or that was closed.
  static T* From(const void* handle);
  // Ends the handle: From() refuses it from now on. False when another thread was faster. The handle's
  // reference is now the caller's to drop.
  bool Close() {
    ObjectKind expected = K;
    return kind_.compare_exchange_strong(expected, ObjectKind::kFree, std::memory_order_acq_rel);
  }
  bool alive() const { return kind_.load(std::memory_order_acquire) == K; }

  // Adds a reference unless the object is gone: for pointers that may be stale.
  bool TryAddRef() {
    int32_t n = references_.load(std::memory_order_relaxed);
    while (n > 0 && !references_.compare_exchange_weak(n, n + 1, std::memory_order_acq_rel)) {
    }
    return n > 0;
  }
  void AddRef() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) Recycle();
  }

 private:
  void Recycle();

  std::atomic<ObjectKind> kind_{ObjectKind::kFree};
  std::atomic<int32_t> references_{0};
};

// A counted pointer to an Object.
template <class T>
class Ref {
 public:
  Ref() = default;
  static Ref Adopt(T* t) {  // takes over a reference
    Ref r;
    r.object_ = t;
    return r;
  }
  static Ref To(T* t) {  // adds one
    if (t != nullptr) t->AddRef();
    return Adopt(t);
  }
  Ref(const Ref& other) : object_(other.object_) {
    if (object_ != nullptr) object_->AddRef();
  }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr) object_->Unref();
  }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  T* Release() { return std::exchange(object_, nullptr); }

 private:
  T* object_ = nullptr;
};

}  // namespace anycann
