#include "tree/leaf_plan.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "tree/decimal.h"
#include "tree/parallel.h"

namespace xtree {

uint32_t PackedEntries(const NodeLayout& layout, uint32_t fill_percent) {
  const uint32_t capacity = layout.base_capacity();
  const uint32_t wanted = capacity * std::clamp(fill_percent, 10u, 100u) / 100;
  const uint32_t rounded =
      (wanted + layout.group_size / 2) / layout.group_size * layout.group_size;
  return std::clamp(rounded, std::min(2 * layout.group_size, capacity), capacity);
}

namespace {

// Calls visit(i, lo, hi) for the entries [begin, end), while it returns true.
template <class Visit>
void ForEachKey(uint64_t begin, uint64_t end, const LeafPlan::RunFrom& run_from, Visit&& visit) {
  for (uint64_t i = begin; i < end;) {
    LeafPlan::Run run = run_from(i);
    XT_ASSERT(run.end > i);
    for (const uint64_t run_end = std::min(end, run.end); i < run_end; ++i, run.lo += run.stride, run.hi += run.stride) {
      if (!visit(i, run.lo, run.hi)) return;
    }
  }
}

// The largest scale that all but `odd_max` of the keys are small enough for; -1 if there is none.
int CommonScale(uint64_t entries, uint32_t dims, uint32_t corners, const LeafPlan::RunFrom& run_from,
                uint64_t odd_max, uint32_t threads) {
  std::atomic<uint64_t> keys[kDecimalScaleMax + 2] = {};  // By their largest scale + 1.
  RunThreads(threads, [&](uint32_t t) {
    uint64_t here[kDecimalScaleMax + 2] = {};
    // Most keys have the scale of the one before.
    int last = kDecimalScaleMax;
    ForEachKey(entries * t / threads, entries * (t + 1) / threads, run_from,
               [&](uint64_t, const double* lo, const double* hi) {
      double magnitude = 0;
      // A NaN is passed over here, and is not decimal in any scale.
      for (uint32_t d = 0; d < dims; ++d) magnitude = std::max(magnitude, std::fabs(lo[d]));
      for (uint32_t d = 0; d < dims && corners == 2; ++d) magnitude = std::max(magnitude, std::fabs(hi[d]));
      if (!IsDecimalScaleFor(magnitude, last)) last = DecimalScaleFor(magnitude);
      ++here[last + 1];
      return true;
    });
    for (int s = 0; s < kDecimalScaleMax + 2; ++s) keys[s] += here[s];
  });
  uint64_t too_large = 0;
  int scale = -1;
  while (scale < kDecimalScaleMax) {
    too_large += keys[scale + 1];
    if (too_large > odd_max) break;
    ++scale;
  }
  return scale;
}

}  // namespace

LeafPlan::LeafPlan(const KeySpec& spec, uint32_t fill_percent, uint64_t entries,
                   const RunFrom& run_from, uint32_t threads)
    : exact_(NodeLayout::ExactLeaf(spec)), layout_(Survey(spec, entries, run_from, threads)),
      shares_(entries, PackedEntries(layout_, fill_percent), layout_.group_size) {}

const NodeLayout& LeafPlan::Survey(const KeySpec& spec, uint64_t entries, const RunFrom& run_from,
                                   uint32_t threads) {
  if (!NodeLayout::HasDecimal(spec)) return exact_;
  const uint32_t dims = spec.dims, corners = exact_.corners;
  const uint64_t odd_max = (entries + kKeysPerOdd - 1) / kKeysPerOdd;
  const int scale = CommonScale(entries, dims, corners, run_from, odd_max, threads);
  if (scale < 0) return exact_;
  const NodeLayout& decimal = NodeLayout::DecimalLeaf(spec, scale);
  odd_.resize(entries);
  std::atomic<uint64_t> odd_keys{0};
  RunThreads(threads, [&](uint32_t t) {
    uint64_t odd = 0;
    ForEachKey(entries * t / threads, entries * (t + 1) / threads, run_from,
               [&](uint64_t i, const double* lo, const double* hi) {
      odd_[i] = !decimal.Takes(lo, hi);
      odd += odd_[i];
      return odd <= odd_max;
    });
    odd_keys += odd;
  });
  odd_keys_ = odd_keys;
  if (odd_keys_ <= odd_max) return decimal;
  odd_keys_ = 0;
  std::vector<uint8_t>().swap(odd_);
  return exact_;
}

std::vector<LeafPlan::Leaf> LeafPlan::Leaves(const std::vector<uint32_t>& order) const {
  std::vector<Leaf> leaves;
  leaves.reserve(leaves_max());
  for (uint64_t n = 0; n < shares_.nodes; ++n) {
    const uint64_t begin = shares_.Begin(n);
    const auto count = static_cast<uint32_t>(shares_.Begin(n + 1) - begin);
    bool odd = false;
    for (uint64_t e = begin; odd_keys_ != 0 && e < begin + count; ++e) odd |= odd_[order[e]] != 0;
    if (!odd) {
      leaves.push_back(Leaf{begin, count, &layout_});
      continue;
    }
    // Halves in whole groups: a full decimal leaf fits in two exact ones.
    const uint32_t half = (count / 2 + exact_.group_size - 1) / exact_.group_size * exact_.group_size;
    if (count <= exact_.base_capacity()) {
      leaves.push_back(Leaf{begin, count, &exact_});
    } else {
      leaves.push_back(Leaf{begin, half, &exact_});
      leaves.push_back(Leaf{begin + half, count - half, &exact_});
    }
  }
  return leaves;
}

}  // namespace xtree
