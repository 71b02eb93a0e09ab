// IndexShared: everything about one open index that all processes (or threads) share, and that is
// rebuilt after a restart from superblock, object table and log. Zeroed memory of sizeof(IndexShared)
// bytes, provided by the owner (the access method's registry, or DurableStore / MemoryStore).
//
// Who may write what: unless a member says otherwise, under the index's writer lock; members that are
// read without it are atomics.
//
// What writers beside each other store to lies on cache lines of its own (kCacheLineBytes), apart from what
// everybody only reads: else each insertion would take the root's line away from all other processors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/shared_array.h"
#include "object/object_table.h"
#include "segment/segment_allocator.h"
#include "tree/geometry.h"

namespace xtree {

inline constexpr uint32_t kCacheLineBytes = 64;
inline constexpr uint32_t kTrees = 2;         // 0: the keys. 1: rows whose key is NULL or unordered
inline constexpr uint32_t kTreeMain = 0;      //    (has a NaN coordinate), a 1-D f64 point tree of
inline constexpr uint32_t kTreeNull = 1;      //    NullTreeKey values.
inline constexpr uint32_t kTreeLevelsMax = 16;

// The root's NodeID never changes: a root split gives the root a new version one level up. So a
// reader finds the root at its own epoch like any other node.
struct TreeShared {
  KeySpec spec;                               // Constant after Create/Open.
  uint8_t reserved[5];
  std::atomic<uint64_t> root;                 // NodeId value; 0 while the tree is empty.
  std::atomic<uint32_t> height;               // 0 empty, 1 a single leaf. Statistics: readers take
                                              // a node's level from its header.
  std::atomic<uint32_t> supernodes;           // Inner nodes of more than one extent order above base.
  std::atomic<uint64_t> nodes_by_level[kTreeLevelsMax];
  alignas(kCacheLineBytes) std::atomic<uint64_t> entries;
};

// Identity of the relation that the files belong to, and of the cluster; zeros standalone. Stored in
// superblock and log header, so that a copy or a stale file is noticed.
struct Identity {
  uint64_t system_id;
  uint32_t tablespace;
  uint32_t database;
  uint32_t relation;   // relfilenode
  uint32_t backend;    // Temp relations: backend id; else 0.
};
static_assert(sizeof(Identity) == 24);

// How far a fold has come that its handle has not ended.
enum class FoldFate : uint32_t { kNone = 0, kUnpublished, kInDoubt, kPublished };

struct CaptureShared {
  std::atomic<uint64_t> durable_epoch;   // Epoch of the last published (durable) capture.
  std::atomic<uint64_t> pending_epoch;   // Epoch of the capture being written, else durable_epoch.
  std::atomic<uint64_t> capture_lsn;     // Highest operation LSN in the durable capture.
  uint64_t capture_id;                   // Random, per durable capture.
  uint64_t sequence;                     // Superblock sequence of the durable capture.
  uint32_t directory_blocks;             // Table directory of the durable capture: how many blocks,
  uint32_t superblock_slot;              // and the slot (block 0 or 1) that names it.
  std::atomic<uint32_t> fold_running;
  std::atomic<uint32_t> ops_since_commit;  // Standalone: a capture waits until this is 0.
  std::atomic<uint64_t> folds;
  std::atomic<uint32_t> abandoned;       // FoldFate of a fold whose handle has gone before ending it,
  uint64_t abandoned_log_bytes;          // and the log that its capture makes superfluous.
};

// "Under the writer lock" is, for what an append changes: also under the latch, where others append beside
// (the lock is then taken shared, so no block is opened meanwhile).
struct LogShared {
  std::atomic<uint64_t> start_seq;       // First log segment sequence that recovery needs.
  std::atomic<uint64_t> current_seq;     // Segment being appended to; 0 before the log exists.
  uint32_t current_segment;              // Its place in the log file (segment number).
  uint32_t current_block;                // Block within it (current_offset: below).
  std::atomic<uint32_t> file_blocks;     // Reserved blocks of the log file.
  std::atomic<uint64_t> synced_ops;      // Standalone group commit: ops known durable.
  uint32_t timeline;                     // Engine timeline of new frames.
  uint32_t sealed;                       // The next frame opens a new segment.
  uint32_t previous_end;                 // While sealed: frame position at which the last block ended.
  uint32_t free_hint;                    // No segment below this one is free.
  uint32_t punched_end;                  // From there up to this one all are, and read as zeros.
  uint64_t capture_id;                   // Named by the headers of new log blocks.
  std::atomic<uint64_t> durable_mark;    // Log position before which everything is known to be on disk.
  // What every append changes: one line, so that it moves once from writer to writer.
  alignas(kCacheLineBytes) std::atomic<uint32_t> latch;  // base/spin_latch.h.
  uint32_t reserved_bytes;               // Of the open block, for frames that are not appended yet.
  uint32_t current_offset;               // The next free byte in the open block.
  std::atomic<uint64_t> bytes;           // Frame bytes since start_seq.
  std::atomic<uint64_t> appended_lsn;    // Highest LSN appended or recovered.
  std::atomic<uint64_t> appended_ops;
  std::atomic<uint64_t> end_mark;        // Log position (sequence << 32 | frame position) after the
                                         // last frame.
  uint64_t latch_waits;
};
static_assert(offsetof(LogShared, latch_waits) + 8 - offsetof(LogShared, latch) <= kCacheLineBytes);

// Several writers at a time insert under the writer lock taken shared (src/README.md, "Writers beside each
// other"). A latch stands for the leaves whose handles it is the remainder of, one at a time.
struct alignas(kCacheLineBytes) LeafLatch {
  std::atomic<uint32_t> latch;           // base/spin_latch.h. Guards what follows, and appends.
  uint32_t reserved;                     // Entries for which writers have made sure of room.
  uint64_t appends;
  uint64_t waits;
};
static_assert(sizeof(LeafLatch) == kCacheLineBytes);
inline constexpr uint32_t kLeafLatches = 32;

struct WritersShared {
  std::atomic<uint32_t> shared_turns;    // So many insertions more are tried beside others.
  std::atomic<uint64_t> lock_waits;      // Insertions that found the lock taken,
  std::atomic<uint64_t> exclusive_turns; // and that had to go on alone after they were tried beside.
  LeafLatch leaves[kLeafLatches];

  // Who is alone takes the lock exclusively, and needs no latches. Who finds it taken is not alone, and
  // for a while shares it. Each thread counts some turns of its own before it says so; that is a guess, in
  // which turns may get lost or come from another index.
  bool TakeSharedTurn() {
    static thread_local uint32_t turns = 0;
    const uint32_t left = shared_turns.load(std::memory_order_relaxed);
    if (left == 0) return false;
    if (++turns % kTurnsAtOnce == 0) {
      shared_turns.store(left > kTurnsAtOnce ? left - kTurnsAtOnce : 0, std::memory_order_relaxed);
    }
    return true;
  }
  void NoteLockWait() {
    lock_waits.fetch_add(1, std::memory_order_relaxed);
    if (shared_turns.load(std::memory_order_relaxed) < kSharedTurns) {
      shared_turns.store(kSharedTurns, std::memory_order_relaxed);
    }
  }
  LeafLatch* LeafOf(uint64_t handle) { return &leaves[handle % kLeafLatches]; }

  static constexpr uint32_t kSharedTurns = 1024;
  static constexpr uint32_t kTurnsAtOnce = 16;
};

struct IndexShared {
  uint32_t magic;                        // kIndexSharedMagic once initialized.
  std::atomic<uint32_t> broken;          // Marked broken: every use errors.
  Identity identity;
  std::atomic<uint64_t> published_epoch; // Readers load this after pinning. Starts at 1.
  TreeShared trees[kTrees];
  alignas(kCacheLineBytes) std::atomic<uint64_t> applied_lsn;  // Highest LSN applied to the tree.
  alignas(kCacheLineBytes) ObjectTableShared table;
  AllocatorShared allocator;
  CaptureShared capture;
  LogShared log;
  WritersShared writers;
  uint32_t leaf_fill_percent;            // Statistics; bulk load's fill factor.
  uint32_t flags;
};
inline constexpr uint32_t kIndexSharedMagic = 0x58545348;

// The growing arrays of an index (base/shared_array.h), as ChunkRequest::array names them.
enum ArrayId : uint32_t {
  kArrayEntries = 0,
  kArrayVersions = 1,
  kArrayPageInfos = 2,
  kArraySegments = 3,
};
inline constexpr uint32_t kArrays = 4;

inline ArrayDirectory* IndexArray(IndexShared* shared, uint32_t array) {
  switch (array) {
    case kArrayEntries: return &shared->table.entries;
    case kArrayVersions: return &shared->table.versions;
    case kArrayPageInfos: return &shared->table.page_infos;
    default: return &shared->allocator.infos;
  }
}
inline constexpr uint32_t kIndexFlagHost = 1;  // Belongs to a host: operations need no commit frame.
inline constexpr uint32_t kIndexFlagLatched = 2;  // A sync of the data file has failed: no more folds.
inline constexpr uint32_t kIndexFlagSuspended = 4;  // A fold could not be ended: no more until it is.

}  // namespace xtree
