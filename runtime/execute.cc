#include "runtime/execute.h"

#include <immintrin.h>

#include <new>

#include "base/out_of_memory.h"
#include "runtime/settings.h"
#include "runtime/trace.h"

namespace anycann {
namespace {

// Kernels run on clients' threads too, and a client may have set flush-to-zero or unmasked exceptions there.
class FloatingPointMode {
 public:
  FloatingPointMode() : before_(_mm_getcsr()) {
    if ((before_ & ~kFlags) != kDefault) _mm_setcsr(kDefault);
  }
  ~FloatingPointMode() {
    if ((before_ & ~kFlags) != kDefault) _mm_setcsr(before_);
  }

 private:
  static constexpr unsigned kFlags = 0x3f;      // sticky exception flags
  static constexpr unsigned kDefault = 0x1f80;  // round to nearest, all exceptions masked, denormals kept
  const unsigned before_;
};

const bool& EmptyKernels() {
  static const bool empty = GetSettings().empty_kernels;
  return empty;
}

Status Invoke(const Plan& plan) {
  try {
    if (plan.kind == PlanKind::kKernel && EmptyKernels()) [[unlikely]]
      return Status();
    return plan.Invoke();
  } catch (const std::bad_alloc&) {
    return OutOfMemory(kBadAlloc, plan.name);
  } catch (const std::exception& e) {
    return Error(kInternalError, "unexpected failure: {}", e.what());
  } catch (...) {
    return Status(kInternalError, "unexpected failure");
  }
}

}  // namespace

std::string DescribeOperands(const Plan& plan) {
  std::string inputs, outputs;
  for (int i = 0; i < plan.operands(); ++i) {
    std::string& list = plan.operand(i).output ? outputs : inputs;
    if (!list.empty()) list += ' ';
    list += Name(plan.operand(i).view.dtype) + ShapeString(plan.operand(i).view);
  }
  return inputs + " -> " + outputs;
}

Status ExecutePlan(const Plan& plan, Device* device, uint32_t stream_id) noexcept {
  const FloatingPointMode mode;
  const ThreadPool::Scope scope(device->pool());
  Status status;
  if (Trace::on()) [[unlikely]] {
    const Trace::Span span(plan, device, stream_id);
    status = Invoke(plan);
  } else {
    status = Invoke(plan);
  }
  if (status.ok()) [[likely]]
    return status;
  try {
    std::string where = plan.operands() > 0 ? fmt::format(" ({})", DescribeOperands(plan)) : std::string();
    const bool named = status.message().rfind(plan.name, 0) == 0;
    return Error(status.code(), "{}{}{}{} [stream {}, device {}]", named ? "" : plan.name, named ? "" : ": ",
                 status.message(), where, stream_id, device->index());
  } catch (const std::bad_alloc&) {
    return status;
  }
}

}  // namespace anycann
