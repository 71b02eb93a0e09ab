// Errors as values. No exception crosses a public function of the engine except std::bad_alloc,
// which the C wall (capi.cc) turns into kOutOfMemory.
// Threads: a Status belongs to one thread at a time.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/macros.h"

namespace xtree {

// The values cross capi.h (XtErrorCode). DO NOT REORDER.
enum class Code : uint8_t {
  kOk = 0,
  kInvalidArgument = 1,
  kNotFound = 2,
  kCorruption = 3,   // Bytes read from disk are not what was written.
  kIoError = 4,
  kNoSpace = 5,      // ENOSPC or EDQUOT at growth; nothing changed.
  kOutOfMemory = 6,
  kNeedMemory = 7,   // A shared-memory chunk must be provided first (shared_array.h); then retry.
  kUnsupported = 8,  // Wrong file version, or a feature that this build does not have.
  kBroken = 9,       // The index is marked broken; only a rebuild mends it.
  kBusy = 10,
  kInternal = 11,
  kCancelled = 12,   // The caller's flag said so (tree/bulk_loader.h).
  kNeedForget = 13,  // What is remembered of a log must be forgotten first (log_reader.h); then retry.
};

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK.
  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;
  Status(const Status& other) { *this = other; }
  Status& operator=(const Status& other) {
    rep_ = other.rep_ ? std::make_unique<Rep>(*other.rep_) : nullptr;
    return *this;
  }

  static Status Ok() { return Status(); }
  // printf-style constructors. Messages follow PostgreSQL's grammar: lower case, no final period.
  static Status Make(Code code, const char* format, ...) XT_PRINTF(2, 3);
  static Status InvalidArgument(const char* format, ...) XT_PRINTF(1, 2);
  static Status NotFound(const char* format, ...) XT_PRINTF(1, 2);
  static Status Corruption(const char* format, ...) XT_PRINTF(1, 2);
  static Status Internal(const char* format, ...) XT_PRINTF(1, 2);
  // Maps errno to kNoSpace (ENOSPC, EDQUOT), kNotFound (ENOENT), kOutOfMemory (ENOMEM) or kIoError
  // and appends strerror(error).
  static Status FromErrno(int error, const char* format, ...) XT_PRINTF(2, 3);

  bool ok() const { return rep_ == nullptr; }
  Code code() const { return rep_ ? rep_->code : Code::kOk; }
  const char* message() const { return rep_ ? rep_->message.c_str() : "ok"; }

 private:
  struct Rep {
    Code code;
    std::string message;
  };
  static Status Format(Code code, const char* format, va_list args);
  std::unique_ptr<Rep> rep_;
};

// A value or the reason why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                                // NOLINT
  Result(Status status) : status_(std::move(status)) { XT_ASSERT(!status_.ok()); }  // NOLINT
  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& value() & {
    XT_ASSERT(ok());
    return value_;
  }
  T value() && {  // Moves out of a temporary: auto runtime = Open(...).value().
    XT_ASSERT(ok());
    return std::move(value_);
  }
  T& operator*() { return value(); }
  T* operator->() { return &value(); }

 private:
  Status status_;
  T value_{};
};

}  // namespace xtree
