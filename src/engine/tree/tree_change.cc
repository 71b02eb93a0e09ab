#include "tree/tree_change.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

namespace xtree {

Result<NodeRef> TreeChange::Find(NodeId id, int level) const {
  NodeRef ref = store_->TryLookup(id, ~uint64_t{0});
  if (XT_UNLIKELY(ref.node == nullptr)) {
    XT_ASSIGN_OR_RETURN(ref, store_->LookupNewest(id));
  }
  if (XT_UNLIKELY(!IsOf(ref, level))) {
    const BlockHeader& node = *ref.node;
    return Status::Corruption("block %" PRIu32 " of \"%s\" holds node %" PRIx64
                              " of tree %" PRIu32 " on level %u where node %" PRIx64
                              " on level %d was expected",
                              node.block_number, store_->windows()->path().c_str(), node.node_id,
                              node.tree, node.level, id.value, level);
  }
  return ref;
}

Status TreeChange::Begin() {
  XT_ASSERT(!active_);
  // Also makes sure that every entry of the object table has an address in this process.
  XT_RETURN_IF_ERROR(store_->ReadEpoch().status());
  active_ = true;
  return Status::Ok();
}

void TreeChange::CountNode(uint32_t level, uint32_t order, int delta) {
  nodes_delta_[level] += delta;
  if (IsSupernode(level, order)) supernodes_delta_ += delta;
}

namespace {
void SetHeaders(const NodeRef& ref, const NodeLayout& layout, uint32_t split_dims) {
  for (uint32_t i = 0; i < 1u << ref.order; ++i) {
    ref.block(i)->kind = layout.kind;
    ref.block(i)->split_dims = split_dims;
  }
}
}  // namespace

Result<NodeRef> TreeChange::StageNew(const NodeLayout& layout, uint32_t level, uint32_t order,
                                     uint32_t split_dims) {
  XT_ASSERT(active_ && level < kTreeLevelsMax && order <= kOrderMax);
  XT_ASSERT(layout.leaf == (level == 0));
  XT_ASSIGN_OR_RETURN(NodeRef ref, store_->StageNew(tree_, static_cast<uint8_t>(level), order));
  SetHeaders(ref, layout, split_dims);
  CountNode(level, order, 1);
  return ref;
}

Result<NodeRef> TreeChange::StageVersion(const NodeRef& old, const NodeLayout& layout,
                                         uint32_t level, uint32_t order, uint32_t split_dims) {
  XT_ASSERT(active_ && level < kTreeLevelsMax && order <= kOrderMax);
  XT_ASSERT(layout.leaf == (level == 0));
  XT_ASSIGN_OR_RETURN(NodeRef ref,
                      store_->StageVersion(old.id, tree_, static_cast<uint8_t>(level), order));
  SetHeaders(ref, layout, split_dims);
  CountNode(old.node->level, old.order, -1);
  CountNode(level, order, 1);
  return ref;
}

Result<NodeRef> TreeChange::StageCopy(const NodeRef& old) {
  XT_ASSIGN_OR_RETURN(NodeRef ref,
                      StageVersion(old, layout(old), old.node->level, old.order,
                                   old.node->split_dims));
  for (uint32_t i = 0; i < 1u << old.order; ++i) {
    std::memcpy(ref.block(i) + 1, old.block(i) + 1, kBlockPayloadBytes);
    ref.block(i)->count = old.block(i)->count;
  }
  return ref;
}

Status TreeChange::StageFree(const NodeRef& old) {
  XT_RETURN_IF_ERROR(store_->StageFree(old.id));
  CountNode(old.node->level, old.order, -1);
  return Status::Ok();
}

void TreeChange::WidenLater(const NodeRef& inner, uint32_t entry, const Box32& box) {
  XT_ASSERT(IsMutable(inner) && widenings_ < kTreeLevelsMax);
  widen_[widenings_++] = Widening{inner.node, entry};
  widen_box_ = box;
}

void TreeChange::AppendLater(const NodeRef& leaf, const Key& key, uint64_t record_id) {
  XT_ASSERT(IsMutable(leaf) && append_leaf_ == nullptr);
  append_leaf_ = leaf.node;
  const uint32_t dims = spec().dims;
  CopyCoords(append_key_.lo, key.lo, dims);
  CopyCoords(append_key_.hi, key.hi, dims);
  append_id_ = record_id;
  // They arrive while the caller writes its log.
  PrefetchAppend(NodeLayout::Of(spec(), *leaf.node), leaf.node);
}

void TreeChange::SetRoot(NodeId root) {
  root_changes_ = true;
  new_root_ = root;
}

namespace {
template <class T>
void Add(std::atomic<T>* counter, int64_t delta) {
  // Only writers change it, one at a time: no need for a locked instruction.
  counter->store(counter->load(std::memory_order_relaxed) + static_cast<T>(delta),
                 std::memory_order_relaxed);
}
}  // namespace

// A stamped block promises that its CRC holds; from the first edit on it does not.
inline void TreeChange::BeforeEdit(BlockHeader* block) noexcept {
  if (BlockLsn(*block) != kLsnUnstamped) MarkUnstamped(block);
  store_->MarkTouched(block);
}

// The order is argued at the head of tree_change.h.
void TreeChange::Apply() noexcept {
  XT_ASSERT(active_);
  const NodeLayout& inner = inner_layout();
  for (uint32_t i = 0; i < widenings_; ++i) {
    BlockHeader* node = widen_[i].node;
    BeforeEdit(NodeLayout::Block(node, widen_[i].entry / inner.block_capacity));
    inner.WidenChild(node, widen_[i].entry, widen_box_);
  }
  if (root_changes_ && !new_root_.valid()) shared().root.store(0, std::memory_order_release);
  if (store_->has_staged()) store_->Publish();
  if (root_changes_ && new_root_.valid()) {
    shared().root.store(new_root_.value, std::memory_order_release);
  }
  if (append_leaf_ != nullptr) {
    const NodeLayout& leaf = NodeLayout::Of(spec(), *append_leaf_);
    const uint32_t entry = leaf.Count(append_leaf_);
    BeforeEdit(NodeLayout::Block(append_leaf_, entry / leaf.block_capacity));
    leaf.Append(append_leaf_, append_key_.lo, append_key_.hi, append_id_);
  }
  ApplyStatistics();
  Reset();
}

void TreeChange::ApplyStatistics() noexcept {
  TreeShared& tree = shared();
  Add(&tree.entries, entries_delta_);
  if (!root_changes_ && height_delta_ == 0 && supernodes_delta_ == 0 &&
      std::all_of(nodes_delta_, nodes_delta_ + kTreeLevelsMax, [](int d) { return d == 0; })) {
    return;
  }
  Add(&tree.height, height_delta_);
  Add(&tree.supernodes, supernodes_delta_);
  for (uint32_t l = 0; l < kTreeLevelsMax; ++l) Add(&tree.nodes_by_level[l], nodes_delta_[l]);
}

void TreeChange::Discard() noexcept {
  if (!active_) return;
  store_->Discard();
  Reset();
}

void TreeChange::Reset() {
  active_ = false;
  widenings_ = 0;
  append_leaf_ = nullptr;
  root_changes_ = false;
  entries_delta_ = 0;
  height_delta_ = 0;
  supernodes_delta_ = 0;
  std::fill(nodes_delta_, nodes_delta_ + kTreeLevelsMax, 0);
}

}  // namespace xtree
