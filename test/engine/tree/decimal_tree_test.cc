// Goal: trees whose leaves are decimal, exact, or become the one from the other, hold what was put in.
// Method: random insertions, deletions and captures beside a model, with odd keys from none to one in
//   five; the checker after each stretch; counts of both kinds, so that the test cannot pass idly.
#include <gtest/gtest.h>

#include "tree/scan_helpers.h"

namespace xtree {
namespace {

struct Kinds {
  uint32_t decimal = 0;
  uint32_t exact = 0;
};

Kinds CountKinds(TestTree* tree) {
  Kinds kinds;
  tree->ForEachNode(tree->shared().root.load(), ~uint64_t{0}, [&](const NodeRef& ref) {
    if (ref.node->level == 0) ++(IsDecimalLeaf(ref.node->kind) ? kinds.decimal : kinds.exact);
  });
  return kinds;
}

std::vector<TestLeaf> DecimalLeaves() {
  std::vector<TestLeaf> leaves = TestLeaves();
  std::erase_if(leaves, [](const TestLeaf& leaf) { return leaf.scale < 0; });
  return leaves;
}

class DecimalTree : public ::testing::TestWithParam<TestLeaf> {
 protected:
  TestTree tree{GetParam().spec};
  RandomKeys random{GetParam(), 21};
  void SetUp() override { random.special_percent = 1; }
  // Some of the entries, from anywhere.
  std::vector<uint64_t> Some(uint64_t count) {
    std::vector<uint64_t> ids;
    for (uint64_t i = 0; i < count && !tree.model.empty(); ++i) {
      auto at = tree.model.lower_bound(random.Below(tree.model.rbegin()->first + 1));
      ids.push_back(at->first);
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, DecimalTree, ::testing::ValuesIn(DecimalLeaves()),
                         [](const auto& info) {
                           std::string name = LeafName(info.param);
                           std::erase_if(name, [](char c) { return !std::isalnum(c); });
                           return name;
                         });

TEST_P(DecimalTree, OfDecimalKeysHasDecimalLeavesOnly) {
  for (uint64_t id = 0; id < 3000; ++id) {
    tree.Insert(random.NextKey(), id);
    if (id % 1000 == 500) tree.Capture();
  }
  tree.Check();
  EXPECT_EQ(CountKinds(&tree).exact, 0u);
}

TEST_P(DecimalTree, TakesOddKeysOfAnyShare) {
  Kinds all;
  uint64_t id = 0;
  for (const uint64_t per_odd : {0u, 500u, 50u, 5u, 0u}) {
    random.keys_per_odd = per_odd;
    for (int i = 0; i < 700; ++i) {
      ASSERT_NO_FATAL_FAILURE(tree.Insert(random.NextKey(), id++));
      if (random.Below(300) == 0) tree.Capture();
      if (random.Below(40) == 0) {
        ASSERT_NO_FATAL_FAILURE(tree.Delete(Some(random.Below(20))));
      }
    }
    tree.Check();
    const Kinds kinds = CountKinds(&tree);
    all.decimal += kinds.decimal;
    all.exact += kinds.exact;
  }
  EXPECT_GT(all.decimal, 0u);
  EXPECT_GT(all.exact, 0u);
  while (!tree.model.empty()) {
    ASSERT_NO_FATAL_FAILURE(tree.Delete(Some(200)));
    if (random.Below(3) == 0) tree.Check();
  }
  tree.Check();
}

TEST_P(DecimalTree, GoesOnFromABulkLoad) {
  FillModel(&tree, &random, 4000);
  BulkLoad(&tree);
  tree.Check();
  EXPECT_EQ(CountKinds(&tree).exact, 0u);
  tree.Capture();
  random.keys_per_odd = 30;
  for (uint64_t id = 0; id < 2000; ++id) {
    ASSERT_NO_FATAL_FAILURE(tree.Insert(random.NextKey(), id << 20 | 1));
    if (id % 100 == 0) {
      ASSERT_NO_FATAL_FAILURE(tree.Delete(Some(100)));
    }
  }
  tree.Check();
  // Mass deletion merges leaves of both kinds.
  while (tree.model.size() > 300) ASSERT_NO_FATAL_FAILURE(tree.Delete(Some(400)));
  tree.Check();
}

TEST_P(DecimalTree, DiscardingAndFailingLeaveItAsItWas) {
  FillModel(&tree, &random, 1500);
  BulkLoad(&tree);
  random.keys_per_odd = 3;
  for (uint64_t id = 0; id < 60; ++id) {
    const Key key = random.NextKey();
    const uint64_t before = tree.Hash();
    tree.store.FailAt(static_cast<int64_t>(random.Below(3)));
    const Status status = tree.TryInsert(key, id << 20 | 1);
    const bool failed = tree.store.failed();
    tree.store.FailAt(INT64_MAX);
    ASSERT_EQ(status.ok(), !failed);
    if (failed) {
      ASSERT_EQ(tree.Hash(), before);
    }
    if (id % 10 == 0) tree.Capture();
  }
  tree.Check();
}

// The two-dimensional shapes that most trees have, to the numbers.
TEST(DecimalLeaf, BecomesExactWhenAnOddKeyComesAndDecimalAgainWhenItIsGone) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kPoint};
  TestTree tree(spec);
  const auto point = [](double x, double y) { return Key{{x, y}, {x, y}}; };
  for (uint64_t id = 0; id < 300; ++id) tree.Insert(point(id * 0.25, 7), id);
  EXPECT_EQ(CountKinds(&tree).decimal, 1u);
  tree.Insert(point(1.0 / 3, 7), 1000);
  EXPECT_EQ(CountKinds(&tree).exact, 1u);
  tree.Delete({1000});
  for (uint64_t id = 300; id < 528; ++id) tree.Insert(point(id * 0.25, 7), id);
  EXPECT_EQ(CountKinds(&tree).decimal, 1u);  // When the exact one was full, at 352.
  EXPECT_EQ(CountKinds(&tree).exact, 0u);
  tree.Insert(point(2.0 / 3, 7), 1001);  // Too many for an exact leaf: the leaf is divided.
  const Kinds kinds = CountKinds(&tree);
  EXPECT_EQ(kinds.decimal, 1u);
  EXPECT_EQ(kinds.exact, 1u);
  tree.Check();
}

TEST(DecimalLeaf, TakesASmallerScaleForALargerKey) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kPoint};
  TestTree tree(spec);
  const auto kind = [&] {
    return tree.store.LookupNewest(NodeId{tree.shared().root.load()})->node->kind;
  };
  uint64_t id = 0;
  for (const double x : {0.125, 20.5, 200.5, 2e3, 2e4, 2e5, 2e6, 2e7, 2e8}) {
    tree.Insert(Key{{x, 1}, {x, 1}}, id);
    EXPECT_EQ(kind(), DecimalLeafKind(std::max(9 - static_cast<int>(id), 3))) << x;
    ++id;
    if (id == 7) break;
  }
  tree.Insert(Key{{2e7, 1}, {2e7, 1}}, id);
  EXPECT_EQ(kind(), BlockKind::kLeaf);  // 0.125 needs three digits, for which that is too large.
  tree.Check();
}

}  // namespace
}  // namespace xtree
