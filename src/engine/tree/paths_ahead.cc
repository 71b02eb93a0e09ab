#include "tree/paths_ahead.h"

#include <bit>
#include <cstring>

namespace xtree {

bool PathsAhead::Path::Leads(uint32_t i, const NodeLayout& inner, const NodeRef& ref,
                             ChildChoice* child) const {
  if (i >= depth || nodes[i] != ref.id || entries[i] >= inner.Count(ref.node) ||
      inner.Child(ref.node, entries[i]) != nodes[i + 1]) {
    return false;
  }
  child->entry = entries[i];
  child->covers = inner.ChildBox(ref.node, entries[i]).Contains(inner.dims, box);
  return true;
}

void PathsAhead::Begin(const Key& key, uint64_t record_id) {
  if (!tree_.root().valid()) return;
  const uint32_t dims = tree_.spec().dims;
  Path& path = paths_[oldest_];
  record_ids_[oldest_] = record_id;
  const uint32_t bit = 1u << oldest_;
  oldest_ = (oldest_ + 1) % kPathsMax;
  CopyCoords(path.key.lo, key.lo, dims);
  CopyCoords(path.key.hi, key.hi, dims);
  path.box = Box32::Around(dims, key.lo, key.hi);
  path.depth = 0;
  path.nodes[0] = tree_.root();
  path.fetched = true;  // All paths begin here.
  wanted_ |= bit;
  walking_ |= bit;
}

void PathsAhead::Walk() {
  while (walking_ != 0) {
    for (uint32_t walking = walking_; walking != 0; walking &= walking - 1) {
      const auto i = static_cast<uint32_t>(std::countr_zero(walking));
      if (!Walk(&paths_[i])) walking_ &= ~(1u << i);
    }
  }
}

bool PathsAhead::Walk(Path* path) const {
  const NodeId id = path->nodes[path->depth];
  if (!path->fetched) {
    path->fetched = true;
    tree_.PrefetchHead(id, path->level - 1u);
    return true;
  }
  const NodeRef ref = tree_.FindKnown(id);
  if (ref.node == nullptr) return false;
  const uint32_t level = ref.node->level;
  if (path->depth != 0 && level + 1 != path->level) return false;
  if (level == 0) {
    const NodeLayout& layout = tree_.layout(ref);
    const uint32_t count = layout.Count(ref.node);
    if (count >= layout.Capacity(ref.order)) return false;
    PrefetchAppend(layout, ref.node);
    const BlockHeader* block = NodeLayout::Block(ref.node, count / layout.block_capacity);
    const uint32_t group = count % layout.block_capacity >> layout.group_shift;
    for (uint32_t d = 0; d < layout.dims && d < 4; ++d) {
      __builtin_prefetch(layout.GroupLo(block, d) + group, 1);
      __builtin_prefetch(layout.GroupHi(block, d) + group, 1);
    }
    return false;
  }
  if (path->depth == kTreeLevelsMax || ref.node->count == 0) return false;
  path->level = static_cast<uint8_t>(level);
  const NodeLayout& inner = tree_.inner_layout();
  const ChildChoice child = ChooseSubtree(inner, ref.node, path->box);
  path->entries[path->depth] = static_cast<uint16_t>(child.entry);
  const NodeId next = inner.Child(ref.node, child.entry);
  path->nodes[++path->depth] = next;
  tree_.PrefetchEntry(next);
  path->fetched = false;
  return true;
}

const PathsAhead::Path* PathsAhead::Take(const Key& key, uint64_t record_id) {
  const uint32_t bytes = tree_.spec().dims * sizeof(double);
  for (uint32_t wanted = wanted_; wanted != 0; wanted &= wanted - 1) {
    const auto i = static_cast<uint32_t>(std::countr_zero(wanted));
    const Path& path = paths_[i];
    if (record_ids_[i] != record_id || std::memcmp(path.key.lo, key.lo, bytes) != 0 ||
        std::memcmp(path.key.hi, key.hi, bytes) != 0) {
      continue;
    }
    wanted_ &= ~(1u << i);
    walking_ &= ~(1u << i);
    return &path;
  }
  return nullptr;
}

}  // namespace xtree
