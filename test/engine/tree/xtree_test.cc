// Goal: the tree as a whole: long mixtures of insertions, deletions and captures; two trees in one
// store; scans beside a writer that see every entry they must, none that they must not, none twice.
// Method: a model and the checker; reader threads that compare with counters which the writer
// raises after each change (under ThreadSanitizer this is also the proof that the lock-free reads
// are right).
#include "tree/xtree.h"

#include <atomic>
#include <thread>

#include "tree/tree_fixture.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

#if XT_TSAN
constexpr uint64_t kWork = 1;
#else
constexpr uint64_t kWork = 8;
#endif

class Mixtures : public ::testing::TestWithParam<KeySpec> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Mixtures, ::testing::ValuesIn(SomeSpecs()), ParamName);

TEST_P(Mixtures, OfInsertionsDeletionsAndCaptures) {
  TestTree t(GetParam());
  KeyMaker keys(GetParam(), 1);
  std::mt19937& random = keys.random();
  uint64_t next_id = 0;
  for (uint32_t round = 0; round < 60; ++round) {
    // The tree grows for a while, then shrinks, twice.
    const bool growing = round % 30 < 18;
    const uint32_t inserts = growing ? 150 : 30;
    for (uint32_t i = 0; i < inserts; ++i) t.Insert(keys.Next(), next_id++);
    std::vector<uint64_t> ids;
    for (const auto& [id, key] : t.model) {
      if (random() % 100 < (growing ? 8 : 35)) ids.push_back(id);
    }
    for (size_t i = 0; i < ids.size(); i += 100) {
      t.Delete({ids.begin() + i, ids.begin() + std::min(i + 100, ids.size())});
    }
    if (round % 4 == 0) t.Capture();
    if (round % 10 == 9) t.Check();
  }
  t.Check();
  t.Capture();
  t.store.Reclaim(UINT64_MAX);
}

TEST(XTree, ContainsFindsExactlyTheEntry) {
  TestTree t(Spec(3, CoordType::kF64, KeyKind::kBox));
  KeyMaker keys(t.spec, 2);
  const Key first = keys.Next();
  EXPECT_FALSE(*t.tree.Contains(first, 0));
  t.Insert(first, 0);
  for (uint64_t id = 1; id < 5000; ++id) t.Insert(keys.Next(), id);
  for (const auto& [id, key] : t.model) {
    ASSERT_TRUE(*t.tree.Contains(key, id));
    ASSERT_FALSE(*t.tree.Contains(key, id + 5000));
    Key other = key;
    other.hi[2] += 0.5;
    ASSERT_FALSE(*t.tree.Contains(other, id));
  }
  Key unordered = first;
  unordered.lo[1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(*t.tree.Contains(unordered, 9000));
  t.Insert(unordered, 9000);
  EXPECT_TRUE(*t.tree.Contains(unordered, 9000));
}

TEST(XTree, TwoTreesInOneStoreAreIndependent) {
  TestTree t(Spec(2, CoordType::kF64, KeyKind::kBox));
  XTree rows(&t.store, kTreeNull);
  KeyMaker keys(t.spec, 3);
  for (uint64_t id = 0; id < 3000; ++id) {
    t.Insert(keys.Next(), id);
    Key key;
    key.lo[0] = key.hi[0] = static_cast<double>(id);
    ASSERT_TRUE(rows.PrepareInsert(key, id).ok());
    rows.Apply();
  }
  std::vector<uint64_t> all;
  for (uint64_t id = 0; id < 3000; ++id) all.push_back(id);
  t.Delete(all);
  EXPECT_EQ(t.shared().root.load(), 0u);
  const TreeShared& other = t.store.shared()->trees[kTreeNull];
  EXPECT_EQ(other.entries.load(), 3000u);
  TreeReport report;
  ASSERT_TRUE(CheckTree(&t.store, kTreeNull, t.store.shared()->published_epoch.load(), true,
                        &report)
                  .ok());
  for (const std::string& problem : report.problems) ADD_FAILURE() << problem;
  EXPECT_EQ(report.entries, 3000u);
}

TEST(XTree, SupersededVersionsAreGivenBack) {
  TestTree t(Spec(2, CoordType::kF64, KeyKind::kBox));
  KeyMaker keys(t.spec, 4);
  for (uint64_t id = 0; id < 50000; ++id) t.Insert(keys.Next(), id);
  t.store.Reclaim(UINT64_MAX);
  EXPECT_LT(t.store.retired_versions(), 64u);
}

// What a reader must and must not find, told by the writer.
struct Progress {
  std::atomic<uint64_t> inserted{0};   // Ids below it are in the tree for good, if even,
  std::atomic<uint64_t> deleted{0};    // and odd ids below this one are gone.
  std::atomic<bool> done{false};
};

void ReadBeside(TestTree* t, const Progress* progress, uint32_t slot) {
  EpochReader reader(t->epochs.get(), slot);
  WindowScan scan(&t->store);
  std::vector<uint64_t> ids(kScanBatchMin);
  uint64_t scans = 0;
  do {
    const uint64_t deleted = progress->deleted.load(std::memory_order_acquire);
    const uint64_t inserted = progress->inserted.load(std::memory_order_acquire);
    ASSERT_TRUE(scan.Begin(&reader, kTreeMain, Predicate::All()).ok());
    std::set<uint64_t> seen;
    uint32_t count = 0;
    do {
      const Status status = scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &count);
      ASSERT_TRUE(status.ok()) << status.message();
      for (uint32_t i = 0; i < count; ++i) {
        ASSERT_TRUE(seen.insert(ids[i]).second) << "entry " << ids[i] << " twice";
      }
    } while (count > 0);
    scan.End();
    for (uint64_t id = 0; id < inserted; id += 2) ASSERT_TRUE(seen.count(id)) << "lost " << id;
    for (uint64_t id = 1; id < deleted; id += 2) ASSERT_FALSE(seen.count(id)) << "undead " << id;
    ++scans;
  } while (!progress->done.load(std::memory_order_acquire) || scans < 3);
}

TEST(XTreeConcurrency, ScansBesideAWriterFindWhatTheyMust) {
  TestTree t(Spec(2, CoordType::kF64, KeyKind::kBox));
  KeyMaker keys(t.spec, 5);
  Progress progress;
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < 3; ++i) readers.emplace_back(ReadBeside, &t, &progress, i);
  constexpr uint64_t kBatch = 500;
  for (uint64_t id = 0; id < 5000 * kWork; ++id) {
    t.Insert(keys.Next(), id);
    if (id % 2 == 0) progress.inserted.store(id + 1, std::memory_order_release);
    if (id % 777 == 0) t.Capture();
    if (id % kBatch == kBatch - 1) {
      std::vector<uint64_t> odd;
      for (uint64_t i = id + 1 - kBatch; i <= id; ++i) {
        if (i % 2 == 1) odd.push_back(i);
      }
      t.Delete(odd);
      progress.deleted.store(id + 1, std::memory_order_release);
    }
  }
  progress.done.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
  t.Check();
}

TEST(XTreeConcurrency, TheTreeMayComeAndGoUnderScans) {
  TestTree t(Spec(2, CoordType::kF64, KeyKind::kPoint));
  KeyMaker keys(t.spec, 6);
  Progress progress;  // All ids are odd: everything that came goes.
  std::vector<std::thread> readers;
  for (uint32_t i = 0; i < 2; ++i) readers.emplace_back(ReadBeside, &t, &progress, i);
  uint64_t id = 1;
  for (uint64_t round = 0; round < 40 * kWork; ++round) {
    std::vector<uint64_t> ids;
    for (uint32_t i = 0; i < 1 + round % 7 * 120; ++i, id += 2) {
      t.Insert(keys.Next(), id);
      ids.push_back(id);
    }
    for (size_t i = 0; i < ids.size(); i += 200) {
      t.Delete({ids.begin() + i, ids.begin() + std::min(i + 200, ids.size())});
    }
    ASSERT_EQ(t.shared().root.load(), 0u);
    progress.deleted.store(id, std::memory_order_release);
  }
  progress.done.store(true, std::memory_order_release);
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace xtree
