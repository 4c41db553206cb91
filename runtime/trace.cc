#include "runtime/trace.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>

#include "base/clock.h"
#include "base/log.h"
#include "runtime/device.h"
#include "runtime/execute.h"
#include "runtime/machine_limits.h"
#include "runtime/settings.h"

namespace anycann {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr int64_t kFlushNanoseconds = 1000000000;
constexpr const char kEnd[] = "\n]}\n";

// The file. After each write the end of the JSON follows the last event; the next write begins over it.
class File {
 public:
  static File& Get() {
    static File* f = new File;  // never destroyed: Plans may run during exit
    return *f;
  }

  void Add(const Plan& plan, const Device& device, uint32_t stream, int64_t begin, int64_t end) {
    const auto ns = static_cast<double>(std::max<int64_t>(1, end - begin));
    const double compute = plan.cost.flops / (limits_.flops * device.cores()) * 1e9 / ns;
    const double memory = plan.cost.bytes / limits_.bytes * 1e9 / ns;
    std::string text = fmt::format(
        ",\n{{\"name\":\"{}\",\"cat\":\"{}\",\"ph\":\"X\",\"ts\":{:.3f},\"dur\":{:.3f},\"pid\":{},\"tid\":{},"
        "\"args\":{{"
        "\"thread\":{},\"operands\":\"{}\",\"implementation\":\"{}\",\"flops\":{:.0f},\"bytes\":{:.0f},"
        "\"limit\":\"{}\",\"share\":{:.4f}}}}}",
        plan.name, KindName(plan.kind), static_cast<double>(begin - start_) / 1e3, ns / 1e3, device.index(),
        stream, gettid(), DescribeOperands(plan), plan.implementation, plan.cost.flops, plan.cost.bytes,
        compute > memory ? "compute" : "memory", std::max(compute, memory));
    std::lock_guard<std::mutex> lock(mutex_);
    if (streams_.insert({device.index(), stream}).second) NameRow(device.index(), stream);
    buffer_ += text;
    if (buffer_.size() >= kBufferBytes || end - flushed_ > kFlushNanoseconds) Write();
  }

  void Flush() {
    std::lock_guard<std::mutex> lock(mutex_);
    Write();
  }

 private:
  File() : start_(NowNanoseconds()), flushed_(start_) {
    const Settings& settings = GetSettings();
    fd_ = open(settings.trace_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd_ < 0) {
      Log(LogLevel::kWarning, "the trace {} can't be written: {}", settings.trace_file, std::strerror(errno));
      return;
    }
    const int cores = settings.cores_per_device;
    limits_ = MeasureMachine(cores);
    buffer_ = fmt::format(
        "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"flops_per_second\":{:.4g},\"bytes_per_second\":{:.4g}"
        ","
        "\"cores\":{}}},\"traceEvents\":[\n{{\"name\":\"trace_begins\",\"ph\":\"i\",\"ts\":0,\"pid\":0,"
        "\"tid\":0,\"s\":\"g\"}}",
        limits_.flops * cores, limits_.bytes, cores);
    start_ = flushed_ = NowNanoseconds();
    std::atexit([] { Get().Flush(); });
  }

  static const char* KindName(PlanKind kind) {
    switch (kind) {
      case PlanKind::kKernel: return "operator";
      case PlanKind::kCopy: return "copy";
      case PlanKind::kHostCallback: return "callback";
      case PlanKind::kEventRecord:
      case PlanKind::kEventWait:
      case PlanKind::kFlagWait: return "event";
      case PlanKind::kMarker: return "marker";
    }
    return "";
  }

  void NameRow(int device, uint32_t stream) {
    buffer_ += fmt::format(
        ",\n{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{0},\"args\":{{\"name\":\"device {0}\"}}}}"
        ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{0},\"tid\":{1},\"args\":{{\"name\":\"stream "
        "{1}\"}}}}",
        device, stream);
  }

  void Write() {
    flushed_ = NowNanoseconds();
    if (fd_ < 0 || getpid() != process_) {  // a forked child must not write into its parent's file
      buffer_.clear();
      return;
    }
    const size_t events = buffer_.size();
    buffer_ += kEnd;
    for (size_t done = 0; done < buffer_.size();) {
      const ssize_t n =
          pwrite(fd_, buffer_.data() + done, buffer_.size() - done, offset_ + static_cast<off_t>(done));
      if (n <= 0) {
        Log(LogLevel::kWarning, "the trace ends early: {}", std::strerror(errno));
        close(fd_);
        fd_ = -1;
        break;
      }
      done += static_cast<size_t>(n);
    }
    offset_ += static_cast<off_t>(events);
    buffer_.clear();
  }

  std::mutex mutex_;
  int fd_ = -1;
  const pid_t process_ = getpid();
  off_t offset_ = 0;
  std::string buffer_;
  std::set<std::pair<int, uint32_t>> streams_;
  MachineLimits limits_{1, 1};
  int64_t start_, flushed_;
};

bool Wanted() {
  const char* file = std::getenv("ANYCANN_TRACE");
  return file != nullptr && *file != '\0';
}

}  // namespace

std::atomic<bool> Trace::on_{Wanted()};

Trace::Span::Span(const Plan& plan, const Device* device, uint32_t stream_id)
    : plan_(plan), device_(device), stream_id_(stream_id), begin_((File::Get(), NowNanoseconds())) {}

Trace::Span::~Span() {
  const int64_t end = NowNanoseconds();
  try {
    File::Get().Add(plan_, *device_, stream_id_, begin_, end);
  } catch (const std::bad_alloc&) {  // the event is lost
  }
}

void Trace::Flush() {
  if (on()) File::Get().Flush();
}

}  // namespace anycann
