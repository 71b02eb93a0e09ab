// ObjectTableSharded: NodeID -> current extent, and the older versions that readers may need.
//
// One array of entries serves all shards; a *table page* of kTablePageEntries consecutive entries
// belongs to one shard, which allocates handles from its own pages and free list under its own
// latch. So lookups do not know about shards at all, and threads that allocate do not meet. A shard
// becomes active when a thread first allocates from it.
//
// Threads:    Lookup and VersionFor from any reader that holds an EpochPin. AllocateHandle from any
//             thread, given capacity. Everything else under the index's writer lock.
// Durability: none here; a checkpoint writes the dirty pages (checkpoint/checkpoint.h).
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

// An entry's word: bits 0..31 block, 32..34 order, 35 live, 36 dead (freed, but old readers may
// still resolve it), 37 verified (CRC checked since it was loaded from disk), 48..63 tag.
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
  uint32_t next;                   // 1 + index of the next record in its queue or free list.
  uint32_t final;                  // The node was freed: free its handle with this version.
  uint32_t reserved;
};

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

}  // namespace xtree
