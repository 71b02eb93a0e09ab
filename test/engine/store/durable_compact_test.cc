// Goal: after mass deletions the file becomes shorter, while every entry stays where queries find it,
//   for readers of old epochs too, and whatever step the power is cut at.
// Method: a standalone store over the simulated disk; deletions of most entries, folds and compaction;
//   then the power fails at every operation of compaction and fold.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "store/durable_store.h"
#include "support/epochs.h"
#include "testing/sim_file_system.h"
#include "tree/checker.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

constexpr int kDims = 12;
// As few as make a file that compaction finds long enough.
constexpr uint64_t kEntries = 32'000;

class CompactedStore {
 public:
  explicit CompactedStore(uint64_t seed = 1) : fs(seed) {
    XT_ASSERT(fs.CreateDirectory("/db").ok());
    Reopen();
  }
  void Reopen() {
    store.reset();
    shared = std::make_unique<IndexShared>();
    store = std::make_unique<DurableStore>(shared.get(), &fs, &budget, epochs.get(), "/db/index",
                                           "/db/index_log", ChunkSource::kHeap);
  }
  Status Crash(uint64_t seed) { return StartFrom(fs.AfterPowerCut(seed), kept); }
  // The machine comes up with what another one's disk holds.
  Status StartFrom(const SimFileSystem::Image& image, const std::vector<uint64_t>& ids) {
    store.reset();
    fs.Load(image);
    Reopen();
    kept = ids;
    return store->Load(LoadPolicy{});
  }
  // Entries [0, count), of which those not divisible by `keep` are deleted again, all committed and
  // folded.
  Status Prepare(uint64_t count, uint64_t keep) {
    // Long keys, so that few entries fill many blocks.
    const IndexOptions options{KeySpec{kDims, CoordType::kF64, KeyKind::kBox}, 90};
    XT_RETURN_IF_ERROR(store->Create(options, Identity{}, 1));
    std::mt19937_64 random(1);
    std::uniform_real_distribution<double> place(0, 100);
    for (uint64_t id = 0; id < count; ++id) {
      Key key;
      for (int d = 0; d < kDims; ++d) key.lo[d] = key.hi[d] = place(random);
      XT_RETURN_IF_ERROR(store->details()->PrepareInsert(&key, id));
      store->details()->Apply(0);
    }
    XT_RETURN_IF_ERROR(Commit());
    XT_RETURN_IF_ERROR(Fold());
    blocks_before = store->allocator()->file_blocks();
    std::vector<uint64_t> dead;
    Key all;
    std::fill(all.lo, all.lo + kDims, -1.0);
    std::fill(all.hi, all.hi + kDims, 101.0);
    for (uint64_t id = 0; id <= count; ++id) {
      if (dead.size() == 900 || (id == count && !dead.empty())) {
        uint32_t found = 0;
        XT_RETURN_IF_ERROR(store->details()->PrepareDelete(
            kTreeMain, all, dead.data(), static_cast<uint32_t>(dead.size()), &found));
        store->details()->Apply(0);
        dead.clear();
      }
      if (id < count && id % keep != 0) dead.push_back(id);
      if (id < count && id % keep == 0) kept.push_back(id);
    }
    XT_RETURN_IF_ERROR(Commit());
    return Fold();
  }
  Status Commit() {
    XT_RETURN_IF_ERROR(store->ReserveFrame(0));
    store->AppendCommit();
    return store->SyncLog();
  }
  Status Fold() {
    XT_RETURN_IF_ERROR(store->FoldBegin());
    bool done = false;
    Status status;
    while (status.ok() && !done) status = store->FoldWrite(16, &done);
    if (status.ok()) status = store->FoldPublish();
    store->FoldEnd(status.ok(), false);
    while (status.ok() && !store->FoldTidy(7)) {
    }
    return status;
  }
  Status Compact() {
    const uint32_t limit = store->CompactLimit();
    if (limit == UINT32_MAX) return Status::Ok();
    uint64_t position = 0;
    for (bool done = false; !done;) {
      XT_RETURN_IF_ERROR(store->CompactStep(5, &position, limit, &done));
    }
    return Status::Ok();
  }
  void ExpectWhole() {
    WindowScan scan(store.get());
    EpochReader reader(epochs.get(), 0);
    std::vector<uint64_t> ids, batch(kScanBatchMin);
    uint32_t count = 0;
    Status status = scan.Begin(&reader, kTreeMain, Predicate::All());
    do {
      status = scan.Next(batch.data(), nullptr, nullptr, kScanBatchMin, false, &count);
      ids.insert(ids.end(), batch.begin(), batch.begin() + count);
    } while (status.ok() && count != 0);
    scan.End();
    ASSERT_TRUE(status.ok()) << status.message();
    std::sort(ids.begin(), ids.end());
    ASSERT_EQ(ids, kept);
    WindowPin pin(store->windows());
    std::vector<std::string> problems;
    TreeReport report;
    ASSERT_TRUE(
        CheckTree(store.get(), kTreeMain, shared->published_epoch.load(), true, &report).ok());
    problems = report.problems;
    ASSERT_TRUE(store->CheckBlocks(&problems).ok());
    ASSERT_TRUE(problems.empty()) << problems.front();
    ASSERT_TRUE(fs.violations().empty()) << fs.violations().front();
  }

  SimFileSystem fs;
  WindowBudget budget{16};
  Epochs epochs{4};
  std::unique_ptr<IndexShared> shared;
  std::unique_ptr<DurableStore> store;
  std::vector<uint64_t> kept;
  uint32_t blocks_before = 0;
};

TEST(DurableCompact, AFileOfWhichMostIsFreeBecomesShort) {
  CompactedStore s;
  ASSERT_TRUE(s.Prepare(kEntries, 10).ok());
  ASSERT_LT(s.store->CompactLimit(), s.blocks_before / 2);
  ASSERT_TRUE(s.Compact().ok());
  s.ExpectWhole();
  ASSERT_TRUE(s.Fold().ok());
  s.ExpectWhole();
  EXPECT_LT(s.store->allocator()->file_blocks(), s.blocks_before / 2)
      << s.store->allocator()->used_blocks() << " blocks are used";
  EXPECT_EQ(s.fs.Stat("/db/index")->size_bytes,
            uint64_t{s.store->allocator()->file_blocks()} * kBlockBytes);
  EXPECT_EQ(s.store->CompactLimit(), UINT32_MAX);
  ASSERT_TRUE(s.Crash(1).ok());
  s.ExpectWhole();
}

TEST(DurableCompact, AFullFileIsLeftAlone) {
  CompactedStore s;
  ASSERT_TRUE(s.Prepare(kEntries, 1).ok());
  EXPECT_EQ(s.store->CompactLimit(), UINT32_MAX);
}

TEST(DurableCompact, ReadersOfOldEpochsGoOn) {
  CompactedStore s;
  ASSERT_TRUE(s.Prepare(kEntries, 20).ok());
  WindowScan scan(s.store.get());
  EpochReader reader(s.epochs.get(), 1);
  ASSERT_TRUE(scan.Begin(&reader, kTreeMain, Predicate::All()).ok());
  std::vector<uint64_t> ids(kScanBatchMin);
  uint64_t found = 0;
  uint32_t count = 0;
  ASSERT_TRUE(scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &count).ok());
  found += count;
  ASSERT_TRUE(s.Compact().ok());
  ASSERT_TRUE(s.Fold().ok());
  while (count != 0) {
    ASSERT_TRUE(scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &count).ok());
    found += count;
  }
  EXPECT_EQ(found, s.kept.size());
  scan.End();
  s.ExpectWhole();
}

TEST(DurableCompact, APowerCutAtAnyOperationChangesNothing) {
  CompactedStore prepared;
  ASSERT_TRUE(prepared.Prepare(kEntries, 10).ok());
  const SimFileSystem::Image image = prepared.fs.AfterPowerCut(1);
  for (uint64_t crash_at = 0;; ++crash_at) {
    SCOPED_TRACE(crash_at);
    CompactedStore s(crash_at + 1);
    ASSERT_TRUE(s.StartFrom(image, prepared.kept).ok());
    ASSERT_NE(s.store->CompactLimit(), UINT32_MAX);
    s.fs.CrashAtOperation(crash_at);
    Status status = s.Compact();
    if (status.ok()) status = s.Fold();
    if (!s.fs.crashed()) {
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_GT(crash_at, 3u);
      break;
    }
    ASSERT_TRUE(s.Crash(crash_at).ok());
    s.ExpectWhole();
    ASSERT_TRUE(s.Compact().ok());
    ASSERT_TRUE(s.Fold().ok());
    s.ExpectWhole();
  }
}

}  // namespace
}  // namespace xtree
