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

  // Of the last split that was found: its overlap, 0..1, and the entries' indexes, left side first.
  double overlap() const;
  const std::vector<uint32_t>& order() const { return order_; }
  // Reorders each side of order() so that consecutive runs of a group's entries are close together: halves
  // it again and again at a multiple of the side's `group`, along the dimension in which its lower corners spread
  // most. REQUIRES: Topological has been called since Load; `choice` is the last split that was found.
  void ArrangeSides(const SplitChoice& choice, uint32_t left_group, uint32_t right_group);

 private:
  // One order of the entries, and the boxes of all its heads and tails.
  struct Sort {
    std::vector<uint64_t> words;   // Coordinate over entry index, see SortWord.
    std::vector<double> prefix;    // Box of the first i + 1 entries: lo x dims, hi x dims.
    std::vector<double> suffix;    // Box of the entries from i on.
  };

  void SortAlong(const std::vector<double>& corners, uint32_t dim, Sort* sort);
  void RadixSort(std::vector<uint64_t>* words);
  void SortTies(const double* coordinates, std::vector<uint64_t>* words) const;
  void AccumulateBoxes(Sort* sort) const;
  double MarginSum(const Sort& sort, uint32_t least) const;
  double Volume(const double* box) const;
  double Intersection(const double* a, const double* b) const;
  double SharedVolume(const double* left, const double* right) const;
  double SharedEntries(const double* left, const double* right) const;
  double Overlap(const double* left, const double* right) const;
  void Keep(const Sort& sort, uint32_t left_count);
  void ArrangeRange(uint32_t begin, uint32_t end, uint32_t group);
  void DivideRange(uint32_t begin, uint32_t middle, uint32_t end, uint32_t but);
  const double* Prefix(const Sort& sort, uint32_t count) const {
    return &sort.prefix[uint64_t{count - 1} * 2 * dims_];
  }
  const double* Suffix(const Sort& sort, uint32_t first) const {
    return &sort.suffix[uint64_t{first} * 2 * dims_];
  }

  uint32_t dims_ = 0;
  uint32_t count_ = 0;
  double extent_[kDimsMax];          // Of all boxes, scaled; 0 in a dimension that is flat.
  double length_[kDimsMax];          // A box's own, on average.
  std::vector<double> low_, high_;   // dims x count, scaled.
  Sort by_low_, by_high_;            // Of the dimension at hand.
  Sort axis_[2];                     // Of the best axis so far, by lower and by upper corners; the
                                     // second has no words if it equals the first.
  std::vector<uint32_t> low_orders_;  // dims x count: entries by their lower corners.
  std::vector<uint8_t> upper_;        // Of an entry: whether it belongs to the later half of a range.
  std::vector<uint64_t> spare_;
  std::vector<uint32_t> order_;
  double left_[2 * kDimsMax], right_[2 * kDimsMax];  // Boxes of the last split.
};

}  // namespace xtree
