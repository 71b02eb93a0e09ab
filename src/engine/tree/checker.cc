#include "tree/checker.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "tree/node_layout.h"

namespace xtree {

namespace {

constexpr size_t kProblemsMax = 100;

class Checker {
 public:
  Checker(StoreInterface* store, uint32_t tree, uint64_t epoch, TreeReport* report)
      : store_(store), tree_(tree), epoch_(epoch), shared_(store->shared()->trees[tree]),
        dims_(shared_.spec.dims), report_(report) {}

  Status Walk(NodeId root);
  void CompareCounts();
  void CheckRecordIds();

 private:
  // A node to visit, and what its parent says about it (level -1: the root has no parent).
  struct Visit {
    NodeId id;
    int level;
    Box32 box;
  };

  void Problem(const char* format, ...) XT_PRINTF(2, 3);
  Status CheckNode(const Visit& visit);
  bool CheckHeaders(const NodeRef& node, const NodeLayout& layout);
  void CheckEntries(const NodeRef& node, const NodeLayout& layout, Box32* bounds);

  StoreInterface* const store_;
  const uint32_t tree_;
  const uint64_t epoch_;
  const TreeShared& shared_;
  const uint32_t dims_;
  TreeReport* const report_;
  std::vector<Visit> stack_;
  std::vector<uint64_t> children_;     // NodeIds that parents name.
  std::vector<uint64_t> record_ids_;
};

void Checker::Problem(const char* format, ...) {
  if (report_->problems.size() >= kProblemsMax) return;
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  report_->problems.push_back(text);
}

Status Checker::Walk(NodeId root) {
  stack_.push_back(Visit{root, -1, {}});
  while (!stack_.empty()) {
    const Visit visit = stack_.back();
    stack_.pop_back();
    XT_RETURN_IF_ERROR(CheckNode(visit));
  }
  // A child with two parents would also make an endless loop of a cycle, so levels must have fallen
  // on every step (CheckNode) and here each child must be named once.
  std::sort(children_.begin(), children_.end());
  for (size_t i = 1; i < children_.size(); ++i) {
    if (children_[i] == children_[i - 1]) {
      Problem("node %" PRIx64 " has two parents", children_[i]);
    }
  }
  return Status::Ok();
}

Status Checker::CheckNode(const Visit& visit) {
  Result<NodeRef> found = store_->Lookup(visit.id, epoch_);
  if (!found.ok()) {
    if (found.status().code() != Code::kCorruption && found.status().code() != Code::kNotFound) {
      return found.status();
    }
    Problem("%s", found.status().message());
    return Status::Ok();
  }
  const NodeRef node = *found;
  const int level = node.node->level;
  const uint32_t block = node.node->block_number;
  if (node.node->node_id != visit.id.value) {
    Problem("block %u holds node %" PRIx64 " where node %" PRIx64 " belongs", block,
            node.node->node_id, visit.id.value);
  }
  if (level >= static_cast<int>(kTreeLevelsMax) || (visit.level >= 0 && level != visit.level)) {
    Problem("node in block %u is on level %d, but its parent is on level %d", block, level,
            visit.level + 1);
    return Status::Ok();  // Going on might never end.
  }
  if (visit.level < 0) report_->height = static_cast<uint32_t>(level) + 1;
  const NodeLayout& layout = NodeLayout::For(shared_.spec, level == 0);
  if (!CheckHeaders(node, layout)) return Status::Ok();

  Box32 bounds;
  bounds.Clear(dims_);
  CheckEntries(node, layout, &bounds);
  if (visit.level >= 0 && !visit.box.Contains(dims_, bounds)) {
    Problem("node in block %u on level %d reaches beyond its box in its parent", block, level);
  }
  return Status::Ok();
}

// All blocks of the extent agree with its first, and fill in order. False if the entries cannot be
// read.
bool Checker::CheckHeaders(const NodeRef& node, const NodeLayout& layout) {
  const BlockHeader& first = *node.node;
  const uint32_t blocks = 1u << node.order;
  TreeLevelStats& stats = report_->levels[first.level];
  ++stats.nodes;
  stats.supernodes += first.level > 0 && node.order > layout.base_order;
  stats.blocks += blocks;
  stats.capacity += layout.Capacity(node.order);
  if (first.order != node.order || node.order < layout.base_order ||
      (first.level == 0 && node.order != layout.base_order)) {
    Problem("node in block %u has extent order %u, its table entry says %u, base is %u",
            first.block_number, first.order, node.order, layout.base_order);
    return false;
  }
  const uint32_t window = first.block_number / kWindowBlocks;
  if (window >= kWindowsMax ||
      store_->windows()->BlockAddress(first.block_number) !=
          reinterpret_cast<const std::byte*>(&first)) {
    Problem("node %" PRIx64 " says that it is in block %u, where it is not", first.node_id,
            first.block_number);
  }
  bool readable = true;
  uint32_t entries = 0;
  for (uint32_t i = 0; i < blocks; ++i) {
    const BlockHeader& b = *node.block(i);
    const uint32_t count = NodeLayout::BlockCount(&b);
    const BlockKind kind = first.level == 0 ? BlockKind::kLeaf : BlockKind::kInner;
    if (b.kind != kind || b.level != first.level || b.order != first.order ||
        b.extent_index != i || b.node_id != first.node_id || b.tree != tree_ ||
        b.birth_epoch != first.birth_epoch || b.split_dims != first.split_dims ||
        b.block_number != first.block_number + i) {
      Problem("block %u has a header that does not fit block %u of node %" PRIx64 " on level %u",
              first.block_number + i, i, first.node_id, first.level);
    }
    if (count > layout.block_capacity || (count > 0 && entries < i * layout.block_capacity)) {
      Problem("block %u holds %u entries, of %u, after %u in the blocks before it",
              first.block_number + i, count, layout.block_capacity, entries);
      readable = readable && count <= layout.block_capacity;
    }
    entries += count;
  }
  if (first.birth_epoch > epoch_) {
    Problem("node in block %u was born in epoch %" PRIu64 ", after %" PRIu64, first.block_number,
            first.birth_epoch, epoch_);
  }
  if (entries == 0) Problem("node in block %u is empty", first.block_number);
  return readable;
}

// Reads the entries by the format's own words (node_layout.h), not through the code that wrote them.
void Checker::CheckEntries(const NodeRef& node, const NodeLayout& layout, Box32* bounds) {
  const uint32_t g = layout.group_size;
  double lo[kDimsMax], hi[kDimsMax];
  for (uint32_t i = 0; i < 1u << node.order; ++i) {
    const BlockHeader* block = node.block(i);
    const auto* bytes = reinterpret_cast<const std::byte*>(block);
    const auto* boxes = reinterpret_cast<const float*>(bytes + sizeof(BlockHeader));
    const uint32_t count = NodeLayout::BlockCount(block);
    for (uint32_t e = 0; e < count; ++e) {
      const std::byte* coords =
          bytes + layout.coords_offset + size_t{e / g} * layout.group_coord_bytes;
      const std::byte* ids = bytes + layout.ids_offset + size_t{e / g} * layout.group_id_bytes;
      const auto coordinate = [&](uint32_t row) -> double {
        const size_t at = size_t{row} * g + e % g;
        return layout.wide ? LoadRelaxed(reinterpret_cast<const double*>(coords) + at)
                           : LoadRelaxed(reinterpret_cast<const float*>(coords) + at);
      };
      for (uint32_t d = 0; d < dims_; ++d) {
        lo[d] = coordinate(d * layout.corners);
        hi[d] = layout.corners == 2 ? coordinate(2 * d + 1) : lo[d];
        if (lo[d] > hi[d]) {
          Problem("entry %u in block %u has its corners swapped", e, block->block_number);
        }
        // NaN is within no box but the unbounded one.
        const float low = LoadRelaxed(boxes + size_t{2} * d * layout.groups + e / g);
        const float high = LoadRelaxed(boxes + (size_t{2} * d + 1) * layout.groups + e / g);
        if (!(low <= lo[d] && hi[d] <= high) && !(std::isinf(low) && std::isinf(high))) {
          Problem("entry %u in block %u is outside its group's box", e, block->block_number);
        }
      }
      const Box32 box = Box32::Around(dims_, lo, hi);
      bounds->Extend(dims_, box);
      if (layout.leaf) {
        const uint64_t low = LoadRelaxed(reinterpret_cast<const uint32_t*>(ids) + e % g);
        const uint64_t high = LoadRelaxed(reinterpret_cast<const uint16_t*>(ids + 4 * g) + e % g);
        record_ids_.push_back(high << 32 | low);
      } else {
        const NodeId child{LoadRelaxed(reinterpret_cast<const uint64_t*>(ids) + e % g)};
        children_.push_back(child.value);
        stack_.push_back(Visit{child, block->level - 1, box});
      }
    }
    report_->levels[block->level].entries += count;
    if (layout.leaf) report_->entries += count;
  }
}

void Checker::CheckRecordIds() {
  std::sort(record_ids_.begin(), record_ids_.end());
  for (size_t i = 1; i < record_ids_.size(); ++i) {
    if (record_ids_[i] == record_ids_[i - 1]) {
      Problem("record id %" PRIu64 " is in the tree more than once", record_ids_[i]);
    }
  }
}

void Checker::CompareCounts() {
  const auto compare = [this](const char* what, uint64_t counted, uint64_t recorded) {
    if (counted == recorded) return;
    Problem("the tree has %" PRIu64 " %s, but %" PRIu64 " are recorded", counted, what, recorded);
  };
  uint64_t supernodes = 0;
  compare("entries", report_->entries, shared_.entries.load());
  compare("levels", report_->height, shared_.height.load());
  for (uint32_t l = 0; l < kTreeLevelsMax; ++l) {
    compare(l == 0 ? "leaves" : "inner nodes on a level", report_->levels[l].nodes,
            shared_.nodes_by_level[l].load());
    supernodes += report_->levels[l].supernodes;
  }
  compare("supernodes", supernodes, shared_.supernodes.load());
}

}  // namespace

Status CheckTree(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare_counts,
                 TreeReport* report) {
  *report = TreeReport{};
  const NodeId root{store->shared()->trees[tree].root.load(std::memory_order_acquire)};
  const WindowPin pin(store->windows());
  Checker checker(store, tree, epoch, report);
  if (root.valid()) {
    // A root made after the epoch: the tree was empty then.
    const Result<NodeRef> node = store->Lookup(root, epoch);
    if (node.ok() || node.status().code() != Code::kNotFound || compare_counts) {
      XT_RETURN_IF_ERROR(checker.Walk(root));
    }
  }
  if (compare_counts) {
    checker.CompareCounts();
    checker.CheckRecordIds();
  }
  return Status::Ok();
}

Status CollectBoxes(StoreInterface* store, uint32_t tree, uint64_t epoch, uint32_t level,
                    std::vector<double>* boxes) {
  const TreeShared& shared = store->shared()->trees[tree];
  const uint32_t dims = shared.spec.dims;
  const NodeLayout& inner = NodeLayout::For(shared.spec, false);
  const NodeId root{shared.root.load(std::memory_order_acquire)};
  const WindowPin pin(store->windows());
  const auto add = [&](const Box32& box) {
    boxes->insert(boxes->end(), box.lo, box.lo + dims);
    boxes->insert(boxes->end(), box.hi, box.hi + dims);
  };
  std::vector<NodeId> stack;
  if (root.valid()) stack.push_back(root);
  while (!stack.empty()) {
    const NodeId id = stack.back();
    stack.pop_back();
    const Result<NodeRef> found = store->Lookup(id, epoch);
    if (!found.ok()) {
      if (id == root && found.status().code() == Code::kNotFound) return Status::Ok();
      return found.status();
    }
    const BlockHeader* node = const_cast<Result<NodeRef>&>(found).value().node;
    if (node->level == level) {  // Only the root: nodes below are seen through their parents.
      add(NodeLayout::For(shared.spec, level == 0).Bounds(node));
    }
    if (node->level <= level) continue;
    const uint32_t count = inner.Count(node);
    for (uint32_t e = 0; e < count; ++e) {
      if (node->level == level + 1) {
        add(inner.ChildBox(node, e));
      } else {
        stack.push_back(inner.Child(node, e));
      }
    }
  }
  return Status::Ok();
}

}  // namespace xtree
