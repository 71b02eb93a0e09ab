#include "tree/window_scan.h"

#include <algorithm>

namespace xtree {

Status WindowScan::Begin(EpochReader* reader, uint32_t tree, const Predicate& predicate) {
  End();
  renewed_ = lost_ = descended_ = false;
  const TreeShared& shared = store_->shared()->trees[tree];
  tree_ = tree;
  spec_ = shared.spec;
  inner_ = &NodeLayout::Inner(spec_);
  leaf_head_bytes_ = NodeLayout::LeafHeadBytes(spec_);
  query_.Prepare(shared.spec, predicate);
  if (query_.empty) return Status::Ok();
  store_->windows()->Pin();
  window_pinned_ = true;
  reader_ = reader;
  pin_.Acquire(reader);
  Result<uint64_t> epoch = store_->ReadEpoch();
  if (!epoch.ok()) {
    End();
    return epoch.status();
  }
  epoch_ = *epoch;
  const NodeId root{shared.root.load(std::memory_order_acquire)};
  if (!root.valid()) return Status::Ok();
  // A root made since the epoch was read is not there at this epoch: the tree was empty.
  NodeRef node;
  Status status = Resolve(root.value | kAnyLevel, &node);
  if (status.ok()) {
    stack_.push_back(root.value | kAnyLevel);
  } else if (status.code() != Code::kNotFound) {
    End();
    return status;
  }
  return Status::Ok();
}

void WindowScan::End() {
  stack_.clear();
  pin_.Release();
  if (window_pinned_) store_->windows()->Unpin();
  window_pinned_ = false;
}

Status WindowScan::Renew() {
  pin_.Acquire(reader_);
  XT_ASSIGN_OR_RETURN(epoch_, store_->ReadEpoch());
  renewed_ = true;
  return Status::Ok();
}

Status WindowScan::Resolve(uint64_t entry, NodeRef* node) {
  const NodeId id = IdOf(entry);
  *node = store_->TryLookup(id, epoch_);
  if (XT_UNLIKELY(node->node == nullptr)) {
    XT_ASSIGN_OR_RETURN(*node, store_->Lookup(id, epoch_));
  }
  const uint64_t level = entry & NodeId::kLevelMask;
  if (XT_UNLIKELY(node->node->tree != tree_ ||
                  (uint64_t{node->node->level} << NodeId::kLevelShift != level &&
                   level != kAnyLevel))) {
    return store_->Misplaced(*node, tree_);
  }
  return Status::Ok();
}

void WindowScan::PrefetchAhead() {
  // Two nodes ahead: the one after this is on its way already. Leaves matter, as they are the many
  // and the cold ones; their group boxes are what is looked at first.
  if (stack_.size() < 2) return;
  store_->PrefetchNode(IdOf(stack_[stack_.size() - 2]), leaf_head_bytes_);
}

Status WindowScan::Descend(const NodeRef& node) {
  const uint64_t level = uint64_t{node.node->level - 1u} << NodeId::kLevelShift;
  for (uint32_t i = 0; i < 1u << node.order; ++i) {
    const BlockHeader* block = node.block(i);
    const uint32_t count = NodeLayout::BlockCount(block);
    if (XT_UNLIKELY(count > inner_->block_capacity)) {
      return Status::Corruption("block %u holds %u entries where %u fit", block->block_number,
                                count, inner_->block_capacity);
    }
    uint64_t ids[kGroupsMax * kGroupSizeMax];
    const uint32_t found = kernels_.children(*inner_, block, count, query_, ids);
    // Last first, so that the stack hands them out in order.
    for (uint32_t c = 0; c < found; ++c) store_->PrefetchEntry(NodeId{ids[c]});
    for (uint32_t c = found; c > 0; --c) stack_.push_back(IdOf(ids[c - 1]).value | level);
    if (count < inner_->block_capacity) break;
  }
  if (!stack_.empty()) {
    store_->PrefetchNode(IdOf(stack_.back()), leaf_head_bytes_);
    PrefetchAhead();
  }
  return Status::Ok();
}

Status WindowScan::Emit(const NodeRef& node, uint64_t* record_ids, double* keys_lo,
                        double* keys_hi, uint32_t* count) {
  const uint32_t dims = spec_.dims;
  const NodeLayout& leaf = NodeLayout::Of(spec_, *node.node);
  query_.PrepareFor(leaf);
  for (uint32_t i = 0; i < 1u << node.order; ++i) {
    const BlockHeader* block = node.block(i);
    const uint32_t entries = NodeLayout::BlockCount(block);
    if (XT_UNLIKELY(entries > leaf.block_capacity)) {
      return Status::Corruption("block %u holds %u entries where %u fit", block->block_number,
                                entries, leaf.block_capacity);
    }
    if (keys_lo == nullptr && keys_hi == nullptr) {
      *count += kernels_.leaf_ids(leaf, block, entries, query_, record_ids + *count);
    } else {
      uint16_t slots[kGroupsMax * kGroupSizeMax];
      const uint32_t found = kernels_.leaf_slots(leaf, block, entries, query_, slots);
      const size_t at = size_t{*count} * dims;
      leaf.ReadEntries(block, slots, found, record_ids + *count,
                       keys_lo == nullptr ? nullptr : keys_lo + at,
                       keys_hi == nullptr ? nullptr : keys_hi + at);
      *count += found;
    }
    if (entries < leaf.block_capacity) break;
  }
  return Status::Ok();
}

Status WindowScan::ResolveNext(NodeRef* node) {
  for (*node = {}; !stack_.empty(); stack_.pop_back()) {
    if (XT_UNLIKELY(store_->windows()->faults() != 0)) return store_->windows()->FaultStatus(0);
    Status status = Resolve(stack_.back(), node);
    if (status.ok() || status.code() == Code::kNeedMemory || !renewed_) return status;
    // Merged into another node since, or damaged: whoever renews looks at everything once more.
    lost_ = true;
  }
  return Status::Ok();
}

Status WindowScan::NextLeaf(uint64_t* record_ids, uint32_t capacity, Leaf* leaf,
                            uint32_t* count) {
  *count = 0;
  while (*count == 0) {
    NodeRef node;
    XT_RETURN_IF_ERROR(ResolveNext(&node));
    if (node.node == nullptr) return Status::Ok();
    stack_.pop_back();
    if (node.node->level > 0) {
      descended_ = true;
      XT_RETURN_IF_ERROR(Descend(node));
      continue;
    }
    const NodeLayout& layout = NodeLayout::Of(spec_, *node.node);
    if (XT_UNLIKELY(layout.Capacity(node.order) > capacity)) {
      return Status::Corruption("leaf in block %u has 2^%u blocks", node.node->block_number,
                                node.order);
    }
    PrefetchAhead();
    // Before the ids: an entry appended meanwhile may be among the ids only if nobody misses it in
    // the box; whoever deletes knows its entries from before the scan.
    leaf->bounds = layout.Bounds(node.node);
    XT_RETURN_IF_ERROR(Emit(node, record_ids, nullptr, nullptr, count));
    leaf->id = node.id;
    leaf->new_parent = descended_;
    if (*count > 0) descended_ = false;
  }
  return Status::Ok();
}

Status WindowScan::Next(uint64_t* record_ids, double* keys_lo, double* keys_hi, uint32_t capacity,
                        bool one_leaf, uint32_t* count) {
  XT_ASSERT(capacity >= kScanBatchMin);
  *count = 0;
  for (uint32_t visits = 0; !stack_.empty() && visits < visits_max_; ++visits) {
    // Zeros lead on and on; the caller is going to refuse whatever came of them.
    if (XT_UNLIKELY(store_->windows()->faults() != 0)) return store_->windows()->FaultStatus(0);
    NodeRef node;
    XT_RETURN_IF_ERROR(Resolve(stack_.back(), &node));
    if (node.node->level > 0) {
      stack_.pop_back();
      XT_RETURN_IF_ERROR(Descend(node));
      continue;
    }
    // The kernels may write a whole leaf's worth before they know how much matches.
    const uint32_t room = NodeLayout::Of(spec_, *node.node).Capacity(node.order);
    if (XT_UNLIKELY(room > kScanBatchMin)) {
      return Status::Corruption("leaf in block %u has 2^%u blocks", node.node->block_number,
                                node.order);
    }
    if (capacity - *count < room) return Status::Ok();
    stack_.pop_back();
    PrefetchAhead();
    XT_RETURN_IF_ERROR(Emit(node, record_ids, keys_lo, keys_hi, count));
    if (one_leaf && *count > 0) return Status::Ok();
  }
  return Status::Ok();
}

}  // namespace xtree
