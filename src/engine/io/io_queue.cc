#include "io/io_queue.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace xtree {
namespace {

// Files open at once, and requests in flight: the most descriptors that a batch of any size needs.
constexpr uint32_t kFilesOpenMax = 64;

int OpenForSync(const std::string& path) {
  int fd;
  do {
    fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

// Returns 0 or errno.
int DataSync(int fd) {
  while (fdatasync(fd) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

// Starts to write out what is dirty, without waiting: with all files of a batch under way together, their syncs
// find their writes done or being done, where each would else begin with its own. An error is
// reported by the sync.
void StartWriteback(int fd) {
  (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

Status SyncError(int error, const std::string& path) {
  if (error == 0) return Status::Ok();
  return Status::FromErrno(error, "could not fsync file \"%s\"", path.c_str());
}

// Opens the files and starts their write-back. -1 for one that cannot be opened, whose status says so.
void OpenAll(SyncRequest* requests, uint32_t count, int* fds) {
  for (uint32_t i = 0; i < count; ++i) {
    fds[i] = OpenForSync(requests[i].path);
    if (fds[i] >= 0) {
      StartWriteback(fds[i]);
    } else {
      requests[i].status =
          Status::FromErrno(errno, "could not open file \"%s\"", requests[i].path.c_str());
    }
  }
}

class PortableIoQueue final : public IoQueue {
 public:
  void SyncAll(std::vector<SyncRequest>* batch) override {
    for (size_t begin = 0; begin < batch->size(); begin += kFilesOpenMax) {
      const uint32_t count =
          static_cast<uint32_t>(std::min<size_t>(kFilesOpenMax, batch->size() - begin));
      SyncSome(batch->data() + begin, count);
    }
  }
  const char* name() const override { return "portable"; }

 private:
  static void SyncSome(SyncRequest* requests, uint32_t count) {
    int fds[kFilesOpenMax];
    OpenAll(requests, count, fds);
    for (uint32_t i = 0; i < count; ++i) {
      if (fds[i] < 0) continue;
      requests[i].status = SyncError(DataSync(fds[i]), requests[i].path);
      close(fds[i]);
    }
  }
};

class UringIoQueue final : public IoQueue {
 public:
  // Takes over an initialized ring of kFilesOpenMax entries.
  explicit UringIoQueue(const io_uring& ring) : ring_(ring) {}
  ~UringIoQueue() override {
    if (usable_) io_uring_queue_exit(&ring_);
  }

  void SyncAll(std::vector<SyncRequest>* batch) override {
    for (size_t begin = 0; begin < batch->size(); begin += kFilesOpenMax) {
      const uint32_t count =
          static_cast<uint32_t>(std::min<size_t>(kFilesOpenMax, batch->size() - begin));
      SyncSome(batch->data() + begin, count);
    }
  }
  const char* name() const override { return usable_ ? "io_uring" : "portable"; }

 private:
  enum class Progress : uint8_t { kOpen, kSubmitted, kDone };

  void SyncSome(SyncRequest* requests, uint32_t count);
  uint32_t Submit(uint32_t queued, Progress* progress, const uint32_t* order);
  bool ReapOne(SyncRequest* requests, const int* fds, Progress* progress);

  io_uring ring_;
  bool usable_ = true;  // False once the ring itself has failed; plain calls from then on.
};

// Hands `queued` prepared requests to the kernel; returns how many it took.
uint32_t UringIoQueue::Submit(uint32_t queued, Progress* progress, const uint32_t* order) {
  uint32_t taken = 0;
  while (taken < queued) {
    const int result = io_uring_submit(&ring_);
    if (result == -EINTR) continue;
    if (result <= 0) break;
    for (int i = 0; i < result; ++i) progress[order[taken++]] = Progress::kSubmitted;
  }
  return taken;
}

// Waits for one completion and records it; false if the ring has failed.
bool UringIoQueue::ReapOne(SyncRequest* requests, const int* fds, Progress* progress) {
  io_uring_cqe* cqe = nullptr;
  int result;
  do {
    result = io_uring_wait_cqe(&ring_, &cqe);
  } while (result == -EINTR);
  if (result < 0) return false;
  const uint32_t i = static_cast<uint32_t>(cqe->user_data);
  int error = -cqe->res;
  io_uring_cqe_seen(&ring_, cqe);
  // These say that the sync did not run, not that it failed.
  if (error == EINTR || error == EAGAIN || error == ECANCELED) error = DataSync(fds[i]);
  requests[i].status = SyncError(error, requests[i].path);
  progress[i] = Progress::kDone;
  return true;
}

void UringIoQueue::SyncSome(SyncRequest* requests, uint32_t count) {
  XT_ASSERT(count <= kFilesOpenMax);
  int fds[kFilesOpenMax];
  Progress progress[kFilesOpenMax];
  uint32_t order[kFilesOpenMax];  // Requests in the order of their queue entries.
  uint32_t queued = 0;
  OpenAll(requests, count, fds);
  for (uint32_t i = 0; i < count; ++i) {
    progress[i] = fds[i] < 0 ? Progress::kDone : Progress::kOpen;
    if (fds[i] < 0) continue;
    io_uring_sqe* sqe = usable_ ? io_uring_get_sqe(&ring_) : nullptr;
    if (sqe == nullptr) continue;
    io_uring_prep_fsync(sqe, fds[i], IORING_FSYNC_DATASYNC);
    sqe->user_data = i;
    order[queued++] = i;
  }
  const uint32_t submitted = queued > 0 ? Submit(queued, progress, order) : 0;
  bool ring_ok = submitted == queued;
  for (uint32_t reaped = 0; reaped < submitted; ++reaped) {
    if (!ReapOne(requests, fds, progress)) {
      ring_ok = false;
      break;
    }
  }
  if (!ring_ok) {
    // Entries left in the ring name descriptors that are closed below, so the ring must go.
    io_uring_queue_exit(&ring_);
    usable_ = false;
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (progress[i] == Progress::kOpen) {
      requests[i].status = SyncError(DataSync(fds[i]), requests[i].path);
    } else if (progress[i] == Progress::kSubmitted) {
      // Its result is lost, and Linux reports a failed write-back once: a second sync that succeeds
      // would prove nothing.
      requests[i].status = SyncError(EIO, requests[i].path);
    }
    if (fds[i] >= 0) close(fds[i]);
  }
}

}  // namespace

std::unique_ptr<IoQueue> NewPortableIoQueue() { return std::make_unique<PortableIoQueue>(); }

std::unique_ptr<IoQueue> NewIoQueue(std::string* why_portable) {
  io_uring ring;
  std::memset(&ring, 0, sizeof(ring));
  const int result = io_uring_queue_init(kFilesOpenMax, &ring, 0);
  if (result < 0) {
    if (why_portable != nullptr) {
      *why_portable = std::string("io_uring is not available: ") +
                      Status::FromErrno(-result, "io_uring_setup").message();
    }
    return NewPortableIoQueue();
  }
  return std::make_unique<UringIoQueue>(ring);
}

}  // namespace xtree
