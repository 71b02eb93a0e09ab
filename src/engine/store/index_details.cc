#include "store/index_details.h"

#include <cstring>

namespace xtree {

IndexDetails::IndexDetails(StoreInterface* store, OperationLog* log)
    : store_(store), log_(log), trees_{{store, kTreeMain}, {store, kTreeNull}} {}

// Takes a preparation back unless it is kept: when it fails, finds nothing, or runs out of memory.
class IndexDetails::Preparation {
 public:
  explicit Preparation(IndexDetails* index) : index_(index) {
    index_->store_->windows()->Pin();
    index_->pending_.active = true;
  }
  ~Preparation() {
    if (index_ != nullptr) index_->Discard();
  }
  Preparation(const Preparation&) = delete;
  void Keep() { index_ = nullptr; }

 private:
  IndexDetails* index_;
};

Status IndexDetails::ReserveLog(uint32_t payload_bytes) {
  if (log_ == nullptr || !logging_) return Status::Ok();
  return log_->ReserveFrame(payload_bytes);
}

namespace {

inline void CopyKey(const KeySpec& spec, const double* lo, const double* hi, Key* to) {
  CopyCoords(to->lo, lo, spec.dims);
  CopyCoords(to->hi, hi, spec.dims);
}

inline Status Route(const IndexShared& shared, const Key* key, uint64_t record_id, uint32_t* tree,
                    Key* routed) {
  if (record_id > kRecordIdMax) {
    return Status::InvalidArgument("record id %llu does not fit in 48 bits",
                                   static_cast<unsigned long long>(record_id));
  }
  const KeySpec& main_spec = shared.trees[kTreeMain].spec;
  const bool unordered =
      key != nullptr && IsUnordered(main_spec, key->lo,
                                    main_spec.kind == KeyKind::kPoint ? key->lo : key->hi);
  if (key == nullptr || unordered) {
    *tree = kTreeNull;
    const double null_key = NullTreeKey(record_id, unordered);
    CopyKey(shared.trees[kTreeNull].spec, &null_key, &null_key, routed);
    return Status::Ok();
  }
  *tree = kTreeMain;
  const double* hi = main_spec.kind == KeyKind::kPoint ? key->lo : key->hi;
  for (uint32_t d = 0; d < main_spec.dims; ++d) {
    if (key->lo[d] > hi[d]) {
      return Status::InvalidArgument("a box cannot begin at %g and end at %g", key->lo[d], hi[d]);
    }
  }
  CopyKey(main_spec, key->lo, hi, routed);
  return Status::Ok();
}

}  // namespace

Status RouteRow(const IndexShared& shared, const Key* key, uint64_t record_id, uint32_t* tree,
                Key* routed) {
  return Route(shared, key, record_id, tree, routed);
}

Status IndexDetails::PrepareInsert(const Key* key, uint64_t record_id) {
  XT_ASSERT(!pending_.active);
  const IndexShared& shared = *store_->shared();
  XT_RETURN_IF_ERROR(Route(shared, key, record_id, &pending_.tree, &pending_.key));
  pending_.is_delete = false;
  pending_.record_id = record_id;
  Preparation preparation(this);
  XTree& tree = trees_[pending_.tree];
  XT_RETURN_IF_ERROR(tree.LocateInsert(pending_.key, record_id));
  XT_RETURN_IF_ERROR(ReserveLog(InsertPayloadBytes(shared.trees[pending_.tree].spec)));
  XT_RETURN_IF_ERROR(tree.PrepareInsert(pending_.key, record_id));
  preparation.Keep();
  return Status::Ok();
}

void IndexDetails::ExpectInsert(const Key& key, uint64_t record_id) {
  uint32_t tree;
  Key routed;
  if (!Route(*store_->shared(), &key, record_id, &tree, &routed).ok() || tree != kTreeMain) return;
  trees_[kTreeMain].ExpectInsert(routed, record_id);
}

void IndexDetails::WalkAhead() {
  const WindowPin pin(store_->windows());
  trees_[kTreeMain].WalkAhead();
}

Status IndexDetails::PrepareDelete(uint32_t tree, const Key& bound, const uint64_t* record_ids,
                                   uint32_t count, uint32_t* found, LeafHint hint) {
  XT_ASSERT(!pending_.active && tree < kTrees);
  *found = 0;
  if (count < 1 || count > kDeleteBatchMax) {
    return Status::InvalidArgument("a deletion cannot have %u record ids (1 to %u)", count,
                                   kDeleteBatchMax);
  }
  pending_.tree = tree;
  pending_.is_delete = true;
  pending_.record_ids = record_ids;
  pending_.count = count;
  const KeySpec& spec = store_->shared()->trees[tree].spec;
  CopyKey(spec, bound.lo, bound.hi, &pending_.key);
  Preparation preparation(this);
  XT_RETURN_IF_ERROR(ReserveLog(2 * sizeof(uint32_t) + 2 * spec.dims * sizeof(double) +
                                count * sizeof(uint64_t)));
  uint32_t to_remove;
  XT_RETURN_IF_ERROR(trees_[tree].PrepareDelete(pending_.key, record_ids, count, &to_remove, hint));
  *found = to_remove;
  if (to_remove != 0) preparation.Keep();
  return Status::Ok();
}

void IndexDetails::Apply(uint64_t lsn) noexcept {
  XT_ASSERT(pending_.active);
  IndexShared* shared = store_->shared();
  if (log_ != nullptr && logging_) {
    const KeySpec& spec = shared->trees[pending_.tree].spec;
    if (pending_.is_delete) {
      log_->AppendDelete(pending_.tree, spec, pending_.key, pending_.record_ids, pending_.count,
                         lsn);
    } else {
      log_->AppendInsert(pending_.tree, spec, pending_.key, pending_.record_id, lsn);
    }
  }
  trees_[pending_.tree].Apply();
  if (lsn > shared->applied_lsn.load(std::memory_order_relaxed)) {
    shared->applied_lsn.store(lsn, std::memory_order_release);
  }
  Finish();
}

void IndexDetails::Discard() noexcept {
  if (!pending_.active) return;
  trees_[pending_.tree].Discard();
  Finish();
}

void IndexDetails::Finish() noexcept {
  pending_.active = false;
  store_->windows()->Unpin();
}

}  // namespace xtree
