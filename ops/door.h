// The two frames that every generated aclnn entry point goes through.
#pragma once

#include <cstdint>
#include <exception>
#include <new>

#include "base/out_of_memory.h"
#include "ops/call.h"

namespace anycann {

// Ends a phase one that failed: records the error, destroys the executor, answers the code.
ANYCANN_API int32_t FailPhaseOne(aclOpExecutor* executor, const Status& status);
ANYCANN_API Status CheckPhaseOne(const char* op, const uint64_t* workspace_size,
                                 aclOpExecutor* const* executor);

// Phase one: checks the result pointers, creates the executor and lets `body` (Status(Call&)) check handles
// and make the Plan. workspace_size is always 0: kernels take scratch memory from the host.
template <class Body>
int32_t PhaseOne(const char* op, uint64_t* workspace_size, aclOpExecutor** executor, Body&& body) {
  aclOpExecutor* e = nullptr;
  Status status;
  try {
    status = CheckPhaseOne(op, workspace_size, executor);
    if (status.ok()) {
      e = handles::CreateExecutor(op);
      Call call(op, e);
      status = e == nullptr ? OutOfMemory(kCreateExecutor, op) : body(call);
    }
  } catch (const std::bad_alloc&) {
    return FailPhaseOne(e, OutOfMemory(kCreateExecutor, op));
  } catch (const std::exception& x) {
    return FailPhaseOne(e, Error(kInner, "{}: {}", op, x.what()));
  }
  if (!status.ok()) return FailPhaseOne(e, status);
  *workspace_size = 0;
  *executor = e;
  return 0;
}

// Phase two: enqueues the executor's Plan on the stream and, unless the executor is repeatable, ends the
// executor.
ANYCANN_API int32_t PhaseTwo(const char* op, void* workspace, uint64_t workspace_size,
                             aclOpExecutor* executor, void* stream);

// Gives the index-th input or output tensor of a repeatable executor another data address, for the runs to
// come.
ANYCANN_API Status SetOperandAddress(const char* function, aclOpExecutor* executor, bool output, int index,
                                     void* address);

}  // namespace anycann
