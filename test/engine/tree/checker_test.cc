// Goal: the checker is content with sound trees and names every kind of damage.
// Method: one kind of damage at a time, done to the bytes of a small packed tree.
#include "tree/checker.h"

#include <gtest/gtest.h>

#include <functional>

#include "tree/scan_helpers.h"

namespace xtree {
namespace {


class CheckerTest : public ::testing::Test {
 protected:
  CheckerTest() : tree_(kBoxes2), pin_(tree_.store.windows()) {
    RandomKeys random(kBoxes2, 81);
    random.special_percent = 0;  // Infinite boxes would hide what is moved out of them.
    FillModel(&tree_, &random, 2000);
    BulkLoad(&tree_);
    root_ = tree_.store.LookupNewest(NodeId{tree_.shared().root.load()}).value().node;
    leaf_ = tree_.store.LookupNewest(inner().Child(root_, 0)).value().node;
  }
  const NodeLayout& inner() const { return NodeLayout::Inner(kBoxes2); }
  const NodeLayout& leaf() const { return NodeLayout::Of(kBoxes2, *leaf_); }

  TreeReport Check() {
    TreeReport report;
    const Status status = CheckTree(&tree_.store, kTreeMain,
                                    tree_.store.shared()->published_epoch.load(), true, &report);
    EXPECT_TRUE(status.ok()) << status.message();
    return report;
  }
  void ExpectProblem(const char* words) {
    const TreeReport report = Check();
    bool found = false;
    std::string all;
    for (const std::string& problem : report.problems) {
      found = found || problem.find(words) != std::string::npos;
      all += problem + "\n";
    }
    EXPECT_TRUE(found) << "no \"" << words << "\" in:\n" << all;
  }

  TestTree tree_;
  WindowPin pin_;
  BlockHeader* root_;
  BlockHeader* leaf_;
};

TEST_F(CheckerTest, IsContentWithASoundTree) {
  const TreeReport report = Check();
  EXPECT_TRUE(report.problems.empty()) << report.problems[0];
  EXPECT_EQ(report.entries, 2000u);
  EXPECT_EQ(report.height, 2u);
  EXPECT_EQ(report.levels[0].nodes, tree_.shared().nodes_by_level[0].load());
  EXPECT_EQ(report.levels[0].capacity, report.levels[0].nodes * 208);
  EXPECT_EQ(report.levels[1].entries, report.levels[0].nodes);
}

TEST_F(CheckerTest, IsContentWithAnEmptyTree) {
  TestTree empty(kBoxes2);
  TreeReport report;
  ASSERT_TRUE(CheckTree(&empty.store, kTreeMain, 1, true, &report).ok());
  EXPECT_TRUE(report.problems.empty());
  EXPECT_EQ(report.height, 0u);
}

TEST_F(CheckerTest, FindsAKeyOutsideItsGroupAndNode) {
  double lo[2], hi[2];
  leaf().ReadKey(leaf_, 3, lo, hi);
  auto* row = reinterpret_cast<double*>(const_cast<std::byte*>(leaf().Coords(leaf_, 0)));
  row[16 + 3] = 1e305;  // hi of dimension 0.
  ExpectProblem("is outside its group's box");
  ExpectProblem("reaches beyond its box in its parent");
}

TEST_F(CheckerTest, FindsSwappedCorners) {
  auto* row = reinterpret_cast<double*>(const_cast<std::byte*>(leaf().Coords(leaf_, 0)));
  row[5] = 2;
  row[16 + 5] = 1;
  ExpectProblem("has its corners swapped");
}

TEST_F(CheckerTest, FindsAGroupBoxThatIsTooSmall) {
  const_cast<float*>(inner().GroupLo(root_, 1))[0] = 1e30f;
  ExpectProblem("is outside its group's box");
}

TEST_F(CheckerTest, FindsAChildBoxThatIsTooSmall) {
  auto* row = reinterpret_cast<float*>(const_cast<std::byte*>(inner().Coords(root_, 0)));
  row[0] = 3e38f;   // Child 0: nothing but the far end.
  row[16] = 3e38f;
  ExpectProblem("reaches beyond its box in its parent");
}

TEST_F(CheckerTest, FindsWrongHeaders) {
  const std::function<void()> damages[] = {
      [&] { leaf_->tree = 1; }, [&] { leaf_->order = 1; }, [&] { leaf_->extent_index = 1; },
      [&] { leaf_->kind = BlockKind::kInner; },
      [&] { leaf_->kind = static_cast<BlockKind>(static_cast<int>(BlockKind::kDecimalLeaf) - 1); },
      [&] { leaf_->kind = DecimalLeafKind(kDecimalScaleMax + 1); },
      [&] { leaf_->kind = leaf_->kind == BlockKind::kLeaf ? DecimalLeafKind(5) : BlockKind::kLeaf; },
      [&] { ++leaf_->block_number; },
  };
  for (const auto& damage : damages) {
    const BlockHeader saved = *leaf_;
    damage();
    EXPECT_FALSE(Check().problems.empty());
    *leaf_ = saved;
  }
  EXPECT_TRUE(Check().problems.empty());
}

TEST_F(CheckerTest, FindsANodeOfAnotherName) {
  leaf_->node_id ^= 1;
  ExpectProblem("holds node");
}

TEST_F(CheckerTest, FindsWrongLevelsAndEndsOnACycle) {
  // Child 0 of the root is the root.
  auto* ids = reinterpret_cast<uint64_t*>(const_cast<std::byte*>(inner().GroupIds(root_, 0)));
  ids[0] = tree_.shared().root.load();
  ExpectProblem("but its parent is on level");
}

TEST_F(CheckerTest, FindsAChildWithTwoParents) {
  auto* ids = reinterpret_cast<uint64_t*>(const_cast<std::byte*>(inner().GroupIds(root_, 0)));
  ids[1] = ids[0];
  ExpectProblem("has two parents");
}

TEST_F(CheckerTest, FindsACountBeyondTheCapacityAndAnEmptyNode) {
  const uint32_t count = leaf_->count;
  leaf_->count = 209;
  ExpectProblem("holds 209 entries, of 208");
  leaf_->count = 0;
  ExpectProblem("is empty");
  leaf_->count = count;
  EXPECT_TRUE(Check().problems.empty());
}

TEST_F(CheckerTest, FindsARecordIdTwice) {
  auto* low = reinterpret_cast<uint32_t*>(const_cast<std::byte*>(leaf().GroupIds(leaf_, 0)));
  auto* high = reinterpret_cast<uint16_t*>(low + 16);
  low[0] = low[1];
  high[0] = high[1];
  ExpectProblem("is in the tree more than once");
}

TEST_F(CheckerTest, FindsStatisticsThatAreOff) {
  ++tree_.shared().entries;
  ExpectProblem("the tree has 2000 entries, but 2001 are recorded");
  --tree_.shared().entries;
  ++tree_.shared().nodes_by_level[1];
  ExpectProblem("inner nodes on a level");
  --tree_.shared().nodes_by_level[1];
  ++tree_.shared().supernodes;
  ExpectProblem("supernodes");
}

TEST_F(CheckerTest, FindsANodeThatIsNotThere) {
  auto* ids = reinterpret_cast<uint64_t*>(const_cast<std::byte*>(inner().GroupIds(root_, 0)));
  ids[0] ^= uint64_t{1} << 50;  // Another tag: a stale name.
  EXPECT_FALSE(Check().problems.empty());
}

TEST_F(CheckerTest, CollectsTheBoxesOfALevel) {
  std::vector<double> leaves, root, none;
  const uint64_t epoch = tree_.store.shared()->published_epoch.load();
  ASSERT_TRUE(CollectBoxes(&tree_.store, kTreeMain, epoch, 0, UINT64_MAX, &leaves).ok());
  ASSERT_TRUE(CollectBoxes(&tree_.store, kTreeMain, epoch, 1, UINT64_MAX, &root).ok());
  ASSERT_TRUE(CollectBoxes(&tree_.store, kTreeMain, epoch, 2, UINT64_MAX, &none).ok());
  EXPECT_EQ(leaves.size(), 4 * tree_.shared().nodes_by_level[0].load());
  ASSERT_EQ(root.size(), 4u);
  EXPECT_TRUE(none.empty());
  for (size_t i = 0; i < leaves.size(); i += 4) {
    EXPECT_LE(root[0], leaves[i]);
    EXPECT_GE(root[3], leaves[i + 3]);
  }
}

}  // namespace
}  // namespace xtree
