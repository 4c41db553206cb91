#include "runtime/callback.h"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "base/thread.h"
#include "runtime/execute.h"
#include "runtime/stream.h"

namespace anycann {
namespace {

constexpr int32_t kNoSubscriber = 107015, kThreadNotSubscribed = 107012, kStreamSubscribed = 107011,
                  kReportTimeout = 507012;

thread_local Stream* callback_stream = nullptr;

void RunCallback(Stream* stream, Plan* plan) {
  Stream* const outer = callback_stream;
  callback_stream = stream;
  Status status = ExecutePlan(*plan, stream->device(), stream->id());
  callback_stream = outer;
  stream->FinishCallback(std::move(status));
}

// Threads that run host functions. One more starts whenever all are inside a function, since functions may
// wait for each other; they end after some idle time.
class HostThreads {
 public:
  static HostThreads& Get() {
    static HostThreads* t = new HostThreads;  // never destroyed: threads use it until the process ends
    static pid_t process = getpid();
    if (process != getpid()) {  // the child of a fork has none of the threads
      process = getpid();
      t = new HostThreads;
    }
    return *t;
  }

  // Takes over a reference to each. False, or std::bad_alloc, when memory is exhausted.
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

// Callbacks for one subscribed thread. Its address is the payload of Plans that block their stream for it.
struct Inbox {
  struct Item {
    Stream* stream;  // parked for it, with a reference; nullptr: the stream went on
    Plan* plan;      // one reference, when a stream is parked
    callback::Function function;
    void* data;
  };
  std::mutex mutex;
  std::condition_variable condition;
  std::deque<Item> items;
  int streams = 0;  // under Subscribers::mutex

  void Push(const Item& item) {
    std::lock_guard<std::mutex> lock(mutex);
    items.push_back(item);
    condition.notify_one();
  }
};

struct Subscribers {
  std::mutex mutex;
  std::map<uint64_t, std::shared_ptr<Inbox>> by_thread;
  std::map<const Stream*, std::pair<uint64_t, std::shared_ptr<Inbox>>> by_stream;

  static Subscribers& Of(callback::Channel channel) {
    static Subscribers* s = new Subscribers[2];  // never destroyed: clients' threads use them during exit
    return s[static_cast<int>(channel)];
  }
  std::shared_ptr<Inbox> Find(const Stream* stream) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto it = by_stream.find(stream);
    return it != by_stream.end() ? it->second.second : nullptr;
  }
};

}  // namespace

Stream* CallbackStream() { return callback_stream; }

bool DispatchCallback(Stream* stream, Plan* plan) {
  stream->AddRef();
  plan->Ref();
  try {
    if (plan->payload != nullptr) {
      static_cast<Inbox*>(plan->payload)->Push({stream, plan, nullptr, nullptr});
      return true;
    }
    if (HostThreads::Get().Push(stream, plan)) return true;
  } catch (const std::bad_alloc&) {
  }
  plan->Unref();
  stream->Unref();
  return false;
}

namespace callback {

Status Subscribe(Channel channel, uint64_t thread, Stream* stream) {
  Subscribers& s = Subscribers::Of(channel);
  std::lock_guard<std::mutex> lock(s.mutex);
  if (s.by_stream.count(stream) != 0)
    return Error(kStreamSubscribed, "stream {} has a subscriber already; unsubscribe it first", stream->id());
  std::shared_ptr<Inbox>& inbox = s.by_thread[thread];
  if (inbox == nullptr) inbox = std::make_shared<Inbox>();
  s.by_stream[stream] = {thread, inbox};
  ++inbox->streams;
  return Status();
}

Status Unsubscribe(Channel channel, uint64_t thread, Stream* stream) {
  Subscribers& s = Subscribers::Of(channel);
  std::shared_ptr<Inbox> inbox;
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    const auto it = s.by_stream.find(stream);
    if (it == s.by_stream.end() || it->second.first != thread)
      return Error(kThreadNotSubscribed, "thread {:#x} is not subscribed to stream {}", thread, stream->id());
    inbox = it->second.second;
    s.by_stream.erase(it);
    if (--inbox->streams == 0) s.by_thread.erase(thread);
  }
  std::deque<Inbox::Item> dropped;
  {
    std::lock_guard<std::mutex> lock(inbox->mutex);
    std::deque<Inbox::Item> kept;
    for (const Inbox::Item& item : inbox->items) (item.stream == stream ? dropped : kept).push_back(item);
    inbox->items.swap(kept);
  }
  for (const Inbox::Item& item : dropped) {
    stream->FinishCallback(
        Error(kThreadNotSubscribed, "{}: the subscriber left before it ran the callback", item.plan->name));
    item.plan->Unref();
    item.stream->Unref();
  }
  return Status();
}

Status Process(Channel channel, int64_t timeout_ns) {
  Subscribers& s = Subscribers::Of(channel);
  std::shared_ptr<Inbox> inbox;
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    const auto it = s.by_thread.find(static_cast<uint64_t>(pthread_self()));
    if (it == s.by_thread.end())
      return Status(kThreadNotSubscribed, "the calling thread is not subscribed to any stream");
    inbox = it->second;
  }
  std::unique_lock<std::mutex> lock(inbox->mutex);
  const auto ready = [&] { return !inbox->items.empty(); };
  if (timeout_ns < 0)
    inbox->condition.wait(lock, ready);
  else if (!inbox->condition.wait_for(lock, std::chrono::nanoseconds(timeout_ns), ready))
    return Error(kReportTimeout, "no callback came within {} ms", timeout_ns / 1000000);
  const Inbox::Item item = inbox->items.front();
  inbox->items.pop_front();
  lock.unlock();
  if (item.stream == nullptr) {
    item.function(item.data);
    return Status();
  }
  RunCallback(item.stream, item.plan);
  item.plan->Unref();
  item.stream->Unref();
  return Status();
}

Status Launch(Channel channel, const char* name, Stream* stream, Function function, void* data, bool block) {
  std::shared_ptr<Inbox> inbox = Subscribers::Of(channel).Find(stream);
  if (inbox == nullptr && channel == Channel::kReport)
    return Error(kNoSubscriber, "{}: stream {} has no subscriber; call aclrtSubscribeReport first", name,
                 stream->id());
  Plan* plan = Plan::Create(name, block ? PlanKind::kHostCallback : PlanKind::kMarker);
  if (plan == nullptr) return Error(kRtMemoryAllocation, "{}: out of memory", name);
  if (block) {
    plan->payload = inbox.get();
    plan->SetKernel([function, data, inbox](const Run&) {
      function(data);
      return Status();
    });
  } else {
    plan->SetKernel([function, data, inbox](const Run&) {
      inbox->Push({nullptr, nullptr, function, data});
      return Status();
    });
  }
  return stream->Submit(plan);
}

}  // namespace callback
}  // namespace anycann
