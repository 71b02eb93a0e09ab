// DeltaLog: the engine's write-ahead log of logical operations.
//
// The log file ("NAME_log" standalone, the index's _vm fork under the host) is a set of log segments
// of kLogSegmentBlocks blocks. A segment in use has a sequence number in each of its block headers;
// the log is the segments in sequence order from the superblock's start_seq. A checkpoint rotates to
// a new sequence; when it is published, older segments are free and are written again under a higher
// sequence, so that a recycled segment's old frames are never replayed. Trailing free segments are
// truncated, never unlinked.
//
// Each block starts with a BlockHeader (kind kLog; node_id = sequence, birth_epoch = capture id that
// the log builds on, count = frame bytes, split_dims = block index within the segment). Frames follow,
// 8-byte aligned, and never straddle blocks. A frame whose CRC (seeded with sequence and position)
// fails ends its block; a following block of a higher index means a hole, see Recover.
//
// Threads:    Reserve, Append, Rotate, Recycle under the index's writer lock.
// Durability: Append stores into a mapping (page cache); whoever needs durability syncs the file.
// Errors:     Reserve may fail (kNoSpace, kIoError); Append after it cannot.
#pragma once

#include <cstdint>
#include <functional>

#include "base/status.h"
#include "segment/window_manager.h"
#include "store/index_shared.h"

namespace xtree {

inline constexpr uint32_t kLogSegmentBlocks = 128;  // 1 MiB; reserved in steps of 8, 32, 128 blocks.

// On disk: DO NOT REORDER.
enum class OpType : uint8_t {
  kInsert = 1,  // u64 record id, key (coordinates as f64: lo[dims], and hi[dims] for boxes).
  kDelete = 2,  // u32 count, u32 zero, bounding key (lo[dims], hi[dims]), count x u64 record id.
  kCommit = 3,  // Standalone: everything before it is committed. No payload.
};

// On disk: DO NOT REORDER.
struct LogFrame {
  uint32_t crc32c;     // Of the frame from byte 4 on, seeded with the segment's sequence.
  uint16_t bytes;      // Whole frame, multiple of 8.
  OpType type;
  uint8_t tree;
  uint64_t lsn;        // The host's *end* LSN of the operation's WAL record; 0 if it has none.
  uint32_t timeline;   // Engine timeline that wrote it.
  uint32_t position;   // Block index within the segment << 16 | offset in the block.
};
static_assert(sizeof(LogFrame) == 24);

// Payload bytes of the largest frame; a delete is split by its caller to fit.
inline constexpr uint32_t kLogPayloadBytesMax = kBlockPayloadBytes - sizeof(LogFrame);

}  // namespace xtree
