// DurableStore: nodes in a data file, operations in a delta log, checkpoints ("folds").
//
// One DurableStore is one process's handle of one index; the shared half is IndexShared. Under the
// host several processes have handles on the same IndexShared and the access method holds the
// writer lock; standalone, DurableRuntime does.
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
#include "log/log_reader.h"
#include "store/index_details.h"
#include "store/node_store.h"

namespace xtree {

// Entries of one block of the table directory: block numbers of table pages.
inline constexpr uint32_t kDirectoryEntries = kBlockPayloadBytes / sizeof(uint32_t);

class DurableStore final : public NodeStore, public OperationLog {
 public:
  // Borrows everything. No I/O. `log_path` empty: no log (temp relations): nothing survives a
  // crash.
  DurableStore(IndexShared* shared, FileSystem* fs, WindowBudget* budget, EpochShared* epochs,
               std::string data_path, std::string log_path, ChunkSource chunk_source);
  ~DurableStore() override;

  // Creates an empty index in (possibly existing, then overwritten) files: both superblocks,
  // synced. An identity with a system id makes it a host's index, else it is standalone.
  // kNeedMemory: provide the chunk and call again.
  Status Create(const IndexOptions& options, const Identity& identity, uint32_t timeline);
  // Superblock, object table, log replay. kNeedMemory: provide the chunk and call again (it
  // resumes). kNeedForget: see LogReader::Finish; call again with `policy.may_shorten`. kNotFound: no file
  // or an empty one. kCorruption, kBroken, kUnsupported say why. After any other failure than these the
  // shared half is of no use until ResetShared.
  Status Load(const LoadPolicy& policy);
  // At most `ops_max` operations of the log; not `done` yet: call again, with nobody using the index in
  // between.
  Status LoadStep(const LoadPolicy& policy, uint32_t ops_max, bool* done);
  // The superblock of an empty index.
  static void FillEmptySuperblock(const IndexOptions& options, const Identity& identity,
                                  bool has_log, Superblock* content);

  IndexDetails* details() { return &details_; }
  DeltaLog* log() { return &log_; }
  // Unmaps the windows of both files. No pin may be held.
  void DropWindows();

  // Whether this handle's Load made a copy of another relation's files this relation's own.
  bool adopted() const { return adopted_; }

  // --- StoreInterface.
  void Discard() noexcept override;

  // --- OperationLog.
  Status ReserveFrame(uint32_t payload_bytes) override;
  void AppendInsert(uint32_t tree, const KeySpec& spec, const Key& key, uint64_t record_id,
                    uint64_t lsn) noexcept override;
  void AppendDelete(uint32_t tree, const KeySpec& spec, const Key& bound,
                    const uint64_t* record_ids, uint32_t count, uint64_t lsn) noexcept override;
  bool ReserveInsertShared(const KeySpec& spec, const Key& key, uint64_t record_id,
                           InsertPayload* payload) override;
  void UnreserveInsertShared(const InsertPayload& payload) noexcept override;
  uint64_t LastBlock() const noexcept override { return log_.end_mark() >> 16; }
  void AppendInsertShared(uint32_t tree, const InsertPayload& payload, uint64_t lsn) noexcept override;
  // Standalone: what was applied so far is committed once the log is synced. REQUIRES:
  // ReserveFrame(0).
  void AppendCommit() noexcept;
  uint32_t ops_since_commit() const {
    return shared_->capture.ops_since_commit.load(std::memory_order_relaxed);
  }
  Status SyncLog();            // Plain fdatasync of the log file.
  uint64_t log_bytes() const;  // Since the last capture: what decides a fold.

  // --- Folds. One at a time (FoldBegin returns kBusy otherwise). A failed sync latches the index:
  // FoldBegin then returns kIoError until the index is loaded again, since the kernel reports a
  // lost page only once. Operations go on; the previous capture and the whole log stay.
  // kBusy also for a standalone index with operations that are not committed.
  Status FoldBegin();                   // Writer lock. Fixes the capture, writes table page images
                                        // into fresh blocks, rotates the log.
  uint64_t fold_lsn() const;            // The host flushes its WAL to here before FoldPublish.
  Status FoldWrite(uint32_t blocks_max, bool* done);  // No lock. Stamps nodes, then syncs the data
                                        // file when done; in steps so that a host can be
                                        // interrupted.
  Status FoldPublish();                 // No lock. Writes and syncs the other superblock.
  // Writer lock. Frees what only the old capture used (or, if not published, what the failed one
  // took); with `tidy` false only its table pages, for FoldTidy to do the rest.
  void FoldEnd(bool published, bool tidy = true) noexcept;
  // Writer lock. Before FoldEnd where attaching what others have provided may fail: touches no array,
  // and leaves the fold to be ended later, by FoldEnd, by the next FoldBegin of this handle, or, if the
  // handle has gone, by that of any other. Until then FoldBegin fails with kOutOfMemory.
  void FoldSuspend(bool published) noexcept;
  // Writer lock. Gives back up to `versions_max` node versions that the last fold has set free, which
  // costs a microsecond or two for each; then free space at the end of the file. True: all done.
  bool FoldTidy(uint64_t versions_max) noexcept;

  // Writer lock. What the process's memory may hold of blocks that no capture has (WindowManager::KeepPrivate).
  uint64_t unsaved_bytes() const {
    if (!windows_->keeps_private()) return 0;
    return (shared_->allocator.allocated_blocks.load(std::memory_order_relaxed) - saved_blocks_) *
           kBlockBytes;
  }

  // --- Compaction (durable_compact.cc), between folds; the fold after it makes the file shorter.
  // Where the file could end, or UINT32_MAX: it is not worth while.
  uint32_t CompactLimit() const;
  // Writer lock. Moves up to `nodes_max` nodes that lie at or beyond block `limit` before it.
  // `position` begins at 0 and is kept between the steps. kNeedMemory as Stage*.
  Status CompactStep(uint32_t nodes_max, uint64_t* position, uint32_t limit, bool* done);

  // Whether nodes may be staged unwritten, for WriteStaged: not where stores stay private, or where the host is to be
  // told of each block, to change it once more.
  bool MayWriteStaged() const { return !windows_->keeps_private() && !track_touched_; }
  // From any thread of a bulk load: writes blocks of nodes that were staged unwritten, stamped, from `data`. With
  // `synced` their way to the disk begins, which the fold then need not wait for.
  Status WriteStaged(uint32_t first, uint32_t blocks, std::byte* data, bool synced);
  // All four steps, and a second sync so that both slots name this capture: bulk build. With no
  // concurrent user.
  Status WriteCaptureInPlace();
  // The same in steps of about `blocks_max` blocks. Not `synced`: the capture is in the file, but durable only when the
  // caller has that synced, before which nothing may rely on it.
  Status CaptureStep(uint32_t blocks_max, bool synced, bool* done);
  // Plain fdatasync of the data file.
  Status SyncData();

  // Durable mark: both superblocks say broken. Every use then fails with kBroken.
  Status MarkBroken();

  // Whether a page of either file could not be had: nothing that was read since the windows were
  // mapped is to be trusted, and what was stored may be lost.
  bool faulted() const { return windows_->faults() != 0 || log_.windows()->faults() != 0; }
  Status FaultStatus() const;

  // --- Blocks that changes have touched, for the host's checksums (capi.h, XtTouched).
  void TrackTouched(bool enabled);
  bool NextTouched(uint32_t* block, bool* in_log, void** page);

  // Verifies header and CRC of every block that the index refers to, and that space is accounted
  // for. Writer lock. Appends to `problems`.
  Status CheckBlocks(std::vector<std::string>* problems);
  // The same in steps: the blocks that one page of the object table refers to, beside writers but with an
  // epoch pinned, so that none of them is given back; then, under the writer lock, another look at what
  // was found `damages`d, and the account of space.
  struct Damage {
    uint64_t handle;
    uint32_t block;
  };
  Status CheckTablePage(uint32_t page, std::vector<Damage>* damages,
                        std::vector<std::string>* problems);
  Status CheckSpace(const std::vector<Damage>& damages, std::vector<std::string>* problems);

 private:
  struct Fold;         // A capture in the making (durable_fold.cc).
  struct LoadState;    // What a Load that must be continued has reached (durable_load.cc).

  bool host() const { return (shared_->flags & kIndexFlagHost) != 0; }
  void CountOperation() noexcept;
  const char* IsDamaged(const BlockHeader* header, uint32_t block) const;
  Result<std::byte*> MapSuperblock(uint32_t slot);

  // durable_load.cc
  Status LoadSuperblock(const LoadPolicy& policy);
  Status LoadTable();
  Status LoadTablePage(uint32_t page, uint32_t block);
  Status VerifyTableBlock(uint32_t block, BlockKind kind, uint64_t index, const char* what);
  // Makes the copy of another relation's files this relation's own, if they were at rest.
  Status Adopt(const LoadPolicy& policy);
  Status SyncWhatWasFound();
  Status Replay(const LoadPolicy& policy, uint32_t ops_max, bool* done);
  Status ReplayOne(const LogRecord& record);

  // durable_fold.cc
  Status FoldAllowed() const;
  Status CaptureTable();
  Status CapturePage(uint32_t page);
  Status CaptureDirectory(uint32_t index, const Superblock& previous);
  void FillSuperblock(Superblock* content) const;
  Status CollectImage(size_t image);
  Status StampRun(uint32_t first, uint32_t end);
  void PublishedFold() noexcept;
  void UndoCapture() noexcept;
  void MarkNodesUnstamped() noexcept;

  // durable_takeover.cc
  void AbandonFold() noexcept;  // This handle goes without having ended its fold.
  Status TakeOverFold();        // Ends what a handle that has gone has left.
  Status FindPublished(Fold* fold);
  Status UndoUnpublished();

  // durable_compact.cc
  Status Move(NodeId id, uint32_t limit, bool* full);
  void MoveTablePages(uint32_t limit);

  FileSystem* const fs_;
  bool adopted_ = false;
  uint64_t saved_blocks_ = 0;  // Of those that the allocator has handed out, when the last capture began.
  DeltaLog log_;
  std::unique_ptr<Fold> fold_;
  std::unique_ptr<LoadState> load_;
  std::vector<uint32_t> stamped_;  // While touched blocks are tracked: those that a fold stamped.
  IndexDetails details_;
};

}  // namespace xtree
