// Goal: what is written into a node is read back exactly, group boxes bound their entries tightly and
//   outward, and in-place changes only ever widen.
// Method: for every shape of key, random entries with special values, against plain vectors.
#include "tree/node_layout.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <set>
#include <thread>
#include <vector>

#include "tree/random_keys.h"

namespace xtree {
namespace {

bool SameBits(double a, double b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

void ExpectGroupsBound(const NodeLayout& l, const BlockHeader* node) {
  double lo[kDimsMax], hi[kDimsMax];
  const uint32_t count = l.Count(node);
  for (uint32_t e = 0; e < count; ++e) {
    l.ReadKey(node, e, lo, hi);
    const BlockHeader* block = NodeLayout::Block(node, e / l.block_capacity);
    const uint32_t group = e % l.block_capacity / l.group_size;
    for (uint32_t d = 0; d < l.dims; ++d) {
      if (std::isnan(lo[d]) || std::isnan(hi[d])) {
        EXPECT_EQ(l.GroupLo(block, d)[group], -HUGE_VALF);
        EXPECT_EQ(l.GroupHi(block, d)[group], HUGE_VALF);
      } else {
        EXPECT_LE(l.GroupLo(block, d)[group], lo[d]);
        EXPECT_GE(l.GroupHi(block, d)[group], hi[d]);
      }
    }
  }
}

TEST(Rounding, IsOutwardAndTight) {
  RandomKeys random(KeySpec{1, CoordType::kF64, KeyKind::kPoint}, 1);
  random.special_percent = 20;
  for (int i = 0; i < 100000; ++i) {
    const double x = random.Coordinate() * (random.Below(2) ? 1 : 1e37);
    const float down = RoundDown(x), up = RoundUp(x);
    ASSERT_LE(down, x);
    ASSERT_GE(up, x);
    if (static_cast<double>(static_cast<float>(x)) == x) {
      ASSERT_EQ(down, x);
      ASSERT_EQ(up, x);
    } else {
      ASSERT_EQ(std::nextafterf(down, HUGE_VALF), up);
    }
  }
}

TEST(Rounding, OfValuesBeyondFloatsKeepsTheFiniteSideFinite) {
  EXPECT_EQ(RoundDown(1e300), FLT_MAX);
  EXPECT_EQ(RoundUp(1e300), HUGE_VALF);
  EXPECT_EQ(RoundDown(-1e300), -HUGE_VALF);
  EXPECT_EQ(RoundUp(-1e300), -FLT_MAX);
  EXPECT_EQ(RoundDown(HUGE_VAL), HUGE_VALF);
  EXPECT_EQ(RoundUp(-HUGE_VAL), -HUGE_VALF);
  EXPECT_EQ(RoundDown(kNan), -HUGE_VALF);
  EXPECT_EQ(RoundUp(kNan), HUGE_VALF);
}

TEST(NodeLayout, FillsTheBlockWithGroups) {
  const KeySpec box2{2, CoordType::kF64, KeyKind::kBox};
  const KeySpec point2{2, CoordType::kF64, KeyKind::kPoint};
  EXPECT_EQ(NodeLayout::ExactLeaf(box2).block_capacity, 208u);
  EXPECT_EQ(NodeLayout::ExactLeaf(point2).block_capacity, 352u);
  EXPECT_EQ(NodeLayout::DecimalLeaf(box2, 7).block_capacity, 352u);
  EXPECT_EQ(NodeLayout::DecimalLeaf(point2, 0).block_capacity, 528u);
  EXPECT_EQ(NodeLayout::Inner(box2).block_capacity, 320u);
  for (uint8_t dims = 1; dims <= kDimsMax; ++dims) {
    for (int i = 0; i < 8; ++i) {
      const KeySpec spec{dims, i & 1 ? CoordType::kF32 : CoordType::kF64,
                         i & 2 ? KeyKind::kPoint : KeyKind::kBox};
      const NodeLayout& l = i & 4 ? NodeLayout::ExactLeaf(spec) : NodeLayout::Inner(spec);
      EXPECT_GE(l.base_capacity(), kNodeEntriesMin);
      EXPECT_LE(l.block_capacity, kGroupsMax * kGroupSizeMax);
      const uint32_t end = l.coords_offset + l.groups * l.group_coord_bytes;
      EXPECT_LE(end, kBlockBytes);
      EXPECT_LE(l.ids_offset + l.groups * l.group_id_bytes, l.coords_offset);
      // Another group would not fit into what is left, which may have to be kept for whole vectors.
      EXPECT_LT(kBlockBytes - end, l.group_coord_bytes + l.group_id_bytes + 8u * dims + 64);
    }
  }
}

TEST(NodeLayout, AppendedEntriesAreReadBackExactly) {
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    const KeySpec& spec = leaf.spec;
    HeapNode heap(*leaf.layout, leaf.layout->base_order);
    const NodeLayout& l = heap.layout();
    RandomKeys random(leaf, 2);
    random.nan = true;
    std::vector<Key> keys;
    for (uint32_t e = 0; e < l.Capacity(heap.node()->order); ++e) {
      keys.push_back(random.NextKey());
      l.Append(heap.node(), keys[e].lo, keys[e].hi, kRecordIdMax - e);
      ASSERT_EQ(l.Count(heap.node()), e + 1);
    }
    double lo[kDimsMax], hi[kDimsMax];
    for (uint32_t e = 0; e < keys.size(); ++e) {
      l.ReadKey(heap.node(), e, lo, hi);
      for (uint32_t d = 0; d < spec.dims; ++d) {
        ASSERT_TRUE(SameBits(lo[d], keys[e].lo[d]));
        ASSERT_TRUE(SameBits(hi[d], keys[e].hi[d]));
      }
      ASSERT_EQ(l.Id(heap.node(), e), kRecordIdMax - e);
    }
    ExpectGroupsBound(l, heap.node());
  }
}

TEST(NodeLayout, ReadsChosenEntriesOfABlockAsOneByOne) {
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    const KeySpec& spec = leaf.spec;
    HeapNode heap(*leaf.layout, leaf.layout->base_order);
    const NodeLayout& l = heap.layout();
    RandomKeys random(leaf, 5);
    random.nan = true;
    for (uint32_t e = 0; e < l.block_capacity; ++e) {
      const Key key = random.NextKey();
      l.Append(heap.node(), key.lo, key.hi, kRecordIdMax - 3 * e);
    }
    std::vector<uint16_t> slots;
    for (uint32_t e = 0; e < l.block_capacity; ++e) {
      if (random.Below(3) != 0) slots.push_back(static_cast<uint16_t>(e));
    }
    const auto count = static_cast<uint32_t>(slots.size());
    std::vector<uint64_t> ids(count), ids_alone(count);
    std::vector<double> lo(count * spec.dims), hi(count * spec.dims), lo_alone(count * spec.dims);
    l.ReadEntries(heap.node(), slots.data(), count, ids.data(), lo.data(), hi.data());
    l.ReadEntries(heap.node(), slots.data(), count, ids_alone.data(), lo_alone.data(), nullptr);
    for (uint32_t i = 0; i < count; ++i) {
      double want_lo[kDimsMax], want_hi[kDimsMax];
      l.ReadKey(heap.node(), slots[i], want_lo, want_hi);
      ASSERT_EQ(ids[i], l.Id(heap.node(), slots[i]));
      ASSERT_EQ(ids_alone[i], ids[i]);
      for (uint32_t d = 0; d < spec.dims; ++d) {
        ASSERT_TRUE(SameBits(lo[i * spec.dims + d], want_lo[d]));
        ASSERT_TRUE(SameBits(hi[i * spec.dims + d], want_hi[d]));
        ASSERT_TRUE(SameBits(lo_alone[i * spec.dims + d], want_lo[d]));
      }
    }
  }
}

TEST(NodeLayout, BuildKeepsAllEntriesAndBoundsThem) {
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    const KeySpec& spec = leaf.spec;
    HeapNode heap(*leaf.layout, leaf.layout->base_order + 1);
    const NodeLayout& l = heap.layout();
    RandomKeys random(leaf, 3);
    random.nan = true;
    const auto count =
        static_cast<uint32_t>(l.Capacity(heap.node()->order) - random.Below(l.group_size));
    EntryList list(spec.dims);
    for (uint32_t e = 0; e < count; ++e) {
      const Key key = random.NextKey();
      list.Add(key.lo, key.hi, e);
    }
    l.Build(heap.node(), list, nullptr, count);
    ASSERT_EQ(l.Count(heap.node()), count);
    EntryList read(spec.dims);
    l.ReadAll(heap.node(), &read);
    std::set<uint64_t> seen;
    Box32 bounds;
    bounds.Clear(spec.dims);
    for (uint32_t e = 0; e < count; ++e) {
      const auto i = static_cast<uint32_t>(read.id(e));
      seen.insert(i);
      for (uint32_t d = 0; d < spec.dims; ++d) {
        ASSERT_TRUE(SameBits(read.lo(e)[d], list.lo(i)[d]));
        ASSERT_TRUE(SameBits(read.hi(e)[d], list.hi(i)[d]));
      }
      bounds.Extend(spec.dims, Box32::Around(spec.dims, read.lo(e), read.hi(e)));
    }
    EXPECT_EQ(seen.size(), count);
    ExpectGroupsBound(l, heap.node());
    const Box32 got = l.Bounds(heap.node());
    EXPECT_TRUE(got.Contains(spec.dims, bounds));
    EXPECT_TRUE(bounds.Contains(spec.dims, got));
  }
}

TEST(NodeLayout, BuildPicksOnlyWhatIsAskedFor) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  HeapNode heap(NodeLayout::ExactLeaf(spec), 0);
  EntryList list(2);
  const double at[] = {1, 2};
  for (uint32_t e = 0; e < 40; ++e) list.Add(at, at, e);
  const uint32_t pick[] = {39, 7, 20};
  heap.layout().Build(heap.node(), list, pick, 3, true);
  ASSERT_EQ(heap.layout().Count(heap.node()), 3u);
  for (uint32_t e = 0; e < 3; ++e) EXPECT_EQ(heap.layout().Id(heap.node(), e), pick[e]);
}

TEST(NodeLayout, WideningAChildOnlyGrowsItAndItsGroup) {
  for (uint8_t dims : {1, 2, 8, 32}) {
    const KeySpec spec{dims, CoordType::kF64, KeyKind::kBox};
    HeapNode heap(NodeLayout::Inner(spec), NodeLayout::Inner(spec).base_order);
    const NodeLayout& l = heap.layout();
    RandomKeys random(spec, 4);
    const auto next_box = [&] {
      const Key key = random.NextKey();
      return Box32::Around(dims, key.lo, key.hi);
    };
    const uint32_t count = l.base_capacity();
    for (uint32_t e = 0; e < count; ++e) {
      l.AppendChild(heap.node(), next_box(), NodeId::Make(e + 1, 3, 7));
    }
    for (int i = 0; i < 2000; ++i) {
      const auto e = static_cast<uint32_t>(random.Below(count));
      const Box32 old = l.ChildBox(heap.node(), e);
      const Box32 box = next_box();
      const bool grew = l.WidenChild(heap.node(), e, box);
      const Box32 now = l.ChildBox(heap.node(), e);
      ASSERT_EQ(grew, !old.Contains(dims, box));
      Box32 expected = old;
      expected.Extend(dims, box);
      ASSERT_TRUE(now.Contains(dims, expected) && expected.Contains(dims, now));
    }
    ExpectGroupsBound(l, heap.node());
    for (uint32_t e = 0; e < count; ++e) {
      ASSERT_EQ(l.FindChild(heap.node(), NodeId::Make(e + 1, 3, 7)), e);
    }
    EXPECT_EQ(l.FindChild(heap.node(), NodeId::Make(1, 3, 8)), UINT32_MAX);
  }
}

// Each thread widens in one direction at a time, so that a widening which overwrote another's would be
// seen in the end.
TEST(NodeLayout, ThreadsThatWidenOneChildLeaveWhatContainsAll) {
  const NodeLayout& l = NodeLayout::Inner(KeySpec{2, CoordType::kF64, KeyKind::kBox});
  alignas(64) static std::byte memory[kBlockBytes];
  auto* node = reinterpret_cast<BlockHeader*>(memory);
  constexpr int kThreads = 4, kSteps = 20000;
  std::memset(memory, 0, sizeof(memory));
  Box32 box{};
  for (uint32_t i = 1; i <= 3; ++i) l.AppendChild(node, box, NodeId{i});
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&l, node, t] {
      for (int i = 1; i <= kSteps; ++i) {
        Box32 wider{};
        float* side = t < 2 ? wider.lo : wider.hi;
        side[t % 2] = static_cast<float>(t < 2 ? -i : i);
        // All sides at once in the end: here the threads do meet.
        if (i > kSteps / 2) wider = Box32{{-0.5f * i, -0.5f * i}, {0.5f * i, 0.5f * i}};
        if (i == kSteps) side[t % 2] = static_cast<float>(t < 2 ? -kSteps - t : kSteps + t);
        l.WidenChild(node, 1, wider);
        ASSERT_TRUE(l.ChildBox(node, 1).Contains(2, wider));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Box32 widest = l.ChildBox(node, 1);
  EXPECT_EQ(widest.lo[0], -kSteps);
  EXPECT_EQ(widest.lo[1], -kSteps - 1);
  EXPECT_EQ(widest.hi[0], kSteps + 2);
  EXPECT_EQ(widest.hi[1], kSteps + 3);
  for (uint32_t d = 0; d < 2; ++d) {
    EXPECT_EQ(l.GroupLo(node, d)[0], widest.lo[d]);
    EXPECT_EQ(l.GroupHi(node, d)[0], widest.hi[d]);
  }
  EXPECT_EQ(l.ChildBox(node, 0).hi[0], 0);
  EXPECT_EQ(l.ChildBox(node, 2).hi[0], 0);
}

TEST(NodeLayout, ReplacingAChildFitsItsGroupAgain) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  HeapNode heap(NodeLayout::Inner(spec), 0);
  const NodeLayout& l = heap.layout();
  const Box32 large{{-100, -100}, {100, 100}}, small{{1, 2}, {3, 4}}, other{{5, 5}, {6, 6}};
  l.AppendChild(heap.node(), large, NodeId{1});
  l.AppendChild(heap.node(), other, NodeId{2});
  l.ReplaceChild(heap.node(), 0, small);
  const Box32 bounds = l.Bounds(heap.node());
  EXPECT_EQ(bounds.lo[0], 1);
  EXPECT_EQ(bounds.lo[1], 2);
  EXPECT_EQ(bounds.hi[0], 6);
  EXPECT_EQ(bounds.hi[1], 6);
}

TEST(ArrangeGroups, PutsNearEntriesTogether) {
  RandomKeys random(KeySpec{2, CoordType::kF64, KeyKind::kPoint}, 5);
  EntryList list(2);
  std::vector<uint32_t> order;
  for (uint32_t e = 0; e < 205; ++e) {
    const double at[] = {random.Uniform(0, 1), random.Uniform(0, 1)};
    list.Add(at, at, e);
    order.push_back(e);
  }
  ArrangeGroups(list, order.data(), 205, 16);
  EXPECT_EQ(std::set<uint32_t>(order.begin(), order.end()).size(), 205u);
  double area = 0;
  for (uint32_t g = 0; g < 205; g += 16) {
    double lo[2] = {1, 1}, hi[2] = {0, 0};
    for (uint32_t e = g; e < std::min(g + 16, 205u); ++e) {
      for (int d = 0; d < 2; ++d) {
        lo[d] = std::min(lo[d], list.lo(order[e])[d]);
        hi[d] = std::max(hi[d], list.lo(order[e])[d]);
      }
    }
    area += (hi[0] - lo[0]) * (hi[1] - lo[1]);
  }
  EXPECT_LT(area, 1.0);  // Tiles cannot overlap; random groups would cover the square each.
}

TEST(ArrangeGroups, LeavesEqualAndUnorderedEntriesInSomeOrder) {
  EntryList list(1);
  std::vector<uint32_t> order;
  for (uint32_t e = 0; e < 100; ++e) {
    const double values[] = {kNan, kInf, -kInf, 5};
    list.Add(&values[e % 4], &values[(e + 1) % 4], e);
    order.push_back(e);
  }
  ArrangeGroups(list, order.data(), 100, 16);
  EXPECT_EQ(std::set<uint32_t>(order.begin(), order.end()).size(), 100u);
}

}  // namespace
}  // namespace xtree
