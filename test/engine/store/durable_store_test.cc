// Goal: captures and log together always hold what was committed, whatever step of a fold fails,
// and damaged files are recognized.
// Method: a standalone store over the simulated disk. A fold is made to fail at every operation in
// turn; a "crash" cuts the power and loads what the disk then holds. (Crashes at every operation of
// longer workloads are in crash_test.cc.)
#include "store/durable_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <tuple>

#include "store/shared_insertion.h"
#include "support/epochs.h"
#include "testing/sim_file_system.h"
#include "tree/checker.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

class Standalone {
 public:
  explicit Standalone(uint64_t seed = 1) : fs(seed) {
    XT_ASSERT(fs.CreateDirectory("/db").ok());
    Reopen();
  }
  void Reopen() {
    store.reset();
    shared = std::make_unique<IndexShared>();
    store = std::make_unique<DurableStore>(shared.get(), &fs, &budget, epochs.get(), "/db/index",
                                           "/db/index_log", ChunkSource::kHeap);
  }
  Status Create(const IndexOptions& options = IndexOptions{}) {
    return store->Create(options, Identity{}, 1);
  }
  Status Load() {
    Reopen();
    return store->Load(LoadPolicy{});
  }
  Status Crash(uint64_t seed) {
    store.reset();
    fs.Restart(seed);
    return Load();
  }
  Key KeyOf(uint64_t id) const {
    std::mt19937_64 random(id);
    std::uniform_real_distribution<double> place(0, 100);
    Key key;
    for (int d = 0; d < 2; ++d) {
      key.lo[d] = place(random);
      key.hi[d] = key.lo[d] + 1;
    }
    return key;
  }
  Status Insert(uint64_t first, uint64_t end) {
    for (uint64_t id = first; id < end; ++id) {
      const Key key = KeyOf(id);
      XT_RETURN_IF_ERROR(store->details()->PrepareInsert(&key, id));
      store->details()->Apply(0);
    }
    return Status::Ok();
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
    store->FoldEnd(status.ok());
    return status;
  }
  std::vector<uint64_t> Everything(Status* status = nullptr) {
    WindowScan scan(store.get());
    EpochReader reader(epochs.get(), 0);
    std::vector<uint64_t> ids, batch(kScanBatchMin);
    uint32_t count = 0;
    Status s = scan.Begin(&reader, kTreeMain, Predicate::All());
    while (s.ok()) {
      s = scan.Next(batch.data(), nullptr, nullptr, kScanBatchMin, false, &count);
      if (!s.ok() || count == 0) break;
      ids.insert(ids.end(), batch.begin(), batch.begin() + count);
    }
    scan.End();
    if (status != nullptr) {
      *status = s;
    } else {
      EXPECT_TRUE(s.ok()) << s.message();
    }
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  void ExpectSound() {
    WindowPin pin(store->windows());
    std::vector<std::string> problems;
    for (uint32_t tree = 0; tree < kTrees; ++tree) {
      TreeReport report;
      const Status status =
          CheckTree(store.get(), tree, shared->published_epoch.load(), true, &report);
      ASSERT_TRUE(status.ok()) << status.message();
      problems.insert(problems.end(), report.problems.begin(), report.problems.end());
    }
    const Status status = store->CheckBlocks(&problems);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(problems.empty()) << problems.front();
    EXPECT_TRUE(fs.violations().empty()) << fs.violations().front();
  }

  SimFileSystem fs;
  WindowBudget budget{16};
  Epochs epochs{4};
  std::unique_ptr<IndexShared> shared;
  std::unique_ptr<DurableStore> store;
};

std::vector<uint64_t> Range(uint64_t first, uint64_t end) {
  std::vector<uint64_t> ids;
  for (uint64_t id = first; id < end; ++id) ids.push_back(id);
  return ids;
}

TEST(DurableStore, WhatIsCommittedSurvivesPowerCutsBetweenAndAfterFolds) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    Standalone s(seed);
    ASSERT_TRUE(s.Create().ok());
    uint64_t next = 0;
    for (int round = 0; round < 4; ++round) {
      ASSERT_TRUE(s.Insert(next, next + 700).ok());
      next += 700;
      ASSERT_TRUE(s.Commit().ok());
      if (round % 2 == 0) {
        ASSERT_TRUE(s.Fold().ok());
        s.ExpectSound();
      }
      ASSERT_TRUE(s.Insert(next, next + 50).ok());  // Never committed.
      const Status status = s.Crash(seed * 100 + round);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_EQ(s.Everything(), Range(0, next));
      s.ExpectSound();
    }
  }
}

TEST(DurableStore, AFoldThatFailsAtAnyOperationLosesNothing) {
  for (uint64_t fail_at = 0;; ++fail_at) {
    SCOPED_TRACE(fail_at);
    Standalone s(fail_at + 1);
    ASSERT_TRUE(s.Create().ok());
    ASSERT_TRUE(s.Insert(0, 500).ok());
    ASSERT_TRUE(s.Commit().ok());
    ASSERT_TRUE(s.Fold().ok());
    ASSERT_TRUE(s.Insert(500, 1200).ok());
    ASSERT_TRUE(s.Commit().ok());
    const uint64_t before = s.fs.operations();
    s.fs.FailOperation(fail_at, Status::Make(Code::kIoError, "injected"));
    const Status folded = s.Fold();
    const bool reached = s.fs.operations() > before + fail_at;
    // Operations go on, and everything is still there, now and after a power cut.
    ASSERT_TRUE(s.Insert(1200, 1500).ok());
    ASSERT_TRUE(s.Commit().ok());
    ASSERT_EQ(s.Everything(), Range(0, 1500));
    s.ExpectSound();
    const Status again = s.Fold();
    if (folded.ok()) {
      EXPECT_TRUE(again.ok()) << again.message();
    }
    const Status status = s.Crash(fail_at);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(s.Everything(), Range(0, 1500));
    s.ExpectSound();
    const Status later = s.Fold();
    ASSERT_TRUE(later.ok()) << later.message();
    if (!reached) break;
  }
}

TEST(DurableStore, AFailedSyncLatchesFoldsUntilTheIndexIsLoadedAgain) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 500).ok());
  ASSERT_TRUE(s.Commit().ok());
  s.fs.FailKinds(SimFileSystem::kSync, Status::Make(Code::kIoError, "injected"));
  EXPECT_EQ(s.Fold().code(), Code::kIoError);
  s.fs.FailKinds(0, Status::Ok());
  EXPECT_EQ(s.Fold().code(), Code::kIoError);  // Although a sync would work now.
  ASSERT_TRUE(s.Insert(500, 600).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Crash(5).ok());
  EXPECT_EQ(s.Everything(), Range(0, 600));
  EXPECT_TRUE(s.Fold().ok());
}

TEST(DurableStore, AFullDiskFailsAFoldThatLaterSucceeds) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 2000).ok());
  ASSERT_TRUE(s.Commit().ok());
  // Takes all blocks that the file has, so that the fold must grow it.
  while (s.store->allocator()->used_blocks() < s.store->allocator()->file_blocks()) {
    ASSERT_TRUE(s.store->AllocateExtent(0).ok());
  }
  s.fs.SetCapacity(1);
  EXPECT_EQ(s.Fold().code(), Code::kNoSpace);
  EXPECT_EQ(s.Everything(), Range(0, 2000));
  s.fs.SetCapacity(uint64_t{1} << 40);
  const Status status = s.Fold();
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_TRUE(s.Crash(9).ok());
  EXPECT_EQ(s.Everything(), Range(0, 2000));
}

// Numbers of every kind that logs pack in their own way, and keys of several kinds at once.
double OfKind(uint64_t kind, SimRandom* random) {
  static constexpr double kOdd[] = {0.0, -0.0, HUGE_VAL, -HUGE_VAL, 5e-324, 1e-40f, 2147483646, -2147483648.0, 1e300};
  switch (kind) {
    case 0: return static_cast<double>(random->Below(1000)) / 8;
    case 1: return (static_cast<double>(random->Below(3'600'000'000)) - 1.8e9) / 1e7;
    case 2: return static_cast<double>(random->Below(1000)) / 7;
    default: return kOdd[random->Below(std::size(kOdd))];
  }
}

TEST(DurableStore, TheLogGivesKeysBackToTheBit) {
  const KeySpec specs[] = {{1, CoordType::kF64, KeyKind::kPoint}, {2, CoordType::kF64, KeyKind::kBox},
                           {3, CoordType::kF64, KeyKind::kPoint}, {3, CoordType::kF32, KeyKind::kPoint},
                           {1, CoordType::kF32, KeyKind::kBox}, {kDimsMax, CoordType::kF64, KeyKind::kBox}};
  for (const KeySpec& spec : specs) {
    SCOPED_TRACE(testing::Message() << int{spec.dims} << " dimensions, kind " << static_cast<int>(spec.kind)
                                    << ", coordinates " << static_cast<int>(spec.coord));
    Standalone s;
    IndexOptions options;
    options.spec = spec;
    ASSERT_TRUE(s.Create(options).ok());
    SimRandom random(spec.dims);
    std::map<uint64_t, Key> expected;
    uint64_t beside = 0;
    for (uint64_t i = 0; i < 600; ++i) {
      const uint64_t id = i % 2 == 0 ? i : kRecordIdMax - i;
      Key key;
      for (uint32_t d = 0; d < kDimsMax; ++d) key.lo[d] = key.hi[d] = NAN;  // Nobody reads it.
      for (uint32_t d = 0; d < spec.dims; ++d) {
        const auto draw = [&] {
          const double x = OfKind(i % 5 == 4 ? random.Below(4) : i % 5, &random);
          return spec.coord == CoordType::kF32 ? double{static_cast<float>(x)} : x;
        };
        key.lo[d] = draw();
        if (spec.kind == KeyKind::kBox) std::tie(key.lo[d], key.hi[d]) = std::minmax({key.lo[d], draw()});
      }
      SharedInsertion insertion(s.store.get(), s.store.get());
      ASSERT_TRUE(insertion.Prepare(&key, id).ok());
      if (insertion.prepared()) {
        insertion.Apply(0);
        ++beside;
      } else {
        ASSERT_TRUE(s.store->details()->PrepareInsert(&key, id).ok());
        s.store->details()->Apply(0);
      }
      expected[id] = key;
    }
    EXPECT_GT(beside, 300u);
    EXPECT_EQ(s.shared->log.reserved_bytes, 0u);
    ASSERT_TRUE(s.Commit().ok());
    ASSERT_TRUE(s.Crash(1).ok());
    WindowScan scan(s.store.get());
    EpochReader reader(s.epochs.get(), 0);
    ASSERT_TRUE(scan.Begin(&reader, kTreeMain, Predicate::All()).ok());
    std::vector<uint64_t> ids(kScanBatchMin);
    std::vector<double> lo(kScanBatchMin * spec.dims), hi(lo.size());
    for (uint32_t count = 1; count > 0;) {
      ASSERT_TRUE(scan.Next(ids.data(), lo.data(), hi.data(), kScanBatchMin, false, &count).ok());
      for (uint32_t i = 0; i < count; ++i) {
        const auto found = expected.find(ids[i]);
        ASSERT_NE(found, expected.end()) << ids[i];
        const Key& key = found->second;
        const double* corner = spec.kind == KeyKind::kPoint ? key.lo : key.hi;
        EXPECT_EQ(std::memcmp(&lo[i * spec.dims], key.lo, spec.dims * sizeof(double)), 0) << ids[i];
        EXPECT_EQ(std::memcmp(&hi[i * spec.dims], corner, spec.dims * sizeof(double)), 0) << ids[i];
        expected.erase(found);
      }
    }
    EXPECT_TRUE(expected.empty());
    scan.End();
    s.ExpectSound();
  }
}

// Writers beside each other promise each other no more of a log block than they take: who meets its end is sure
// to open the next one.
TEST(DurableStore, AFullLogBlockIsMetOnce) {
  constexpr size_t kWriters = 8;
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  SimRandom random(1);
  std::deque<std::unique_ptr<SharedInsertion>> under_way;
  const auto apply = [&] {
    under_way.front()->Apply(0);
    under_way.pop_front();
  };
  uint64_t full = 0, blocks = 1;
  for (uint64_t id = 0; id < 5000; ++id) {
    Key key;
    for (uint32_t d = 0; d < 2; ++d) key.lo[d] = key.hi[d] = OfKind(id / 16 % 4, &random);
    auto insertion = std::make_unique<SharedInsertion>(s.store.get(), s.store.get());
    ASSERT_TRUE(insertion->Prepare(&key, id).ok());
    if (insertion->prepared()) {
      under_way.push_back(std::move(insertion));
      if (under_way.size() == kWriters) apply();
      continue;
    }
    full += insertion->log_was_full();
    while (!under_way.empty()) apply();
    const uint64_t last = s.store->LastBlock();
    ASSERT_TRUE(s.store->details()->PrepareInsert(&key, id).ok());
    s.store->details()->Apply(0);
    blocks += s.store->LastBlock() != last;
  }
  while (!under_way.empty()) apply();
  EXPECT_EQ(s.shared->log.reserved_bytes, 0u);
  EXPECT_GT(full, 20u);
  EXPECT_LE(full, blocks);
}

TEST(DurableStore, UncommittedOperationsKeepAFoldWaiting) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 10).ok());
  EXPECT_EQ(s.store->FoldBegin().code(), Code::kBusy);
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.store->FoldBegin().ok());
  EXPECT_EQ(s.store->FoldBegin().code(), Code::kBusy);
  s.store->FoldEnd(false);
  ASSERT_TRUE(s.Fold().ok());
}

TEST(DurableStore, OperationsDuringAFoldAreInTheLogAndNotInTheCapture) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 1000).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.store->FoldBegin().ok());
  ASSERT_TRUE(s.Insert(1000, 2000).ok());
  ASSERT_TRUE(s.Commit().ok());
  bool done = false;
  while (!done) {
    ASSERT_TRUE(s.store->FoldWrite(8, &done).ok());
  }
  ASSERT_TRUE(s.Insert(2000, 2100).ok());
  ASSERT_TRUE(s.store->FoldPublish().ok());
  ASSERT_TRUE(s.Insert(2100, 2200).ok());
  s.store->FoldEnd(true);
  ASSERT_TRUE(s.Commit().ok());
  EXPECT_EQ(s.Everything(), Range(0, 2200));
  s.ExpectSound();
  ASSERT_TRUE(s.Crash(3).ok());
  EXPECT_EQ(s.Everything(), Range(0, 2200));
  s.ExpectSound();
  // The log alone cannot have brought back the first thousand.
  EXPECT_LT(s.store->log_bytes(), 1300u * 64);
}

TEST(DurableStore, ADamagedSuperblockIsCoveredByTheOtherSlot) {
  for (uint64_t slot = 0; slot < 2; ++slot) {
    Standalone s;
    ASSERT_TRUE(s.Create().ok());
    ASSERT_TRUE(s.Insert(0, 300).ok());
    ASSERT_TRUE(s.Commit().ok());
    ASSERT_TRUE(s.Fold().ok());
    ASSERT_TRUE(s.Insert(300, 400).ok());
    ASSERT_TRUE(s.Commit().ok());
    s.store.reset();
    s.fs.Damage("/db/index", slot * kBlockBytes + 100, 1);
    ASSERT_TRUE(s.Load().ok());
    EXPECT_EQ(s.Everything(), Range(0, 400));
    s.store.reset();
    s.fs.Damage("/db/index", (1 - slot) * kBlockBytes + 100, 1);
    EXPECT_EQ(s.Load().code(), Code::kCorruption);
  }
}

// Every byte of a small index is flipped in turn, with an empty log: a flip is reported by the
// load, by a scan or by nobody, but then the answer is right.
TEST(DurableStore, AFlippedByteIsReportedOrHarmless) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 600).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Fold().ok());
  s.store.reset();
  const uint64_t size = s.fs.Stat("/db/index")->size_bytes;
  const SimFileSystem::Image image = s.fs.Contents();
  uint32_t reported = 0;
  for (uint64_t at = 3; at < size; at += 61) {
    SCOPED_TRACE(at);
    s.fs.Load(image);
    s.fs.Damage("/db/index", at, 0x20);
    Status status = s.Load();
    if (status.ok()) {
      const auto ids = s.Everything(&status);
      if (status.ok()) {
        ASSERT_EQ(ids, Range(0, 600));
      }
    }
    if (!status.ok()) {
      ASSERT_EQ(status.code(), Code::kCorruption) << status.message();
      ++reported;
    }
    s.store.reset();
  }
  EXPECT_GT(reported, 100u);
}

TEST(DurableStore, FilesThatAreNoIndexOrOfAnotherVersionSayWhy) {
  Standalone s;
  EXPECT_EQ(s.Load().code(), Code::kNotFound);
  ASSERT_TRUE(s.Create().ok());
  s.store.reset();
  ASSERT_TRUE(s.fs.Truncate("/db/index", 0).ok());
  EXPECT_EQ(s.Load().code(), Code::kNotFound);
  ASSERT_TRUE(s.fs.Reserve("/db/index", 0, 4096).ok());
  EXPECT_EQ(s.Load().code(), Code::kNotFound);  // Not one block.
  ASSERT_TRUE(s.fs.Reserve("/db/index", 0, 8 * kBlockBytes).ok());
  EXPECT_EQ(s.Load().code(), Code::kNotFound);  // A creation that never completed.
  s.fs.Damage("/db/index", 70, 1);
  EXPECT_EQ(s.Load().code(), Code::kCorruption);
  s.Reopen();
  ASSERT_TRUE(s.Create().ok());
  s.store.reset();
  for (uint64_t slot = 0; slot < 2; ++slot) {
    s.fs.Damage("/db/index", slot * kBlockBytes + offsetof(Superblock, version), 2);
  }
  EXPECT_EQ(s.Load().code(), Code::kUnsupported);
}

TEST(DurableStore, ATruncatedFileIsCorruptAndNoFault) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 5000).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Fold().ok());
  s.store.reset();
  const SimFileSystem::Image image = s.fs.Contents();
  const uint64_t blocks = image.at("/db/index").size() / kBlockBytes;
  for (uint64_t keep = 2; keep < blocks; keep += 7) {
    s.fs.Load(image);
    ASSERT_TRUE(s.fs.Truncate("/db/index", keep * kBlockBytes).ok());
    Status status = s.Load();
    if (status.ok()) {
      EXPECT_EQ(s.Everything(&status), Range(0, 5000));  // Only free blocks were cut off.
    } else {
      EXPECT_EQ(status.code(), Code::kCorruption) << status.message();
    }
    s.store.reset();
  }
}

TEST(DurableStore, TheBrokenMarkIsDurableAndCreationClearsIt) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 100).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.store->MarkBroken().ok());
  EXPECT_EQ(s.Crash(1).code(), Code::kBroken);
  s.Reopen();
  ASSERT_TRUE(s.Create().ok());
  EXPECT_TRUE(s.Everything().empty());
  ASSERT_TRUE(s.Insert(7, 8).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Crash(2).ok());
  EXPECT_EQ(s.Everything(), Range(7, 8));
}

TEST(DurableStore, FoldsGiveSpaceBackAndTheFileDoesNotGrowWithoutBound) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 3000).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Fold().ok());
  uint64_t next = 3000;
  uint32_t blocks_max = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<uint64_t> ids = Range(next - 3000, next - 2500);
    Key all;
    all.lo[0] = all.lo[1] = -1e9;
    all.hi[0] = all.hi[1] = 1e9;
    uint32_t found = 0;
    ASSERT_TRUE(s.store->details()
                    ->PrepareDelete(kTreeMain, all, ids.data(), 500, &found)
                    .ok());
    ASSERT_EQ(found, 500u);
    s.store->details()->Apply(0);
    ASSERT_TRUE(s.Insert(next, next + 500).ok());
    next += 500;
    ASSERT_TRUE(s.Commit().ok());
    ASSERT_TRUE(s.Fold().ok());
    s.ExpectSound();
    blocks_max = std::max(blocks_max, s.store->allocator()->file_blocks());
  }
  EXPECT_LT(blocks_max, 256u);
  EXPECT_EQ(s.store->retired_versions(), 0u);
  EXPECT_EQ(s.Everything(), Range(next - 3000, next));
}

TEST(DurableStore, TrimmedFreeSpaceIsReservedAgainBeforeItIsUsed) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 20'000).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Fold().ok());
  // Touching every leaf leaves as many free extents as there are in use, one among the other.
  ASSERT_TRUE(s.Insert(20'000, 22'000).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Fold().ok());
  const uint64_t before = s.fs.Stat("/db/index")->disk_bytes;
  s.store->allocator()->TrimFreeExtents();
  EXPECT_LT(s.fs.Stat("/db/index")->disk_bytes, before);
  s.ExpectSound();
  ASSERT_TRUE(s.Insert(22'000, 30'000).ok());
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Fold().ok());
  EXPECT_EQ(s.Everything(), Range(0, 30'000));
  s.ExpectSound();  // No store into a block that was not reserved, among others.
  ASSERT_TRUE(s.Crash(1).ok());
  EXPECT_EQ(s.Everything(), Range(0, 30'000));
  s.ExpectSound();
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Too many insertions for the sanitizers, which have nothing to say about it.
TEST(DurableStore, AFoldStartsTheWriteBackOfWhatChangedAndNotOfWhatLiesBetween) {
  Standalone s;
  ASSERT_TRUE(s.Create().ok());
  ASSERT_TRUE(s.Insert(0, 350'000).ok());  // More nodes than one table page names: several steps.
  ASSERT_TRUE(s.Commit().ok());
  ASSERT_TRUE(s.Fold().ok());
  ASSERT_GT(s.shared->table.pages.load(), 2u);
  constexpr uint64_t kChanges = 200;  // Each in another leaf, all over the file.
  ASSERT_TRUE(s.Insert(350'000, 350'000 + kChanges).ok());
  ASSERT_TRUE(s.Commit().ok());
  const uint64_t before = s.fs.writeback_bytes.load();
  ASSERT_TRUE(s.Fold().ok());
  const uint64_t blocks = (s.fs.writeback_bytes.load() - before) / kBlockBytes;
  EXPECT_GT(blocks, 0u);
  EXPECT_LT(blocks, 2 * kChanges);
}
#endif

}  // namespace
}  // namespace xtree
