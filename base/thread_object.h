// ThreadObject: one T for each thread, made when the thread first asks and destroyed when it ends. In place
// of a thread_local with a destructor: glibc ends the process when it has no memory to register such a
// destructor.
#pragma once

#include <pthread.h>

#include <new>

namespace anycann {

template <class T>
class ThreadObject {
 public:
  // The calling thread's object if it has one.
  static T* Existing() { return object_; }
  // nullptr when memory is exhausted, or while the thread ends.
  static T* Get() {
    if (object_ != nullptr) [[likely]]
      return object_;
    return Make();
  }

 private:
  static T* Make() {
    static pthread_key_t key;
    static const bool has_key = pthread_key_create(&key, End) == 0;
    if (!has_key || ended_) return nullptr;
    T* t = new (std::nothrow) T;
    if (t == nullptr || pthread_setspecific(key, t) != 0) {
      delete t;
      return nullptr;
    }
    return object_ = t;
  }
  static void End(void* p) {
    ended_ = true;
    object_ = nullptr;
    delete static_cast<T*>(p);
  }

  static inline thread_local T* object_ = nullptr;
  static inline thread_local bool ended_ = false;
};

}  // namespace anycann
