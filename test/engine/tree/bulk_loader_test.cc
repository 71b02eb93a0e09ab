// Goal: a packed tree holds exactly what was added, is sound and filled as asked, whichever way the
//   entries came, and a load that fails or is given up leaves nothing behind.
// Method: sizes around every boundary, against a plain model and the checker; failures at every
//   staging call.
#include "tree/bulk_loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "tree/curve.h"
#include "tree/scan_helpers.h"

namespace xtree {
namespace {


// Adds the model's entries in curve order, `batch` at a time.
void AddSorted(BulkLoader* loader, const TestTree& tree, uint32_t batch) {
  const uint32_t dims = tree.dims();
  std::vector<double> bound_lo(dims, -200.0), bound_hi(dims, 200.0);
  std::vector<std::pair<uint64_t, uint64_t>> order;
  for (const auto& [id, key] : tree.model) {
    order.emplace_back(
        BulkLoader::CurveKey(tree.spec, bound_lo.data(), bound_hi.data(), key.lo, key.hi), id);
  }
  std::sort(order.begin(), order.end());
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < order.size(); ++i) {
    const Key& key = tree.model.at(order[i].second);
    lo.insert(lo.end(), key.lo, key.lo + dims);
    hi.insert(hi.end(), key.hi, key.hi + dims);
    ids.push_back(order[i].second);
    if (ids.size() == batch || i + 1 == order.size()) {
      const Status status =
          loader->AddSorted(lo.data(), tree.spec.kind == KeyKind::kPoint ? nullptr : hi.data(),
                            ids.data(), static_cast<uint32_t>(ids.size()));
      ASSERT_TRUE(status.ok()) << status.message();
      lo.clear(), hi.clear(), ids.clear();
    }
  }
}

TEST(BulkLoader, PacksAnyNumberOfEntries) {
  const NodeLayout& leaf = NodeLayout::ExactLeaf(kBoxes2);
  std::vector<uint64_t> sizes = {0, 1, 2, 15, 16, 17, 191, 192, 193, 207, 208, 209, 383, 384, 385};
  for (uint64_t leaves : {288u, 289u, 320u, 321u}) sizes.push_back(leaves * 192 + 1);
  for (const uint64_t n : sizes) {
    SCOPED_TRACE(n);
    TestTree tree(kBoxes2);
    RandomKeys random(kBoxes2, 61);
    FillModel(&tree, &random, n);
    BulkLoad(&tree);
    tree.Check();
    if (n > 0) {
      const uint64_t leaves = tree.shared().nodes_by_level[0].load();
      EXPECT_LE(leaves, n / (leaf.block_capacity * 8 / 10) + 1);
    }
  }
}

TEST(BulkLoader, PacksEveryShapeOfKey) {
  WithEveryShape(62, 5000, 5000, [&](const TestLeaf&, TestTree* tree, RandomKeys*) {
    BulkLoad(tree, BulkOptions{90, 3});
    tree->Check();
  });
}

TEST(BulkLoader, PacksTheSameTreeWithAnyNumberOfThreads) {
  std::vector<uint64_t> orders[2];
  for (uint32_t threads : {1u, 4u}) {
    TestTree tree(kBoxes2);
    RandomKeys random(kBoxes2, 63);
    FillModel(&tree, &random, 30000);
    BulkLoad(&tree, BulkOptions{90, threads});
    tree.Check();
    EpochReader reader(tree.epochs.get(), 0);
    WindowScan scan(&tree.store);
    ASSERT_TRUE(scan.Begin(&reader, kTreeMain, Predicate::All()).ok());
    std::vector<uint64_t> ids(kScanBatchMin);
    for (uint32_t n = 1; n > 0;) {
      ASSERT_TRUE(scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &n).ok());
      orders[threads == 1 ? 0 : 1].insert(orders[threads == 1 ? 0 : 1].end(), ids.begin(),
                                          ids.begin() + n);
    }
  }
  EXPECT_EQ(orders[0], orders[1]);
}

// Borrows the model's entries and loads them.
Status LoadBorrowed(TestTree* tree, const BulkOptions& options) {
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
  for (const auto& [id, key] : tree->model) {
    lo.insert(lo.end(), key.lo, key.lo + tree->dims());
    hi.insert(hi.end(), key.hi, key.hi + tree->dims());
    ids.push_back(id);
  }
  BulkLoader loader(&tree->store, kTreeMain, options);
  const bool points = tree->spec.kind == KeyKind::kPoint;
  XT_RETURN_IF_ERROR(loader.Borrow(lo.data(), points ? nullptr : hi.data(), ids.data(), ids.size()));
  return loader.Finish();
}

TEST(BulkLoader, PacksBorrowedEntriesOfEveryShapeAndHasTheirLeavesWritten) {
  WithEveryShape(67, 5000, 5000, [&](const TestLeaf& leaf, TestTree* tree, RandomKeys*) {
    std::mutex mutex;
    std::set<uint32_t> written;
    BulkOptions options{90, 3};
    options.write = [&](uint32_t first, uint32_t blocks, std::byte* data) {
      std::lock_guard lock(mutex);
      for (uint32_t b = first; b < first + blocks; ++b) {
        EXPECT_TRUE(written.insert(b).second) << b;
        std::byte* block = tree->store.windows()->BlockAddress(b);
        EXPECT_EQ(reinterpret_cast<BlockHeader*>(block)->kind, BlockKind::kFree);
        std::copy_n(data + uint64_t{b - first} * kBlockBytes, kBlockBytes, block);
      }
      std::fill_n(data, uint64_t{blocks} * kBlockBytes, std::byte{0xee});
      return Status::Ok();
    };
    ASSERT_TRUE(LoadBorrowed(tree, options).ok());
    tree->Check();
    const uint32_t base = 1u << NodeLayout::ExactLeaf(leaf.spec).base_order;
    EXPECT_EQ(written.size(), tree->shared().nodes_by_level[0].load() * base);
  });
}

TEST(BulkLoader, LeavesNothingWhenAWriteFails) {
  TestTree tree(kBoxes2);
  RandomKeys random(kBoxes2, 68);
  FillModel(&tree, &random, 30000);
  const uint32_t before = tree.store.allocator()->used_blocks();
  for (uint32_t fail_at = 0;; ++fail_at) {
    std::atomic<uint32_t> writes{0};
    BulkOptions options{90, 2};
    options.write = [&](uint32_t first, uint32_t blocks, std::byte* data) {
      std::copy_n(data, uint64_t{blocks} * kBlockBytes, tree.store.windows()->BlockAddress(first));
      return writes++ == fail_at ? Status::Make(Code::kNoSpace, "no space") : Status::Ok();
    };
    const Status status = LoadBorrowed(&tree, options);
    if (status.ok()) {
      EXPECT_GT(fail_at, 3u);
      break;
    }
    EXPECT_EQ(status.code(), Code::kNoSpace);
    EXPECT_EQ(tree.store.allocator()->used_blocks(), before);
    EXPECT_FALSE(tree.store.has_staged());
  }
  tree.Check();
}

TEST(BulkLoader, FillsLeavesAsAsked) {
  for (const uint32_t percent : {10u, 50u, 90u, 100u}) {
    SCOPED_TRACE(percent);
    TestTree tree(kBoxes2);
    RandomKeys random(kBoxes2, 64);
    FillModel(&tree, &random, 20000);
    BulkLoad(&tree, BulkOptions{percent, 1});
    tree.Check();
    const double capacity = 208.0 * static_cast<double>(tree.shared().nodes_by_level[0].load());
    EXPECT_NEAR(20000 / capacity, percent / 100.0, 0.06);
  }
}

TEST(BulkLoader, TakesSortedEntriesInBatchesOfAnySize) {
  for (const TestLeaf& leaf : TestLeaves()) {
    SCOPED_TRACE(LeafName(leaf));
    for (const uint32_t batch : {1u, 1000u, 100000u}) {
      TestTree tree(leaf.spec);
      RandomKeys random(leaf, 65);
      random.keys_per_odd = 5000;
      FillModel(&tree, &random, 6000);
      BulkLoader loader(&tree.store, kTreeMain, BulkOptions{});
      AddSorted(&loader, tree, batch);
      ASSERT_TRUE(loader.Finish().ok());
      tree.Check();
    }
  }
}

TEST(BulkLoader, HandsBackWhatWasAddedForAnExternalSort) {
  TestTree tree(kBoxes2);
  RandomKeys random(kBoxes2, 66);
  FillModel(&tree, &random, 50000);
  BulkLoader loader(&tree.store, kTreeMain, BulkOptions{});
  for (const auto& [id, key] : tree.model) {
    ASSERT_TRUE(loader.Add(key.lo, key.hi, &id, 1).ok());
  }
  EXPECT_GE(loader.memory_bytes(), 50000u * 40);
  std::vector<double> lo(2 * 777), hi(2 * 777);
  std::vector<uint64_t> ids(777);
  std::map<uint64_t, Key> taken;
  for (;;) {
    const uint32_t n = loader.TakeAdded(lo.data(), hi.data(), ids.data(), 777);
    if (n == 0) break;
    for (uint32_t i = 0; i < n; ++i) {
      Key key;
      std::copy_n(&lo[2 * i], 2, key.lo);
      std::copy_n(&hi[2 * i], 2, key.hi);
      ASSERT_TRUE(tree.SameKey(key, tree.model.at(ids[i])));
      taken[ids[i]] = key;
    }
  }
  EXPECT_EQ(taken.size(), 50000u);
  EXPECT_EQ(loader.memory_bytes(), 0u);
  AddSorted(&loader, tree, 777);
  ASSERT_TRUE(loader.Finish().ok());
  tree.Check();
}

TEST(BulkLoader, GivesBackEverythingWhenItFailsOrIsDropped) {
  for (int64_t fail_at = 0;; ++fail_at) {
    SCOPED_TRACE(fail_at);
    TestTree tree(kBoxes2);
    RandomKeys random(kBoxes2, 67);
    FillModel(&tree, &random, 2000);
    bool failed = false;
    for (const bool sorted : {false, true}) {
      BulkLoader loader(&tree.store, kTreeMain, BulkOptions{});
      if (sorted) {
        AddSorted(&loader, tree, 500);
      } else {
        for (const auto& [id, key] : tree.model) {
          ASSERT_TRUE(loader.Add(key.lo, key.hi, &id, 1).ok());
        }
      }
      tree.store.FailAt(fail_at);
      const Status status = loader.Finish();
      failed = tree.store.failed();
      tree.store.FailAt(INT64_MAX);
      ASSERT_EQ(status.ok(), !failed);
      if (!failed) break;
    }
    EXPECT_FALSE(tree.store.has_staged());
    if (!failed) {
      ASSERT_GT(fail_at, 5);
      tree.Check();
      break;
    }
    ASSERT_EQ(tree.shared().root.load(), 0u);
    // And nothing is in the way of another try.
    BulkLoad(&tree);
    tree.Check();
  }
}

TEST(BulkLoader, MakesTreesThatInsertionsAndDeletionsGoOnWith) {
  for (const KeySpec& spec : TestSpecs()) {
    SCOPED_TRACE(SpecName(spec));
    TestTree tree(spec);
    RandomKeys random(spec, 68);
    FillModel(&tree, &random, 2000);
    BulkLoad(&tree, BulkOptions{100, 1});
    for (uint64_t id = 1; id < 500; ++id) tree.Insert(random.NextKey(), id);
    std::vector<uint64_t> gone;
    for (const auto& [id, key] : tree.model) {
      if (random.Below(4) != 0 && gone.size() < 900) gone.push_back(id);
    }
    tree.Delete(gone);
    tree.Check();
  }
}

}  // namespace
}  // namespace xtree
