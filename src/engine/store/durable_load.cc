// Recovery: superblock, object table, log (src/README.md, "Crash between two steps").
#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "store/durable_internal.h"
#include "store/durable_store.h"
#include "tree/packed_coords.h"

namespace xtree {

Status DurableStore::Load(const LoadPolicy& policy) {
  bool done = false;
  while (!done) XT_RETURN_IF_ERROR(LoadStep(policy, UINT32_MAX, &done));
  return Status::Ok();
}

Status DurableStore::LoadStep(const LoadPolicy& policy, uint32_t ops_max, bool* done) {
  *done = false;
  using Phase = LoadState::Phase;
  if (load_ == nullptr) load_ = std::make_unique<LoadState>();
  WindowPin pin(windows_);
  const auto run = [&]() -> Status {
    if (load_->phase == Phase::kSuperblock) {
      XT_RETURN_IF_ERROR(LoadSuperblock(policy));
      load_->phase = Phase::kSpace;
    }
    if (load_->phase == Phase::kSpace) {
      XT_RETURN_IF_ERROR(ReserveSegments(load_->file_blocks));
      XT_RETURN_IF_ERROR(allocator()->Adopt(load_->file_blocks));
      load_->phase = Phase::kTable;
    }
    if (load_->phase == Phase::kTable) {
      XT_RETURN_IF_ERROR(LoadTable());
      allocator()->FinishAdopt();
      load_->phase = Phase::kLog;
    }
    if (policy.host && !SameIdentity(load_->content.identity, policy.identity)) {
      *done = true;
      return Adopt(policy);
    }
    return Replay(policy, ops_max, done);
  };
  Status status = run();
  if (status.code() == Code::kNeedMemory || status.code() == Code::kNeedForget ||
      (status.ok() && !*done)) {
    return status;
  }
  load_.reset();
  if (status.ok()) shared_->magic = kIndexSharedMagic;
  return status;
}

Status DurableStore::LoadSuperblock(const LoadPolicy& policy) {
  const char* path = windows_->path().c_str();
  uint64_t blocks = 0;
  for (uint32_t w = 0; w < kWindowsMax; ++w) {
    auto info = fs_->Stat(windows_->SegmentPath(w).c_str());
    if (!info.ok()) {
      if (w > 0 && info.status().code() == Code::kNotFound) break;
      return info.status();
    }
    blocks += info->size_bytes / kBlockBytes;
    if (info->size_bytes < kWindowBytes) break;
  }
  if (blocks == 0) return Status::NotFound("file \"%s\" is empty", path);
  if (blocks < kSuperblockSlots) {
    return Status::Corruption("file \"%s\" is too short for an index: %" PRIu64 " blocks", path,
                              blocks);
  }
  load_->file_blocks = static_cast<uint32_t>(blocks);
  XT_ASSIGN_OR_RETURN(std::byte* slots, MapSuperblock(0));
  Superblock& content = load_->content;
  XT_RETURN_IF_ERROR(ChooseSuperblock(slots, slots + kBlockBytes, path,
                                      policy.host ? &policy.identity : nullptr, policy.lsn_max,
                                      &content, &load_->slot));
  IndexOptions options;
  options.spec = KeySpec{content.trees[kTreeMain].dims, content.trees[kTreeMain].coord,
                         content.trees[kTreeMain].kind};
  options.leaf_fill_percent = content.leaf_fill_percent;
  const Status status = InitShared(shared_, options);
  shared_->magic = 0;  // Not usable before the log is replayed.
  if (!status.ok()) return Status::Corruption("file \"%s\": %s", path, status.message());
  for (uint32_t t = 0; t < kTrees; ++t) {
    const SuperblockTree& from = content.trees[t];
    TreeShared& to = shared_->trees[t];
    to.root.store(from.root, std::memory_order_relaxed);
    to.entries.store(from.entries, std::memory_order_relaxed);
    to.height.store(from.height, std::memory_order_relaxed);
    to.supernodes.store(from.supernodes, std::memory_order_relaxed);
    for (uint32_t l = 0; l < kTreeLevelsMax; ++l) {
      to.nodes_by_level[l].store(from.nodes_by_level[l], std::memory_order_relaxed);
    }
  }
  shared_->identity = content.identity;
  shared_->flags = policy.host ? kIndexFlagHost : 0;
  shared_->published_epoch.store(content.epoch + 1, std::memory_order_relaxed);
  shared_->applied_lsn.store(content.capture_lsn, std::memory_order_relaxed);
  CaptureShared& capture = shared_->capture;
  capture.durable_epoch.store(content.epoch, std::memory_order_relaxed);
  capture.pending_epoch.store(content.epoch, std::memory_order_relaxed);
  capture.capture_lsn.store(content.capture_lsn, std::memory_order_relaxed);
  capture.capture_id = content.capture_id;
  capture.sequence = content.sequence;
  capture.directory_blocks = content.directory_count;
  capture.superblock_slot = load_->slot;
  return Status::Ok();
}

Status DurableStore::VerifyTableBlock(uint32_t block, BlockKind kind, uint64_t index,
                                      const char* what) {
  XT_RETURN_IF_ERROR(allocator()->MarkUsed(block, 0));
  XT_ASSIGN_OR_RETURN(std::byte* address, windows_->MapBlock(block));
  const auto* header = reinterpret_cast<const BlockHeader*>(address);
  const char* why = nullptr;
  if (BlockLsn(*header) == kLsnUnstamped) {
    why = "it was never stamped";
  } else if (VerifyBlock(header, block, &why)) {
    if (header->kind != kind || header->node_id != index) {
      why = "it is another block";
    } else if (header->birth_epoch > load_->content.epoch) {
      why = "it is newer than the superblock";
    } else {
      return Status::Ok();
    }
  }
  return Status::Corruption("block %u of \"%s\" is not %s %" PRIu64 ": %s", block,
                            windows_->path().c_str(), what, index, why);
}

Status DurableStore::LoadTable() {
  const Superblock& content = load_->content;
  for (; load_->next_page < content.table_pages; ++load_->next_page) {
    const uint32_t page = load_->next_page;
    const uint32_t index = page / kDirectoryEntries;
    // First what can make this call come back for memory: the rest must be done once.
    XT_RETURN_IF_ERROR(ReserveTablePage());
    if (index >= content.directory_count) {
      return Status::Corruption("superblock of \"%s\" has no directory for table page %u",
                                windows_->path().c_str(), page);
    }
    const uint32_t directory = content.directory[index];
    if (page % kDirectoryEntries == 0) {
      XT_RETURN_IF_ERROR(
          VerifyTableBlock(directory, BlockKind::kTableDir, index, "table directory"));
    }
    XT_ASSIGN_OR_RETURN(std::byte* address, windows_->MapBlock(directory));
    const auto* entries = reinterpret_cast<const uint32_t*>(address + sizeof(BlockHeader));
    XT_RETURN_IF_ERROR(LoadTablePage(page, entries[page % kDirectoryEntries]));
  }
  return Status::Ok();
}

Status DurableStore::LoadTablePage(uint32_t page, uint32_t block) {
  XT_RETURN_IF_ERROR(VerifyTableBlock(block, BlockKind::kTablePage, page, "table page"));
  XT_ASSIGN_OR_RETURN(std::byte* address, windows_->MapBlock(block));
  const uint32_t shard = reinterpret_cast<const BlockHeader*>(address)->split_dims;
  if (shard >= kShards) {
    return Status::Corruption("table page %u of \"%s\" belongs to shard %u, there are %u", page,
                              windows_->path().c_str(), shard, kShards);
  }
  const auto* words = reinterpret_cast<const EntryWord*>(address + sizeof(BlockHeader));
  for (uint32_t e = 0; e < kTablePageEntries; ++e) {
    if (!(words[e] & kWordLive)) continue;
    XT_RETURN_IF_ERROR(allocator()->MarkUsed(WordBlock(words[e]), WordOrder(words[e])));
  }
  table()->AdoptPage(shard, block, words);
  return Status::Ok();
}

// The host copies an index's files when it moves it to another tablespace or makes a database from
// a template. Files whose last capture is the whole index (their log is empty) are whole wherever
// they are; of log records it cannot be told which count, since their LSNs are older than the copy.
//
// A log that builds on another capture is a later one of this relation's own, met when the host
// replays the copying over it: its operations come from the host's WAL again.
//
// A crash between the steps leaves a foreign superblock and an empty log: adopted again.
Status DurableStore::Adopt(const LoadPolicy& policy) {
  Superblock& content = load_->content;
  const char* path = windows_->path().c_str();
  bool at_rest = true;
  if (log_.enabled()) {
    LogReader reader(&log_);
    const Status status = reader.Open(content.log_start_seq != 0 ? content.log_start_seq : 1,
                                      content.log_capture_id);
    if (!status.ok() && status.code() != Code::kBroken) return status;
    at_rest = !status.ok() || reader.empty();
  }
  if (!at_rest) {
    return Status::Make(Code::kBroken,
                        "file \"%s\" is a copy of relation %u/%u/%u that was made while its log held "
                        "operations", path, content.identity.tablespace, content.identity.database,
                        content.identity.relation);
  }
  content.identity = policy.identity;
  content.capture_id = NewCaptureId();
  content.log_capture_id = content.capture_id;
  content.log_start_seq = log_.enabled() ? 1 : 0;
  log_.windows()->DropAll();
  XT_RETURN_IF_ERROR(log_.Reset(content.capture_id, policy.current_timeline));
  shared_->identity = content.identity;
  shared_->capture.capture_id = content.capture_id;
  // One after the other, so that one of them is whole at any time.
  for (uint32_t i = 0; i < kSuperblockSlots; ++i) {
    const uint32_t slot = i == 0 ? 1 - load_->slot : load_->slot;
    ++content.sequence;
    XT_ASSIGN_OR_RETURN(std::byte* block, MapSuperblock(slot));
    WriteSuperblock(content, slot, block);
    XT_RETURN_IF_ERROR(windows_->Save(slot, 1));
    XT_RETURN_IF_ERROR(fs_->Sync(path));
    shared_->capture.superblock_slot = slot;
  }
  shared_->capture.sequence = content.sequence;
  adopted_ = true;
  if (track_touched_) stamped_.insert(stamped_.end(), {0, 1});
  return Status::Ok();
}

// A process that was killed leaves in the page cache what it had not synced yet, a superblock or a file's name among
// it. What is read counts from now on, and what only an older state needs is overwritten: so it goes to disk first.
// A host does the same with all its files before it recovers (SyncDataDirectory).
//
// One whose sync has failed leaves there what is not on disk and counts as clean, so that no sync would write it: of what
// is read here that can be the log and the superblock, which are written again.
Status DurableStore::SyncWhatWasFound() {
  const char* path = windows_->path().c_str();
  XT_RETURN_IF_ERROR(load_->reader->Rewrite());
  XT_RETURN_IF_ERROR(fs_->Rewrite(path, uint64_t{load_->slot} * kBlockBytes, kBlockBytes));
  XT_RETURN_IF_ERROR(SyncData());
  for (const std::string& log_path : log_.Paths()) XT_RETURN_IF_ERROR(fs_->Sync(log_path.c_str()));
  return fs_->SyncDirectory(path);
}

Status DurableStore::Replay(const LoadPolicy& policy, uint32_t ops_max, bool* done) {
  using Phase = LoadState::Phase;
  *done = !log_.enabled();
  if (*done) return Status::Ok();
  const bool known = policy.host && policy.held.capture_id == load_->content.capture_id;
  const LogExtent held = known ? policy.held : LogExtent{};
  if (load_->phase == Phase::kLog) {
    shared_->log.timeline = policy.current_timeline;
    load_->reader = std::make_unique<LogReader>(&log_);
    const uint64_t start = load_->content.log_start_seq;
    if (!policy.host) log_.KeepFile();
    XT_RETURN_IF_ERROR(
        load_->reader->Open(start != 0 ? start : 1, load_->content.log_capture_id));
    if (!policy.host && shared_->log.file_blocks.load(std::memory_order_relaxed) == 0) {
      return Status::Corruption("log file \"%s\" is missing or empty, and with it what was committed "
                                "since the last checkpoint", log_.windows()->path().c_str());
    }
    load_->reader->Expect(held, policy.may_shorten);
    XT_RETURN_IF_ERROR(load_->reader->Scan(policy));
    if (!policy.host) XT_RETURN_IF_ERROR(SyncWhatWasFound());
    load_->phase = Phase::kReplay;
  }
  for (uint32_t ops = 0;; ++ops) {
    if (ops == ops_max) return Status::Ok();
    if (!load_->have_record) {
      load_->have_record = load_->reader->Next(policy, &load_->record);
      if (!load_->have_record) break;
    }
    XT_RETURN_IF_ERROR(ReplayOne(load_->record));
    NoteApplied(shared_, load_->record.lsn);
    load_->have_record = false;
  }
  load_->reader->Expect(held, policy.may_shorten);  // By now the caller may have forgotten.
  XT_RETURN_IF_ERROR(load_->reader->Finish());
  *done = true;
  shared_->capture.ops_since_commit.store(0, std::memory_order_relaxed);
  return Status::Ok();
}

namespace {

// What IndexDetails lets into a tree. The tree relies on it, and a CRC does not prove it.
bool IsOrderedKey(const KeySpec& spec, const Key& key) {
  if (IsUnordered(spec, key.lo, key.hi)) return false;
  for (uint32_t d = 0; d < spec.dims; ++d) {
    if (key.lo[d] > key.hi[d]) return false;
  }
  return true;
}

}  // namespace

// Goes to the tree directly: the operation is in the log already.
Status DurableStore::ReplayOne(const LogRecord& record) {
  const auto malformed = [&] {
    return Status::Corruption("log file of \"%s\" has a malformed record at position %016" PRIx64
                              ": type %u, tree %u, %u bytes", windows_->path().c_str(),
                              record.mark, static_cast<unsigned>(record.type), record.tree,
                              record.payload_bytes);
  };
  if (record.tree >= kTrees || record.payload_bytes < sizeof(uint64_t)) return malformed();
  const KeySpec& spec = shared_->trees[record.tree].spec;
  const uint32_t corner = spec.dims * sizeof(double);
  uint64_t first;  // The record id and its packing, or how many there are.
  std::memcpy(&first, record.payload, sizeof(first));
  const std::byte* corners = record.payload + sizeof(first);
  const uint64_t rest = record.payload_bytes - sizeof(first);
  XTree* tree = details_.tree(record.tree);
  Key key;
  Status status;
  bool staged = true;
  if (record.type == OpType::kInsert) {
    const bool point = spec.kind == KeyKind::kPoint;
    const auto packing = static_cast<uint8_t>(std::min<uint64_t>(first >> kPackingShift, 0xff));
    const uint32_t packed = PackedBytes(packing, spec.dims, point);
    if (record.payload_bytes != FilledPayload(sizeof(first) + packed) ||
        !UnpackCoords(corners, packed, packing, spec.dims, point, key.lo, key.hi) ||
        !IsOrderedKey(spec, key)) {
      return malformed();
    }
    status = tree->PrepareInsert(key, first & kRecordIdMax);
  } else if (record.type == OpType::kDelete) {
    if (first > IndexDetails::kDeleteBatchMax ||
        rest != 2 * uint64_t{corner} + first * sizeof(uint64_t)) {
      return malformed();
    }
    std::memcpy(key.lo, corners, corner);
    std::memcpy(key.hi, corners + corner, corner);
    uint32_t found = 0;
    const auto* ids = reinterpret_cast<const uint64_t*>(corners + 2 * corner);
    status = tree->PrepareDelete(key, ids, static_cast<uint32_t>(first), &found);
    staged = found != 0;
  } else {
    return malformed();
  }
  if (status.ok() && staged) {
    tree->Apply();
  } else {
    tree->Discard();
    Discard();
  }
  return status;
}

}  // namespace xtree
