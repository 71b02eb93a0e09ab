// LogReader: reads a delta log from disk, decides where it ends, and hands out what counts.
//
// A crash may lose any subset of the pages written since the last sync, so a bad frame means either
// a torn end or damage. It is damage exactly if something later proves that the bad place had once
// been on disk:
//   standalone: a later commit frame that was written after a sync had covered the place;
//   host:       a later frame that counts: its LSN is at or below the redo point, where the host has
//               synced the log, and whatever lies before it had been appended, whole, by then.
// A flip in what the very last sync covered cannot be told from a torn end and ends the log there, unless
// it is known from elsewhere what the log has held (Expect).
//
// Threads: one. Under the index's writer lock.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "log/delta_log.h"

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
  LogExtent held{};                 // Host: what the log of that capture has been synced with; and
  bool may_shorten = true;          // whether nobody remembers that (LogReader::Expect).
};

struct LogRecord {
  OpType type;
  uint32_t tree;
  uint64_t lsn;
  uint32_t timeline;
  uint64_t mark;              // Where the frame starts, and
  uint64_t end_mark;          // where it ends.
  const std::byte* payload;   // In the mapping; valid while the reader lives.
  uint32_t payload_bytes;     // FilledPayload of what was appended.
};

class LogReader {
 public:
  explicit LogReader(DeltaLog* log) : log_(log), pin_(log->windows()) {}

  // Finds the segments from `start_seq` on. A first segment that builds on another capture than
  // `capture_id` is kBroken. kCorruption names file and block of a damaged header.
  Status Open(uint64_t start_seq, uint64_t capture_id);
  // The log was once synced with this, and has not been shortened since: Scan finds kBroken where it holds less.
  // Without bytes: nothing is known. Finish returns kNeedForget before it shortens the log, unless it may.
  void Expect(const LogExtent& held, bool may_shorten) {
    held_ = held;
    may_shorten_ = may_shorten;
  }
  // Reads everything once: finds the end of what counts, and damage before it.
  Status Scan(const LoadPolicy& policy);
  // Standalone: has the next sync write again what counts, since what a sync that failed has lost is still in the page
  // cache, as clean; if the last frame says that all before it was on disk, its block alone. After Scan.
  Status Rewrite() const;
  // The next operation that counts, from the first on; false at the end. After Scan.
  bool Next(const LoadPolicy& policy, LogRecord* record);
  // Erases what lies behind the end, durably, so that frames which do not count now cannot be
  // adopted by what is appended later, and lets the log go on after the end. Idempotent: a crash
  // inside leaves frames that still do not count. kNeedForget: whoever remembers what the log held must have
  // forgotten it, durably, before this is called again.
  Status Finish();

  // Whether nothing was ever appended at or after the start. After Open.
  bool empty() const { return segments_.empty(); }
  uint64_t frames() const { return frames_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t lsn_max() const { return lsn_max_; }

 private:
  struct Segment {
    uint64_t sequence;
    uint32_t number;     // Place in the file.
    uint32_t blocks;     // Blocks up to the last one of this sequence, its header lost or not.
  };
  // kBad: something is missing, be there other bytes or zeros in its place.
  enum class Step { kFrame, kBad, kEnd };
  struct Cursor {
    size_t segment = 0;
    uint32_t block = 0;
    uint32_t offset = sizeof(BlockHeader);
    bool in_block = false;   // Its header has been checked.
    bool started = false;    // Whether any block was entered.
    uint64_t end_mark = 0;   // After the last good frame.
  };
  Status AddSegment(uint32_t number, uint64_t capture_id);
  BlockHeader* BlockAt(const Segment& segment, uint32_t index) const;
  Step StepForward(Cursor* cursor, LogRecord* record) const;
  Step EnterBlock(Cursor* cursor) const;
  bool FrameAt(const Segment& segment, uint32_t block, uint32_t offset, LogRecord* record) const;
  uint32_t NextFrame(const Segment& segment, uint32_t block, uint32_t offset, LogRecord* record) const;
  bool LacksHeader(const Segment& segment, uint32_t block) const;
  Status Counts(const LogRecord& record, const LoadPolicy& policy, bool* counts) const;
  Status Damaged(uint64_t mark) const;
  Status MayShorten() const;
  Status EraseTail(const Segment& segment, bool* erased);

  DeltaLog* const log_;
  WindowPin pin_;
  uint64_t start_seq_ = 0;
  std::vector<Segment> segments_;  // In sequence order.
  std::vector<uint32_t> stale_;    // Places of the other segments: what they hold is older, or of lost blocks.
  Cursor next_;
  LogExtent held_{};
  bool may_shorten_ = true;
  uint64_t end_mark_ = 0;          // End of what counts; 0 if nothing does.
  bool ends_durable_ = false;      // Its last frame says that everything before is on disk.
  uint64_t frames_ = 0;
  uint64_t bytes_ = 0;
  uint64_t lsn_max_ = 0;
};

}  // namespace xtree
