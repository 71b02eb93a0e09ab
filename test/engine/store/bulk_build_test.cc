// Goal: a bulk build puts every row into the tree where insertion would have put it.
// Method: ordered, unordered and NULL rows in every arrangement of runs, into a store in memory.
#include "store/bulk_build.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "store/memory_store.h"
#include "support/epochs.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

std::vector<uint64_t> IdsOf(MemoryStore* store, Epochs* epochs, uint32_t tree) {
  EpochReader reader(epochs->get(), 0);
  WindowScan scan(store);
  std::vector<uint64_t> ids, batch(kScanBatchMin);
  uint32_t count = 0;
  EXPECT_TRUE(scan.Begin(&reader, tree, Predicate::All()).ok());
  do {
    EXPECT_TRUE(
        scan.Next(batch.data(), nullptr, nullptr, kScanBatchMin, false, &count).ok());
    ids.insert(ids.end(), batch.begin(), batch.begin() + count);
  } while (count != 0);
  std::sort(ids.begin(), ids.end());
  return ids;
}

TEST(BulkBuild, RunsOfOrderedAndUnorderedKeysGoToTheirTrees) {
  // Every pattern of six rows.
  for (uint32_t pattern = 0; pattern < 64; ++pattern) {
    SCOPED_TRACE(pattern);
    Epochs epochs(2);
    IndexOptions options;
    options.spec = KeySpec{2, CoordType::kF64, KeyKind::kPoint};
    MemoryStore store(options, epochs.get());
    std::vector<double> points;
    std::vector<uint64_t> ids, ordered, others;
    for (uint32_t i = 0; i < 6; ++i) {
      const bool unordered = pattern >> i & 1;
      points.push_back(i);
      points.push_back(unordered ? NAN : 1.0);
      ids.push_back(i);
      (unordered ? others : ordered).push_back(i);
    }
    BulkBuild build(&store, 1);
    ASSERT_TRUE(build.Add(points.data(), nullptr, ids.data(), 6).ok());
    ASSERT_TRUE(build.AddNull(50).ok());
    others.push_back(50);
    EXPECT_GT(build.memory_bytes(), 0u);
    ASSERT_TRUE(build.Pack().ok());
    EXPECT_TRUE(build.packed());
    EXPECT_EQ(IdsOf(&store, &epochs, kTreeMain), ordered);
    EXPECT_EQ(IdsOf(&store, &epochs, kTreeNull), others);
    EXPECT_FALSE(BulkBuild::IsEmpty(*store.shared()));
  }
}

TEST(BulkBuild, BorrowedRowsGoWhereAddedOnesDo) {
  for (const uint32_t threads : {1u, 3u}) {
    for (uint32_t pattern = 0; pattern < 64; ++pattern) {
      SCOPED_TRACE(pattern);
      Epochs epochs(2);
      IndexOptions options;
      options.spec = KeySpec{2, CoordType::kF64, pattern % 2 == 0 ? KeyKind::kPoint : KeyKind::kBox};
      MemoryStore store(options, epochs.get());
      std::vector<double> lo, hi;
      std::vector<uint64_t> ids, ordered, others;
      for (uint32_t i = 0; i < 6; ++i) {
        const bool unordered = pattern >> i & 1;
        lo.insert(lo.end(), {double(i), unordered && pattern % 2 == 0 ? NAN : 1.0});
        hi.insert(hi.end(), {double(i), unordered ? NAN : 2.0});
        ids.push_back(10 + i);
        (unordered ? others : ordered).push_back(10 + i);
      }
      BulkBuild build(&store, threads);
      ASSERT_TRUE(build.Borrow(lo.data(), pattern % 2 == 0 ? nullptr : hi.data(), ids.data(), 6).ok());
      ASSERT_TRUE(build.Pack().ok());
      EXPECT_EQ(IdsOf(&store, &epochs, kTreeMain), ordered);
      EXPECT_EQ(IdsOf(&store, &epochs, kTreeNull), others);
    }
  }
}

TEST(BulkBuild, NothingAddedLeavesTheIndexEmpty) {
  Epochs epochs(2);
  MemoryStore store(IndexOptions{}, epochs.get());
  BulkBuild build(&store, 1);
  ASSERT_TRUE(build.Pack().ok());
  EXPECT_TRUE(BulkBuild::IsEmpty(*store.shared()));
}

}  // namespace
}  // namespace xtree
