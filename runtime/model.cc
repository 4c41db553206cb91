#include "runtime/model.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "runtime/event.h"
#include "runtime/execute.h"
#include "runtime/object_pool.h"
#include "runtime/stream.h"

namespace anycann {

ANYCANN_OBJECT(Model, kModel);
ANYCANN_OBJECT(TaskGroup, kTaskGroup);

namespace {

// Codes of stream capture, as clients know them.
constexpr int32_t kCaptureDependency = 107024, kStreamUnjoined = 107025, kModelCaptured = 107026,
                  kStreamCaptured = 107027, kNotCaptured = 107029, kTaskGroupStatus = 107033,
                  kUnmatched = 107036, kInvalidated = 507903;

std::atomic<uint32_t> next_id{1};

Status NotCapturing(const Stream* stream) {
  return Error(kNotCaptured, "stream {} is not being captured; call aclmdlRICaptureBegin first",
               stream->id());
}

// A Plan that stands for whatever the model's node holds when it runs.
Plan* Indirect(Ref<Model> model, size_t node, const Plan& as) {
  Plan* plan = Plan::Create(as.name, as.kind);
  if (plan == nullptr) return nullptr;
  plan->implementation = "node of a captured model";
  plan->cost = as.cost;
  plan->SetKernel([model = std::move(model), node](const Run&) {
    Plan* current = model->Current(node);
    Status status = current->Invoke();
    current->Unref();
    return status;
  });
  return plan;
}

}  // namespace

Model::~Model() {
  for (Node& n : nodes_) n.plan->Unref();
}

Model::Member* Model::Find(const Stream* stream) {
  for (Member& m : members_) {
    if (m.stream.get() == stream) return &m;
  }
  return nullptr;
}

void Model::Join(Stream* stream) {
  Member m;
  m.stream = Ref<Stream>::To(stream);
  members_.push_back(std::move(m));
  stream->set_capture(this);
}

void Model::Detach() {
  for (Member& m : members_) m.stream->set_capture(nullptr);
}

Ref<Model> Model::Of(Stream* stream) {
  Model* m = stream->capture();
  // Another thread may end the capture and destroy the model just now.
  return m != nullptr && m->TryAddRef() ? Ref<Model>::Adopt(m) : Ref<Model>();
}

Status Model::CreateEmpty(Model** out) {
  Model* m = New();
  if (m == nullptr) return Status(kRtMemoryAllocation, "out of memory for a model");
  m->id_ = next_id.fetch_add(1);
  m->state_ = State::kReady;
  *out = m;
  return Status();
}

Status Model::BeginCapture(Stream* stream, Model* into) {
  if (stream->capture() != nullptr)
    return Error(kStreamCaptured, "stream {} is being captured already; end that capture first",
                 stream->id());
  Model* m = into;
  if (m == nullptr) RETURN_IF_ERROR(CreateEmpty(&m));
  m->made_by_capture_ = into == nullptr;
  std::lock_guard<std::mutex> lock(m->mutex_);
  if (m->state_ != State::kReady)
    return Error(kModelCaptured, "model {} is being captured into already", m->id_);
  m->state_ = State::kCapturing;
  m->origin_ = stream;
  m->members_.clear();
  m->Join(stream);
  return Status();
}

Status Model::EndCapture(Stream* stream, Model** out) {
  Ref<Model> m = Of(stream);
  if (!m) return NotCapturing(stream);
  std::lock_guard<std::mutex> lock(m->mutex_);
  if (m->origin_ != stream)
    return Error(kUnmatched, "the capture began on another stream than {}; end it there", stream->id());
  m->Detach();
  Status status;
  if (m->state_ == State::kInvalid)
    status = Error(kInvalidated, "the capture was invalidated: {}", m->invalid_why_);
  const Member* origin = m->Find(stream);
  for (const Member& other : m->members_) {
    if (!status.ok() || other.stream.get() == stream) continue;
    const auto seen = origin->knows.find(other.stream.get());
    if (seen == origin->knows.end() || seen->second < other.last)
      status = Error(
          kStreamUnjoined,
          "stream {} took part in the capture, but stream {} doesn't wait for its last operation; record an "
          "event there and wait for it here before the end",
          other.stream->id(), stream->id());
  }
  m->members_.clear();
  m->state_ = State::kReady;
  if (status.ok()) {
    *out = m.get();
    return status;
  }
  *out = nullptr;
  if (m->made_by_capture_ && m->Close()) m->Unref();
  return status;
}

Status Model::Record(Stream* stream, Plan* plan) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto update = updates_.find(stream);
  if (update != updates_.end()) return Replace(&update->second, plan);
  Member* m = Find(stream);
  if (m == nullptr || state_ == State::kReady) {  // the capture has just ended
    lock.unlock();
    return stream->SubmitNow(plan);
  }
  if (state_ == State::kInvalid) {
    plan->Unref();
    return Error(kInvalidated, "the capture of stream {} was invalidated: {}", stream->id(), invalid_why_);
  }
  try {
    nodes_.push_back({plan, stream, m->group_open});
    if (m->group_open) m->group.push_back(nodes_.size() - 1);
  } catch (const std::bad_alloc&) {
    state_ = State::kInvalid;
    invalid_why_ = "out of memory";
    if (nodes_.empty() || nodes_.back().plan != plan) plan->Unref();
    return Error(kRtMemoryAllocation, "{}: out of memory for the capture", plan->name);
  }
  m->last = nodes_.size();
  return Status();
}

Status Model::RecordEvent(Stream* stream, Event* event) {
  std::lock_guard<std::mutex> lock(mutex_);
  Member* m = Find(stream);
  if (m == nullptr) return NotCapturing(stream);
  Progress progress = m->knows;
  progress[stream] = m->last;
  event->SetCaptured(Ref<Model>::To(this), std::move(progress));
  return Status();
}

Status Model::WaitEvent(Stream* stream, Event* event, const Progress& progress) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (state_ == State::kReady)
    return Error(kCaptureDependency, "event {} was recorded in a capture that has ended; record it again",
                 event->id());
  if (stream->capture() != nullptr && stream->capture() != this)
    return Error(kCaptureDependency, "stream {} and event {} belong to different captures", stream->id(),
                 event->id());
  if (Find(stream) == nullptr) Join(stream);
  Member* m = Find(stream);
  for (const auto& [other, nodes] : progress) m->knows[other] = std::max(m->knows[other], nodes);
  m->last = std::max(m->last, nodes_.size());  // what follows depends on the event
  return Status();
}

void Model::Invalidate(std::string why) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (state_ != State::kCapturing) return;
  state_ = State::kInvalid;
  invalid_why_ = std::move(why);
}

Status Model::Execute(Stream* stream) {
  std::vector<Plan*> plans;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (state_ != State::kReady) return Error(kModelCaptured, "model {} is still being captured", id_);
    plans.reserve(nodes_.size());
    for (size_t i = 0; i < nodes_.size(); ++i) {
      Plan* plan = nodes_[i].plan;
      if (nodes_[i].in_group)
        plan = Indirect(Ref<Model>::To(this), i, *plan);
      else
        plan->Ref();
      if (plan == nullptr) {
        for (Plan* p : plans) p->Unref();
        return Status(kRtMemoryAllocation, "out of memory for a replay");
      }
      plans.push_back(plan);
    }
  }
  return stream->SubmitAll(plans.data(), plans.size());
}

Status Model::Destroy(Model* model) {
  if (!model->Close()) return Status(kRtParamInvalid, "the model was destroyed by another thread");
  std::vector<std::pair<void (*)(void*), void*>> callbacks;
  {
    std::lock_guard<std::mutex> lock(model->mutex_);
    if (model->state_ != State::kReady) {
      model->Detach();
      model->members_.clear();
      model->state_ = State::kReady;
    }
    callbacks.swap(model->destroy_callbacks_);
  }
  for (const auto& [function, data] : callbacks) function(data);
  model->Unref();
  return Status();
}

Status Model::BeginGroup(Stream* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  Member* m = Find(stream);
  if (m == nullptr) return NotCapturing(stream);
  if (m->group_open)
    return Error(kTaskGroupStatus, "stream {} has an open task group; end it first", stream->id());
  m->group_open = true;
  m->group.clear();
  return Status();
}

Status Model::EndGroup(Stream* stream, TaskGroup** out) {
  std::lock_guard<std::mutex> lock(mutex_);
  Member* m = Find(stream);
  if (m == nullptr) return NotCapturing(stream);
  if (!m->group_open) return Error(kTaskGroupStatus, "stream {} has no open task group", stream->id());
  TaskGroup* group = TaskGroup::New();
  if (group == nullptr) return Status(kRtMemoryAllocation, "out of memory for a task group");
  group->model = Ref<Model>::To(this);
  group->nodes = std::move(m->group);
  m->group.clear();
  m->group_open = false;
  *out = group;
  return Status();
}

Status Model::BeginUpdate(Stream* stream, TaskGroup* group) {
  Model* m = group->model.get();
  if (stream->capture() != nullptr)
    return Error(kTaskGroupStatus, "stream {} is being captured, or updates another task group",
                 stream->id());
  std::lock_guard<std::mutex> lock(m->mutex_);
  m->updates_[stream] = {Ref<TaskGroup>::To(group), 0};
  stream->set_capture(m);
  return Status();
}

Status Model::EndUpdate(Stream* stream) {
  Ref<Model> m = Of(stream);
  if (!m) return Error(kTaskGroupStatus, "stream {} updates no task group", stream->id());
  std::lock_guard<std::mutex> lock(m->mutex_);
  const auto it = m->updates_.find(stream);
  if (it == m->updates_.end())
    return Error(kTaskGroupStatus, "stream {} updates no task group", stream->id());
  const size_t given = it->second.next, wanted = it->second.group->nodes.size();
  m->updates_.erase(it);
  stream->set_capture(nullptr);
  if (given == wanted) return Status();
  return Error(kTaskGroupStatus,
               "the task group has {} operations but the update gave {}; the rest keep their arguments",
               wanted, given);
}

// Lock held. Takes over a reference to the Plan.
Status Model::Replace(Update* update, Plan* plan) {
  const std::vector<size_t>& nodes = update->group->nodes;
  if (update->next >= nodes.size()) {
    plan->Unref();
    return Error(kTaskGroupStatus, "{}: the task group that is updated has only {} operations", plan->name,
                 nodes.size());
  }
  std::swap(nodes_[nodes[update->next++]].plan, plan);
  plan->Unref();
  return Status();
}

Plan* Model::Current(size_t node) {
  std::lock_guard<std::mutex> lock(mutex_);
  Plan* plan = nodes_[node].plan;
  plan->Ref();
  return plan;
}

Model::State Model::state() {
  std::lock_guard<std::mutex> lock(mutex_);
  return state_;
}

std::string Model::name() {
  std::lock_guard<std::mutex> lock(mutex_);
  return name_;
}

void Model::set_name(std::string name) {
  std::lock_guard<std::mutex> lock(mutex_);
  name_ = std::move(name);
}

std::string Model::Describe() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::string text = fmt::format("model {}: {} operations\n", id_, nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i)
    text += fmt::format("  {:5} {} ({})\n", i, nodes_[i].plan->name, DescribeOperands(*nodes_[i].plan));
  return text;
}

std::string Model::Json() {
  std::lock_guard<std::mutex> lock(mutex_);
  auto operations = nlohmann::json::array();
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Plan& p = *nodes_[i].plan;
    operations.push_back({{"name", p.name},
                          {"ph", "X"},
                          {"pid", "model"},
                          {"tid", "operations"},
                          {"ts", i},
                          {"dur", 1},
                          {"args",
                           {{"operands", DescribeOperands(p)},
                            {"implementation", p.implementation},
                            {"flops", p.cost.flops},
                            {"bytes", p.cost.bytes}}}});
  }
  return nlohmann::json{{"traceEvents", operations}}.dump(1);
}

void Model::AddDestroyCallback(void (*function)(void*), void* data) {
  std::lock_guard<std::mutex> lock(mutex_);
  destroy_callbacks_.emplace_back(function, data);
}

bool Model::RemoveDestroyCallback(void (*function)(void*)) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = std::find_if(destroy_callbacks_.begin(), destroy_callbacks_.end(),
                               [&](const auto& c) { return c.first == function; });
  if (it == destroy_callbacks_.end()) return false;
  destroy_callbacks_.erase(it);
  return true;
}

}  // namespace anycann
