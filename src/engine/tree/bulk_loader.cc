#include "tree/bulk_loader.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/scratch_array.h"
#include "tree/curve.h"
#include "tree/kd_order.h"
#include "tree/leaf_plan.h"
#include "tree/node_layout.h"
#include "tree/parallel.h"

namespace xtree {

namespace {

constexpr uint32_t kInnerFillPercentMin = 90;
// Exact leaves in a run of an external load: some 2 MB of boxes.
constexpr uint32_t kRunLeaves = 256;
// Blocks that are written at a time: 256 KiB, which stay in a processor's cache.
constexpr uint32_t kWriteBlocks = 32;
// Added entries are kept in chunks, so that growing copies nothing.
constexpr uint32_t kChunkShift = 14;
constexpr uint32_t kChunkEntries = 1u << kChunkShift;

// Boxes and ids of one level's nodes, for the level above. Kept short: it is what an external build
// holds in memory for every leaf.
class NodeList {
 public:
  explicit NodeList(uint32_t dims) : dims_(dims) {}
  uint64_t size() const { return ids_.size(); }
  void Resize(uint64_t nodes) {
    ids_.resize(nodes);
    sides_.resize(nodes * 2 * dims_);
  }
  // Different nodes may be set by different threads.
  void Set(uint64_t i, const Box32& box, NodeId id) {
    std::copy(box.lo, box.lo + dims_, &sides_[i * 2 * dims_]);
    std::copy(box.hi, box.hi + dims_, &sides_[i * 2 * dims_ + dims_]);
    ids_[i] = id;
  }
  void Add(const Box32& box, NodeId id) {
    Resize(size() + 1);
    Set(size() - 1, box, id);
  }
  NodeId id(uint64_t i) const { return ids_[i]; }
  Box32 Box(uint64_t i) const {
    Box32 box;
    std::copy_n(&sides_[i * 2 * dims_], dims_, box.lo);
    std::copy_n(&sides_[i * 2 * dims_ + dims_], dims_, box.hi);
    return box;
  }

 private:
  uint32_t dims_;
  std::vector<float> sides_;
  std::vector<NodeId> ids_;
};

}  // namespace

struct BulkLoader::State {
  Status Cancelled() const {
    return options.cancelled() ? Status::Make(Code::kCancelled, "the build was cancelled")
                               : Status::Ok();
  }
  State(StoreInterface* s, uint32_t t, const BulkOptions& o)
      : store(s), tree(t), options(o), spec(s->shared()->trees[t].spec),
        leaf(NodeLayout::ExactLeaf(spec)), inner(NodeLayout::Inner(spec)),
        run_entries(uint64_t{kRunLeaves} * PackedEntries(leaf, o.leaf_fill_percent)),
        inner_packed(PackedEntries(inner, std::max(o.leaf_fill_percent, kInnerFillPercentMin))),
        stride(uint32_t{spec.dims} * leaf.corners), pending(spec.dims), leaves(spec.dims) {
    options.threads = std::max(1u, options.threads);
  }

  const double* lo(uint64_t i) const {
    if (borrowed_lo != nullptr) return borrowed_lo + i * spec.dims;
    return chunks[i >> kChunkShift].get() + (i & (kChunkEntries - 1)) * stride;
  }
  const double* hi(uint64_t i) const {
    if (leaf.corners == 1) return lo(i);
    return borrowed_lo != nullptr ? borrowed_hi + i * spec.dims : lo(i) + spec.dims;
  }
  // Keys that follow each other in memory, from that of entry i on.
  LeafPlan::Run RunFrom(uint64_t i) const {
    if (borrowed_lo != nullptr) return {lo(i), hi(i), spec.dims, borrowed};
    return {lo(i), hi(i), stride, std::min<uint64_t>(ids.size(), (i | (kChunkEntries - 1)) + 1)};
  }
  uint64_t id(uint64_t i) const { return borrowed_lo != nullptr ? borrowed_ids[i] : ids[i]; }
  uint64_t added() const { return borrowed_lo != nullptr ? borrowed : ids.size(); }

  Status ReserveAll(uint64_t leaves);
  // A leaf that is staged: in place, or unwritten.
  struct Place {
    NodeRef node;
    uint32_t block;
  };
  Status Stage(const NodeLayout& layout, uint32_t level, NodeRef* node);
  Status StageLeaf(const NodeLayout& layout, Place* place);
  void InitKind(const NodeLayout& layout, const NodeRef& node) const;
  Status FillLeaves(const std::vector<LeafPlan::Leaf>& planned, const std::vector<uint32_t>& order,
                    const std::vector<Place>& places, uint64_t begin, uint64_t end);
  Status PackAdded();
  Status PackPending(bool all);
  Status PackUpper(NodeRef* root, uint32_t* height);

  StoreInterface* const store;
  const uint32_t tree;
  BulkOptions options;
  const KeySpec spec;
  const NodeLayout& leaf;       // The exact one.
  const NodeLayout& inner;
  const uint64_t run_entries;   // Of an external load.
  const uint32_t inner_packed;  // Entries that an inner node is packed with.
  const uint32_t stride;        // Doubles of an entry.

  // In memory.
  std::vector<std::unique_ptr<double[]>> chunks;
  std::vector<uint64_t> ids;
  uint64_t taken = 0;
  const double* borrowed_lo = nullptr;  // Not null: instead of these.
  const double* borrowed_hi = nullptr;
  const uint64_t* borrowed_ids = nullptr;
  uint64_t borrowed = 0;
  std::unique_ptr<LeafPlan> plan;  // Of all that was added, kept while Finish is repeated.

  // External.
  EntryList pending;            // Sorted entries that are not in a leaf yet.
  uint64_t sorted_entries = 0;

  NodeList leaves;
  uint64_t nodes_by_level[kTreeLevelsMax] = {};
  bool staged = false;
  bool published = false;
};

BulkLoader::BulkLoader(StoreInterface* store, uint32_t tree, const BulkOptions& options)
    : state_(std::make_unique<State>(store, tree, options)) {
  XT_ASSERT(store->shared()->trees[tree].root.load(std::memory_order_relaxed) == 0);
}

BulkLoader::~BulkLoader() {
  if (state_->staged && !state_->published) state_->store->Discard();
}

uint64_t BulkLoader::CurveKey(const KeySpec& spec, const double* bounds_lo, const double* bounds_hi,
                              const double* lo, const double* hi) {
  return HilbertCurve(spec.dims, bounds_lo, bounds_hi)
      .Position(lo, spec.kind == KeyKind::kPoint ? lo : hi);
}

Status BulkLoader::Add(const double* lo, const double* hi, const uint64_t* record_ids,
                       uint32_t count) {
  State& s = *state_;
  const uint32_t dims = s.spec.dims;
  XT_ASSERT(s.sorted_entries == 0 && s.taken == 0 && s.borrowed_lo == nullptr);
  // More entries than this would need wider sort keys; such builds go through the external sort.
  if (s.ids.size() + count > UINT32_MAX) {
    return Status::InvalidArgument("too many entries to sort in memory");
  }
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t at = s.ids.size();
    if ((at >> kChunkShift) == s.chunks.size()) {
      s.chunks.push_back(
          std::make_unique_for_overwrite<double[]>(size_t{kChunkEntries} * s.stride));
    }
    double* key = s.chunks.back().get() + (at & (kChunkEntries - 1)) * s.stride;
    std::copy(lo + uint64_t{i} * dims, lo + uint64_t{i + 1} * dims, key);
    if (s.leaf.corners == 2) {
      std::copy(hi + uint64_t{i} * dims, hi + uint64_t{i + 1} * dims, key + dims);
    }
    XT_ASSERT(record_ids[i] <= kRecordIdMax);
    s.ids.push_back(record_ids[i]);
  }
  return Status::Ok();
}

Status BulkLoader::Borrow(const double* lo, const double* hi, const uint64_t* record_ids,
                          uint64_t count) {
  State& s = *state_;
  XT_ASSERT(s.sorted_entries == 0 && s.added() == 0);
  if (count == 0) return Status::Ok();
  if (count > UINT32_MAX) return Status::InvalidArgument("too many entries to sort in memory");
  s.borrowed_lo = lo;
  s.borrowed_hi = hi;
  s.borrowed_ids = record_ids;
  s.borrowed = count;
  return Status::Ok();
}

uint64_t BulkLoader::memory_bytes() const {
  return state_->chunks.size() * kChunkEntries * state_->stride * sizeof(double) +
         state_->ids.capacity() * sizeof(uint64_t);
}

uint32_t BulkLoader::TakeAdded(double* lo, double* hi, uint64_t* record_ids, uint32_t capacity) {
  State& s = *state_;
  const uint32_t dims = s.spec.dims;
  const auto count =
      static_cast<uint32_t>(std::min<uint64_t>(capacity, s.ids.size() - s.taken));
  for (uint32_t i = 0; i < count; ++i, ++s.taken) {
    std::copy(s.lo(s.taken), s.lo(s.taken) + dims, lo + uint64_t{i} * dims);
    if (hi != nullptr) std::copy(s.hi(s.taken), s.hi(s.taken) + dims, hi + uint64_t{i} * dims);
    record_ids[i] = s.ids[s.taken];
  }
  // Chunks that have been taken whole are given back on the way, and the rest at the end.
  for (uint64_t c = 0; c < s.taken >> kChunkShift; ++c) s.chunks[c].reset();
  if (s.taken == s.ids.size()) {
    s.chunks.clear();
    std::vector<uint64_t>().swap(s.ids);
    s.taken = 0;
  }
  return count;
}

// Room for `leaves` more leaves and for all levels above all leaves.
Status BulkLoader::State::ReserveAll(uint64_t new_leaves) {
  uint64_t above = 0;
  for (uint64_t n = leaves.size() + new_leaves; n > 1;) {
    n = NodeShares(n, inner_packed, inner.group_size).nodes;
    above += n;
  }
  staged = true;  // Reserving also pins, which Discard undoes.
  // Handles are the same for all orders, so the sum is asked for; extents of the two orders are not.
  XT_RETURN_IF_ERROR(store->ReserveNodes(new_leaves + above, leaf.base_order, options.write != nullptr && added() > 0));
  if (inner.base_order == leaf.base_order) return Status::Ok();
  return store->ReserveNodes(above, inner.base_order, false);
}

Status BulkLoader::State::Stage(const NodeLayout& layout, uint32_t level, NodeRef* node) {
  XT_ASSERT(level < kTreeLevelsMax);
  XT_ASSIGN_OR_RETURN(*node,
                      store->StageNew(tree, static_cast<uint8_t>(level), layout.base_order));
  ++nodes_by_level[level];
  InitKind(layout, *node);
  return Status::Ok();
}

Status BulkLoader::State::StageLeaf(const NodeLayout& layout, Place* place) {
  if (!options.write) {
    XT_RETURN_IF_ERROR(Stage(layout, 0, &place->node));
    place->block = place->node.node->block_number;
    return Status::Ok();
  }
  XT_ASSIGN_OR_RETURN(place->node, store->StageUnwritten(layout.base_order, &place->block));
  ++nodes_by_level[0];
  return Status::Ok();
}

void BulkLoader::State::InitKind(const NodeLayout& layout, const NodeRef& node) const {
  // Packing cuts along every dimension, so any may be the one to split by.
  const auto all = static_cast<uint32_t>((uint64_t{1} << spec.dims) - 1);
  for (uint32_t i = 0; i < 1u << layout.base_order; ++i) {
    node.block(i)->kind = layout.kind;
    node.block(i)->split_dims = all;
  }
}

// Fills the leaves [begin, end), and writes those that are not in place, runs of neighbouring blocks at once.
Status BulkLoader::State::FillLeaves(const std::vector<LeafPlan::Leaf>& planned,
                                     const std::vector<uint32_t>& order,
                                     const std::vector<Place>& places, uint64_t begin, uint64_t end) {
  EntryList list(spec.dims);
  ScratchArray<std::byte> buffer(options.write ? size_t{kWriteBlocks} * kBlockBytes : 0);
  uint32_t run_first = 0, run_blocks = 0;
  const auto write_run = [&]() -> Status {
    const uint32_t blocks = std::exchange(run_blocks, 0);
    return blocks == 0 ? Status::Ok() : options.write(run_first, blocks, buffer.data());
  };
  for (uint64_t n = begin; n < end && !options.cancelled(); ++n) {
    const LeafPlan::Leaf& here = planned[n];
    NodeRef node = places[n].node;
    if (options.write) {
      const uint32_t blocks = 1u << here.layout->base_order;
      if (places[n].block != run_first + run_blocks || run_blocks + blocks > kWriteBlocks) {
        XT_RETURN_IF_ERROR(write_run());
        run_first = places[n].block;
      }
      std::byte* at = buffer.data() + size_t{run_blocks} * kBlockBytes;
      std::fill_n(at, size_t{blocks} * kBlockBytes, std::byte{0});
      node.node = reinterpret_cast<BlockHeader*>(at);
      store->InitNode(node, places[n].block, tree, 0);
      InitKind(*here.layout, node);
      run_blocks += blocks;
    }
    list.Resize(here.count);
    for (uint32_t i = 0; i < here.count; ++i) {
      constexpr uint64_t kAhead = 16;
      const uint64_t e = here.begin + i;
      if (e + kAhead < order.size()) {
        const uint32_t ahead = order[e + kAhead];
        __builtin_prefetch(lo(ahead));
        if (borrowed_lo != nullptr) __builtin_prefetch(hi(ahead));
        __builtin_prefetch(borrowed_lo != nullptr ? &borrowed_ids[ahead] : &ids[ahead]);
      }
      CopyCoords(list.mutable_lo(i), lo(order[e]), spec.dims);
      CopyCoords(list.mutable_lo(i) + spec.dims, hi(order[e]), spec.dims);
      const uint64_t record_id = id(order[e]);
      XT_ASSERT(record_id <= kRecordIdMax);
      list.SetId(i, record_id);
    }
    here.layout->Build(node.node, list, nullptr, here.count,
                       here.layout->group_size == plan->shares().group_size);
    leaves.Set(n, here.layout->Bounds(node.node), node.id);
  }
  return write_run();
}

// Packs what Add took. All leaves are staged first, then filled by all threads.
Status BulkLoader::State::PackAdded() {
  const uint32_t threads = options.threads;
  const uint64_t entries = added();
  if (plan == nullptr) {
    plan = std::make_unique<LeafPlan>(spec, options.leaf_fill_percent, entries,
                                      [this](uint64_t i) { return RunFrom(i); }, threads);
  }
  XT_RETURN_IF_ERROR(ReserveAll(plan->leaves_max()));
  const std::vector<uint32_t> order = KdOrder(
      spec.dims,
      [this](uint64_t begin, uint64_t end, float* centres) {
        for (uint64_t i = begin; i < end;) {
          const LeafPlan::Run run = RunFrom(i);
          const double* low = run.lo;
          const double* high = run.hi;
          for (; i < std::min(end, run.end); ++i, low += run.stride, high += run.stride) {
            for (uint32_t d = 0; d < spec.dims; ++d) *centres++ = CentreOf(low[d], high[d]);
          }
        }
      },
      plan->shares(), threads, [this] { return options.cancelled(); });
  XT_RETURN_IF_ERROR(Cancelled());  // The order is none then.
  const std::vector<LeafPlan::Leaf> planned = plan->Leaves(order);
  std::vector<Place> places(planned.size());
  for (size_t n = 0; n < places.size(); ++n) {
    XT_RETURN_IF_ERROR(StageLeaf(*planned[n].layout, &places[n]));
  }
  leaves.Resize(places.size());
  std::vector<Status> statuses(threads);
  RunThreads(threads, [&](uint32_t t) {
    statuses[t] = FillLeaves(planned, order, places, places.size() * t / threads, places.size() * (t + 1) / threads);
  });
  for (Status& status : statuses) XT_RETURN_IF_ERROR(std::move(status));
  return Cancelled();
}

// Packs `pending` into leaves, a run at a time; all of it at the end. A run is a stretch of the curve
// long enough that arranging it anew hides the curve's bends.
Status BulkLoader::State::PackPending(bool all) {
  // Two runs' worth are kept back, so that the last leaves can share.
  if (!all && pending.size() < 2 * run_entries) return Status::Ok();
  const LeafPlan run(spec, options.leaf_fill_percent, all ? pending.size() : run_entries,
                     [this](uint64_t i) {
                       const auto e = static_cast<uint32_t>(i);
                       return LeafPlan::Run{pending.lo(e), pending.hi(e), size_t{2} * spec.dims, pending.size()};
                     }, 1);
  const NodeShares& shares = run.shares();
  XT_RETURN_IF_ERROR(ReserveAll(run.leaves_max()));
  std::vector<float> centres;
  centres.reserve(shares.entries * spec.dims);
  for (uint32_t e = 0; e < shares.entries; ++e) {
    for (uint32_t d = 0; d < spec.dims; ++d) {
      centres.push_back(CentreOf(pending.lo(e)[d], pending.hi(e)[d]));
    }
  }
  const std::vector<uint32_t> order = KdOrder(spec.dims, centres.data(), shares, 1);
  for (const LeafPlan::Leaf& here : run.Leaves(order)) {
    NodeRef node;
    XT_RETURN_IF_ERROR(Stage(*here.layout, 0, &node));
    here.layout->Build(node.node, pending, &order[here.begin], here.count,
                       here.layout->group_size == shares.group_size);
    leaves.Add(here.layout->Bounds(node.node), node.id);
  }
  EntryList rest(spec.dims);
  for (auto e = static_cast<uint32_t>(shares.entries); e < pending.size(); ++e) {
    rest.Add(pending.lo(e), pending.hi(e), pending.id(e));
  }
  pending = std::move(rest);
  return Status::Ok();
}

Status BulkLoader::AddSorted(const double* lo, const double* hi, const uint64_t* record_ids,
                             uint32_t count) {
  State& s = *state_;
  XT_ASSERT(s.added() == 0);
  // Packing comes first, since it may ask for memory; the batch is then taken without fail.
  XT_RETURN_IF_ERROR(s.PackPending(false));
  for (uint32_t i = 0; i < count; ++i) {
    XT_ASSERT(record_ids[i] <= kRecordIdMax);
    const double* key = lo + uint64_t{i} * s.spec.dims;
    s.pending.Add(key, s.leaf.corners == 1 ? key : hi + uint64_t{i} * s.spec.dims, record_ids[i]);
  }
  s.sorted_entries += count;
  return Status::Ok();
}

// Packs level after level until one node is left.
Status BulkLoader::State::PackUpper(NodeRef* root, uint32_t* height) {
  NodeList below = std::move(leaves);
  uint32_t level = 0;
  root->id = below.id(0);
  EntryList list(spec.dims);
  while (below.size() > 1) {
    ++level;
    NodeList above(spec.dims);
    const NodeShares shares(below.size(), inner_packed, inner.group_size);
    std::vector<float> centres;
    centres.reserve(below.size() * spec.dims);
    for (uint64_t i = 0; i < below.size(); ++i) {
      const Box32 box = below.Box(i);
      for (uint32_t d = 0; d < spec.dims; ++d) centres.push_back(CentreOf(box.lo[d], box.hi[d]));
    }
    const std::vector<uint32_t> order = KdOrder(spec.dims, centres.data(), shares, options.threads,
                                                [this] { return options.cancelled(); });
    XT_RETURN_IF_ERROR(Cancelled());
    for (uint64_t n = 0; n < shares.nodes; ++n) {
      list.Clear();
      for (uint64_t c = shares.Begin(n); c < shares.Begin(n + 1); ++c) {
        list.Add(below.Box(order[c]), below.id(order[c]).value);
      }
      NodeRef node;
      XT_RETURN_IF_ERROR(Stage(inner, level, &node));
      inner.Build(node.node, list, nullptr, list.size(), true);
      above.Add(inner.Bounds(node.node), node.id);
      *root = node;
    }
    below = std::move(above);
  }
  *height = level + 1;
  return Status::Ok();
}

Status BulkLoader::Finish() {
  State& s = *state_;
  XT_ASSERT(!s.published);
  const uint64_t entries = s.sorted_entries + s.added();
  if (entries == 0) return Status::Ok();
  if (s.sorted_entries == 0) {
    XT_RETURN_IF_ERROR(s.PackAdded());
  } else {
    XT_RETURN_IF_ERROR(s.PackPending(true));
  }
  NodeRef root;
  uint32_t height = 0;
  XT_RETURN_IF_ERROR(s.PackUpper(&root, &height));
  s.store->Publish();
  s.published = true;
  // A reader that finds the root must find its node, so the root is named after it is published.
  TreeShared& shared = s.store->shared()->trees[s.tree];
  shared.entries.store(entries, std::memory_order_relaxed);
  shared.height.store(height, std::memory_order_relaxed);
  for (uint32_t l = 0; l < height; ++l) {
    shared.nodes_by_level[l].store(s.nodes_by_level[l], std::memory_order_relaxed);
  }
  shared.root.store(root.id.value, std::memory_order_release);
  return Status::Ok();
}

}  // namespace xtree
