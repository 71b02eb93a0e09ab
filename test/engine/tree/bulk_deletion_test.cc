// Goal: deleting while scanning, as VACUUM does, leaves nothing behind that was to go, gives space back
//   meanwhile, and knows when a scan that has renewed its epoch may have missed something.
// Method: VACUUM's loop in miniature (am/xtvacuum.c), with insertions that split leaves between its
//   steps; the model says what must be left.
#include <gtest/gtest.h>

#include <functional>

#include "tree/tree_fixture.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

constexpr uint32_t kBatchMax = 300;

enum class Hints { kNone, kLeaves, kSlots, kWrongSlots };

// Deletes ids that are multiples of `modulus`, leaf by leaf, in batches.
class Vacuum {
 public:
  Vacuum(TestTree* tree, uint64_t modulus)
      : tree_(tree), modulus_(modulus), reader_(tree->epochs.get(), 0), scan_(&tree->store) {}
  bool renew = true;
  Hints hints = Hints::kSlots;
  // Called after each leaf.
  std::function<void()> disturb = [] {};

  // Whether the pass may have missed something.
  bool Pass() {
    uint64_t ids[kScanBatchMin];
    WindowScan::Leaf leaf;
    uint32_t count = 0;
    deletions_ = 0;
    renewals = 0;
    uint64_t renewed_at = 0;
    EXPECT_TRUE(scan_.Begin(&reader_, kTreeMain, Predicate::All()).ok());
    const uint64_t first_epoch = scan_.epoch();
    for (;;) {
      const Status status = scan_.NextLeaf(ids, kScanBatchMin, &leaf, &count);
      EXPECT_TRUE(status.ok()) << status.message();
      if (!status.ok() || count == 0) break;
      if (leaf.new_parent) Flush();
      Add(leaf, ids, count);
      if (renew && deletions_ > renewed_at) {
        EXPECT_TRUE(scan_.Renew().ok());
        renewed_at = deletions_;
        ++renewals;
      }
      disturb();
    }
    Flush();
    const bool missed =
        renewals > 0 && (scan_.lost() || tree_->store.shared()->published_epoch.load() !=
                                             first_epoch + deletions_);
    scan_.End();
    return missed;
  }
  uint32_t renewals = 0;
  uint32_t unhinted = 0;  // Deletions that did not find everything at once.

 private:
  void Add(const WindowScan::Leaf& leaf, const uint64_t* ids, uint32_t count) {
    std::vector<uint64_t> dead;
    std::vector<uint16_t> slots;
    for (uint32_t i = 0; i < count; ++i) {
      if (ids[i] % modulus_ == 0) {
        dead.push_back(ids[i]);
        slots.push_back(static_cast<uint16_t>(hints == Hints::kWrongSlots && i % 3 == 0 ? i + 1 : i));
      }
      const Key& key = tree_->model.at(ids[i]);
      for (uint32_t d = 0; d < 2; ++d) {
        EXPECT_LE(leaf.bounds.lo[d], key.lo[d]);
        EXPECT_GE(leaf.bounds.hi[d], key.hi[d]);
      }
    }
    if (dead.empty()) return;
    if (dead_.size() + dead.size() > kBatchMax) Flush();
    if (dead_.empty()) bounds_.Clear(2);
    bounds_.Extend(2, leaf.bounds);
    dead_.insert(dead_.end(), dead.begin(), dead.end());
    slots_.insert(slots_.end(), slots.begin(), slots.end());
    leaves_.push_back(leaf.id.value);
    ends_.push_back(static_cast<uint32_t>(dead_.size()));
  }
  void Flush() {
    if (dead_.empty()) return;
    Key bound;
    for (uint32_t d = 0; d < 2; ++d) {
      bound.lo[d] = bounds_.lo[d];
      bound.hi[d] = bounds_.hi[d];
    }
    uint32_t present = 0;
    for (const uint64_t id : dead_) present += tree_->model.count(id);
    uint32_t found = 0;
    LeafHint hint;
    if (hints != Hints::kNone) {
      hint = LeafHint{leaves_.data(), static_cast<uint32_t>(leaves_.size()), nullptr, nullptr};
    }
    if (hints >= Hints::kSlots) {
      hint.ends = ends_.data();
      hint.slots = slots_.data();
    }
    const Status status = tree_->tree.PrepareDelete(
        bound, dead_.data(), static_cast<uint32_t>(dead_.size()), &found, hint);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(found, present);
    if (found != 0) {
      tree_->tree.Apply();
      ++deletions_;
    } else {
      tree_->tree.Discard();
    }
    for (const uint64_t id : dead_) tree_->model.erase(id);
    dead_.clear();
    slots_.clear();
    leaves_.clear();
    ends_.clear();
  }

  TestTree* const tree_;
  const uint64_t modulus_;
  EpochReader reader_;
  WindowScan scan_;
  std::vector<uint64_t> dead_;
  std::vector<uint16_t> slots_;
  std::vector<uint64_t> leaves_;
  std::vector<uint32_t> ends_;
  Box32 bounds_;
  uint64_t deletions_ = 0;
};

uint64_t CountMultiples(const TestTree& tree, uint64_t modulus) {
  uint64_t count = 0;
  for (const auto& [id, key] : tree.model) count += id % modulus == 0;
  return count;
}

void Fill(TestTree* tree, uint64_t count) {
  KeyMaker keys(tree->spec, 1);
  for (uint64_t id = 0; id < count; ++id) tree->Insert(keys.Next(), id);
}

TEST(BulkDeletion, OfAnyShareLeavesNothingBehind) {
  for (const uint64_t modulus : {100u, 10u, 2u, 1u}) {
    for (const bool renew : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "every " << modulus << "th, renewing: " << renew);
      TestTree tree(kBoxes2);
      Fill(&tree, 12000);
      Vacuum vacuum(&tree, modulus);
      vacuum.renew = renew;
      if (vacuum.Pass()) {
        // Its own merges can make a node disappear that it has yet to visit.
        vacuum.renew = false;
        EXPECT_FALSE(vacuum.Pass());
      } else if (renew && modulus < 100) {
        EXPECT_GT(vacuum.renewals, 2u);
      }
      EXPECT_EQ(CountMultiples(tree, modulus), 0u);
      tree.Check();
    }
  }
}

TEST(BulkDeletion, GivesSpaceBackWhileItScans) {
  uint32_t blocks[2];
  for (const bool renew : {false, true}) {
    TestTree tree(kBoxes2);
    Fill(&tree, 30000);
    Vacuum vacuum(&tree, 10);
    vacuum.renew = renew;
    vacuum.Pass();
    blocks[renew] = tree.store.allocator()->file_blocks();
  }
  EXPECT_LT(blocks[1] * 3, blocks[0] * 2);
}

TEST(BulkDeletion, BesideSplitsKnowsWhenItMayHaveMissedSomething) {
  uint32_t missed_passes = 0;
  uint32_t really_missed = 0;
  for (uint32_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(seed);
    TestTree tree(kBoxes2);
    Fill(&tree, 6000);
    KeyMaker keys(kBoxes2, 100 + seed);
    Vacuum vacuum(&tree, 7);
    uint64_t next_id = 1000001;
    uint32_t leaves = 0;
    vacuum.disturb = [&] {
      if (++leaves % 4 != 0) return;
      // Into one place, so that leaves split there, and splits reach their parents.
      const Key key = keys.Next();
      for (uint32_t i = 0; i < 300; ++i, ++next_id) {
        if (next_id % 7 != 0) tree.Insert(key, next_id);
      }
    };
    const bool missed = vacuum.Pass();
    const uint64_t left = CountMultiples(tree, 7);
    missed_passes += missed;
    really_missed += left != 0;
    if (!missed) {
      EXPECT_EQ(left, 0u);
    } else {
      vacuum.renew = false;
      EXPECT_FALSE(vacuum.Pass());
    }
    EXPECT_EQ(CountMultiples(tree, 7), 0u);
    tree.Check();
  }
  // Otherwise this test would not notice a scan that never doubts.
  EXPECT_GT(missed_passes, 0u);
  EXPECT_GT(really_missed, 0u);
}

TEST(BulkDeletion, AnOldEpochMissesNothingBesideSplits) {
  TestTree tree(kBoxes2);
  Fill(&tree, 10000);
  KeyMaker keys(kBoxes2, 5);
  Vacuum vacuum(&tree, 7);
  vacuum.renew = false;
  uint64_t next_id = 1000001;
  vacuum.disturb = [&] {
    const Key key = keys.Next();
    for (uint32_t i = 0; i < 100; ++i, ++next_id) {
      if (next_id % 7 != 0) tree.Insert(key, next_id);
    }
  };
  EXPECT_FALSE(vacuum.Pass());
  EXPECT_EQ(CountMultiples(tree, 7), 0u);
  tree.Check();
}

TEST(BulkDeletion, TheSameWithHintsAndWithout) {
  std::vector<uint64_t> hashes;
  for (const Hints hints : {Hints::kNone, Hints::kLeaves, Hints::kSlots, Hints::kWrongSlots}) {
    TestTree tree(kBoxes2);
    Fill(&tree, 20000);
    Vacuum vacuum(&tree, 5);
    vacuum.hints = hints;
    vacuum.Pass();
    EXPECT_EQ(CountMultiples(tree, 5), 0u);
    hashes.push_back(tree.Hash());
  }
  for (const uint64_t hash : hashes) EXPECT_EQ(hash, hashes[0]);
}

}  // namespace
}  // namespace xtree
