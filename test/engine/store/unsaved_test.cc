// Goal: an index whose changes are kept in the process's memory until a checkpoint writes them
//   (RuntimeOptions::unsaved_bytes_max) answers and recovers as any other: over checkpoints, windows that are
//   unmapped, limits that are passed, failed writes, and a process that ends at any moment.
// Method: real files, since private mappings are the kernel's. Random changes against a model; what a process
//   that ends leaves behind is what a copy of its files holds, since nothing else of it lasts.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "store/durable_runtime.h"
#include "store/node_store.h"

namespace xtree {
namespace {

constexpr uint32_t kIndexes = 3;

// The files of the system, of which one write or sync fails.
class FailingFiles final : public FileSystem {
 public:
  uint64_t writes_until_failure = UINT64_MAX;
  bool fail_syncs = false;
  uint64_t writes = 0;

  Result<FileInfo> Stat(const char* path) override { return files_->Stat(path); }
  Status Reserve(const char* path, uint64_t offset, uint64_t length) override {
    return files_->Reserve(path, offset, length);
  }
  Status Punch(const char* path, uint64_t offset, uint64_t length) override {
    return files_->Punch(path, offset, length);
  }
  Status Truncate(const char* path, uint64_t bytes) override { return files_->Truncate(path, bytes); }
  Result<std::byte*> Map(const char* path, uint64_t length, bool writable) override {
    return files_->Map(path, length, writable);
  }
  bool CanMapPrivate() const override { return true; }
  Result<std::byte*> MapPrivate(const char* path, uint64_t length) override {
    return files_->MapPrivate(path, length);
  }
  Status WritePrivate(const char* path, uint64_t offset, std::byte* mapped,
                      uint64_t length) override {
    ++writes;
    if (writes_until_failure-- == 0) return Status::Make(Code::kIoError, "a write that fails");
    return files_->WritePrivate(path, offset, mapped, length);
  }
  void ForgetPrivate(std::byte* mapped, uint64_t length) override {
    files_->ForgetPrivate(mapped, length);
  }
  void Unmap(std::byte* base, uint64_t length) override { files_->Unmap(base, length); }
  Status Sync(const char* path) override {
    if (fail_syncs) return Status::Make(Code::kIoError, "a sync that fails");
    return files_->Sync(path);
  }
  void StartWriteback(const char*, uint64_t, uint64_t) override {}
  Status SyncDirectory(const char* path) override { return files_->SyncDirectory(path); }
  Status Remove(const char* path) override { return files_->Remove(path); }
  Status CreateDirectory(const char* path) override { return files_->CreateDirectory(path); }

 private:
  FileSystem* const files_ = PosixFileSystem();
};

class UnsavedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = "/tmp/xtree_unsaved_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    base_ = name;
    model_.resize(kIndexes);
  }
  void TearDown() override {
    runtime_.reset();
    std::filesystem::remove_all(base_);
  }

  void Start(uint64_t unsaved_bytes_max, bool background = false, FileSystem* fs = nullptr) {
    runtime_.reset();
    RuntimeOptions options;
    options.directory = base_ + "/live";
    options.unsaved_bytes_max = unsaved_bytes_max;
    options.windows_max = 1;
    options.background_checkpoints = background;
    options.fs = fs;
    auto runtime = DurableRuntime::Open(options);
    ASSERT_TRUE(runtime.ok()) << runtime.status().message();
    runtime_ = std::move(*runtime);
  }
  void CreateAll() {
    for (uint32_t i = 0; i < kIndexes; ++i) {
      auto created = runtime_->CreateIndex(NameOf(i), IndexOptions{});
      ASSERT_TRUE(created.ok()) << created.status().message();
    }
  }
  static std::string NameOf(uint32_t i) { return "i" + std::to_string(i); }
  Index* At(uint32_t i) { return runtime_->OpenIndex(NameOf(i)).value(); }

  Key RandomKey() {
    Key key;
    for (uint32_t d = 0; d < 2; ++d) {
      key.lo[d] = static_cast<double>(random_() >> 12);
      key.hi[d] = key.lo[d] + static_cast<double>(random_() % 1000);
    }
    return key;
  }
  void Change(uint32_t i, uint32_t inserts, uint32_t deletes) {
    auto& model = model_[i];
    for (uint32_t n = 0; n < inserts; ++n) {
      const Key key = RandomKey();
      ASSERT_TRUE(At(i)->Insert(key, next_id_).ok());
      model[next_id_++] = key;
    }
    for (uint32_t n = 0; n < deletes && !model.empty(); ++n) {
      auto victim = model.lower_bound(random_() % next_id_);
      if (victim == model.end()) victim = model.begin();
      bool found = false;
      ASSERT_TRUE(At(i)->Delete(victim->second, victim->first, &found).ok());
      ASSERT_TRUE(found);
      model.erase(victim);
    }
  }
  void Compare(Index* index, uint32_t i) {
    auto missing = model_[i];
    const Status status =
        index->Search(Predicate::All(), [&](uint64_t id, const double* lo, const double* hi) {
          const auto entry = missing.find(id);
          ASSERT_NE(entry, missing.end()) << id;
          ASSERT_TRUE(std::equal(lo, lo + 2, entry->second.lo) &&
                      std::equal(hi, hi + 2, entry->second.hi));
          missing.erase(entry);
        });
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_TRUE(missing.empty()) << missing.size() << " of index " << i;
    std::vector<std::string> problems;
    ASSERT_TRUE(index->Check(&problems).ok());
    ASSERT_TRUE(problems.empty()) << problems.front();
  }
  void CompareAll() {
    for (uint32_t i = 0; i < kIndexes; ++i) ASSERT_NO_FATAL_FAILURE(Compare(At(i), i));
  }
  // What is left if the process ends now.
  void CompareCopy(uint64_t unsaved_bytes_max) {
    const std::string copy = base_ + "/copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(base_ + "/live", copy);
    RuntimeOptions options;
    options.directory = copy;
    options.unsaved_bytes_max = unsaved_bytes_max;
    auto runtime = DurableRuntime::Open(options);
    ASSERT_TRUE(runtime.ok());
    for (uint32_t i = 0; i < kIndexes; ++i) {
      auto opened = (*runtime)->OpenIndex(NameOf(i));
      ASSERT_TRUE(opened.ok()) << opened.status().message();
      ASSERT_NO_FATAL_FAILURE(Compare(*opened, i));
    }
  }
  // Blocks of the data file that are not zeros.
  uint64_t BlocksWritten(uint32_t i) {
    std::ifstream file(base_ + "/live/" + NameOf(i), std::ios::binary);
    std::vector<char> block(kBlockBytes);
    uint64_t written = 0;
    while (file.read(block.data(), kBlockBytes)) {
      written += std::any_of(block.begin(), block.end(), [](char c) { return c != 0; });
    }
    return written;
  }

  std::string base_;
  FailingFiles files_;
  std::unique_ptr<DurableRuntime> runtime_;
  std::mt19937_64 random_{1};
  std::vector<std::map<uint64_t, Key>> model_;
  uint64_t next_id_ = 1;
};

TEST_F(UnsavedTest, ProcessThatEndsLeavesWhatWasCommitted) {
  ASSERT_NO_FATAL_FAILURE(Start(64u << 20));
  ASSERT_NO_FATAL_FAILURE(CreateAll());
  for (uint32_t round = 0; round < 12; ++round) {
    SCOPED_TRACE(round);
    for (uint32_t i = 0; i < kIndexes; ++i) {
      ASSERT_NO_FATAL_FAILURE(Change(i, 400, round % 5 == 4 ? 900 : 150));
      ASSERT_TRUE(At(i)->Commit().ok());
      if ((round + i) % 3 == 0) {
        ASSERT_TRUE(At(i)->Checkpoint().ok());
      }
    }
    ASSERT_NO_FATAL_FAILURE(CompareAll());
    // Read back through both kinds of mapping.
    ASSERT_NO_FATAL_FAILURE(CompareCopy(round % 2 == 0 ? 0 : 64u << 20));
    if (round % 4 == 3) {
      ASSERT_NO_FATAL_FAILURE(Start(64u << 20));
      ASSERT_NO_FATAL_FAILURE(CompareAll());
    }
  }
}

TEST_F(UnsavedTest, MemoryIsWrittenAtTheLimitAndWindowsGiveWayOnceItIs) {
  constexpr uint64_t kLimit = 256u << 10;
  ASSERT_NO_FATAL_FAILURE(Start(kLimit, true));
  ASSERT_NO_FATAL_FAILURE(CreateAll());
  for (uint32_t round = 0; round < 20; ++round) {
    for (uint32_t i = 0; i < kIndexes; ++i) {
      ASSERT_NO_FATAL_FAILURE(Change(i, 500, 100));
      ASSERT_TRUE(At(i)->Commit().ok());
    }
  }
  for (uint32_t i = 0; i < kIndexes; ++i) {
    const IndexShared* shared = static_cast<NodeStore*>(At(i)->store())->shared();
    EXPECT_GT(shared->capture.folds.load(), 3u);
    ASSERT_TRUE(At(i)->Checkpoint().ok());
  }
  ASSERT_NO_FATAL_FAILURE(CompareAll());
  EXPECT_GT(runtime_->window_stats().evictions, 0u);
  ASSERT_NO_FATAL_FAILURE(CompareCopy(0));
}

TEST_F(UnsavedTest, FreeBlocksEndAsZerosInTheFile) {
  ASSERT_NO_FATAL_FAILURE(Start(64u << 20));
  ASSERT_NO_FATAL_FAILURE(CreateAll());
  for (uint32_t round = 0; round < 6; ++round) {
    ASSERT_NO_FATAL_FAILURE(Change(0, 3000, 1500));
    ASSERT_TRUE(At(0)->Checkpoint().ok());
  }
  ASSERT_TRUE(At(0)->Checkpoint().ok());
  const IndexShared* shared = static_cast<NodeStore*>(At(0)->store())->shared();
  EXPECT_LE(BlocksWritten(0), shared->allocator.used_blocks.load());
  ASSERT_NO_FATAL_FAILURE(CompareAll());
}

TEST_F(UnsavedTest, WriteThatFailsIsMadeGoodByTheNextCheckpoint) {
  for (uint64_t at = 0;; ++at) {
    SCOPED_TRACE(at);
    std::filesystem::remove_all(base_ + "/live");
    for (auto& model : model_) model.clear();
    FailingFiles& files = files_;
    ASSERT_NO_FATAL_FAILURE(Start(64u << 20, false, &files));
    ASSERT_NO_FATAL_FAILURE(CreateAll());
    ASSERT_NO_FATAL_FAILURE(Change(0, 1200, 0));
    ASSERT_TRUE(At(0)->Checkpoint().ok());
    ASSERT_NO_FATAL_FAILURE(Change(0, 600, 200));
    ASSERT_TRUE(At(0)->Commit().ok());
    files.writes_until_failure = at;
    const uint64_t before = files.writes;
    const bool folded = At(0)->Checkpoint().ok();
    const uint64_t writes = files.writes - before;
    files.writes_until_failure = UINT64_MAX;
    ASSERT_NO_FATAL_FAILURE(Compare(At(0), 0));
    ASSERT_NO_FATAL_FAILURE(CompareCopy(0));
    ASSERT_NO_FATAL_FAILURE(Change(0, 200, 200));
    ASSERT_TRUE(At(0)->Commit().ok());
    // A superblock that could not be written leaves open which capture the disk names: no more folds.
    const Status again = At(0)->Checkpoint();
    ASSERT_NO_FATAL_FAILURE(Compare(At(0), 0));
    ASSERT_NO_FATAL_FAILURE(CompareCopy(0));
    if (folded && writes <= at) {
      ASSERT_TRUE(again.ok()) << again.message();
      ASSERT_GT(at, 2u);
      break;
    }
    ASSERT_LT(at, 1000u);
    runtime_.reset();
  }
}

TEST_F(UnsavedTest, SyncThatFailsLosesNothingThatWasCommitted) {
  FailingFiles& files = files_;
  ASSERT_NO_FATAL_FAILURE(Start(64u << 20, false, &files));
  ASSERT_NO_FATAL_FAILURE(CreateAll());
  ASSERT_NO_FATAL_FAILURE(Change(0, 5000, 0));
  ASSERT_TRUE(At(0)->Checkpoint().ok());
  ASSERT_NO_FATAL_FAILURE(Change(0, 3000, 1000));
  ASSERT_TRUE(At(0)->Commit().ok());
  files.fail_syncs = true;
  EXPECT_FALSE(At(0)->Checkpoint().ok());
  files.fail_syncs = false;
  ASSERT_NO_FATAL_FAILURE(Compare(At(0), 0));
  ASSERT_NO_FATAL_FAILURE(CompareCopy(0));
  ASSERT_NO_FATAL_FAILURE(Change(0, 1000, 1000));
  ASSERT_NO_FATAL_FAILURE(Compare(At(0), 0));
}

}  // namespace
}  // namespace xtree
