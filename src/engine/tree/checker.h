// TreeChecker: walks a whole tree and restates its invariants in code of its own (as amcheck does).
//
// Checked: every node resolves, has one parent, the right tag, level, order and block numbers; counts
// are within capacity; a parent's box contains each child's real box; group boxes contain their
// entries; all leaves are on one level; no node is empty. With `compare_counts` also: record ids are
// unique (memory: 8 bytes an entry); entry, level, node and supernode counts equal the shared ones.
// Threads: under the writer lock, or beside writers from an epoch (counts are then not compared).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "store/store_interface.h"

namespace xtree {

struct TreeLevelStats {
  uint64_t nodes = 0;
  uint64_t supernodes = 0;   // Extents above the level's base order.
  uint64_t entries = 0;
  uint64_t capacity = 0;
  uint64_t blocks = 0;
};

struct TreeReport {
  uint32_t height = 0;
  uint64_t entries = 0;
  TreeLevelStats levels[kTreeLevelsMax];
  std::vector<std::string> problems;   // At most 100; empty means sound.
};

Status CheckTree(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare_counts,
                 TreeReport* report);
// Boxes of all nodes on `level` (their parents' view), appended as dims lo then dims hi.
Status CollectBoxes(StoreInterface* store, uint32_t tree, uint64_t epoch, uint32_t level,
                    std::vector<double>* boxes);
// Share of the tree's entries that a window is expected to return, from a bounded number of nodes.
Status EstimateFraction(StoreInterface* store, uint32_t tree, uint64_t epoch,
                        const Predicate& predicate, double* fraction);

}  // namespace xtree
