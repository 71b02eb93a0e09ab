// Files in memory whose growth can fail, and that count the calls.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "io/memory_file_system.h"

namespace xtree {

class FaultyFileSystem final : public FileSystem {
 public:
  // Growth fails with kNoSpace where a file would end beyond this many bytes.
  uint64_t bytes_max = UINT64_MAX;
  bool fail_truncate = false;
  bool fail_map = false;
  std::atomic<bool> fail_sync{false};
  uint32_t reserves = 0;
  uint32_t punches = 0;
  uint32_t truncates = 0;
  uint32_t maps = 0;
  uint32_t unmaps = 0;
  uint32_t directory_syncs = 0;
  std::chrono::milliseconds sync_takes{0};
  std::function<void()> before_sync;
  std::function<void()> before_write;  // Of an open file; without this there are none.
  std::atomic<uint32_t> syncs{0};

  Result<FileInfo> Stat(const char* path) override { return files_.Stat(path); }
  Status Reserve(const char* path, uint64_t offset, uint64_t length) override {
    ++reserves;
    if (offset + length > bytes_max) return Status::Make(Code::kNoSpace, "the disk is full");
    return files_.Reserve(path, offset, length);
  }
  Status Punch(const char* path, uint64_t offset, uint64_t length) override {
    ++punches;
    return files_.Punch(path, offset, length);
  }
  Status Truncate(const char* path, uint64_t size_bytes) override {
    ++truncates;
    if (fail_truncate) return Status::Make(Code::kIoError, "no truncation today");
    return files_.Truncate(path, size_bytes);
  }
  Result<std::byte*> Map(const char* path, uint64_t length, bool writable) override {
    ++maps;
    if (fail_map) return Status::Make(Code::kOutOfMemory, "no mapping today");
    return files_.Map(path, length, writable);
  }
  void Unmap(std::byte*, uint64_t) override { ++unmaps; }
  Status Sync(const char* path) override {
    syncs.fetch_add(1);
    if (const auto before = before_sync) before();
    if (sync_takes.count() > 0) std::this_thread::sleep_for(sync_takes);
    if (fail_sync) return Status::Make(Code::kIoError, "no sync today");
    return files_.Sync(path);
  }
  Result<std::unique_ptr<OpenFile>> Open(const char* path) override {
    if (!before_write) return std::unique_ptr<OpenFile>();
    return std::unique_ptr<OpenFile>(std::make_unique<FaultyOpenFile>(this, path));
  }
  void StartWriteback(const char*, uint64_t, uint64_t) override {}
  Status SyncDirectory(const char*) override {
    ++directory_syncs;
    return Status::Ok();
  }
  Status Remove(const char* path) override { return files_.Remove(path); }
  Status CreateDirectory(const char*) override { return Status::Ok(); }

 private:
  class FaultyOpenFile final : public OpenFile {
   public:
    FaultyOpenFile(FaultyFileSystem* fs, const char* path) : fs_(fs), path_(path) {}
    Status Write(uint64_t offset, const std::byte* from, uint64_t length) override {
      fs_->before_write();
      XT_ASSIGN_OR_RETURN(std::byte* base, fs_->files_.Map(path_.c_str(), offset + length, true));
      std::memcpy(base + offset, from, length);
      fs_->files_.Unmap(base, offset + length);
      return Status::Ok();
    }
    Status Sync() override { return fs_->Sync(path_.c_str()); }

   private:
    FaultyFileSystem* const fs_;
    const std::string path_;
  };

  MemoryFileSystem files_;
};

}  // namespace xtree
