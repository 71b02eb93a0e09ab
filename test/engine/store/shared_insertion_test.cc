// Goal: insertions beside each other leave what the same insertions one after another leave.
// Method: one thread plays several writers whose halves come in every order, since threads seldom meet just
// where it matters; then threads do meet, in all numbers up to eight, under a lock that they share as a
// host's writers would, beside a reader. After a crash: host_crash_test.cc. Meant for the thread
// sanitizer, too.
#include "store/shared_insertion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "store/crash_script.h"
#include "store/memory_store.h"
#include "support/epochs.h"
#include "support/index_checks.h"
#include "tree/checker.h"
#include "tree/window_scan.h"

namespace xtree {
namespace {

class MemoryWriters {
 public:
  explicit MemoryWriters(const IndexOptions& options)
      : epochs_(2), store(options, epochs_.get()), details(&store, nullptr) {}
  // As a writer of a host does it, from any thread.
  void Insert(uint64_t id) {
    const Key key = KeyOf(id);
    SharedInsertion insertion(&store, nullptr);
    {
      const std::shared_lock<std::shared_mutex> lock(lock_);
      ASSERT_TRUE(insertion.Prepare(&key, id).ok());
      if (insertion.prepared()) {
        insertion.Apply(0);
        return;
      }
    }
    const std::unique_lock<std::shared_mutex> lock(lock_);
    InsertAlone(id);
  }
  // Everything, without a lock.
  State Read() {
    State state;
    EpochReader reader(epochs_.get(), 0);
    WindowScan scan(&store);
    EXPECT_TRUE(scan.Begin(&reader, kTreeMain, Predicate::All()).ok());
    std::vector<uint64_t> ids(kScanBatchMin);
    for (uint32_t count = 1; count > 0;) {
      if (!scan.Next(ids.data(), nullptr, nullptr, kScanBatchMin, false, &count).ok()) break;
      for (uint32_t i = 0; i < count; ++i) {
        EXPECT_TRUE(state.insert(ids[i]).second) << "id " << ids[i] << " twice";
      }
    }
    return state;
  }
  void InsertAlone(uint64_t id) {
    const Key key = KeyOf(id);
    ASSERT_TRUE(details.PrepareInsert(&key, id).ok());
    details.Apply(0);
  }
  const NodeLayout& RootLayout() {
    const TreeShared& tree = store.shared()->trees[kTreeMain];
    return NodeLayout::Of(tree.spec, *store.LookupNewest(NodeId{tree.root.load()}).value().node);
  }
  uint64_t entries() { return store.shared()->trees[kTreeMain].entries.load(); }
  TreeReport Check() {
    TreeReport report;
    EXPECT_TRUE(CheckTree(&store, kTreeMain, store.shared()->published_epoch.load(), true, &report)
                    .ok());
    EXPECT_TRUE(report.problems.empty()) << report.problems.front();
    return report;
  }

 private:
  std::shared_mutex lock_;
  Epochs epochs_;

 public:
  MemoryStore store;
  IndexDetails details;
};

TEST(SharedInsertion, AnEmptyTreeTakesAChangeOfStructure) {
  MemoryWriters writers(SmallOptions());
  SharedInsertion insertion(&writers.store, nullptr);
  const Key key = KeyOf(1);
  ASSERT_TRUE(insertion.Prepare(&key, 1).ok());
  EXPECT_FALSE(insertion.prepared());
  EXPECT_EQ(writers.store.shared()->writers.exclusive_turns.load(), 1u);
  writers.InsertAlone(1);
  ASSERT_TRUE(insertion.Prepare(&key, 2).ok());
  EXPECT_TRUE(insertion.prepared());
  insertion.Apply(0);
  EXPECT_EQ(writers.entries(), 2u);
  writers.Check();
}

TEST(SharedInsertion, WhatCannotBeInsertedFailsAsElsewhere) {
  MemoryWriters writers(SmallOptions());
  writers.InsertAlone(1);
  SharedInsertion insertion(&writers.store, nullptr);
  Key key = KeyOf(2);
  EXPECT_EQ(insertion.Prepare(&key, kRecordIdMax + 1).code(), Code::kInvalidArgument);
  std::swap(key.lo[0], key.hi[0]);
  key.hi[0] = key.lo[0] - 1;
  EXPECT_EQ(insertion.Prepare(&key, 2).code(), Code::kInvalidArgument);
  EXPECT_FALSE(insertion.prepared());
  EXPECT_EQ(writers.entries(), 1u);
}

// The last slots of a leaf go to as many writers as there are slots, whoever applies first.
TEST(SharedInsertion, RoomIsPromisedOnlyOnce) {
  MemoryWriters writers(SmallOptions());
  writers.InsertAlone(1);
  const uint32_t capacity = writers.RootLayout().base_capacity();
  for (uint64_t id = 2; id + 3 <= capacity; ++id) writers.InsertAlone(id);
  std::vector<std::unique_ptr<SharedInsertion>> sessions;
  uint64_t id = 1000;
  for (int i = 0; i < 4; ++i, ++id) {
    sessions.push_back(std::make_unique<SharedInsertion>(&writers.store, nullptr));
    const Key key = KeyOf(id);
    ASSERT_TRUE(sessions.back()->Prepare(&key, id).ok());
    EXPECT_EQ(sessions.back()->prepared(), i < 3) << i;
  }
  // Who takes a promise back lets another have it.
  sessions[1]->Discard();
  const Key key = KeyOf(id);
  ASSERT_TRUE(sessions[3]->Prepare(&key, id).ok());
  EXPECT_TRUE(sessions[3]->prepared());
  for (int i : {3, 0, 2}) sessions[static_cast<size_t>(i)]->Apply(0);
  EXPECT_EQ(writers.entries(), capacity);
  EXPECT_EQ(writers.store.shared()->trees[kTreeMain].height.load(), 1u);
  writers.Check();
  ExpectNothingReserved(*writers.store.shared());
  // And then it takes a split.
  ASSERT_TRUE(sessions[0]->Prepare(&key, 2000).ok());
  EXPECT_FALSE(sessions[0]->prepared());
}

// A leaf whose keys are decimal is built anew for one that is not.
TEST(SharedInsertion, AKeyThatTheLeafDoesNotTakeTakesAChangeOfStructure) {
  MemoryWriters writers(SmallOptions());
  writers.InsertAlone(1);
  ASSERT_TRUE(writers.RootLayout().decimal());
  SharedInsertion insertion(&writers.store, nullptr);
  Key key = KeyOf(2);
  key.lo[0] = key.hi[0] / 3;
  ASSERT_TRUE(insertion.Prepare(&key, 2).ok());
  EXPECT_FALSE(insertion.prepared());
  ASSERT_TRUE(writers.details.PrepareInsert(&key, 2).ok());
  writers.details.Apply(0);
  ASSERT_FALSE(writers.RootLayout().decimal());
  ASSERT_TRUE(insertion.Prepare(&key, 3).ok());
  ASSERT_TRUE(insertion.prepared());
  insertion.Apply(0);
  EXPECT_EQ(writers.entries(), 3u);
  writers.Check();
}

TEST(SharedInsertion, WhatACaptureHoldsTakesAChangeOfStructure) {
  MemoryWriters writers(SmallOptions());
  for (uint64_t id = 1; id <= 2000; ++id) writers.InsertAlone(id);
  CaptureShared& capture = writers.store.shared()->capture;
  capture.pending_epoch.store(writers.store.shared()->published_epoch.load());
  SharedInsertion insertion(&writers.store, nullptr);
  const Key key = KeyOf(3000);
  ASSERT_TRUE(insertion.Prepare(&key, 3000).ok());
  EXPECT_FALSE(insertion.prepared());
  // The copy is the new capture's no more.
  writers.InsertAlone(3000);
  ASSERT_TRUE(insertion.Prepare(&key, 3001).ok());
  EXPECT_TRUE(insertion.prepared());
  insertion.Discard();
  EXPECT_EQ(writers.entries(), 2001u);
  writers.Check();
}

// Writers that prepare, apply and give up in a random order, beside changes of structure when none is
// between its halves.
TEST(SharedInsertion, HalvesInAnyOrder) {
  constexpr size_t kSessions = 6;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SimRandom random(seed);
    MemoryWriters writers(SmallOptions());
    writers.InsertAlone(1);
    State expected{1};
    std::vector<std::unique_ptr<SharedInsertion>> sessions;
    std::vector<uint64_t> ids(kSessions);
    for (size_t i = 0; i < kSessions; ++i) {
      sessions.push_back(std::make_unique<SharedInsertion>(&writers.store, nullptr));
    }
    uint64_t next_id = 2, beside = 0;
    const auto finish = [&](size_t s) {
      if (!sessions[s]->prepared()) return;
      if (random.Below(10) == 0) {
        sessions[s]->Discard();
        return;
      }
      sessions[s]->Apply(0);
      expected.insert(ids[s]);
      ++beside;
    };
    for (int step = 0; step < (XT_TSAN ? 2000 : 20000); ++step) {
      const size_t s = random.Below(kSessions);
      if (sessions[s]->prepared()) {
        finish(s);
        continue;
      }
      ids[s] = next_id++;
      const Key key = KeyOf(ids[s]);
      ASSERT_TRUE(sessions[s]->Prepare(&key, ids[s]).ok());
      if (sessions[s]->prepared()) continue;
      for (size_t other = 0; other < kSessions; ++other) finish(other);  // The lock is given up.
      writers.InsertAlone(ids[s]);
      expected.insert(ids[s]);
    }
    for (size_t s = 0; s < kSessions; ++s) finish(s);
    EXPECT_EQ(writers.entries(), expected.size());
    const TreeReport report = writers.Check();
    EXPECT_GT(beside, expected.size() / 2);
    ExpectNothingReserved(*writers.store.shared());
  }
}

class SharedInsertionThreads : public ::testing::TestWithParam<uint32_t> {};

TEST_P(SharedInsertionThreads, EveryEntryIsThereOnce) {
  constexpr uint64_t kPerThread = XT_TSAN ? 400 : 2000;
  MemoryWriters writers(SmallOptions());
  std::atomic<uint32_t> running{GetParam()};
  std::vector<std::thread> threads;
  State expected;
  for (uint32_t t = 0; t < GetParam(); ++t) {
    for (uint64_t i = 0; i < kPerThread; ++i) expected.insert((t + 1) * 100'000 + i);
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kPerThread; ++i) writers.Insert((t + 1) * 100'000 + i);
      running.fetch_sub(1);
    });
  }
  // What was found once is found in every later search.
  State seen;
  while (running.load() > 0 && !HasFailure()) {
    const State now = writers.Read();
    EXPECT_TRUE(std::includes(now.begin(), now.end(), seen.begin(), seen.end()));
    seen = now;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(writers.Read(), expected);
  EXPECT_EQ(writers.entries(), expected.size());
  writers.Check();
  const IndexShared& shared = *writers.store.shared();
  uint64_t appends = 0;
  for (const LeafLatch& leaf : shared.writers.leaves) appends += leaf.appends;
  EXPECT_EQ(appends + shared.writers.exclusive_turns.load(), expected.size());
  EXPECT_GT(appends, expected.size() / 2);
  ExpectNothingReserved(shared);
}

INSTANTIATE_TEST_SUITE_P(Threads, SharedInsertionThreads, ::testing::Values(1, 2, 4, 8));

}  // namespace
}  // namespace xtree
