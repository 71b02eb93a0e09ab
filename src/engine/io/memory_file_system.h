// A FileSystem whose files are anonymous memory: what MemoryStore keeps its nodes in.
//
// Every file is one reservation of kMemoryFileBytesMax of address space, backed by pages only where
// something was stored; so all mappings of a file are the same bytes, and growth moves nothing.
//
// Ownership:   owns the memory of all its files until they are removed or it is destroyed. A mapping
//              stays valid that long; Unmap does nothing.
// Threads:     every method from any thread.
// Durability:  none; Sync succeeds and means nothing.
// Errors:      kOutOfMemory when the address space cannot be reserved; kNoSpace past the file limit.
#pragma once

#include <map>
#include <string>

#include "base/mutex.h"
#include "io/file_system.h"

namespace xtree {

inline constexpr uint64_t kMemoryFileBytesMax = uint64_t{1} << 30;

class MemoryFileSystem final : public FileSystem {
 public:
  MemoryFileSystem() = default;
  ~MemoryFileSystem() override;
  MemoryFileSystem(const MemoryFileSystem&) = delete;

  Result<FileInfo> Stat(const char* path) override;
  Status Reserve(const char* path, uint64_t offset, uint64_t length) override;
  Status Punch(const char* path, uint64_t offset, uint64_t length) override;
  Status Truncate(const char* path, uint64_t size_bytes) override;
  Result<std::byte*> Map(const char* path, uint64_t length, bool writable) override;
  void Unmap(std::byte* base, uint64_t length) override;
  Status Sync(const char* path) override;
  void StartWriteback(const char* path, uint64_t offset, uint64_t length) override;
  Status SyncDirectory(const char* path) override;
  Status Remove(const char* path) override;
  Status CreateDirectory(const char* path) override;

 private:
  struct File {
    std::byte* base = nullptr;
    uint64_t size_bytes = 0;
    uint64_t inode = 0;
    bool large_pages = false;  // Have been asked for.
  };
  static Status Missing(const char* path);

  Mutex mutex_;
  std::map<std::string, File> files_ XT_GUARDED_BY(mutex_);
  uint64_t next_inode_ XT_GUARDED_BY(mutex_) = 1;
};

}  // namespace xtree
