#include "tree/nearest_scan.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace xtree {

namespace {
// Blocks lie at multiples of 8 KiB from where a window was mapped, and that is aligned to a page only.
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kAddressMask = ~(kPageBytes - 1);
// A group or slot number is shifted past the kind and fits below that alignment.
static_assert(kGroupsMax * kGroupSizeMax * 2 <= kPageBytes && kBlockBytes % kPageBytes == 0);
}  // namespace

Status NearestScan::Begin(EpochReader* reader, uint32_t tree, const double* point,
                          const Predicate& predicate) {
  End();
  const TreeShared& shared = store_->shared()->trees[tree];
  tree_ = tree;
  spec_ = shared.spec;
  query_.Prepare(shared.spec, predicate);
  point_.Prepare(shared.spec, point);
  everything_ = query_.unbounded();
  if (query_.empty) return Status::Ok();
  store_->windows()->Pin();
  window_pinned_ = true;
  pin_.Acquire(reader);
  Result<uint64_t> epoch = store_->ReadEpoch();
  if (!epoch.ok()) {
    End();
    return epoch.status();
  }
  epoch_ = *epoch;
  const NodeId root{shared.root.load(std::memory_order_acquire)};
  if (!root.valid()) return Status::Ok();
  // A root made since the epoch was read is not there at this epoch: the tree was empty.
  const Status status = ExpandNode(root.value | kAnyLevel);
  if (!status.ok() && status.code() != Code::kNotFound) {
    End();
    return status;
  }
  return Status::Ok();
}

void NearestScan::End() {
  heap_.clear();
  pin_.Release();
  if (window_pinned_) store_->windows()->Unpin();
  window_pinned_ = false;
}

void NearestScan::Push(double distance, uint64_t what) {
  // All NaNs are made one, whose bits are above infinity's.
  if (XT_UNLIKELY(std::isnan(distance))) distance = std::numeric_limits<double>::quiet_NaN();
  heap_.push_back(Item{std::bit_cast<uint64_t>(distance), what});
  std::push_heap(heap_.begin(), heap_.end(), Later());
}

Status NearestScan::ExpandNode(uint64_t what) {
  const NodeId id{what & ~NodeId::kLevelMask};
  const uint64_t level = what & NodeId::kLevelMask;
  NodeRef node = store_->TryLookup(id, epoch_);
  if (XT_UNLIKELY(node.node == nullptr)) {
    XT_ASSIGN_OR_RETURN(node, store_->Lookup(id, epoch_));
  }
  if (XT_UNLIKELY(node.node->tree != tree_ ||
                  (uint64_t{node.node->level} << NodeId::kLevelShift != level &&
                   level != kAnyLevel))) {
    return store_->Misplaced(node, tree_);
  }
  const NodeLayout& layout = NodeLayout::Of(spec_, *node.node);
  for (uint32_t i = 0; i < 1u << node.order; ++i) {
    const BlockHeader* block = node.block(i);
    const uint32_t count = NodeLayout::BlockCount(block);
    if (XT_UNLIKELY(count > layout.block_capacity)) {
      return Status::Corruption("block %u holds %u entries where %u fit", block->block_number,
                                count, layout.block_capacity);
    }
    float distances[64];
    kernels_.group_distances(layout, block, count, point_, distances);
    uint64_t groups = kernels_.match_groups(layout, block, count, query_);
    for (; groups != 0; groups &= groups - 1) {
      const auto g = static_cast<uint32_t>(std::countr_zero(groups));
      Push(distances[g], reinterpret_cast<uint64_t>(block) | g << 1 | kGroup);
    }
    if (count < layout.block_capacity) break;
  }
  return Status::Ok();
}

void NearestScan::ExpandGroup(const BlockHeader* block, uint32_t group, const NodeLayout& layout) {
  if (layout.leaf) query_.PrepareFor(layout);
  const uint32_t first = group << layout.group_shift;
  const uint32_t rest = NodeLayout::BlockCount(block) - first;
  uint32_t mask = rest >= layout.group_size ? (1u << layout.group_size) - 1 : (1u << rest) - 1;
  if (!everything_) mask &= kernels_.match_entries(layout, block, group, query_);
  if (layout.leaf) {
    double distances[kGroupSizeMax];
    kernels_.leaf_distances(layout, block, group, point_, distances);
    for (; mask != 0; mask &= mask - 1) {
      const auto i = static_cast<uint32_t>(std::countr_zero(mask));
      Push(distances[i], reinterpret_cast<uint64_t>(block) | (first + i) << 1 | kEntry);
    }
    return;
  }
  const uint64_t level = uint64_t{block->level - 1u} << NodeId::kLevelShift;
  float distances[kGroupSizeMax];
  kernels_.child_distances(layout, block, group, point_, distances);
  for (; mask != 0; mask &= mask - 1) {
    const auto i = static_cast<uint32_t>(std::countr_zero(mask));
    const uint64_t id = layout.Id(block, first + i) & ~(NodeId::kLevelMask | kNodeBit);
    Push(distances[i], id | level | kNodeBit);
  }
}

Status NearestScan::Next(uint64_t* record_ids, double* distances, double* keys_lo, double* keys_hi,
                         uint32_t capacity, uint32_t* count) {
  const uint32_t dims = spec_.dims;
  *count = 0;
  uint32_t visits = 0;
  while (*count < capacity && !heap_.empty()) {
    const Item item = heap_.front();
    if (item.what & kNodeBit) {
      if (visits++ == visits_max_) return Status::Ok();
      if (XT_UNLIKELY(store_->windows()->faults() != 0)) return store_->windows()->FaultStatus(0);
      // The item stays until its node has been found, so that a failed call can be repeated.
      const uint64_t node = item.what & ~kNodeBit;
      std::pop_heap(heap_.begin(), heap_.end(), Later());
      heap_.pop_back();
      const Status status = ExpandNode(node);
      if (XT_UNLIKELY(!status.ok())) {
        Push(std::bit_cast<double>(item.order), item.what);
        return status;
      }
      continue;
    }
    std::pop_heap(heap_.begin(), heap_.end(), Later());
    heap_.pop_back();
    const auto* block = reinterpret_cast<const BlockHeader*>(item.what & kAddressMask);
    const auto number = static_cast<uint32_t>(item.what & ~kAddressMask) >> 1;
    // A page that was lost meanwhile is zeros now, and those another layout.
    const NodeLayout& layout = NodeLayout::Of(spec_, *block);
    const bool is_group = (item.what & 1) == kGroup;
    if (XT_UNLIKELY(number >= (is_group ? layout.groups : layout.block_capacity))) {
      return Status::Corruption("block %u has changed under a scan", block->block_number);
    }
    if (is_group) {
      ExpandGroup(block, number, layout);
      continue;
    }
    record_ids[*count] = layout.Id(block, number);
    if (distances != nullptr) distances[*count] = std::bit_cast<double>(item.order);
    if (keys_lo != nullptr || keys_hi != nullptr) {
      double lo[kDimsMax], hi[kDimsMax];
      layout.ReadKey(block, number, lo, hi);
      if (keys_lo != nullptr) std::copy(lo, lo + dims, keys_lo + size_t{*count} * dims);
      if (keys_hi != nullptr) std::copy(hi, hi + dims, keys_hi + size_t{*count} * dims);
    }
    ++*count;
  }
  return Status::Ok();
}

}  // namespace xtree
