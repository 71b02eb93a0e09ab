// BulkLoader: packs a tree bottom-up from all its entries at once (src/README.md, "Bulk load").
//
// Two ways in:
//   in memory: Add* everything, then Finish arranges (tree/kd_order.h; several threads) and packs.
//   external:  the caller computes CurveKey for each entry, sorts by it with its own external sort,
//              and calls AddSorted in that order. Stretches of the curve are arranged and packed on
//              the way. Memory: two such stretches (some megabytes) and one box a leaf.
// Leaves are filled to the fill factor; then every level's boxes are packed into the next.
// Source: Kamel and Faloutsos, "Hilbert R-tree", VLDB 1994 (the external way).
//
// Threads:    one caller; Finish may start `threads` workers that touch only private memory and
//             fresh extents, block all signals, and are joined before it returns.
// Durability: none; the nodes are staged and published like any other change.
// Errors:     kNeedMemory: provide the chunk and repeat the call; nothing of it was done. After any
//             other error the loader is of no use; its destructor gives back what it staged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/status.h"
#include "store/store_interface.h"
#include "tree/geometry.h"

namespace xtree {

using WriteBlocks = std::function<Status(uint32_t first_block, uint32_t blocks, std::byte* data)>;

struct BulkOptions {
  uint32_t leaf_fill_percent = 85;
  uint32_t threads = 1;
  // Once one of these words is not zero, Finish returns kCancelled soon. A host's signal handler sets
  // them. May be null.
  const volatile int* cancel[2] = {nullptr, nullptr};
  // Not null: leaves of what was added are built in memory and written by it, by any of the threads. `data` it may
  // change.
  WriteBlocks write = {};
  bool cancelled() const {
    for (const volatile int* word : cancel) {
      if (word != nullptr && __atomic_load_n(word, __ATOMIC_RELAXED) != 0) return true;
    }
    return false;
  }
};

class BulkLoader {
 public:
  // REQUIRES: the tree is empty, and the writer lock is held until the loader is gone.
  BulkLoader(StoreInterface* store, uint32_t tree, const BulkOptions& options);
  ~BulkLoader();

  // Position of a key on the curve. `bounds_lo/hi`: the extent of the data, `dims` each (keys outside
  // are clamped, so an estimate will do).
  static uint64_t CurveKey(const KeySpec& spec, const double* bounds_lo, const double* bounds_hi,
                           const double* lo, const double* hi);

  // `lo` and `hi` have dims x count doubles, entry by entry; hi is ignored for points (may be null).
  Status Add(const double* lo, const double* hi, const uint64_t* record_ids, uint32_t count);
  // REQUIRES: nothing is left of what Add took (TakeAdded has taken it).
  Status AddSorted(const double* lo, const double* hi, const uint64_t* record_ids, uint32_t count);
  // In place of Add: the caller's arrays, which stay as they are until Finish has succeeded, or this is gone.
  Status Borrow(const double* lo, const double* hi, const uint64_t* record_ids, uint64_t count);
  uint64_t memory_bytes() const;  // What Add has taken so far.
  // Takes the added entries out again, in batches, to move them to an external sort. `hi` may be
  // null for points.
  uint32_t TakeAdded(double* lo, double* hi, uint64_t* record_ids, uint32_t capacity);
  // Packs, publishes.
  Status Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace xtree
