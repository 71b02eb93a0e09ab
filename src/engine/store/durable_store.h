// DurableStore: nodes in a data file, operations in a delta log, checkpoints ("folds").
//
// One DurableStore is one process's handle of one index; the shared half is IndexShared. Under the
// host several processes have handles on the same IndexShared and the access method holds the writer
// lock; standalone, DurableRuntime does.
//
// Life: (Create | Load until it does not return kNeedMemory), then operations, folds, scans.
//
// What a crash leaves behind, and who repairs it (src/README.md, "Crash between two steps"):
//   before FoldPublish's sync: the previous capture, untouched, and the whole log.
//   after it:                  the new capture; the old log segments are skipped by sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "checkpoint/superblock.h"
#include "object/epoch.h"
#include "log/delta_log.h"
#include "store/index_details.h"
#include "store/store_interface.h"

namespace xtree {

// Which log records count. Standalone: `host` false; frames count up to the last commit frame.
// Host: a frame counts if its timeline is `current_timeline`, or its LSN is at most the end LSN of
// its timeline (LSN 0 always counts); an unknown timeline is kBroken.
struct TimelineEnd {
  uint32_t timeline;
  uint32_t reserved;
  uint64_t end_lsn;
};
struct LoadPolicy {
  bool host = false;
  uint32_t current_timeline = 1;
  const TimelineEnd* timelines = nullptr;
  uint32_t timeline_count = 0;
  uint64_t lsn_max = ~uint64_t{0};  // A capture LSN beyond it (the end of WAL) is kBroken.
  Identity identity{};              // Compared with the superblock's when host.
};

class DurableStore final : public StoreInterface, public OperationLog {
 public:
  // Borrows everything. No I/O. `log_path` empty: no log (temp relations): nothing survives a crash.
  DurableStore(IndexShared* shared, FileSystem* fs, WindowBudget* budget, EpochShared* epochs,
               std::string data_path, std::string log_path);
  ~DurableStore() override;

  // Creates an empty index in (possibly existing, then overwritten) files: both superblocks, synced.
  Status Create(const IndexOptions& options, const Identity& identity, uint32_t timeline);
  // Superblock, object table, log replay. kNeedMemory: provide the chunk and call again (it resumes).
  // kNotFound: no file or an empty one. kCorruption, kBroken, kUnsupported say why.
  Status Load(const LoadPolicy& policy);

  IndexDetails* details() { return &details_; }
  WindowManager* data_windows() { return &windows_impl_; }

  // --- Shared-memory chunks (base/shared_array.h).
  const ChunkRequest& chunk_request() const { return request_; }
  bool MissingChunk(ChunkRequest* request, uint64_t* ref) const;
  void ProvideChunk(uint32_t array, uint32_t level, uint64_t ref, void* address);

  // --- StoreInterface.
  Result<NodeRef> StageNew(uint32_t tree, uint8_t level, uint32_t order) override;
  Result<NodeRef> StageVersion(NodeId id, uint32_t tree, uint8_t level, uint32_t order) override;
  Status StageFree(NodeId id) override;
  bool has_staged() const override;
  void Publish() noexcept override;
  void Discard() noexcept override;
  Status ReserveNodes(uint64_t nodes, uint32_t order) override;

  // --- OperationLog.
  Status ReserveFrame(uint32_t payload_bytes) override;
  void AppendInsert(uint32_t tree, const KeySpec& spec, const Key& key, uint64_t record_id,
                    uint64_t lsn) noexcept override;
  void AppendDelete(uint32_t tree, const KeySpec& spec, const Key& bound,
                    const uint64_t* record_ids, uint32_t count, uint64_t lsn) noexcept override;
  void AppendCommit() noexcept;
  Status SyncLog();            // Plain fdatasync of the log file.
  uint64_t log_bytes() const;  // Since the last capture: what decides a fold.

  // --- Folds. One at a time (FoldBegin returns kBusy otherwise).
  Status FoldBegin();                   // Writer lock. Fixes the capture, writes table page images
                                        // into fresh blocks, rotates the log.
  uint64_t fold_lsn() const;            // The host flushes its WAL to here before FoldPublish.
  Status FoldWrite(uint32_t blocks_max, bool* done);  // No lock. Stamps nodes, then syncs the data
                                        // file when done; in steps so that a host can be interrupted.
  Status FoldPublish();                 // No lock. Writes and syncs the other superblock.
  void FoldEnd(bool published);         // Writer lock. Frees what only the old capture used (or, if
                                        // not published, what the failed one took).

  // Writes both superblocks for the present state and syncs all, with no concurrent user: bulk build.
  Status WriteCaptureInPlace();
  // Durable mark: both superblocks say broken.
  Status MarkBroken();

 private:
  struct Impl;
  WindowManager windows_impl_;
  ChunkRequest request_{};
  std::unique_ptr<Impl> impl_;
  IndexDetails details_;
};

}  // namespace xtree
