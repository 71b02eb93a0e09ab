// TreeInsertion: prepares the insertion of one entry (src/README.md, "The X-tree").
//
// Threads: under the index's writer lock. Memory: its buffers are kept, so that an insertion which
// only appends allocates nothing.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "tree/choose_subtree.h"
#include "tree/paths_ahead.h"
#include "tree/split.h"
#include "tree/tree_change.h"

namespace xtree {

class TreeInsertion {
 public:
  explicit TreeInsertion(TreeChange* change) : change_(*change) {}
  TreeInsertion(const TreeInsertion&) = delete;

  // Chooses the path, and has the leaf fetched: what the caller does before Prepare costs less than it
  // takes. On failure of either the caller discards the change.
  Status Locate(const Key& key, uint64_t record_id);
  // Leaves in the change what it takes to insert the entry. REQUIRES: Locate of the same, in this change.
  Status Prepare(const Key& key, uint64_t record_id);
  // Insertions that come soon; Locate follows their paths.
  PathsAhead& ahead() { return ahead_; }

 private:
  // One node on the way down, and the child that was chosen in it.
  struct Step {
    NodeRef ref;
    ChildChoice child;
  };
  // What a split below leaves for the parent to record.
  struct SplitPair {
    NodeRef left;       // Same NodeID as the node that was split.
    NodeRef right;
    Box32 left_box;
    Box32 right_box;
  };

  Status PlantRoot(const Key& key, uint64_t record_id);
  Status Descend(NodeId root, const PathsAhead::Path* ahead);
  Status InsertIntoLeaf(const Key& key, uint64_t record_id, bool* split);
  Status RebuildLeaf(const NodeRef& leaf);
  Status UpdateInner(uint32_t depth, bool* split);
  Status RecordSplit(const Step& step);
  Status SplitInner(uint32_t depth, bool* split);
  Status SplitNode(uint32_t depth, const SplitChoice& choice);
  const NodeLayout& SideLayout(uint32_t level, const uint32_t* pick, uint32_t count) const;
  Result<uint32_t> SharedHistory(const Step& step) const;
  void ReadEntries(const NodeRef& ref);

  TreeChange& change_;
  PathsAhead ahead_{&change_};
  Box32 key_box_;
  NodeId leaf_;                   // Invalid in an empty tree.
  uint32_t depth_ = 0;            // Of the leaf; path_[0] is the root.
  Step path_[kTreeLevelsMax];
  SplitPair pair_;
  EntryList entries_{1};          // Of the node being split or rebuilt, with what is added to it.
  const NodeLayout* leaf_layout_ = nullptr;  // One that takes all of a leaf's entries_.
  Splitter splitter_;
};

}  // namespace xtree
