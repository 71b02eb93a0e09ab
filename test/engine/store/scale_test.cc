// Goal: many open indexes with very many segments cost neither descriptors nor mappings: what a process
// holds is bounded by its window budget, however much is open, and every answer is right.
// Method: data files that are spread over all their segments (sparse, so that they fit on the disk); a
// limit on descriptors so low that one too many is an error; a window budget of a fraction of the files;
// threads that insert, delete, search and checkpoint at random, against a model that recomputes every
// key. The numbers are printed.
//   XTREE_SCALE_INDEXES   how many (default 150).
//   XTREE_SCALE_DIR       where (default /tmp).
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "store/durable_runtime.h"
#include "store/node_store.h"

namespace xtree {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kIndexesDefault = 40;
#else
constexpr uint32_t kIndexesDefault = 150;
#endif
constexpr uint32_t kSegmentsPerIndex = 84;
constexpr uint32_t kBaseRecords = 1200;   // A leaf in most segments: leaves are a tenth full.
constexpr uint32_t kRecordsMax = 3000;
constexpr uint32_t kWindows = 32;
constexpr uint32_t kThreads = 2;
constexpr uint32_t kRoundsPerIndex = 3;   // Visits of each index, on average.
constexpr rlim_t kDescriptorLimit = 300;

// The files of the system, but grown by holes, and read page by page: a read-ahead would fill the page
// cache with the holes around a leaf.
class SparseFiles final : public FileSystem {
 public:
  bool sync = true;
  Result<FileInfo> Stat(const char* path) override { return files_->Stat(path); }
  Status Reserve(const char* path, uint64_t offset, uint64_t length) override {
    auto info = files_->Stat(path);
    if (!info.ok()) {
      XT_RETURN_IF_ERROR(files_->Reserve(path, 0, kBlockBytes));
      info = files_->Stat(path);
      if (!info.ok()) return info.status();
    }
    if (info->size_bytes >= offset + length) return Status::Ok();
    return files_->Truncate(path, offset + length);
  }
  Status Punch(const char* path, uint64_t offset, uint64_t length) override {
    return files_->Punch(path, offset, length);
  }
  Status Truncate(const char* path, uint64_t bytes) override { return files_->Truncate(path, bytes); }
  Result<std::byte*> Map(const char* path, uint64_t length, bool writable) override {
    XT_ASSIGN_OR_RETURN(std::byte* mapped, files_->Map(path, length, writable));
    (void)madvise(mapped, length, MADV_RANDOM);
    return mapped;
  }
  void Unmap(std::byte* base, uint64_t length) override { files_->Unmap(base, length); }
  Status Sync(const char* path) override { return sync ? files_->Sync(path) : Status::Ok(); }
  void StartWriteback(const char*, uint64_t, uint64_t) override {}
  Status SyncDirectory(const char*) override { return Status::Ok(); }
  Status Remove(const char* path) override { return files_->Remove(path); }
  Status CreateDirectory(const char* path) override { return files_->CreateDirectory(path); }

 private:
  FileSystem* const files_ = PosixFileSystem();
};

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Both corners depend on index and record alone, so the model is one bit a record.
Key KeyOf(uint32_t index, uint64_t record) {
  Key key;
  for (uint32_t d = 0; d < 2; ++d) {
    const uint64_t r = Mix((uint64_t{index} << 32 | record) * 2 + d);
    key.lo[d] = static_cast<double>(r >> 32) / 4294967.296;                  // 0..1000
    key.hi[d] = key.lo[d] + static_cast<double>(r & 0xffff) / 65536.0 * 20;  // up to 20 wide
  }
  return key;
}

Predicate WindowAt(double x, double y, double width) {
  Predicate p = Predicate::All();
  p.nan_matches = false;
  const double at[2] = {x, y};
  for (uint32_t d = 0; d < 2; ++d) {
    p.hi_min[d] = at[d];
    p.lo_max[d] = at[d] + width;
  }
  return p;
}

bool Matches(const Predicate& p, const Key& key) {
  for (uint32_t d = 0; d < 2; ++d) {
    if (key.lo[d] > p.lo_max[d] || key.hi[d] < p.hi_min[d]) return false;
  }
  return true;
}

double DistanceTo(const Key& key, const double* point) {
  double squares = 0;
  for (uint32_t d = 0; d < 2; ++d) {
    const double gap = std::max({key.lo[d] - point[d], point[d] - key.hi[d], 0.0});
    squares += gap * gap;
  }
  return std::sqrt(squares);
}

uint64_t OpenDescriptors() {
  uint64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count - 1;  // The listing's own.
}

uint64_t MappingsOf(const std::string& directory) {
  std::FILE* file = std::fopen("/proc/self/maps", "r");
  char line[8192];
  uint64_t count = 0;
  while (file != nullptr && std::fgets(line, sizeof(line), file) != nullptr) {
    count += std::string(line).find(directory) != std::string::npos;
  }
  if (file != nullptr) std::fclose(file);
  return count;
}

uint64_t AnonymousKib() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  char line[200];
  uint64_t kib = 0;
  while (file != nullptr && std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::string(line).starts_with("RssAnon:")) kib = std::strtoull(line + 8, nullptr, 10);
  }
  if (file != nullptr) std::fclose(file);
  return kib;
}

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Scale : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* indexes = std::getenv("XTREE_SCALE_INDEXES");
    if (indexes != nullptr) indexes_ = static_cast<uint32_t>(std::strtoul(indexes, nullptr, 10));
    const char* base = std::getenv("XTREE_SCALE_DIR");
    std::string name = std::string(base != nullptr ? base : "/tmp") + "/xtree_scale_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
    model_.assign(indexes_, std::vector<bool>(kRecordsMax, false));
    handles_.resize(indexes_);
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old_limit_), 0);
    rlimit limit = old_limit_;
    limit.rlim_cur = kDescriptorLimit;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  void TearDown() override {
    runtime_.reset();
    setrlimit(RLIMIT_NOFILE, &old_limit_);
    std::filesystem::remove_all(directory_);
  }

  static std::string NameOf(uint32_t index) { return "i" + std::to_string(index); }

  void Start() {
    RuntimeOptions options;
    options.directory = directory_;
    options.windows_max = kWindows;
    options.fs = &files_;
    options.queue = queue_.get();
    options.log_bytes_fold = 64 << 10;  // So that the background folds, too.
    auto runtime = DurableRuntime::Open(options);
    ASSERT_TRUE(runtime.ok()) << runtime.status().message();
    runtime_ = std::move(*runtime);
  }

  // An index whose nodes lie in all segments of a file of kSegmentsPerIndex: everything is taken, one
  // block of each segment given back, and the load must use those. The taken blocks are named by nothing,
  // so they are free once the index is opened anew.
  void BuildSpread(uint32_t i) {
    IndexOptions options;
    options.leaf_fill_percent = 10;
    auto created = runtime_->CreateIndex(NameOf(i), options);
    ASSERT_TRUE(created.ok()) << created.status().message();
    auto* store = static_cast<NodeStore*>((*created)->store());
    std::vector<uint32_t> spare;
    uint32_t block = 0;
      while (block < kSegmentsPerIndex * kSegmentBlocks - 1) {
      auto taken = store->AllocateExtent(0);
      ASSERT_TRUE(taken.ok()) << taken.status().message();
      block = *taken;
      if (block % kSegmentBlocks == 1 + Mix(i * 1000 + block / kSegmentBlocks) % 254) {
        spare.push_back(block);
      }
    }
    for (const uint32_t b : spare) ASSERT_TRUE(store->FreeExtent(b, 0));
    std::vector<double> lo, hi;
    std::vector<uint64_t> ids;
    for (uint32_t r = 0; r < kBaseRecords; ++r) {
      const Key key = KeyOf(i, r);
      lo.insert(lo.end(), key.lo, key.lo + 2);
      hi.insert(hi.end(), key.hi, key.hi + 2);
      ids.push_back(r);
      model_[i][r] = true;
    }
    const Status loaded = (*created)->BulkLoad(lo.data(), hi.data(), ids.data(), ids.size(), 1);
    ASSERT_TRUE(loaded.ok()) << loaded.message();
    ASSERT_TRUE(runtime_->CloseIndex(NameOf(i)).ok());
  }

  void OpenAll() {
    for (uint32_t i = 0; i < indexes_; ++i) {
      auto opened = runtime_->OpenIndex(NameOf(i));
      ASSERT_TRUE(opened.ok()) << NameOf(i) << ": " << opened.status().message();
      handles_[i] = *opened;
    }
  }
  uint64_t TotalSegments() {
    uint64_t segments = 0;
    for (Index* index : handles_) {
      segments += static_cast<NodeStore*>(index->store())->allocator()->segments();
    }
    return segments;
  }

  void CheckWindow(uint32_t i, const Predicate& predicate) {
    std::vector<uint64_t> expected;
    for (uint64_t r = 0; r < kRecordsMax; ++r) {
      if (model_[i][r] && Matches(predicate, KeyOf(i, r))) expected.push_back(r);
    }
    std::vector<uint64_t> ids;
    bool keys_equal = true;
    const auto status =
        handles_[i]->Search(predicate, [&](uint64_t id, const double* lo, const double* hi) {
          const Key key = KeyOf(i, id);
          keys_equal = keys_equal && std::equal(lo, lo + 2, key.lo) && std::equal(hi, hi + 2, key.hi);
          ids.push_back(id);
        });
    ASSERT_TRUE(status.ok()) << NameOf(i) << ": " << status.message();
    std::sort(ids.begin(), ids.end());
    ASSERT_EQ(ids, expected) << NameOf(i);
    ASSERT_TRUE(keys_equal) << NameOf(i);
  }
  void CheckNearest(uint32_t i, const double* point) {
    std::vector<double> expected;
    for (uint64_t r = 0; r < kRecordsMax; ++r) {
      if (model_[i][r]) expected.push_back(DistanceTo(KeyOf(i, r), point));
    }
    constexpr size_t kNearest = 10;
    std::sort(expected.begin(), expected.end());
    expected.resize(std::min(expected.size(), kNearest));
    std::vector<double> distances;
    const auto status = handles_[i]->Nearest(point, kNearest, [&](uint64_t, double distance) {
      distances.push_back(distance);
    });
    ASSERT_TRUE(status.ok()) << NameOf(i) << ": " << status.message();
    ASSERT_EQ(distances.size(), expected.size()) << NameOf(i);
    for (size_t n = 0; n < expected.size(); ++n) {
      ASSERT_NEAR(distances[n], expected[n], 1e-9) << NameOf(i);
    }
  }
  void CheckAll() {
    for (uint32_t i = 0; i < indexes_; ++i) {
      CheckWindow(i, Predicate::All());
      std::vector<std::string> problems;
      ASSERT_TRUE(handles_[i]->Check(&problems).ok()) << NameOf(i);
      ASSERT_TRUE(problems.empty()) << NameOf(i) << ": " << problems.front();
      if (HasFatalFailure()) return;
    }
  }

  // Changes and questions on the indexes that are this thread's, and reads on those of others.
  void Work(uint32_t thread) {
    std::mt19937_64 random(thread);
    const auto below = [&](uint64_t n) { return random() % n; };
    for (uint32_t round = 0; round < kRoundsPerIndex * indexes_ / kThreads; ++round) {
      const uint32_t i =
          static_cast<uint32_t>(below(indexes_ / kThreads) * kThreads + thread);
      for (uint32_t change = 0; change < 20; ++change) Change(i, below(kRecordsMax));
      if (below(10) == 0) {
        ASSERT_TRUE(handles_[i]->Commit().ok());
      }
      if (below(15) == 0) {
        const Status status = handles_[i]->Checkpoint();
        ASSERT_TRUE(status.ok()) << status.message();
      }
      if (thread == 0 && round % (indexes_ / kThreads) == 0) {
        const Status status = runtime_->CommitAll();
        ASSERT_TRUE(status.ok()) << status.message();
      }
      const double point[2] = {static_cast<double>(below(1000)), static_cast<double>(below(1000))};
      CheckWindow(i, WindowAt(point[0], point[1], 100));
      CheckNearest(i, point);
      ASSERT_TRUE(handles_[below(indexes_)]
                      ->Search(WindowAt(point[1], point[0], 50),
                               [](uint64_t, const double*, const double*) {})
                      .ok());
      if (HasFatalFailure()) return;
    }
  }
  void Change(uint32_t i, uint64_t record) {
    const Key key = KeyOf(i, record);
    if (model_[i][record]) {
      bool found = false;
      const Status status = handles_[i]->Delete(key, record, &found);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(found) << NameOf(i) << ", " << record;
    } else {
      const Status status = handles_[i]->Insert(key, record);
      ASSERT_TRUE(status.ok()) << status.message();
    }
    model_[i][record] = !model_[i][record];
  }
  // Runs the threads, and returns the most descriptors that were seen meanwhile.
  uint64_t WorkAll() {
    std::atomic<uint32_t> running{kThreads};
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Work(t);
        running.fetch_sub(1);
      });
    }
    uint64_t peak = 0;
    while (running.load() != 0) {
      peak = std::max(peak, OpenDescriptors());
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    for (std::thread& thread : threads) thread.join();
    return peak;
  }

  uint32_t indexes_ = kIndexesDefault;
  std::string directory_;
  rlimit old_limit_{};
  SparseFiles files_;
  std::unique_ptr<IoQueue> queue_ = NewIoQueue(nullptr);
  std::unique_ptr<DurableRuntime> runtime_;
  std::vector<Index*> handles_;
  std::vector<std::vector<bool>> model_;  // Which records are there.
};

TEST_F(Scale, ManyIndexesAndSegmentsStayWithinTheBudgetAndAnswerRight) {
  double start = Seconds();
  files_.sync = false;
  ASSERT_NO_FATAL_FAILURE(Start());
  for (uint32_t i = 0; i < indexes_; ++i) ASSERT_NO_FATAL_FAILURE(BuildSpread(i));
  runtime_.reset();
  std::printf("  built                  %u indexes in %.1f s\n", indexes_, Seconds() - start);

  files_.sync = true;
  ASSERT_NO_FATAL_FAILURE(Start());
  const uint64_t before = OpenDescriptors();
  const uint64_t memory = AnonymousKib();
  start = Seconds();
  ASSERT_NO_FATAL_FAILURE(OpenAll());
  std::printf("  opened                 %.1f s, %" PRIu64 " segments, %.0f KiB of memory an index\n",
              Seconds() - start, TotalSegments(),
              static_cast<double>(AnonymousKib() - memory) / indexes_);
  EXPECT_EQ(TotalSegments(), uint64_t{indexes_} * kSegmentsPerIndex);
  EXPECT_EQ(OpenDescriptors(), before) << "an idle index holds a descriptor";

  start = Seconds();
  const uint64_t peak = WorkAll();
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_TRUE(runtime_->CommitAll().ok());
  const double worked = Seconds() - start;
  WindowStats stats = runtime_->window_stats();
  std::printf("  worked                 %.1f s, descriptors %" PRIu64 " idle, %" PRIu64 " at most (limit "
              "%" PRIu64 ")\n", worked, before, peak, static_cast<uint64_t>(kDescriptorLimit));
  std::printf("  windows                %u of %u mapped, %u at most, %" PRIu64 " maps, %" PRIu64
              " evictions, %u pins\n", stats.mapped, stats.windows_max, stats.mapped_peak, stats.maps,
              stats.evictions, stats.pins);
  EXPECT_LE(OpenDescriptors(), before);
  EXPECT_GT(stats.evictions, indexes_);
  EXPECT_EQ(stats.pins, 0u);
  // Beyond the budget go only the windows that threads hold at one time, two files each.
  EXPECT_LE(stats.mapped_peak, kWindows + 2 * (kThreads + 1));
  EXPECT_LE(stats.mapped, kWindows);
  EXPECT_LE(MappingsOf(directory_), kWindows);
  start = Seconds();
  ASSERT_NO_FATAL_FAILURE(CheckAll());
  std::printf("  checked                %.1f s\n", Seconds() - start);

  start = Seconds();
  runtime_.reset();
  EXPECT_EQ(MappingsOf(directory_), 0u);
  EXPECT_LE(OpenDescriptors(), before);
  const double closed = Seconds() - start;
  ASSERT_NO_FATAL_FAILURE(Start());
  start = Seconds();
  ASSERT_NO_FATAL_FAILURE(OpenAll());
  std::printf("  closed, opened again   %.1f s, %.1f s\n", closed, Seconds() - start);
  ASSERT_NO_FATAL_FAILURE(CheckAll());
  stats = runtime_->window_stats();
  EXPECT_LE(stats.mapped_peak, kWindows + 2u);
}

}  // namespace
}  // namespace xtree
