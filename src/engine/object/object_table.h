// ObjectTableSharded: NodeID -> current extent, and the older versions that readers may need.
//
// One array of entries serves all shards; a *table page* of kTablePageEntries consecutive entries
// belongs to one shard, which allocates handles from its own pages and free list under its own
// latch. So lookups do not know about shards at all, and threads that allocate do not meet. A shard
// becomes active when a thread first allocates from it.
//
// Threads:    entries and version records are read by any thread that holds an EpochPin
//             (StoreInterface::Lookup). AllocateHandle and FreeHandle from any thread, given
//             capacity. Everything else under the index's writer lock.
// Durability: none here; a checkpoint writes the dirty pages (src/README.md, "Object table,
//             versions, epochs").
#pragma once

#include <atomic>
#include <cstdint>

#include "base/shared_array.h"
#include "base/status.h"
#include "object/node_id.h"
#include "segment/block.h"

namespace xtree {

inline constexpr uint32_t kShards = 64;
// Entries on one 8 KiB table page; on disk each is one 8-byte word.
inline constexpr uint32_t kTablePageEntries = 1008;

// An entry's word: bits 0..31 block, 32..34 order, 35 live (resolves), 36 dead (freed, but old
// readers may still resolve it), 37 verified (CRC checked since it was loaded from disk), 48..63 tag.
// A free entry keeps only its tag, so that the next node under the handle gets another one.
// On disk: the same word with dead entries written as free and verified cleared.
using EntryWord = uint64_t;
inline constexpr EntryWord kWordLive = uint64_t{1} << 35;
inline constexpr EntryWord kWordDead = uint64_t{1} << 36;
inline constexpr EntryWord kWordVerified = uint64_t{1} << 37;
inline EntryWord MakeWord(uint32_t block, uint32_t order, uint16_t tag, EntryWord flags) {
  return block | uint64_t{order} << 32 | uint64_t{tag} << 48 | flags;
}
inline uint32_t WordBlock(EntryWord w) { return static_cast<uint32_t>(w); }
inline uint32_t WordOrder(EntryWord w) { return static_cast<uint32_t>(w >> 32) & 7; }
inline uint16_t WordTag(EntryWord w) { return static_cast<uint16_t>(w >> 48); }

struct ObjectEntry {
  std::atomic<uint64_t> word;     // Newest version. Stored with release after its content.
  std::atomic<uint32_t> history;  // 1 + index of the newest VersionRecord, 0 if none.
  uint32_t next_free;             // While free: 1 + next free handle of the shard.
};
static_assert(sizeof(ObjectEntry) == 16);

// A superseded version, or (final) the last version of a freed node, until nobody needs it.
struct VersionRecord {
  EntryWord word;
  uint64_t node_id;
  uint64_t birth_epoch;            // Index epochs: alive for readers in [birth, retire).
  uint64_t retire_epoch;
  uint64_t retire_tag;             // Global tag (object/epoch.h).
  std::atomic<uint32_t> older;     // 1 + index of the next older record of the same node.
  uint32_t newer;                  // 1 + index of the next newer one; 0: the entry names this one.
  uint32_t next;                   // 1 + index of the next record in its queue or free list.
  uint32_t final;                  // The node was freed: free its handle with this version.
};
static_assert(sizeof(VersionRecord) == 56);

struct ShardShared {
  std::atomic<uint32_t> latch;     // Spin latch; held for a few instructions.
  uint32_t free_head;              // 1 + handle, 0 if empty.
  uint64_t bump_next;              // Next never-used handle of the shard's current page,
  uint64_t bump_end;               // and its end.
};

struct TablePageInfo {
  std::atomic<uint32_t> dirty;     // Changed since the last capture.
  uint32_t shard;
  uint32_t disk_block;             // 1 + where the last capture keeps it, 0 if nowhere.
  uint32_t reserved;
};

struct VersionQueue {
  uint32_t head;                   // 1 + record index, 0 if empty. Oldest first.
  uint32_t tail;
  uint64_t length;
};

// In shared memory; all zero is an empty table.
struct ObjectTableShared {
  std::atomic<uint32_t> pages;         // Table pages in use.
  std::atomic<uint32_t> active_shards; // Reporting.
  std::atomic<uint64_t> live_nodes;
  ArrayDirectory entries;
  ArrayDirectory versions;
  ArrayDirectory page_infos;
  uint64_t versions_used;              // Bump count of `versions`.
  uint32_t version_free_head;
  uint32_t reserved;
  VersionQueue waiting_readers;        // Only readers keep these.
  VersionQueue waiting_capture;        // The durable or the pending capture refers to these.
  ShardShared shards[kShards];
};

using EntryArray = SharedArray<ObjectEntry, 10>;
using VersionArray = SharedArray<VersionRecord, 8>;
using PageInfoArray = SharedArray<TablePageInfo, 8>;

class ObjectTable {
 public:
  // Borrows everything; the arrays are attached to the directories in `shared` by the caller.
  ObjectTable(ObjectTableShared* shared, EntryArray* entries, VersionArray* versions,
              PageInfoArray* page_infos)
      : shared_(shared), entries_(entries), versions_(versions), page_infos_(page_infos) {}
  ObjectTable(const ObjectTable&) = delete;

  // --- Handles.
  // A free handle of this thread's shard under a new tag; its entry stays free until it is
  // published. False if the arrays must grow first, to PagesForHandles(1) table pages.
  bool AllocateHandle(NodeId* id);
  // REQUIRES: the entry is free (MakeFree), or was never published.
  void FreeHandle(uint64_t handle);
  // Table pages that suffice for this thread to allocate `handles` more.
  uint32_t PagesForHandles(uint64_t handles) const;
  uint32_t pages() const { return shared_->pages.load(std::memory_order_acquire); }
  bool Exists(uint64_t handle) const { return handle / kTablePageEntries < pages(); }

  // --- Versions.
  // 1 + index of an unused record, or 0 if `versions` must grow first.
  uint32_t TakeRecord();
  void GiveRecord(uint32_t record);
  VersionRecord& record(uint32_t record) const { return (*versions_)[record - 1]; }
  // Makes a filled record the newest in the history of its node. Precedes the store of the word.
  void LinkHistory(uint32_t record);
  // Takes a record that no reader can meet any more out of its node's history.
  void UnlinkHistory(uint32_t record);
  void Push(VersionQueue* queue, uint32_t record);
  void PopFront(VersionQueue* queue);
  // Moves everything in `from` before everything in `to`.
  void Prepend(VersionQueue* from, VersionQueue* to);
  // The entry resolves no more; it keeps its tag.
  void MakeFree(uint64_t handle);
  // Whether the handle of a freed node has lost its last version, so that it may be freed.
  bool HandleIsDone(uint64_t handle) const {
    const ObjectEntry& entry = (*entries_)[handle];
    return !(entry.word.load(std::memory_order_relaxed) & kWordLive) &&
           entry.history.load(std::memory_order_relaxed) == 0;
  }

  // --- Table pages, for checkpoints and recovery.
  void MarkDirty(uint64_t handle) {
    (*page_infos_)[handle / kTablePageEntries].dirty.store(1, std::memory_order_relaxed);
  }
  TablePageInfo& page_info(uint32_t page) const { return (*page_infos_)[page]; }
  // The words of a page as they are written to disk.
  void EncodePage(uint32_t page, EntryWord* words) const;
  // Appends a page as loaded from disk, clean. REQUIRES: capacity for pages() + 1 pages. Its free
  // handles become the shard's.
  void AdoptPage(uint32_t shard, uint32_t disk_block, const EntryWord* words);

 private:
  bool ClaimPage(uint32_t shard_index, ShardShared* shard);

  ObjectTableShared* const shared_;
  EntryArray* const entries_;
  VersionArray* const versions_;
  PageInfoArray* const page_infos_;
};

// The shard that the calling thread allocates from: the lowest one that no other live thread of the
// process uses, while there are enough.
uint32_t ThreadShard();

}  // namespace xtree
