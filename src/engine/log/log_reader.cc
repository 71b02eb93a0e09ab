#include "log/log_reader.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "io/file_system.h"

namespace xtree {
namespace {

bool AllZero(const std::byte* bytes, size_t length) {
  // Blocks and frames are 8-byte aligned, and so are all lengths here.
  for (size_t i = 0; i < length; i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + i, sizeof(word));
    if (word != 0) return false;
  }
  return true;
}

// Headers are stored field by field and the kernel may write the page back in between: until the
// header's own CRC is there, the block has no frames and counts as absent.
bool HeaderPresent(const BlockHeader* header) { return header->tree != 0; }

}  // namespace

BlockHeader* LogReader::BlockAt(const Segment& segment, uint32_t index) const {
  return reinterpret_cast<BlockHeader*>(
      log_->windows_.BlockAddress(segment.number * kLogSegmentBlocks + index));
}

Status LogReader::AddSegment(uint32_t number, uint64_t capture_id) {
  const uint32_t file_blocks = log_->shared_->file_blocks.load(std::memory_order_relaxed);
  const uint32_t first = number * kLogSegmentBlocks;
  const uint32_t count = std::min(kLogSegmentBlocks, file_blocks - first);
  XT_RETURN_IF_ERROR(log_->windows_.MapBlock(first).status());
  Segment segment{0, number, 0};
  uint64_t built_on = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const BlockHeader* header = BlockAt(segment, i);
    if (!HeaderPresent(header)) continue;
    if (!HasPageHeader(*header) || header->kind != BlockKind::kLog || header->tree != LogHeaderCrc(*header) ||
        header->block_number != first + i || header->split_dims != i ||
        header->node_id > kLogSequenceMax) {
      return Status::Corruption("log block %u of file \"%s\" has a damaged header", first + i,
                                log_->windows_.path().c_str());
    }
    if (header->node_id > segment.sequence) {
      segment.sequence = header->node_id;  // Older ones are left over from the segment's last life.
      built_on = header->birth_epoch;
    }
    if (header->node_id == segment.sequence) segment.blocks = i + 1;
  }
  if (segment.blocks > 0 && segment.blocks < count && LacksHeader(segment, segment.blocks)) {
    ++segment.blocks;
  }
  if (segment.sequence < start_seq_ || segment.blocks == 0) {
    stale_.push_back(number);
    return Status::Ok();
  }
  if (segment.sequence == start_seq_ && built_on != capture_id) {
    return Status::Make(Code::kBroken,
                        "log file \"%s\" belongs to another state of the index: it builds on capture "
                        "%016" PRIx64 ", the data file holds %016" PRIx64,
                        log_->windows_.path().c_str(), built_on, capture_id);
  }
  segments_.push_back(segment);
  return Status::Ok();
}

Status LogReader::Open(uint64_t start_seq, uint64_t capture_id) {
  start_seq_ = start_seq;
  LogShared* shared = log_->shared_;
  shared->start_seq.store(start_seq, std::memory_order_relaxed);
  shared->capture_id = capture_id;
  shared->free_hint = 0;
  shared->punched_end = 0;
  uint64_t file_blocks = 0;
  for (uint32_t window = 0; window < kWindowsMax; ++window) {
    auto info = log_->fs_->Stat(log_->windows_.SegmentPath(window).c_str());
    if (!info.ok()) {
      if (info.status().code() == Code::kNotFound) break;
      return info.status();
    }
    file_blocks += info->size_bytes / kBlockBytes;
    if (info->size_bytes < kWindowBytes) break;
  }
  shared->file_blocks.store(static_cast<uint32_t>(file_blocks), std::memory_order_relaxed);
  for (uint32_t s = 0; uint64_t{s} * kLogSegmentBlocks < file_blocks; ++s) {
    XT_RETURN_IF_ERROR(AddSegment(s, capture_id));
  }
  std::sort(segments_.begin(), segments_.end(),
            [](const Segment& a, const Segment& b) { return a.sequence < b.sequence; });
  for (size_t i = 1; i < segments_.size(); ++i) {
    if (segments_[i].sequence == segments_[i - 1].sequence) {
      return Status::Corruption("log file \"%s\" has sequence %" PRIu64 " twice",
                                log_->windows_.path().c_str(), segments_[i].sequence);
    }
  }
  // The next segment, if the page that would say so is lost: its frames know its sequence.
  const uint64_t next = segments_.empty() ? start_seq_ : segments_.back().sequence + 1;
  for (const uint32_t number : stale_) {
    const Segment segment{next, number, 1};
    if (!LacksHeader(segment, 0)) continue;
    segments_.push_back(segment);
    break;
  }
  return Status::Ok();
}

bool LogReader::FrameAt(const Segment& segment, uint32_t block, uint32_t offset,
                        LogRecord* record) const {
  if (offset + sizeof(LogFrame) > kBlockBytes) return false;
  const auto* address = reinterpret_cast<const std::byte*>(BlockAt(segment, block)) + offset;
  const auto* frame = reinterpret_cast<const LogFrame*>(address);
  const uint32_t bytes = frame->bytes;
  if (frame->position != LogPosition(block, offset) || bytes < sizeof(LogFrame) ||
      bytes % 8 != 0 || offset + bytes > kBlockBytes || frame->lsn == kLsnUnstamped ||
      frame->crc32c != LogFrameCrc(frame, bytes, segment.sequence)) {
    return false;
  }
  record->type = frame->type;
  record->tree = frame->tree;
  record->lsn = frame->lsn;
  record->timeline = frame->timeline;
  record->mark = LogMark(segment.sequence, frame->position);
  record->end_mark = record->mark + bytes;
  record->payload = address + sizeof(LogFrame);
  record->payload_bytes = bytes - sizeof(LogFrame);
  return true;
}

// Where the next good frame begins, or the block's end: frames name their own position.
uint32_t LogReader::NextFrame(const Segment& segment, uint32_t block, uint32_t offset,
                              LogRecord* record) const {
  while (offset < kBlockBytes && !FrameAt(segment, block, offset, record)) offset += 8;
  return offset;
}

// Whether the page with the block's header is lost, but not the one behind it. Frames say so, since they know
// their sequence: other bytes may be what is left of the segment's last life.
bool LogReader::LacksHeader(const Segment& segment, uint32_t block) const {
  LogRecord ignored;
  return !HeaderPresent(BlockAt(segment, block)) &&
         NextFrame(segment, block, sizeof(BlockHeader), &ignored) < kBlockBytes;
}

// Moves to the block after the current one. kFrame means entered; kBad that the end of the previous
// block is missing, or whole blocks or segments are (the cursor has moved on all the same).
LogReader::Step LogReader::EnterBlock(Cursor* cursor) const {
  bool lost = false;
  for (;;) {
    if (cursor->segment >= segments_.size()) return lost ? Step::kBad : Step::kEnd;
    const Segment& segment = segments_[cursor->segment];
    if (cursor->block >= segment.blocks) {
      ++cursor->segment;
      cursor->block = 0;
      if (cursor->segment < segments_.size() &&
          segments_[cursor->segment].sequence != segment.sequence + 1) {
        lost = true;
      }
      continue;
    }
    const BlockHeader* header = BlockAt(segment, cursor->block);
    const bool lacks_header = LacksHeader(segment, cursor->block);
    if (!lacks_header && (!HeaderPresent(header) || header->node_id != segment.sequence)) {
      lost = true;
      ++cursor->block;
      continue;
    }
    if (lacks_header) {
      lost = true;
    } else if (!cursor->started) {
      if (segment.sequence != start_seq_ || cursor->block != 0) lost = true;
    } else if (header->count != static_cast<uint32_t>(cursor->end_mark)) {
      lost = true;  // Where zeros look like the end of a block, or a segment ends early, only this tells.
    }
    cursor->started = true;
    cursor->in_block = true;
    cursor->offset = sizeof(BlockHeader);
    return lost ? Step::kBad : Step::kFrame;
  }
}

LogReader::Step LogReader::StepForward(Cursor* cursor, LogRecord* record) const {
  for (;;) {
    if (!cursor->in_block) {
      const Step step = EnterBlock(cursor);
      if (step != Step::kFrame) return step;
    }
    const Segment& segment = segments_[cursor->segment];
    if (FrameAt(segment, cursor->block, cursor->offset, record)) {
      cursor->offset += record->payload_bytes + sizeof(LogFrame);
      cursor->end_mark = record->end_mark;
      return Step::kFrame;
    }
    const auto* block = reinterpret_cast<const std::byte*>(BlockAt(segment, cursor->block));
    const uint32_t bad = cursor->offset;
    if (bad >= kBlockBytes || AllZero(block + bad, kBlockBytes - bad)) {
      // An empty block still has an end, which the next one's header names.
      if (bad == sizeof(BlockHeader)) {
        cursor->end_mark = LogMark(segment.sequence, LogPosition(cursor->block, bad));
      }
      ++cursor->block;
      cursor->in_block = false;
      continue;
    }
    cursor->offset = NextFrame(segment, cursor->block, bad + 8, record);
    return Step::kBad;
  }
}

Status LogReader::Counts(const LogRecord& record, const LoadPolicy& policy, bool* counts) const {
  *counts = true;
  if (!policy.host || record.timeline == policy.current_timeline || record.lsn == 0) {
    return Status::Ok();
  }
  for (uint32_t i = policy.timeline_count; i-- > 0;) {
    if (policy.timelines[i].timeline != record.timeline) continue;
    *counts = record.lsn <= policy.timelines[i].end_lsn;
    return Status::Ok();
  }
  return Status::Make(Code::kBroken, "log file \"%s\" has a record of the unknown timeline %u",
                      log_->windows_.path().c_str(), record.timeline);
}

Status LogReader::Damaged(uint64_t mark) const {
  for (const Segment& segment : segments_) {
    if (segment.sequence != mark >> 32) continue;
    const uint32_t position = static_cast<uint32_t>(mark);
    return Status::Corruption("log file \"%s\" is damaged at block %u, offset %u: later records "
                              "prove that it was whole",
                              log_->windows_.path().c_str(),
                              segment.number * kLogSegmentBlocks + (position >> 16),
                              position & 0xffff);
  }
  return Status::Corruption("log file \"%s\" lacks records after position %016" PRIx64,
                            log_->windows_.path().c_str(), mark);
}

Status LogReader::Scan(const LoadPolicy& policy) {
  Cursor cursor;
  LogRecord record;
  cursor.end_mark = LogMark(start_seq_, 0);
  bool broken_off = false;      // Something is missing; what follows counts no more, or proves damage.
  uint64_t missing_at = 0;      // Where that is.
  uint64_t pending_frames = 0, pending_bytes = 0;  // Since the last commit frame.
  uint64_t held_bytes = 0;      // Of what is expected.
  for (;;) {
    const uint64_t before = cursor.end_mark;
    const Step step = StepForward(&cursor, &record);
    if (step == Step::kEnd) break;
    if (step != Step::kFrame) {
      if (!broken_off) missing_at = before;
      broken_off = true;
      continue;
    }
    pending_bytes += record.payload_bytes + sizeof(LogFrame);
    if (record.end_mark <= held_.end_mark) held_bytes += record.payload_bytes + sizeof(LogFrame);
    if (policy.host) {
      if (record.type == OpType::kCommit) continue;
      bool counts;
      XT_RETURN_IF_ERROR(Counts(record, policy, &counts));
      if (!counts) continue;
      if (broken_off) return Damaged(missing_at);
      lsn_max_ = std::max(lsn_max_, record.lsn);
      ++frames_;
    } else {
      if (record.type != OpType::kCommit) {
        ++pending_frames;
        continue;
      }
      if (broken_off) {
        if (record.lsn > missing_at) return Damaged(missing_at);
        continue;
      }
      frames_ += pending_frames;
      pending_frames = 0;
      ends_durable_ = record.lsn == record.mark;
    }
    bytes_ += pending_bytes;
    pending_bytes = 0;
    end_mark_ = record.end_mark;
  }
  if (held_bytes < held_.bytes) {
    return Status::Make(Code::kBroken,
                        "log file \"%s\" lacks records that it held: %" PRIu64 " of %" PRIu64 " bytes are left",
                        log_->windows_.path().c_str(), held_bytes, held_.bytes);
  }
  return Status::Ok();
}

Status LogReader::Rewrite() const {
  if (end_mark_ == 0) return Status::Ok();
  const uint64_t last_sequence = end_mark_ >> 32;
  const uint32_t last_block = static_cast<uint32_t>(end_mark_) >> 16;
  for (const Segment& segment : segments_) {
    const bool last = segment.sequence == last_sequence;
    if (segment.sequence > last_sequence) break;
    if (ends_durable_ && !last) continue;
    const uint32_t from = ends_durable_ ? last_block : 0;
    const uint32_t end = last ? last_block + 1 : segment.blocks;
    const uint32_t first = segment.number * kLogSegmentBlocks + from;
    XT_RETURN_IF_ERROR(log_->fs_->Rewrite(log_->windows_.SegmentPath(first / kWindowBlocks).c_str(),
                                          uint64_t{first % kWindowBlocks} * kBlockBytes,
                                          uint64_t{end - from} * kBlockBytes));
  }
  return Status::Ok();
}

bool LogReader::Next(const LoadPolicy& policy, LogRecord* record) {
  for (;;) {
    const Step step = StepForward(&next_, record);
    if (step == Step::kEnd) return false;
    if (step != Step::kFrame) continue;  // Scan has judged it.
    if (record->mark >= end_mark_) return false;
    if (record->type == OpType::kCommit) continue;
    bool counts;
    if (Counts(*record, policy, &counts).ok() && counts) return true;
  }
}

Status LogReader::MayShorten() const {
  if (may_shorten_) return Status::Ok();
  return Status::Make(Code::kNeedForget, "log file \"%s\" is about to be shortened",
                      log_->windows_.path().c_str());
}

// Zeroes everything from the end mark on, in one segment.
Status LogReader::EraseTail(const Segment& segment, bool* erased) {
  const uint32_t first = segment.number * kLogSegmentBlocks;
  const uint32_t file_blocks = log_->shared_->file_blocks.load(std::memory_order_relaxed);
  const uint32_t count = std::min(kLogSegmentBlocks, file_blocks - first);
  uint32_t block = 0;
  if (end_mark_ != 0 && segment.sequence == end_mark_ >> 32) {
    block = static_cast<uint32_t>(end_mark_) >> 16;
    const uint32_t offset = static_cast<uint32_t>(end_mark_) & 0xffff;
    auto* address = reinterpret_cast<std::byte*>(BlockAt(segment, block));
    if (!AllZero(address + offset, kBlockBytes - offset)) {
      XT_RETURN_IF_ERROR(MayShorten());
      MarkUnstamped(BlockAt(segment, block));
      std::memset(address + offset, 0, kBlockBytes - offset);
      log_->NoteTouched(BlockAt(segment, block));
      *erased = true;
    }
    ++block;
  }
  uint32_t dirty = count;
  const bool counted = segment.sequence != 0;  // Else it is stale, and no part of what is remembered.
  for (uint32_t i = block; i < count; ++i) {
    if (AllZero(reinterpret_cast<const std::byte*>(BlockAt(segment, i)), kBlockBytes)) continue;
    dirty = i;
    break;
  }
  if (dirty == count) return Status::Ok();
  if (counted) XT_RETURN_IF_ERROR(MayShorten());
  *erased = true;
  return log_->fs_->Punch(log_->windows_.SegmentPath(first / kWindowBlocks).c_str(),
                          uint64_t{(first + dirty) % kWindowBlocks} * kBlockBytes,
                          uint64_t{count - dirty} * kBlockBytes);
}

Status LogReader::Finish() {
  LogShared* shared = log_->shared_;
  bool erased = false;
  const Segment* last = nullptr;
  for (const Segment& segment : segments_) {
    if (end_mark_ != 0 && segment.sequence < end_mark_ >> 32) continue;
    if (end_mark_ != 0 && segment.sequence == end_mark_ >> 32) last = &segment;
    XT_RETURN_IF_ERROR(EraseTail(segment, &erased));
  }
  // The lost blocks of a segment's new life may have left pages, which would follow the blocks that come to lie before
  // them when that life begins again. The superblock that was chosen is on disk: none needs what is erased.
  for (const uint32_t number : stale_) XT_RETURN_IF_ERROR(EraseTail(Segment{0, number, 0}, &erased));
  if (erased) XT_RETURN_IF_ERROR(log_->Sync());
  shared->bytes.store(bytes_, std::memory_order_relaxed);
  shared->appended_lsn.store(lsn_max_, std::memory_order_relaxed);
  shared->durable_mark.store(0, std::memory_order_relaxed);
  shared->end_mark.store(end_mark_, std::memory_order_relaxed);
  log_->buffered_ = UINT32_MAX;
  log_->written_mark_.store(end_mark_, std::memory_order_relaxed);
  shared->sealed = 1;
  if (last == nullptr) {
    shared->previous_end = 0;
    shared->current_seq.store(start_seq_ - 1, std::memory_order_relaxed);
    return Status::Ok();
  }
  const uint32_t position = static_cast<uint32_t>(end_mark_);
  shared->previous_end = position;
  shared->current_seq.store(last->sequence, std::memory_order_relaxed);
  shared->current_segment = last->number;
  shared->current_block = position >> 16;
  shared->current_offset = position & 0xffff;
  // Goes on in place if the segment's blocks are sure to be on disk: a copied file may be sparse.
  const uint32_t first = last->number * kLogSegmentBlocks;
  const uint32_t file_blocks = shared->file_blocks.load(std::memory_order_relaxed);
  const uint32_t count = std::min(kLogSegmentBlocks, file_blocks - first);
  if (!erased && log_->ReserveBlocks(first, count).ok()) shared->sealed = 0;
  return Status::Ok();
}

}  // namespace xtree
