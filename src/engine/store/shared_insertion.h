// SharedInsertion: one insertion beside those of other writers (src/README.md, "Writers beside each
// other"), in two halves as all operations: IndexDetails' part for who holds the writer lock shared.
//
// Life:    Prepare, then Apply or Discard if it has prepared; again and again.
// Threads: one object for each writer; from Prepare to the end of Apply or Discard under the index's writer
//          lock taken shared.
// Windows: pinned from a Prepare that has prepared on.
// Errors:  as IndexDetails::PrepareInsert.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "store/index_details.h"
#include "store/store_interface.h"
#include "tree/leaf_append.h"

namespace xtree {

class SharedInsertion {
 public:
  // `log` null: memory.
  SharedInsertion(StoreInterface* store, OperationLog* log)
      : store_(store), log_(log), append_(store) {}
  SharedInsertion(const SharedInsertion&) = delete;

  // False in prepared() afterwards, without an error: this insertion changes the structure of the tree or
  // of the log. Let the lock go, take it exclusively, and use IndexDetails. `key` null: the row's key is NULL.
  Status Prepare(const Key* key, uint64_t record_id);
  bool prepared() const { return prepared_; }
  bool log_was_full() const { return log_was_full_; }
  // Then, without the lock: whether Prepare may do now, since others have opened the log block that was wanted.
  bool MayBeTriedAgain() const { return log_was_full_ && log_->LastBlock() != full_block_; }
  // Logs, then shows the entry. `lsn`: the host's end LSN, 0 if none; those of different writers need not
  // come in their order.
  void Apply(uint64_t lsn) noexcept;
  void Discard() noexcept;

 private:
  Status PreparePinned();

  StoreInterface* const store_;
  OperationLog* const log_;
  bool prepared_ = false;
  bool log_was_full_ = false;  // That is all that kept it from being prepared,
  uint64_t full_block_ = 0;    // and this block was the last one.
  uint32_t tree_ = 0;
  uint64_t record_id_ = 0;
  Key key_;
  InsertPayload payload_;
  LeafAppend append_;
};

}  // namespace xtree
