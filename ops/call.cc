#include "ops/call.h"

#include "ops/door.h"
#include "runtime/stream.h"

namespace anycann {

std::string Describe(const aclTensor* t) {
  return fmt::format("{} {}", ShapeString(t->view), Name(t->view.dtype));
}

Status Call::NoMemory() const { return Error(kCreateExecutor, "out of memory"); }

Status Call::BadHandle(const void* h, const char* name, const char* kind) const {
  if (h == nullptr)
    return Error(kParamNullptr, "{} is null, expected {} {}", name, kind[0] == 'a' ? "an" : "a", kind);
  return Error(kParamInvalid, "{} ({}) is not a live {}: it was destroyed, or is a handle of another kind",
               name, h, kind);
}

void Call::Register(const aclTensor* t, bool output) {
  int& count = output ? executor_->outputs : executor_->inputs;
  const void** sources = output ? executor_->output_sources : executor_->input_sources;
  if (count < aclOpExecutor::kInlineSources) sources[count] = t;
  ++count;
}

Status Call::Tensor(const aclTensor* t, const char* name, bool output, bool required) {
  if (t == nullptr && !required) {
    Register(t, output);
    return Status();
  }
  if (t == nullptr || !IsAlive(t)) [[unlikely]]
    return BadHandle(t, name, "aclTensor");
  if (t->view.data == nullptr && !t->view.empty()) [[unlikely]]
    return Error(kParamNullptr, "{} has no data address: set one with aclCreateTensor or aclSetRawTensorAddr",
                 name);
  Register(t, output);
  return Status();
}

Status Call::List(const aclTensorList* l, const char* name, bool output, bool required) {
  if (l == nullptr && !required) return Status();
  if (l == nullptr || !IsAlive(l)) return BadHandle(l, name, "aclTensorList");
  for (uint64_t i = 0; i < l->size; ++i) {
    // A list may hold absent members (the indices of aclnnIndex); the operator decides.
    if (l->values[i] == nullptr) {
      Register(nullptr, output);
      continue;
    }
    RETURN_IF_ERROR(Tensor(l->values[i], fmt::format("{}[{}]", name, i).c_str(), output, true));
  }
  return Status();
}

Status Call::RequireShape(const aclTensor* t, const char* name, const int64_t* dims, int rank) const {
  bool same = t->view.rank == rank;
  for (int i = 0; same && i < rank; ++i) same = t->view.dims[i] == dims[i];
  if (same) return Status();
  return Invalid("{} has shape {}, expected {}", name, ShapeString(t->view), ShapeString(dims, rank));
}

Status Call::RequireSameShape(const aclTensor* t, const char* name, const aclTensor* like,
                              const char* like_name) const {
  if (t->view.SameShape(like->view)) return Status();
  return Invalid("{} has shape {}, expected that of {}, {}", name, ShapeString(t->view), like_name,
                 ShapeString(like->view));
}

Status Call::RequireDType(const aclTensor* t, const char* name, DType dtype) const {
  if (t->view.dtype == dtype) return Status();
  return Invalid("{} has type {}, expected {}", name, Name(t->view.dtype), Name(dtype));
}

Status Call::RequireFloating(const aclTensor* t, const char* name) const {
  if (IsFloating(t->view.dtype)) return Status();
  return Invalid("{} has type {}, expected a floating type", name, Name(t->view.dtype));
}

Status Call::RequireFloating(const aclTensor* t, const char* name,
                             std::initializer_list<int64_t> dims) const {
  RETURN_IF_ERROR(RequireShape(t, name, dims.begin(), static_cast<int>(dims.size())));
  return RequireFloating(t, name);
}

Status Call::RequireFloats(const aclTensor* t, const char* name, int64_t count) const {
  if (t->view.numel() != count)
    return Invalid("{} has shape {}, expected {} elements", name, ShapeString(t->view), count);
  return RequireFloating(t, name);
}

Status Call::RequireRank(const aclTensor* t, const char* name, int min_rank, int max_rank) const {
  if (t->view.rank >= min_rank && t->view.rank <= max_rank) return Status();
  return Invalid(
      "{} has {} dimensions ({}), expected {}", name, t->view.rank, ShapeString(t->view),
      min_rank == max_rank ? fmt::format("{}", min_rank) : fmt::format("{} to {}", min_rank, max_rank));
}

Status Call::WrapDim(int64_t dim, int rank, const char* name, int* wrapped) const {
  const int64_t bound = rank == 0 ? 1 : rank;
  if (dim < -bound || dim >= bound)
    return Invalid("{} is {}, expected a value in [{},{}]", name, dim, -bound, bound - 1);
  *wrapped = static_cast<int>(dim < 0 ? dim + bound : dim);
  return Status();
}

Status Call::RequireCastable(DType computed, const aclTensor* out, const char* name) const {
  const DType to = out->view.dtype;
  if (computed == to || computed == DType::kBool) return Status();
  if (to != DType::kBool && (IsComplex(to) || !IsComplex(computed))) return Status();
  return Invalid("{} has type {}, but the result is {} and can't be cast to it", name, Name(to),
                 Name(computed));
}

Status Call::NewPlan(std::span<const Arg> operands, Cost cost, const char* implementation) {
  Plan* plan = Plan::Create(op_, PlanKind::kKernel);
  if (plan == nullptr) return NoMemory();
  executor_->plan = plan;
  if (!plan->ReserveOperands(static_cast<int>(operands.size()))) return NoMemory();
  for (const Arg& a : operands)
    plan->AddOperand(a.view, a.handle, a.handle ? a.handle->base : nullptr, a.output);
  plan->cost = cost;
  plan->implementation = implementation;
  return Status();
}

int32_t FailPhaseOne(aclOpExecutor* executor, const Status& status) {
  handles::Destroy(executor);
  return RecordError(status);
}

Status CheckPhaseOne(const char* op, const uint64_t* workspace_size, aclOpExecutor* const* executor) {
  if (workspace_size != nullptr && executor != nullptr) [[likely]]
    return Status();
  return Error(kParamNullptr, "{}: {} is null", op, workspace_size ? "executor" : "workspaceSize");
}

namespace {

Status RunExecutor(const char* op, void* workspace, uint64_t workspace_size, aclOpExecutor* executor,
                   void* stream) {
  if (!IsAlive(executor)) [[unlikely]]
    return executor == nullptr
               ? Error(kInnerNullptr, "{}: executor is null", op)
               : Error(kParamInvalid,
                       "{}: executor ({}) is not alive: it already ran (set it repeatable to run it "
                       "again), or was destroyed",
                       op, static_cast<void*>(executor));
  if (workspace == nullptr && workspace_size > 0) [[unlikely]]
    return Error(kParamInvalid, "{}: workspace is null but workspaceSize is {}", op, workspace_size);
  Plan* plan = executor->plan;
  if (plan != nullptr) {
    if (executor->repeatable) {
      plan = plan->Clone();
      if (plan == nullptr) return OutOfMemory(kInner, op);
    } else {
      executor->plan = nullptr;
    }
  }
  if (!executor->repeatable) handles::Destroy(executor);
  return plan == nullptr ? Status() : Enqueue(stream, plan);
}

}  // namespace

int32_t PhaseTwo(const char* op, void* workspace, uint64_t workspace_size, aclOpExecutor* executor,
                 void* stream) {
  try {
    const Status status = RunExecutor(op, workspace, workspace_size, executor, stream);
    return status.ok() ? 0 : RecordError(status);
  } catch (const std::bad_alloc&) {
    return RecordError(OutOfMemory(kInner, op));
  }
}

Status SetOperandAddress(const char* function, aclOpExecutor* executor, bool output, int index,
                         void* address) {
  if (index >= aclOpExecutor::kInlineSources)
    return Error(kParamInvalid, "{}: index is {}, only the first {} tensors can be updated", function, index,
                 aclOpExecutor::kInlineSources);
  const void* source = output ? executor->output_sources[index] : executor->input_sources[index];
  if (source == nullptr)
    return Error(kParamInvalid, "{}: tensor {} of {} was null when the executor was made", function, index,
                 executor->op);
  if (executor->plan == nullptr) return Status();
  for (int i = 0; i < executor->plan->operands(); ++i) {
    Operand& o = executor->plan->operand(i);
    if (o.source != source) continue;
    const ptrdiff_t distance = static_cast<char*>(o.view.data) - static_cast<char*>(o.base);
    o.base = address;
    o.view.data = static_cast<char*>(address) + distance;
  }
  return Status();
}

}  // namespace anycann
