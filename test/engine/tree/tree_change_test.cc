// Goal: a change does at Apply what was prepared, in the promised order, and nothing before.
// Method: changes put together by hand on a small tree; blocks and statistics looked at between.
#include "tree/tree_change.h"

#include "tree/tree_fixture.h"

namespace xtree {
namespace {

// A tree of two leaves under a root, and the nodes by hand.
class TreeChangeTest : public ::testing::Test {
 protected:
  TreeChangeTest() : t_(kBoxes2), change_(&t_.store, kTreeMain) {
    KeyMaker keys(kBoxes2, 1);
    uint64_t id = 0;
    while (t_.shared().height.load() < 2) t_.Insert(keys.Next(), id++);
  }
  NodeRef Root() { return *change_.Find(change_.root(), 1); }
  NodeRef Leaf(uint32_t i) {
    return *change_.Find(change_.inner_layout().Child(Root().node, i), 0);
  }

  TestTree t_;
  TreeChange change_;
};

TEST_F(TreeChangeTest, EditsWaitForApply) {
  const NodeRef root = Root();
  const NodeRef leaf = Leaf(0);
  const Key far{{5000, 5000}, {5001, 5001}};
  const Box32 box = Box32::Around(2, far.lo, far.hi);
  const uint64_t before = t_.Hash();
  ASSERT_TRUE(change_.Begin().ok());
  change_.WidenLater(root, 0, box);
  change_.AppendLater(leaf, far, 77);
  change_.AddEntries(1);
  EXPECT_EQ(t_.Hash(), before);
  change_.Apply();
  EXPECT_FALSE(change_.active());
  EXPECT_TRUE(change_.inner_layout().ChildBox(root.node, 0).Contains(2, box));
  EXPECT_TRUE(*t_.tree.Contains(far, 77));
  t_.model[77] = far;
}

TEST_F(TreeChangeTest, EditedBlocksLoseTheirStamp) {
  const NodeRef root = Root();
  const NodeRef leaf = Leaf(1);
  StampBlock(root.node, 1234);
  StampBlock(leaf.node, 1234);
  const Key far{{5000, 5000}, {5001, 5001}};
  ASSERT_TRUE(change_.Begin().ok());
  change_.WidenLater(root, 1, Box32::Around(2, far.lo, far.hi));
  change_.AppendLater(leaf, far, 77);
  EXPECT_EQ(BlockLsn(*root.node), 1234u);
  change_.Apply();
  EXPECT_EQ(BlockLsn(*root.node), kLsnUnstamped);
  EXPECT_EQ(BlockLsn(*leaf.node), kLsnUnstamped);
}

TEST_F(TreeChangeTest, CopiesAreWholeAndInvisible) {
  const NodeRef root = Root();
  ASSERT_TRUE(change_.Begin().ok());
  Result<NodeRef> copy = change_.StageCopy(root);
  ASSERT_TRUE(copy.ok());
  EXPECT_NE(copy->node, root.node);
  EXPECT_EQ(copy->node->count, root.node->count);
  EXPECT_EQ(copy->node->split_dims, root.node->split_dims);
  EXPECT_EQ(std::memcmp(copy->node + 1, root.node + 1, kBlockPayloadBytes), 0);
  EXPECT_EQ(Root().node, root.node);
  const uint64_t epoch = t_.store.shared()->published_epoch.load();
  change_.Apply();
  EXPECT_EQ(Root().node, copy->node);
  EXPECT_EQ(Root().node->birth_epoch, epoch + 1);
  t_.Check();
}

TEST_F(TreeChangeTest, StatisticsFollowTheNodes) {
  const NodeLayout& leaf = NodeLayout::ExactLeaf(t_.spec);
  const uint32_t large = change_.inner_layout().base_order + 1u;
  ASSERT_TRUE(change_.Begin().ok());
  ASSERT_TRUE(change_.StageNew(change_.inner_layout(), 1, large, 0).ok());
  ASSERT_TRUE(change_.StageNew(leaf, 0, leaf.base_order, 0).ok());
  change_.AddHeight(3);
  EXPECT_EQ(t_.shared().supernodes.load(), 0u);
  EXPECT_EQ(t_.shared().nodes_by_level[1].load(), 1u);
  change_.Apply();
  EXPECT_EQ(t_.shared().supernodes.load(), 1u);
  EXPECT_EQ(t_.shared().nodes_by_level[1].load(), 2u);
  EXPECT_EQ(t_.shared().nodes_by_level[0].load(), 3u);
  EXPECT_EQ(t_.shared().height.load(), 5u);
}

TEST_F(TreeChangeTest, DiscardForgetsEverything) {
  const uint64_t before = t_.Hash();
  ASSERT_TRUE(change_.Begin().ok());
  ASSERT_TRUE(change_.StageNew(NodeLayout::ExactLeaf(t_.spec), 0, 0, 0).ok());
  ASSERT_TRUE(change_.StageFree(Leaf(0)).ok());
  change_.SetRoot(NodeId{});
  change_.AddEntries(-5);
  change_.Discard();
  change_.Discard();  // Nothing left to discard.
  ASSERT_TRUE(change_.Begin().ok());
  change_.Apply();
  EXPECT_EQ(t_.Hash(), before);
}

TEST_F(TreeChangeTest, AMisplacedNodeIsCorruption) {
  const NodeRef leaf = Leaf(0);
  Result<NodeRef> wrong = change_.Find(leaf.id, 1);
  EXPECT_EQ(wrong.status().code(), Code::kCorruption);
  leaf.node->node_id ^= 1;
  wrong = change_.Find(leaf.id, 0);
  EXPECT_EQ(wrong.status().code(), Code::kCorruption);
  EXPECT_NE(std::strstr(wrong.status().message(), "block"), nullptr);
  leaf.node->node_id ^= 1;
  leaf.node->tree = kTreeNull;
  EXPECT_EQ(change_.Find(leaf.id, 0).status().code(), Code::kCorruption);
  leaf.node->tree = kTreeMain;
  EXPECT_TRUE(change_.Find(leaf.id, 0).ok());
}

TEST_F(TreeChangeTest, InsertionThroughADamagedNodeFailsAndChangesNothing) {
  const NodeRef root = Root();
  const uint64_t before = t_.Hash();
  const uint32_t count = root.node->count;
  root.node->count = 0;
  const Status status = t_.TryInsert(Key{{1, 1}, {2, 2}}, 999999);
  EXPECT_EQ(status.code(), Code::kCorruption);
  root.node->count = count;
  EXPECT_EQ(t_.Hash(), before);
}

}  // namespace
}  // namespace xtree
