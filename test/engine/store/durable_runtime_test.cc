// Goal: a C++ program gets from DurableRuntime what its header promises, in every mode, from many
// threads, over many indexes.
// Method: real files in a temporary directory. What survives is asked of a second runtime over the
// same directory, opened after the first has been destroyed or, for a crash, over a copy of the
// files taken while it ran. Power cuts are simulated in crash_test.cc.
#include "store/durable_runtime.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <functional>
#include <future>
#include <set>
#include <thread>
#include <utility>

#include "support/faulty_file_system.h"
#include "support/index_checks.h"
#include "testing/sim_file_system.h"

namespace xtree {
namespace {

namespace fs = std::filesystem;

Key PointKey(double x, double y) {
  Key key;
  key.lo[0] = key.hi[0] = x;
  key.lo[1] = key.hi[1] = y;
  return key;
}

std::set<uint64_t> Ids(Index* index, const Predicate& predicate = Predicate::All()) {
  std::set<uint64_t> ids;
  const Status status = index->Search(predicate, [&](uint64_t id, const double*, const double*) {
    EXPECT_TRUE(ids.insert(id).second) << id;
  });
  EXPECT_TRUE(status.ok()) << status.message();
  return ids;
}

class DurableRuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/xtree_runtime_XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    root_ = name;
    options_.directory = root_ + "/db";
  }
  void TearDown() override { fs::remove_all(root_); }
  std::unique_ptr<DurableRuntime> Open() { return Open(options_); }
  std::unique_ptr<DurableRuntime> Open(const RuntimeOptions& options) {
    auto runtime = DurableRuntime::Open(options);
    EXPECT_TRUE(runtime.ok()) << runtime.status().message();
    return std::move(runtime.value());
  }
  // A second directory with what a crash of the process would leave now.
  RuntimeOptions CrashCopy() {
    const std::string copy = root_ + "/copy" + std::to_string(++copies_);
    fs::copy(options_.directory, copy);
    RuntimeOptions options = options_;
    options.directory = copy;
    return options;
  }
  std::string root_;
  RuntimeOptions options_;
  int copies_ = 0;
};

TEST_F(DurableRuntimeTest, AnIndexIsCreatedFilledQueriedAndOpenedAgain) {
  {
    auto runtime = Open();
    auto created = runtime->CreateIndex("roads", IndexOptions{});
    ASSERT_TRUE(created.ok()) << created.status().message();
    Index* index = *created;
    for (uint64_t i = 0; i < 1000; ++i) {
      ASSERT_TRUE(index->Insert(PointKey(i % 50, i / 50), i).ok());
    }
    ASSERT_TRUE(index->InsertNull(5000).ok());
    ASSERT_TRUE(index->Insert(PointKey(NAN, 1), 5001).ok());
    bool found = false;
    ASSERT_TRUE(index->Delete(PointKey(7, 0), 7, &found).ok());
    EXPECT_TRUE(found);
    ASSERT_TRUE(index->Delete(PointKey(7, 0), 7, &found).ok());
    EXPECT_FALSE(found);
    ASSERT_TRUE(index->Commit().ok());
    EXPECT_EQ(*runtime->OpenIndex("roads"), index);
  }
  auto runtime = Open();
  auto opened = runtime->OpenIndex("roads");
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  Index* index = *opened;
  EXPECT_EQ(Ids(index).size(), 999u);
  Predicate row = Predicate::All();
  row.lo_max[1] = row.hi_max[1] = 0;
  EXPECT_EQ(Ids(index, row).size(), 49u);
  std::set<uint64_t> nulls;
  ASSERT_TRUE(index->SearchNull([&](uint64_t id, const double*, const double*) {
    nulls.insert(id);
  }).ok());
  EXPECT_EQ(nulls, (std::set<uint64_t>{5000, 5001}));
  std::vector<uint64_t> nearest;
  const double point[2] = {10.1, 0};
  ASSERT_TRUE(index->Nearest(point, 3, [&](uint64_t id, double) { nearest.push_back(id); }).ok());
  EXPECT_EQ(nearest.size(), 3u);
  EXPECT_EQ(nearest[0], 10u);
  EXPECT_EQ(nearest[1], 11u);
  bool found = false;
  ASSERT_TRUE(index->Delete(PointKey(NAN, 1), 5001, &found).ok());
  EXPECT_TRUE(found);
  ExpectSound(index);
}

TEST_F(DurableRuntimeTest, UncommittedOperationsAreVisibleButDoNotSurvive) {
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  ASSERT_TRUE(index->Insert(PointKey(1, 1), 1).ok());
  ASSERT_TRUE(index->Commit().ok());
  ASSERT_TRUE(index->Insert(PointKey(2, 2), 2).ok());
  EXPECT_EQ(Ids(index), (std::set<uint64_t>{1, 2}));
  auto copy = Open(CrashCopy());
  auto recovered = copy->OpenIndex("a");
  ASSERT_TRUE(recovered.ok()) << recovered.status().message();
  EXPECT_EQ(Ids(*recovered), (std::set<uint64_t>{1}));
}

TEST_F(DurableRuntimeTest, AMissingLogIsAnErrorWhateverItHeld) {
  for (const bool checkpointed : {false, true}) {
    for (const uint64_t operations : {0, 10}) {
      SCOPED_TRACE(::testing::Message() << checkpointed << " " << operations);
      {
        auto runtime = Open();
        Index* index = runtime->CreateIndex("roads", IndexOptions{}).value();
        for (uint64_t id = 1; id <= operations; ++id) {
          ASSERT_TRUE(index->Insert(Key{{1, 2}, {3, 4}}, id).ok());
        }
        ASSERT_TRUE(index->Commit().ok());
        ASSERT_TRUE(!checkpointed || index->Checkpoint().ok());
      }
      for (const bool removed : {false, true}) {
        const RuntimeOptions copy = CrashCopy();
        const std::string log = copy.directory + "/roads_log";
        ASSERT_TRUE(Open(copy)->OpenIndex("roads").ok());
        ASSERT_TRUE(fs::exists(log));
        if (removed) fs::remove(log);
        else fs::resize_file(log, 0);
        EXPECT_EQ(Open(copy)->OpenIndex("roads").status().code(), Code::kCorruption);
      }
      ASSERT_TRUE(Open()->DropIndex("roads").ok());
    }
  }
}

TEST_F(DurableRuntimeTest, StrictCommitsEveryOperationByItself) {
  options_.mode = DurabilityMode::kStrict;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  for (uint64_t i = 0; i < 20; ++i) ASSERT_TRUE(index->Insert(PointKey(i, i), i).ok());
  auto copy = Open(CrashCopy());
  EXPECT_EQ(Ids(*copy->OpenIndex("a")).size(), 20u);
}

TEST_F(DurableRuntimeTest, EventualFlushesByItself) {
  options_.mode = DurabilityMode::kEventual;
  options_.flush_interval_ms = 1;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  ASSERT_TRUE(index->Insert(PointKey(1, 1), 1).ok());
  ASSERT_TRUE(index->Commit().ok());
  const IndexShared* shared = index->store()->shared();
  for (int i = 0; i < 5000 && shared->log.durable_mark.load() < shared->log.end_mark.load(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(shared->log.durable_mark.load(), shared->log.end_mark.load());
}

TEST_F(DurableRuntimeTest, EventualCommitsFailOnceAFlushHas) {
  FaultyFileSystem files;
  options_.fs = &files;
  options_.mode = DurabilityMode::kEventual;
  options_.flush_interval_ms = 1;
  options_.background_checkpoints = false;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  files.fail_sync = true;
  Status commit;
  for (uint64_t i = 0; i < 2000 && commit.ok(); ++i) {
    ASSERT_TRUE(index->Insert(PointKey(1, static_cast<double>(i)), i).ok());
    commit = index->Commit();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_FALSE(commit.ok());
  files.fail_sync = false;
  EXPECT_FALSE(index->Commit().ok());
  EXPECT_FALSE(runtime->CommitAll().ok());
  runtime.reset();
}

TEST_F(DurableRuntimeTest, ADirectoryHasOneRuntimeAtATime) {
  auto runtime = Open();
  auto second = DurableRuntime::Open(options_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::kBusy);
  // Another process; and the death of one releases the lock.
  const pid_t child = fork();
  if (child == 0) _exit(DurableRuntime::Open(options_).status().code() == Code::kBusy ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  runtime.reset();
  const pid_t holder = fork();
  if (holder == 0) {
    auto held = DurableRuntime::Open(options_);
    if (held.ok()) raise(SIGKILL);
    _exit(1);
  }
  ASSERT_EQ(waitpid(holder, &status, 0), holder);
  EXPECT_TRUE(WIFSIGNALED(status));
  runtime = Open();
  EXPECT_NE(runtime, nullptr);
}

TEST_F(DurableRuntimeTest, InMemoryIndexesNeedNoDirectory) {
  RuntimeOptions options;
  options.mode = DurabilityMode::kInMemory;
  auto runtime = Open(options);
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  std::vector<double> points;
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 5000; ++i) {
    points.push_back(static_cast<double>(i % 70));
    points.push_back(static_cast<double>(i / 70));
    ids.push_back(i);
  }
  ASSERT_TRUE(index->BulkLoad(points.data(), points.data(), ids.data(), ids.size(), 1).ok());
  ASSERT_TRUE(index->Insert(PointKey(-1, -1), 9000).ok());
  EXPECT_EQ(Ids(index).size(), 5001u);
  ASSERT_TRUE(index->Commit().ok());
  ASSERT_TRUE(index->Checkpoint().ok());
  ExpectSound(index);
  EXPECT_FALSE(runtime->CreateIndex("a", IndexOptions{}).ok());
  ASSERT_TRUE(runtime->DropIndex("a").ok());
  EXPECT_EQ(runtime->OpenIndex("a").status().code(), Code::kNotFound);
}

TEST_F(DurableRuntimeTest, ABulkLoadIsDurableWhenItReturns) {
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  std::vector<double> lo, hi;
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 20'000; ++i) {
    lo.insert(lo.end(), {static_cast<double>(i % 150), static_cast<double>(i / 150)});
    hi.insert(hi.end(), {lo[2 * i] + 0.5, lo[2 * i + 1] + 0.5});
    ids.push_back(i);
  }
  ASSERT_TRUE(index->BulkLoad(lo.data(), hi.data(), ids.data(), ids.size(), 2).ok());
  EXPECT_EQ(index->BulkLoad(lo.data(), hi.data(), ids.data(), 10, 1).code(),
            Code::kInvalidArgument);
  auto copy = Open(CrashCopy());
  Index* recovered = *copy->OpenIndex("a");
  EXPECT_EQ(Ids(recovered).size(), ids.size());
  ExpectSound(recovered);
}

TEST_F(DurableRuntimeTest, ABulkLoadStoresItsLeavesWhereNoFileCanBeKeptOpen) {
  FaultyFileSystem files;
  ASSERT_EQ(files.Open("a")->get(), nullptr);
  options_.fs = &files;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  std::vector<double> corners;
  std::vector<uint64_t> ids(20'000);
  for (uint64_t i = 0; i < ids.size(); ++i) {
    ids[i] = i;
    corners.insert(corners.end(), {static_cast<double>(i % 150), static_cast<double>(i / 150)});
  }
  ASSERT_TRUE(index->BulkLoad(corners.data(), corners.data(), ids.data(), ids.size(), 2).ok());
  EXPECT_EQ(Ids(index).size(), ids.size());
  ExpectSound(index);
}

TEST_F(DurableRuntimeTest, NamesAreCheckedAndIndexesDroppedWithAllTheirFiles) {
  auto runtime = Open();
  for (const char* name : {"", "a/b", "..", "a_log", "a.1"}) {
    EXPECT_EQ(runtime->CreateIndex(name, IndexOptions{}).status().code(), Code::kInvalidArgument);
  }
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  ASSERT_TRUE(index->Insert(PointKey(1, 1), 1).ok());
  ASSERT_TRUE(index->Commit().ok());
  EXPECT_EQ(runtime->CreateIndex("a", IndexOptions{}).status().code(), Code::kInvalidArgument);
  ASSERT_TRUE(runtime->CloseIndex("a").ok());
  EXPECT_EQ(runtime->CreateIndex("a", IndexOptions{}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(runtime->CloseIndex("a").code(), Code::kNotFound);
  ASSERT_TRUE(runtime->DropIndex("a").ok());
  EXPECT_TRUE(fs::is_empty(options_.directory));
  EXPECT_EQ(runtime->DropIndex("a").code(), Code::kNotFound);
  EXPECT_EQ(runtime->OpenIndex("a").status().code(), Code::kNotFound);
  IndexOptions impossible;
  impossible.spec.dims = 33;
  EXPECT_EQ(runtime->CreateIndex("b", impossible).status().code(), Code::kInvalidArgument);
  ASSERT_TRUE(runtime->CreateIndex("b", IndexOptions{}).ok());
}

TEST_F(DurableRuntimeTest, AVisitorMaySearchAgain) {
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  for (uint64_t i = 0; i < 30; ++i) ASSERT_TRUE(index->Insert(PointKey(i, i), i).ok());
  uint64_t pairs = 0;
  ASSERT_TRUE(index->Search(Predicate::All(), [&](uint64_t, const double*, const double*) {
    ASSERT_TRUE(index->Search(Predicate::All(), [&](uint64_t, const double*, const double*) {
      ++pairs;
    }).ok());
  }).ok());
  EXPECT_EQ(pairs, 900u);
}

TEST_F(DurableRuntimeTest, BackgroundFoldsKeepTheLogShortWhileWritersAndReadersRun) {
  options_.log_bytes_fold = 64 << 10;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  constexpr uint64_t kWriters = 2;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr uint64_t kEach = 3000;
#else
  constexpr uint64_t kEach = 20'000;
#endif
  std::atomic<uint64_t> committed[kWriters]{};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint64_t w = 0; w < kWriters; ++w) {
    threads.emplace_back([&, w] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t id = i * kWriters + w;
        ASSERT_TRUE(index->Insert(PointKey(static_cast<double>(id % 997),
                                           static_cast<double>(id % 1009)), id).ok());
        if (i % 100 == 99) {
          ASSERT_TRUE(index->Commit().ok());
          committed[w] = i + 1;
        }
      }
    });
  }
  threads.emplace_back([&] {
    while (!stop) {
      const uint64_t least = committed[0] + committed[1];
      uint64_t count = 0;
      ASSERT_TRUE(index->Search(Predicate::All(), [&](uint64_t, const double*, const double*) {
        ++count;
      }).ok());
      ASSERT_GE(count, least);
    }
  });
  for (uint64_t w = 0; w < kWriters; ++w) threads[w].join();
  stop = true;
  threads.back().join();
  for (int i = 0; i < 5000 && index->store()->shared()->capture.folds.load() == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GT(index->store()->shared()->capture.folds.load(), 0u);
  ExpectSound(index);
  runtime.reset();
  runtime = Open();
  index = *runtime->OpenIndex("a");
  EXPECT_EQ(Ids(index).size(), kWriters * kEach);
  ExpectSound(index);
}

TEST_F(DurableRuntimeTest, ConcurrentCommittersShareSyncsAndLoseNothing) {
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 50; ++i) {
        ASSERT_TRUE(index->Insert(PointKey(static_cast<double>(t), static_cast<double>(i)),
                                  t * 50 + i).ok());
        ASSERT_TRUE(index->Commit().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  auto copy = Open(CrashCopy());
  EXPECT_EQ(Ids(*copy->OpenIndex("a")).size(), 300u);
}

// If each sync served only those who came during the one before, two groups would take turns and a sync serve
// half of the threads. Threads that the machine keeps from running may spoil a round, but not all.
TEST_F(DurableRuntimeTest, ASyncWaitsForThoseWhomTheLastOneReleased) {
  constexpr uint64_t kThreads = 4, kCommits = 10;
  FaultyFileSystem files;
  options_.fs = &files;
  options_.background_checkpoints = false;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  ASSERT_TRUE(index->Insert(PointKey(0, 0), 0).ok());
  ASSERT_TRUE(index->Commit().ok());
  files.sync_takes = std::chrono::milliseconds(20);
  uint32_t fewest = UINT32_MAX;
  for (uint64_t round = 0; round < 20 && fewest >= kThreads * kCommits / 3; ++round) {
    files.syncs = 0;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t i = 0; i < kCommits; ++i) {
          const uint64_t id = 1 + (round * kThreads + t) * kCommits + i;
          ASSERT_TRUE(index->Insert(PointKey(1, static_cast<double>(id)), id).ok());
          ASSERT_TRUE(index->Commit().ok());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    fewest = std::min(fewest, files.syncs.load());
  }
  EXPECT_LT(fewest, kThreads * kCommits / 3);
  runtime.reset();
}

// A queue whose next batch fails, and that does something before the caller learns that.
class FailingQueue final : public IoQueue {
 public:
  explicit FailingQueue(SimFileSystem* files) : files_(files) {}
  void SyncAll(std::vector<SyncRequest>* batch) override {
    if (then) files_->FailOperation(0, Status::Make(Code::kIoError, "injected: I/O error"));
    for (SyncRequest& request : *batch) request.status = files_->Sync(request.path.c_str());
    if (then) std::exchange(then, nullptr)();
  }
  const char* name() const override { return "failing"; }
  std::function<void()> then;

 private:
  SimFileSystem* const files_;
};

// The kernel tells of pages that were lost only once, if each sync opens the file: one that is made after the batch's,
// and before that has said how it went, succeeds without them.
TEST_F(DurableRuntimeTest, NoCommitTrustsASyncBesideABatchThatFails) {
  SimFileSystem files;
  SimClock clock;
  FailingQueue queue(&files);
  options_.directory = "/db";
  options_.fs = &files;
  options_.clock = &clock;
  options_.queue = &queue;
  options_.background_checkpoints = false;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  for (uint64_t i = 0; i < 400; ++i) ASSERT_TRUE(index->Insert(PointKey(1.0 / 3, static_cast<double>(i)), i).ok());
  std::future<Status> commit;
  queue.then = [&] {
    commit = std::async(std::launch::async, [&] {
      const Status inserted = index->Insert(PointKey(1, 1), 1000);
      return inserted.ok() ? index->Commit() : inserted;
    });
    commit.wait_for(std::chrono::milliseconds(200));  // Not for good: it may wait for the batch.
  };
  EXPECT_FALSE(runtime->CommitAll().ok());
  EXPECT_FALSE(commit.get().ok());
}

// Whoever still closes an index writes to its log.
TEST_F(DurableRuntimeTest, AnIndexIsNotOpenedWhileItIsBeingClosed) {
  FaultyFileSystem files;
  SimClock clock;  // Stands still: nothing is flushed in the background.
  options_.fs = &files;
  options_.clock = &clock;
  options_.mode = DurabilityMode::kEventual;
  options_.flush_interval_ms = 1'000'000;
  options_.background_checkpoints = false;
  auto runtime = Open();
  Index* index = *runtime->CreateIndex("a", IndexOptions{});
  ASSERT_TRUE(index->Insert(PointKey(1, 1), 1).ok());
  ASSERT_TRUE(index->Commit().ok());
  std::promise<void> closing, go_on;
  files.before_sync = [&] {
    files.before_sync = nullptr;
    closing.set_value();
    go_on.get_future().wait();
  };
  auto closed = std::async(std::launch::async, [&] { return runtime->CloseIndex("a"); });
  closing.get_future().wait();
  auto inserted = std::async(std::launch::async, [&] {
    Index* again = *runtime->OpenIndex("a");
    const Status status = again->Insert(PointKey(2, 2), 2);
    return status.ok() ? again->Commit() : status;
  });
  inserted.wait_for(std::chrono::milliseconds(200));  // Not for good: it may wait for who closes.
  go_on.set_value();
  EXPECT_TRUE(closed.get().ok());
  EXPECT_TRUE(inserted.get().ok());
  ASSERT_TRUE(runtime->CloseIndex("a").ok());
  auto opened = runtime->OpenIndex("a");
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  EXPECT_EQ(Ids(*opened), (std::set<uint64_t>{1, 2}));
  runtime.reset();
}

TEST_F(DurableRuntimeTest, OneBatchCommitsManyIndexesWithinFewWindowsAndDescriptors) {
  options_.windows_max = 16;
  auto runtime = Open();
  std::vector<Index*> indexes;
  for (int i = 0; i < 100; ++i) {
    auto created = runtime->CreateIndex("i" + std::to_string(i), IndexOptions{});
    ASSERT_TRUE(created.ok()) << created.status().message();
    indexes.push_back(*created);
  }
  for (uint64_t r = 0; r < 20; ++r) {
    for (Index* index : indexes) ASSERT_TRUE(index->Insert(PointKey(r, r), r).ok());
  }
  const Status status = runtime->CommitAll();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_LE(runtime->windows_mapped(), 18u);
  EXPECT_GT(runtime->window_stats().evictions, 0u);
  const auto descriptors = std::distance(fs::directory_iterator("/proc/self/fd"),
                                         fs::directory_iterator());
  EXPECT_LT(descriptors, 20);
  auto copy = Open(CrashCopy());
  for (int i = 0; i < 100; ++i) {
    auto opened = copy->OpenIndex("i" + std::to_string(i));
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    ASSERT_EQ(Ids(*opened).size(), 20u);
  }
}

TEST_F(DurableRuntimeTest, FewLogsStayOpenBetweenCommitsAndNoneOfIdleIndexes) {
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  auto runtime = Open();
  std::vector<Index*> indexes;
  for (int i = 0; i < 20; ++i) {
    indexes.push_back(*runtime->CreateIndex("i" + std::to_string(i), IndexOptions{}));
  }
  const auto before = descriptors();
  for (uint64_t r = 0; r < 20; ++r) {
    for (Index* index : indexes) {
      ASSERT_TRUE(index->Insert(PointKey(r, r), r).ok());
      ASSERT_TRUE(index->Commit().ok());
      ASSERT_LE(descriptors(), before + 8 + 1);  // One more while the background syncs a file.
    }
  }
  for (int i = 0; i < 600 && descriptors() > before; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(descriptors(), before) << "an idle index holds a descriptor";
  auto copy = Open(CrashCopy());
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Ids(*copy->OpenIndex("i" + std::to_string(i))).size(), 20u);
}

TEST_F(DurableRuntimeTest, ThreadsComeAndGoAndMayOutliveTheRuntime) {
  std::atomic<int> phase{0};
  std::thread outliving;
  {
    auto runtime = Open();
    Index* index = *runtime->CreateIndex("a", IndexOptions{});
    ASSERT_TRUE(index->Insert(PointKey(1, 1), 1).ok());
    for (int i = 0; i < 600; ++i) {  // More than there are reader slots, one after the other.
      std::thread([&] { EXPECT_EQ(Ids(index).size(), 1u); }).join();
    }
    outliving = std::thread([&] {
      EXPECT_EQ(Ids(index).size(), 1u);
      phase = 1;
      while (phase != 2) std::this_thread::yield();
    });
    while (phase != 1) std::this_thread::yield();
  }
  phase = 2;
  outliving.join();
}

}  // namespace
}  // namespace xtree
