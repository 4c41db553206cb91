// Host callbacks: client code in stream order. It may block, so it never runs on a runner or on a waiting
// thread:
//   aclrtLaunchHostFunc  on a thread of the engine that exists for this, or on one that subscribed
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

namespace callback {

using Function = void (*)(void*);

// Which of the two kinds of callback a thread subscribes to.
enum class Channel { kReport, kHostFunction };

// Lets `thread` (pthread_self()) run the stream's callbacks, inside Process().
ANYCANN_API Status Subscribe(Channel channel, uint64_t thread, Stream* stream);
// Callbacks of the stream that are still queued are dropped.
ANYCANN_API Status Unsubscribe(Channel channel, uint64_t thread, Stream* stream);
// Runs one callback on the calling thread, which must have subscribed; waits for it up to the timeout
// (negative: no limit).
ANYCANN_API Status Process(Channel channel, int64_t timeout_ns);

// Queues a callback on the stream. `block`: the stream goes on when the callback has returned. On kReport the
// stream needs a subscriber; on kHostFunction a thread of the engine does it otherwise.
ANYCANN_API Status Launch(Channel channel, const char* name, Stream* stream, Function function, void* data,
                          bool block);

}  // namespace callback
}  // namespace anycann
