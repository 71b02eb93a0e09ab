// EstimateFraction and SampleEntries, declared in tree/checker.h: what share of a tree a window will
// return, and entries that lie side by side.
#include <algorithm>
#include <cmath>

#include "tree/checker.h"
#include "tree/kernels.h"
#include "tree/node_layout.h"

namespace xtree {

namespace {

// Nodes that one estimate may read: some 10 microseconds.
constexpr uint32_t kNodesMax = 64;

struct Share {
  NodeId id;
  double weight;   // Expected share of the tree's entries that lie below this node,
  double covered;  // and of those, that the window matches, judging by the node's box alone.
};

// The part of a box that a window covers, taking the keys as spread evenly over it.
double Covered(const WindowQuery& query, const Box32& box) {
  double part = 1;
  const auto clip = [&box](uint32_t d, double lower, double upper) -> double {
    const double lo = box.lo[d], hi = box.hi[d];
    const double extent = hi - lo;
    if (!(extent > 0) || !std::isfinite(extent)) return 1;
    return std::clamp((std::min(hi, upper) - std::max(lo, lower)) / extent, 0.0, 1.0);
  };
  // Each dimension at most once: a dimension with both bounds is clipped by both together.
  uint32_t l = 0;
  for (uint32_t u = 0; u < query.upper_count; ++u) {
    const uint32_t d = query.upper[u].row / 2;
    for (; l < query.lower_count && query.lower[l].row / 2 < d; ++l) {
      part *= clip(query.lower[l].row / 2, query.lower[l].bound, HUGE_VAL);
    }
    double lower = -HUGE_VAL;
    if (l < query.lower_count && query.lower[l].row / 2 == d) lower = query.lower[l++].bound;
    part *= clip(d, lower, query.upper[u].bound);
  }
  for (; l < query.lower_count; ++l) {
    part *= clip(query.lower[l].row / 2, query.lower[l].bound, HUGE_VAL);
  }
  return part;
}

// Uncertain the most: much weight, and the window covers a middling part of it.
bool LessUncertain(const Share& a, const Share& b) {
  return a.weight * std::min(a.covered, 1 - a.covered) + 1e-9 * a.weight <
         b.weight * std::min(b.covered, 1 - b.covered) + 1e-9 * b.weight;
}

double MatchingInLeaf(const NodeRef& node, const NodeLayout& leaf, WindowQuery* query) {
  query->PrepareFor(leaf);
  uint64_t found = 0, entries = 0;
  uint16_t slots[kGroupsMax * kGroupSizeMax];
  for (uint32_t i = 0; i < 1u << node.order; ++i) {
    const uint32_t count = std::min(NodeLayout::BlockCount(node.block(i)), leaf.block_capacity);
    found += ActiveKernels().leaf_slots(leaf, node.block(i), count, *query, slots);
    entries += count;
  }
  return entries == 0 ? 0 : static_cast<double>(found) / static_cast<double>(entries);
}

}  // namespace

// Best first: the node whose share is most uncertain is opened next, until the budget is spent. An
// inner node's children count as equally full; a leaf that is reached is counted exactly.
Status EstimateFraction(StoreInterface* store, uint32_t tree, uint64_t epoch,
                        const Predicate& predicate, double* fraction) {
  *fraction = 0;
  const TreeShared& shared = store->shared()->trees[tree];
  const NodeLayout& inner = NodeLayout::Inner(shared.spec);
  WindowQuery query;
  query.Prepare(shared.spec, predicate);
  const NodeId root{shared.root.load(std::memory_order_acquire)};
  if (query.empty || !root.valid()) return Status::Ok();
  const WindowPin pin(store->windows());
  std::vector<Share> open{Share{root, 1, 0.5}};
  double total = 0;
  for (uint32_t visited = 0; visited < kNodesMax && !open.empty(); ++visited) {
    std::pop_heap(open.begin(), open.end(), LessUncertain);
    const Share share = open.back();
    open.pop_back();
    NodeRef node = store->TryLookup(share.id, epoch);
    if (node.node == nullptr) {
      Result<NodeRef> found = store->Lookup(share.id, epoch);
      if (!found.ok()) {
        if (found.status().code() == Code::kNotFound && share.id == root) return Status::Ok();
        return found.status();
      }
      node = *found;
    }
    if (node.node->level == 0) {
      total += share.weight * MatchingInLeaf(node, NodeLayout::Of(shared.spec, *node.node), &query);
      continue;
    }
    const uint32_t children = inner.Count(node.node);
    for (uint32_t i = 0; i < 1u << node.order && children > 0; ++i) {
      const BlockHeader* block = node.block(i);
      const uint32_t count = std::min(NodeLayout::BlockCount(block), inner.block_capacity);
      uint64_t groups = ActiveKernels().match_groups(inner, block, count, query);
      for (; groups != 0; groups &= groups - 1) {
        const auto g = static_cast<uint32_t>(std::countr_zero(groups));
        const uint32_t first = g << inner.group_shift;
        uint32_t mask = ActiveKernels().match_entries(inner, block, g, query);
        if (count - first < inner.group_size) mask &= (1u << (count - first)) - 1;
        for (; mask != 0; mask &= mask - 1) {
          const uint32_t e =
              i * inner.block_capacity + first + static_cast<uint32_t>(std::countr_zero(mask));
          open.push_back(Share{inner.Child(node.node, e), share.weight / children,
                               Covered(query, inner.ChildBox(node.node, e))});
          std::push_heap(open.begin(), open.end(), LessUncertain);
        }
      }
    }
  }
  for (const Share& share : open) total += share.weight * share.covered;
  *fraction = std::min(total, 1.0);
  return Status::Ok();
}

Status SampleEntries(StoreInterface* store, uint32_t tree, uint64_t epoch, double place,
                     uint64_t* record_ids, uint32_t capacity, uint32_t* count) {
  *count = 0;
  const TreeShared& shared = store->shared()->trees[tree];
  const NodeLayout& inner = NodeLayout::Inner(shared.spec);
  const NodeId root{shared.root.load(std::memory_order_acquire)};
  if (!root.valid()) return Status::Ok();
  const WindowPin pin(store->windows());
  NodeId id = root;
  for (;;) {
    Result<NodeRef> node = store->Lookup(id, epoch);
    if (!node.ok()) {
      const bool empty = node.status().code() == Code::kNotFound && id == root;
      return empty ? Status::Ok() : node.status();
    }
    if (node->node->level > 0) {
      const uint32_t children = inner.Count(node->node);
      if (children == 0) return Status::Ok();
      id = inner.Child(node->node, std::min(static_cast<uint32_t>(place * children), children - 1));
      continue;
    }
    const BlockHeader* block = node->block(0);
    const NodeLayout& leaf = NodeLayout::Of(shared.spec, *node->node);
    uint16_t slots[kGroupsMax * kGroupSizeMax];
    const uint32_t entries = std::min(NodeLayout::BlockCount(block), leaf.block_capacity);
    for (; *count < std::min(capacity, entries); ++*count) {
      slots[*count] = static_cast<uint16_t>(*count);
    }
    leaf.ReadEntries(block, slots, *count, record_ids, nullptr, nullptr);
    return Status::Ok();
  }
}

}  // namespace xtree
