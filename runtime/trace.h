// Trace: ANYCANN_TRACE=FILE writes each Plan that runs to a Chrome/Perfetto JSON file, one row per stream.
// Costs one load when off.
//
// An event's arguments: the thread that ran it, the operands, the implementation, flops and bytes, and the
// share of the machine's limit that it reached: of the rate of multiply-adds or of memory traffic, whichever
// is nearer. The limits are measured once, when the trace begins.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/export.h"
#include "runtime/plan.h"

namespace anycann {

class Device;

class ANYCANN_API Trace {
 public:
  static bool on() { return on_.load(std::memory_order_relaxed); }

  // The time in which one Plan runs on the calling thread.
  class Span {
   public:
    Span(const Plan& plan, const Device* device, uint32_t stream_id);
    ~Span();

   private:
    const Plan& plan_;
    const Device* device_;
    const uint32_t stream_id_;
    const int64_t begin_;
  };

  // Brings the file up to date; it is valid JSON after every call, and at exit.
  static void Flush();

 private:
  static std::atomic<bool> on_;
};

}  // namespace anycann
