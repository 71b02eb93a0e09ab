#include "tree/leaf_append.h"

#include <cinttypes>

#include "base/spin_latch.h"
#include "tree/tree_change.h"

namespace xtree {

Status LeafAppend::Locate(uint32_t tree, const Key& key, bool* possible) {
  *possible = false;
  XT_RETURN_IF_ERROR(store_->ReadEpoch().status());
  const TreeChange view(store_, tree);
  tree_ = &store_->shared()->trees[tree];
  inner_ = &view.inner_layout();
  key_box_ = Box32::Around(view.spec().dims, key.lo, key.hi);
  widenings_ = 0;
  NodeId id = view.root();
  if (!id.valid()) return Status::Ok();
  for (int level = -1;;) {
    XT_ASSIGN_OR_RETURN(const NodeRef ref, view.Find(id, level));
    level = ref.node->level;
    if (level == 0) {
      leaf_ = ref;
      break;
    }
    if (XT_UNLIKELY(ref.node->count == 0)) {
      return Status::Corruption("directory node %" PRIx64 " in block %" PRIu32 " is empty",
                                ref.id.value, ref.node->block_number);
    }
    const ChildChoice child = view.ChooseChild(ref, key_box_);
    if (!child.covers) {
      if (!view.IsMutable(ref)) return Status::Ok();
      XT_ASSERT(widenings_ < kTreeLevelsMax);
      widen_[widenings_++] = Widening{ref.node, child.entry};
    }
    id = inner_->Child(ref.node, child.entry);
    --level;
  }
  layout_ = &view.layout(leaf_);
  *possible = view.IsMutable(leaf_) && layout_->Takes(key.lo, key.hi) &&
              layout_->Count(leaf_.node) < layout_->Capacity(leaf_.order);
  if (*possible) PrefetchAppend(*layout_, leaf_.node);
  return Status::Ok();
}

bool LeafAppend::Reserve() {
  LeafLatch* shared = latch();
  SpinLatch latch(&shared->latch);
  shared->waits += latch.waited();
  // Whoever is on the way to a leaf of this latch counts, since it may be this leaf.
  if (layout_->Count(leaf_.node) + shared->reserved >= layout_->Capacity(leaf_.order)) return false;
  ++shared->reserved;
  return true;
}

void LeafAppend::Discard() noexcept {
  LeafLatch* shared = latch();
  SpinLatch latch(&shared->latch);
  XT_ASSERT(shared->reserved > 0);
  --shared->reserved;
}

void LeafAppend::Apply(const Key& key, uint64_t record_id) noexcept {
  for (uint32_t i = 0; i < widenings_; ++i) {
    BlockHeader* node = widen_[i].node;
    BlockHeader* block = NodeLayout::Block(node, widen_[i].entry / inner_->block_capacity);
    // As in TreeChange. Others may do the same to the same block.
    if (BlockLsn(*block) != kLsnUnstamped) MarkUnstamped(block);
    inner_->WidenChild(node, widen_[i].entry, key_box_);
    store_->MarkTouched(block);
  }
  LeafLatch* shared = latch();
  BlockHeader* block;
  {
    SpinLatch latch(&shared->latch);
    shared->waits += latch.waited();
    ++shared->appends;
    XT_ASSERT(shared->reserved > 0);
    --shared->reserved;
    const uint32_t entry = layout_->Count(leaf_.node);
    block = NodeLayout::Block(leaf_.node, entry / layout_->block_capacity);
    if (BlockLsn(*block) != kLsnUnstamped) MarkUnstamped(block);
    layout_->Append(leaf_.node, key.lo, key.hi, record_id);
  }
  // Not under the latch: it may have to make room in a list. Nobody stamps while the lock is shared.
  store_->MarkTouched(block);
  tree_->entries.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace xtree
