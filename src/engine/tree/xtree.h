// XTree: the tree algorithms over one tree of an index (src/README.md, "The X-tree").
//
// Source: Berchtold, Keim, Kriegel, "The X-tree: An Index Structure for High-Dimensional Data",
// VLDB 1996; Beckmann et al., "The R*-tree", SIGMOD 1990 (choose-subtree, topological split);
// Beckmann and Seeger, "A Revised R*-tree", SIGMOD 2009 (covering subtrees first).
//
// Threads: Prepare*, Apply*, Discard under the index's writer lock, one change at a time. Scans
//          (tree/window_scan.h, tree/nearest_scan.h) take no lock.
//          The caller (IndexDetails) pins the store's windows from Prepare to Apply or Discard.
// Errors:  Prepare* may fail and leave the tree as it was. Apply* cannot fail.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "store/store_interface.h"
#include "tree/geometry.h"

namespace xtree {

// Where the entries to be deleted were seen last: NodeIDs of leaves, and maybe their numbers there. Only
// a hint: if not all are there any more, they are looked for wherever the bound allows.
struct LeafHint {
  const uint64_t* leaves = nullptr;
  uint32_t count = 0;
  // Null, or: the record ids are in the order of the leaves, those of leaf l end before ends[l], and
  // record id i was entry slots[i] of its leaf.
  const uint32_t* ends = nullptr;
  const uint16_t* slots = nullptr;
};

class XTree {
 public:
  // Borrows the store. `tree` is kTreeMain or kTreeNull; its spec is in store->shared().
  XTree(StoreInterface* store, uint32_t tree);
  ~XTree();
  XTree(const XTree&) = delete;

  // Insertions that come soon, and then a walk to have fetched what they will read (tree/paths_ahead.h). Hints only, and
  // never an error. Windows pinned for WalkAhead.
  void ExpectInsert(const Key& key, uint64_t record_id);
  void WalkAhead();
  // The first half of PrepareInsert, for who has something else to do before the second, while memory
  // fetches the leaf. PrepareInsert of the same entry, or Discard, must follow.
  Status LocateInsert(const Key& key, uint64_t record_id);
  // Chooses the path, builds whatever new versions the insertion needs (copies of captured nodes,
  // splits, supernodes), and remembers the in-place edits.
  Status PrepareInsert(const Key& key, uint64_t record_id);
  // Deletes the entries whose record id is in `record_ids` (in any order) and whose key lies in
  // `bound`; entries that are not there are ignored. Merges or removes underfull nodes. `found` is
  // the number that Apply will remove; 0 stages nothing.
  Status PrepareDelete(const Key& bound, const uint64_t* record_ids, uint32_t count,
                       uint32_t* found, LeafHint hint = {});
  // Publishes what was prepared: widen parents top down, then append, or swap in new versions.
  void Apply() noexcept;
  void Discard() noexcept;

  // Whether exactly this entry is in the tree (newest state). For checks, under the writer lock.
  Result<bool> Contains(const Key& key, uint64_t record_id) const;

 private:
  struct Pending;
  Pending& pending();
  StoreInterface* const store_;
  const uint32_t tree_;
  std::unique_ptr<Pending> pending_;  // Null before the first change: who only reads needs none.
};

}  // namespace xtree
