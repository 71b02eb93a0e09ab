// TreeWalk: walks a whole tree, in steps, and restates its invariants in code of its own (as amcheck does).
//
// Checked: every node resolves, has one parent, the right tag, level, order and block numbers; counts
// are within capacity; a parent's box contains each child's real box; group boxes contain their
// entries; all leaves are on one level; no node is empty. With `compare` also: record ids are unique
// (memory: 8 bytes an entry); entry, level, node and supernode counts equal the shared ones.
//
// Beside writers the structure is that of the walk's epoch, but entries that are appended in place may be
// seen in it. Then a child may reach beyond the box that an old parent has for it, there may be more
// entries than were counted, and a record id that was deleted may be in the tree a second time. So such
// things are only noted, and Compare looks again at what is there by then.
//
// Threads: under the writer lock, or beside writers; the constructor (if it compares) and Compare under it.
#pragma once

#include <cstdint>
#include <memory>
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

class TreeWalk {
 public:
  // `epoch` must stay pinned. `only`: of these record ids (sorted) alone, look whether they are unique.
  TreeWalk(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare,
           const std::vector<uint64_t>* only = nullptr);
  ~TreeWalk();
  // Visits up to `nodes_max` nodes more. kNeedMemory: attach what is missing, and call again.
  Status Step(uint32_t nodes_max, bool* done);
  // `unchanged`: the index has not been changed since the walk was made.
  Status Compare(bool unchanged);
  const TreeReport& report() const;
  // Record ids that were met more than once while the index changed: wrong only if another walk meets
  // them twice again. At most 100.
  const std::vector<uint64_t>& suspects() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

// All steps at once. With `compare_counts` nobody may change the index meanwhile.
Status CheckTree(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare_counts,
                 TreeReport* report);
// Boxes of all nodes on `level` (their parents' view), appended as dims lo then dims hi. Ends soon after
// `boxes_max`.
Status CollectBoxes(StoreInterface* store, uint32_t tree, uint64_t epoch, uint32_t level,
                    uint64_t boxes_max, std::vector<double>* boxes);
// Share of the tree's entries that a window is expected to return, from a bounded number of nodes.
Status EstimateFraction(StoreInterface* store, uint32_t tree, uint64_t epoch,
                        const Predicate& predicate, double* fraction);
// Record ids of up to `capacity` neighbouring entries of one leaf: the one `place` (0 to 1) of the way
// through the children of each level.
Status SampleEntries(StoreInterface* store, uint32_t tree, uint64_t epoch, double place,
                     uint64_t* record_ids, uint32_t capacity, uint32_t* count);

}  // namespace xtree
