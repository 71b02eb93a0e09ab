// TreeDeletion: prepares the deletion of entries by record id (src/README.md, "The X-tree").
//
// Everything is worked out on drafts in memory, bottom up: what remains of the leaves, which nodes
// disappear or are merged, how far the boxes shrink. Only then are versions staged, one for each
// node that changes, however many of its children did.
//
// Most leaves lose a few entries, and most parents at most some width of a child's box. Such drafts
// are *slight*: they say what differs from the node as it is, and become a copy with these changes.
// A draft that takes part in a merge is *full*: it holds the node's entries.
//
// Threads: under the index's writer lock. Memory: grows with the number of leaves that are hit.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "tree/tree_change.h"
#include "tree/xtree.h"

namespace xtree {

// A node that holds less than this share of its capacity is merged with a sibling, if both
// together fill no more than the second share.
inline constexpr uint32_t kUnderfullPercent = 30;
inline constexpr uint32_t kMergedPercentMax = 90;

// Which ids may be in a set, for telling at the cost of a multiplication that most are not.
class IdFilter {
 public:
  void Build(const uint64_t* ids, uint32_t count);
  bool MayContain(uint64_t id) const {
    const uint64_t bit = Bit(id);
    return (words_[bit / 64] >> (bit % 64) & 1) != 0;
  }

 private:
  static constexpr uint32_t kBitsLog2 = 14;  // 18 for each id of the largest deletion.
  static uint64_t Bit(uint64_t id) { return id * 0x9E3779B97F4A7C15u >> (64 - kBitsLog2); }
  uint64_t words_[(1 << kBitsLog2) / 64];
};

class TreeDeletion {
 public:
  explicit TreeDeletion(TreeChange* change) : change_(*change) {}
  ~TreeDeletion();
  TreeDeletion(const TreeDeletion&) = delete;

  // See XTree::PrepareDelete. On failure the caller discards the change.
  Status Prepare(const Key& bound, const uint64_t* record_ids, uint32_t count, LeafHint hint,
                 uint32_t* found);

 private:
  struct Draft;
  struct Interior;

  Result<std::unique_ptr<Draft>> DraftTree(const NodeRef& root);
  Result<std::unique_ptr<Draft>> DraftNode(const NodeRef& ref);
  Result<std::unique_ptr<Draft>> DraftLeaf(const NodeRef& ref);
  Result<std::unique_ptr<Draft>> DraftInner(const NodeRef& ref);
  // What takes the entries of nodes of both layouts.
  const NodeLayout& Common(const NodeLayout& a, const NodeLayout& b) const;
  bool IsInBound(const NodeLayout& layout, const double* lo, const double* hi) const;
  void PrepareSearch();
  void RemoveFrom(const NodeRef& leaf, uint32_t first, uint32_t end, const Interior& interior,
                  Draft* draft);
  bool RemoveWhereSeen(const NodeRef& leaf, uint32_t count, const Interior& interior,
                       Draft* draft);
  void Remove(uint32_t entry, const double* lo, const double* hi, const Interior& interior,
              Draft* draft);
  uint32_t Size(const Draft& draft) const;
  bool IsUnderfull(const Draft& draft) const;
  Box32 Bounds(const Draft& draft) const;
  // Makes a slight draft full.
  void Read(Draft* draft) const;
  void TakeBoxes(Draft* parent);
  Status MergeUnderfull(Draft* parent);
  Result<uint32_t> FindPartner(const Draft& parent, uint32_t child);
  Result<bool> HasRoom(const Draft& parent, uint32_t partner, const Draft& child) const;
  Status Merge(Draft* parent, uint32_t child, uint32_t partner);
  void DropEmpty(Draft* parent);
  Status ShrinkRoot(Draft* root);
  Status Stage(const Draft& draft);
  Status StageOne(const Draft& draft);

  TreeChange& change_;
  double bound_lo_[kDimsMax];
  double bound_hi_[kDimsMax];
  Box32 bound_box_;
  const uint64_t* record_ids_ = nullptr;
  uint32_t record_count_ = 0;
  LeafHint hint_;
  uint32_t next_hint_ = 0;  // Leaves are met in the order of the hint, unless others have changed it.
  IdFilter leaf_filter_;    // Of the leaves to look at, if
  bool hinted_ = false;
  // For looking the record ids up: made when that is needed.
  bool searchable_ = false;
  std::vector<uint64_t> sorted_;
  IdFilter filter_;
  uint32_t found_ = 0;
  std::vector<NodeRef> freed_;
};

}  // namespace xtree
