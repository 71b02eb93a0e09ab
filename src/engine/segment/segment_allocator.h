// Hands out extents (2^order blocks) of an index's data file.
//
// The file is cut into segments of 256 blocks (2 MiB), so an extent never straddles a window. A
// segment in use serves one order and has one bit per extent; segments of an order with free extents
// form a list, so that Allocate and Free are O(1). A wholly free segment can serve any order again.
// Blocks 0 and 1 (the superblocks) belong to segment 0, which always serves order 0.
//
// The state is volatile: after a restart it is rebuilt from the object table (MarkUsed), so a crash
// cannot leak space and needs no repair. What a crash leaves in free blocks is not known then: the
// adopted segments are *stale*, and their extents are zeroed again when they are taken (ScrubStep
// does the rest, so that a quiet index holds no old pages).
//
// Growth reserves blocks on disk before anybody may store into them: a segment's blocks are reserved
// in a prefix that doubles while the file is small (an empty index stays under 128 KiB), whole
// segments later, 1/16 of the file at most 64 MiB at a time. A segment is prefilled when it is taken
// into use. File segment i is exactly 1 GiB before
// file segment i + 1 begins, as the host requires.
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
  kUnused = 0,    // Wholly free; maybe punched (reserved_blocks is 0).
  kInUse = 1,
};

inline constexpr uint8_t kSegmentListed = 1;    // Is on its order's list of those with space.
inline constexpr uint8_t kSegmentUnchecked = 2; // Adopted: reserve its blocks again before a store.
inline constexpr uint8_t kSegmentStale = 4;     // Adopted: its free blocks may not be zeros.
inline constexpr uint8_t kSegmentFresh = 8;     // Reserved with others and not yet prefilled.

struct SegmentInfo {
  uint64_t used[4];      // Bit i: extent i is taken, or not yet reserved in the file.
  uint16_t free_extents;
  SegmentState state;
  uint8_t order;
  uint8_t flags;
  uint8_t reserved;
  uint16_t reserved_blocks;  // How many of its first blocks are reserved in the file.
  uint32_t prev;         // 1 + segment number, in the order's list or the unused list; 0 ends it.
  uint32_t next;
};
static_assert(sizeof(SegmentInfo) == 48);

using SegmentArray = SharedArray<SegmentInfo, 6>;

struct SegmentList {
  uint32_t head;         // 1 + segment number; 0 if empty. Low numbers tend to be in front.
  uint32_t tail;
};

// In shared memory; all zero is an allocator over an empty file.
struct AllocatorShared {
  std::atomic<uint32_t> segments;        // Segments that exist in the file, the last maybe partly.
  std::atomic<uint32_t> file_blocks;     // Blocks that the file has (reserved or punched).
  std::atomic<uint32_t> used_blocks;     // Blocks of live extents, superblocks included.
  std::atomic<uint64_t> allocated_blocks; // Handed out, ever.
  SegmentList with_space[kOrderMax + 1]; // Segments with free extents.
  uint64_t free_extents[kOrderMax + 1];  // In those segments.
  uint32_t growing[kOrderMax + 1];       // 1 + a segment whose blocks are not all reserved yet.
  SegmentList unused;
  std::atomic<uint32_t> unused_segments;
  uint32_t scrubbed;                     // Segments that ScrubStep has passed.
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
  // Zeroes what a crash left in free blocks of the next stale segments, whole segments until at least
  // `blocks_max` free blocks have been looked at: they may have to be read. True when none is left.
  bool ScrubStep(uint32_t blocks_max);

  // A free extent of 2^order blocks, all zeros, its window mapped. Grows the file if there is none.
  Result<uint32_t> Allocate(uint32_t order);
  // Zeroes the extent (a block that is not in use reads as a new page) and makes it free; where windows
  // keep stores private its segment becomes stale instead. REQUIRES: its window is mapped.
  void Free(uint32_t block, uint32_t order);
  // Makes sure that the next `extents` Allocate(order) calls cannot fail (bulk load). Not `prefill`: most of them will
  // be written by system calls.
  Status ReserveExtents(uint32_t order, uint32_t extents, bool prefill);
  // Truncates wholly free segments at the end of the file and punches those in the middle, beyond a
  // small reserve. Best effort; readers never touch free blocks.
  void ReturnFreeSpace();
  // For compaction. Makes Allocate take free extents from the front of the file first, and then sees to
  // it that there are some of `order` in a segment that begins before block `limit`; false: there is
  // no room.
  void SortFreeSegments();
  bool OpenBefore(uint32_t order, uint32_t limit);
  // Also punches free extents inside segments that are in use, where at least a quarter of a segment is
  // free. Costs a call for each run of them, and the space must be reserved again when the segment is
  // next allocated from; so for when somebody asks, not for every checkpoint. Best effort.
  void TrimFreeExtents();
  // Whether the next Allocate or ReserveExtents step has the segment infos that it may need.
  bool HasInfoCapacity() const {
    return infos_->capacity() >= uint64_t{segments()} + kGrowSegmentsMax;
  }

  // Calls visit(first block, order) for each extent in use, the superblocks excepted, until it returns false.
  template <class Visit>
  void ForEachExtent(Visit&& visit) const {
    for (uint32_t segment = 0; segment < segments(); ++segment) {
      const SegmentInfo& s = info(segment);
      if (s.state != SegmentState::kInUse) continue;
      const uint32_t extents = uint32_t{s.reserved_blocks} >> s.order;
      for (uint32_t e = 0; e < extents; ++e) {
        const uint32_t block = segment * kSegmentBlocks + (e << s.order);
        if ((s.used[e / 64] >> (e % 64) & 1) == 0 || block < 2) continue;
        if (!visit(block, s.order)) return;
      }
    }
  }

  uint32_t file_blocks() const { return shared_->file_blocks.load(std::memory_order_relaxed); }
  uint32_t used_blocks() const { return shared_->used_blocks.load(std::memory_order_relaxed); }
  uint64_t allocated_blocks() const {
    return shared_->allocated_blocks.load(std::memory_order_relaxed);
  }
  uint32_t segments() const { return shared_->segments.load(std::memory_order_relaxed); }

  static constexpr uint32_t kGrowSegmentsMax = 32;  // 64 MiB.

 private:
  SegmentInfo& info(uint32_t segment) const { return (*infos_)[segment]; }
  void PushBack(SegmentList* list, uint32_t segment);
  void PushSorted(SegmentList* list, uint32_t segment);
  void Unlink(SegmentList* list, uint32_t segment);
  // Makes the reserved, free extents of an in-use segment available.
  void List(uint32_t segment);
  void Delist(uint32_t segment);
  void AddFree(uint32_t segment, uint32_t first_extent, uint32_t end_extent);
  Status ReserveBlocks(uint32_t first_block, uint32_t blocks);
  void Prefill(uint32_t first_block, uint32_t blocks);
  Status AddSpace(uint32_t order, bool prefill);
  Status ExtendSegment(uint32_t segment, bool prefill);
  void UseSegment(uint32_t segment, uint32_t order, bool prefill);
  void ReleaseSegment(uint32_t segment);
  Status AppendSegments(uint32_t order);
  Status PrepareSegment(uint32_t segment);
  void TruncateTail();
  void PunchUnused();

  AllocatorShared* const shared_;
  SegmentArray* const infos_;
  WindowManager* const windows_;
};

}  // namespace xtree
