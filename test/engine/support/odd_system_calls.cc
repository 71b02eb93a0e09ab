#include "support/odd_system_calls.h"

#include <liburing.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace {

xtree::OddSystemCalls& Odd() { return xtree::ScopedOddSystemCalls::current; }

// Calls `real` with fewer bytes than asked for, or not at all.
template <typename Real>
ssize_t Shortened(size_t length, Real real) {
  if (!Odd().short_io) return real(length);
  const uint64_t turn = Odd().calls++;
  if (turn % 3 == 0) {
    errno = EINTR;
    return -1;
  }
  return real(std::min<size_t>(length, 1 + turn * 2'053 % 6'000));
}

}  // namespace

extern "C" {

ssize_t __real_pread(int fd, void* to, size_t length, off_t offset);
ssize_t __real_pwrite(int fd, const void* from, size_t length, off_t offset);
int __real_fallocate(int fd, int mode, off_t offset, off_t length);
int __real_io_uring_submit(io_uring* ring);

ssize_t __wrap_pread(int fd, void* to, size_t length, off_t offset) {
  return Shortened(length, [&](size_t some) { return __real_pread(fd, to, some, offset); });
}

ssize_t __wrap_pwrite(int fd, const void* from, size_t length, off_t offset) {
  return Shortened(length, [&](size_t some) { return __real_pwrite(fd, from, some, offset); });
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length) {
  if (!Odd().no_fallocate) return __real_fallocate(fd, mode, offset, length);
  ++Odd().calls;
  errno = EOPNOTSUPP;
  return -1;
}

// The caller has reaped everything before: what is in the queue then is of this submission.
int __wrap_io_uring_submit(io_uring* ring) {
  const int submitted = __real_io_uring_submit(ring);
  if (!Odd().shuffle_completions || submitted <= 0) return submitted;
  ++Odd().calls;
  io_uring_cqe* ignored = nullptr;
  while (io_uring_wait_cqe_nr(ring, &ignored, static_cast<unsigned>(submitted)) == -EINTR) {
  }
  const unsigned head = *ring->cq.khead;
  const unsigned mask = *ring->cq.kring_mask;
  for (unsigned i = 0, j = static_cast<unsigned>(submitted) - 1; i < j; ++i, --j) {
    io_uring_cqe* a = &ring->cq.cqes[(head + i) & mask];
    io_uring_cqe* b = &ring->cq.cqes[(head + j) & mask];
    std::swap(a->user_data, b->user_data);
    std::swap(a->res, b->res);
    std::swap(a->flags, b->flags);
  }
  return submitted;
}

}  // extern "C"
