#include "base/status.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/mapping_fault.h"

namespace xtree {

namespace {
std::atomic<bool> g_fault_pending{false};
}  // namespace

void NoteMappingFault() noexcept { g_fault_pending.store(true, std::memory_order_relaxed); }
bool MappingFaultPending() noexcept { return g_fault_pending.load(std::memory_order_relaxed); }
void ForgetMappingFaults() noexcept { g_fault_pending.store(false, std::memory_order_relaxed); }

void AssertFail(const char* file, int line, const char* expression) {
  if (MappingFaultPending()) throw MappingFault();
  // stderr is the server log under the host. Nothing here allocates: the heap may be what broke.
  std::fprintf(stderr, "xtree: assertion failed at %s:%d: %s\n", file, line, expression);
  std::fflush(stderr);
  std::abort();
}

Status Status::Format(Code code, const char* format, va_list args) {
  XT_ASSERT(code != Code::kOk);
  va_list measured;
  va_copy(measured, args);
  const int length = std::vsnprintf(nullptr, 0, format, measured);
  va_end(measured);
  Status status;
  status.rep_ = std::make_unique<Rep>();
  status.rep_->code = code;
  if (length > 0) {
    // std::string keeps room for the terminating zero behind its last character.
    status.rep_->message.resize(static_cast<size_t>(length));
    std::vsnprintf(status.rep_->message.data(), static_cast<size_t>(length) + 1, format, args);
  }
  return status;
}

Status Status::Make(Code code, const char* format, ...) {
  va_list args;
  va_start(args, format);
  Status status = Format(code, format, args);
  va_end(args);
  return status;
}

Status Status::InvalidArgument(const char* format, ...) {
  va_list args;
  va_start(args, format);
  Status status = Format(Code::kInvalidArgument, format, args);
  va_end(args);
  return status;
}

Status Status::NotFound(const char* format, ...) {
  va_list args;
  va_start(args, format);
  Status status = Format(Code::kNotFound, format, args);
  va_end(args);
  return status;
}

Status Status::Corruption(const char* format, ...) {
  va_list args;
  va_start(args, format);
  Status status = Format(Code::kCorruption, format, args);
  va_end(args);
  return status;
}

Status Status::Internal(const char* format, ...) {
  va_list args;
  va_start(args, format);
  Status status = Format(Code::kInternal, format, args);
  va_end(args);
  return status;
}

Status Status::FromErrno(int error, const char* format, ...) {
  Code code = Code::kIoError;
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      code = Code::kNoSpace;
      break;
    case ENOENT:
      code = Code::kNotFound;
      break;
    case ENOMEM:
      code = Code::kOutOfMemory;
      break;
    default:
      break;
  }
  va_list args;
  va_start(args, format);
  Status status = Format(code, format, args);
  va_end(args);
  char text[128];
  status.rep_->message += ": ";
  status.rep_->message += strerror_r(error, text, sizeof(text));  // The GNU variant, thread-safe.
  return status;
}

}  // namespace xtree
