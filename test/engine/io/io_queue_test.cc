// Goal: a batch gives each file its own result, needs few descriptors however long it is, and the
// ring does what the plain queue does.
// Method: the same batches through both queues, over more files than fit in the ring, some missing;
// a descriptor limit low enough that keeping files open would fail.
#include "io/io_queue.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/odd_system_calls.h"

namespace xtree {
namespace {

namespace stdfs = std::filesystem;

class IoQueueTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    directory_ = stdfs::temp_directory_path() /
                 ("xtree_io_queue_test." + std::to_string(getpid()));
    stdfs::create_directory(directory_);
    if (std::string(GetParam()) == "portable") {
      queue_ = NewPortableIoQueue();
    } else {
      std::string why;
      queue_ = NewIoQueue(&why);
      if (std::string(queue_->name()) != "io_uring") {
        EXPECT_NE(why, "");  // Whoever falls back says why.
        GTEST_SKIP() << why;
      }
    }
    ASSERT_STREQ(queue_->name(), GetParam());
  }
  void TearDown() override { stdfs::remove_all(directory_); }
  std::string MakeFile(int i) {
    const std::string path = (directory_ / std::to_string(i)).string();
    FILE* file = fopen(path.c_str(), "w");
    EXPECT_NE(file, nullptr);
    fprintf(file, "content %d", i);
    fclose(file);
    return path;
  }
  stdfs::path directory_;
  std::unique_ptr<IoQueue> queue_;
};

TEST_P(IoQueueTest, AnEmptyBatchIsFine) {
  std::vector<SyncRequest> batch;
  queue_->SyncAll(&batch);
  EXPECT_TRUE(batch.empty());
}

TEST_P(IoQueueTest, EachFileGetsItsOwnResult) {
  std::vector<SyncRequest> batch;
  for (int i = 0; i < 300; ++i) {
    const bool exists = i % 7 != 3;
    const std::string path = exists ? MakeFile(i) : (directory_ / "missing").string();
    batch.push_back(SyncRequest{path, Status::Internal("not touched")});
  }
  for (int round = 0; round < 3; ++round) {
    queue_->SyncAll(&batch);
    for (int i = 0; i < 300; ++i) {
      const Status& status = batch[static_cast<size_t>(i)].status;
      EXPECT_EQ(status.code(), i % 7 != 3 ? Code::kOk : Code::kNotFound) << status.message();
    }
  }
}

TEST_P(IoQueueTest, ALongBatchStaysWithinSixtyFourDescriptors) {
  std::vector<SyncRequest> batch;
  for (int i = 0; i < 500; ++i) batch.push_back(SyncRequest{MakeFile(i), Status::Ok()});
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old_limit), 0);
  rlimit low = old_limit;
  low.rlim_cur = 64 + 16;  // Room for what a test program has open anyway.
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  queue_->SyncAll(&batch);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old_limit), 0);
  for (const SyncRequest& request : batch) {
    EXPECT_TRUE(request.status.ok()) << request.status.message();
  }
}

TEST_P(IoQueueTest, NoDescriptorIsKept) {
  const auto count = [] {
    return std::distance(stdfs::directory_iterator("/proc/self/fd"), stdfs::directory_iterator());
  };
  std::vector<SyncRequest> batch;
  for (int i = 0; i < 100; ++i) batch.push_back(SyncRequest{MakeFile(i), Status::Ok()});
  batch.push_back(SyncRequest{"/nonexistent/file", Status::Ok()});
  const auto before = count();
  for (int round = 0; round < 10; ++round) queue_->SyncAll(&batch);
  EXPECT_EQ(count(), before);
}

TEST_P(IoQueueTest, AFileThatCannotBeSyncedReportsItsError) {
  // A descriptor of a pipe refuses fdatasync; the path leads to one that this process holds.
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const std::string path = "/proc/self/fd/" + std::to_string(fds[1]);
  std::vector<SyncRequest> batch{{MakeFile(1), Status::Ok()}, {path, Status::Ok()},
                                 {MakeFile(2), Status::Ok()}};
  queue_->SyncAll(&batch);
  EXPECT_TRUE(batch[0].status.ok());
  EXPECT_EQ(batch[1].status.code(), Code::kIoError);
  EXPECT_NE(std::string(batch[1].status.message()).find(path), std::string::npos);
  EXPECT_TRUE(batch[2].status.ok());
  close(fds[0]);
  close(fds[1]);
}

// Results are told apart by what they belong to, not by when they come.
TEST_P(IoQueueTest, CompletionsMayComeInAnyOrder) {
  OddSystemCalls odd;
  odd.shuffle_completions = true;
  ScopedOddSystemCalls scope(odd);
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const std::string refuses = "/proc/self/fd/" + std::to_string(fds[1]);
  std::vector<std::string> paths;
  for (int i = 0; i < 100; ++i) paths.push_back(i % 50 == 49 ? "/nonexistent/file" : MakeFile(i));
  for (int bad = 0; bad < 100; bad += 9) {
    std::vector<SyncRequest> batch;
    for (const std::string& path : paths) batch.push_back(SyncRequest{path, Status::Internal("not touched")});
    batch[static_cast<size_t>(bad)].path = refuses;
    queue_->SyncAll(&batch);
    for (int i = 0; i < 100; ++i) {
      const Code expected = i == bad ? Code::kIoError : i % 50 == 49 ? Code::kNotFound : Code::kOk;
      EXPECT_EQ(batch[static_cast<size_t>(i)].status.code(), expected) << bad << ", " << i;
    }
  }
  EXPECT_EQ(scope.calls() > 0, std::string(GetParam()) == "io_uring");
  close(fds[0]);
  close(fds[1]);
}

INSTANTIATE_TEST_SUITE_P(Queues, IoQueueTest, ::testing::Values("io_uring", "portable"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace xtree
