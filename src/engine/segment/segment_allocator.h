// Hands out extents (2^order blocks) of an index's data file.
//
// The file is cut into segments of 256 blocks (2 MiB). A segment in use serves one order and has one
// bit per extent; segments of an order with free extents form a list, so that Allocate and Free are
// O(1). A wholly free segment can serve any order again. Blocks 0 and 1 (the superblocks) belong to
// segment 0, which always serves order 0.
//
// The state is volatile: after a restart it is rebuilt from the object table (MarkUsed), so a crash
// cannot leak space and needs no repair.
//
// Growth reserves blocks on disk before anybody may store into them: small steps first (an empty
// index stays under 128 KiB), whole segments later, 1/16 of the file at most 64 MiB at a time.
//
// Threads:    under the index's writer lock.
// Durability: none.
// Errors:     kNoSpace leaves the allocator as it was. kNeedMemory: provide the chunk and retry.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/shared_array.h"
#include "base/status.h"
#include "segment/block.h"
#include "segment/window_manager.h"

namespace xtree {

enum class SegmentState : uint8_t {
  kUnused = 0,    // Wholly free; its blocks may be punched (not reserved on disk).
  kInUse = 1,
};

struct SegmentInfo {
  uint64_t used[4];      // Bit i: extent i is taken, or not yet reserved in the file.
  uint16_t free_extents;
  SegmentState state;
  uint8_t order;
  uint8_t punched;       // Its blocks must be reserved again before use.
  uint8_t listed;        // Is on its order's list.
  uint16_t reserved;
  uint32_t prev;         // 1 + segment number, in the order's list or the unused list; 0 ends it.
  uint32_t next;
};
static_assert(sizeof(SegmentInfo) == 48);

using SegmentArray = SharedArray<SegmentInfo, 6>;

// In shared memory; all zero is an allocator over an empty file.
struct AllocatorShared {
  std::atomic<uint32_t> segments;        // Segments that exist in the file, the last maybe partly.
  std::atomic<uint32_t> file_blocks;     // Blocks that the file has (reserved or punched).
  std::atomic<uint32_t> used_blocks;     // Blocks of live extents, superblocks included.
  uint32_t with_space[kOrderMax + 1];    // 1 + head of the list of segments with free extents.
  uint32_t unused_head;                  // 1 + head of the list of unused segments.
  std::atomic<uint32_t> unused_segments;
  ArrayDirectory infos;
};

class SegmentAllocator {
 public:
  // Borrows everything; `infos` is attached to shared->infos by the caller.
  SegmentAllocator(AllocatorShared* shared, SegmentArray* infos, WindowManager* windows)
      : shared_(shared), infos_(infos), windows_(windows) {}

  // Creates the file (if needed) with its two superblock blocks reserved. For an empty `shared`.
  Status CreateFile();
  // Adopts an existing file of `file_blocks` blocks: everything but the superblocks is free until
  // MarkUsed says otherwise; call FinishAdopt afterwards. kNeedMemory as for Allocate.
  Status Adopt(uint32_t file_blocks);
  // kCorruption if the extent is out of the file, misaligned, or taken by another extent.
  Status MarkUsed(uint32_t block, uint32_t order);
  void FinishAdopt();

  // A free extent of 2^order blocks, all zeros, its window mapped. Grows the file if there is none.
  Result<uint32_t> Allocate(uint32_t order);
  // Zeroes the extent (a block that is not in use reads as a new page) and makes it free.
  void Free(uint32_t block, uint32_t order);
  // Makes sure that the next `extents` Allocate(order) calls cannot fail (bulk load).
  Status ReserveExtents(uint32_t order, uint32_t extents);
  // Truncates wholly free segments at the end of the file and punches those in the middle.
  // Best effort; readers never touch free blocks.
  void ReturnFreeSpace();

  uint32_t file_blocks() const { return shared_->file_blocks.load(std::memory_order_relaxed); }
  uint32_t used_blocks() const { return shared_->used_blocks.load(std::memory_order_relaxed); }

 private:
  AllocatorShared* const shared_;
  SegmentArray* const infos_;
  WindowManager* const windows_;
};

}  // namespace xtree
