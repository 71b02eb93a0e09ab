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
constexpr size_t kRunIds = 1 << 19;          // Sorted in some 30 ms.
constexpr uint64_t kMergeIdsPerNode = 1024;
constexpr uint32_t kNodesPerStep = 4096;

}  // namespace

class TreeWalk::State {
 public:
  State(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare,
        const std::vector<uint64_t>* only);
  Status Step(uint32_t nodes_max, bool* done);
  Status Compare(bool unchanged);

  TreeReport report;
  std::vector<uint64_t> duplicates;    // Sorted.

 private:
  enum class Phase { kNodes, kParents, kRecordIds, kDone };
  // A node to visit, and what its parent says about it (level -1: the root has no parent).
  struct Visit {
    NodeId id;
    int level;
    Box32 box;
  };
  // What is recorded of the tree, to be compared with what the walk counts.
  struct Counts {
    uint64_t entries;
    uint32_t height;
    uint32_t supernodes;
    uint64_t nodes_by_level[kTreeLevelsMax];
  };
  // Sorted record ids, and how many of them have been merged.
  struct Run {
    std::vector<uint64_t> ids;
    size_t next = 0;
  };

  // A child that reaches beyond its box in its parent.
  struct Outside {
    uint64_t id;
    uint32_t block;
    int level;
    bool operator<(const Outside& other) const { return id < other.id; }
  };

  void Problem(const char* format, ...) XT_PRINTF(2, 3);
  Status CheckNode(const Visit& visit);
  bool CheckHeaders(const NodeRef& node, const NodeLayout& layout);
  void CheckEntries(const NodeRef& node, const NodeLayout& layout, Box32* bounds);
  void AddRecordId(uint64_t id);
  void CheckParents();
  bool MergeRecordIds(uint64_t ids_max);
  void CompareCounts(bool unchanged);
  Status LookAgainAtBoxes();

  StoreInterface* const store_;
  const uint32_t tree_;
  const uint64_t epoch_;
  const bool compare_;
  const std::vector<uint64_t> only_;
  const bool all_ids_;                 // Else only those of `only_`.
  const TreeShared& shared_;
  const uint32_t dims_;
  Counts recorded_{};
  Phase phase_ = Phase::kNodes;
  std::vector<Visit> stack_;
  std::vector<uint64_t> children_;     // NodeIds that parents name.
  std::vector<Outside> outside_;
  std::vector<Run> runs_;
};

TreeWalk::State::State(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare,
                       const std::vector<uint64_t>* only)
    : store_(store), tree_(tree), epoch_(epoch), compare_(compare),
      only_(only != nullptr ? *only : std::vector<uint64_t>()), all_ids_(only == nullptr),
      shared_(store->shared()->trees[tree]), dims_(shared_.spec.dims) {
  recorded_.entries = shared_.entries.load(std::memory_order_relaxed);
  recorded_.height = shared_.height.load(std::memory_order_relaxed);
  recorded_.supernodes = shared_.supernodes.load(std::memory_order_relaxed);
  for (uint32_t l = 0; l < kTreeLevelsMax; ++l) {
    recorded_.nodes_by_level[l] = shared_.nodes_by_level[l].load(std::memory_order_relaxed);
  }
  const NodeId root{shared_.root.load(std::memory_order_acquire)};
  if (root.valid()) stack_.push_back(Visit{root, -1, {}});
}

void TreeWalk::State::Problem(const char* format, ...) {
  if (report.problems.size() >= kProblemsMax) return;
  char text[400];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  report.problems.push_back(text);
}

Status TreeWalk::State::Step(uint32_t nodes_max, bool* done) {
  const WindowPin pin(store_->windows());
  *done = false;
  switch (phase_) {
    case Phase::kNodes:
      for (uint32_t n = 0; n < nodes_max && !stack_.empty(); ++n) {
        if (store_->windows()->faults() != 0) return store_->windows()->FaultStatus(0);
        const Visit visit = stack_.back();
        stack_.pop_back();
        const Status status = CheckNode(visit);
        if (!status.ok()) {
          stack_.push_back(visit);  // So that the call can be repeated.
          return status;
        }
      }
      if (stack_.empty()) phase_ = Phase::kParents;
      break;
    case Phase::kParents:
      CheckParents();
      phase_ = Phase::kRecordIds;
      break;
    case Phase::kRecordIds:
      if (MergeRecordIds(uint64_t{nodes_max} * kMergeIdsPerNode)) phase_ = Phase::kDone;
      break;
    case Phase::kDone:
      break;
  }
  *done = phase_ == Phase::kDone;
  return Status::Ok();
}

// A child with two parents would also make an endless loop of a cycle, so levels must have fallen on every
// step (CheckNode) and here each child must be named once.
void TreeWalk::State::CheckParents() {
  std::sort(children_.begin(), children_.end());
  for (size_t i = 1; i < children_.size(); ++i) {
    if (children_[i] == children_[i - 1]) {
      Problem("node %" PRIx64 " has two parents", children_[i]);
    }
  }
  std::vector<uint64_t>().swap(children_);
  if (!runs_.empty()) std::sort(runs_.back().ids.begin(), runs_.back().ids.end());
}

Status TreeWalk::State::CheckNode(const Visit& visit) {
  Result<NodeRef> found = store_->Lookup(visit.id, epoch_);
  if (!found.ok()) {
    const Code code = found.status().code();
    if (code != Code::kCorruption && code != Code::kNotFound) return found.status();
    // A root that was made after the epoch: the tree was empty then.
    if (code == Code::kNotFound && visit.level < 0 && !compare_) return Status::Ok();
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
  if (visit.level < 0) report.height = static_cast<uint32_t>(level) + 1;
  const NodeLayout& layout = NodeLayout::Of(shared_.spec, *node.node);
  if (!CheckHeaders(node, layout)) return Status::Ok();

  Box32 bounds;
  bounds.Clear(dims_);
  CheckEntries(node, layout, &bounds);
  if (visit.level >= 0 && !visit.box.Contains(dims_, bounds)) {
    outside_.push_back(Outside{visit.id.value, block, level});
  }
  return Status::Ok();
}

// All blocks of the extent agree with its first, and fill in order. False if the entries cannot be
// read.
bool TreeWalk::State::CheckHeaders(const NodeRef& node, const NodeLayout& layout) {
  const BlockHeader& first = *node.node;
  const uint32_t blocks = 1u << node.order;
  TreeLevelStats& stats = report.levels[first.level];
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
    if (!NodeLayout::IsKind(shared_.spec, first.level, b.kind) || b.kind != first.kind ||
        b.level != first.level || b.order != first.order ||
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
void TreeWalk::State::CheckEntries(const NodeRef& node, const NodeLayout& layout, Box32* bounds) {
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
        return layout.WithFormat([&]<class T>(T) {
          return layout.Decode(LoadRelaxed(reinterpret_cast<const T*>(coords) + at));
        });
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
      if (!layout.Takes(lo, hi)) {
        Problem("entry %u in block %u is out of a decimal's range", e, block->block_number);
      }
      const Box32 box = Box32::Around(dims_, lo, hi);
      bounds->Extend(dims_, box);
      if (layout.leaf) {
        const uint64_t low = LoadRelaxed(reinterpret_cast<const uint32_t*>(ids) + e % g);
        const uint64_t high = LoadRelaxed(reinterpret_cast<const uint16_t*>(ids + 4 * g) + e % g);
        if (compare_) AddRecordId(high << 32 | low);
      } else {
        const NodeId child{LoadRelaxed(reinterpret_cast<const uint64_t*>(ids) + e % g)};
        children_.push_back(child.value);
        stack_.push_back(Visit{child, block->level - 1, box});
      }
    }
    report.levels[block->level].entries += count;
    if (layout.leaf) report.entries += count;
  }
}

void TreeWalk::State::AddRecordId(uint64_t id) {
  if (!all_ids_ && !std::binary_search(only_.begin(), only_.end(), id)) return;
  if (runs_.empty() || runs_.back().ids.size() == kRunIds) {
    if (!runs_.empty()) std::sort(runs_.back().ids.begin(), runs_.back().ids.end());
    runs_.emplace_back();
  }
  runs_.back().ids.push_back(id);
}

// Goes through the runs in order, by some `ids_max` ids more. True: through with all.
bool TreeWalk::State::MergeRecordIds(uint64_t ids_max) {
  const auto later = [this](size_t a, size_t b) {
    return runs_[a].ids[runs_[a].next] > runs_[b].ids[runs_[b].next];
  };
  std::vector<size_t> heap;
  for (size_t r = 0; r < runs_.size(); ++r) {
    if (runs_[r].next < runs_[r].ids.size()) heap.push_back(r);
  }
  std::make_heap(heap.begin(), heap.end(), later);
  uint64_t previous = UINT64_MAX;  // No record id.
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    Run& run = runs_[heap.back()];
    const uint64_t id = run.ids[run.next];
    if (ids_max == 0 && id != previous) return false;  // Equal ids belong to one step.
    if (ids_max > 0) --ids_max;
    if (id == previous && duplicates.size() < kProblemsMax &&
        (duplicates.empty() || duplicates.back() != id)) {
      duplicates.push_back(id);
    }
    previous = id;
    if (++run.next < run.ids.size()) {
      std::push_heap(heap.begin(), heap.end(), later);
    } else {
      heap.pop_back();
    }
  }
  runs_.clear();
  return true;
}

void TreeWalk::State::CompareCounts(bool unchanged) {
  const auto compare = [this](const char* what, uint64_t counted, uint64_t recorded) {
    if (counted == recorded) return;
    Problem("the tree has %" PRIu64 " %s, but %" PRIu64 " are recorded", counted, what, recorded);
  };
  uint64_t supernodes = 0;
  if (unchanged || report.entries < recorded_.entries) {
    compare("entries", report.entries, recorded_.entries);
  }
  compare("levels", report.height, recorded_.height);
  for (uint32_t l = 0; l < kTreeLevelsMax; ++l) {
    compare(l == 0 ? "leaves" : "inner nodes on a level", report.levels[l].nodes,
            recorded_.nodes_by_level[l]);
    supernodes += report.levels[l].supernodes;
  }
  compare("supernodes", supernodes, recorded_.supernodes);
}

// The newest boxes, of the children that reached beyond the ones of the epoch.
Status TreeWalk::State::LookAgainAtBoxes() {
  if (outside_.empty()) return Status::Ok();
  std::vector<Outside> suspects;
  suspects.swap(outside_);
  std::sort(suspects.begin(), suspects.end());
  const WindowPin pin(store_->windows());
  const NodeLayout& inner = NodeLayout::Inner(shared_.spec);
  std::vector<NodeId> stack;
  const NodeId root{shared_.root.load(std::memory_order_acquire)};
  if (root.valid()) stack.push_back(root);
  while (!stack.empty()) {
    XT_ASSIGN_OR_RETURN(const NodeRef node, store_->LookupNewest(stack.back()));
    stack.pop_back();
    const uint32_t count = node.node->level == 0 ? 0 : inner.Count(node.node);
    for (uint32_t e = 0; e < count; ++e) {
      const NodeId child = inner.Child(node.node, e);
      if (node.node->level > 1) stack.push_back(child);
      if (!std::binary_search(suspects.begin(), suspects.end(), Outside{child.value, 0, 0})) continue;
      XT_ASSIGN_OR_RETURN(const NodeRef found, store_->LookupNewest(child));
      const NodeLayout& layout = NodeLayout::Of(shared_.spec, *found.node);
      if (!inner.ChildBox(node.node, e).Contains(dims_, layout.Bounds(found.node))) {
        outside_.push_back(Outside{child.value, found.node->block_number, found.node->level});
      }
    }
  }
  return Status::Ok();
}

Status TreeWalk::State::Compare(bool unchanged) {
  XT_ASSERT(phase_ == Phase::kDone);
  // In a tree that is damaged otherwise nothing is looked for again: it might never end.
  if (!unchanged && report.problems.empty()) XT_RETURN_IF_ERROR(LookAgainAtBoxes());
  for (const Outside& child : outside_) {
    Problem("node in block %u on level %d reaches beyond its box in its parent", child.block,
            child.level);
  }
  outside_.clear();
  if (all_ids_) CompareCounts(unchanged);
  if (unchanged) {
    for (const uint64_t id : duplicates) {
      Problem("record id %" PRIu64 " is in the tree more than once", id);
    }
    duplicates.clear();
  }
  return Status::Ok();
}

TreeWalk::TreeWalk(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare,
                   const std::vector<uint64_t>* only)
    : state_(std::make_unique<State>(store, tree, epoch, compare, only)) {}

TreeWalk::~TreeWalk() = default;

Status TreeWalk::Step(uint32_t nodes_max, bool* done) { return state_->Step(nodes_max, done); }

Status TreeWalk::Compare(bool unchanged) { return state_->Compare(unchanged); }

const TreeReport& TreeWalk::report() const { return state_->report; }

const std::vector<uint64_t>& TreeWalk::suspects() const { return state_->duplicates; }

Status CheckTree(StoreInterface* store, uint32_t tree, uint64_t epoch, bool compare_counts,
                 TreeReport* report) {
  *report = TreeReport{};
  TreeWalk walk(store, tree, epoch, compare_counts);
  bool done = false;
  while (!done) XT_RETURN_IF_ERROR(walk.Step(kNodesPerStep, &done));
  if (compare_counts) XT_RETURN_IF_ERROR(walk.Compare(true));
  *report = walk.report();
  return Status::Ok();
}

Status CollectBoxes(StoreInterface* store, uint32_t tree, uint64_t epoch, uint32_t level,
                    uint64_t boxes_max, std::vector<double>* boxes) {
  const TreeShared& shared = store->shared()->trees[tree];
  const uint32_t dims = shared.spec.dims;
  const NodeLayout& inner = NodeLayout::Inner(shared.spec);
  const NodeId root{shared.root.load(std::memory_order_acquire)};
  const WindowPin pin(store->windows());
  const auto add = [&](const Box32& box) {
    boxes->insert(boxes->end(), box.lo, box.lo + dims);
    boxes->insert(boxes->end(), box.hi, box.hi + dims);
  };
  std::vector<NodeId> stack;
  if (root.valid()) stack.push_back(root);
  while (!stack.empty() && boxes->size() / (2 * dims) <= boxes_max) {
    if (store->windows()->faults() != 0) return store->windows()->FaultStatus(0);
    const NodeId id = stack.back();
    stack.pop_back();
    const Result<NodeRef> found = store->Lookup(id, epoch);
    if (!found.ok()) {
      if (id == root && found.status().code() == Code::kNotFound) return Status::Ok();
      return found.status();
    }
    const BlockHeader* node = const_cast<Result<NodeRef>&>(found).value().node;
    if (node->level == level) {  // Only the root: nodes below are seen through their parents.
      add(NodeLayout::Of(shared.spec, *node).Bounds(node));
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
