// FileSystem over POSIX and Linux calls. EINTR is retried beside each call and nowhere else: under
// the host, signals arrive at any time.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "io/file_system.h"

namespace xtree {
namespace {

// Within the host's umask (077, or 027 where group access is allowed) this gives the mode that the
// host gives its own files.
constexpr mode_t kFileMode = 0640;
constexpr mode_t kDirectoryMode = 0750;

template <class Call>
auto RetryInterrupted(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result == -1 && errno == EINTR);
  return result;
}

class FileDescriptor {
 public:
  FileDescriptor(const char* path, int flags)
      : fd_(RetryInterrupted([&] { return open(path, flags | O_CLOEXEC, kFileMode); })) {}
  // Linux releases the descriptor even when close reports EINTR, so it is never repeated. What a
  // close could report about lost writes, the fdatasync before it has reported.
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  bool ok() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  const int fd_;
};

Status OpenError(const char* path) {
  return Status::FromErrno(errno, "could not open file \"%s\"", path);
}

// What is written at a time lies in one large page of the cache where the file system has such. The
// first store of a process to a page of it visits all its blocks and makes all of it dirty.
constexpr size_t kZeros = 16 * 1024;

// Writes zeros over [offset, end). Returns 0 or errno.
int WriteZeros(int fd, uint64_t offset, uint64_t end) {
  static const char zeros[kZeros] = {};
  while (offset < end) {
    const size_t length = std::min<uint64_t>(sizeof(zeros), end - offset);
    const ssize_t written = RetryInterrupted(
        [&] { return pwrite(fd, zeros, length, static_cast<off_t>(offset)); });
    if (written < 0) return errno;
    if (written == 0) return ENOSPC;  // No progress and no reason: what a full device amounts to.
    offset += static_cast<uint64_t>(written);
  }
  return 0;
}

// Reserves by writing zeros into the holes of the range and behind the end of the file. What holds
// data is not touched, since another process may be storing to it.
int ReserveByWriting(int fd, uint64_t offset, uint64_t end, uint64_t old_size) {
  const uint64_t inside_end = std::min(end, old_size);
  uint64_t at = offset;
  while (at < inside_end) {
    const off_t hole = lseek(fd, static_cast<off_t>(at), SEEK_HOLE);
    if (hole < 0 || static_cast<uint64_t>(hole) >= inside_end) break;
    const off_t data = lseek(fd, hole, SEEK_DATA);
    const uint64_t hole_end =
        data < 0 ? inside_end : std::min(static_cast<uint64_t>(data), inside_end);
    const int error = WriteZeros(fd, static_cast<uint64_t>(hole), hole_end);
    if (error != 0) return error;
    at = hole_end;
  }
  return WriteZeros(fd, std::max(offset, old_size), end);
}

bool Unsupported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL;
}

Status SyncError(const char* path) {
  return Status::FromErrno(errno, "could not fsync file \"%s\"", path);
}

Status WriteAll(int fd, const char* path, uint64_t offset, const std::byte* from, uint64_t length) {
  for (uint64_t done = 0; done < length;) {
    const ssize_t written = RetryInterrupted(
        [&] { return pwrite(fd, from + done, length - done, static_cast<off_t>(offset + done)); });
    if (written <= 0) {
      return Status::FromErrno(written < 0 ? errno : ENOSPC, "could not write file \"%s\"", path);
    }
    done += static_cast<uint64_t>(written);
  }
  return Status::Ok();
}

class PosixOpenFile final : public OpenFile {
 public:
  explicit PosixOpenFile(const char* path) : path_(path), file_(path, O_RDWR) {}
  bool ok() const { return file_.ok(); }

  Status Write(uint64_t offset, const std::byte* from, uint64_t length) override {
    return WriteAll(file_.get(), path_.c_str(), offset, from, length);
  }

  // The descriptor is told of every write-back error since it was opened.
  Status Sync() override {
    if (RetryInterrupted([&] { return fdatasync(file_.get()); }) != 0) {
      return SyncError(path_.c_str());
    }
    return Status::Ok();
  }

 private:
  const std::string path_;
  const FileDescriptor file_;
};

class PosixDirectoryLock final : public DirectoryLock {
 public:
  explicit PosixDirectoryLock(const char* path) : directory_(path, O_RDONLY | O_DIRECTORY) {}
  const FileDescriptor& directory() const { return directory_; }

 private:
  const FileDescriptor directory_;
};

class PosixFiles final : public FileSystem {
 public:
  Result<FileInfo> Stat(const char* path) override {
    struct stat st;
    if (RetryInterrupted([&] { return stat(path, &st); }) != 0) {
      return Status::FromErrno(errno, "could not stat file \"%s\"", path);
    }
    return FileInfo{static_cast<uint64_t>(st.st_size), static_cast<uint64_t>(st.st_blocks) * 512,
                    static_cast<uint64_t>(st.st_dev), static_cast<uint64_t>(st.st_ino)};
  }

  Status Reserve(const char* path, uint64_t offset, uint64_t length) override {
    XT_ASSERT(length > 0);
    FileDescriptor file(path, O_RDWR | O_CREAT);
    if (!file.ok()) return OpenError(path);
    struct stat st;
    if (fstat(file.get(), &st) != 0) {
      return Status::FromErrno(errno, "could not stat file \"%s\"", path);
    }
    const uint64_t old_size = static_cast<uint64_t>(st.st_size);
    // The system call, not posix_fallocate: glibc emulates that by rewriting a byte of each block,
    // which would undo a store made through a mapping at the same moment.
    int error = RetryInterrupted([&] {
                  return fallocate(file.get(), 0, static_cast<off_t>(offset),
                                   static_cast<off_t>(length));
                }) == 0
                    ? 0
                    : errno;
    if (Unsupported(error)) {
      error = ReserveByWriting(file.get(), offset, offset + length, old_size);
    }
    if (error == 0) return Status::Ok();
    // A failed reservation may have grown the file part of the way; a size that nobody asked for
    // would be taken for a finished growth later.
    if (fstat(file.get(), &st) == 0 && static_cast<uint64_t>(st.st_size) > old_size) {
      if (RetryInterrupted(
              [&] { return ftruncate(file.get(), static_cast<off_t>(old_size)); }) != 0) {
        return Status::FromErrno(EIO, "could not restore the size of file \"%s\"", path);
      }
    }
    return Status::FromErrno(error, "could not extend file \"%s\" to %llu bytes", path,
                             static_cast<unsigned long long>(offset + length));
  }

  void Prefill(const char* path, uint64_t offset, uint64_t length) override {
    FileDescriptor file(path, O_RDWR);
    // An error that matters comes back with the store or the sync.
    if (file.ok()) (void)WriteZeros(file.get(), offset, offset + length);
  }

  Status Punch(const char* path, uint64_t offset, uint64_t length) override {
    XT_ASSERT(length > 0);
    FileDescriptor file(path, O_RDWR);
    if (!file.ok()) return OpenError(path);
    if (RetryInterrupted([&] {
          return fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(offset), static_cast<off_t>(length));
        }) == 0) {
      return Status::Ok();
    }
    int error = errno;
    if (Unsupported(error)) {
      struct stat st;
      error = fstat(file.get(), &st) == 0 ? 0 : errno;
      if (error == 0) {
        const uint64_t size = static_cast<uint64_t>(st.st_size);
        error = WriteZeros(file.get(), std::min(offset, size), std::min(offset + length, size));
      }
    }
    if (error == 0) return Status::Ok();
    return Status::FromErrno(error, "could not free blocks of file \"%s\"", path);
  }

  Status Truncate(const char* path, uint64_t size_bytes) override {
    if (RetryInterrupted([&] { return truncate(path, static_cast<off_t>(size_bytes)); }) != 0) {
      return Status::FromErrno(errno, "could not truncate file \"%s\" to %llu bytes", path,
                               static_cast<unsigned long long>(size_bytes));
    }
    return Status::Ok();
  }

  Result<std::byte*> Map(const char* path, uint64_t length, bool writable) override {
    XT_ASSERT(length > 0);
    FileDescriptor file(path, writable ? O_RDWR : O_RDONLY);
    if (!file.ok()) return OpenError(path);
    void* base = mmap(nullptr, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
                      file.get(), 0);
    if (base == MAP_FAILED) return Status::FromErrno(errno, "could not map file \"%s\"", path);
    return static_cast<std::byte*>(base);
  }

  bool CanMapPrivate() const override { return true; }

  Result<std::byte*> MapPrivate(const char* path, uint64_t length) override {
    XT_ASSERT(length > 0);
    FileDescriptor file(path, O_RDONLY);
    if (!file.ok()) return OpenError(path);
    // Memory is not to be had in advance for what will be stored to: that is a part, and not known.
    void* base = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                      file.get(), 0);
    if (base == MAP_FAILED) return Status::FromErrno(errno, "could not map file \"%s\"", path);
    return static_cast<std::byte*>(base);
  }

  Status WritePrivate(const char* path, uint64_t offset, std::byte* mapped,
                      uint64_t length) override {
    FileDescriptor file(path, O_WRONLY);
    if (!file.ok()) return OpenError(path);
    XT_RETURN_IF_ERROR(WriteAll(file.get(), path, offset, mapped, length));
    ForgetPrivate(mapped, length);
    return Status::Ok();
  }

  void ForgetPrivate(std::byte* mapped, uint64_t length) override {
    XT_ASSERT(madvise(mapped, length, MADV_DONTNEED) == 0);
  }

  void Unmap(std::byte* base, uint64_t length) override {
    // Fails only for a range that was never mapped, which would be a bug of ours.
    XT_ASSERT(munmap(base, length) == 0);
  }

  // Linux hands a write-back error to whoever opens the file next if nobody has seen it yet, so
  // opening anew for each sync loses none.
  Status Sync(const char* path) override {
    FileDescriptor file(path, O_RDWR);
    if (!file.ok()) return OpenError(path);
    if (RetryInterrupted([&] { return fdatasync(file.get()); }) != 0) return SyncError(path);
    return Status::Ok();
  }

  Result<std::unique_ptr<OpenFile>> Open(const char* path) override {
    auto file = std::make_unique<PosixOpenFile>(path);
    if (!file->ok()) return OpenError(path);
    return std::unique_ptr<OpenFile>(std::move(file));
  }

  Status Rewrite(const char* path, uint64_t offset, uint64_t length) override {
    FileDescriptor file(path, O_RDWR);
    if (!file.ok()) return OpenError(path);
    std::byte buffer[16 * 1024];
    while (length > 0) {
      const size_t piece = std::min<uint64_t>(sizeof(buffer), length);
      const ssize_t read = RetryInterrupted([&] { return pread(file.get(), buffer, piece, static_cast<off_t>(offset)); });
      if (read == 0) break;
      ssize_t done = read;
      if (read > 0) {
        done = RetryInterrupted(
            [&] { return pwrite(file.get(), buffer, static_cast<size_t>(read), static_cast<off_t>(offset)); });
      }
      if (done <= 0) return Status::FromErrno(done < 0 ? errno : ENOSPC, "could not rewrite file \"%s\"", path);
      offset += static_cast<uint64_t>(done);
      length -= static_cast<uint64_t>(done);
    }
    return Status::Ok();
  }

  void StartWriteback(const char* path, uint64_t offset, uint64_t length) override {
    FileDescriptor file(path, O_RDWR);
    if (!file.ok()) return;
    // A hint: an error that matters is reported by Sync.
    (void)sync_file_range(file.get(), static_cast<off_t>(offset), static_cast<off_t>(length),
                          SYNC_FILE_RANGE_WRITE);
  }

  Status SyncDirectory(const char* path) override {
    const char* slash = std::strrchr(path, '/');
    std::string directory = ".";
    if (slash == path) directory = "/";
    else if (slash != nullptr) directory.assign(path, slash);
    FileDescriptor file(directory.c_str(), O_RDONLY | O_DIRECTORY);
    if (!file.ok()) {
      return Status::FromErrno(errno, "could not open directory \"%s\"", directory.c_str());
    }
    if (RetryInterrupted([&] { return fsync(file.get()); }) != 0) {
      return Status::FromErrno(errno, "could not fsync directory \"%s\"", directory.c_str());
    }
    return Status::Ok();
  }

  Status Remove(const char* path) override {
    if (unlink(path) != 0) {
      return Status::FromErrno(errno, "could not remove file \"%s\"", path);
    }
    return Status::Ok();
  }

  Status CreateDirectory(const char* path) override {
    if (mkdir(path, kDirectoryMode) != 0) {
      return Status::FromErrno(errno, "could not create directory \"%s\"", path);
    }
    return Status::Ok();
  }

  // By flock, which tells apart two that open the directory in one process as well.
  Result<std::unique_ptr<DirectoryLock>> LockDirectory(const char* path) override {
    auto lock = std::make_unique<PosixDirectoryLock>(path);
    if (!lock->directory().ok()) return Status::FromErrno(errno, "could not open directory \"%s\"", path);
    if (RetryInterrupted([&] { return flock(lock->directory().get(), LOCK_EX | LOCK_NB); }) != 0) {
      if (errno == EWOULDBLOCK) return Status::Make(Code::kBusy, "directory \"%s\" is in use", path);
      return Status::FromErrno(errno, "could not lock directory \"%s\"", path);
    }
    return std::unique_ptr<DirectoryLock>(std::move(lock));
  }
};

constinit PosixFiles g_files;

}  // namespace

FileSystem* PosixFileSystem() { return &g_files; }

}  // namespace xtree
