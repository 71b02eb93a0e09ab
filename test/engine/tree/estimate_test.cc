// Goal: the estimated share of a window is near the true one where keys are spread as real ones are.
// Method: against counting, over uniform boxes and windows of all sizes; exact in small trees.
#include <gtest/gtest.h>

#include "tree/checker.h"
#include "tree/scan_helpers.h"

namespace xtree {
namespace {

double Estimate(TestTree* tree, const Predicate& p) {
  double fraction = -1;
  const Status status = EstimateFraction(&tree->store, kTreeMain,
                                         tree->store.shared()->published_epoch.load(), p,
                                         &fraction);
  EXPECT_TRUE(status.ok()) << status.message();
  return fraction;
}

Predicate Square(double x, double y, double half) {
  Predicate p = Predicate::All();
  const double at[] = {x, y};
  for (int d = 0; d < 2; ++d) {
    p.lo_max[d] = at[d] + half;
    p.hi_min[d] = at[d] - half;
  }
  return p;
}

TEST(EstimateFraction, IsExactInATreeOfFewLeaves) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  RandomKeys random(spec, 71);
  for (uint64_t id = 0; id < 208; ++id) tree.Insert(random.NextKey(), id);
  for (int q = 0; q < 200; ++q) {
    const Predicate p = random.NextPredicate();
    ASSERT_DOUBLE_EQ(Estimate(&tree, p),
                     static_cast<double>(Expected(tree, p).size()) / 208.0);
  }
}

TEST(EstimateFraction, IsNearTheTruthForWindowsOfAllSizes) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  RandomKeys random(spec, 72);
  for (uint64_t id = 0; id < 60000; ++id) {
    Key key;
    for (int d = 0; d < 2; ++d) {
      key.lo[d] = random.Uniform(0, 1000);
      key.hi[d] = key.lo[d] + random.Uniform(0, 1);
    }
    tree.model[id] = key;
  }
  BulkLoad(&tree);
  for (const double half : {2.0, 10.0, 50.0, 300.0}) {
    for (int q = 0; q < 20; ++q) {
      const Predicate p = Square(random.Uniform(0, 1000), random.Uniform(0, 1000), half);
      const double truth = static_cast<double>(Expected(tree, p).size()) / 60000;
      EXPECT_NEAR(Estimate(&tree, p), truth, 0.3 * truth + 0.0005) << half;
    }
  }
}

TEST(EstimateFraction, CoversTheEnds) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  EXPECT_EQ(Estimate(&tree, Predicate::All()), 0);  // Empty.
  RandomKeys random(spec, 73);
  FillModel(&tree, &random, 30000);
  BulkLoad(&tree);
  EXPECT_NEAR(Estimate(&tree, Predicate::All()), 1, 1e-9);
  Predicate none = Predicate::All();
  none.lo_max[0] = -1;
  none.lo_min[0] = 1;
  EXPECT_EQ(Estimate(&tree, none), 0);
}

TEST(SampleEntries, GivesNeighboursOfOneLeaf) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  uint64_t ids[64];
  uint32_t count = 1;
  const auto sample = [&](double place, uint32_t capacity) {
    return SampleEntries(&tree.store, kTreeMain, tree.store.shared()->published_epoch.load(), place,
                         ids, capacity, &count);
  };
  ASSERT_TRUE(sample(0.5, 64).ok());
  EXPECT_EQ(count, 0u);  // Empty.
  RandomKeys random(spec, 74);
  for (uint64_t id = 0; id < 30000; ++id) {
    Key key;
    for (int d = 0; d < 2; ++d) key.lo[d] = key.hi[d] = random.Uniform(0, 1000);
    tree.model[id] = key;
  }
  BulkLoad(&tree);
  for (const double place : {0.0, 0.3, 0.9, 1.0}) {
    ASSERT_TRUE(sample(place, 64).ok());
    ASSERT_EQ(count, 64u);
    for (uint32_t i = 0; i < count; ++i) {
      // A leaf has some 190 of them: a square of 80.
      EXPECT_NEAR(tree.model.at(ids[i]).lo[0], tree.model.at(ids[0]).lo[0], 200) << place;
      EXPECT_NEAR(tree.model.at(ids[i]).lo[1], tree.model.at(ids[0]).lo[1], 200) << place;
      for (uint32_t k = 0; k < i; ++k) EXPECT_NE(ids[i], ids[k]);
    }
  }
  ASSERT_TRUE(sample(0.5, 3).ok());
  EXPECT_EQ(count, 3u);
}

}  // namespace
}  // namespace xtree
