// Host callbacks: client code in stream order. It may block, so it never runs on a runner or on a waiting
// thread:
//   aclrtLaunchHostFunc  on a thread of the engine that exists for this
//   aclrtLaunchCallback  on the client's thread that subscribed to the stream, inside aclrtProcessReport
#pragma once

#include <cstdint>

#include "base/export.h"
#include "base/status.h"
#include "runtime/plan.h"

namespace anycann {

class Stream;

// Runs the callback at the head of a parked stream wherever it belongs, then calls stream->FinishCallback().
// Takes no lock of the stream; the caller may hold it. False when memory is exhausted.
bool DispatchCallback(Stream* stream, Plan* plan);

// The stream whose callback the calling thread is running; nullptr otherwise.
Stream* CallbackStream();

}  // namespace anycann
