// DeltaLog: the engine's write-ahead log of logical operations.
//
// The log file ("NAME_log" standalone, the index's _vm fork under the host) is a set of log
// segments of kLogSegmentBlocks blocks. A segment in use has a sequence number in each of its block
// headers; the log is the segments in sequence order from the superblock's start_seq. A checkpoint
// rotates to a new sequence; when it is published, older segments are free and are written again
// under a higher sequence, so that a recycled segment's old frames are never replayed. Free
// segments are punched, trailing ones truncated; the file is never unlinked.
//
// Each block starts with a BlockHeader: kind kLog; node_id = sequence, birth_epoch = capture id
// that the log builds on, split_dims = block index within the segment, count = position at which
// the previous block of the log ended, tree = CRC of these fields (a header is written once, so it
// is checked even while the block is open). Frames follow, 8-byte aligned, and never straddle
// blocks. What does not fit stays zero. The chain of `count`s tells a lost page from the end of a
// block.
//
// Standalone the open block is built in memory and goes to the file with the commit frame, or when the next block
// is opened: with a write, if the file is open, where a store would cost the fault of a page that the last sync has
// cleaned. The first block of a segment goes there at once, since it says that the segment is in use.
//
// Threads:    Sync and CloseIdleFile from any thread. Everything else under the index's writer lock; the functions that say
//             so under the lock taken shared, from any thread of this handle.
// Durability: Append stores into a mapping (page cache; but see above); whoever needs durability syncs the file.
// Descriptors: none, or one between two syncs, as far as the OpenLogs go round (KeepOpen).
// Errors:     Reserve may fail (kNoSpace, kIoError); Append after it cannot.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "io/file_system.h"
#include "segment/window_manager.h"
#include "store/index_shared.h"

namespace xtree {

inline constexpr uint32_t kLogSegmentBlocks = 128;  // 1 MiB; the first grows by 8, 32, 128 blocks.
inline constexpr uint32_t kLogFirstBlocks = 8;      // The first reservation of a log.

// On disk: DO NOT REORDER.
enum class OpType : uint8_t {
  kInsert = 1,  // u64 record id | packing << kPackingShift, coordinates (tree/packed_coords.h).
  kDelete = 2,  // u32 count, u32 zero, bounding key (lo[dims], hi[dims]), count x u64 record id.
  kCommit = 3,  // Standalone: everything before it is committed. No payload; `lsn` is the log
                // position that was known to be on disk when the frame was written.
};

inline constexpr uint32_t kPackingShift = 48;  // Above kRecordIdMax.

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

// What a payload takes in its frame, whose length is a multiple of 8.
inline constexpr uint32_t FilledPayload(uint32_t payload_bytes) { return (payload_bytes + 7) & ~7u; }
// Payload bytes of the largest frame; a delete is split by its caller to fit.
inline constexpr uint32_t kLogPayloadBytesMax = kBlockPayloadBytes - sizeof(LogFrame);

// Sequences fit a LogMark; the last one is four exabytes away.
inline constexpr uint64_t kLogSequenceMax = 0xffffffff;
// A place in the log that orders across segments: sequence << 32 | LogFrame::position.
inline constexpr uint64_t LogMark(uint64_t sequence, uint32_t position) {
  return sequence << 32 | position;
}
inline constexpr uint32_t LogPosition(uint32_t block, uint32_t offset) {
  return block << 16 | offset;
}
// What the log of a capture holds: `bytes` of frames up to a position.
struct LogExtent {
  uint64_t capture_id;
  uint64_t end_mark;
  uint64_t bytes;
};
// CRC over the fields of a log block's header that say where it belongs (kept in header.tree).
uint32_t LogHeaderCrc(const BlockHeader& header);
// CRC of a frame of `bytes` bytes in a segment of this sequence.
uint32_t LogFrameCrc(const LogFrame* frame, uint32_t bytes, uint64_t sequence);

// How many logs of a program may stay open between two syncs. Threads: any.
class OpenLogs {
 public:
  explicit OpenLogs(uint32_t max) : max_(max) {}
  bool Take() {
    if (open_.fetch_add(1, std::memory_order_relaxed) < max_) return true;
    GiveBack();
    return false;
  }
  void GiveBack() { open_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  const uint32_t max_;
  std::atomic<uint32_t> open_{0};
};

class DeltaLog {
 public:
  // Borrows `shared`, `fs` and `budget`. No I/O. An empty path: no log; every call then does
  // nothing.
  DeltaLog(LogShared* shared, FileSystem* fs, WindowBudget* budget, std::string path);
  ~DeltaLog() {
    Unreserve();
    CloseFile();
  }
  DeltaLog(const DeltaLog&) = delete;

  bool enabled() const { return enabled_; }
  WindowManager* windows() { return &windows_; }
  const WindowManager* windows() const { return &windows_; }
  LogShared* shared() const { return shared_; }

  // Empties the file, durably, and starts at sequence 1. Later blocks name `capture_id`.
  Status Reset(uint64_t capture_id, uint32_t timeline);
  // Standalone. From now on the file keeps its first blocks even while the log is empty, so that its
  // absence is noticed, and new blocks are written out before they are used: an fdatasync that
  // overwrites blocks needs no journal commit of the file system's, and is twice as fast.
  void KeepFile();
  // The file may stay open between syncs, until CloseIdleFile finds that none came since it was last called.
  // Borrows `open_logs`.
  void KeepOpen(OpenLogs* open_logs) { open_logs_ = open_logs; }
  void CloseIdleFile();
  // Makes the kept blocks exist, durably.
  Status CreateFile();

  // Makes sure that the next frame of at most `payload_bytes` can be appended, and pins its block
  // until Append or Unreserve.
  Status Reserve(uint32_t payload_bytes);
  void Unreserve() noexcept;
  // Appends a frame in two steps: returns where to store the payload, then seals it with its CRC.
  // REQUIRES: Reserve(at least payload_bytes).
  std::byte* AppendBegin(OpType type, uint32_t tree, uint32_t payload_bytes, uint64_t lsn) noexcept;
  void AppendEnd() noexcept;
  // The same for writers beside each other. Room is all that is reserved: the frame gets its place when
  // it is appended, whole, under the log's latch, so the log has no holes, whatever order the writers
  // come in. False: no block is open that has the room, which takes Reserve.
  bool ReserveShared(uint32_t payload_bytes);
  void UnreserveShared(uint32_t payload_bytes) noexcept;
  // REQUIRES: ReserveShared of as many bytes. What is promised and not taken would have others open a block
  // where there is room.
  void AppendShared(OpType type, uint32_t tree, const std::byte* payload, uint32_t payload_bytes,
                    uint64_t lsn) noexcept;
  // The commit frame; the file has it then. REQUIRES: Reserve(0).
  void AppendCommit() noexcept;

  // Later frames go to a new sequence, whose blocks name `capture_id`; returns that sequence. A log
  // that is empty stays as it is, name included, so that it fits the old capture and the new one:
  // if the new one's publication fails, nobody knows which of them the disk has.
  uint64_t Rotate(uint64_t capture_id) noexcept;
  // Frees all segments below `start_seq`; `bytes` is what they held. Best effort with the space.
  void Recycle(uint64_t start_seq, uint64_t bytes) noexcept;

  // fdatasync of the whole log. On success everything appended before the call is durable.
  Status Sync();
  // For callers that sync the files themselves, in a batch: their names, and what a success proves.
  std::vector<std::string> Paths() const;
  uint64_t end_mark() const { return shared_->end_mark.load(std::memory_order_acquire); }
  // Up to where the file has what was appended, commit frames in any case: what a sync covers.
  uint64_t written_mark() const {
    return open_block_ == nullptr ? end_mark() : written_mark_.load(std::memory_order_acquire);
  }
  void NoteDurable(uint64_t mark) noexcept;

  // File segment (1 GiB) of the last block appended to.
  uint32_t file_segment() const {
    return shared_->current_segment * kLogSegmentBlocks / kWindowBlocks;
  }

  // Blocks that appends changed, for the host's checksums (capi.h, XtTouched). Off by default.
  void TrackTouched(bool enabled);
  // Takes one out: its address, or null if there is none.
  BlockHeader* NextTouched(uint32_t* block);

 private:
  friend class LogReader;
  Status OpenBlock();
  Status OpenSegment(uint32_t* segment);
  Status ReserveBlocks(uint32_t first, uint32_t count);
  void Prefill(uint32_t first, uint32_t count);
  Status WriteOut(uint32_t first, uint32_t count);
  Result<bool> SegmentIsFree(uint32_t segment);
  BlockHeader* CurrentBlock() const;
  uint32_t CurrentNumber() const {
    return shared_->current_segment * kLogSegmentBlocks + shared_->current_block;
  }
  bool IsBuffered() const { return open_block_ == nullptr || buffered_ == CurrentNumber(); }
  void Buffer();
  void WriteOpenBlock() noexcept;
  void CloseBlock(BlockHeader* block) noexcept;
  std::shared_ptr<OpenFile> FileOf(uint32_t window);
  std::shared_ptr<OpenFile> OpenFileOf(uint32_t window);
  uint32_t FileCount() const;
  void CloseFile();
  void NoteTouched(const BlockHeader* block) {
    if (!tracking_) return;
    if (touched_.empty() || touched_.back() != block->block_number) {
      touched_.push_back(block->block_number);
    }
  }
  LogFrame* StartFrame(BlockHeader* block, OpType type, uint32_t tree, uint32_t bytes,
                       uint64_t lsn) noexcept;
  void SealFrame(LogFrame* frame, uint32_t bytes) noexcept;

  LogShared* const shared_;
  FileSystem* const fs_;
  const bool enabled_;
  WindowManager windows_;
  uint32_t keep_blocks_ = 0;           // Standalone: what the file never falls below.
  struct alignas(64) Block {
    std::byte bytes[kBlockBytes];
  };
  std::unique_ptr<Block> open_block_;  // Standalone: the open block. Null: it is stored to in the mapping.
  uint32_t buffered_ = UINT32_MAX;     // Which block that is.
  uint32_t written_ = 0;               // So many of its first bytes are in the file; if none are, none of it is.
  std::atomic<uint64_t> written_mark_{0};
  OpenLogs* open_logs_ = nullptr;
  Mutex file_mutex_;
  std::shared_ptr<OpenFile> file_ XT_GUARDED_BY(file_mutex_);  // Null: closed.
  uint32_t file_window_ XT_GUARDED_BY(file_mutex_) = 0;        // Which file of the log it is.
  bool file_used_ XT_GUARDED_BY(file_mutex_) = false;          // Since CloseIdleFile last looked.
  bool pinned_ = false;                // Between Reserve and Append.
  BlockHeader* reserved_ = nullptr;    // The block that the reserved frame goes to.
  LogFrame* open_frame_ = nullptr;     // Between AppendBegin and AppendEnd.
  uint32_t open_bytes_ = 0;            // Its length.
  bool tracking_ = false;
  std::vector<uint32_t> touched_;
};

}  // namespace xtree
