// Splitter: how a full node's entries are divided in two (src/README.md, "The X-tree").
//
// It works on plain boxes and knows nothing of nodes, so the same code divides leaves, directory
// nodes and supernodes.
//   Topological:    R*. The axis whose distributions have the least sum of margins, then on that
//                   axis the distribution with the least overlap, then the least volume.
//   OverlapMinimal: X-tree. Along a dimension in which every child has already been split there is
//                   a cut that (nearly) no child crosses; the question is whether it is balanced.
// The overlap of a split is the larger of two shares that the paper gives: of volume (the two
// sides' intersection over their union), and of entries (those whose centres lie in both sides'
// boxes: the "weighted overlap", which says how often a query like the data must go both ways).
// Volumes alone say nothing in many dimensions: of 8-dimensional colour histograms, splits with
// less than 1e-4 of the volume in common had up to 93 % of the entries in common.
// Source: Beckmann et al., SIGMOD 1990, section 4.2; Berchtold, Keim, Kriegel, VLDB 1996,
// section 3.
//
// Numbers:   coordinates may be NaN or infinite, which counts as unbounded: for the arithmetic they
//            are moved a little outside the finite ones. Everything is scaled to the boxes' own
//            extent, so that no margin or volume overflows or vanishes.
// Threads:   one. Memory: buffers are kept from call to call; std::bad_alloc when they must grow.
#pragma once

#include <cstdint>
#include <vector>

#include "tree/geometry.h"

namespace xtree {

// At least this share of the entries goes to each side.
inline constexpr double kTopologicalMinFill = 0.40;
inline constexpr double kOverlapMinimalMinFill = 0.35;
// A directory node whose split overlaps by more becomes a supernode (the paper's MAX_OVERLAP).
inline constexpr double kOverlapMax = 0.20;
// The split history promises a cut without overlap. Later insertions widen children, so that it
// is seldom kept to the letter.
inline constexpr double kOverlapMinimalMax = 0.05;
// The largest number of boxes that Load takes; more than any node holds.
inline constexpr uint32_t kSplitEntriesMax = 1 << 14;

struct SplitChoice {
  uint32_t axis = 0;        // Dimension of the cut.
  uint32_t left_count = 0;  // The first `left_count` entries of order() go left.
  double overlap = 1.0;     // 0..1, see Splitter.
};

class Splitter {
 public:
  // Box i is `dims` lower corners at boxes[i * 2 * dims], then `dims` upper ones. The boxes are
  // copied. REQUIRES: 2 <= count <= kSplitEntriesMax, 1 <= dims <= kDimsMax.
  void Load(const double* boxes, uint32_t dims, uint32_t count);

  // Always finds a split, and leaves its permutation in order().
  SplitChoice Topological(double min_fill);
  // Looks along the dimensions in `history` (bit d: dimension d; none set means all). False if no
  // split that fills both sides to `min_fill` overlaps by `overlap_max` or less; order() is then
  // the one of an earlier call.
  bool OverlapMinimal(uint32_t history, double min_fill, double overlap_max, SplitChoice* choice);

  // Entry indexes, left side first, of the last split that was found.
  const std::vector<uint32_t>& order() const { return order_; }

 private:
  void SortAlong(uint32_t dim);
  void ResortAlongHigh(uint32_t dim);
  bool SortedAlongHigh(uint32_t dim) const;
  void AccumulateBoxes();
  double MarginSum(uint32_t least) const;
  double Volume(const double* box) const;
  double Intersection(const double* a, const double* b) const;
  double SharedVolume(uint32_t left_count) const;
  double SharedEntries(uint32_t left_count) const;
  double Overlap(uint32_t left_count) const;
  void KeepOrder();
  const double* Prefix(uint32_t count) const { return &prefix_[uint64_t{count - 1} * 2 * dims_]; }
  const double* Suffix(uint32_t first) const { return &suffix_[uint64_t{first} * 2 * dims_]; }

  uint32_t dims_ = 0;
  uint32_t count_ = 0;
  double extent_[kDimsMax];          // Of all boxes, scaled; 0 in a dimension that is flat.
  std::vector<double> low_, high_;   // dims x count, scaled.
  std::vector<uint64_t> sorted_;     // Present sort: coordinate bits over an entry index.
  std::vector<uint64_t> low_sort_;
  std::vector<uint64_t> axis_sorts_[2];  // Of the best axis so far, by lower and upper corners; the
                                         // second is empty if it equals the first.
  std::vector<double> prefix_;       // Box of the first i + 1 entries of the present sort: lo, hi.
  std::vector<double> suffix_;       // Box of the entries from i on.
  std::vector<uint32_t> order_;
};

}  // namespace xtree
