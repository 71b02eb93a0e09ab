#include "tree/split.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace xtree {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Added to each relative extent in a volume, so that flat boxes still compare by their other
// dimensions. 32 factors of it stay far above the smallest double.
constexpr double kFlatness = 1e-6;
constexpr uint32_t kIndexBits = 14;
static_assert(kSplitEntriesMax == 1u << kIndexBits);

// Orders like the double, of which the lowest mantissa bits give way to the entry's index: sorting
// single words is much faster, and 38 bits of mantissa are plenty within one node.
uint64_t SortWord(double coordinate, uint32_t index) {
  const uint64_t bits = std::bit_cast<uint64_t>(coordinate);
  const uint64_t mask = static_cast<uint64_t>(static_cast<int64_t>(bits) >> 63) | uint64_t{1} << 63;
  const uint64_t ordered = bits ^ mask;
  return (ordered & ~uint64_t{kSplitEntriesMax - 1}) | index;
}
uint32_t WordIndex(uint64_t word) {
  return static_cast<uint32_t>(word & (kSplitEntriesMax - 1));
}

struct Range {
  double least = kInfinity;
  double most = -kInfinity;
  bool empty() const { return least > most; }
};

// Range of the finite coordinates of one dimension.
Range FiniteRange(const double* boxes, uint32_t dims, uint32_t count, uint32_t dim) {
  Range range;
  for (uint32_t i = 0; i < count; ++i) {
    const double* box = boxes + uint64_t{i} * 2 * dims;
    for (const double x : {box[dim], box[dims + dim]}) {
      if (!std::isfinite(x)) continue;
      range.least = std::min(range.least, x);
      range.most = std::max(range.most, x);
    }
  }
  return range;
}

}  // namespace

void Splitter::Load(const double* boxes, uint32_t dims, uint32_t count) {
  XT_ASSERT(count >= 2 && count <= kSplitEntriesMax);
  XT_ASSERT(dims >= 1 && dims <= kDimsMax);
  dims_ = dims;
  count_ = count;
  low_.resize(uint64_t{dims} * count);
  high_.resize(uint64_t{dims} * count);
  // One scale for all dimensions: a margin adds up their lengths as the user's queries see them.
  // Quarters, because the distance of two huge coordinates would overflow.
  Range ranges[kDimsMax];
  double longest = 0;
  for (uint32_t d = 0; d < dims; ++d) {
    ranges[d] = FiniteRange(boxes, dims, count, d);
    if (ranges[d].empty()) ranges[d] = {0, 0};
    longest = std::max(longest, ranges[d].most / 4 - ranges[d].least / 4);
  }
  const double scale = longest > std::numeric_limits<double>::min() ? 1 / longest : 1.0;
  for (uint32_t d = 0; d < dims; ++d) {
    const double origin = ranges[d].least / 4;
    const double length = (ranges[d].most / 4 - origin) * scale;
    const double outside = length > 0 ? length / 2 : 0.5;
    double* low = &low_[uint64_t{d} * count];
    double* high = &high_[uint64_t{d} * count];
    double least = kInfinity;
    double most = -kInfinity;
    for (uint32_t i = 0; i < count; ++i) {
      const double* box = boxes + uint64_t{i} * 2 * dims;
      // Written so that NaN takes the unbounded value of its side.
      const double lo = (box[d] / 4 - origin) * scale;
      const double hi = (box[dims + d] / 4 - origin) * scale;
      low[i] = lo >= -outside ? std::min(lo, length + outside) : -outside;
      high[i] = hi <= length + outside ? std::max(hi, -outside) : length + outside;
      least = std::min(least, low[i]);
      most = std::max(most, high[i]);
    }
    extent_[d] = std::max(most - least, 0.0);
  }
}

void Splitter::SortAlong(uint32_t dim) {
  const double* low = &low_[uint64_t{dim} * count_];
  sorted_.resize(count_);
  for (uint32_t i = 0; i < count_; ++i) sorted_[i] = SortWord(low[i], i);
  std::sort(sorted_.begin(), sorted_.end());
}

// From the sort by lower corners to the one by upper ones. Boxes are mostly small beside their
// node, so the first is nearly the second and insertion sort mends it, unless that takes too long.
void Splitter::ResortAlongHigh(uint32_t dim) {
  const double* high = &high_[uint64_t{dim} * count_];
  for (uint64_t& word : sorted_) word = SortWord(high[WordIndex(word)], WordIndex(word));
  uint64_t moves_left = uint64_t{count_} * 16;
  for (uint32_t i = 1; i < count_; ++i) {
    const uint64_t word = sorted_[i];
    uint32_t at = i;
    for (; at > 0 && sorted_[at - 1] > word; --at) sorted_[at] = sorted_[at - 1];
    sorted_[at] = word;
    const uint64_t moves = i - at;
    if (moves > moves_left) {
      std::sort(sorted_.begin(), sorted_.end());
      return;
    }
    moves_left -= moves;
  }
}

// Whether the present sort, by lower corners, orders the upper ones too: the second sort of that
// dimension would then repeat the first. Always so for points.
bool Splitter::SortedAlongHigh(uint32_t dim) const {
  const double* high = &high_[uint64_t{dim} * count_];
  for (uint32_t i = 1; i < count_; ++i) {
    if (high[WordIndex(sorted_[i])] < high[WordIndex(sorted_[i - 1])]) return false;
  }
  return true;
}

void Splitter::AccumulateBoxes() {
  const uint32_t width = 2 * dims_;
  prefix_.resize(uint64_t{count_} * width);
  suffix_.resize(uint64_t{count_} * width);
  for (uint32_t d = 0; d < dims_; ++d) {
    const double* low = &low_[uint64_t{d} * count_];
    const double* high = &high_[uint64_t{d} * count_];
    double least = kInfinity;
    double most = -kInfinity;
    double* out = &prefix_[d];
    for (uint32_t i = 0; i < count_; ++i, out += width) {
      const uint32_t entry = WordIndex(sorted_[i]);
      least = std::min(least, low[entry]);
      most = std::max(most, high[entry]);
      out[0] = least;
      out[dims_] = most;
    }
    least = kInfinity;
    most = -kInfinity;
    out = &suffix_[uint64_t{count_ - 1} * width + d];
    for (uint32_t i = count_; i-- > 0; out -= width) {
      const uint32_t entry = WordIndex(sorted_[i]);
      least = std::min(least, low[entry]);
      most = std::max(most, high[entry]);
      out[0] = least;
      out[dims_] = most;
    }
  }
}

double Splitter::MarginSum(uint32_t least) const {
  double sum = 0;
  for (uint32_t k = least; k <= count_ - least; ++k) {
    const double* left = Prefix(k);
    const double* right = Suffix(k);
    for (uint32_t d = 0; d < dims_; ++d) {
      sum += (left[dims_ + d] - left[d]) + (right[dims_ + d] - right[d]);
    }
  }
  return sum;
}

// Relative to the box of all entries; dimensions in which that is flat do not count.
double Splitter::Volume(const double* box) const {
  double volume = 1;
  for (uint32_t d = 0; d < dims_; ++d) {
    if (extent_[d] > 0) volume *= (box[dims_ + d] - box[d]) / extent_[d] + kFlatness;
  }
  return volume;
}

double Splitter::Intersection(const double* a, const double* b) const {
  double volume = 1;
  for (uint32_t d = 0; d < dims_; ++d) {
    if (extent_[d] <= 0) continue;
    const double shared = std::min(a[dims_ + d], b[dims_ + d]) - std::max(a[d], b[d]);
    if (shared < 0) return 0;
    volume *= shared / extent_[d] + kFlatness;
  }
  return volume;
}

double Splitter::SharedVolume(uint32_t left_count) const {
  const double* left = Prefix(left_count);
  const double* right = Suffix(left_count);
  const double shared = Intersection(left, right);
  if (shared <= 0) return 0;
  return shared / (Volume(left) + Volume(right) - shared);
}

double Splitter::SharedEntries(uint32_t left_count) const {
  const double* left = Prefix(left_count);
  const double* right = Suffix(left_count);
  double lo[kDimsMax], hi[kDimsMax];
  for (uint32_t d = 0; d < dims_; ++d) {
    lo[d] = 2 * std::max(left[d], right[d]);
    hi[d] = 2 * std::min(left[dims_ + d], right[dims_ + d]);
    if (lo[d] > hi[d]) return 0;
  }
  uint32_t shared = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    bool inside = true;
    for (uint32_t d = 0; d < dims_ && inside; ++d) {
      const double centre = low_[uint64_t{d} * count_ + i] + high_[uint64_t{d} * count_ + i];
      inside = lo[d] <= centre && centre <= hi[d];
    }
    shared += inside;
  }
  return static_cast<double>(shared) / count_;
}

double Splitter::Overlap(uint32_t left_count) const {
  return std::max(SharedVolume(left_count), SharedEntries(left_count));
}

void Splitter::KeepOrder() {
  order_.resize(count_);
  for (uint32_t i = 0; i < count_; ++i) order_[i] = WordIndex(sorted_[i]);
}

namespace {
uint32_t LeastSide(uint32_t count, double min_fill) {
  const auto least = static_cast<uint32_t>(count * min_fill);
  return std::clamp<uint32_t>(least, 1, count / 2);
}
uint32_t Imbalance(uint32_t left_count, uint32_t count) {
  return left_count * 2 > count ? left_count * 2 - count : count - left_count * 2;
}
}  // namespace

SplitChoice Splitter::Topological(double min_fill) {
  const uint32_t least = LeastSide(count_, min_fill);
  uint32_t axis = 0;
  double best_margin = kInfinity;
  for (uint32_t d = 0; d < dims_; ++d) {
    SortAlong(d);
    AccumulateBoxes();
    double margin = MarginSum(least);
    low_sort_ = sorted_;
    const bool both = !SortedAlongHigh(d);
    if (both) {
      ResortAlongHigh(d);
      AccumulateBoxes();
      margin += MarginSum(least);
    } else {
      margin *= 2;
    }
    if (margin < best_margin) {
      best_margin = margin;
      axis = d;
      axis_sorts_[0].swap(low_sort_);
      axis_sorts_[1].clear();
      if (both) axis_sorts_[1] = sorted_;
    }
  }

  SplitChoice best;
  double best_shared = kInfinity;
  double best_volume = kInfinity;
  uint32_t best_imbalance = count_ + 1;
  for (const std::vector<uint64_t>& sort : axis_sorts_) {
    if (sort.empty()) break;
    sorted_ = sort;
    AccumulateBoxes();
    bool better_here = false;
    for (uint32_t k = least; k <= count_ - least; ++k) {
      const double shared = Intersection(Prefix(k), Suffix(k));
      if (shared > best_shared) continue;
      const double volume = Volume(Prefix(k)) + Volume(Suffix(k));
      const uint32_t imbalance = Imbalance(k, count_);
      if (shared == best_shared &&
          (volume > best_volume || (volume == best_volume && imbalance >= best_imbalance))) {
        continue;
      }
      best_shared = shared;
      best_volume = volume;
      best_imbalance = imbalance;
      best.left_count = k;
      better_here = true;
    }
    if (better_here) {
      best.overlap = Overlap(best.left_count);
      KeepOrder();
    }
  }
  best.axis = axis;
  XT_ASSERT(best.left_count >= least && best.left_count <= count_ - least);
  return best;
}

bool Splitter::OverlapMinimal(uint32_t history, double min_fill, double overlap_max,
                              SplitChoice* choice) {
  const uint32_t least = LeastSide(count_, min_fill);
  SplitChoice best;
  best.overlap = kInfinity;
  for (uint32_t d = 0; d < dims_; ++d) {
    if (history != 0 && !(history >> d & 1)) continue;
    SortAlong(d);
    AccumulateBoxes();
    // The cut of this dimension with the least volume in common, the most balanced of equal ones.
    double least_volume = kInfinity;
    uint32_t cut = 0;
    for (uint32_t k = least; k <= count_ - least; ++k) {
      const double volume = SharedVolume(k);
      if (volume < least_volume ||
          (volume == least_volume && Imbalance(k, count_) < Imbalance(cut, count_))) {
        least_volume = volume;
        cut = k;
      }
    }
    const double overlap = Overlap(cut);
    if (overlap > overlap_max || overlap > best.overlap ||
        (overlap == best.overlap && Imbalance(cut, count_) >= Imbalance(best.left_count, count_))) {
      continue;
    }
    best = SplitChoice{d, cut, overlap};
    KeepOrder();
  }
  if (best.left_count == 0) return false;
  *choice = best;
  return true;
}

}  // namespace xtree
