// The pool behind Object<T>: included by the .cc file of each T, which instantiates it with ANYCANN_OBJECT(T,
// kind).
#pragma once

#include <new>

#include "base/slot_pool.h"
#include "runtime/object.h"

namespace anycann {

template <class T, ObjectKind K>
T* Object<T, K>::New() {
  T* t = SlotPool<T>::Take();
  if (t == nullptr) return nullptr;
  ::new (static_cast<void*>(t)) T();
  t->references_.store(1, std::memory_order_relaxed);
  t->kind_.store(K, std::memory_order_release);
  return t;
}

template <class T, ObjectKind K>
T* Object<T, K>::From(const void* handle) {
  if (handle == nullptr || !SlotPool<T>::Owns(handle)) return nullptr;
  T* t = static_cast<T*>(const_cast<void*>(handle));
  return t->kind_.load(std::memory_order_acquire) == K ? t : nullptr;
}

template <class T, ObjectKind K>
void Object<T, K>::Recycle() {
  T* t = static_cast<T*>(this);
  kind_.store(ObjectKind::kFree, std::memory_order_release);
  t->~T();
  SlotPool<T>::Give(t);
}

#define ANYCANN_OBJECT(T, K) template class Object<T, ObjectKind::K>

}  // namespace anycann
