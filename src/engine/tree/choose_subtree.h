// ChooseSubtree: which child of a directory node a new entry goes to.
//
//   1. Children that already cover the entry: the one of least volume (margin where volumes tie).
//   2. Else the child whose margin grows least, if that makes it overlap no other child more than
//      before; else, among the few that grow least, the one whose overlap grows least.
// Source: Beckmann and Seeger, "A Revised R*-tree", SIGMOD 2009, section 4.1. The margin decides
// because it bounds well: a group's box grows no more than any child in the group would, so that
// most groups are passed over by their boxes alone.
//
// Threads: under the writer lock, shared or not: others may widen the node's boxes meanwhile, float by
//          float. A child that is said to cover the entry was seen to, its group's box too, and boxes
//          only grow. The rest of the choice is judgement, for which an old float does as well.
#pragma once

#include <cstdint>

#include "store/store_interface.h"
#include "tree/node_layout.h"

namespace xtree {

struct ChildChoice {
  uint32_t entry = 0;
  bool covers = false;  // The child's box need not grow.
};

// REQUIRES: an inner node with at least one entry. A child that may be chosen is prefetched from
// `store` (if not null) while the search goes on: its first `prefetch_bytes`.
ChildChoice ChooseSubtree(const NodeLayout& layout, const BlockHeader* node, const Box32& key,
                          const StoreInterface* store = nullptr, uint32_t prefetch_bytes = 0);

// The vector code under it; `dims` picks specialised versions. For ChooseSubtree and its test.
struct ChooseKernels {
  // Bit g: group g's box has lo <= lo_max and hi >= hi_min in every dimension. Bits at and above
  // `groups` are zero.
  uint64_t (*match_groups)(const NodeLayout& layout, const BlockHeader* block, uint32_t groups,
                           const float* lo_max, const float* hi_min);
  // The same for the entries of one group; bits at and above the group size are zero.
  uint32_t (*match_entries)(const NodeLayout& layout, const float* coords, const float* lo_max,
                            const float* hi_min);
  // How much the margin (sum of extents) of each group's box or entry grows to contain `key`.
  // `growth` has room for `groups` rounded up to 8, or for kGroupSizeMax.
  void (*grow_groups)(const NodeLayout& layout, const BlockHeader* block, uint32_t groups,
                      const Box32& key, float* growth);
  void (*grow_entries)(const NodeLayout& layout, const float* coords, const Box32& key,
                       float* growth);

  static const ChooseKernels& For(uint32_t dims);
  static const ChooseKernels& Portable();
};

}  // namespace xtree
