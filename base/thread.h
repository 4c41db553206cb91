// The engine's own threads: named, with every signal blocked, so that a client's handlers run on the client's
// threads.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <functional>
#include <memory>
#include <new>

namespace anycann {

// Starts a thread that runs `body`. False when the system has no more threads or memory.
inline bool StartThread(const char* name, std::function<void()> body, pthread_t* id) {
  struct Start {
    const char* name;
    std::function<void()> body;
  };
  auto* start = new (std::nothrow) Start{name, std::move(body)};
  if (start == nullptr) return false;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int rc = pthread_create(
      id, nullptr,
      [](void* p) -> void* {
        std::unique_ptr<Start> s(static_cast<Start*>(p));
        pthread_setname_np(pthread_self(), s->name);
        s->body();
        return nullptr;
      },
      start);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (rc != 0) delete start;
  return rc == 0;
}

}  // namespace anycann
