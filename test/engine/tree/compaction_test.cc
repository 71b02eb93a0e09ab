// Goal: a leaf without some of its entries holds exactly the others, in their order, in groups whose
//   boxes are as tight as if each entry had been written anew.
// Method: for every shape of key, special values among them, random sets of entries to remove, none
//   and all included; against the entries read back one by one.
#include "tree/compaction.h"

#include <gtest/gtest.h>

#include <vector>

#include "tree/random_keys.h"

namespace xtree {
namespace {

// A node outside of any store.
class LooseNode {
 public:
  explicit LooseNode(uint32_t order) : blocks_(size_t{1} << order) {
    for (uint32_t i = 0; i < 1u << order; ++i) {
      InitBlock(NodeLayout::Block(node(), i), BlockKind::kLeaf, i);
      NodeLayout::Block(node(), i)->order = static_cast<uint8_t>(order);
    }
  }
  BlockHeader* node() { return reinterpret_cast<BlockHeader*>(blocks_.data()); }

 private:
  struct alignas(kBlockBytes) Block {
    std::byte bytes[kBlockBytes];
  };
  std::vector<Block> blocks_;
};

struct Compaction : ::testing::TestWithParam<TestLeaf> {
  const NodeLayout& layout = *GetParam().layout;
  RandomKeys random{GetParam(), 7};

  // A leaf of `count` entries whose ids use all 48 bits.
  void Fill(LooseNode* leaf, uint32_t count) {
    for (uint32_t e = 0; e < count; ++e) {
      const Key key = random.NextKey();
      layout.Append(leaf->node(), key.lo, key.hi, random.Below(kRecordIdMax + 1));
    }
  }
  // The entries of `leaf` that stay, written one by one.
  void CopyOneByOne(const BlockHeader* leaf, const LeafEntries& removed, LooseNode* to) {
    double lo[kDimsMax], hi[kDimsMax];
    for (uint32_t e = 0; e < layout.Count(leaf); ++e) {
      if (removed[e]) continue;
      layout.ReadKey(leaf, e, lo, hi);
      layout.Append(to->node(), lo, hi, layout.Id(leaf, e));
    }
  }
  void ExpectSame(const BlockHeader* a, const BlockHeader* b) {
    ASSERT_EQ(layout.Count(a), layout.Count(b));
    double a_lo[kDimsMax], a_hi[kDimsMax], b_lo[kDimsMax], b_hi[kDimsMax];
    for (uint32_t e = 0; e < layout.Count(a); ++e) {
      ASSERT_EQ(layout.Id(a, e), layout.Id(b, e));
      layout.ReadKey(a, e, a_lo, a_hi);
      layout.ReadKey(b, e, b_lo, b_hi);
      ASSERT_EQ(std::memcmp(a_lo, b_lo, layout.dims * sizeof(double)), 0);
      ASSERT_EQ(std::memcmp(a_hi, b_hi, layout.dims * sizeof(double)), 0);
    }
    for (uint32_t i = 0; i < 1u << a->order; ++i) {
      const BlockHeader* block_a = NodeLayout::Block(a, i);
      const BlockHeader* block_b = NodeLayout::Block(b, i);
      const uint32_t groups =
          (NodeLayout::BlockCount(block_a) + layout.group_size - 1) / layout.group_size;
      for (uint32_t d = 0; d < layout.dims; ++d) {
        for (uint32_t g = 0; g < groups; ++g) {
          ASSERT_EQ(layout.GroupLo(block_a, d)[g], layout.GroupLo(block_b, d)[g]);
          ASSERT_EQ(layout.GroupHi(block_a, d)[g], layout.GroupHi(block_b, d)[g]);
        }
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, Compaction, ::testing::ValuesIn(TestLeaves()),
                         [](const auto& info) {
                           std::string name = LeafName(info.param);
                           std::erase_if(name, [](char c) { return !std::isalnum(c); });
                           return name;
                         });

TEST_P(Compaction, LeavesTheOthersAsIfTheyHadBeenWrittenAlone) {
  for (const int percent : {0, 1, 10, 50, 90, 100}) {
    for (const bool nan : {false, true}) {
      SCOPED_TRACE(::testing::Message() << percent << " percent removed, NaN: " << nan);
      random.nan = nan;
      random.special_percent = nan ? 10 : 2;
      LooseNode leaf(layout.base_order), compact(layout.base_order), expected(layout.base_order);
      LooseNode portable(layout.base_order);
      Fill(&leaf, layout.base_capacity() - static_cast<uint32_t>(random.Below(20)));
      LeafEntries removed;
      for (uint32_t e = 0; e < layout.Count(leaf.node()); ++e) {
        if (static_cast<int>(random.Below(100)) < percent) removed.set(e);
      }
      CopyWithout(layout, leaf.node(), removed, compact.node());
      CopyWithoutPortably(layout, leaf.node(), removed, portable.node());
      CopyOneByOne(leaf.node(), removed, &expected);
      ExpectSame(compact.node(), expected.node());
      ExpectSame(portable.node(), expected.node());
      // Nor is anything else written: a leaf without entries at its end has zeros there.
      ASSERT_EQ(std::memcmp(compact.node() + 1, portable.node() + 1, kBlockPayloadBytes), 0);
    }
  }
}

TEST_P(Compaction, BoundsAreThoseOfWhatStays) {
  for (const uint32_t removals : {0u, 1u, 5u, 40u}) {
    random.nan = true;
    LooseNode leaf(layout.base_order), expected(layout.base_order);
    Fill(&leaf, layout.base_capacity());
    LeafEntries removed;
    for (uint32_t i = 0; i < removals; ++i) removed.set(random.Below(layout.base_capacity()));
    CopyOneByOne(leaf.node(), removed, &expected);
    const Box32 bounds = BoundsWithout(layout, leaf.node(), removed);
    const Box32 want = layout.Bounds(expected.node());
    for (uint32_t d = 0; d < layout.dims; ++d) {
      ASSERT_EQ(bounds.lo[d], want.lo[d]);
      ASSERT_EQ(bounds.hi[d], want.hi[d]);
    }
  }
}

TEST_P(Compaction, OfEverythingHasTheEmptyBox) {
  LooseNode leaf(layout.base_order);
  Fill(&leaf, layout.base_capacity());
  LeafEntries all;
  for (uint32_t e = 0; e < layout.base_capacity(); ++e) all.set(e);
  const Box32 bounds = BoundsWithout(layout, leaf.node(), all);
  EXPECT_GT(bounds.lo[0], bounds.hi[0]);
}

}  // namespace
}  // namespace xtree
