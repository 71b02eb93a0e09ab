// TreeDeletion: prepares the deletion of entries by record id (src/README.md, "The X-tree").
//
// Everything is worked out on copies in memory, bottom up: what remains of the leaves, which nodes
// disappear or are merged, how far the boxes shrink. Only then are versions staged, one for each
// node that changes, however many of its children did.
//
// Threads: under the index's writer lock. Memory: grows with the number of leaves that are hit.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "tree/tree_change.h"

namespace xtree {

// A node that holds less than this share of its capacity is merged with a sibling, if both
// together fill no more than the second share.
inline constexpr uint32_t kUnderfullPercent = 30;
inline constexpr uint32_t kMergedPercentMax = 90;

class TreeDeletion {
 public:
  explicit TreeDeletion(TreeChange* change) : change_(*change) {}
  ~TreeDeletion();
  TreeDeletion(const TreeDeletion&) = delete;

  // See XTree::PrepareDelete. On failure the caller discards the change.
  Status Prepare(const Key& bound, const uint64_t* record_ids, uint32_t count, uint32_t* found);

 private:
  struct Draft;

  Result<std::unique_ptr<Draft>> DraftNode(const NodeRef& ref);
  Result<std::unique_ptr<Draft>> DraftLeaf(const NodeRef& ref);
  Result<std::unique_ptr<Draft>> DraftInner(const NodeRef& ref);
  std::unique_ptr<Draft> ReadDraft(const NodeRef& ref) const;
  bool IsDeleted(const NodeLayout& layout, const BlockHeader* leaf, uint32_t entry) const;
  void TakeBoxes(Draft* parent);
  Status MergeUnderfull(Draft* parent);
  Result<uint32_t> FindPartner(const Draft& parent, uint32_t child);
  Result<uint32_t> CountEntries(const Draft& parent, uint32_t child) const;
  Status Merge(Draft* parent, uint32_t child, uint32_t partner);
  void DropEmpty(Draft* parent);
  Status ShrinkRoot(Draft* root);
  Status Stage(const Draft& draft);

  TreeChange& change_;
  double bound_lo_[kDimsMax];
  double bound_hi_[kDimsMax];
  Box32 bound_box_;
  const uint64_t* record_ids_ = nullptr;
  uint32_t record_count_ = 0;
  uint32_t found_ = 0;
  std::vector<NodeRef> freed_;
};

}  // namespace xtree
