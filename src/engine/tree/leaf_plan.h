// LeafPlan: into how many leaves a bulk load's entries go, and in what layout each is written.
//
// Decimal leaves hold a third to seven tenths more entries than exact ones, but one key that is not decimal
// keeps a whole leaf from being one. So all keys are looked at first. Where next to all are decimal in
// one scale, leaves are packed as large as decimal ones are, and the few with an odd key are divided in
// exact ones. Otherwise all leaves are exact.
//
// Threads: Survey starts its own (tree/parallel.h); otherwise one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "tree/geometry.h"
#include "tree/kd_order.h"
#include "tree/node_layout.h"

namespace xtree {

// One key in so many may be odd before leaves are exact: about a quarter of the leaves then have one.
inline constexpr uint64_t kKeysPerOdd = 1024;

// Entries that a node is packed with: the fill factor, to the nearest whole group, since a group that
// is partly filled costs as much to compare as a full one.
uint32_t PackedEntries(const NodeLayout& layout, uint32_t fill_percent);

class LeafPlan {
 public:
  // Keys that follow each other in memory: those of entries from one that was asked for up to `end`.
  struct Run {
    const double* lo;
    const double* hi;
    size_t stride;  // Doubles from one to the next, of lo as of hi.
    uint64_t end;
  };
  using RunFrom = std::function<Run(uint64_t i)>;
  // Leaf i holds the entries order[begin] to order[begin + count - 1].
  struct Leaf {
    uint64_t begin;
    uint32_t count;
    const NodeLayout* layout;
  };

  LeafPlan(const KeySpec& spec, uint32_t fill_percent, uint64_t entries, const RunFrom& run_from,
           uint32_t threads);

  // How the entries are to be ordered (KdOrder).
  const NodeShares& shares() const { return shares_; }
  uint64_t leaves_max() const { return shares_.nodes + std::min(odd_keys_, shares_.nodes); }
  // `order` has shares().entries of the entries, as KdOrder returns them.
  std::vector<Leaf> Leaves(const std::vector<uint32_t>& order) const;

 private:
  // Decides between decimal and exact leaves; returns the layout.
  const NodeLayout& Survey(const KeySpec& spec, uint64_t entries, const RunFrom& run_from,
                           uint32_t threads);

  const NodeLayout& exact_;
  // Survey sets these two, so they come before what it returns.
  std::vector<uint8_t> odd_;  // For each key, if leaves are decimal.
  uint64_t odd_keys_ = 0;
  const NodeLayout& layout_;
  const NodeShares shares_;
};

}  // namespace xtree
