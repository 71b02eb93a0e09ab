// DurableRuntime: the engine for a C++ program. Many indexes, in memory or in a directory, many
// threads, group commit, background checkpoints.
//
//   auto runtime = DurableRuntime::Open(options).value();
//   auto index = runtime->CreateIndex("roads", IndexOptions{}).value();
//   index->Insert(key, 17);  index->Commit();                 // durable in STRICT and BALANCED
//   index->Search(predicate, [&](uint64_t id, const double* lo, const double* hi) { ... });
//
// Promises by mode:
//   kInMemory   nothing survives.
//   kStrict     Commit returns when the log is on disk; every Insert or Delete commits by itself.
//   kBalanced   Commit returns when the log is on disk (concurrent committers share one flush).
//   kEventual   Commit returns at once; the log is flushed every flush_interval_ms. After a crash a
//               prefix of the committed operations is there.
// No mode may corrupt. Operations not yet committed are visible to scans of this process at once.
//
// Threads:     everything from any thread. Readers take no lock; insertions into one index run
//              beside each other but where they change its structure, and in STRICT; others take turns.
// Descriptors: none while idle, but one io_uring and the directory, which is locked: a second runtime on it,
//              of this process or another, is refused with kBusy.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/clock.h"
#include "io/file_system.h"
#include "io/io_queue.h"
#include "store/durable_store.h"

namespace xtree {

enum class DurabilityMode : uint8_t { kInMemory, kStrict, kBalanced, kEventual };

struct RuntimeOptions {
  std::string directory;                  // Empty: only in-memory indexes.
  DurabilityMode mode = DurabilityMode::kBalanced;
  uint32_t windows_max = 1024;            // Budget of mapped 1 GiB windows.
  uint64_t log_bytes_fold = 256u << 20;   // Checkpoint when an index's log passes this...
  uint32_t log_percent_fold = 25;         // ...which is this share of its data where that is more...
  // Not 0: what changes in an index stays in this process's memory, up to about so many bytes of each index,
  // until a checkpoint writes it. Otherwise it is stored into the pages of the file, which the kernel writes
  // whenever it likes, and each store to a page that it has written costs a fault: past some tenth of the
  // machine's memory, that is nearly every insertion at random (src/README.md, "Scale").
  uint64_t unsaved_bytes_max = 0;
  uint64_t log_age_fold_ms = 300'000;     // ...or its oldest record is this old.
  uint32_t flush_interval_ms = 50;        // EVENTUAL.
  bool background_checkpoints = true;
  // Logs that may stay open between two commits, until the background finds that no commit has come for 100 ms.
  // Default: 8; 0 without background work, where they would stay open until the index is closed.
  uint32_t logs_open_max = UINT32_MAX;
  FileSystem* fs = nullptr;               // Null: PosixFileSystem().
  Clock* clock = nullptr;                 // Null: SystemClock().
  // Syncs what CommitAll has to. Null: one of its own, or the calls of `fs` if that is given, which a
  // queue would go past. Borrowed; used by one thread at a time.
  IoQueue* queue = nullptr;
};

class Index {
 public:
  using Visitor = std::function<void(uint64_t record_id, const double* lo, const double* hi)>;
  virtual ~Index() = default;
  virtual Status Insert(const Key& key, uint64_t record_id) = 0;
  virtual Status InsertNull(uint64_t record_id) = 0;
  virtual Status Delete(const Key& key, uint64_t record_id, bool* found) = 0;
  // The index must be empty. Not logged: the load is durable when this returns. If it fails after
  // the entries have become visible (a full disk), Checkpoint makes them durable later.
  virtual Status BulkLoad(const double* lo, const double* hi, const uint64_t* record_ids,
                          uint64_t count, uint32_t threads) = 0;
  // An error leaves open whether the operations survive a crash; they stay visible. After a failed
  // sync every later Commit fails, until the index is closed and opened again.
  virtual Status Commit() = 0;
  // Commits, empties the log, and gives free space back.
  virtual Status Checkpoint() = 0;
  virtual Status Search(const Predicate& predicate, const Visitor& visit) = 0;
  virtual Status SearchNull(const Visitor& visit) = 0;
  virtual Status Nearest(const double* point, uint32_t k,
                         const std::function<void(uint64_t, double)>& visit) = 0;
  virtual Status Check(std::vector<std::string>* problems) = 0;
  virtual StoreInterface* store() = 0;    // For scans with their own buffers.
};

class DurableRuntime {
 public:
  static Result<std::unique_ptr<DurableRuntime>> Open(const RuntimeOptions& options);
  virtual ~DurableRuntime() = default;    // Closes all indexes; nothing is lost that was committed.
  virtual Result<Index*> CreateIndex(const std::string& name, const IndexOptions& options) = 0;
  virtual Result<Index*> OpenIndex(const std::string& name) = 0;  // Recovers.
  virtual Status CloseIndex(const std::string& name) = 0;
  virtual Status DropIndex(const std::string& name) = 0;
  virtual Status CommitAll() = 0;         // One batch for all dirty logs.
  virtual EpochReader* reader() = 0;      // This thread's; null if 512 others have one already.
  virtual uint32_t windows_mapped() const = 0;
  virtual WindowStats window_stats() = 0;
};

}  // namespace xtree
