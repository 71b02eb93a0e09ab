// TreeChange: what one prepared insertion or deletion will do to its tree.
//
// New node versions wait in the store; here wait the edits of nodes that readers can see already,
// the new root and the statistics. Preparing may fail and shows nothing; Apply cannot fail.
//
// Why Apply's order is right for readers, who take no lock:
//   1. Widen mutable ancestors, top down. A wider box only makes a reader look into a subtree
//      in vain.
//   2. Publish the staged versions under one epoch. A reader of an older epoch keeps to the old
//      versions: old parents name old children only, so it meets no entry twice and none of a split
//      by halves. A new version of an ancestor holds the wider box from the start, so the order of
//      mutable and copied ancestors along the path does not matter: after this step every box on
//      the way to the leaf is wide enough, in every version that a new reader can reach.
//   3. Append to the leaf; its count is stored with release order. So whoever sees the entry sees
//      also, in any scan that it starts afterwards, the boxes that lead there.
//   A new root is named after step 2, because a reader that finds it must find its node. A root
//   that goes is unnamed before step 2, for the same reason.
//
// Threads: under the index's writer lock, one change at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/status.h"
#include "store/store_interface.h"
#include "tree/choose_subtree.h"
#include "tree/geometry.h"
#include "tree/node_layout.h"

namespace xtree {

// Has the lines fetched that the next append to a leaf will store to.
inline void PrefetchAppend(const NodeLayout& layout, const BlockHeader* leaf) {
  const uint32_t entry = layout.Count(leaf);
  const BlockHeader* block = NodeLayout::Block(leaf, entry / layout.block_capacity);
  const uint32_t group = entry % layout.block_capacity >> layout.group_shift;
  const uint32_t lane = entry & (layout.group_size - 1);
  const std::byte* row = layout.Coords(block, group) + lane * layout.coord_bytes;
  constexpr uint32_t kRowsMax = 8;  // More at a time than the CPU has line buffers for would only wait.
  const uint32_t rows = std::min<uint32_t>(layout.dims * layout.corners, kRowsMax);
  for (uint32_t i = 0; i < rows; ++i, row += layout.coord_bytes << layout.group_shift) {
    __builtin_prefetch(row, 1);
  }
  __builtin_prefetch(layout.GroupIds(block, group), 1);
  __builtin_prefetch(layout.GroupIds(block, group) + layout.group_id_bytes - 1, 1);
}

class TreeChange {
 public:
  TreeChange(StoreInterface* store, uint32_t tree) : store_(store), tree_(tree) {}
  TreeChange(const TreeChange&) = delete;

  // --- The tree as it is.
  const KeySpec& spec() const { return shared().spec; }
  NodeId root() const { return NodeId{shared().root.load(std::memory_order_relaxed)}; }
  const NodeLayout& inner_layout() const { return NodeLayout::Inner(spec()); }
  const NodeLayout& layout(const NodeRef& ref) const { return NodeLayout::Of(spec(), *ref.node); }
  bool IsMutable(const NodeRef& ref) const { return store_->IsMutable(ref.node); }
  // The newest version. kCorruption unless it is a node of this tree on `level` (-1: any).
  Result<NodeRef> Find(NodeId id, int level) const;
  // The same where that takes no mapping and no verification; a null node where it would, or where Find would fail.
  NodeRef FindKnown(NodeId id) const {
    const NodeRef ref = store_->TryLookup(id, ~uint64_t{0});
    if (ref.node == nullptr || !IsOf(ref, -1)) return {};
    return ref;
  }
  // Where to go from a directory node to insert `box`. Find will follow: what the next step reads of a
  // child that may be chosen is fetched at once, so that its cache misses overlap.
  ChildChoice ChooseChild(const NodeRef& inner, const Box32& box) const {
    const NodeLayout& l = inner_layout();
    return ChooseSubtree(l, inner.node, box, store_,
                         inner.node->level > 1 ? l.ids_offset : sizeof(BlockHeader));
  }
  void PrefetchEntry(NodeId id) const { store_->PrefetchEntry(id); }
  // What a descent reads first of a node on `level`.
  void PrefetchHead(NodeId id, uint32_t level) const {
    store_->PrefetchNode(id, level > 0 ? inner_layout().ids_offset : sizeof(BlockHeader));
  }
  // The same for all of the first block.
  void PrefetchWhole(NodeId id) const { store_->PrefetchNode(id, kBlockBytes); }

  // --- Preparing. REQUIRES: the windows stay pinned until Apply or Discard (XTree's users pin
  // them).
  // kNeedMemory: other processes have grown the index's arrays.
  Status Begin();
  bool active() const { return active_; }
  // Nodes of a layout that have headers; the caller fills them with its Build.
  Result<NodeRef> StageNew(const NodeLayout& layout, uint32_t level, uint32_t order,
                           uint32_t split_dims);
  Result<NodeRef> StageVersion(const NodeRef& old, const NodeLayout& layout, uint32_t level,
                               uint32_t order, uint32_t split_dims);
  // A staged version with the same content as `old`.
  Result<NodeRef> StageCopy(const NodeRef& old);
  Status StageFree(const NodeRef& old);
  // In-place edits. REQUIRES: a mutable node; ancestors first; at most one append.
  void WidenLater(const NodeRef& inner, uint32_t entry, const Box32& box);
  void AppendLater(const NodeRef& leaf, const Key& key, uint64_t record_id);
  void SetRoot(NodeId root);     // Invalid: the tree becomes empty.
  void AddEntries(int64_t delta) { entries_delta_ += delta; }
  void AddHeight(int delta) { height_delta_ += delta; }

  void Apply() noexcept;
  void Discard() noexcept;

 private:
  struct Widening {
    BlockHeader* node;
    uint32_t entry;
  };

  // Whether the node is what its name and this tree say, on `level` (-1: any).
  bool IsOf(const NodeRef& ref, int level) const {
    const BlockHeader& node = *ref.node;
    const bool right_level = level < 0 ? node.level < kTreeLevelsMax : node.level == level;
    return right_level && node.tree == tree_ && node.node_id == ref.id.value && node.order == ref.order;
  }
  TreeShared& shared() const { return store_->shared()->trees[tree_]; }
  bool IsSupernode(uint32_t level, uint32_t order) const {
    return level > 0 && order > inner_layout().base_order;
  }
  void CountNode(uint32_t level, uint32_t order, int delta);
  void BeforeEdit(BlockHeader* block) noexcept;
  void ApplyStatistics() noexcept;
  void Reset();

  StoreInterface* const store_;
  const uint32_t tree_;
  bool active_ = false;

  uint32_t widenings_ = 0;
  Widening widen_[kTreeLevelsMax];
  Box32 widen_box_;
  BlockHeader* append_leaf_ = nullptr;
  Key append_key_;
  uint64_t append_id_ = 0;
  bool root_changes_ = false;
  NodeId new_root_;

  int64_t entries_delta_ = 0;
  int height_delta_ = 0;
  int supernodes_delta_ = 0;
  int nodes_delta_[kTreeLevelsMax] = {};
};

}  // namespace xtree
