// LeafAppend: inserts an entry where that takes nothing but two kinds of stores beside readers, widening
// boxes and appending to a leaf; several writers do so at a time (src/README.md, "Writers beside each
// other").
//
// Two halves, as for every change. Prepare makes sure of room for one entry: nobody changes the structure
// while the writer lock is held shared, so a leaf that has room keeps it, and its handle's latch counts
// the entries that are on their way. Apply widens, top down, and then appends under that latch, for as
// long as the stores take; so entries get their slots in the order in which they are applied, and a
// leaf never has a hole below its count.
//
// Threads: one object for each writer. Under the index's writer lock, taken shared, from Locate to Apply or
//          Discard; the caller pins the store's windows for that time. Allocates nothing.
// Errors:  those of a look-up, from Locate. Then, and if it says that the entry takes more, nothing has
//          been changed.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "store/store_interface.h"
#include "tree/geometry.h"
#include "tree/node_layout.h"

namespace xtree {

class LeafAppend {
 public:
  explicit LeafAppend(StoreInterface* store) : store_(store) {}
  LeafAppend(const LeafAppend&) = delete;

  // Chooses the leaf. False in `possible`: nodes on the way must get new versions.
  Status Locate(uint32_t tree, const Key& key, bool* possible);
  // Makes sure of room. False: there is none, or only for those who are on their way. REQUIRES: Locate.
  bool Reserve();
  // Shows the entry. REQUIRES: Reserve. The key is that of Locate.
  void Apply(const Key& key, uint64_t record_id) noexcept;
  // Gives the room back.
  void Discard() noexcept;

 private:
  struct Widening {
    BlockHeader* node;
    uint32_t entry;
  };

  LeafLatch* latch() const { return store_->shared()->writers.LeafOf(leaf_.id.handle()); }

  StoreInterface* const store_;
  TreeShared* tree_ = nullptr;
  const NodeLayout* inner_ = nullptr;
  const NodeLayout* layout_ = nullptr;  // Of the leaf.
  NodeRef leaf_;
  Box32 key_box_;
  uint32_t widenings_ = 0;
  Widening widen_[kTreeLevelsMax];
};

}  // namespace xtree
