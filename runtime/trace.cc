#include "runtime/trace.h"

#include "base/clock.h"

namespace anycann {

std::atomic<bool> Trace::on_{false};

Trace::Span::Span(const Plan& plan, const Device* device, uint32_t stream_id)
    : plan_(plan), device_(device), stream_id_(stream_id), begin_(NowNanoseconds()) {}
Trace::Span::~Span() {
  static_cast<void>(plan_), static_cast<void>(device_), static_cast<void>(stream_id_),
      static_cast<void>(begin_);
}

}  // namespace anycann
