// A simulated disk: FileSystem, IoQueue and Clock for tests, with faults from one seed.
//
// Fault model. What a test may rely on, and what it may not:
//   Mappings     are private memory of this process, one memory object per file, so all mappings of
//                a file agree, and touching one past the end of the file faults as on a real disk.
//                After Restart the old mappings stay valid memory that no file sees.
//   Sync         makes the file's content and size durable, nothing else.
//   Power cut    keeps of each file what was synced, and of every 4 KiB page changed since then any
//                version: the synced one, one that the kernel wrote back in between, the last one,
//                or a mixture of 512-byte sectors of these. Pages are chosen independently.
//   Sizes        Growth, truncation and punched holes since the last sync survive up to some point
//                in their order (a journal); no page content from after a lost truncation survives.
//   Names        Creations and removals that no SyncDirectory covered are kept or lost, each on its
//                own. Directories themselves are durable at once: an administrator made them.
//   The call     that the crash hits has its effect or has not, and reports an error either way.
//   Failed Sync  as Linux does it: the dirty pages count as clean afterwards, some never reached
//                the disk, and the next Sync succeeds without them. Who retries, loses data.
//   Reservation  A page that is stored to without having been reserved is a violation, since on a
//                full disk the store would have raised SIGBUS. A restart leaves no reservation on a
//                page of zeros: it may have been punched, or the file copied with holes.
//
// Threads:     every method from any thread; but Sync reads pages that others may be storing to,
//              which a thread sanitizer reports.
// Descriptors: one for each file that exists or is mapped.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "io/clock.h"
#include "io/file_system.h"
#include "io/io_queue.h"

namespace xtree {

// Time that passes only when somebody sleeps or a test says so. Threads: any.
class SimClock final : public Clock {
 public:
  uint64_t NowMicros() override { return now_.load(); }
  void SleepMicros(uint64_t micros) override { now_.fetch_add(micros); }
  void Advance(uint64_t micros) { now_.fetch_add(micros); }

 private:
  std::atomic<uint64_t> now_{1};
};

// SplitMix64: enough for choosing faults, the same everywhere.
class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  uint64_t Below(uint64_t bound) { return Next() % bound; }  // REQUIRES: bound > 0.
  bool Coin() { return (Next() & 1) != 0; }

 private:
  uint64_t state_;
};

class SimFileSystem final : public FileSystem {
 public:
  // What is on the disk while the machine is off.
  using Image = std::map<std::string, std::vector<std::byte>>;

  explicit SimFileSystem(uint64_t seed = 1);
  ~SimFileSystem() override;

  // --- FileSystem. Each call but Unmap is one operation.
  Result<FileInfo> Stat(const char* path) override;
  Status Reserve(const char* path, uint64_t offset, uint64_t length) override;
  // No operation: it checks that nothing but reserved zeros is written over.
  void Prefill(const char* path, uint64_t offset, uint64_t length) override;
  Status Punch(const char* path, uint64_t offset, uint64_t length) override;
  Status Truncate(const char* path, uint64_t size_bytes) override;
  Result<std::byte*> Map(const char* path, uint64_t length, bool writable) override;
  void Unmap(std::byte* base, uint64_t length) override;
  Status Sync(const char* path) override;
  // Each Write and Sync of the file is one operation, too.
  Result<std::unique_ptr<OpenFile>> Open(const char* path) override;
  Status Rewrite(const char* path, uint64_t offset, uint64_t length) override;
  void StartWriteback(const char* path, uint64_t offset, uint64_t length) override;
  std::atomic<uint64_t> writeback_bytes{0};  // Asked for so far.
  Status SyncDirectory(const char* path) override;
  Status Remove(const char* path) override;
  Status CreateDirectory(const char* path) override;

  // An IoQueue over this disk; it syncs the files of a batch in an order of the seed's choice.
  std::unique_ptr<IoQueue> NewQueue();

  // --- Faults. `n` counts operations from now; 0 is the next one.
  // The power fails at operation n: it and all later ones return kIoError.
  void CrashAtOperation(uint64_t n);
  // Operation n returns `status` once and has no other effect (but see "Failed Sync").
  void FailOperation(uint64_t n, Status status);
  // From now on all operations of the kinds named in `mask` fail with `status`; 0 ends that.
  enum OperationKind : uint32_t {
    kStat = 1, kReserve = 2, kPunch = 4, kTruncate = 8, kMap = 16, kSync = 32, kWriteback = 64,
    kSyncDirectory = 128, kRemove = 256, kCreateDirectory = 512, kOpen = 1024, kWrite = 2048,
  };
  void FailKinds(uint32_t mask, Status status);
  // The disk's size. Reservations beyond it return kNoSpace.
  void SetCapacity(uint64_t bytes);
  bool crashed() const;
  uint64_t operations() const;
  // "sync /db/a": the operation that the crash hit, for a test's trace.
  std::string crash_operation() const;

  // --- After a crash. Without one, the power fails at this moment.
  // What the disk holds then, for one choice of everything that is left open. Changes nothing.
  Image AfterPowerCut(uint64_t seed) const;
  // The machine comes up again: AfterPowerCut's image, all of it durable, and no fault pending.
  void Restart(uint64_t seed) { Load(AfterPowerCut(seed)); }
  void Load(const Image& image);
  // It was the process that was killed, not the power: another one finds what it left in the page cache, and
  // nothing more has reached the disk. REQUIRES: no mapping is left.
  void ContinueAfterKill();

  // --- Looking and damaging.
  // Current content, as a reader of the file would see it.
  Image Contents() const;
  // Flips bits of a byte, in memory and on the disk. REQUIRES: the file exists and is long enough.
  void Damage(const std::string& path, uint64_t offset, uint8_t mask);
  // Stores to pages that nobody had reserved, as found by syncs and power cuts.
  std::vector<std::string> violations() const;

 private:
  class SimOpenFile;
  struct File;
  using FilePtr = std::shared_ptr<File>;
  static constexpr uint64_t kNever = ~uint64_t{0};

  // Counts one operation and decides its fate; `effect` runs if it takes place.
  Status Operate(OperationKind kind, const char* path, const std::function<Status()>& effect);
  // These, and the effects, run with mutex_ held.
  FilePtr Find(const std::string& path) const;
  void ForgetFaults();
  void FailedSync(File* file);
  void WriteBackSome(File* file, uint64_t first_page, uint64_t pages, uint64_t tries);
  void FindViolations(const std::string& path, const File& file) const;
  uint64_t ReservedBytes() const;

  mutable std::mutex mutex_;  // Guards everything below.
  SimRandom random_;
  std::map<std::string, FilePtr> live_;     // What the running machine sees.
  std::map<std::string, FilePtr> durable_;  // Names as of the last SyncDirectory.
  std::vector<std::string> directories_;
  uint64_t operations_ = 0;
  uint64_t crash_at_ = kNever;
  uint64_t fail_at_ = kNever;
  Status fail_status_;
  uint32_t fail_kinds_ = 0;
  Status fail_kinds_status_;
  uint64_t capacity_ = kNever;
  bool crashed_ = false;
  std::string crash_operation_;
  uint64_t next_inode_ = 1;
  mutable std::vector<std::string> violations_;
};

}  // namespace xtree
