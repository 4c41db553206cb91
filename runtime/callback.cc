#include "runtime/callback.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "base/thread.h"
#include "runtime/execute.h"
#include "runtime/stream.h"

namespace anycann {
namespace {

thread_local Stream* callback_stream = nullptr;

void RunCallback(Stream* stream, Plan* plan) {
  callback_stream = stream;
  Status status = ExecutePlan(*plan, stream->device(), stream->id());
  callback_stream = nullptr;
  stream->FinishCallback(std::move(status));
}

// Threads that run host functions. One more starts whenever all are inside a function, since functions may
// wait for each other; they end after some idle time.
class HostThreads {
 public:
  static HostThreads& Get() {
    static HostThreads* t = new HostThreads;  // never destroyed: threads use it until the process ends
    return *t;
  }

  bool Push(Stream* stream, Plan* plan) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (idle_ <= static_cast<int>(queue_.size())) {
      pthread_t id;
      if (StartThread(
              "anycann-host", [this] { Main(); }, &id)) {
        pthread_detach(id);
        ++threads_;
      } else if (threads_ == 0) {
        return false;
      }
    }
    stream->AddRef();
    plan->Ref();
    queue_.push_back({stream, plan});
    condition_.notify_one();
    return true;
  }

 private:
  struct Item {
    Stream* stream;
    Plan* plan;
  };

  void Main() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      ++idle_;
      const bool found =
          condition_.wait_for(lock, std::chrono::seconds(10), [this] { return !queue_.empty(); });
      --idle_;
      if (!found) break;
      const Item item = queue_.front();
      queue_.pop_front();
      lock.unlock();
      RunCallback(item.stream, item.plan);
      item.plan->Unref();
      item.stream->Unref();
      lock.lock();
    }
    --threads_;
  }

  std::mutex mutex_;
  std::condition_variable condition_;
  std::deque<Item> queue_;
  int threads_ = 0, idle_ = 0;
};

}  // namespace

Stream* CallbackStream() { return callback_stream; }

bool DispatchCallback(Stream* stream, Plan* plan) { return HostThreads::Get().Push(stream, plan); }

}  // namespace anycann
