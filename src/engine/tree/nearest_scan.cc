#include "tree/nearest_scan.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace xtree {

namespace {
// Blocks lie at multiples of 8 KiB from where a window was mapped, and that is aligned to a page only.
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kAddressMask = ((uint64_t{1} << 47) - 1) & ~(kPageBytes - 1);
// A group or slot number is shifted past the kind and fits below that alignment.
static_assert(kGroupsMax * kGroupSizeMax * 2 <= kPageBytes && kBlockBytes % kPageBytes == 0);
constexpr uint32_t kAnyLevel = UINT32_MAX;  // The root's is not known beforehand.
constexpr uint32_t kAllLanes = (1u << kGroupSizeMax) - 1;

// All NaNs are made one, whose bits are above infinity's.
inline uint64_t OrderOf(double distance) {
  return std::bit_cast<uint64_t>(
      std::isnan(distance) ? std::numeric_limits<double>::quiet_NaN() : distance);
}
inline uint32_t LowestBit(uint64_t bits) { return static_cast<uint32_t>(std::countr_zero(bits)); }
inline uint32_t NumberIn(uint64_t what) { return static_cast<uint32_t>(what & (kPageBytes - 1)) >> 1; }

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
  returned_ = 0;
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
  Result<NodeRef> node = Find(root, kAnyLevel);
  const Status status = node.ok() ? OpenNode(*node) : node.status();
  if (!status.ok() && status.code() != Code::kNotFound) {
    End();
    return status;
  }
  return Status::Ok();
}

void NearestScan::End() {
  heap_.clear();
  near_.clear();
  near_first_ = 0;
  lists_.clear();
  free_list_ = kNoList;
  pin_.Release();
  if (window_pinned_) store_->windows()->Unpin();
  window_pinned_ = false;
}

void NearestScan::Push(Item item) {
  size_t at = heap_.size();
  heap_.push_back(item);
  for (; at > 0 && heap_[(at - 1) / 2].order > item.order; at = (at - 1) / 2) {
    heap_[at] = heap_[(at - 1) / 2];
  }
  heap_[at] = item;
}

void NearestScan::ReplaceFirst(Item item) {
  const size_t size = heap_.size();
  size_t at = 0;
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= size) break;
    if (child + 1 < size) child += heap_[child + 1].order < heap_[child].order;
    if (heap_[child].order >= item.order) break;
    heap_[at] = heap_[child];
    at = child;
  }
  heap_[at] = item;
}

void NearestScan::RemoveFirst() {
  const Item last = heap_.back();
  heap_.pop_back();
  if (!heap_.empty()) ReplaceFirst(last);
}

NearestScan::List* NearestScan::NewList(const BlockHeader* block, uint32_t group, uint64_t rest,
                                        uint32_t* number) {
  if (free_list_ != kNoList) {
    *number = free_list_;
    free_list_ = lists_[*number].next;
  } else {
    *number = static_cast<uint32_t>(lists_.size());
    lists_.emplace_back();
  }
  List* list = &lists_[*number];
  list->block = block;
  list->group = group;
  list->rest = rest;
  return list;
}

uint64_t NearestScan::Choose(List* list) {
  // No distance is negative or a NaN, so that they are in the order of their bits.
  uint64_t least = UINT64_MAX;
  for (uint64_t rest = list->rest; rest != 0; rest &= rest - 1) {
    const uint32_t i = LowestBit(rest);
    least = std::min(least, uint64_t{std::bit_cast<uint32_t>(list->distances[i])} << 32 | i);
  }
  list->next = static_cast<uint32_t>(least) & 63;
  return OrderOf(std::bit_cast<float>(static_cast<uint32_t>(least >> 32)));
}

void NearestScan::Advance(uint32_t number) {
  List& list = lists_[number];
  list.rest &= ~(uint64_t{1} << list.next);
  if (list.rest != 0) {
    ReplaceFirst(Item{Choose(&list), kListBit | number});
    return;
  }
  RemoveFirst();
  list.next = free_list_;
  free_list_ = number;
}

// REQUIRES: the first item is that list.
Status NearestScan::LookInto(uint32_t number) {
  const List& list = lists_[number];
  const BlockHeader* block = list.block;
  const uint32_t next = list.next;
  if (list.group == kGroupsMax) {
    Advance(number);
    if (block->level == 0) return OpenLeafGroup(block, next, kAllLanes);
    OpenChildren(block, next);
    return Status::Ok();
  }
  const NodeLayout& layout = NodeLayout::Inner(spec_);
  const NodeId child = layout.Child(block, (list.group << layout.group_shift) + next);
  // The item stays until the node has been found, so that a failed call can be repeated.
  XT_ASSIGN_OR_RETURN(const NodeRef node, Find(child, block->level - 1u));
  Advance(number);
  return OpenNode(node);
}

Result<NodeRef> NearestScan::Find(NodeId id, uint32_t level) {
  NodeRef node = store_->TryLookup(id, epoch_);
  if (XT_UNLIKELY(node.node == nullptr)) {
    XT_ASSIGN_OR_RETURN(node, store_->Lookup(id, epoch_));
  }
  if (XT_UNLIKELY(node.node->tree != tree_ || (node.node->level != level && level != kAnyLevel))) {
    return store_->Misplaced(node, tree_);
  }
  return node;
}

Status NearestScan::OpenNode(const NodeRef& node) {
  const NodeLayout& layout = NodeLayout::Of(spec_, *node.node);
  for (uint32_t i = 0; i < 1u << node.order; ++i) {
    const BlockHeader* block = node.block(i);
    const uint32_t count = NodeLayout::BlockCount(block);
    if (XT_UNLIKELY(count > layout.block_capacity)) {
      return Status::Corruption("block %u holds %u entries where %u fit", block->block_number,
                                count, layout.block_capacity);
    }
    const uint64_t groups = kernels_.match_groups(layout, block, count, query_);
    if (groups != 0) {
      uint32_t number;
      List* list = NewList(block, kGroupsMax, groups, &number);
      kernels_.group_distances(layout, block, count, point_, list->distances);
      Push(Item{Choose(list), kListBit | number});
    }
    if (count < layout.block_capacity) break;
  }
  return Status::Ok();
}

void NearestScan::OpenChildren(const BlockHeader* block, uint32_t group) {
  const NodeLayout& layout = NodeLayout::Inner(spec_);
  const uint32_t rest = NodeLayout::BlockCount(block) - (group << layout.group_shift);
  uint32_t lanes = (1u << std::min(rest, layout.group_size)) - 1;
  if (!everything_) lanes &= kernels_.match_entries(layout, block, group, query_);
  if (lanes == 0) return;
  uint32_t number;
  List* list = NewList(block, group, lanes, &number);
  kernels_.child_distances(layout, block, group, point_, list->distances);
  Push(Item{Choose(list), kListBit | number});
}

// Takes the entries of these lanes that are nearer than the furthest of near_, as far as that has room.
Status NearestScan::OpenLeafGroup(const BlockHeader* block, uint32_t group, uint32_t lanes) {
  // A page that was lost meanwhile is zeros now, and those another layout.
  const NodeLayout& layout = NodeLayout::Of(spec_, *block);
  const uint32_t first = group << layout.group_shift;
  const uint32_t count = NodeLayout::BlockCount(block);
  if (XT_UNLIKELY(group >= layout.groups || count <= first)) {
    return Status::Corruption("block %u has changed under a scan", block->block_number);
  }
  lanes &= (1u << std::min(count - first, layout.group_size)) - 1;
  if (!everything_) {
    query_.PrepareFor(layout);
    lanes &= kernels_.match_entries(layout, block, group, query_);
  }
  double distances[kGroupSizeMax];
  kernels_.leaf_distances(layout, block, group, point_, distances);
  uint32_t put_off = 0;
  if (near_full()) {
    // Without branches, which nobody could predict.
    const uint64_t bound = near_.back().order;
    uint32_t far = 0;
    for (uint32_t i = 0; i < layout.group_size; ++i) {
      far |= uint32_t{OrderOf(distances[i]) >= bound} << i;
    }
    put_off = lanes & far;
    lanes &= ~far;
  }
  for (; lanes != 0; lanes &= lanes - 1) {
    const uint32_t i = LowestBit(lanes);
    const Item found{OrderOf(distances[i]),
                     reinterpret_cast<uint64_t>(block) | (first + i) << 1 | kEntry};
    Item pushed_out;
    if (!Keep(found, &pushed_out)) continue;
    // Of this group: one lane more is put off. Of another: an item of its own.
    const uint64_t lane = (pushed_out.what - (reinterpret_cast<uint64_t>(block) | first << 1)) >> 1;
    if (lane < layout.group_size) {
      put_off |= 1u << lane;
    } else {
      Push(pushed_out);
    }
  }
  if (put_off != 0) {
    // All of these are at least as far as the last that was kept.
    Push(Item{near_.back().order, reinterpret_cast<uint64_t>(block) | group << 1 | kGroup |
                                      uint64_t{put_off} << kLanesShift});
  }
  return Status::Ok();
}

// Puts an entry into near_; true if another one had to go, or this one.
bool NearestScan::Keep(const Item& entry, Item* pushed_out) {
  const bool full = near_full();
  if (full) {
    *pushed_out = entry;
    if (entry.order >= near_.back().order) return true;
    *pushed_out = near_.back();
    near_.pop_back();
  }
  size_t at = near_.size();
  near_.push_back(Item{});
  for (; at > near_first_ && near_[at - 1].order > entry.order; --at) near_[at] = near_[at - 1];
  near_[at] = entry;
  return full;
}

Status NearestScan::Return(const Item& entry, uint64_t* record_id, double* distance, double* lo,
                           double* hi) const {
  const auto* block = reinterpret_cast<const BlockHeader*>(entry.what & kAddressMask);
  const uint32_t slot = NumberIn(entry.what);
  const NodeLayout& layout = NodeLayout::Of(spec_, *block);
  if (XT_UNLIKELY(slot >= layout.block_capacity)) {
    return Status::Corruption("block %u has changed under a scan", block->block_number);
  }
  *record_id = layout.Id(block, slot);
  if (distance != nullptr) *distance = std::bit_cast<double>(entry.order);
  if (lo != nullptr || hi != nullptr) {
    double key_lo[kDimsMax], key_hi[kDimsMax];
    layout.ReadKey(block, slot, key_lo, key_hi);
    if (lo != nullptr) std::copy(key_lo, key_lo + spec_.dims, lo);
    if (hi != nullptr) std::copy(key_hi, key_hi + spec_.dims, hi);
  }
  return Status::Ok();
}

Status NearestScan::Next(uint64_t* record_ids, double* distances, double* keys_lo, double* keys_hi,
                         uint32_t capacity, uint32_t* count) {
  const uint32_t dims = spec_.dims;
  *count = 0;
  uint32_t visits = 0;
  // Whoever asks for few at a time may go on asking.
  near_limit_ = std::clamp<uint64_t>(std::max<uint64_t>(capacity, returned_), 1, kNearMax);
  const auto give = [&](const Item& entry) {
    const size_t n = (*count)++;
    ++returned_;
    return Return(entry, record_ids + n, distances != nullptr ? distances + n : nullptr,
                  keys_lo != nullptr ? keys_lo + n * dims : nullptr,
                  keys_hi != nullptr ? keys_hi + n * dims : nullptr);
  };
  while (*count < capacity) {
    if (near_first_ < near_.size() &&
        (heap_.empty() || near_[near_first_].order <= heap_.front().order)) {
      const Item entry = near_[near_first_++];
      if (near_first_ == near_.size() || near_first_ == kNearMax) {
        near_.erase(near_.begin(), near_.begin() + static_cast<ptrdiff_t>(near_first_));
        near_first_ = 0;
      }
      XT_RETURN_IF_ERROR(give(entry));
      continue;
    }
    if (heap_.empty()) break;
    const Item item = heap_.front();
    if (item.what & kListBit) {
      const auto number = static_cast<uint32_t>(item.what);
      if (lists_[number].group != kGroupsMax) {
        if (visits++ == visits_max_) return Status::Ok();
        if (XT_UNLIKELY(store_->windows()->faults() != 0)) {
          return store_->windows()->FaultStatus(0);
        }
      }
      XT_RETURN_IF_ERROR(LookInto(number));
      continue;
    }
    RemoveFirst();
    if ((item.what & 1) == kEntry) {
      XT_RETURN_IF_ERROR(give(item));
    } else {
      const auto* block = reinterpret_cast<const BlockHeader*>(item.what & kAddressMask);
      XT_RETURN_IF_ERROR(OpenLeafGroup(block, NumberIn(item.what),
                                       static_cast<uint32_t>(item.what >> kLanesShift)));
    }
  }
  return Status::Ok();
}

}  // namespace xtree
