// Taking over a fold whose process has gone without being able to end it (FoldSuspend, then the end of the
// handle). What that process knew of it is found again: what was published in the superblock that it has
// written, what was not by looking for what nothing refers to.
//
// Rare, and slow where nothing was published: every block's header is read under the writer lock.
#include <cstring>

#include "store/durable_internal.h"
#include "store/durable_store.h"

namespace xtree {

void DurableStore::AbandonFold() noexcept {
  if (fold_ == nullptr || !fold_->suspended) return;
  CaptureShared& capture = shared_->capture;
  // The index may have been made anew since.
  if (!(shared_->flags & kIndexFlagSuspended) ||
      capture.sequence + 1 != fold_->content.sequence ||
      capture.pending_epoch.load(std::memory_order_relaxed) != fold_->content.epoch) {
    return;
  }
  capture.abandoned_log_bytes = fold_->log_bytes;
  const FoldFate fate = fold_->published       ? FoldFate::kPublished
                        : fold_->publish_tried ? FoldFate::kInDoubt
                                               : FoldFate::kUnpublished;
  capture.abandoned.store(static_cast<uint32_t>(fate), std::memory_order_release);
}

Status DurableStore::TakeOverFold() {
  CaptureShared& capture = shared_->capture;
  const auto fate = static_cast<FoldFate>(capture.abandoned.load(std::memory_order_acquire));
  if (fate == FoldFate::kNone) return Status::Ok();
  XT_ASSERT(fold_ == nullptr && !has_staged());
  WindowPin pin(windows_);
  auto fold = std::make_unique<Fold>();
  fold->log_bytes = capture.abandoned_log_bytes;
  fold->publish_tried = fate != FoldFate::kUnpublished;
  if (fate == FoldFate::kPublished) XT_RETURN_IF_ERROR(FindPublished(fold.get()));
  if (fate == FoldFate::kUnpublished) XT_RETURN_IF_ERROR(UndoUnpublished());
  capture.abandoned.store(0, std::memory_order_relaxed);
  fold_ = std::move(fold);
  FoldEnd(fate == FoldFate::kPublished);
  return Status::Ok();
}

// What the superblock on disk names and shared memory does not yet.
Status DurableStore::FindPublished(Fold* fold) {
  const CaptureShared& capture = shared_->capture;
  const uint32_t slot = 1 - capture.superblock_slot;
  XT_ASSIGN_OR_RETURN(std::byte* block, MapSuperblock(slot));
  XT_RETURN_IF_ERROR(CheckSuperblock(block, slot, windows_->path().c_str()));
  std::memcpy(static_cast<void*>(&fold->content), block, sizeof(fold->content));
  const Superblock& content = fold->content;
  if (content.sequence != capture.sequence + 1 || content.table_pages > table()->pages()) {
    return Status::Corruption("file \"%s\" has lost the superblock that was published last",
                              windows_->path().c_str());
  }
  Superblock previous;
  XT_ASSIGN_OR_RETURN(block, MapSuperblock(capture.superblock_slot));
  std::memcpy(static_cast<void*>(&previous), block, sizeof(previous));
  for (uint32_t i = 0; i < content.directory_count; ++i) {
    const bool existed = i < previous.directory_count;
    if (existed && previous.directory[i] == content.directory[i]) continue;
    fold->directories.push_back(
        Fold::Directory{i, content.directory[i], existed ? previous.directory[i] + 1 : 0});
    XT_ASSIGN_OR_RETURN(std::byte* directory, windows_->MapBlock(content.directory[i]));
    const auto* entries = reinterpret_cast<const uint32_t*>(directory + sizeof(BlockHeader));
    const uint32_t first = i * kDirectoryEntries;
    const uint32_t end = std::min(first + kDirectoryEntries, content.table_pages);
    for (uint32_t page = first; page < end; ++page) {
      const uint32_t old_block = table()->page_info(page).disk_block;
      if (old_block == entries[page - first] + 1) continue;
      fold->images.push_back(Fold::Image{page, entries[page - first], old_block});
    }
  }
  return Status::Ok();
}

// Frees the images of the table that nothing refers to, and takes the stamps from nodes that may be changed
// in place again. Can be repeated, if it fails.
Status DurableStore::UndoUnpublished() {
  CaptureShared& capture = shared_->capture;
  Superblock previous;
  XT_ASSIGN_OR_RETURN(std::byte* superblock, MapSuperblock(capture.superblock_slot));
  std::memcpy(static_cast<void*>(&previous), superblock, sizeof(previous));
  const uint64_t durable = capture.durable_epoch.load(std::memory_order_relaxed);
  std::vector<uint32_t> orphans;
  Status status;
  allocator()->ForEachExtent([&](uint32_t block, uint32_t order) {
    auto address = windows_->MapBlock(block);
    if (!address.ok()) {
      status = address.status();
      return false;
    }
    auto* header = reinterpret_cast<BlockHeader*>(*address);
    const uint64_t name = header->node_id;
    if (header->kind == BlockKind::kTablePage) {
      if (name >= table()->pages() || table()->page_info(name).disk_block != block + 1) {
        orphans.push_back(block);
      }
    } else if (header->kind == BlockKind::kTableDir) {
      if (name >= previous.directory_count || previous.directory[name] != block) {
        orphans.push_back(block);
      }
    } else if (IsNode(header->kind)) {
      if (header->birth_epoch <= durable) return true;
      for (uint32_t b = 0; b < 1u << order; ++b) {
        auto* one = reinterpret_cast<BlockHeader*>(*address + uint64_t{b} * kBlockBytes);
        MarkUnstamped(one);
        if (track_touched_) stamped_.push_back(block + b);
      }
    }
    return true;
  });
  XT_RETURN_IF_ERROR(status);
  for (const uint32_t block : orphans) FreeExtent(block, 0);
  // Which pages it had written is not known.
  for (uint32_t page = 0; page < table()->pages(); ++page) {
    table()->page_info(page).dirty.store(1, std::memory_order_relaxed);
  }
  return Status::Ok();
}

}  // namespace xtree
