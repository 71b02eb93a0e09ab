// Arranges entries into nodes, and within nodes into groups, so that each is compact: halves the set
// again and again, along the dimension in which the centres spread most, at the node or group border
// nearest the middle.
//
// Source: García, López and Leutenegger, "A greedy algorithm for bulk loading R-trees", 1998 (packing
// from the top down); the choice of the dimension is that of adaptive k-d trees (Friedman, Bentley
// and Finkel, TOMS 1977).
//
// Why not the order along a curve: on the shoreline boxes a search for one point then read 2.1 leaves
// in the mean, with this 1.1. The curve is for data that do not fit in memory (tree/curve.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "tree/geometry.h"

namespace xtree {

// How `entries` are dealt to nodes of about `packed` each, in whole groups. Shares differ by a group
// at most, so that no last node is left nearly empty. REQUIRES: packed >= group_size.
struct NodeShares {
  NodeShares(uint64_t entries, uint32_t packed, uint32_t group_size);
  // The first entry of node i; node `nodes` begins at the end.
  uint64_t Begin(uint64_t i) const {
    const uint64_t first = groups * i / nodes * group_size;
    return first < entries ? first : entries;
  }
  uint64_t entries;
  uint32_t group_size;
  uint64_t groups;
  uint64_t nodes;  // 0 if there are no entries.
};

// Puts infinities and NaN among the finite, so that centres have a total order.
inline float CentreOf(double lo, double hi) {
  constexpr double kMax = std::numeric_limits<float>::max() / 4;
  const double centre = lo / 2 + hi / 2;
  if (std::isnan(centre)) return static_cast<float>(kMax);
  return static_cast<float>(std::clamp(centre, -kMax, kMax));
}

// Writes the centres of entries [begin, end), made by CentreOf: `dims` for each. Called by any of the threads.
using CentresOf = std::function<void(uint64_t begin, uint64_t end, float* centres)>;

// Returns the entries' numbers, node after node.
// Uses up to `threads` threads. REQUIRES: shares.entries < 2^32. Once `cancelled`, asked by each of the
// threads, has said yes, what is returned is of no use.
std::vector<uint32_t> KdOrder(uint32_t dims, const CentresOf& centres,
                              const NodeShares& shares, uint32_t threads,
                              const std::function<bool()>& cancelled = {});
// The same of centres that are in memory.
std::vector<uint32_t> KdOrder(uint32_t dims, const float* centres,
                              const NodeShares& shares, uint32_t threads,
                              const std::function<bool()>& cancelled = {});

}  // namespace xtree
