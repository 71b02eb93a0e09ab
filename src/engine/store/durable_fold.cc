// Folds: making a capture durable (src/README.md, "Checkpoints (folds)").
#include <algorithm>
#include <cstring>

#include "store/durable_internal.h"
#include "store/durable_store.h"

namespace xtree {

namespace {

constexpr uint32_t kScrubBlocks = 1024;  // 8 MiB to read, at worst, under the writer lock.

EntryWord* PageWords(std::byte* block) {
  return reinterpret_cast<EntryWord*>(block + sizeof(BlockHeader));
}
static_assert(kTablePageEntries * sizeof(EntryWord) <= kBlockPayloadBytes);

}  // namespace

Status DurableStore::FoldAllowed() const {
  const char* path = windows_->path().c_str();
  if (shared_->broken.load(std::memory_order_relaxed) != 0) {
    return Status::Make(Code::kBroken, "index \"%s\" is marked broken", path);
  }
  if (shared_->flags & kIndexFlagLatched) {
    return Status::Make(Code::kIoError, "an earlier sync of file \"%s\" has failed", path);
  }
  if (shared_->flags & kIndexFlagSuspended) {
    return Status::Make(Code::kOutOfMemory,
                        "an earlier fold of \"%s\" could not be ended for want of memory", path);
  }
  if (shared_->capture.fold_running.load(std::memory_order_relaxed) != 0 || has_staged()) {
    return Status::Make(Code::kBusy, "index \"%s\" is being folded or changed", path);
  }
  if (!host() && ops_since_commit() != 0) {
    return Status::Make(Code::kBusy, "index \"%s\" has operations that are not committed", path);
  }
  return Status::Ok();
}

Status DurableStore::FoldBegin() {
  if (fold_ != nullptr && fold_->suspended) FoldEnd(fold_->published);
  XT_RETURN_IF_ERROR(TakeOverFold());
  XT_RETURN_IF_ERROR(FoldAllowed());
  XT_ASSERT(fold_ == nullptr);
  fold_ = std::make_unique<Fold>();
  WindowPin pin(windows_);
  FillSuperblock(&fold_->content);
  const Status status = CaptureTable();
  if (!status.ok()) {
    UndoCapture();
    fold_.reset();
    return status;
  }
  // Nothing fails from here on.
  windows_->SaveBegins();
  fold_->allocated_blocks = allocator()->allocated_blocks();
  fold_->log_bytes = log_bytes();
  fold_->content.log_start_seq = log_.Rotate(fold_->content.capture_id);
  fold_->content.log_capture_id = shared_->log.capture_id;
  shared_->capture.pending_epoch.store(fold_->content.epoch, std::memory_order_release);
  shared_->capture.fold_running.store(1, std::memory_order_relaxed);
  return Status::Ok();
}

void DurableStore::FillSuperblock(Superblock* content) const {
  std::memset(static_cast<void*>(content), 0, sizeof(*content));
  content->sequence = shared_->capture.sequence + 1;
  content->identity = shared_->identity;
  content->capture_id = NewCaptureId();
  content->capture_lsn = shared_->applied_lsn.load(std::memory_order_relaxed);
  content->epoch = shared_->published_epoch.load(std::memory_order_relaxed);
  content->leaf_fill_percent = shared_->leaf_fill_percent;
  for (uint32_t t = 0; t < kTrees; ++t) {
    const TreeShared& from = shared_->trees[t];
    SuperblockTree& to = content->trees[t];
    to.dims = from.spec.dims;
    to.coord = from.spec.coord;
    to.kind = from.spec.kind;
    to.root = from.root.load(std::memory_order_relaxed);
    to.entries = from.entries.load(std::memory_order_relaxed);
    to.height = from.height.load(std::memory_order_relaxed);
    to.supernodes = from.supernodes.load(std::memory_order_relaxed);
    for (uint32_t l = 0; l < kTreeLevelsMax; ++l) {
      to.nodes_by_level[l] = from.nodes_by_level[l].load(std::memory_order_relaxed);
    }
  }
}

Status DurableStore::CaptureTable() {
  Fold& fold = *fold_;
  const uint32_t pages = table()->pages();
  const uint32_t directories = (pages + kDirectoryEntries - 1) / kDirectoryEntries;
  if (directories > kDirectoryBlocksMax) {
    return Status::Make(Code::kNoSpace, "index \"%s\" has too many nodes for its table directory",
                        windows_->path().c_str());
  }
  // A page that was claimed but never published from is clean, yet the directory must name it.
  const auto changed = [&](uint32_t page) {
    const TablePageInfo& info = table()->page_info(page);
    return info.dirty.load(std::memory_order_relaxed) != 0 || info.disk_block == 0;
  };
  size_t count = 0;
  for (uint32_t page = 0; page < pages; ++page) count += changed(page);
  fold.images.reserve(count);
  fold.directories.reserve(directories);
  for (uint32_t page = 0; page < pages; ++page) {
    if (changed(page)) XT_RETURN_IF_ERROR(CapturePage(page));
  }
  Superblock previous;
  XT_ASSIGN_OR_RETURN(std::byte* slot, MapSuperblock(shared_->capture.superblock_slot));
  std::memcpy(static_cast<void*>(&previous), slot, sizeof(previous));
  XT_ASSERT(previous.directory_count == shared_->capture.directory_blocks);
  fold.content.table_pages = pages;
  fold.content.directory_count = directories;
  for (uint32_t i = 0; i < directories; ++i) {
    XT_RETURN_IF_ERROR(CaptureDirectory(i, previous));
  }
  return Status::Ok();
}

Status DurableStore::CapturePage(uint32_t page) {
  TablePageInfo& info = table()->page_info(page);
  XT_ASSIGN_OR_RETURN(const uint32_t block, AllocateExtent(0));
  fold_->images.push_back(Fold::Image{page, block, info.disk_block});
  std::byte* address = windows_->BlockAddress(block);
  auto* header = reinterpret_cast<BlockHeader*>(address);
  InitBlock(header, BlockKind::kTablePage, block);
  header->node_id = page;
  header->birth_epoch = fold_->content.epoch;
  header->split_dims = info.shard;
  header->count = kTablePageEntries;
  table()->EncodePage(page, PageWords(address));
  info.dirty.store(0, std::memory_order_relaxed);
  return Status::Ok();
}

// Writes directory block `index` if any of its pages has moved; else the capture shares the one of
// the previous capture.
Status DurableStore::CaptureDirectory(uint32_t index, const Superblock& previous) {
  Fold& fold = *fold_;
  const uint32_t first = index * kDirectoryEntries;
  const uint32_t end = std::min(first + kDirectoryEntries, fold.content.table_pages);
  auto image = std::lower_bound(fold.images.begin(), fold.images.end(), first,
                                [](const Fold::Image& i, uint32_t page) { return i.page < page; });
  const bool existed = index < previous.directory_count;
  if (existed && (image == fold.images.end() || image->page >= end)) {
    fold.content.directory[index] = previous.directory[index];
    return Status::Ok();
  }
  XT_ASSIGN_OR_RETURN(const uint32_t block, AllocateExtent(0));
  fold.directories.push_back(
      Fold::Directory{index, block, existed ? previous.directory[index] + 1 : 0});
  fold.content.directory[index] = block;
  std::byte* address = windows_->BlockAddress(block);
  auto* header = reinterpret_cast<BlockHeader*>(address);
  InitBlock(header, BlockKind::kTableDir, block);
  header->node_id = index;
  header->birth_epoch = fold.content.epoch;
  header->count = end - first;
  auto* entries = reinterpret_cast<uint32_t*>(address + sizeof(BlockHeader));
  for (uint32_t page = first; page < end; ++page) {
    if (image != fold.images.end() && image->page == page) {
      entries[page - first] = image->block;
      ++image;
    } else {
      entries[page - first] = table()->page_info(page).disk_block - 1;
    }
  }
  return Status::Ok();
}

uint64_t DurableStore::fold_lsn() const {
  XT_ASSERT(fold_ != nullptr);
  return fold_->content.capture_lsn;
}

// Notes one page image and the blocks of the nodes that it refers to and that the durable capture does not
// have. Those are immutable now. Comparing the words avoids touching the others, which may be cold.
Status DurableStore::CollectImage(size_t image) {
  Fold& fold = *fold_;
  const Fold::Image& i = fold.images[image];
  XT_ASSIGN_OR_RETURN(std::byte* address, windows_->MapBlock(i.block));
  const EntryWord* words = PageWords(address);
  const EntryWord* old_words = nullptr;
  if (i.old_block != 0) {
    XT_ASSIGN_OR_RETURN(std::byte* old_address, windows_->MapBlock(i.old_block - 1));
    old_words = PageWords(old_address);
  }
  for (uint32_t e = 0; e < kTablePageEntries; ++e) {
    const EntryWord word = words[e];
    if (!(word & kWordLive) || (old_words != nullptr && old_words[e] == word)) continue;
    for (uint32_t b = 0; b < 1u << WordOrder(word); ++b) fold.blocks.push_back(WordBlock(word) + b);
  }
  fold.blocks.push_back(i.block);
  return Status::Ok();
}

// Stamps blocks that follow each other in one window, and writes them or has their write-back started:
// exactly these, since a range around scattered ones would, step after step, write what lies between again,
// while writers change it.
Status DurableStore::StampRun(uint32_t first, uint32_t end) {
  const uint32_t window = first / kWindowBlocks;
  XT_RETURN_IF_ERROR(windows_->MapBlock(first).status());
  for (uint32_t block = first; block < end; ++block) {
    auto* header = reinterpret_cast<BlockHeader*>(windows_->BlockAddress(block));
    XT_ASSERT(header->birth_epoch <= fold_->content.epoch);
    // A stamped block of a node has been stamped by the host, after its last change.
    if (BlockLsn(*header) != kLsnUnstamped) continue;
    StampBlock(header, fold_->content.capture_lsn);
    if (track_touched_) stamped_.push_back(block);
  }
  if (windows_->keeps_private()) return windows_->Save(first, end - first);
  if (!fold_->synced) return Status::Ok();
  fs_->StartWriteback(windows_->SegmentPath(window).c_str(),
                      uint64_t{first % kWindowBlocks} * kBlockBytes,
                      uint64_t{end - first} * kBlockBytes);
  return Status::Ok();
}

Status DurableStore::FoldWrite(uint32_t blocks_max, bool* done) {
  XT_ASSERT(fold_ != nullptr && !fold_->publish_tried);
  Fold& fold = *fold_;
  *done = false;
  WindowPin pin(windows_);
  if (!fold.listed) {
    // All first: in the order of the file they make long runs, of which each costs some system calls.
    const size_t before = fold.blocks.size();
    while (fold.next_image < fold.images.size() && fold.blocks.size() - before < blocks_max) {
      XT_RETURN_IF_ERROR(CollectImage(fold.next_image));
      ++fold.next_image;
    }
    if (fold.next_image < fold.images.size()) return Status::Ok();
    for (const Fold::Directory& directory : fold.directories) fold.blocks.push_back(directory.block);
    std::sort(fold.blocks.begin(), fold.blocks.end());
    fold.listed = true;
  }
  const std::vector<uint32_t>& blocks = fold.blocks;
  const size_t step_end = std::min<size_t>(blocks.size(), fold.next_block + uint64_t{blocks_max});
  while (fold.next_block < step_end) {
    const uint32_t first = blocks[fold.next_block];
    size_t next = fold.next_block + 1;
    while (next < step_end && blocks[next] == blocks[next - 1] + 1 &&
           blocks[next] / kWindowBlocks == first / kWindowBlocks) {
      ++next;
    }
    XT_RETURN_IF_ERROR(StampRun(first, blocks[next - 1] + 1));
    fold.next_block = next;
  }
  if (fold.next_block < blocks.size()) return Status::Ok();
  Status status = fold.synced ? SyncData() : Status::Ok();
  if (!status.ok()) {
    fold.sync_failed = true;
    return status;
  }
  *done = true;
  return Status::Ok();
}

Status DurableStore::FoldPublish() {
  XT_ASSERT(fold_ != nullptr && !fold_->sync_failed);
  WindowPin pin(windows_);
  const uint32_t slot = 1 - shared_->capture.superblock_slot;
  XT_ASSIGN_OR_RETURN(std::byte* block, MapSuperblock(slot));
  fold_->publish_tried = true;
  WriteSuperblock(fold_->content, slot, block);
  Status status = windows_->Save(slot, 1);
  if (status.ok() && fold_->synced) status = fs_->Sync(windows_->path().c_str());
  if (!status.ok()) fold_->sync_failed = true;
  return status;
}

void DurableStore::FoldEnd(bool published, bool tidy) noexcept {
  if (fold_ == nullptr) return;
  WindowPin pin(windows_);
  CaptureShared& capture = shared_->capture;
  if (published) {
    XT_ASSERT(fold_->publish_tried && !fold_->sync_failed);
    PublishedFold();
  } else if (fold_->publish_tried) {
    // Whether the new superblock is on disk is not known. So both captures, and the whole log, stay
    // as they are; space is found again at the next load.
    shared_->flags |= kIndexFlagLatched;
  } else {
    if (fold_->sync_failed) shared_->flags |= kIndexFlagLatched;
    MarkNodesUnstamped();
    UndoCapture();
    capture.pending_epoch.store(capture.durable_epoch.load(std::memory_order_relaxed),
                                std::memory_order_release);
    ReleaseCaptured();
  }
  windows_->SaveEnds(published);
  if (published) saved_blocks_ = fold_->allocated_blocks;
  fold_.reset();
  shared_->flags &= ~kIndexFlagSuspended;
  capture.fold_running.store(0, std::memory_order_relaxed);
  if (published && tidy) {
    while (!FoldTidy(UINT64_MAX)) {
    }
  }
}

bool DurableStore::FoldTidy(uint64_t versions_max) noexcept {
  WindowPin pin(windows_);
  const VersionQueue& queue = shared_->table.waiting_readers;
  const uint64_t before = queue.length;
  Reclaim(versions_max);
  // As many as allowed have left the queue: there may be more.
  if (before > versions_max && queue.length <= before - versions_max) return false;
  allocator()->ReturnFreeSpace();
  allocator()->ScrubStep(kScrubBlocks);  // Afterwards: what has been punched need not be read.
  return true;
}

void DurableStore::FoldSuspend(bool published) noexcept {
  if (fold_ == nullptr) return;
  fold_->suspended = true;
  fold_->published = published;
  shared_->flags |= kIndexFlagSuspended;
}

// The capture is durable: everything that only the previous one needed goes.
void DurableStore::PublishedFold() noexcept {
  const Fold& fold = *fold_;
  CaptureShared& capture = shared_->capture;
  const uint32_t slot = 1 - capture.superblock_slot;
  // The other slot follows without a sync: the next fold's first sync covers it before the slot
  // just published is the one to be overwritten.
  auto other = MapSuperblock(capture.superblock_slot);
  if (other.ok()) {
    WriteSuperblock(fold.content, capture.superblock_slot, *other);
    const Status ignored = windows_->Save(capture.superblock_slot, 1);  // The next fold does it again.
    (void)ignored.ok();
  }
  if (track_touched_) stamped_.insert(stamped_.end(), {0, 1});
  for (const Fold::Image& image : fold.images) {
    table()->page_info(image.page).disk_block = image.block + 1;
    if (image.old_block != 0) FreeExtent(image.old_block - 1, 0);
  }
  for (const Fold::Directory& directory : fold.directories) {
    if (directory.old_block != 0) FreeExtent(directory.old_block - 1, 0);
  }
  capture.superblock_slot = slot;
  capture.capture_id = fold.content.capture_id;
  capture.sequence = fold.content.sequence;
  capture.directory_blocks = fold.content.directory_count;
  capture.capture_lsn.store(fold.content.capture_lsn, std::memory_order_relaxed);
  capture.durable_epoch.store(fold.content.epoch, std::memory_order_release);
  capture.folds.fetch_add(1, std::memory_order_relaxed);
  ReleaseCaptured();
  log_.Recycle(fold.content.log_start_seq, fold.log_bytes);
  if (log_.enabled()) log_.NoteDurable(LogMark(fold.content.log_start_seq, 0));
}

void DurableStore::UndoCapture() noexcept {
  for (const Fold::Image& image : fold_->images) {
    FreeExtent(image.block, 0);
    table()->page_info(image.page).dirty.store(1, std::memory_order_relaxed);
  }
  for (const Fold::Directory& directory : fold_->directories) FreeExtent(directory.block, 0);
}

// The nodes of a capture that failed may be changed in place again, so their stamps no longer hold.
void DurableStore::MarkNodesUnstamped() noexcept {
  const uint64_t durable = shared_->capture.durable_epoch.load(std::memory_order_relaxed);
  for (size_t i = 0; i < std::min(fold_->next_image + 1, fold_->images.size()); ++i) {
    auto image = windows_->MapBlock(fold_->images[i].block);
    if (!image.ok()) continue;
    const EntryWord* words = PageWords(*image);
    for (uint32_t e = 0; e < kTablePageEntries; ++e) {
      if (!(words[e] & kWordLive)) continue;
      auto node = windows_->MapBlock(WordBlock(words[e]));
      if (!node.ok()) continue;
      for (uint32_t b = 0; b < 1u << WordOrder(words[e]); ++b) {
        auto* header = reinterpret_cast<BlockHeader*>(*node + uint64_t{b} * kBlockBytes);
        if (header->birth_epoch > durable) MarkUnstamped(header);
      }
    }
  }
}

Status DurableStore::WriteStaged(uint32_t first, uint32_t blocks, std::byte* data, bool synced) {
  XT_ASSERT(MayWriteStaged());
  const uint64_t lsn = shared_->applied_lsn.load(std::memory_order_relaxed);
  const uint32_t end = first + blocks;
  while (first < end) {
    const uint32_t window = first / kWindowBlocks;
    const uint32_t here = std::min(end, (window + 1) * kWindowBlocks) - first;
    for (uint32_t i = 0; i < here; ++i) {
      StampBlock(reinterpret_cast<BlockHeader*>(data + uint64_t{i} * kBlockBytes), lsn);
    }
    const std::string path = windows_->SegmentPath(window);
    const uint64_t offset = uint64_t{first % kWindowBlocks} * kBlockBytes, bytes = uint64_t{here} * kBlockBytes;
    // A file that somebody has cut short must not grow, as when blocks are reserved.
    const uint32_t blocks_expected = std::min(allocator()->file_blocks() - window * kWindowBlocks, kWindowBlocks);
    auto info = fs_->Stat(path.c_str());
    if (!info.ok() || info->size_bytes < uint64_t{blocks_expected} * kBlockBytes) {
      return windows_->FaultStatus(allocator()->file_blocks());
    }
    XT_ASSIGN_OR_RETURN(const std::unique_ptr<OpenFile> file, fs_->Open(path.c_str()));
    if (file != nullptr) {
      XT_RETURN_IF_ERROR(file->Write(offset, data, bytes));
    } else {
      std::memcpy(windows_->BlockAddress(first), data, bytes);
    }
    if (synced) fs_->StartWriteback(path.c_str(), offset, bytes);
    data += bytes;
    first += here;
  }
  return Status::Ok();
}

Status DurableStore::WriteCaptureInPlace() {
  bool done = false;
  while (!done) XT_RETURN_IF_ERROR(CaptureStep(UINT32_MAX, true, &done));
  return Status::Ok();
}

Status DurableStore::CaptureStep(uint32_t blocks_max, bool synced, bool* done) {
  *done = false;
  if (fold_ == nullptr) XT_RETURN_IF_ERROR(FoldBegin());
  fold_->synced = synced;
  Status status = FoldWrite(blocks_max, done);
  if (status.ok() && !*done) return status;
  if (status.ok()) status = FoldPublish();
  FoldEnd(status.ok());
  if (!status.ok() || !synced) return status;
  status = fs_->Sync(windows_->path().c_str());
  if (!status.ok()) shared_->flags |= kIndexFlagLatched;
  return status;
}

}  // namespace xtree
