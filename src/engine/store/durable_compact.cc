// Compaction: after mass deletions the nodes that are left lie scattered over the file. Moving those
// at its end into free space before them lets the next fold cut the file.
//
// A move is a new version with the same content. It is not logged, since the log knows no places: a
// crash leaves the previous capture and the log, to which it does not matter where nodes lie.
#include <algorithm>
#include <cstring>

#include "store/durable_internal.h"
#include "store/durable_store.h"

namespace xtree {

namespace {

// Smaller files are left alone, and those of which less than half is free.
constexpr uint32_t kCompactMinBlocks = 2 * kSegmentBlocks;

void CopyContent(const BlockHeader* from, uint32_t order, const NodeRef& to) {
  for (uint32_t i = 0; i < 1u << order; ++i) {
    const auto* block = reinterpret_cast<const BlockHeader*>(
        reinterpret_cast<const std::byte*>(from) + uint64_t{i} * kBlockBytes);
    std::memcpy(to.block(i) + 1, block + 1, kBlockPayloadBytes);
    to.block(i)->kind = block->kind;
    to.block(i)->count = block->count;
    to.block(i)->split_dims = block->split_dims;
  }
}

}  // namespace

uint32_t DurableStore::CompactLimit() const {
  const uint32_t used = shared_->allocator.used_blocks.load(std::memory_order_relaxed);
  const uint32_t blocks = shared_->allocator.file_blocks.load(std::memory_order_relaxed);
  // Room for segments of several orders that are not full, and for the next capture's table pages.
  uint32_t limit = used + used / 8 + kCompactMinBlocks;
  limit += kSegmentBlocks - limit % kSegmentBlocks;
  return limit < blocks / 2 ? limit : UINT32_MAX;
}

Status DurableStore::CompactStep(uint32_t nodes_max, uint64_t* position, uint32_t limit,
                                 bool* done) {
  XT_ASSERT(!has_staged() && limit > kSuperblockSlots);
  if (*position == 0) allocator()->SortFreeSegments();
  const uint64_t end = uint64_t{table()->pages()} * kTablePageEntries;
  uint64_t handle = *position;
  uint32_t moved = 0;
  bool full = false;
  Status status;
  try {
    for (; handle < end && moved < nodes_max && status.ok() && !full; ++handle) {
      const EntryWord word = entries_[handle].word.load(std::memory_order_relaxed);
      if (!(word & kWordLive) || (word & kWordDead) || WordBlock(word) < limit) continue;
      const uint32_t shard =
          table()->page_info(static_cast<uint32_t>(handle / kTablePageEntries)).shard;
      status = Move(NodeId::Make(handle, shard, WordTag(word)), limit, &full);
      ++moved;
    }
  } catch (...) {
    Discard();  // Or the next change would publish what was copied before it.
    throw;
  }
  if (!status.ok() || full) {
    Discard();  // Whole steps only; what earlier ones have moved is moved.
    *done = full;
    return full ? Status::Ok() : status;
  }
  if (has_staged()) Publish();
  *position = handle;
  *done = handle >= end;
  if (*done) MoveTablePages(limit);
  return Status::Ok();
}

// Stages a version of the node before `limit`, or sets `full`.
Status DurableStore::Move(NodeId id, uint32_t limit, bool* full) {
  XT_ASSIGN_OR_RETURN(const NodeRef old, LookupNewest(id));
  *full = !allocator()->OpenBefore(old.order, limit);
  if (*full) return Status::Ok();
  XT_ASSIGN_OR_RETURN(const NodeRef ref,
                      StageVersion(id, old.node->tree, old.node->level, old.order));
  *full = ref.node->block_number >= limit;
  if (!*full) CopyContent(old.node, old.order, ref);
  return Status::Ok();
}

// The next capture writes the pages of the table and of its directory elsewhere that lie beyond.
void DurableStore::MoveTablePages(uint32_t limit) {
  if (!allocator()->OpenBefore(0, limit)) return;
  const uint32_t pages = table()->pages();
  for (uint32_t page = 0; page < pages; ++page) {
    TablePageInfo& info = table()->page_info(page);
    if (info.disk_block > limit) info.dirty.store(1, std::memory_order_relaxed);
  }
  auto slot = MapSuperblock(shared_->capture.superblock_slot);
  if (!slot.ok()) return;
  const auto* content = reinterpret_cast<const Superblock*>(*slot);
  for (uint32_t i = 0; i < shared_->capture.directory_blocks; ++i) {
    if (content->directory[i] < limit) continue;
    table()->page_info(i * kDirectoryEntries).dirty.store(1, std::memory_order_relaxed);
  }
}

}  // namespace xtree
