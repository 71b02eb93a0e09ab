// Creation, the operation log, the broken mark, checks. Folds are in durable_fold.cc, recovery in
// durable_load.cc.
#include "store/durable_store.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "store/durable_internal.h"
#include "store/rewound.h"
#include "tree/packed_coords.h"

namespace xtree {

DurableStore::DurableStore(IndexShared* shared, FileSystem* fs, WindowBudget* budget,
                           EpochShared* epochs, std::string data_path, std::string log_path,
                           ChunkSource chunk_source)
    : NodeStore(shared, fs, budget, epochs, std::move(data_path), chunk_source),
      fs_(fs),
      log_(&shared->log, fs, budget, std::move(log_path)),
      details_(this, this) {}

DurableStore::~DurableStore() { AbandonFold(); }

void DurableStore::DropWindows() {
  windows_->DropAll();
  log_.windows()->DropAll();
}

Result<std::byte*> DurableStore::MapSuperblock(uint32_t slot) {
  XT_ASSERT(slot < kSuperblockSlots);
  return windows_->MapBlock(slot);
}

// fdatasync of every file segment.
Status DurableStore::SyncData() {
  const uint32_t windows = (allocator()->file_blocks() + kWindowBlocks - 1) / kWindowBlocks;
  for (uint32_t w = 0; w < windows; ++w) {
    XT_RETURN_IF_ERROR(fs_->Sync(windows_->SegmentPath(w).c_str()));
  }
  return Status::Ok();
}

// --- Creation.

void DurableStore::FillEmptySuperblock(const IndexOptions& options, const Identity& identity,
                                       bool has_log, Superblock* content) {
  std::memset(static_cast<void*>(content), 0, sizeof(*content));
  content->sequence = 1;
  content->identity = identity;
  content->capture_id = NewCaptureId();
  content->log_capture_id = content->capture_id;
  content->epoch = 1;
  content->log_start_seq = has_log ? 1 : 0;
  content->leaf_fill_percent = options.leaf_fill_percent;
  const KeySpec null_spec{1, CoordType::kF64, KeyKind::kPoint};
  for (uint32_t t = 0; t < kTrees; ++t) {
    const KeySpec& spec = t == kTreeMain ? options.spec : null_spec;
    content->trees[t].dims = spec.dims;
    content->trees[t].coord = spec.coord;
    content->trees[t].kind = spec.kind;
  }
}

Status DurableStore::Create(const IndexOptions& options, const Identity& identity,
                            uint32_t timeline) {
  // Impossible options must leave no file behind.
  XT_RETURN_IF_ERROR(InitShared(shared_, options));
  shared_->magic = 0;
  XT_RETURN_IF_ERROR(ReserveSegments(0));
  // Whatever the file held goes first, from its end, so that no segment is left without the ones
  // before it.
  const std::string& path = windows_->path();
  // Who was killed while it dropped an index may have removed its name, which is not gone for good yet: what belongs to
  // it must not go before.
  if (identity.system_id == 0) XT_RETURN_IF_ERROR(fs_->SyncDirectory(path.c_str()));
  uint32_t files = 0;
  while (files < kWindowsMax) {
    // A removal that a crash cut short may have left later segments without the first.
    if (!fs_->Stat(windows_->SegmentPath(files).c_str()).ok() && files != 0) break;
    ++files;
  }
  for (uint32_t w = files; w-- > 0;) {
    const std::string segment = windows_->SegmentPath(w);
    auto info = fs_->Stat(segment.c_str());
    if (info.status().code() == Code::kNotFound) continue;
    XT_RETURN_IF_ERROR(info.status());
    if (info->size_bytes == 0) continue;
    // Durably, before the log goes: an old superblock must not be met without its log.
    XT_RETURN_IF_ERROR(fs_->Truncate(segment.c_str(), 0));
    XT_RETURN_IF_ERROR(fs_->Sync(segment.c_str()));
  }
  Superblock content;
  FillEmptySuperblock(options, identity, log_.enabled(), &content);
  XT_RETURN_IF_ERROR(log_.Reset(content.capture_id, timeline));
  if (identity.system_id == 0 && log_.enabled()) {
    // Before any superblock: an index without its log is then known for what it is.
    log_.KeepFile();
    XT_RETURN_IF_ERROR(log_.CreateFile());
  }
  XT_RETURN_IF_ERROR(allocator()->CreateFile());
  for (uint32_t slot = 0; slot < kSuperblockSlots; ++slot) {
    XT_ASSIGN_OR_RETURN(std::byte* block, MapSuperblock(slot));
    WriteSuperblock(content, slot, block);
    XT_RETURN_IF_ERROR(windows_->Save(slot, 1));
  }
  XT_RETURN_IF_ERROR(fs_->Sync(path.c_str()));
  XT_RETURN_IF_ERROR(fs_->SyncDirectory(path.c_str()));
  shared_->identity = identity;
  shared_->flags = identity.system_id != 0 ? kIndexFlagHost : 0;
  CaptureShared& capture = shared_->capture;
  capture.durable_epoch.store(content.epoch, std::memory_order_relaxed);
  capture.pending_epoch.store(content.epoch, std::memory_order_relaxed);
  capture.capture_id = content.capture_id;
  capture.sequence = content.sequence;
  shared_->magic = kIndexSharedMagic;  // Last: it makes the index usable.
  return Status::Ok();
}

// --- The operation log.

void DurableStore::Discard() noexcept {
  NodeStore::Discard();
  log_.Unreserve();
}

Status DurableStore::ReserveFrame(uint32_t payload_bytes) {
  return log_.Reserve(payload_bytes);
}

namespace {

std::byte* PutBytes(std::byte* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
  return to + bytes;
}

static_assert(kRecordIdMax >> kPackingShift == 0);

void PutInsert(const KeySpec& spec, const Key& key, uint64_t record_id, InsertPayload* payload) {
  uint8_t packing;
  const uint32_t bytes = PackCoords(key.lo, key.hi, spec.dims, spec.kind == KeyKind::kPoint,
                                    payload->data + sizeof(record_id), &packing);
  const uint64_t word = record_id | uint64_t{packing} << kPackingShift;
  PutBytes(payload->data, &word, sizeof(word));
  payload->bytes = bytes + static_cast<uint32_t>(sizeof(record_id));
}

}  // namespace

// Alone: no need for a locked instruction.
void DurableStore::CountOperation() noexcept {
  std::atomic<uint32_t>& ops = shared_->capture.ops_since_commit;
  ops.store(ops.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void DurableStore::AppendInsert(uint32_t tree, const KeySpec& spec, const Key& key,
                                uint64_t record_id, uint64_t lsn) noexcept {
  NoteApplied(shared_, lsn);
  if (!log_.enabled()) return;
  InsertPayload payload;
  PutInsert(spec, key, record_id, &payload);
  std::memcpy(log_.AppendBegin(OpType::kInsert, tree, payload.bytes, lsn), payload.data, payload.bytes);
  log_.AppendEnd();
  CountOperation();
}

bool DurableStore::ReserveInsertShared(const KeySpec& spec, const Key& key, uint64_t record_id,
                                       InsertPayload* payload) {
  if (!log_.enabled()) return true;
  PutInsert(spec, key, record_id, payload);
  return log_.ReserveShared(payload->bytes);
}

void DurableStore::UnreserveInsertShared(const InsertPayload& payload) noexcept {
  if (log_.enabled()) log_.UnreserveShared(payload.bytes);
}

void DurableStore::AppendInsertShared(uint32_t tree, const InsertPayload& payload,
                                      uint64_t lsn) noexcept {
  if (!log_.enabled()) return;
  log_.AppendShared(OpType::kInsert, tree, payload.data, payload.bytes, lsn);
  shared_->capture.ops_since_commit.fetch_add(1, std::memory_order_relaxed);
}

void DurableStore::AppendDelete(uint32_t tree, const KeySpec& spec, const Key& bound,
                                const uint64_t* record_ids, uint32_t count,
                                uint64_t lsn) noexcept {
  NoteApplied(shared_, lsn);
  if (!log_.enabled()) return;
  const uint32_t corner = spec.dims * sizeof(double);
  const uint64_t count_word = count;
  std::byte* to = log_.AppendBegin(
      OpType::kDelete, tree,
      static_cast<uint32_t>(sizeof(uint64_t)) * (1 + count) + 2 * corner, lsn);
  to = PutBytes(to, &count_word, sizeof(count_word));
  to = PutBytes(to, bound.lo, corner);
  to = PutBytes(to, bound.hi, corner);
  PutBytes(to, record_ids, size_t{count} * sizeof(uint64_t));
  log_.AppendEnd();
  CountOperation();
}

void DurableStore::AppendCommit() noexcept {
  log_.AppendCommit();
  shared_->capture.ops_since_commit.store(0, std::memory_order_relaxed);
}

Status DurableStore::SyncLog() { return log_.Sync(); }

uint64_t DurableStore::log_bytes() const {
  return shared_->log.bytes.load(std::memory_order_relaxed);
}

// --- Marks and checks.

Status DurableStore::MarkBroken() {
  // In memory first: whatever happens to the disk, nobody gets a short answer from now on.
  shared_->broken.store(1, std::memory_order_relaxed);
  // By a mapping of its own: the handle's windows may be what failed.
  return MarkFileBroken(fs_, windows_->path());
}

Status DurableStore::FaultStatus() const {
  if (windows_->faults() != 0) {
    return windows_->FaultStatus(shared_->allocator.file_blocks.load(std::memory_order_relaxed));
  }
  return log_.windows()->FaultStatus(shared_->log.file_blocks.load(std::memory_order_relaxed));
}

void DurableStore::TrackTouched(bool enabled) {
  NodeStore::TrackTouched(enabled);
  log_.TrackTouched(enabled);
}

bool DurableStore::NextTouched(uint32_t* block, bool* in_log, void** page) {
  BlockHeader* header = log_.NextTouched(block);
  *in_log = header != nullptr;
  while (header == nullptr) {
    if (!stamped_.empty()) {
      *block = stamped_.back();
      stamped_.pop_back();
    } else if (!NodeStore::NextTouched(block)) {
      break;
    }
    if (*block >= allocator()->file_blocks()) continue;  // Given back since.
    auto address = windows_->MapBlock(*block);
    if (!address.ok()) continue;
    auto* candidate = reinterpret_cast<BlockHeader*>(*address);
    if (candidate->kind != BlockKind::kFree) header = candidate;
  }
  if (header == nullptr) return false;
  // The caller sets LSN and host checksum, neither of which the engine's CRC covers; so the block
  // is whole then, and verifies when it is loaded. A block of a capture must not read as unstamped
  // in between: a crash at that moment would leave it so, and it could not be loaded.
  if (BlockLsn(*header) == kLsnUnstamped) {
    StampBlock(header, 0);
    if (*in_log || IsMutable(header)) MarkUnstamped(header);
  }
  *page = header;
  return true;
}

namespace {

constexpr size_t kProblemsMax = 100;

void AddProblem(std::vector<std::string>* problems, const char* format, ...) XT_PRINTF(2, 3);
void AddProblem(std::vector<std::string>* problems, const char* format, ...) {
  if (problems->size() >= kProblemsMax) return;
  char text[400];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  problems->push_back(text);
}

}  // namespace

Status DurableStore::CheckTablePage(uint32_t page, std::vector<Damage>* damages,
                                    std::vector<std::string>* problems) {
  WindowPin pin(windows_);
  if (!entries_.FullyAttached()) return NotAttached();
  for (uint32_t i = 0; i < kTablePageEntries; ++i) {
    const uint64_t handle = uint64_t{page} * kTablePageEntries + i;
    const EntryWord word = entries_[handle].word.load(std::memory_order_acquire);
    if (!(word & kWordLive)) continue;
    for (uint32_t b = 0; b < 1u << WordOrder(word); ++b) {
      const uint32_t block = WordBlock(word) + b;
      XT_ASSIGN_OR_RETURN(std::byte* address, windows_->MapBlock(block));
      const auto* header = reinterpret_cast<const BlockHeader*>(address);
      if (header->block_number != block || header->extent_index != b) {
        AddProblem(problems, "block %u says that it is block %u, number %u of its extent", block,
                   header->block_number, header->extent_index);
      }
      if (IsDamaged(header, block) != nullptr && damages->size() < kProblemsMax) {
        damages->push_back(Damage{handle, block});
      }
    }
    if (windows_->faults() != 0) return windows_->FaultStatus(0);
  }
  return Status::Ok();
}

// Why a block is not what was stamped, null if it is. Only what a capture holds is immutable, so only that
// has a CRC that must hold.
const char* DurableStore::IsDamaged(const BlockHeader* header, uint32_t block) const {
  const char* why = nullptr;
  if (!IsMutable(header) && BlockLsn(*header) != kLsnUnstamped && !VerifyBlock(header, block, &why)) {
    return why;
  }
  return nullptr;
}

Status DurableStore::CheckSpace(const std::vector<Damage>& damages,
                                std::vector<std::string>* problems) {
  WindowPin pin(windows_);
  for (const Damage& damage : damages) {
    // A fold that failed meanwhile takes stamps back, and an entry may have a new version by now.
    const EntryWord word = entries_[damage.handle].word.load(std::memory_order_acquire);
    if (!(word & kWordLive) || damage.block < WordBlock(word) ||
        damage.block >= WordBlock(word) + (1u << WordOrder(word))) {
      continue;
    }
    XT_ASSIGN_OR_RETURN(std::byte* address, windows_->MapBlock(damage.block));
    const char* why = IsDamaged(reinterpret_cast<const BlockHeader*>(address), damage.block);
    if (why != nullptr) AddProblem(problems, "block %u is damaged: %s", damage.block, why);
  }
  uint64_t expected = kSuperblockSlots;
  const uint32_t pages = table()->pages();
  for (uint32_t page = 0; page < pages; ++page) {
    if (table()->page_info(page).disk_block != 0) ++expected;
    for (uint32_t i = 0; i < kTablePageEntries; ++i) {
      const EntryWord word =
          entries_[uint64_t{page} * kTablePageEntries + i].word.load(std::memory_order_relaxed);
      if ((word & kWordLive) && !(word & kWordDead)) expected += uint64_t{1} << WordOrder(word);
    }
  }
  const uint32_t queues[] = {shared_->table.waiting_readers.head,
                             shared_->table.waiting_capture.head};
  for (uint32_t record : queues) {
    for (; record != 0; record = table()->record(record).next) {
      expected += uint64_t{1} << WordOrder(table()->record(record).word);
    }
  }
  expected += shared_->capture.directory_blocks;
  const bool quiet = shared_->capture.fold_running.load(std::memory_order_relaxed) == 0 &&
                     (shared_->flags & kIndexFlagLatched) == 0;
  if (quiet && expected != allocator()->used_blocks()) {
    AddProblem(problems, "%" PRIu64 " blocks are referred to, but %u are taken", expected,
               allocator()->used_blocks());
  }
  return Status::Ok();
}

Status DurableStore::CheckBlocks(std::vector<std::string>* problems) {
  std::vector<Damage> damages;
  const uint32_t pages = table()->pages();
  for (uint32_t page = 0; page < pages; ++page) {
    XT_RETURN_IF_ERROR(CheckTablePage(page, &damages, problems));
  }
  return CheckSpace(damages, problems);
}

}  // namespace xtree
