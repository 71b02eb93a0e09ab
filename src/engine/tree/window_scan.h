// WindowScan: all entries that match a Predicate, in tree order, without locks.
//
// Threads: one at a time per scan. Beside any writer.
// Promise: returns every entry whose insertion was applied before Begin and that no deletion removed
//          before Begin; entries inserted while the scan runs may or may not appear; none twice.
// Errors:  kNeedMemory: attach what other processes have provided, then call again; the scan goes on
//          where it stood. After any other error the scan is at an undefined place: End it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "object/epoch.h"
#include "store/store_interface.h"
#include "tree/geometry.h"
#include "tree/kernels.h"
#include "tree/node_layout.h"

namespace xtree {

// Largest number of entries in a leaf, so the smallest buffer that Next accepts.
inline constexpr uint32_t kScanBatchMin = 1024;

class WindowScan {
 public:
  explicit WindowScan(StoreInterface* store) : store_(store), kernels_(ActiveKernels()) {}
  ~WindowScan() { End(); }
  WindowScan(const WindowScan&) = delete;

  // Takes a fresh epoch through `reader`; a running scan is ended first. Copies the predicate.
  Status Begin(EpochReader* reader, uint32_t tree, const Predicate& predicate);
  // Fills record ids (and, where `keys_lo`/`keys_hi` are not null, keys: `dims` doubles per entry)
  // and sets `count`; 0 means the end. REQUIRES: capacity >= kScanBatchMin. `one_leaf` returns after
  // each leaf that matched anything (bulk delete).
  Status Next(uint64_t* record_ids, double* keys_lo, double* keys_hi, uint32_t capacity,
              bool one_leaf, uint32_t* count);
  // For bulk deletion, in a scan of everything: the record ids of the next leaf that has any; 0 means
  // the end. REQUIRES: capacity >= kScanBatchMin.
  struct Leaf {
    NodeId id;
    bool new_parent;  // It is the first of its parent.
    Box32 bounds;     // Around its keys.
  };
  Status NextLeaf(uint64_t* record_ids, uint32_t capacity, Leaf* leaf, uint32_t* count);
  // Gives the epoch up for a fresh one, so that what was retired meanwhile can be given back, and goes
  // on where the scan stood. Entries that somebody has moved to other nodes since Begin may be missed
  // from now on, or come twice; nodes that are gone are passed over and set lost().
  Status Renew();
  uint64_t epoch() const { return epoch_; }
  uint32_t dims() const { return spec_.dims; }
  bool lost() const { return lost_; }
  // From now on Next returns, perhaps with nothing, after it has visited so many nodes; whether that was
  // all then says exhausted(). It lets a caller look for interrupts while nothing matches.
  void LimitVisits(uint32_t nodes_max) { visits_max_ = nodes_max; }
  bool exhausted() const { return stack_.empty(); }
  // Releases the epoch. Idempotent.
  void End();

 private:
  static constexpr uint64_t kAnyLevel = NodeId::kLevelMask;  // The root's is not known beforehand.
  static NodeId IdOf(uint64_t entry) { return NodeId{entry & ~NodeId::kLevelMask}; }
  Status Resolve(uint64_t entry, NodeRef* node);
  // Resolves the next node of the stack that is still there; a null node at the end.
  Status ResolveNext(NodeRef* node);
  // Appends the matching children of an inner node to the stack.
  Status Descend(const NodeRef& node);
  // Writes the matching entries of a leaf.
  Status Emit(const NodeRef& node, uint64_t* record_ids, double* keys_lo, double* keys_hi,
              uint32_t* count);
  void PrefetchAhead();

  StoreInterface* const store_;
  const Kernels& kernels_;
  KeySpec spec_{};                     // Of the tree being scanned.
  const NodeLayout* inner_ = nullptr;
  uint32_t leaf_head_bytes_ = 0;       // Of a leaf: header and group boxes.
  EpochReader* reader_ = nullptr;
  EpochPin pin_;
  bool window_pinned_ = false;
  uint32_t visits_max_ = UINT32_MAX;
  uint64_t epoch_ = 0;
  bool renewed_ = false;
  bool lost_ = false;
  bool descended_ = false;             // Since the last leaf.
  WindowQuery query_;
  // Nodes still to visit, the next one last: NodeIDs with the level that the parent's implies, or
  // kAnyLevel, in kLevelMask. Comparing it keeps a damaged file from leading a scan in circles.
  std::vector<uint64_t> stack_;
  uint32_t tree_ = 0;
};

}  // namespace xtree
