// Goal: insertions beside each other leave what the same insertions one after another leave, for
// readers meanwhile, after a crash at any operation, and for whoever changes the structure beside them.
// Method: threads insert, search, delete, commit and fold, in all numbers up to eight; what each has
// been told is compared with what is there. Meant for the thread sanitizer, too. (Halves of insertions in any
// order: shared_insertion_test.cc.)
//   XTREE_PARALLEL_OPERATIONS  insertions of each thread (default 3,000; 400 under the sanitizer)
//   XTREE_PARALLEL_CRASHES     power cuts (default 24)
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "store/crash_script.h"
#include "store/memory_store.h"
#include "store/shared_insertion.h"
#include "support/epochs.h"
#include "support/index_checks.h"
#include "tree/checker.h"

namespace xtree {
namespace {

const uint64_t kPerThread = FromEnvironment("XTREE_PARALLEL_OPERATIONS", XT_TSAN ? 400 : 3000);

// Every insertion is tried beside others first, also by who is alone.
void AlwaysShare(Index* index) {
  index->store()->shared()->writers.shared_turns.store(UINT32_MAX);
}

uint64_t SharedAppends(const IndexShared& shared) {
  uint64_t appends = 0;
  for (const LeafLatch& leaf : shared.writers.leaves) appends += leaf.appends;
  return appends;
}

class ParallelInsertTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    char name[] = "/tmp/xtree_parallel_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    root_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  RuntimeOptions OptionsOf(DurabilityMode mode) {
    RuntimeOptions options;
    options.directory = root_ + "/db";
    options.mode = mode;
    return options;
  }
  uint32_t threads() const { return GetParam(); }
  // Thread t inserts its own ids, of which each tenth is of a NULL row.
  static uint64_t IdOf(uint32_t thread, uint64_t i) { return (thread + 1) * 1'000'000ull + i; }
  static Status InsertOne(Index* index, uint64_t id) {
    return id % 10 == 9 ? index->InsertNull(id) : index->Insert(KeyOf(id), id);
  }
  static uint64_t InState(uint64_t id) { return id % 10 == 9 ? id | kNullBit : id; }

  std::string root_;
};

TEST_P(ParallelInsertTest, EveryEntryIsThereOnce) {
  RuntimeOptions options = OptionsOf(DurabilityMode::kInMemory);
  auto runtime = DurableRuntime::Open(options).value();
  Index* index = runtime->CreateIndex(kName, SmallOptions()).value();
  AlwaysShare(index);
  std::atomic<uint32_t> running{threads()};
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads(); ++t) {
    workers.emplace_back([&, t] {
      for (uint64_t i = 0; i < kPerThread; ++i) ASSERT_TRUE(InsertOne(index, IdOf(t, i)).ok());
      running.fetch_sub(1);
    });
  }
  // What was found once is found in every later search; no entry shows up twice or with another's key.
  State seen;
  do {
    const State now = ReadState(index);
    EXPECT_TRUE(std::includes(now.begin(), now.end(), seen.begin(), seen.end()));
    seen = now;
  } while (running.load() > 0 && !HasFailure());
  for (std::thread& worker : workers) worker.join();
  State expected;
  for (uint32_t t = 0; t < threads(); ++t) {
    for (uint64_t i = 0; i < kPerThread; ++i) expected.insert(InState(IdOf(t, i)));
  }
  EXPECT_EQ(ReadState(index), expected);
  ExpectSound(index);
  const IndexShared& shared = *index->store()->shared();
  EXPECT_EQ(shared.trees[kTreeMain].entries.load() + shared.trees[kTreeNull].entries.load(),
            expected.size());
  // Splits and the like take their turn alone.
  EXPECT_GT(SharedAppends(shared), expected.size() / 4);
  ExpectNothingReserved(shared);
}

// Folds, deletions and commits take the lock alone, again and again.
TEST_P(ParallelInsertTest, BesideEverythingElseAndOverARestart) {
  State expected;
  {
    auto runtime = DurableRuntime::Open(OptionsOf(DurabilityMode::kBalanced)).value();
    Index* index = runtime->CreateIndex(kName, SmallOptions()).value();
    AlwaysShare(index);
    std::atomic<uint32_t> running{threads()};
    std::vector<State> left(threads());
    std::vector<std::thread> workers;
    for (uint32_t t = 0; t < threads(); ++t) {
      workers.emplace_back([&, t] {
        for (uint64_t i = 0; i < kPerThread / 2; ++i) {
          const uint64_t id = IdOf(t, i);
          ASSERT_TRUE(InsertOne(index, id).ok());
          left[t].insert(InState(id));
          if (i % 7 == 0 && i >= 10) {
            const uint64_t victim = id - 10;
            if (victim % 10 == 9) continue;
            bool found = false;
            ASSERT_TRUE(index->Delete(KeyOf(victim), victim, &found).ok());
            EXPECT_EQ(found, left[t].erase(victim) == 1) << victim;
          }
          if (i % 500 == 0) {
            ASSERT_TRUE(index->Commit().ok());
          }
        }
        running.fetch_sub(1);
      });
    }
    while (running.load() > 0) {
      ASSERT_TRUE(index->Checkpoint().ok());
      if (running.load() % 2 == 1) ExpectSound(index);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    for (std::thread& worker : workers) worker.join();
    for (const State& state : left) expected.insert(state.begin(), state.end());
    ASSERT_TRUE(index->Commit().ok());
    EXPECT_EQ(ReadState(index), expected);
    EXPECT_GT(SharedAppends(*index->store()->shared()), 0u);
    ExpectNothingReserved(*index->store()->shared());
  }
  auto runtime = DurableRuntime::Open(OptionsOf(DurabilityMode::kBalanced)).value();
  Index* index = runtime->OpenIndex(kName).value();
  EXPECT_EQ(ReadState(index), expected);
  ExpectSound(index);
}

// Everything at once: writers that insert and delete their oldest entries, folds that capture, give space
// back and punch it, a checker, and readers that pin epochs meanwhile. A reader knows what it must find: what
// had been inserted before it began and was not yet being deleted when it ended; and what it must not: what was
// gone before it began.
TEST_P(ParallelInsertTest, ReadersSeeWhatTheyMustBesideAll) {
  struct Progress {
    std::atomic<uint64_t> inserted{0};   // Ids below are there, but for those below `deleting`,
    std::atomic<uint64_t> deleting{0};   // which may be gone,
    std::atomic<uint64_t> deleted{0};    // and those below this are.
  };
  constexpr uint64_t kKept = 300;
  constexpr uint64_t kBatch = 50;
  auto runtime = DurableRuntime::Open(OptionsOf(DurabilityMode::kEventual)).value();
  Index* index = runtime->CreateIndex(kName, SmallOptions()).value();
  AlwaysShare(index);
  std::vector<Progress> progress(threads());
  std::atomic<uint32_t> running{threads()};
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads(); ++t) {
    workers.emplace_back([&, t] {
      Progress& mine = progress[t];
      for (uint64_t i = 0; i < kPerThread; ++i) {
        ASSERT_TRUE(index->Insert(KeyOf(IdOf(t, i)), IdOf(t, i)).ok());
        mine.inserted.store(i + 1);
        const uint64_t gone = mine.deleted.load();
        if (i - gone < kKept + kBatch) continue;
        mine.deleting.store(gone + kBatch);
        for (uint64_t victim = gone; victim < gone + kBatch; ++victim) {
          bool found = false;
          ASSERT_TRUE(index->Delete(KeyOf(IdOf(t, victim)), IdOf(t, victim), &found).ok());
          ASSERT_TRUE(found) << victim;
        }
        mine.deleted.store(gone + kBatch);
      }
      running.fetch_sub(1);
    });
  }
  std::atomic<uint64_t> searches{0};
  for (int reader = 0; reader < 2; ++reader) {
    workers.emplace_back([&] {
      while (running.load() > 0 && !HasFailure()) {
        std::vector<uint64_t> inserted, deleted;
        for (const Progress& of : progress) {
          inserted.push_back(of.inserted.load());
          deleted.push_back(of.deleted.load());
        }
        const State found = ReadState(index);  // Notices an entry that comes twice, and a wrong key.
        for (uint32_t t = 0; t < threads(); ++t) {
          for (uint64_t i = progress[t].deleting.load(); i < inserted[t]; ++i) {
            ASSERT_TRUE(found.contains(IdOf(t, i))) << "thread " << t << ", " << i;
          }
          for (uint64_t i = deleted[t] < 2 * kKept ? 0 : deleted[t] - 2 * kKept; i < deleted[t]; ++i) {
            ASSERT_FALSE(found.contains(IdOf(t, i))) << "thread " << t << ", " << i;
          }
        }
        searches.fetch_add(1);
      }
    });
  }
  while (running.load() > 0 && !HasFailure()) {
    ASSERT_TRUE(index->Checkpoint().ok());
    ExpectSound(index);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_GT(searches.load(), 0u);
  State expected;
  for (uint32_t t = 0; t < threads(); ++t) {
    for (uint64_t i = progress[t].deleted; i < kPerThread; ++i) expected.insert(IdOf(t, i));
  }
  EXPECT_EQ(ReadState(index), expected);
  ExpectSound(index);
  ExpectNothingReserved(*index->store()->shared());
}

// A leaf whose latch many wait for, and boxes that all of them widen.
TEST_P(ParallelInsertTest, AllIntoOneLeaf) {
  RuntimeOptions options = OptionsOf(DurabilityMode::kInMemory);
  auto runtime = DurableRuntime::Open(options).value();
  IndexOptions plane;
  plane.spec = KeySpec{2, CoordType::kF64, KeyKind::kPoint};
  Index* index = runtime->CreateIndex(kName, plane).value();
  AlwaysShare(index);
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads(); ++t) {
    workers.emplace_back([&, t] {
      Key key{};
      for (uint64_t i = 0; i < kPerThread; ++i) {
        // Further out in one direction each time, so that every insertion widens all boxes above it.
        const double out = static_cast<double>(i);
        key.lo[0] = key.hi[0] = t % 2 == 0 ? out : -out;
        key.lo[1] = key.hi[1] = t % 4 < 2 ? out : -out;
        ASSERT_TRUE(index->Insert(key, IdOf(t, i)).ok());
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  State ids;
  ASSERT_TRUE(index->Search(Predicate::All(), [&](uint64_t id, const double*, const double*) {
    EXPECT_TRUE(ids.insert(id).second);
  }).ok());
  EXPECT_EQ(ids.size(), threads() * kPerThread);
  ExpectSound(index);
  ExpectNothingReserved(*index->store()->shared());
}

INSTANTIATE_TEST_SUITE_P(Threads, ParallelInsertTest, ::testing::Values(1, 2, 4, 8));

// Power cuts while threads insert and commit: what was committed before is there, and nothing that was not
// inserted. (Syncs of the simulated disk read pages that others store to.)
TEST(ParallelInsertCrash, WhatWasCommittedIsThere) {
  if (XT_TSAN) GTEST_SKIP();
  const uint64_t rounds = FromEnvironment("XTREE_PARALLEL_CRASHES", 24);
  uint64_t shared_appends = 0;
  for (uint64_t seed = 1; seed <= rounds; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    constexpr uint32_t kThreads = 4;
    SimFileSystem fs(seed);
    SimRandom random(seed);
    State committed, attempted;  // Guarded by the mutex.
    std::mutex mutex;
    {
      auto runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
      Index* index = runtime->CreateIndex(kName, SmallOptions()).value();
      AlwaysShare(index);
      fs.CrashAtOperation(random.Below(120));
      std::vector<std::thread> workers;
      for (uint32_t t = 0; t < kThreads; ++t) {
        workers.emplace_back([&, t] {
          State mine;
          for (uint64_t i = 0; i < 4000 && !fs.crashed(); ++i) {
            const uint64_t id = (t + 1) * 100'000 + i;
            {
              const std::lock_guard<std::mutex> lock(mutex);
              attempted.insert(id);
            }
            if (!index->Insert(KeyOf(id), id).ok()) break;
            mine.insert(id);
            if (i % 40 != 39) continue;
            const Status status =
                t == 0 && i % 200 == 199 ? index->Checkpoint() : index->Commit();
            if (!status.ok() || fs.crashed()) break;
            const std::lock_guard<std::mutex> lock(mutex);
            committed.insert(mine.begin(), mine.end());
          }
        });
      }
      for (std::thread& worker : workers) worker.join();
      shared_appends += SharedAppends(*index->store()->shared());
    }
    fs.Restart(random.Next());
    auto runtime = DurableRuntime::Open(Options(&fs, DurabilityMode::kBalanced)).value();
    auto index = runtime->OpenIndex(kName);
    ASSERT_TRUE(index.ok()) << index.status().message();
    const State found = ReadState(*index);
    EXPECT_TRUE(std::includes(found.begin(), found.end(), committed.begin(), committed.end()));
    EXPECT_TRUE(std::includes(attempted.begin(), attempted.end(), found.begin(), found.end()));
    ExpectSound(*index);
    EXPECT_EQ(fs.violations(), std::vector<std::string>());
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(shared_appends, 0u);
}

}  // namespace
}  // namespace xtree
