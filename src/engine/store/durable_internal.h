// What the parts of DurableStore (durable_store.cc, durable_fold.cc, durable_load.cc) share.
#pragma once

#include <memory>
#include <vector>

#include "log/log_reader.h"
#include "store/durable_store.h"
#include "store/index_shared.h"

namespace xtree {

// A capture in the making. Belongs to the process that folds; what others must know is in
// CaptureShared.
struct DurableStore::Fold {
  struct Image {
    uint32_t page;
    uint32_t block;        // Where this capture keeps the page.
    uint32_t old_block;    // 1 + where the durable one does, 0 if nowhere.
  };
  struct Directory {
    uint32_t index;
    uint32_t block;
    uint32_t old_block;    // As in Image.
  };
  Superblock content;
  uint64_t allocated_blocks = 0;  // Of the allocator, when this began.
  uint64_t log_bytes = 0;  // Of the log that the capture makes superfluous.
  std::vector<Image> images;            // In page order.
  std::vector<Directory> directories;
  size_t next_image = 0;   // The new nodes of those before it are in `blocks`.
  std::vector<uint32_t> blocks;         // To be stamped and written; in order once all are `listed`.
  bool listed = false;
  size_t next_block = 0;   // Those before it are.
  bool synced = true;      // False: the owner has the file synced. Nothing is written here.
  bool publish_tried = false;
  bool sync_failed = false;
  bool suspended = false;  // FoldSuspend, with
  bool published = false;  // what FoldEnd is to be told.
};

// What a Load that must be continued has reached.
struct DurableStore::LoadState {
  enum class Phase { kSuperblock, kSpace, kTable, kLog, kReplay };
  Phase phase = Phase::kSuperblock;
  Superblock content;
  uint32_t slot = 0;
  uint32_t file_blocks = 0;
  uint32_t next_page = 0;
  std::unique_ptr<LogReader> reader;
  bool have_record = false;  // `record` has been read but not applied.
  LogRecord record;
};

// Operations up to `lsn` are in the tree. Writer lock.
inline void NoteApplied(IndexShared* shared, uint64_t lsn) noexcept {
  if (lsn > shared->applied_lsn.load(std::memory_order_relaxed)) {
    shared->applied_lsn.store(lsn, std::memory_order_relaxed);
  }
}

}  // namespace xtree
