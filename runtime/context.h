// Context: a device as one part of a program sees it, with its default stream. Each thread has a current one.
#pragma once

#include <atomic>
#include <mutex>

#include "base/export.h"
#include "base/status.h"
#include "runtime/device.h"
#include "runtime/object.h"

namespace anycann {

class Stream;

class ANYCANN_API Context : public Object<Context, ObjectKind::kContext> {
 public:
  // A context that the client owns (aclrtCreateContext). Becomes current.
  static Status Create(int device, Context** out);
  static Status Destroy(Context* context);

  // The calling thread's current context; nullptr when it has none (or it was destroyed).
  static Context* Current();
  static void SetCurrent(Context* context);

  // The device's own context, shared by all threads that call aclrtSetDevice; created on first use. nullptr
  // when memory is exhausted.
  static Context* Primary(Device* device);
  static bool HasPrimary(Device* device);
  // Destroys the primary context, with its streams. `force`: queued Plans are dropped.
  static void ResetPrimary(Device* device, bool force);

  Device* device() const { return device_; }
  // Created on first use; nullptr when memory is exhausted.
  Stream* DefaultStream();

 private:
  friend class Object<Context, ObjectKind::kContext>;
  Context() = default;
  ~Context() = default;
  void DestroyStreams(bool force);

  Device* device_ = nullptr;
  std::atomic<Stream*> default_stream_{nullptr};
  std::mutex mutex_;
};

// The device that memory calls of a thread without a context mean: aclInit's "defaultDevice"; -1 when there
// is none.
ANYCANN_API void SetDefaultDevice(int device);
ANYCANN_API int DefaultDevice();

// Makes the device the calling thread's, through its primary context.
ANYCANN_API Status SetDevice(int device);
// Ends one use of the device; the last one synchronises and releases its primary context.
ANYCANN_API Status ResetDevice(int device, bool force);
// Returns when all Plans of all streams of the current device have run, with the first error.
ANYCANN_API Status SynchronizeDevice(int64_t timeout_ns);

}  // namespace anycann
