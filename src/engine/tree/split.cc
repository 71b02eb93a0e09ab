#include "tree/split.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace xtree {
namespace {

// Added to each relative extent in a volume, so that flat boxes still compare by their other
// dimensions. 32 factors of it stay far above the smallest double.
constexpr double kFlatness = 1e-6;
// Boxes shorter than this share of their common extent, on average, come in nearly the same order by
// their lower and by their upper corners: one sort does for both.
constexpr double kShort = 1.0 / 32;
// How far unbounded coordinates are moved outside the finite ones, which are scaled to 0..1.
constexpr double kOutsideMost = 0.5;

// A coordinate as a fraction of the range that Load gives them, over the entry's index: words are what
// radix sort wants. What is closer than these can tell is compared afterwards.
constexpr uint32_t kFractionBits = 24;
uint64_t SortWord(double coordinate, uint32_t index) {
  static_assert(kOutsideMost == 0.5, "coordinates lie between -0.5 and 1.5");
  const double fraction = (coordinate + 0.5) * ((1u << (kFractionBits - 1)) - 1);
  return static_cast<uint64_t>(static_cast<uint32_t>(fraction)) << 32 | index;
}
uint32_t WordIndex(uint64_t word) { return static_cast<uint32_t>(word); }

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
    const double outside = length > 0 ? length * kOutsideMost : kOutsideMost;
    double* low = &low_[uint64_t{d} * count];
    double* high = &high_[uint64_t{d} * count];
    double least = kInfinity;
    double most = -kInfinity;
    double lengths = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const double* box = boxes + uint64_t{i} * 2 * dims;
      // Written so that NaN takes the unbounded value of its side.
      const double lo = (box[d] / 4 - origin) * scale;
      const double hi = (box[dims + d] / 4 - origin) * scale;
      low[i] = lo >= -outside ? std::min(lo, length + outside) : -outside;
      high[i] = hi <= length + outside ? std::max(hi, -outside) : length + outside;
      least = std::min(least, low[i]);
      most = std::max(most, high[i]);
      lengths += high[i] - low[i];
    }
    extent_[d] = std::max(most - least, 0.0);
    length_[d] = lengths / count;
  }
}

// By the upper halves of the words. Comparing sorts spend most of their time in branches that nobody
// can predict.
void Splitter::RadixSort(std::vector<uint64_t>* words) {
  constexpr uint32_t kDigits = kFractionBits / 8;
  constexpr uint32_t kValues = 1 << 8;
  uint32_t starts[kDigits][kValues] = {};
  for (const uint64_t word : *words) {
    for (uint32_t k = 0; k < kDigits; ++k) ++starts[k][word >> (32 + 8 * k) & (kValues - 1)];
  }
  spare_.resize(words->size());
  for (uint32_t k = 0; k < kDigits; ++k) {
    const uint32_t shift = 32 + 8 * k;
    uint32_t* const start = starts[k];
    // All alike in this digit.
    if (start[(*words)[0] >> shift & (kValues - 1)] == words->size()) continue;
    uint32_t sum = 0;
    for (uint32_t v = 0; v < kValues; ++v) {
      const uint32_t size = start[v];
      start[v] = sum;
      sum += size;
    }
    for (const uint64_t word : *words) spare_[start[word >> shift & (kValues - 1)]++] = word;
    words->swap(spare_);
  }
}

// By dimension `dim` of the corners, which are low_ or high_.
void Splitter::SortAlong(const std::vector<double>& corners, uint32_t dim, Sort* sort) {
  const double* coordinates = &corners[uint64_t{dim} * count_];
  sort->words.resize(count_);
  for (uint32_t i = 0; i < count_; ++i) sort->words[i] = SortWord(coordinates[i], i);
  RadixSort(&sort->words);
  SortTies(coordinates, &sort->words);
  AccumulateBoxes(sort);
}

// One box far from all others leaves these so few fractions that most are alike.
void Splitter::SortTies(const double* coordinates, std::vector<uint64_t>* words) const {
  const auto begin = words->begin();
  for (uint32_t first = 0, end; first < count_; first = end) {
    for (end = first + 1; end < count_ && (*words)[end] >> 32 == (*words)[first] >> 32; ++end) {
    }
    if (end - first == 1) continue;
    std::sort(begin + first, begin + end, [coordinates](uint64_t a, uint64_t b) {
      const double x = coordinates[WordIndex(a)];
      const double y = coordinates[WordIndex(b)];
      return x < y || (x == y && a < b);
    });
  }
}

void Splitter::AccumulateBoxes(Sort* sort) const {
  const uint32_t width = 2 * dims_;
  const uint64_t* words = sort->words.data();
  sort->prefix.resize(uint64_t{count_} * width);
  sort->suffix.resize(uint64_t{count_} * width);
  for (uint32_t d = 0; d < dims_; ++d) {
    const double* low = &low_[uint64_t{d} * count_];
    const double* high = &high_[uint64_t{d} * count_];
    double least = kInfinity;
    double most = -kInfinity;
    double* out = &sort->prefix[d];
    for (uint32_t i = 0; i < count_; ++i, out += width) {
      const uint32_t entry = WordIndex(words[i]);
      least = std::min(least, low[entry]);
      most = std::max(most, high[entry]);
      out[0] = least;
      out[dims_] = most;
    }
    least = kInfinity;
    most = -kInfinity;
    out = &sort->suffix[uint64_t{count_ - 1} * width + d];
    for (uint32_t i = count_; i-- > 0; out -= width) {
      const uint32_t entry = WordIndex(words[i]);
      least = std::min(least, low[entry]);
      most = std::max(most, high[entry]);
      out[0] = least;
      out[dims_] = most;
    }
  }
}

double Splitter::MarginSum(const Sort& sort, uint32_t least) const {
  double sum = 0;
  for (uint32_t k = least; k <= count_ - least; ++k) {
    const double* left = Prefix(sort, k);
    const double* right = Suffix(sort, k);
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

double Splitter::SharedVolume(const double* left, const double* right) const {
  const double shared = Intersection(left, right);
  if (shared <= 0) return 0;
  return shared / (Volume(left) + Volume(right) - shared);
}

double Splitter::SharedEntries(const double* left, const double* right) const {
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

double Splitter::Overlap(const double* left, const double* right) const {
  return std::max(SharedVolume(left, right), SharedEntries(left, right));
}

double Splitter::overlap() const { return Overlap(left_, right_); }

void Splitter::Keep(const Sort& sort, uint32_t left_count) {
  order_.resize(count_);
  for (uint32_t i = 0; i < count_; ++i) order_[i] = WordIndex(sort.words[i]);
  std::copy_n(Prefix(sort, left_count), 2 * dims_, left_);
  std::copy_n(Suffix(sort, left_count), 2 * dims_, right_);
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
  SplitChoice best;
  double best_margin = kInfinity;
  low_orders_.resize(uint64_t{dims_} * count_);
  for (uint32_t d = 0; d < dims_; ++d) {
    SortAlong(low_, d, &by_low_);
    std::transform(by_low_.words.begin(), by_low_.words.end(), &low_orders_[uint64_t{d} * count_],
                   WordIndex);
    double margin = MarginSum(by_low_, least);
    const bool both = length_[d] > extent_[d] * kShort;
    if (both) {
      SortAlong(high_, d, &by_high_);
      margin += MarginSum(by_high_, least);
    } else {
      margin *= 2;
    }
    if (margin < best_margin) {
      best_margin = margin;
      best.axis = d;
      std::swap(axis_[0], by_low_);
      if (both) std::swap(axis_[1], by_high_);
      if (!both) axis_[1].words.clear();
    }
  }

  const Sort* best_sort = nullptr;
  double best_shared = kInfinity;
  double best_volume = kInfinity;
  uint32_t best_imbalance = count_ + 1;
  for (const Sort& sort : axis_) {
    if (sort.words.empty()) break;
    for (uint32_t k = least; k <= count_ - least; ++k) {
      const double shared = Intersection(Prefix(sort, k), Suffix(sort, k));
      if (shared > best_shared) continue;
      const double volume = Volume(Prefix(sort, k)) + Volume(Suffix(sort, k));
      const uint32_t imbalance = Imbalance(k, count_);
      if (shared == best_shared &&
          (volume > best_volume || (volume == best_volume && imbalance >= best_imbalance))) {
        continue;
      }
      best_shared = shared;
      best_volume = volume;
      best_imbalance = imbalance;
      best.left_count = k;
      best_sort = &sort;
    }
  }
  XT_ASSERT(best_sort != nullptr);
  Keep(*best_sort, best.left_count);
  XT_ASSERT(best.left_count >= least && best.left_count <= count_ - least);
  return best;
}

bool Splitter::OverlapMinimal(uint32_t history, double min_fill, double overlap_max,
                              SplitChoice* choice) {
  const uint32_t least = LeastSide(count_, min_fill);
  SplitChoice best;
  double best_overlap = kInfinity;
  for (uint32_t d = 0; d < dims_; ++d) {
    if (history != 0 && !(history >> d & 1)) continue;
    SortAlong(low_, d, &by_low_);
    // The cut of this dimension with the least volume in common, the most balanced of equal ones.
    double least_volume = kInfinity;
    uint32_t cut = 0;
    for (uint32_t k = least; k <= count_ - least; ++k) {
      const double volume = SharedVolume(Prefix(by_low_, k), Suffix(by_low_, k));
      if (volume < least_volume ||
          (volume == least_volume && Imbalance(k, count_) < Imbalance(cut, count_))) {
        least_volume = volume;
        cut = k;
      }
    }
    const double overlap = Overlap(Prefix(by_low_, cut), Suffix(by_low_, cut));
    if (overlap > overlap_max || overlap > best_overlap ||
        (overlap == best_overlap &&
         Imbalance(cut, count_) >= Imbalance(best.left_count, count_))) {
      continue;
    }
    best = SplitChoice{d, cut};
    best_overlap = overlap;
    Keep(by_low_, cut);
  }
  if (best.left_count == 0) return false;
  *choice = best;
  return true;
}

// --- Groups. All dimensions' orders are divided along, so that none is sorted twice.

void Splitter::ArrangeSides(const SplitChoice& choice, uint32_t left_group,
                            uint32_t right_group) {
  XT_ASSERT(low_orders_.size() == uint64_t{dims_} * count_);
  upper_.assign(count_, 1);
  for (uint32_t i = 0; i < choice.left_count; ++i) upper_[order_[i]] = 0;
  DivideRange(0, choice.left_count, count_, dims_);
  ArrangeRange(0, choice.left_count, left_group);
  ArrangeRange(choice.left_count, count_, right_group);
}

void Splitter::ArrangeRange(uint32_t begin, uint32_t end, uint32_t group) {
  while (end - begin > group) {
    uint32_t widest = 0;
    double spread = -1;
    for (uint32_t d = 0; d < dims_; ++d) {
      const uint32_t* sorted = &low_orders_[uint64_t{d} * count_];
      const double* low = &low_[uint64_t{d} * count_];
      const double here = low[sorted[end - 1]] - low[sorted[begin]];
      if (here > spread) {
        spread = here;
        widest = d;
      }
    }
    const uint32_t middle = begin + (end - begin + group - 1) / group / 2 * group;
    const uint32_t* sorted = &low_orders_[uint64_t{widest} * count_];
    for (uint32_t i = begin; i < middle; ++i) upper_[sorted[i]] = 0;
    for (uint32_t i = middle; i < end; ++i) upper_[sorted[i]] = 1;
    DivideRange(begin, middle, end, widest);
    ArrangeRange(begin, middle, group);
    begin = middle;
  }
  std::copy(&low_orders_[begin], &low_orders_[begin] + (end - begin), &order_[begin]);
}

// Moves the entries of the upper half behind `middle`, in all orders `but` the one that was cut there.
void Splitter::DivideRange(uint32_t begin, uint32_t middle, uint32_t end, uint32_t but) {
  std::vector<uint64_t>& uppers = spare_;
  uppers.resize(count_);
  for (uint32_t d = 0; d < dims_; ++d) {
    if (d == but) continue;
    uint32_t* sorted = &low_orders_[uint64_t{d} * count_];
    uint32_t lower = begin;
    uint32_t upper = 0;
    for (uint32_t i = begin; i < end; ++i) {
      const uint32_t entry = sorted[i];
      // Stored on both sides and counted on one: there is no branch to predict.
      sorted[lower] = entry;
      uppers[upper] = entry;
      upper += upper_[entry];
      lower += 1u - upper_[entry];
    }
    XT_ASSERT(lower == middle);
    for (uint32_t i = 0; i < upper; ++i) sorted[middle + i] = static_cast<uint32_t>(uppers[i]);
  }
}

}  // namespace xtree
