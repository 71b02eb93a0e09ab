// Goal: a window scan returns exactly the entries that match, as of its epoch, whatever the tree went
//   through and whatever a writer does beside it.
// Method: differential, against a plain model, over every shape of key, trees packed and inserted;
//   then snapshots across structure changes, and threads.
#include "tree/window_scan.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tree/scan_helpers.h"

namespace xtree {
namespace {

void ExpectScansAgree(TestTree* tree, RandomKeys* random, int queries, uint64_t* matches) {
  EpochReader reader(tree->epochs.get(), 0);
  WindowScan scan(&tree->store);
  for (int q = 0; q < queries; ++q) {
    const Predicate p = q == 0 ? Predicate::All() : random->NextPredicate();
    const std::vector<uint64_t> expected = Expected(*tree, p);
    *matches += expected.size();
    ASSERT_TRUE(scan.Begin(&reader, kTreeMain, p).ok());
    ASSERT_EQ(DrainIds(&scan, kScanBatchMin + static_cast<uint32_t>(q)), expected);
    // The same with keys, leaf by leaf.
    ASSERT_TRUE(scan.Begin(&reader, kTreeMain, p).ok());
    const std::map<uint64_t, Key> keys = Drain(&scan, tree->spec, kScanBatchMin, q % 2 != 0);
    ASSERT_EQ(keys.size(), expected.size());
    for (const uint64_t id : expected) {
      const auto at = keys.find(id);
      ASSERT_NE(at, keys.end());
      ASSERT_TRUE(tree->SameKey(at->second, tree->model[id]));
    }
  }
}

TEST(WindowScan, OfAPackedTreeReturnsExactlyTheMatches) {
  uint64_t matches = 0;
  WithEveryShape(41, 6000, 3000, [&](const TestLeaf&, TestTree* tree, RandomKeys* random) {
    BulkLoad(tree);
    ExpectScansAgree(tree, random, 40, &matches);
  });
  EXPECT_GT(matches, 100000u);
}

TEST(WindowScan, OfAnInsertedTreeReturnsExactlyTheMatches) {
  uint64_t matches = 0;
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    TestTree tree(leaf.spec);
    RandomKeys random(leaf, 42);
    random.keys_per_odd = 200;
    for (uint64_t id = 0; id < 1500; ++id) {
      tree.Insert(random.NextKey(), id);
      if (id % 500 == 250) tree.Capture();
    }
    ExpectScansAgree(&tree, &random, 20, &matches);
  }
  EXPECT_GT(matches, 50000u);
}

TEST(WindowScan, OfAnEmptyTreeOrAnImpossibleWindowReturnsNothing) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  EpochReader reader(tree.epochs.get(), 0);
  WindowScan scan(&tree.store);
  ASSERT_TRUE(scan.Begin(&reader, kTreeMain, Predicate::All()).ok());
  EXPECT_TRUE(DrainIds(&scan).empty());
  RandomKeys random(spec, 43);
  tree.Insert(random.NextKey(), 1);
  Predicate p = Predicate::All();
  p.lo_min[1] = kNan;
  ASSERT_TRUE(scan.Begin(&reader, kTreeMain, p).ok());
  EXPECT_TRUE(DrainIds(&scan).empty());
  scan.End();
  scan.End();  // Idempotent.
}

TEST(WindowScan, SeesTheTreeAsOfItsBeginning) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  RandomKeys random(spec, 44);
  for (uint64_t id = 0; id < 2000; ++id) tree.Insert(random.NextKey(), id);
  EpochReader reader(tree.epochs.get(), 0);
  WindowScan scan(&tree.store);
  ASSERT_TRUE(scan.Begin(&reader, kTreeMain, Predicate::All()).ok());
  std::vector<uint64_t> ids(kScanBatchMin);
  uint32_t n = 0;
  ASSERT_TRUE(scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &n).ok());
  std::set<uint64_t> seen(ids.begin(), ids.begin() + n);
  // Splits, deletions and a capture happen while the scan stands half way.
  std::vector<uint64_t> gone;
  for (uint64_t id = 0; id < 2000; id += 3) gone.push_back(id);
  for (size_t i = 0; i < gone.size(); i += 300) {
    tree.Delete({gone.begin() + static_cast<int64_t>(i),
                 gone.begin() + static_cast<int64_t>(std::min(i + 300, gone.size()))});
  }
  tree.Capture();
  for (uint64_t id = 10000; id < 12000; ++id) tree.Insert(random.NextKey(), id);
  uint64_t old = 0;
  for (;;) {
    for (const uint64_t id : seen) old += id < 2000;
    ASSERT_TRUE(scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &n).ok());
    if (n == 0) break;
    seen = std::set<uint64_t>(ids.begin(), ids.begin() + n);
    ASSERT_EQ(seen.size(), n);
  }
  EXPECT_EQ(old, 2000u);
}

TEST(WindowScan, BesideAWriterNeverMissesNorRepeatsAnEntry) {
  const KeySpec spec{2, CoordType::kF64, KeyKind::kBox};
  TestTree tree(spec);
  RandomKeys random(spec, 45);
  constexpr uint64_t kEntries = 20000;
  std::vector<Key> keys;
  for (uint64_t id = 0; id < kEntries; ++id) keys.push_back(random.NextKey());
  std::atomic<uint64_t> applied{0};  // Entries below it have been inserted.
  std::atomic<bool> done{false};
  std::vector<std::thread> readers;
  std::atomic<uint64_t> scans{0};
  for (uint32_t r = 0; r < 2; ++r) {
    readers.emplace_back([&, r] {
      EpochReader reader(tree.epochs.get(), r);
      WindowScan scan(&tree.store);
      RandomKeys mine(spec, 46 + r);
      while (!done.load()) {
        const uint64_t before = applied.load(std::memory_order_acquire);
        const Predicate p = mine.NextPredicate();
        ASSERT_TRUE(scan.Begin(&reader, kTreeMain, p).ok());
        const std::vector<uint64_t> found = DrainIds(&scan);
        ASSERT_TRUE(std::adjacent_find(found.begin(), found.end()) == found.end());
        size_t at = 0;
        for (uint64_t id = 0; id < before; ++id) {
          while (at < found.size() && found[at] < id) ++at;
          const bool is_there = at < found.size() && found[at] == id;
          ASSERT_EQ(is_there, Matches(spec, p, keys[id])) << "entry " << id << " of " << before;
        }
        scans.fetch_add(1);
      }
    });
  }
  for (uint64_t id = 0; id < kEntries; ++id) {
    ASSERT_TRUE(tree.tree.PrepareInsert(keys[id], id).ok());
    tree.tree.Apply();
    applied.store(id + 1, std::memory_order_release);
    if (id % 5000 == 4999) tree.Capture();
  }
  done.store(true);
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(scans.load(), 10u);
}

}  // namespace
}  // namespace xtree
