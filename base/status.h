// Status: the one result type of the engine. A code (0 is success, otherwise a published acl/aclnn code) and
// a sentence that says what was wrong, with the value, and what to do.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace anycann {

// Published codes that the engine itself returns. The doors return them unchanged (abi/types.tsv,
// abi/conventions).
enum Code : int32_t {
  kOk = 0,
  // acl runtime
  kInvalidParam = 100000,
  kUninitialized = 100001,
  kRepeatInitialize = 100002,
  kRepeatFinalize = 100037,
  kBadAlloc = 200000,
  kApiNotSupport = 200001,
  kInvalidDevice = 200002,
  kInvalidHandle = 200005,
  kFeatureUnsupported = 200006,
  kStorageOverLimit = 300000,
  kInternalError = 500000,
  kRtParamInvalid = 107000,
  kRtInvalidDevice = 107001,
  kRtInvalidContext = 107002,
  kRtStreamContext = 107003,
  kRtFeatureUnsupported = 207000,
  kRtMemoryAllocation = 207001,
  kRtStreamSyncTimeout = 507046,
  // aclnn
  kParamNullptr = 161001,
  kParamInvalid = 161002,
  kRuntimeError = 361001,
  kInner = 561000,
  kInferShape = 561001,
  kFindKernel = 561003,
  kCreateExecutor = 561101,
  kInnerNullptr = 561103,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(int32_t code, std::string message)
      : code_(code), message_(code == 0 ? nullptr : new (std::nothrow) std::string(std::move(message))) {}
  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;
  Status(const Status& other)
      : code_(other.code_),
        message_(other.message_ ? new (std::nothrow) std::string(*other.message_) : nullptr) {}
  Status& operator=(const Status& other) { return *this = Status(other); }

  bool ok() const { return code_ == 0; }
  int32_t code() const { return code_; }
  const std::string& message() const {
    static const std::string none;
    return message_ ? *message_ : none;
  }

 private:
  int32_t code_ = 0;
  std::unique_ptr<std::string> message_;
};

template <class... A>
Status Error(int32_t code, fmt::format_string<A...> format, A&&... args) {
  return Status(code, fmt::format(format, std::forward<A>(args)...));
}

#define ANYCANN_CONCAT_(a, b) a##b
#define ANYCANN_CONCAT(a, b) ANYCANN_CONCAT_(a, b)
// Returns from the enclosing function when `expr` is not ok.
#define RETURN_IF_ERROR(expr)           \
  do {                                  \
    ::anycann::Status status_ = (expr); \
    if (!status_.ok()) [[unlikely]]     \
      return status_;                   \
  } while (0)

}  // namespace anycann
