#include "store/shared_insertion.h"

namespace xtree {

Status SharedInsertion::Prepare(const Key* key, uint64_t record_id) {
  XT_ASSERT(!prepared_);
  IndexShared* shared = store_->shared();
  XT_RETURN_IF_ERROR(RouteRow(*shared, key, record_id, &tree_, &key_));
  record_id_ = record_id;
  WindowPin pin(store_->windows());
  XT_RETURN_IF_ERROR(PreparePinned());
  if (prepared_) pin.Keep();  // Until Apply or Discard.
  return Status::Ok();
}

Status SharedInsertion::PreparePinned() {
  IndexShared* shared = store_->shared();
  bool possible = false;
  log_was_full_ = false;
  XT_RETURN_IF_ERROR(append_.Locate(tree_, key_, &possible));
  const KeySpec& spec = shared->trees[tree_].spec;
  if (possible && log_ != nullptr && !log_->ReserveInsertShared(spec, key_, record_id_, &payload_)) {
    log_was_full_ = true;
    full_block_ = log_->LastBlock();
  } else if (possible) {
    prepared_ = append_.Reserve();
    if (!prepared_ && log_ != nullptr) log_->UnreserveInsertShared(payload_);
  }
  if (!prepared_) shared->writers.exclusive_turns.fetch_add(1, std::memory_order_relaxed);
  return Status::Ok();
}

void SharedInsertion::Apply(uint64_t lsn) noexcept {
  XT_ASSERT(prepared_);
  IndexShared* shared = store_->shared();
  if (log_ != nullptr) log_->AppendInsertShared(tree_, payload_, lsn);
  append_.Apply(key_, record_id_);
  // The highest of those that have been applied; others below it are still to come, but not once the lock
  // is held exclusively, which is when a capture or redo goes by it.
  uint64_t applied = shared->applied_lsn.load(std::memory_order_relaxed);
  while (applied < lsn && !shared->applied_lsn.compare_exchange_weak(
                              applied, lsn, std::memory_order_release, std::memory_order_relaxed)) {
  }
  prepared_ = false;
  store_->windows()->Unpin();
}

void SharedInsertion::Discard() noexcept {
  if (!prepared_) return;
  append_.Discard();
  if (log_ != nullptr) log_->UnreserveInsertShared(payload_);
  prepared_ = false;
  store_->windows()->Unpin();
}

}  // namespace xtree
