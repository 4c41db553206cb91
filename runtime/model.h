// Model: a recorded sequence of Plans, as made by stream capture, that runs again and again without its
// operators' first phases.
//
// While a capture is on, what is submitted to its streams is recorded instead of run, in the order of
// submission over all of them. Since an event's wait is submitted after its record, that order keeps every
// dependency between the streams: a replay runs it as one sequence on one stream, where each kernel has all
// of the device's cores.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/export.h"
#include "base/status.h"
#include "runtime/object.h"
#include "runtime/plan.h"

namespace anycann {

class Event;
class Model;
class Stream;

// How far each stream had come, in nodes of the model.
using Progress = std::map<const Stream*, size_t>;

// Captured Plans whose arguments the client replaces later (aclmdlRICaptureTaskGrp*).
class ANYCANN_API TaskGroup : public Object<TaskGroup, ObjectKind::kTaskGroup> {
 public:
  Ref<Model> model;
  std::vector<size_t> nodes;
};

class ANYCANN_API Model : public Object<Model, ObjectKind::kModel> {
 public:
  enum class State : uint8_t { kCapturing, kInvalid, kReady };

  // Begins a capture on `stream`, into a new model or into `into`, which was made by CreateEmpty.
  static Status BeginCapture(Stream* stream, Model* into);
  static Status CreateEmpty(Model** out);
  static Status EndCapture(Stream* stream, Model** out);
  // The model that `stream` is captured into, with a reference; null when it isn't.
  static Ref<Model> Of(Stream* stream);

  // Of Stream::Submit and Event, for a stream with a capture. Takes over a reference to the Plan.
  Status Record(Stream* stream, Plan* plan);
  Status RecordEvent(Stream* stream, Event* event);
  // `stream` joins the capture that recorded the event.
  Status WaitEvent(Stream* stream, Event* event, const Progress& progress);
  // The capture can't be completed any more: something was asked that can't be recorded.
  void Invalidate(std::string why);

  // Queues all Plans on `stream`.
  Status Execute(Stream* stream);
  static Status Destroy(Model* model);

  Status BeginGroup(Stream* stream);
  Status EndGroup(Stream* stream, TaskGroup** out);
  static Status BeginUpdate(Stream* stream, TaskGroup* group);
  static Status EndUpdate(Stream* stream);
  // The node's Plan as it is now, with a reference.
  Plan* Current(size_t node);

  State state();
  uint32_t id() const { return id_; }
  std::string name();
  void set_name(std::string name);
  std::string Describe();  // one line per Plan
  std::string Json();
  void AddDestroyCallback(void (*function)(void*), void* data);
  bool RemoveDestroyCallback(void (*function)(void*));

 private:
  friend class Object<Model, ObjectKind::kModel>;
  struct Member {
    Ref<Stream> stream;
    size_t last = 0;  // nodes there were after its last own one
    Progress knows;   // what it has waited for
    bool group_open = false;
    std::vector<size_t> group;
  };
  struct Node {
    Plan* plan = nullptr;            // one reference
    const Stream* stream = nullptr;  // identity only
    bool in_group = false;           // may be replaced between replays, so it is looked up when it runs
  };
  struct Update {
    Ref<TaskGroup> group;
    size_t next = 0;
  };

  Model() = default;
  ~Model();
  Member* Find(const Stream* stream);  // lock held
  void Join(Stream* stream);           // lock held
  void Detach();                       // lock held: the streams run again
  Status Replace(Update* update, Plan* plan);

  uint32_t id_ = 0;
  std::mutex mutex_;  // all below
  State state_ = State::kCapturing;
  std::string invalid_why_, name_;
  bool made_by_capture_ = false;  // nobody has its handle before the capture ends
  const Stream* origin_ = nullptr;
  std::vector<Member> members_;
  std::vector<Node> nodes_;
  std::map<const Stream*, Update> updates_;
  std::vector<std::pair<void (*)(void*), void*>> destroy_callbacks_;
};

}  // namespace anycann
