// The engine's one seam to files and mappings. Tests wrap or simulate it (testing/sim_file_system.h).
//
// A store into a mapping cannot be intercepted, so the seam is Map and Sync: the simulator maps
// private memory, and a crash keeps what was synced and any subset of the rest, since the kernel may
// write back any dirty page at any time.
//
// Threads:     every method from any thread.
// Descriptors: none is kept. Each call opens the file, does its work and closes it; only an OpenFile and a
//              DirectoryLock have one.
// Paths:       relative to the process's directory or absolute; names are the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/status.h"

namespace xtree {

struct FileInfo {
  uint64_t size_bytes;
  uint64_t disk_bytes;  // st_blocks * 512: what it occupies, holes excluded.
  uint64_t device;
  uint64_t inode;
};

// A file that stays open while this lives. It must keep its name for as long. Threads: every method from any
// thread.
class OpenFile {
 public:
  virtual ~OpenFile() = default;
  // What a store into a mapping does, for a page that the last sync has cleaned cheaper than the fault of one.
  // REQUIRES: reserved.
  virtual Status Write(uint64_t offset, const std::byte* from, uint64_t length) = 0;
  // As FileSystem::Sync.
  virtual Status Sync() = 0;
};

// While this lives nobody else has the lock of the directory, in this process or another. The end of the process
// releases it, however it comes.
class DirectoryLock {
 public:
  virtual ~DirectoryLock() = default;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // kNotFound if there is no such file.
  virtual Result<FileInfo> Stat(const char* path) = 0;
  // Makes [offset, offset + length) exist with its blocks reserved, creating the file if needed and
  // never shrinking it. New bytes are zeros. A full disk is kNoSpace and leaves the size unchanged.
  virtual Status Reserve(const char* path, uint64_t offset, uint64_t length) = 0;
  // Puts reserved bytes into the page cache as the zeros that they are, so that the first store to each
  // page need not fetch it: a system call does for many pages what costs a fault half as much again
  // for each. A hint; may do nothing. REQUIRES: reserved, and not stored to since.
  virtual void Prefill(const char* path, uint64_t offset, uint64_t length) {
    (void)path, (void)offset, (void)length;
  }
  // Gives the blocks of the range back; it reads as zeros. Best effort where the file system cannot
  // punch: the range is then zeroed.
  virtual Status Punch(const char* path, uint64_t offset, uint64_t length) = 0;
  virtual Status Truncate(const char* path, uint64_t size_bytes) = 0;
  // Maps `length` bytes from offset 0, shared and writable (or read-only). The mapping may be longer
  // than the file; touching bytes past the end of the file is the caller's bug (SIGBUS). The address
  // is aligned to a page of 4 KiB, not to a block.
  virtual Result<std::byte*> Map(const char* path, uint64_t length, bool writable) = 0;
  virtual void Unmap(std::byte* base, uint64_t length) = 0;
  // Where this is true a file can also be mapped so that stores stay in the process's memory: the kernel
  // writes none of them by itself, and other mappings do not see them, until WritePrivate.
  virtual bool CanMapPrivate() const { return false; }
  virtual Result<std::byte*> MapPrivate(const char* path, uint64_t length) {
    return Map(path, length, true);
  }
  // Writes [mapped, mapped + length) of a private mapping into the file, at `offset`, and gives the memory
  // back: the mapping then shows the file. Durable with the next Sync. If it fails, the stores are still
  // in memory. REQUIRES: whole pages, to which nobody stores meanwhile.
  virtual Status WritePrivate(const char* path, uint64_t offset, std::byte* mapped,
                              uint64_t length) {
    (void)path, (void)offset, (void)mapped, (void)length;
    return Status::Ok();
  }
  // Forgets what was stored to a range of a private mapping, which then shows the file. The same REQUIRES.
  virtual void ForgetPrivate(std::byte* mapped, uint64_t length) { (void)mapped, (void)length; }
  // fdatasync of everything stored in the file, through mappings too (private ones excepted). A failed sync is never
  // retried as if it had worked: the caller latches.
  virtual Status Sync(const char* path) = 0;
  // A file that is synced again and again, to be kept open by a caller who counts them. Null: not here.
  virtual Result<std::unique_ptr<OpenFile>> Open(const char* path) {
    (void)path;
    return std::unique_ptr<OpenFile>();
  }
  // Makes the next Sync write a range again, as it reads now: a failed sync has left pages in the cache that count as
  // clean and are not on disk. REQUIRES: reserved, and nobody stores to it meanwhile.
  virtual Status Rewrite(const char* path, uint64_t offset, uint64_t length) {
    (void)path, (void)offset, (void)length;
    return Status::Ok();
  }
  // Starts write-back of a range without waiting (a hint; may do nothing).
  virtual void StartWriteback(const char* path, uint64_t offset, uint64_t length) = 0;
  // Makes the creation or removal of names in the directory of `path` durable.
  virtual Status SyncDirectory(const char* path) = 0;
  virtual Status Remove(const char* path) = 0;
  virtual Status CreateDirectory(const char* path) = 0;
  // kBusy: somebody has it. Null: files here are this process's own, or nobody counts on it.
  virtual Result<std::unique_ptr<DirectoryLock>> LockDirectory(const char* path) {
    (void)path;
    return std::unique_ptr<DirectoryLock>();
  }
};

// The process-wide POSIX implementation.
FileSystem* PosixFileSystem();

}  // namespace xtree
