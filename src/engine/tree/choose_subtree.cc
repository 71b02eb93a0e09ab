#include "tree/choose_subtree.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace xtree {
namespace {

// A coordinate that another writer may be widening: the old value or the new one, either is right. The
// sanitizer must be told so; elsewhere it would only keep the compiler from using vectors.
float Coordinate(const float* word) {
  if constexpr (XT_TSAN != 0) return LoadRelaxed(word);
  return *word;
}

// --- Portable kernels.

uint64_t MatchGroups(const NodeLayout& layout, const BlockHeader* block, uint32_t groups,
                     const float* lo_max, const float* hi_min) {
  uint64_t mask = 0;
  for (uint32_t g = 0; g < groups; ++g) {
    bool match = true;
    for (uint32_t d = 0; d < layout.dims; ++d) {
      match &= Coordinate(layout.GroupLo(block, d) + g) <= lo_max[d] &&
               Coordinate(layout.GroupHi(block, d) + g) >= hi_min[d];
    }
    mask |= uint64_t{match} << g;
  }
  return mask;
}

uint32_t MatchEntries(const NodeLayout& layout, const float* coords, const float* lo_max,
                      const float* hi_min) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < layout.group_size; ++i) {
    bool match = true;
    const float* row = coords + i;
    for (uint32_t d = 0; d < layout.dims; ++d, row += 2 * layout.group_size) {
      match &= Coordinate(row) <= lo_max[d] && Coordinate(row + layout.group_size) >= hi_min[d];
    }
    mask |= uint32_t{match} << i;
  }
  return mask;
}

// Written so that the NaN of two equal infinities adds nothing.
float Growth(float lo, float hi, float key_lo, float key_hi) {
  const float below = lo - key_lo;
  const float above = key_hi - hi;
  return (below > 0 ? below : 0) + (above > 0 ? above : 0);
}

void GrowGroups(const NodeLayout& layout, const BlockHeader* block, uint32_t groups,
                const Box32& key, float* growth) {
  for (uint32_t g = 0; g < groups; ++g) {
    growth[g] = 0;
    for (uint32_t d = 0; d < layout.dims; ++d) {
      growth[g] += Growth(Coordinate(layout.GroupLo(block, d) + g),
                          Coordinate(layout.GroupHi(block, d) + g), key.lo[d], key.hi[d]);
    }
  }
}

void GrowEntries(const NodeLayout& layout, const float* coords, const Box32& key, float* growth) {
  const uint32_t size = layout.group_size;
  for (uint32_t i = 0; i < size; ++i) {
    growth[i] = 0;
    const float* row = coords + i;
    for (uint32_t d = 0; d < layout.dims; ++d, row += 2 * size) {
      growth[i] += Growth(Coordinate(row), Coordinate(row + size), key.lo[d], key.hi[d]);
    }
  }
}

constexpr ChooseKernels kPortable = {MatchGroups, MatchEntries, GrowGroups, GrowEntries};

// --- AVX2. kDims 0: any. Loads may run past the last group or entry of a row, but stay inside the
// block (node_layout.cc asserts it); what they bring is masked off.

template <uint32_t kDims>
__attribute__((target("avx2"))) uint64_t MatchGroupsAvx2(const NodeLayout& layout,
                                                         const BlockHeader* block, uint32_t groups,
                                                         const float* lo_max,
                                                         const float* hi_min) {
  const uint32_t dims = kDims != 0 ? kDims : layout.dims;
  uint64_t mask = 0;
  for (uint32_t g = 0; g < groups; g += 8) {
    __m256 match = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    for (uint32_t d = 0; d < dims; ++d) {
      const __m256 lo = _mm256_loadu_ps(layout.GroupLo(block, d) + g);
      const __m256 hi = _mm256_loadu_ps(layout.GroupHi(block, d) + g);
      match = _mm256_and_ps(match, _mm256_cmp_ps(lo, _mm256_set1_ps(lo_max[d]), _CMP_LE_OQ));
      match = _mm256_and_ps(match, _mm256_cmp_ps(hi, _mm256_set1_ps(hi_min[d]), _CMP_GE_OQ));
    }
    mask |= uint64_t{static_cast<uint32_t>(_mm256_movemask_ps(match))} << g;
  }
  return mask & ((uint64_t{1} << groups) - 1);
}

template <uint32_t kDims>
__attribute__((target("avx2"))) uint32_t MatchEntriesAvx2(const NodeLayout& layout,
                                                          const float* coords,
                                                          const float* lo_max,
                                                          const float* hi_min) {
  const uint32_t dims = kDims != 0 ? kDims : layout.dims;
  const uint32_t size = layout.group_size;
  uint32_t mask = 0;
  for (uint32_t i = 0; i < size; i += 8) {
    __m256 match = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    const float* row = coords + i;
    for (uint32_t d = 0; d < dims; ++d, row += 2 * size) {
      const __m256 lo = _mm256_loadu_ps(row);
      const __m256 hi = _mm256_loadu_ps(row + size);
      match = _mm256_and_ps(match, _mm256_cmp_ps(lo, _mm256_set1_ps(lo_max[d]), _CMP_LE_OQ));
      match = _mm256_and_ps(match, _mm256_cmp_ps(hi, _mm256_set1_ps(hi_min[d]), _CMP_GE_OQ));
    }
    mask |= static_cast<uint32_t>(_mm256_movemask_ps(match)) << i;
  }
  return mask & ((1u << size) - 1);
}

// max_ps returns its second operand when the first is NaN.
__attribute__((target("avx2"))) inline __m256 GrowthAvx2(const float* lo, const float* hi,
                                                         float key_lo, float key_hi) {
  const __m256 zero = _mm256_setzero_ps();
  const __m256 below = _mm256_sub_ps(_mm256_loadu_ps(lo), _mm256_set1_ps(key_lo));
  const __m256 above = _mm256_sub_ps(_mm256_set1_ps(key_hi), _mm256_loadu_ps(hi));
  return _mm256_add_ps(_mm256_max_ps(below, zero), _mm256_max_ps(above, zero));
}

template <uint32_t kDims>
__attribute__((target("avx2"))) void GrowGroupsAvx2(const NodeLayout& layout,
                                                    const BlockHeader* block, uint32_t groups,
                                                    const Box32& key, float* growth) {
  const uint32_t dims = kDims != 0 ? kDims : layout.dims;
  for (uint32_t g = 0; g < groups; g += 8) {
    __m256 sum = _mm256_setzero_ps();
    for (uint32_t d = 0; d < dims; ++d) {
      sum = _mm256_add_ps(sum, GrowthAvx2(layout.GroupLo(block, d) + g,
                                          layout.GroupHi(block, d) + g, key.lo[d], key.hi[d]));
    }
    _mm256_storeu_ps(growth + g, sum);
  }
}

template <uint32_t kDims>
__attribute__((target("avx2"))) void GrowEntriesAvx2(const NodeLayout& layout, const float* coords,
                                                     const Box32& key, float* growth) {
  const uint32_t dims = kDims != 0 ? kDims : layout.dims;
  const uint32_t size = layout.group_size;
  for (uint32_t i = 0; i < size; i += 8) {
    __m256 sum = _mm256_setzero_ps();
    const float* row = coords + i;
    for (uint32_t d = 0; d < dims; ++d, row += 2 * size) {
      sum = _mm256_add_ps(sum, GrowthAvx2(row, row + size, key.lo[d], key.hi[d]));
    }
    _mm256_storeu_ps(growth + i, sum);
  }
}

template <uint32_t kDims>
constexpr ChooseKernels kAvx2 = {MatchGroupsAvx2<kDims>, MatchEntriesAvx2<kDims>,
                                 GrowGroupsAvx2<kDims>, GrowEntriesAvx2<kDims>};

// --- The choice.

uint32_t ValidLanes(uint32_t count, uint32_t first) {
  const uint32_t lanes = count - first;
  return lanes >= 32 ? ~0u : (1u << lanes) - 1;
}

struct Size {
  double volume = kInfinity;
  double margin = kInfinity;
  bool operator<(const Size& other) const {
    return volume < other.volume || (volume == other.volume && margin < other.margin);
  }
};

Size EntrySize(const NodeLayout& layout, const float* row) {
  Size size{1, 0};
  for (uint32_t d = 0; d < layout.dims; ++d, row += 2 * layout.group_size) {
    const double extent = double{Coordinate(row + layout.group_size)} - double{Coordinate(row)};
    size.volume *= extent;
    size.margin += extent;
  }
  if (std::isnan(size.volume)) size.volume = 0;  // A flat box without bounds.
  return size;
}

// Has fetched what is read next of a node with these matching groups: their entries' boxes, and the names of
// which one will be wanted. In a large tree each would be a miss of the cache after the other.
void PrefetchGroups(const NodeLayout& layout, const BlockHeader* block, uint64_t group_mask) {
  constexpr uint32_t kGroupsAtOnce = 3;   // More rarely match; and the CPU has so many line buffers.
  constexpr uint32_t kBytesAtOnce = 256;  // All of a group's boxes in two dimensions.
  for (uint32_t i = 0; i < kGroupsAtOnce && group_mask != 0; ++i, group_mask &= group_mask - 1) {
    const auto g = static_cast<uint32_t>(std::countr_zero(group_mask));
    const std::byte* coords = layout.Coords(block, g);
    const uint32_t bytes = std::min(layout.group_coord_bytes, kBytesAtOnce);
    for (uint32_t b = 0; b < bytes; b += 64) __builtin_prefetch(coords + b);
    __builtin_prefetch(layout.GroupIds(block, g));
    __builtin_prefetch(layout.GroupIds(block, g) + layout.group_id_bytes - 1);
  }
}

// Calls visit(entry, row) for each entry with lo <= lo_max and hi >= hi_min.
template <class Visit>
void ForEachMatch(const NodeLayout& layout, const ChooseKernels& kernels, const BlockHeader* node,
                  const float* lo_max, const float* hi_min, Visit visit) {
  for (uint32_t i = 0; i < 1u << node->order; ++i) {
    const BlockHeader* block = NodeLayout::Block(node, i);
    const uint32_t count = block->count;
    if (count == 0) break;
    const uint32_t groups = (count + layout.group_size - 1) >> layout.group_shift;
    uint64_t group_mask = kernels.match_groups(layout, block, groups, lo_max, hi_min);
    PrefetchGroups(layout, block, group_mask);
    for (; group_mask != 0; group_mask &= group_mask - 1) {
      const auto g = static_cast<uint32_t>(std::countr_zero(group_mask));
      const uint32_t first = g << layout.group_shift;
      const auto* coords = reinterpret_cast<const float*>(layout.Coords(block, g));
      uint32_t lanes = kernels.match_entries(layout, coords, lo_max, hi_min);
      lanes &= ValidLanes(count, first);
      for (; lanes != 0; lanes &= lanes - 1) {
        const auto lane = static_cast<uint32_t>(std::countr_zero(lanes));
        visit(i * layout.block_capacity + first + lane, coords + lane);
      }
    }
  }
}

struct Candidate {
  float growth;
  uint32_t entry;
};
// Among so many children, at most, the one whose overlap grows least is sought.
constexpr uint32_t kCandidatesMax = 16;

// The `wanted` children whose margins grow least, in ascending order.
class LeastGrowing {
 public:
  LeastGrowing(const NodeLayout& layout, const ChooseKernels& kernels, const BlockHeader* node,
               const Box32& key)
      : layout_(layout), kernels_(kernels), node_(node), key_(key) {
    for (uint32_t i = 0; i < 1u << node->order; ++i) {
      const BlockHeader* block = NodeLayout::Block(node, i);
      const uint32_t groups = (block->count + layout.group_size - 1) >> layout.group_shift;
      if (groups == 0) break;
      kernels.grow_groups(layout, block, groups, key, &bounds_[i * layout.groups]);
      groups_ += groups;
    }
  }

  uint32_t Find(uint32_t wanted, Candidate* out) const {
    uint32_t found = 0;
    // The most promising group first, so that its entries rule out most others.
    const float* nearest = std::min_element(bounds_, bounds_ + groups_);
    const auto start = static_cast<uint32_t>(nearest - bounds_);
    Scan(start, wanted, out, &found);
    for (uint32_t g = 0; g < groups_; ++g) {
      if (g != start && (found < wanted || bounds_[g] < out[found - 1].growth)) {
        Scan(g, wanted, out, &found);
      }
    }
    return found;
  }

 private:
  void Scan(uint32_t group, uint32_t wanted, Candidate* out, uint32_t* found) const {
    const BlockHeader* block = NodeLayout::Block(node_, group / layout_.groups);
    const uint32_t first = group % layout_.groups << layout_.group_shift;
    float growth[kGroupSizeMax];
    const std::byte* coords = layout_.Coords(block, group % layout_.groups);
    kernels_.grow_entries(layout_, reinterpret_cast<const float*>(coords), key_, growth);
    const uint32_t lanes = std::min(layout_.group_size, block->count - first);
    for (uint32_t i = 0; i < lanes; ++i) {
      if (*found == wanted && !(growth[i] < out[*found - 1].growth)) continue;
      uint32_t at = *found < wanted ? (*found)++ : wanted - 1;
      for (; at > 0 && growth[i] < out[at - 1].growth; --at) out[at] = out[at - 1];
      out[at] = {growth[i], group / layout_.groups * layout_.block_capacity + first + i};
    }
  }

  const NodeLayout& layout_;
  const ChooseKernels& kernels_;
  const BlockHeader* node_;
  const Box32& key_;
  // All blocks but the last are full, so that groups are numbered throughout.
  uint32_t groups_ = 0;
  float bounds_[(kGroupsMax << kOrderMax) + 8];
};

// By how much the child's overlap with its siblings grows, by volume, if it takes in `key`.
double OverlapGrowth(const NodeLayout& layout, const ChooseKernels& kernels,
                     const BlockHeader* node, uint32_t entry, const Box32& key) {
  const Box32 before = layout.ChildBox(node, entry);
  Box32 after = before;
  after.Extend(layout.dims, key);
  double growth = 0;
  ForEachMatch(layout, kernels, node, after.hi, after.lo, [&](uint32_t other, const float* row) {
    if (other == entry) return;
    double with = 1;
    double without = 1;
    for (uint32_t d = 0; d < layout.dims; ++d, row += 2 * layout.group_size) {
      const double lo = Coordinate(row);
      const double hi = Coordinate(row + layout.group_size);
      with *= std::min<double>(hi, after.hi[d]) - std::max<double>(lo, after.lo[d]);
      without *= std::max(std::min<double>(hi, before.hi[d]) - std::max<double>(lo, before.lo[d]),
                          0.0);
    }
    const double more = with - without;
    if (more > 0) growth += more;  // Neither for the NaN of two unbounded boxes.
  });
  return growth;
}

ChildChoice ChooseGrowing(const NodeLayout& layout, const ChooseKernels& kernels,
                          const BlockHeader* node, const Box32& key) {
  const LeastGrowing least(layout, kernels, node, key);
  Candidate candidates[kCandidatesMax];
  const uint32_t one = least.Find(1, candidates);
  XT_ASSERT(one == 1);
  ChildChoice choice{candidates[0].entry, false};
  double best = OverlapGrowth(layout, kernels, node, choice.entry, key);
  if (best == 0) return choice;
  const uint32_t found = least.Find(kCandidatesMax, candidates);
  for (uint32_t i = 0; i < found && best > 0; ++i) {
    const double growth = OverlapGrowth(layout, kernels, node, candidates[i].entry, key);
    if (growth < best) {
      best = growth;
      choice.entry = candidates[i].entry;
    }
  }
  return choice;
}

}  // namespace

const ChooseKernels& ChooseKernels::Portable() { return kPortable; }

const ChooseKernels& ChooseKernels::For(uint32_t dims) {
  static const bool avx2 = XT_TSAN == 0 && __builtin_cpu_supports("avx2");
  if (!avx2) return kPortable;
  return dims == 2 ? kAvx2<2> : dims == 3 ? kAvx2<3> : kAvx2<0>;
}

ChildChoice ChooseSubtree(const NodeLayout& layout, const BlockHeader* node, const Box32& key,
                          const StoreInterface* store, uint32_t prefetch_bytes) {
  XT_ASSERT(!layout.leaf && node->count > 0);
  const ChooseKernels& kernels = ChooseKernels::For(layout.dims);
  const auto prefetch = [&](uint32_t entry) {
    if (store != nullptr) store->PrefetchNode(layout.Child(node, entry), prefetch_bytes);
  };
  ChildChoice choice;
  Size best;
  ForEachMatch(layout, kernels, node, key.lo, key.hi, [&](uint32_t entry, const float* row) {
    const Size size = EntrySize(layout, row);
    if (!choice.covers || size < best) {
      best = size;
      choice = ChildChoice{entry, true};
      prefetch(entry);
    }
  });
  if (choice.covers) return choice;
  choice = ChooseGrowing(layout, kernels, node, key);
  prefetch(choice.entry);
  return choice;
}

}  // namespace xtree
