// What the tests of the tree share: a store whose allocations fail on demand, a tree with a plain
// model beside it, and walks that look at everything a scan could see.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "store/memory_store.h"
#include "tree/checker.h"
#include "tree/node_layout.h"
#include "tree/random_keys.h"
#include "tree/xtree.h"

namespace xtree {

// Fails the Nth staging call from now on, once.
class FlakyStore : private MemoryStoreParts, public NodeStore {
 public:
  FlakyStore(const KeySpec& spec, EpochShared* epochs)
      : NodeStore(&index_shared, &file_system, &budget, epochs, "flaky", ChunkSource::kHeap) {
    XT_ASSERT(InitShared(&index_shared, IndexOptions{spec, 90}).ok());
    XT_ASSERT(ReserveSegments(0).ok() && allocator()->CreateFile().ok());
  }
  void FailAt(int64_t call) { calls_left_ = call; }
  bool failed() const { return calls_left_ < 0; }

  Result<NodeRef> StageNew(uint32_t tree, uint8_t level, uint32_t order) override {
    if (Fails()) return Failure();
    return NodeStore::StageNew(tree, level, order);
  }
  Result<NodeRef> StageVersion(NodeId id, uint32_t tree, uint8_t level, uint32_t order) override {
    if (Fails()) return Failure();
    return NodeStore::StageVersion(id, tree, level, order);
  }
  Status StageFree(NodeId id) override {
    if (Fails()) return Failure();
    return NodeStore::StageFree(id);
  }

 private:
  bool Fails() { return calls_left_ >= 0 && calls_left_-- == 0; }
  static Status Failure() { return Status::Make(Code::kNoSpace, "no space, as the test wants it"); }
  int64_t calls_left_ = INT64_MAX;
};

class Epochs {
 public:
  explicit Epochs(uint32_t slots = 16)
      : memory_(EpochShared::BytesFor(slots) / sizeof(EpochSlot) + 1) {
    InitEpochShared(get(), slots);
  }
  EpochShared* get() { return reinterpret_cast<EpochShared*>(memory_.data()); }

 private:
  std::vector<EpochSlot> memory_;
};

// Hash of a node version's used bytes.
inline uint64_t HashNode(const BlockHeader* node) {
  uint64_t hash = 1469598103934665603u;
  const auto* words = reinterpret_cast<const uint64_t*>(node);
  for (uint64_t i = 0; i < (uint64_t{kBlockBytes} << node->order) / 8; ++i) {
    hash = (hash ^ words[i]) * 1099511628211u;
    hash ^= hash >> 29;
  }
  return hash;
}

class TestTree {
 public:
  explicit TestTree(const KeySpec& key_spec)
      : spec(key_spec), store(spec, epochs.get()), tree(&store, kTreeMain) {}

  TreeShared& shared() { return store.shared()->trees[kTreeMain]; }
  uint32_t dims() const { return spec.dims; }

  Status TryInsert(const Key& key, uint64_t id) {
    Status status = tree.PrepareInsert(key, id);
    if (!status.ok()) {
      tree.Discard();
      return status;
    }
    tree.Apply();
    model[id] = key;
    return Status::Ok();
  }
  void Insert(const Key& key, uint64_t id) {
    const Status status = TryInsert(key, id);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  // Smallest box around the keys of `ids`, unbounded where one has a NaN.
  Key Bound(const std::vector<uint64_t>& ids) const {
    Key bound;
    for (uint32_t d = 0; d < spec.dims; ++d) {
      bound.lo[d] = std::numeric_limits<double>::infinity();
      bound.hi[d] = -bound.lo[d];
      for (const uint64_t id : ids) {
        const auto at = model.find(id);
        if (at == model.end()) continue;
        const Key& key = at->second;
        const bool nan = std::isnan(key.lo[d]) || std::isnan(key.hi[d]);
        const double inf = std::numeric_limits<double>::infinity();
        bound.lo[d] = std::min(bound.lo[d], nan ? -inf : key.lo[d]);
        bound.hi[d] = std::max(bound.hi[d], nan ? inf : key.hi[d]);
      }
    }
    return bound;
  }
  Status TryDelete(std::vector<uint64_t> ids, uint32_t* found) {
    const Key bound = Bound(ids);
    std::sort(ids.begin(), ids.end());
    Status status =
        tree.PrepareDelete(bound, ids.data(), static_cast<uint32_t>(ids.size()), found);
    if (!status.ok()) {
      tree.Discard();
      return status;
    }
    tree.Apply();
    for (const uint64_t id : ids) model.erase(id);
    return Status::Ok();
  }
  void Delete(const std::vector<uint64_t>& ids) {
    uint32_t present = 0;
    for (const uint64_t id : ids) present += model.count(id);
    uint32_t found = 0;
    const Status status = TryDelete(ids, &found);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(found, present);
  }

  // As a checkpoint does: from now on, what is published is not changed any more.
  void Capture() {
    CaptureShared& capture = store.shared()->capture;
    const uint64_t epoch = store.shared()->published_epoch.load();
    capture.pending_epoch = epoch;
    capture.durable_epoch = epoch;
    store.ReleaseCaptured();
  }

  // Calls visit(ref) for each node that a reader at `epoch` reaches from `root`.
  template <class Visit>
  void ForEachNode(uint64_t root, uint64_t epoch, Visit visit) {
    if (root == 0) return;
    const WindowPin pin(store.windows());
    std::vector<uint64_t> to_visit{root};
    while (!to_visit.empty()) {
      Result<NodeRef> ref = store.Lookup(NodeId{to_visit.back()}, epoch);
      to_visit.pop_back();
      ASSERT_TRUE(ref.ok()) << ref.status().message();
      visit(*ref);
      if (ref->node->level == 0) continue;
      const NodeLayout& layout = NodeLayout::Inner(spec);
      const uint32_t count = layout.Count(ref->node);
      for (uint32_t e = 0; e < count; ++e) to_visit.push_back(layout.Id(ref->node, e));
    }
  }
  // All entries, which must be different ones, that a reader at `epoch` finds.
  std::map<uint64_t, Key> Entries(uint64_t root, uint64_t epoch) {
    std::map<uint64_t, Key> entries;
    ForEachNode(root, epoch, [&](const NodeRef& ref) {
      if (ref.node->level > 0) return;
      const NodeLayout& layout = NodeLayout::Of(spec, *ref.node);
      const uint32_t count = layout.Count(ref.node);
      for (uint32_t e = 0; e < count; ++e) {
        Key key;
        layout.ReadKey(ref.node, e, key.lo, key.hi);
        EXPECT_TRUE(entries.emplace(layout.Id(ref.node, e), key).second) << "an entry twice";
      }
    });
    return entries;
  }
  uint64_t Hash() {
    uint64_t hash = shared().root.load() ^ shared().entries.load() << 20;
    hash ^= uint64_t{shared().height.load()} << 48 ^ uint64_t{shared().supernodes.load()} << 54;
    for (const auto& nodes : shared().nodes_by_level) hash = hash * 31 + nodes.load();
    ForEachNode(shared().root.load(), ~uint64_t{0},
                [&](const NodeRef& ref) { hash += HashNode(ref.node); });
    return hash;
  }

  bool SameKey(const Key& a, const Key& b) const {
    const auto same = [](double x, double y) {
      return (x == y && std::signbit(x) == std::signbit(y)) || (std::isnan(x) && std::isnan(y));
    };
    for (uint32_t d = 0; d < spec.dims; ++d) {
      if (!same(a.lo[d], b.lo[d])) return false;
      if (!same(spec.kind == KeyKind::kPoint ? b.lo[d] : a.hi[d],
                spec.kind == KeyKind::kPoint ? b.lo[d] : b.hi[d])) {
        return false;
      }
    }
    return true;
  }
  // The tree holds what the model holds, and the checker is content.
  void Check() {
    const std::map<uint64_t, Key> entries = Entries(shared().root.load(), ~uint64_t{0});
    ASSERT_EQ(entries.size(), model.size());
    auto want = model.begin();
    for (const auto& [id, key] : entries) {
      ASSERT_EQ(id, want->first);
      ASSERT_TRUE(SameKey(key, want->second)) << "entry " << id;
      ++want;
    }
    ASSERT_EQ(shared().entries.load(), model.size());
    const WindowPin pin(store.windows());
    TreeReport report;
    const Status status = CheckTree(&store, kTreeMain, store.shared()->published_epoch.load(),
                                    true, &report);
    ASSERT_TRUE(status.ok()) << status.message();
    for (const std::string& problem : report.problems) ADD_FAILURE() << problem;
    ASSERT_TRUE(report.problems.empty());
    ASSERT_EQ(report.height, shared().height.load());
  }

  const KeySpec spec;
  Epochs epochs;
  FlakyStore store;
  XTree tree;
  std::map<uint64_t, Key> model;
};

// Random keys around a few hundred centres; every tenth has a corner that others have too.
class KeyMaker {
 public:
  KeyMaker(const KeySpec& spec, uint32_t seed) : spec_(spec), random_(seed) {}
  Key Next() {
    std::uniform_real_distribution<double> place(-1000, 1000);
    std::uniform_real_distribution<double> extent(0, 10);
    Key key;
    for (uint32_t d = 0; d < spec_.dims; ++d) {
      double lo = place(random_);
      if (random_() % 10 == 0) lo = std::floor(lo / 100) * 100;
      double hi = spec_.kind == KeyKind::kPoint ? lo : lo + extent(random_);
      if (spec_.coord == CoordType::kF32) {
        lo = static_cast<float>(lo);
        hi = static_cast<float>(hi);
      }
      key.lo[d] = lo;
      key.hi[d] = hi;
    }
    return key;
  }
  std::mt19937& random() { return random_; }

 private:
  const KeySpec spec_;
  std::mt19937 random_;
};

inline KeySpec Spec(uint32_t dims, CoordType coord, KeyKind kind) {
  return KeySpec{static_cast<uint8_t>(dims), coord, kind};
}
inline std::vector<KeySpec> SomeSpecs() {
  std::vector<KeySpec> specs;
  for (const uint32_t dims : {1u, 2u, 3u, 8u, 16u, 32u}) {
    for (const CoordType coord : {CoordType::kF64, CoordType::kF32}) {
      for (const KeyKind kind : {KeyKind::kBox, KeyKind::kPoint}) {
        specs.push_back(Spec(dims, coord, kind));
      }
    }
  }
  return specs;
}
inline std::string ParamName(const ::testing::TestParamInfo<KeySpec>& info) {
  return std::to_string(info.param.dims) + (info.param.coord == CoordType::kF64 ? "F64" : "F32") +
         (info.param.kind == KeyKind::kBox ? "Boxes" : "Points");
}

}  // namespace xtree
