// Goal: a plan puts every entry into one leaf that can hold it, and decimal keys into decimal leaves even
//   if a few keys among them are odd.
#include "tree/leaf_plan.h"

#include <gtest/gtest.h>

#include <set>

#include "tree/random_keys.h"

namespace xtree {
namespace {

constexpr uint32_t kSides = 4;
constexpr uint64_t kEntries = 50'000;

struct LeafPlanTest : ::testing::Test {
  LeafPlanTest() {
    RandomKeys random(TestLeaf{kBoxes2, &NodeLayout::DecimalLeaf(kBoxes2, 7), 7}, 91);
    random.special_percent = 0;
    for (uint64_t i = 0; i < kEntries; ++i) {
      const Key key = random.NextKey();
      sides.insert(sides.end(), {key.lo[0], key.lo[1], key.hi[0], key.hi[1]});
    }
    for (uint32_t i = 0; i < kEntries; ++i) order.push_back(i * 7 % kEntries);
  }
  LeafPlan Plan(uint32_t threads = 1) const {
    // In runs of a hundred.
    const auto run_from = [this](uint64_t i) {
      return LeafPlan::Run{&sides[i * kSides], &sides[i * kSides + 2], kSides, i / 100 * 100 + 100};
    };
    return LeafPlan(kBoxes2, 90, kEntries, run_from, threads);
  }
  // Makes a key odd. The first side only: no other is looked at then.
  void MakeOdd(uint64_t key, double x = 1.0 / 3) { sides[key * kSides] = x; }

  struct Counts {
    uint64_t decimal = 0;
    uint64_t exact = 0;
  };
  // Every entry is in one leaf that takes it, and leaves are no larger than they may be.
  Counts Check(const LeafPlan& plan) const {
    Counts counts;
    uint64_t next = 0;
    const std::vector<LeafPlan::Leaf> leaves = plan.Leaves(order);
    EXPECT_LE(leaves.size(), plan.leaves_max());
    for (const LeafPlan::Leaf& leaf : leaves) {
      EXPECT_EQ(leaf.begin, next);
      EXPECT_GT(leaf.count, 0u);
      EXPECT_LE(leaf.count, leaf.layout->base_capacity());
      ++(leaf.layout->decimal() ? counts.decimal : counts.exact);
      for (next = leaf.begin; next < leaf.begin + leaf.count; ++next) {
        const double* key = &sides[order[next] * kSides];
        EXPECT_TRUE(leaf.layout->Takes(key, key + 2));
      }
    }
    EXPECT_EQ(next, kEntries);
    return counts;
  }

  std::vector<double> sides;
  std::vector<uint32_t> order;
};

TEST_F(LeafPlanTest, DecimalKeysGoToDecimalLeaves) {
  const LeafPlan plan = Plan();
  const Counts counts = Check(plan);
  EXPECT_EQ(counts.exact, 0u);
  EXPECT_EQ(counts.decimal, plan.shares().nodes);
  EXPECT_NEAR(static_cast<double>(kEntries) / static_cast<double>(counts.decimal), 352 * 0.9, 10);
}

TEST_F(LeafPlanTest, AnOddKeyDividesItsLeafInTwoExactOnes) {
  for (const double odd : {1.0 / 3, -0.0, 1e12, kInf, kNan}) {
    SCOPED_TRACE(odd);
    MakeOdd(12'345, odd);
    const LeafPlan plan = Plan();
    const Counts counts = Check(plan);
    EXPECT_EQ(counts.exact, 2u);
    EXPECT_EQ(counts.decimal, plan.shares().nodes - 1);
  }
}

TEST_F(LeafPlanTest, ManyOddKeysMakeAllLeavesExact) {
  for (uint64_t i = 0; i <= kEntries / kKeysPerOdd + 1; ++i) MakeOdd(i * 999);
  const Counts counts = Check(Plan());
  EXPECT_EQ(counts.decimal, 0u);
  EXPECT_NEAR(static_cast<double>(kEntries) / static_cast<double>(counts.exact), 208 * 0.9, 10);
}

TEST_F(LeafPlanTest, ManyLargeKeysMakeAllLeavesExactOrOfASmallerScale) {
  // Too large for the scale that the others need.
  for (uint64_t i = 0; i <= kEntries / kKeysPerOdd + 1; ++i) MakeOdd(i * 999, 1e7);
  EXPECT_EQ(Check(Plan()).decimal, 0u);
  // Two digits are enough for these.
  for (double& side : sides) side = std::round(side * 100) / 100 + 0.0;
  EXPECT_EQ(Check(Plan()).exact, 0u);
}

TEST_F(LeafPlanTest, IsTheSameWithAnyNumberOfThreads) {
  for (uint64_t i = 0; i < 5; ++i) MakeOdd(i * 9'001);
  const LeafPlan one = Plan(1);
  const LeafPlan three = Plan(3);
  Check(three);
  const auto a = one.Leaves(order), b = three.Leaves(order);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].begin, b[i].begin);
    ASSERT_EQ(a[i].layout, b[i].layout);
  }
}

TEST(LeafPlan, OfEveryShapeFitsItsLayouts) {
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    RandomKeys random(leaf, 92);
    random.special_percent = 0;
    const uint32_t sides = leaf.spec.dims * leaf.layout->corners;
    constexpr uint64_t kSome = 9'000;
    std::vector<double> keys;
    for (uint64_t i = 0; i < kSome; ++i) {
      const Key key = random.NextKey();
      keys.insert(keys.end(), key.lo, key.lo + leaf.spec.dims);
      if (leaf.layout->corners == 2) keys.insert(keys.end(), key.hi, key.hi + leaf.spec.dims);
    }
    keys[4'321 * sides] = -0.0;  // Odd.
    for (const uint32_t fill : {10u, 80u, 100u}) {
      const auto run_from = [&](uint64_t i) {
        const double* key = &keys[i * sides];
        return LeafPlan::Run{key, key + (leaf.layout->corners - 1) * leaf.spec.dims, sides, kSome};
      };
      const LeafPlan plan(leaf.spec, fill, kSome, run_from, 2);
      std::vector<uint32_t> order(kSome);
      for (uint32_t i = 0; i < kSome; ++i) order[i] = i;
      uint64_t next = 0;
      for (const LeafPlan::Leaf& planned : plan.Leaves(order)) {
        ASSERT_EQ(planned.begin, next);
        ASSERT_LE(planned.count, planned.layout->base_capacity());
        next += planned.count;
        for (uint64_t e = planned.begin; e < next; ++e) {
          ASSERT_TRUE(planned.layout->Takes(&keys[e * sides], &keys[e * sides] + leaf.spec.dims));
        }
      }
      ASSERT_EQ(next, kSome);
    }
  }
}

}  // namespace
}  // namespace xtree
