// PathsAhead: where the insertions that come next will go. Their paths are walked together, a step of each in turn,
// and what the next step reads is fetched meanwhile; so their misses of the cache overlap, and when an
// insertion's turn comes, its path is in the cache, and is only followed.
//
// Together, and not one step of each at every insertion: where a page is not in the TLB, a prefetch waits
// for the walk of the page tables, and only several such walks at a time cost less than one after the other.
//
// A path is a hint. The tree may change before it is followed, or the insertion never come. So nothing is
// looked at here but what takes neither a mapping nor a verification, and whoever follows a path believes
// none of it: a step counts if the node that it is of still has that child (Leads).
//
// Threads: under the index's writer lock, alone; Walk with the store's windows pinned. Memory: allocates
//          nothing.
#pragma once

#include <cstdint>

#include "object/node_id.h"
#include "tree/node_layout.h"
#include "tree/tree_change.h"

namespace xtree {

class PathsAhead {
 public:
  // So many are known at a time; a further one takes the place of the oldest.
  static constexpr uint32_t kPathsMax = 8;

  struct Path {
    Key key;
    Box32 box;
    bool fetched;    // nodes[depth] is on its way to the cache; else its entry in the object table is.
    uint8_t level;   // Of nodes[depth]; meaningless for the root.
    uint32_t depth;  // So many steps are chosen: to child entries[i] of nodes[i], which is nodes[i + 1].
    NodeId nodes[kTreeLevelsMax + 1];
    uint16_t entries[kTreeLevelsMax];

    // Whether step `i` may be taken from this node, which is the newest version of it. If so: to which child.
    bool Leads(uint32_t i, const NodeLayout& inner, const NodeRef& ref, ChildChoice* child) const;
  };

  explicit PathsAhead(const TreeChange* tree) : tree_(*tree) {}
  PathsAhead(const PathsAhead&) = delete;

  // An insertion that comes soon. In an empty tree it is not noted.
  void Begin(const Key& key, uint64_t record_id);
  // To their ends, as far as these can be seen.
  void Walk();
  // The path of this insertion, which is forgotten, but stays as it is until the next Begin. Null: it is not known.
  const Path* Take(const Key& key, uint64_t record_id);

 private:
  // A step of one; whether it goes on after that.
  bool Walk(Path* path) const;

  const TreeChange& tree_;
  uint32_t oldest_ = 0;   // The next Begin takes its place.
  uint32_t wanted_ = 0;   // Bits: neither forgotten nor taken,
  uint32_t walking_ = 0;  // and not at their end.
  uint64_t record_ids_[kPathsMax];
  Path paths_[kPathsMax];
};

}  // namespace xtree
