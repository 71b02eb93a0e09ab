// Goal: the chosen child is the one that the criteria name, whatever the node's size and
// dimensions.
// Method: nodes of random children on heap blocks, compared with a plain restatement; the vector
// kernels are compared with the portable ones on the same blocks, stale slots included.
#include "tree/choose_subtree.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>

namespace xtree {
namespace {

constexpr float kFloatInf = std::numeric_limits<float>::infinity();

// A directory node on the heap. What nobody wrote is not zero, as in a reused extent.
class HeapNode {
 public:
  HeapNode(const NodeLayout& layout, uint32_t order) : layout_(layout) {
    bytes_ = static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, kBlockBytes << order));
    std::memset(bytes_, 0x5b, size_t{kBlockBytes} << order);
    for (uint32_t i = 0; i < 1u << order; ++i) {
      BlockHeader* block = NodeLayout::Block(node(), i);
      std::memset(static_cast<void*>(block), 0, sizeof(BlockHeader));
      block->order = static_cast<uint8_t>(order);
      block->level = 1;
    }
  }
  ~HeapNode() { std::free(bytes_); }
  HeapNode(const HeapNode&) = delete;
  BlockHeader* node() { return reinterpret_cast<BlockHeader*>(bytes_); }
  void Add(const Box32& box) {
    boxes_.push_back(box);
    layout_.AppendChild(node(), box, NodeId{boxes_.size()});
  }
  const std::vector<Box32>& boxes() const { return boxes_; }

 private:
  const NodeLayout& layout_;
  std::byte* bytes_;
  std::vector<Box32> boxes_;
};

const NodeLayout& InnerLayout(uint32_t dims) {
  return NodeLayout::Inner(KeySpec{static_cast<uint8_t>(dims), CoordType::kF64, KeyKind::kBox});
}

Box32 RandomBox(std::mt19937* random, uint32_t dims, float extent_max) {
  std::uniform_real_distribution<float> place(0, 100);
  std::uniform_real_distribution<float> extent(0, extent_max);
  Box32 box;
  for (uint32_t d = 0; d < dims; ++d) {
    box.lo[d] = place(*random);
    box.hi[d] = box.lo[d] + extent(*random);
  }
  return box;
}

double MarginGrowth(uint32_t dims, const Box32& box, const Box32& key) {
  double growth = 0;
  for (uint32_t d = 0; d < dims; ++d) {
    growth += std::max(0.0f, box.lo[d] - key.lo[d]) + std::max(0.0f, key.hi[d] - box.hi[d]);
  }
  return growth;
}

double Volume(uint32_t dims, const Box32& box) {
  double volume = 1;
  for (uint32_t d = 0; d < dims; ++d) volume *= double{box.hi[d]} - double{box.lo[d]};
  return volume;
}

double Shared(uint32_t dims, const Box32& a, const Box32& b) {
  double volume = 1;
  for (uint32_t d = 0; d < dims; ++d) {
    const double lo = std::max(a.lo[d], b.lo[d]);
    const double hi = std::min(a.hi[d], b.hi[d]);
    volume *= std::max(0.0, hi - lo);
  }
  return volume;
}

double OverlapGrowth(uint32_t dims, const std::vector<Box32>& boxes, uint32_t entry,
                     const Box32& key) {
  Box32 after = boxes[entry];
  after.Extend(dims, key);
  double growth = 0;
  for (uint32_t i = 0; i < boxes.size(); ++i) {
    if (i == entry) continue;
    growth += Shared(dims, boxes[i], after) - Shared(dims, boxes[i], boxes[entry]);
  }
  return growth;
}

class ChooseSubtreeInDimensions : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Dims, ChooseSubtreeInDimensions,
                         ::testing::Values(1u, 2u, 3u, 5u, 8u, 16u, 31u, 32u));

TEST_P(ChooseSubtreeInDimensions, CoveringChildOfLeastVolumeWins) {
  const uint32_t dims = GetParam();
  const NodeLayout& layout = InnerLayout(dims);
  std::mt19937 random(dims);
  for (const uint32_t order : {uint32_t{layout.base_order}, 2u + layout.base_order}) {
    HeapNode node(layout, order);
    const uint32_t capacity = layout.Capacity(order);
    uint32_t covered = 0;
    while (node.boxes().size() < capacity) {
      node.Add(RandomBox(&random, dims, node.boxes().size() % 4 == 0 ? 100 : 20));
      const Box32 key = RandomBox(&random, dims, 0.5f);
      const ChildChoice choice = ChooseSubtree(layout, node.node(), key);
      double least = kFloatInf;
      for (const Box32& box : node.boxes()) {
        if (box.Contains(dims, key)) least = std::min(least, Volume(dims, box));
      }
      ASSERT_EQ(choice.covers, least < kFloatInf);
      if (!choice.covers) continue;
      ++covered;
      ASSERT_TRUE(node.boxes()[choice.entry].Contains(dims, key));
      ASSERT_EQ(Volume(dims, node.boxes()[choice.entry]), least);
    }
    if (dims <= 3) {
      EXPECT_GT(covered, capacity / 10);
    }
  }
}

TEST_P(ChooseSubtreeInDimensions, ElseLeastMarginGrowthUnlessItOverlapsMore) {
  const uint32_t dims = GetParam();
  const NodeLayout& layout = InnerLayout(dims);
  std::mt19937 random(dims + 100);
  HeapNode node(layout, layout.base_order + 1);
  const uint32_t capacity = layout.Capacity(layout.base_order + 1u);
  while (node.boxes().size() < capacity) {
    node.Add(RandomBox(&random, dims, 5));
    if (node.boxes().size() % 5 != 0) continue;
    const Box32 key = RandomBox(&random, dims, 2);
    const ChildChoice choice = ChooseSubtree(layout, node.node(), key);
    if (choice.covers) continue;
    double least_growth = kFloatInf;
    double least_overlap = kFloatInf;
    for (uint32_t i = 0; i < node.boxes().size(); ++i) {
      least_growth = std::min(least_growth, MarginGrowth(dims, node.boxes()[i], key));
      least_overlap = std::min(least_overlap, OverlapGrowth(dims, node.boxes(), i, key));
    }
    const double growth = MarginGrowth(dims, node.boxes()[choice.entry], key);
    const double overlap = OverlapGrowth(dims, node.boxes(), choice.entry, key);
    if (growth <= least_growth * (1 + 1e-5)) continue;
    // Another than the least growing one must overlap less than that one would.
    for (uint32_t i = 0; i < node.boxes().size(); ++i) {
      if (MarginGrowth(dims, node.boxes()[i], key) == least_growth) {
        ASSERT_LE(overlap, OverlapGrowth(dims, node.boxes(), i, key));
        ASSERT_GT(OverlapGrowth(dims, node.boxes(), i, key), 0);
      }
    }
    ASSERT_GE(overlap * (1 + 1e-6) + 1e-9, least_overlap);
  }
}

TEST_P(ChooseSubtreeInDimensions, VectorKernelsEqualPortableOnes) {
  const uint32_t dims = GetParam();
  const NodeLayout& layout = InnerLayout(dims);
  const ChooseKernels& fast = ChooseKernels::For(dims);
  const ChooseKernels& plain = ChooseKernels::Portable();
  std::mt19937 random(dims + 200);
  HeapNode node(layout, 0);
  while (node.boxes().size() < layout.block_capacity) {
    node.Add(RandomBox(&random, dims, 60));
    const auto count = static_cast<uint32_t>(node.boxes().size());
    const uint32_t groups = (count + layout.group_size - 1) >> layout.group_shift;
    const Box32 key = RandomBox(&random, dims, 10);
    ASSERT_EQ(fast.match_groups(layout, node.node(), groups, key.lo, key.hi),
              plain.match_groups(layout, node.node(), groups, key.lo, key.hi));
    ASSERT_EQ(fast.match_groups(layout, node.node(), groups, key.hi, key.lo),
              plain.match_groups(layout, node.node(), groups, key.hi, key.lo));
    float a[kGroupsMax + 8], b[kGroupsMax + 8];
    fast.grow_groups(layout, node.node(), groups, key, a);
    plain.grow_groups(layout, node.node(), groups, key, b);
    for (uint32_t g = 0; g < groups; ++g) ASSERT_FLOAT_EQ(a[g], b[g]);
    const auto* coords = reinterpret_cast<const float*>(layout.Coords(node.node(), groups - 1));
    const uint32_t valid = count % layout.group_size == 0 ? layout.group_size
                                                          : count % layout.group_size;
    const uint32_t lanes = (1u << valid) - 1;
    ASSERT_EQ(fast.match_entries(layout, coords, key.lo, key.hi) & lanes,
              plain.match_entries(layout, coords, key.lo, key.hi) & lanes);
    ASSERT_EQ(fast.match_entries(layout, coords, key.hi, key.lo) >> layout.group_size, 0u);
    fast.grow_entries(layout, coords, key, a);
    plain.grow_entries(layout, coords, key, b);
    for (uint32_t i = 0; i < valid; ++i) ASSERT_FLOAT_EQ(a[i], b[i]);
  }
}

TEST(ChooseSubtree, MarginDecidesBetweenFlatChildren) {
  const NodeLayout& layout = InnerLayout(2);
  HeapNode node(layout, 0);
  node.Add(Box32{{0, 5}, {100, 5}});
  node.Add(Box32{{0, 5}, {10, 5}});
  node.Add(Box32{{0, 5}, {50, 5}});
  const ChildChoice choice = ChooseSubtree(layout, node.node(), Box32{{3, 5}, {4, 5}});
  EXPECT_TRUE(choice.covers);
  EXPECT_EQ(choice.entry, 1u);
}

TEST(ChooseSubtree, UnboundedKeysAndChildrenAreTakenIn) {
  const NodeLayout& layout = InnerLayout(2);
  HeapNode node(layout, 0);
  node.Add(Box32{{0, 0}, {1, 1}});
  node.Add(Box32{{5, 5}, {6, 6}});
  const Box32 everywhere{{-kFloatInf, -kFloatInf}, {kFloatInf, kFloatInf}};
  EXPECT_FALSE(ChooseSubtree(layout, node.node(), everywhere).covers);
  node.Add(everywhere);
  ChildChoice choice = ChooseSubtree(layout, node.node(), everywhere);
  EXPECT_TRUE(choice.covers);
  EXPECT_EQ(choice.entry, 2u);
  // A bounded child is smaller than one without bounds.
  choice = ChooseSubtree(layout, node.node(), Box32{{5.5f, 5.5f}, {5.6f, 5.6f}});
  EXPECT_EQ(choice.entry, 1u);
  const Box32 half{{-kFloatInf, 2}, {kFloatInf, 3}};
  EXPECT_EQ(ChooseSubtree(layout, node.node(), half).entry, 2u);
}

}  // namespace
}  // namespace xtree
