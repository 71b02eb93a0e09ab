// NearestScan: entries in order of distance from a point, incrementally (best first).
//
// Source: Hjaltason and Samet, "Distance Browsing in Spatial Databases", TODS 1999. The queue is kept short,
// since most of what is near enough to be seen is never asked for: a block stands in it with the nearest of
// its groups only, a group of children with the nearest child, and of a leaf's group the entries that
// are among the nearest known wait beside it, sorted, while one item stands for the others.
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
  bool exhausted() const { return heap_.empty() && near_first_ == near_.size(); }
  // Releases the epoch. Idempotent.
  void End();

 private:
  // `order` holds the bits of a distance, which sort as the distances do (none is negative), with
  // NaN last. `what` is an open list (kListBit, its number in lists_), or a leaf block's address with, in
  // the low bits that a page's alignment leaves free, a kind and the group or slot. Of a group, the top
  // bits say for which lanes the item stands.
  struct Item {
    uint64_t order;
    uint64_t what;
  };
  // The groups of a block, or the children in a group of an inner one, that have not been looked into.
  struct List {
    const BlockHeader* block;
    uint64_t rest;           // A bit for each that is left.
    uint32_t group;          // Whose children these are; kGroupsMax: these are groups.
    uint32_t next;           // The nearest, or the next free list.
    float distances[64];     // Lower bounds.
  };
  static constexpr uint64_t kListBit = uint64_t{1} << 47;  // No user address has it,
  static constexpr uint32_t kLanesShift = 48;              // nor any from here on.
  static constexpr uint32_t kNoList = UINT32_MAX;
  enum Kind : uint64_t { kGroup = 0, kEntry = 1 };
  static constexpr uint32_t kNearMax = 64;

  void Push(Item item);
  void ReplaceFirst(Item item);
  void RemoveFirst();
  // All but the distances.
  List* NewList(const BlockHeader* block, uint32_t group, uint64_t rest, uint32_t* number);
  // Makes its nearest choice the next; returns the order of that.
  static uint64_t Choose(List* list);
  // Drops the choice that the first item stands for.
  void Advance(uint32_t number);
  Status LookInto(uint32_t number);
  Result<NodeRef> Find(NodeId id, uint32_t level);
  Status OpenNode(const NodeRef& node);
  void OpenChildren(const BlockHeader* block, uint32_t group);
  Status OpenLeafGroup(const BlockHeader* block, uint32_t group, uint32_t lanes);
  bool Keep(const Item& entry, Item* pushed_out);
  Status Return(const Item& entry, uint64_t* record_id, double* distance, double* lo,
                double* hi) const;
  bool near_full() const { return near_.size() - near_first_ >= near_limit_; }

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
  // Every entry that was found and not returned yet is in near_, or in heap_ itself, or an item of heap_ that is
  // not later stands for it. How many near_ takes only decides how much work there is.
  std::vector<Item> heap_;
  std::vector<Item> near_;      // Entries, from near_first_ on, in order.
  size_t near_first_ = 0;
  size_t near_limit_ = 1;
  uint64_t returned_ = 0;
  std::vector<List> lists_;
  uint32_t free_list_ = kNoList;
};

}  // namespace xtree
