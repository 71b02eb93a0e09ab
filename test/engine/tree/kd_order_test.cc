// Goal: an arrangement is a permutation whose nodes and groups are compact, with any values, in any
//   number of dimensions and threads.
// Method: tiles of a square must not overlap; the same data through each way of splitting.
#include "tree/kd_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tree/random_keys.h"

namespace xtree {
namespace {

std::vector<float> UniformCentres(uint32_t dims, uint64_t n) {
  RandomKeys random(KeySpec{1, CoordType::kF64, KeyKind::kPoint}, 91);
  std::vector<float> centres;
  for (uint64_t i = 0; i < n * dims; ++i) {
    centres.push_back(static_cast<float>(random.Uniform(0, 1)));
  }
  return centres;
}

void ExpectPermutation(const std::vector<uint32_t>& order, uint64_t n) {
  ASSERT_EQ(order.size(), n);
  std::vector<bool> seen(n);
  for (const uint32_t i : order) {
    ASSERT_LT(i, n);
    ASSERT_FALSE(seen[i]);
    seen[i] = true;
  }
}

// Sum over runs of the order of the volume of each run's box.
double Volume(uint32_t dims, const std::vector<float>& centres, const std::vector<uint32_t>& order,
              const std::vector<uint64_t>& begins) {
  double total = 0;
  for (size_t r = 0; r + 1 < begins.size(); ++r) {
    double volume = 1;
    for (uint32_t d = 0; d < dims; ++d) {
      float lo = HUGE_VALF, hi = -HUGE_VALF;
      for (uint64_t e = begins[r]; e < begins[r + 1]; ++e) {
        lo = std::min(lo, centres[order[e] * size_t{dims} + d]);
        hi = std::max(hi, centres[order[e] * size_t{dims} + d]);
      }
      volume *= hi - lo;
    }
    total += volume;
  }
  return total;
}

TEST(NodeShares, DealWholeGroupsEvenly) {
  for (const uint64_t n : {1u, 15u, 16u, 17u, 192u, 193u, 1000u, 12345u}) {
    const NodeShares shares(n, 192, 16);
    EXPECT_EQ(shares.Begin(0), 0u);
    EXPECT_EQ(shares.Begin(shares.nodes), n);
    uint64_t least = n, most = 0;
    for (uint64_t i = 0; i < shares.nodes; ++i) {
      EXPECT_EQ(shares.Begin(i) % 16, 0u);
      const uint64_t share = shares.Begin(i + 1) - shares.Begin(i);
      EXPECT_LE(share, 192u);
      least = std::min(least, (share + 15) / 16);
      most = std::max(most, (share + 15) / 16);
    }
    EXPECT_LE(most - least, 1u);
  }
  EXPECT_EQ(NodeShares(0, 192, 16).nodes, 0u);
}

TEST(KdOrder, TilesSpaceWithNodesAndGroups) {
  for (const uint32_t dims : {1u, 2u, 3u, 4u}) {
    SCOPED_TRACE(dims);
    const uint64_t n = 20011;
    const std::vector<float> centres = UniformCentres(dims, n);
    const NodeShares shares(n, 192, 16);
    const std::vector<uint32_t> order = KdOrder(dims, centres.data(), shares, 1);
    ExpectPermutation(order, n);
    std::vector<uint64_t> nodes, groups;
    for (uint64_t i = 0; i <= shares.nodes; ++i) nodes.push_back(shares.Begin(i));
    for (uint64_t e = 0; e < n; e += 16) groups.push_back(e);
    groups.push_back(n);
    EXPECT_LE(Volume(dims, centres, order, nodes), 1);
    EXPECT_LE(Volume(dims, centres, order, groups), 1);
  }
}

// Of what is sampled, every so many entries, the first halving takes those that lie elsewhere than all others.
TEST(KdOrder, IsNotMisledByASampleOfOtherThanMostEntries) {
  for (const uint32_t dims : {1u, 2u, 3u, 4u}) {
    SCOPED_TRACE(dims);
    const uint64_t n = 65536;
    std::vector<float> centres = UniformCentres(dims, n);
    for (uint64_t i = 0; i < n; i += 64) centres[i * dims] += 2;
    const NodeShares shares(n, 192, 16);
    const std::vector<uint32_t> order = KdOrder(dims, centres.data(), shares, 1);
    ExpectPermutation(order, n);
    std::vector<uint64_t> nodes;
    for (uint64_t i = 0; i <= shares.nodes; ++i) nodes.push_back(shares.Begin(i));
    // All of space between the two kinds may belong to one node.
    EXPECT_LE(Volume(dims, centres, order, nodes), 3);
  }
}

TEST(KdOrder, DoesNotDependOnThreads) {
  const std::vector<float> centres = UniformCentres(2, 50000);
  const NodeShares shares(50000, 192, 16);
  const std::vector<uint32_t> one = KdOrder(2, centres.data(), shares, 1);
  for (const uint32_t threads : {2u, 3u, 8u}) EXPECT_EQ(KdOrder(2, centres.data(), shares, threads), one);
}

TEST(KdOrder, TakesAnyValues) {
  constexpr uint64_t kAny = 40000;
  for (const uint32_t dims : {1u, 2u, 3u, 8u}) {
    RandomKeys random(KeySpec{1, CoordType::kF64, KeyKind::kPoint}, 92);
    random.nan = true;
    for (const int special_percent : {20, 100}) {
      random.special_percent = special_percent;
      std::vector<float> centres;
      for (uint64_t i = 0; i < kAny * dims; ++i) {
        centres.push_back(CentreOf(random.Coordinate(), random.Coordinate()));
        ASSERT_TRUE(std::isfinite(centres.back()));
      }
      ExpectPermutation(KdOrder(dims, centres.data(), NodeShares(kAny, 50, 16), 2), kAny);
    }
    // All alike, and all but one.
    std::vector<float> centres(kAny * dims, 7.0f);
    ExpectPermutation(KdOrder(dims, centres.data(), NodeShares(kAny, 50, 16), 1), kAny);
    centres[5] = 8;
    ExpectPermutation(KdOrder(dims, centres.data(), NodeShares(kAny, 50, 16), 1), kAny);
    centres[5] = 7 + 1e-6f;
    centres[6] = -1e38f;
    ExpectPermutation(KdOrder(dims, centres.data(), NodeShares(kAny, 50, 16), 1), kAny);
  }
}

}  // namespace
}  // namespace xtree
