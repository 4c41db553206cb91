// Trace: ANYCANN_TRACE=FILE writes each Plan that runs to a Chrome/Perfetto JSON file. Costs one load when
// off.
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

 private:
  static std::atomic<bool> on_;
};

}  // namespace anycann
