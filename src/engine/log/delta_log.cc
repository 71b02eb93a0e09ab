#include "log/delta_log.h"

#include <algorithm>
#include <cstring>

#include "base/spin_latch.h"
#include "io/crc32c.h"

namespace xtree {

uint32_t LogHeaderCrc(const BlockHeader& header) {
  const uint64_t fields[4] = {header.node_id, header.birth_epoch,
                              uint64_t{header.split_dims} << 32 | header.count,
                              header.block_number};
  return Crc32c(0, fields, sizeof(fields)) | 1;  // Zero means that it is not written yet.
}

uint32_t LogFrameCrc(const LogFrame* frame, uint32_t bytes, uint64_t sequence) {
  const uint32_t seed = Crc32c(0, &sequence, sizeof(sequence));
  return Crc32c(seed, reinterpret_cast<const std::byte*>(frame) + sizeof(frame->crc32c),
                bytes - sizeof(frame->crc32c));
}

DeltaLog::DeltaLog(LogShared* shared, FileSystem* fs, WindowBudget* budget, std::string path)
    : shared_(shared), fs_(fs), enabled_(!path.empty()), windows_(fs, budget, std::move(path)) {}

BlockHeader* DeltaLog::CurrentBlock() const {
  if (open_block_ != nullptr && buffered_ == CurrentNumber()) {
    return reinterpret_cast<BlockHeader*>(open_block_->bytes);
  }
  return reinterpret_cast<BlockHeader*>(windows_.BlockAddress(CurrentNumber()));
}

void DeltaLog::KeepFile() {
  keep_blocks_ = kLogFirstBlocks;
  if (open_block_ == nullptr) open_block_ = std::make_unique<Block>();
}

// After loading, the log may go on in a block that the file has. REQUIRES: mapped.
void DeltaLog::Buffer() {
  std::memcpy(open_block_->bytes, windows_.BlockAddress(CurrentNumber()), kBlockBytes);
  buffered_ = CurrentNumber();
  written_ = shared_->current_offset;
}

// Puts into the file what of the open block it lacks. Stores, where the file is not open or the write fails:
// nothing may fail here. What is not mapped, and was not reserved, stays to be written.
void DeltaLog::WriteOpenBlock() noexcept {
  if (open_block_ == nullptr || buffered_ == UINT32_MAX) return;
  const uint64_t mark = end_mark();
  // Of a new block also what is still zero: there may be something else in the file.
  const uint32_t end = written_ == 0 ? kBlockBytes : shared_->current_offset;
  if (written_ < end) {
    const std::byte* from = open_block_->bytes + written_;
    const std::shared_ptr<OpenFile> file = FileOf(buffered_ / kWindowBlocks);
    const uint64_t offset = uint64_t{buffered_ % kWindowBlocks} * kBlockBytes + written_;
    if (file == nullptr || !file->Write(offset, from, end - written_).ok()) {
      std::byte* address = windows_.BlockAddress(buffered_);
      if (address == nullptr) return;
      std::memcpy(address + written_, from, end - written_);
    }
    written_ = shared_->current_offset;
  }
  written_mark_.store(mark, std::memory_order_release);
}

// The open file, if it is that window's.
std::shared_ptr<OpenFile> DeltaLog::FileOf(uint32_t window) {
  MutexLock lock(&file_mutex_);
  if (file_ == nullptr || file_window_ != window) return nullptr;
  file_used_ = true;
  return file_;
}

// The same; opens it if it may be kept.
std::shared_ptr<OpenFile> DeltaLog::OpenFileOf(uint32_t window) {
  if (std::shared_ptr<OpenFile> file = FileOf(window)) return file;
  if (open_logs_ == nullptr) return nullptr;
  CloseFile();
  if (!open_logs_->Take()) return nullptr;
  Result<std::unique_ptr<OpenFile>> opened = fs_->Open(windows_.SegmentPath(window).c_str());
  MutexLock lock(&file_mutex_);
  // Without a descriptor to spare the path does; another thread may have been faster.
  if (!opened.ok() || *opened == nullptr || file_ != nullptr) {
    open_logs_->GiveBack();
    return nullptr;
  }
  file_ = std::move(*opened);
  file_window_ = window;
  file_used_ = true;
  return file_;
}

void DeltaLog::CloseFile() {
  MutexLock lock(&file_mutex_);
  if (file_ == nullptr) return;
  file_ = nullptr;
  open_logs_->GiveBack();
}

void DeltaLog::CloseIdleFile() {
  MutexLock lock(&file_mutex_);
  if (file_ != nullptr && !file_used_) {
    file_ = nullptr;
    open_logs_->GiveBack();
  }
  file_used_ = false;
}

Status DeltaLog::Reset(uint64_t capture_id, uint32_t timeline) {
  LogShared* log = shared_;
  log->timeline = timeline;
  log->capture_id = capture_id;
  log->sealed = 1;
  log->previous_end = 0;
  log->free_hint = 0;
  log->punched_end = 0;
  log->current_seq.store(0, std::memory_order_relaxed);
  log->start_seq.store(enabled_ ? 1 : 0, std::memory_order_relaxed);
  log->file_blocks.store(0, std::memory_order_relaxed);
  log->bytes.store(0, std::memory_order_relaxed);
  log->end_mark.store(0, std::memory_order_relaxed);
  log->durable_mark.store(0, std::memory_order_relaxed);
  buffered_ = UINT32_MAX;
  written_mark_.store(0, std::memory_order_relaxed);
  if (!enabled_) return Status::Ok();
  // Stale frames must be gone before a superblock that starts at sequence 1 can be on disk.
  for (uint32_t window = 0; window < kWindowsMax; ++window) {
    const std::string path = windows_.SegmentPath(window);
    auto info = fs_->Stat(path.c_str());
    if (!info.ok()) {
      if (info.status().code() == Code::kNotFound) break;
      return info.status();
    }
    if (info->size_bytes == 0) continue;
    XT_RETURN_IF_ERROR(fs_->Truncate(path.c_str(), 0));
    XT_RETURN_IF_ERROR(fs_->Sync(path.c_str()));
  }
  return Status::Ok();
}

Status DeltaLog::CreateFile() {
  XT_RETURN_IF_ERROR(ReserveBlocks(0, kLogFirstBlocks));
  return fs_->Sync(windows_.SegmentPath(0).c_str());
}

// Reserves blocks of one log segment on disk. A file that comes into being has its name made
// durable at once, since a later sync of the file alone need not do that.
Status DeltaLog::ReserveBlocks(uint32_t first, uint32_t count) {
  const uint32_t window = first / kWindowBlocks;
  const std::string path = windows_.SegmentPath(window);
  const uint32_t old_blocks = shared_->file_blocks.load(std::memory_order_relaxed);
  // One that was created by a reservation that failed is there already.
  const bool created = (window > 0 && old_blocks <= window * kWindowBlocks) ||
                       fs_->Stat(path.c_str()).status().code() == Code::kNotFound;
  XT_RETURN_IF_ERROR(fs_->Reserve(path.c_str(), uint64_t{first % kWindowBlocks} * kBlockBytes,
                                  uint64_t{count} * kBlockBytes));
  if (created) XT_RETURN_IF_ERROR(fs_->SyncDirectory(path.c_str()));
  if (first + count > old_blocks) {
    const uint32_t fresh = std::max(first, old_blocks);
    Prefill(fresh, first + count - fresh);
    shared_->file_blocks.store(first + count, std::memory_order_relaxed);
  }
  return Status::Ok();
}

// Fills blocks that read as zeros and are about to be used, as WriteOut does. A fault in their place would read
// ahead, into pages so large that the first store to each small part of one costs as much as filling it.
void DeltaLog::Prefill(uint32_t first, uint32_t count) {
  fs_->Prefill(windows_.SegmentPath(first / kWindowBlocks).c_str(),
               uint64_t{first % kWindowBlocks} * kBlockBytes, uint64_t{count} * kBlockBytes);
}

// Stores zeros into blocks that are about to be used, so that the next sync, and not each of those
// that follow, makes the file system turn reserved blocks into written ones.
Status DeltaLog::WriteOut(uint32_t first, uint32_t count) {
  if (keep_blocks_ == 0) return Status::Ok();
  XT_ASSIGN_OR_RETURN(std::byte* address, windows_.MapBlock(first));
  std::memset(address, 0, uint64_t{count} * kBlockBytes);
  return Status::Ok();
}

Result<bool> DeltaLog::SegmentIsFree(uint32_t segment) {
  XT_ASSIGN_OR_RETURN(std::byte* address, windows_.MapBlock(segment * kLogSegmentBlocks));
  const auto* header = reinterpret_cast<const BlockHeader*>(address);
  return header->kind != BlockKind::kLog ||
         header->node_id < shared_->start_seq.load(std::memory_order_relaxed);
}

// Picks the lowest free segment, so that the file shrinks again, and reserves its blocks.
Status DeltaLog::OpenSegment(uint32_t* segment) {
  const uint32_t file_blocks = shared_->file_blocks.load(std::memory_order_relaxed);
  const uint32_t segments = (file_blocks + kLogSegmentBlocks - 1) / kLogSegmentBlocks;
  uint32_t candidate = shared_->free_hint;
  const bool punched = candidate < shared_->punched_end;
  for (; !punched && candidate < segments; ++candidate) {
    XT_ASSIGN_OR_RETURN(const bool free, SegmentIsFree(candidate));
    if (free) break;
  }
  // Also where the file has the blocks already: they may have been punched.
  const bool first_grows = candidate == 0 && file_blocks < kLogSegmentBlocks;
  const uint32_t count = first_grows ? std::max(file_blocks, kLogFirstBlocks) : kLogSegmentBlocks;
  XT_RETURN_IF_ERROR(ReserveBlocks(candidate * kLogSegmentBlocks, count));
  if (punched) {
    Prefill(candidate * kLogSegmentBlocks, count);
  } else if (candidate < segments) {
    XT_RETURN_IF_ERROR(WriteOut(candidate * kLogSegmentBlocks, count));
  }
  shared_->free_hint = punched ? candidate + 1 : candidate;
  *segment = candidate;
  return Status::Ok();
}

// A block that is stamped already has been so by the host, with its own checksum, after the last
// change; a new LSN would spoil that.
void DeltaLog::CloseBlock(BlockHeader* block) noexcept {
  if (BlockLsn(*block) != kLsnUnstamped) return;
  StampBlock(block, shared_->appended_lsn.load(std::memory_order_relaxed));
  written_ = 0;
  WriteOpenBlock();
}

// Closes the current block, if there is one, and opens the next.
Status DeltaLog::OpenBlock() {
  LogShared* log = shared_;
  const bool in_segment = !log->sealed && log->current_seq.load(std::memory_order_relaxed) != 0;
  const uint32_t previous_end = in_segment
      ? LogPosition(log->current_block, log->current_offset) : log->previous_end;
  uint32_t segment = log->current_segment;
  uint32_t index = in_segment ? log->current_block + 1 : 0;
  uint64_t sequence = log->current_seq.load(std::memory_order_relaxed);
  if (!in_segment || index == kLogSegmentBlocks) {
    if (sequence >= kLogSequenceMax) {
      return Status::Make(Code::kNoSpace, "log file \"%s\" has used up its sequence numbers",
                          windows_.path().c_str());
    }
    XT_RETURN_IF_ERROR(OpenSegment(&segment));
    index = 0;
    ++sequence;
  }
  const uint32_t block = segment * kLogSegmentBlocks + index;
  const uint32_t file_blocks = log->file_blocks.load(std::memory_order_relaxed);
  if (block >= file_blocks) {
    // Only the first segment grows in steps: 8, 32, 128.
    const uint32_t end = file_blocks < 32 ? 32 : (segment + 1) * kLogSegmentBlocks;
    XT_RETURN_IF_ERROR(ReserveBlocks(file_blocks, end - file_blocks));
  }
  XT_ASSIGN_OR_RETURN(std::byte* address, windows_.MapBlock(block));
  if (in_segment) {
    // What is still to be written of it may need the mapping.
    if (open_block_ != nullptr) XT_RETURN_IF_ERROR(windows_.MapBlock(CurrentNumber()).status());
    BlockHeader* closing = CurrentBlock();
    if (closing != nullptr) CloseBlock(closing);
  }
  if (open_block_ != nullptr) {
    address = open_block_->bytes;
    buffered_ = block;
    written_ = 0;
  }
  auto* header = reinterpret_cast<BlockHeader*>(address);
  std::memset(address, 0, kBlockBytes);  // A recycled block that could not be punched.
  InitBlock(header, BlockKind::kLog, block);
  header->node_id = sequence;
  header->birth_epoch = log->capture_id;
  header->split_dims = index;
  header->count = previous_end;
  header->tree = LogHeaderCrc(*header);
  log->sealed = 0;
  log->current_segment = segment;
  log->current_block = index;
  log->current_offset = sizeof(BlockHeader);
  log->current_seq.store(sequence, std::memory_order_relaxed);
  if (index == 0) WriteOpenBlock();
  return Status::Ok();
}

namespace {
uint32_t FrameBytes(uint32_t payload_bytes) {
  return sizeof(LogFrame) + FilledPayload(payload_bytes);
}
}  // namespace

Status DeltaLog::Reserve(uint32_t payload_bytes) {
  if (!enabled_) return Status::Ok();
  XT_ASSERT(payload_bytes <= kLogPayloadBytesMax);
  if (!pinned_) {
    windows_.Pin();
    pinned_ = true;
  }
  // Nobody is beside: at most an error has kept somebody from taking this back.
  shared_->reserved_bytes = 0;
  const uint32_t bytes = FrameBytes(payload_bytes);
  const bool open = shared_->current_seq.load(std::memory_order_relaxed) != 0 && !shared_->sealed;
  Status status;
  if (!open || shared_->current_offset + bytes > kBlockBytes) {
    status = OpenBlock();
  } else {
    auto address = windows_.MapBlock(CurrentNumber());
    status = address.status();
    if (status.ok() && !IsBuffered()) Buffer();
  }
  if (!status.ok()) {
    Unreserve();
    return status;
  }
  reserved_ = CurrentBlock();
  XT_ASSERT(reserved_ != nullptr);
  NoteTouched(reserved_);
  return Status::Ok();
}

void DeltaLog::Unreserve() noexcept {
  if (!pinned_) return;
  pinned_ = false;
  reserved_ = nullptr;
  windows_.Unpin();
}

// Everything of a frame but payload and CRC.
inline LogFrame* DeltaLog::StartFrame(BlockHeader* block, OpType type, uint32_t tree,
                                      uint32_t bytes, uint64_t lsn) noexcept {
  LogShared* log = shared_;
  XT_ASSERT(log->current_offset + bytes <= kBlockBytes);
  if (BlockLsn(*block) != kLsnUnstamped) {
    MarkUnstamped(block);
    written_ = 0;
  }
  auto* frame = reinterpret_cast<LogFrame*>(reinterpret_cast<std::byte*>(block) +
                                            log->current_offset);
  frame->bytes = static_cast<uint16_t>(bytes);
  frame->type = type;
  frame->tree = static_cast<uint8_t>(tree);
  frame->lsn = lsn;
  frame->timeline = log->timeline;
  frame->position = LogPosition(log->current_block, log->current_offset);
  if (type != OpType::kCommit) {
    if (lsn > log->appended_lsn.load(std::memory_order_relaxed)) {
      log->appended_lsn.store(lsn, std::memory_order_relaxed);
    }
    log->appended_ops.store(log->appended_ops.load(std::memory_order_relaxed) + 1,
                            std::memory_order_relaxed);
  }
  return frame;
}

inline void DeltaLog::SealFrame(LogFrame* frame, uint32_t bytes) noexcept {
  LogShared* log = shared_;
  const uint64_t sequence = log->current_seq.load(std::memory_order_relaxed);
  // The length is not taken from the frame: behind it there may be zeros by now (io/mapping_guard.h).
  frame->crc32c = LogFrameCrc(frame, bytes, sequence);
  log->current_offset += bytes;
  log->bytes.store(log->bytes.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
  log->end_mark.store(LogMark(sequence, LogPosition(log->current_block, log->current_offset)),
                      std::memory_order_release);
}

std::byte* DeltaLog::AppendBegin(OpType type, uint32_t tree, uint32_t payload_bytes,
                                 uint64_t lsn) noexcept {
  XT_ASSERT(pinned_ && reserved_ != nullptr && open_frame_ == nullptr);
  open_bytes_ = FrameBytes(payload_bytes);
  open_frame_ = StartFrame(reserved_, type, tree, open_bytes_, lsn);
  return reinterpret_cast<std::byte*>(open_frame_ + 1);
}

void DeltaLog::AppendEnd() noexcept {
  XT_ASSERT(open_frame_ != nullptr);
  SealFrame(open_frame_, open_bytes_);
  open_frame_ = nullptr;
  Unreserve();
}

bool DeltaLog::ReserveShared(uint32_t payload_bytes) {
  if (!enabled_) return true;
  XT_ASSERT(payload_bytes <= kLogPayloadBytesMax);
  LogShared* log = shared_;
  // Neither changes while anybody holds the lock shared.
  if (log->current_seq.load(std::memory_order_relaxed) == 0 || log->sealed) return false;
  WindowPin pin(&windows_);
  // Reserve will say why it cannot be had.
  if (!windows_.MapBlock(CurrentNumber()).ok() || !IsBuffered()) return false;
  if (XT_UNLIKELY(tracking_)) NoteTouched(CurrentBlock());
  const uint32_t bytes = FrameBytes(payload_bytes);
  {
    SpinLatch latch(&log->latch);
    log->latch_waits += latch.waited();
    if (log->current_offset + log->reserved_bytes + bytes > kBlockBytes) return false;
    log->reserved_bytes += bytes;
  }
  pin.Keep();  // Until AppendShared or UnreserveShared.
  return true;
}

void DeltaLog::UnreserveShared(uint32_t payload_bytes) noexcept {
  if (!enabled_) return;
  {
    SpinLatch latch(&shared_->latch);
    XT_ASSERT(shared_->reserved_bytes >= FrameBytes(payload_bytes));
    shared_->reserved_bytes -= FrameBytes(payload_bytes);
  }
  windows_.Unpin();
}

void DeltaLog::AppendShared(OpType type, uint32_t tree, const std::byte* payload,
                            uint32_t payload_bytes, uint64_t lsn) noexcept {
  if (!enabled_) return;
  LogShared* log = shared_;
  BlockHeader* block = CurrentBlock();
  XT_ASSERT(block != nullptr);
  const uint32_t bytes = FrameBytes(payload_bytes);
  {
    SpinLatch latch(&log->latch);
    log->latch_waits += latch.waited();
    XT_ASSERT(log->reserved_bytes >= bytes);
    log->reserved_bytes -= bytes;
    LogFrame* frame = StartFrame(block, type, tree, bytes, lsn);
    std::memcpy(frame + 1, payload, payload_bytes);
    SealFrame(frame, bytes);
  }
  windows_.Unpin();
}

void DeltaLog::AppendCommit() noexcept {
  if (!enabled_) return;
  AppendBegin(OpType::kCommit, 0, 0, shared_->durable_mark.load(std::memory_order_acquire));
  SealFrame(open_frame_, open_bytes_);
  WriteOpenBlock();
  open_frame_ = nullptr;
  Unreserve();
}

uint64_t DeltaLog::Rotate(uint64_t capture_id) noexcept {
  if (!enabled_) return 0;
  LogShared* log = shared_;
  const uint64_t sequence = log->current_seq.load(std::memory_order_relaxed);
  const uint64_t start_seq = log->start_seq.load(std::memory_order_relaxed);
  if (sequence < start_seq) return start_seq;
  log->capture_id = capture_id;
  if (!log->sealed) {
    WindowPin pin(&windows_);
    BlockHeader* closing = CurrentBlock();
    if (closing != nullptr) CloseBlock(closing);
    log->previous_end = LogPosition(log->current_block, log->current_offset);
    log->sealed = 1;
  }
  return sequence + 1;
}

void DeltaLog::Recycle(uint64_t start_seq, uint64_t bytes) noexcept {
  if (!enabled_) return;
  LogShared* log = shared_;
  log->start_seq.store(start_seq, std::memory_order_relaxed);
  const uint64_t held = log->bytes.load(std::memory_order_relaxed);
  log->bytes.store(held - std::min(held, bytes), std::memory_order_relaxed);
  const uint32_t known_free = log->free_hint;
  const uint32_t known_free_end = log->punched_end;
  log->free_hint = 0;
  log->punched_end = 0;
  // Whatever fails from here on only leaves space taken: stale segments are known by sequence.
  WindowPin pin(&windows_);
  const uint32_t file_blocks = log->file_blocks.load(std::memory_order_relaxed);
  const uint32_t segments = (file_blocks + kLogSegmentBlocks - 1) / kLogSegmentBlocks;
  uint32_t used_segments = 0;
  uint32_t first_used = 0;
  bool punched = true;
  uint32_t first_free = 0;  // Of the run of free segments that ends before `s`.
  for (uint32_t s = 0; s < segments; ++s) {
    // What is a hole is not looked at: that would read ahead there.
    Result<bool> free = true;
    if (s < known_free || s >= known_free_end) free = SegmentIsFree(s);
    if (!free.ok()) return;
    if (*free && s % (kWindowBlocks / kLogSegmentBlocks) != 0) continue;
    if (first_free < s) {
      const uint32_t block = first_free * kLogSegmentBlocks;
      const Status ignored = fs_->Punch(windows_.SegmentPath(block / kWindowBlocks).c_str(),
                                        uint64_t{block % kWindowBlocks} * kBlockBytes,
                                        uint64_t{s - first_free} * kLogSegmentBlocks * kBlockBytes);
      punched = ignored.ok() && punched;
    }
    first_free = *free ? s : s + 1;
    if (*free) continue;
    if (used_segments == 0) first_used = s;
    used_segments = s + 1;
  }
  log->punched_end = punched ? first_used : 0;
  const uint32_t keep_blocks =
      std::min(std::max(used_segments * kLogSegmentBlocks, keep_blocks_), file_blocks);
  if (used_segments == 0 && keep_blocks > 0) {
    const Status ignored = fs_->Punch(windows_.SegmentPath(0).c_str(), 0,
                                      uint64_t{keep_blocks} * kBlockBytes);
    log->punched_end = ignored.ok() ? 1 : 0;
  }
  for (uint32_t w = (file_blocks + kWindowBlocks - 1) / kWindowBlocks; w-- > 0;) {
    const uint32_t first = w * kWindowBlocks;
    if (keep_blocks >= std::min(file_blocks, first + kWindowBlocks)) break;
    const uint32_t keep = keep_blocks > first ? keep_blocks - first : 0;
    if (!fs_->Truncate(windows_.SegmentPath(w).c_str(), uint64_t{keep} * kBlockBytes).ok()) return;
    log->file_blocks.store(first + keep, std::memory_order_relaxed);
  }
}

uint32_t DeltaLog::FileCount() const {
  const uint32_t blocks = shared_->file_blocks.load(std::memory_order_relaxed);
  return (blocks + kWindowBlocks - 1) / kWindowBlocks;
}

std::vector<std::string> DeltaLog::Paths() const {
  std::vector<std::string> paths;
  if (!enabled_) return paths;
  for (uint32_t w = 0; w < FileCount(); ++w) paths.push_back(windows_.SegmentPath(w));
  return paths;
}

Status DeltaLog::Sync() {
  if (!enabled_) return Status::Ok();
  const uint64_t mark = written_mark();
  const uint32_t files = FileCount();
  for (uint32_t w = 0; w < files; ++w) {
    std::shared_ptr<OpenFile> file;
    if (w + 1 == files) file = OpenFileOf(w);  // Where the log is growing.
    XT_RETURN_IF_ERROR(file != nullptr ? file->Sync() : fs_->Sync(windows_.SegmentPath(w).c_str()));
  }
  NoteDurable(mark);
  return Status::Ok();
}

void DeltaLog::NoteDurable(uint64_t mark) noexcept {
  uint64_t known = shared_->durable_mark.load(std::memory_order_relaxed);
  while (known < mark && !shared_->durable_mark.compare_exchange_weak(
                             known, mark, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

void DeltaLog::TrackTouched(bool enabled) {
  tracking_ = enabled;
  touched_.clear();
}

BlockHeader* DeltaLog::NextTouched(uint32_t* block) {
  while (!touched_.empty()) {
    *block = touched_.back();
    touched_.pop_back();
    if (*block >= shared_->file_blocks.load(std::memory_order_relaxed)) continue;  // Truncated.
    auto address = windows_.MapBlock(*block);
    if (!address.ok()) continue;
    auto* header = reinterpret_cast<BlockHeader*>(*address);
    if (header->kind == BlockKind::kLog) return header;
  }
  return nullptr;
}

}  // namespace xtree
