// NearestScan: entries in order of distance from a point, incrementally (best first).
//
// Source: Hjaltason and Samet, "Distance Browsing in Spatial Databases", TODS 1999. The queue holds
// nodes, groups of nodes and entries: only the groups of a node that come near are looked into.
// Distance: Euclidean from the point to the key's box (0 inside), per dimension lo - p below the box
//   and p - hi above it, combined as the host's pg_hypot does in two dimensions, so that the result
//   is bit-equal to the host's point <-> point. NaN sorts after infinity.
// Threads, promise, errors: as WindowScan.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "object/epoch.h"
#include "store/store_interface.h"
#include "tree/geometry.h"
#include "tree/kernels.h"

namespace xtree {

class NearestScan {
 public:
  explicit NearestScan(StoreInterface* store) : store_(store), kernels_(ActiveKernels()) {}
  ~NearestScan() { End(); }
  NearestScan(const NearestScan&) = delete;

  // Only entries that match `predicate` are returned. `point` has `dims` coordinates.
  Status Begin(EpochReader* reader, uint32_t tree, const double* point, const Predicate& predicate);
  // The next nearest entries (distances and keys may be null, keys are `dims` doubles an entry);
  // `count` < capacity does not mean the end, 0 does.
  Status Next(uint64_t* record_ids, double* distances, double* keys_lo, double* keys_hi,
              uint32_t capacity, uint32_t* count);
  // As WindowScan's.
  void LimitVisits(uint32_t nodes_max) { visits_max_ = nodes_max; }
  bool exhausted() const { return heap_.empty(); }
  // Releases the epoch. Idempotent.
  void End();

 private:
  // `order` holds the bits of a distance, which sort as the distances do (none is negative), with
  // NaN last. `what` is a node (kNodeBit, its NodeId, its level in kLevelMask), or a block's address
  // with, in the low bits that a page's alignment leaves free, a kind and the group or slot.
  struct Item {
    uint64_t order;
    uint64_t what;
  };
  struct Later {
    bool operator()(const Item& a, const Item& b) const { return a.order > b.order; }
  };
  static constexpr uint64_t kNodeBit = uint64_t{1} << 47;  // No NodeId and no user address has it.
  enum Kind : uint64_t { kGroup = 0, kEntry = 1 };

  void Push(double distance, uint64_t what);
  static constexpr uint64_t kAnyLevel = NodeId::kLevelMask;  // The root's is not known beforehand.
  Status ExpandNode(uint64_t what);
  void ExpandGroup(const BlockHeader* block, uint32_t group, const NodeLayout& layout);

  StoreInterface* const store_;
  const Kernels& kernels_;
  KeySpec spec_{};
  EpochPin pin_;
  bool window_pinned_ = false;
  bool everything_ = false;     // The predicate passes all entries.
  uint32_t visits_max_ = UINT32_MAX;
  uint32_t tree_ = 0;
  uint64_t epoch_ = 0;
  WindowQuery query_;
  NearestQuery point_;
  std::vector<Item> heap_;
};

}  // namespace xtree
