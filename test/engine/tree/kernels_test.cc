// Goal: every kernel set of this CPU gives the answer of the definition, lane for lane and bit for bit.
// Method: differential, against plain loops, over every shape of key with special values; nodes start
//   as stale bytes, and counts end anywhere within a group.
#include "tree/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tree/random_keys.h"

namespace xtree {
namespace {

constexpr uint32_t kSlots = kGroupsMax * kGroupSizeMax;

// A block of random entries, some of them alike.
struct TestBlock {
  TestBlock(const NodeLayout& l, RandomKeys* random) : heap(l, l.base_order) {
    const uint64_t count = random->Below(3) == 0 ? l.block_capacity
                                                 : random->Below(l.block_capacity + 1);
    for (uint32_t e = 0; e < count; ++e) {
      Key key = e > 0 && random->Below(10) == 0 ? keys[random->Below(e)] : random->NextKey();
      if (!l.leaf) {
        const Box32 box = Box32::Around(l.dims, key.lo, key.hi);
        std::copy(box.lo, box.lo + l.dims, key.lo);
        std::copy(box.hi, box.hi + l.dims, key.hi);
        l.AppendChild(heap.node(), box, NodeId::Make(e + 1, e % 64, 0x8001));
      } else {
        l.Append(heap.node(), key.lo, key.hi, Id(e));
      }
      keys.push_back(key);
    }
  }
  static uint64_t Id(uint32_t e) { return uint64_t{e} << 36 | e | 0x80000000; }
  uint32_t count() const { return static_cast<uint32_t>(keys.size()); }

  HeapNode heap;
  std::vector<Key> keys;
};

template <class Body>
void ForEachKernelSet(const Body& body) {
  for (uint32_t i = 0; KernelSet(i) != nullptr; ++i) {
    SCOPED_TRACE(KernelSet(i)->name);
    body(*KernelSet(i));
  }
}

TEST(Kernels, LeafMatchesAreThoseOfTheDefinition) {
  uint64_t matches = 0;
  for (const TestLeaf& test : TestLeaves()) {
    SCOPED_TRACE(LeafName(test));
    const KeySpec& spec = test.spec;
    RandomKeys random(test, 11);
    random.nan = true;
    for (int round = 0; round < 30; ++round) {
      TestBlock block(*test.layout, &random);
      for (int q = 0; q < 10; ++q) {
        const Predicate p = random.NextPredicate();
        WindowQuery query;
        query.Prepare(spec, p);
        query.PrepareFor(*test.layout);
        std::vector<uint64_t> expected_ids;
        std::vector<uint16_t> expected_slots;
        for (uint32_t e = 0; e < block.count() && !query.empty; ++e) {
          if (!Matches(spec, p, block.keys[e])) continue;
          expected_ids.push_back(TestBlock::Id(e));
          expected_slots.push_back(static_cast<uint16_t>(e));
        }
        matches += expected_ids.size();
        if (query.empty) continue;
        ForEachKernelSet([&](const Kernels& k) {
          std::vector<uint64_t> ids(kSlots);
          std::vector<uint16_t> slots(kSlots);
          const NodeLayout& l = block.heap.layout();
          ids.resize(k.leaf_ids(l, block.heap.node(), block.count(), query, ids.data()));
          slots.resize(k.leaf_slots(l, block.heap.node(), block.count(), query, slots.data()));
          ASSERT_EQ(ids, expected_ids);
          ASSERT_EQ(slots, expected_slots);
          for (uint32_t g = 0; g * l.group_size < block.count(); ++g) {
            const uint32_t mask = k.match_entries(l, block.heap.node(), g, query);
            for (uint32_t i = 0; i < l.group_size; ++i) {
              const uint32_t e = g * l.group_size + i;
              if (e >= block.count()) break;
              ASSERT_EQ((mask >> i & 1) != 0, Matches(spec, p, block.keys[e]));
            }
            ASSERT_EQ(mask >> l.group_size, 0u);
          }
        });
      }
    }
  }
  EXPECT_GT(matches, 10000u);  // Else the test shows little.
}

TEST(Kernels, ImpossibleBoundsAreEmpty) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  WindowQuery query;
  Predicate p = Predicate::All();
  query.Prepare(spec, p);
  EXPECT_FALSE(query.empty);
  EXPECT_TRUE(query.unbounded());
  p.lo_min[1] = kNan;
  query.Prepare(spec, p);
  EXPECT_TRUE(query.empty);
  p = Predicate::All();
  p.hi_min[0] = 2;
  p.hi_max[0] = 1;
  query.Prepare(spec, p);
  EXPECT_TRUE(query.empty);
}

TEST(Kernels, ChildrenArePassedExactlyIfTheirBoxesMayHoldMatches) {
  for (const KeySpec& spec : TestSpecs()) {
    SCOPED_TRACE(SpecName(spec));
    RandomKeys random(KeySpec{spec.dims, CoordType::kF64, KeyKind::kBox}, 12);
    for (int round = 0; round < 100; ++round) {
      TestBlock block(NodeLayout::Inner(spec), &random);
      const Predicate p = random.NextPredicate();
      WindowQuery query;
      query.Prepare(spec, p);
      if (query.empty) continue;
      std::vector<uint64_t> expected;
      for (uint32_t e = 0; e < block.count(); ++e) {
        bool may = true;
        for (uint32_t d = 0; d < spec.dims; ++d) {
          may = may && block.keys[e].lo[d] <= std::min(p.lo_max[d], p.hi_max[d]) &&
                block.keys[e].hi[d] >= std::max(p.lo_min[d], p.hi_min[d]);
        }
        if (may) expected.push_back(NodeId::Make(e + 1, e % 64, 0x8001).value);
      }
      ForEachKernelSet([&](const Kernels& k) {
        const NodeLayout& l = block.heap.layout();
        std::vector<uint64_t> ids(kSlots);
        ids.resize(k.children(l, block.heap.node(), block.count(), query, ids.data()));
        ASSERT_EQ(ids, expected);
        const uint64_t groups = k.match_groups(l, block.heap.node(), block.count(), query);
        for (const uint64_t id : expected) {
          const uint64_t e = NodeId{id}.handle() - 1;
          ASSERT_TRUE(groups >> (e / l.group_size) & 1);
        }
      });
    }
  }
}

TEST(Kernels, LeafDistancesAreBitEqualToTheDefinition) {
  for (const TestLeaf& test : TestLeaves()) {
    SCOPED_TRACE(LeafName(test));
    const KeySpec& spec = test.spec;
    RandomKeys random(test, 13);
    random.nan = true;
    for (int round = 0; round < 200; ++round) {
      random.special_percent = round % 2 ? 5 : 0;
      TestBlock block(*test.layout, &random);
      NearestQuery query;
      query.Prepare(spec, random.NextKey().lo);
      ForEachKernelSet([&](const Kernels& k) {
        const NodeLayout& l = block.heap.layout();
        double distances[kGroupSizeMax];
        for (uint32_t e = 0; e < block.count(); ++e) {
          if (e % l.group_size == 0) {
            k.leaf_distances(l, block.heap.node(), e / l.group_size, query, distances);
          }
          const double expected = KeyDistance(query, block.keys[e].lo, block.keys[e].hi);
          const double got = distances[e % l.group_size];
          if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(got));
          } else {
            ASSERT_EQ(got, expected);
            ASSERT_FALSE(std::signbit(got));  // Its bits must sort as it does.
          }
        }
      });
    }
  }
}

TEST(Kernels, LowerBoundsNeverExceedADistance) {
  for (const TestLeaf& test : TestLeaves()) {
    SCOPED_TRACE(LeafName(test));
    const KeySpec& spec = test.spec;
    RandomKeys random(test, 14);
    for (int round = 0; round < 200; ++round) {
      random.special_percent = round % 2 ? 5 : 0;
      TestBlock leaf(*test.layout, &random);
      TestBlock inner(NodeLayout::Inner(spec), &random);
      NearestQuery query;
      query.Prepare(spec, random.NextKey().lo);
      ForEachKernelSet([&](const Kernels& k) {
        float bounds[64];
        const NodeLayout& l = leaf.heap.layout();
        k.group_distances(l, leaf.heap.node(), leaf.count(), query, bounds);
        for (uint32_t e = 0; e < leaf.count(); ++e) {
          const double distance = KeyDistance(query, leaf.keys[e].lo, leaf.keys[e].hi);
          ASSERT_GE(bounds[e / l.group_size], 0);
          ASSERT_FALSE(bounds[e / l.group_size] > distance) << distance;
        }
        const NodeLayout& n = inner.heap.layout();
        NearestQuery boxes = query;
        boxes.points = false;
        for (uint32_t e = 0; e < inner.count(); ++e) {
          if (e % n.group_size == 0) {
            k.child_distances(n, inner.heap.node(), e / n.group_size, query, bounds);
          }
          const double distance = KeyDistance(boxes, inner.keys[e].lo, inner.keys[e].hi);
          ASSERT_FALSE(bounds[e % n.group_size] > distance) << distance;
          // Near enough to the truth to be of use.
          if (distance > 1e-3 && distance < 1e15 && query.finite) {
            ASSERT_GT(bounds[e % n.group_size], distance * 0.99 - 1e-4);
          }
        }
      });
    }
  }
}

TEST(Kernels, DistanceFollowsTheHostsHypot) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kPoint};
  NearestQuery query;
  const double origin[] = {0, 0};
  query.Prepare(spec, origin);
  const auto distance = [&query](double x, double y) {
    const double key[] = {x, y};
    return KeyDistance(query, key, key);
  };
  EXPECT_EQ(distance(3, 4), 5);
  EXPECT_EQ(distance(-3, 0), 3);
  EXPECT_EQ(distance(kInf, kNan), kInf);
  EXPECT_TRUE(std::isnan(distance(1, kNan)));
  // Squares would overflow, the ratio does not.
  EXPECT_EQ(distance(3e300, 4e300), 4e300 * std::sqrt(1.0 + 0.75 * 0.75));
}

TEST(Kernels, PortableCodeIsAlwaysThere) {
  ASSERT_NE(KernelSet(0), nullptr);
  EXPECT_STREQ(KernelSet(0)->name, "portable");
  bool active_is_listed = false;
  for (uint32_t i = 0; KernelSet(i) != nullptr; ++i) {
    active_is_listed = active_is_listed || KernelSet(i) == &ActiveKernels();
  }
  EXPECT_TRUE(active_is_listed);
}

}  // namespace
}  // namespace xtree
