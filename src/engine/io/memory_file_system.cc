#include "io/memory_file_system.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>

namespace xtree {

namespace {

constexpr uint64_t kPageBytes = 4096;
// Files from this size on have large pages: with small ones each node visited at random costs a walk of the page
// tables.
constexpr uint64_t kLargePagesFrom = uint64_t{8} << 20;

// Drops the pages of a range, which then reads as zeros. The ends are the caller's to align.
void DropPages(std::byte* base, uint64_t begin, uint64_t end) {
  if (begin < end) XT_ASSERT(madvise(base + begin, end - begin, MADV_DONTNEED) == 0);
}

void ZeroRange(std::byte* base, uint64_t begin, uint64_t end) {
  const uint64_t first = std::min((begin + kPageBytes - 1) / kPageBytes * kPageBytes, end);
  const uint64_t last = std::max(end / kPageBytes * kPageBytes, first);
  std::fill(base + begin, base + first, std::byte{0});
  DropPages(base, first, last);
  std::fill(base + last, base + end, std::byte{0});
}

}  // namespace

MemoryFileSystem::~MemoryFileSystem() {
  for (auto& [path, file] : files_) munmap(file.base, kMemoryFileBytesMax);
}

Status MemoryFileSystem::Missing(const char* path) {
  return Status::NotFound("there is no file \"%s\" in memory", path);
}

Result<FileInfo> MemoryFileSystem::Stat(const char* path) {
  MutexLock lock(&mutex_);
  auto it = files_.find(path);
  if (it == files_.end()) return Missing(path);
  const File& file = it->second;
  return FileInfo{file.size_bytes, file.size_bytes, 0, file.inode};
}

Status MemoryFileSystem::Reserve(const char* path, uint64_t offset, uint64_t length) {
  if (offset > kMemoryFileBytesMax || length > kMemoryFileBytesMax - offset) {
    return Status::Make(Code::kNoSpace, "file \"%s\" in memory cannot grow beyond %" PRIu64
                        " bytes", path, kMemoryFileBytesMax);
  }
  MutexLock lock(&mutex_);
  File& file = files_[path];
  if (file.base == nullptr) {
    void* memory = mmap(nullptr, kMemoryFileBytesMax + kPageBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      const int error = errno;
      files_.erase(path);
      return Status::FromErrno(error, "could not reserve memory for file \"%s\"", path);
    }
    // A mapping is aligned to a page, here to no more than that: whoever relied on more would be wrong
    // on some file systems and, by luck, right on others.
    std::byte* first = static_cast<std::byte*>(memory);
    const bool odd = (reinterpret_cast<uintptr_t>(first) & kPageBytes) != 0;
    file.base = odd ? first : first + kPageBytes;
    XT_ASSERT(munmap(odd ? first + kMemoryFileBytesMax : first, kPageBytes) == 0);
    file.inode = next_inode_++;
  }
  const uint64_t end = offset + length;
  file.size_bytes = std::max(file.size_bytes, end);
  if (file.size_bytes >= kLargePagesFrom && !file.large_pages) {
    file.large_pages = true;
    (void)madvise(file.base, kMemoryFileBytesMax, MADV_HUGEPAGE);  // A hint; the kernel may know none.
  }
  return Status::Ok();
}

Status MemoryFileSystem::Punch(const char* path, uint64_t offset, uint64_t length) {
  MutexLock lock(&mutex_);
  auto it = files_.find(path);
  if (it == files_.end()) return Missing(path);
  File& file = it->second;
  const uint64_t end = std::min(offset + length, file.size_bytes);
  if (offset < end) ZeroRange(file.base, offset, end);
  return Status::Ok();
}

Status MemoryFileSystem::Truncate(const char* path, uint64_t size_bytes) {
  MutexLock lock(&mutex_);
  auto it = files_.find(path);
  if (it == files_.end()) return Missing(path);
  if (size_bytes > kMemoryFileBytesMax) {
    return Status::InvalidArgument("file \"%s\" in memory cannot have %" PRIu64 " bytes", path,
                                   size_bytes);
  }
  File& file = it->second;
  if (size_bytes < file.size_bytes) ZeroRange(file.base, size_bytes, file.size_bytes);
  file.size_bytes = size_bytes;
  return Status::Ok();
}

Result<std::byte*> MemoryFileSystem::Map(const char* path, uint64_t length, bool) {
  XT_ASSERT(length <= kMemoryFileBytesMax);
  MutexLock lock(&mutex_);
  auto it = files_.find(path);
  if (it == files_.end()) return Missing(path);
  return it->second.base;
}

void MemoryFileSystem::Unmap(std::byte*, uint64_t) {}

Status MemoryFileSystem::Sync(const char* path) {
  MutexLock lock(&mutex_);
  return files_.count(path) != 0 ? Status::Ok() : Missing(path);
}

void MemoryFileSystem::StartWriteback(const char*, uint64_t, uint64_t) {}

Status MemoryFileSystem::SyncDirectory(const char*) { return Status::Ok(); }

Status MemoryFileSystem::Remove(const char* path) {
  MutexLock lock(&mutex_);
  auto it = files_.find(path);
  if (it == files_.end()) return Missing(path);
  munmap(it->second.base, kMemoryFileBytesMax);
  files_.erase(it);
  return Status::Ok();
}

Status MemoryFileSystem::CreateDirectory(const char*) { return Status::Ok(); }

}  // namespace xtree
