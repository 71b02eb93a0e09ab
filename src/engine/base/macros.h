// Assertions, attributes, and the thread-safety annotations that clang checks (-Wthread-safety).
#pragma once

#include <bit>
#include <cstddef>

static_assert(std::endian::native == std::endian::little, "the file formats are little-endian");

#define XT_PRINTF(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#define XT_LIKELY(x) __builtin_expect(!!(x), 1)
#define XT_UNLIKELY(x) __builtin_expect(!!(x), 0)

namespace xtree {
[[noreturn]] void AssertFail(const char* file, int line, const char* expression);
}

// Always on: stops before a bug reaches the disk. Only for what this process computed; bytes from
// disk are input and are tested with Status::Corruption.
#define XT_ASSERT(expression) \
  (XT_LIKELY(expression) ? void(0) : ::xtree::AssertFail(__FILE__, __LINE__, #expression))

#define XT_CONCAT_INNER(a, b) a##b
#define XT_CONCAT(a, b) XT_CONCAT_INNER(a, b)
// Returns the Status of `expression` from the enclosing function unless it is OK.
#define XT_RETURN_IF_ERROR(expression)                    \
  do {                                                    \
    ::xtree::Status xt_status = (expression);             \
    if (XT_UNLIKELY(!xt_status.ok())) return xt_status;   \
  } while (0)
// Declares `lhs` and gives it the value of a Result, or returns its Status.
#define XT_ASSIGN_OR_RETURN(lhs, expression) \
  XT_ASSIGN_OR_RETURN_INNER(XT_CONCAT(xt_result_, __LINE__), lhs, expression)
#define XT_ASSIGN_OR_RETURN_INNER(tmp, lhs, expression) \
  auto tmp = (expression);                              \
  if (XT_UNLIKELY(!tmp.ok())) return tmp.status();      \
  lhs = std::move(tmp.value())

#if defined(__clang__)
#define XT_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define XT_THREAD_ATTRIBUTE(x)
#endif
#define XT_GUARDED_BY(x) XT_THREAD_ATTRIBUTE(guarded_by(x))
#define XT_REQUIRES(...) XT_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define XT_EXCLUDES(...) XT_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))

// In a TSan build the node scans read every shared word through std::atomic_ref, on the portable
// path: vector loads beside a concurrent append are right on the hardware but invisible to TSan.
#if defined(__SANITIZE_THREAD__)
#define XT_TSAN 1
#else
#define XT_TSAN 0
#endif
