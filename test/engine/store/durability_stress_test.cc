// Goal: a durable index holds up under load: many insertions with commits and background folds,
// queries, a close, a recovery from capture and log, and queries again; all within few descriptors
// and little space.
// Method: random boxes from one seed; sample windows are compared with brute force; the rest is
// counted. Speeds and sizes are printed, never tested, since machines differ.
//   XTREE_STRESS_RECORDS  how many records (default 500,000).
//   XTREE_STRESS_DIR      where (default /tmp).
//   XTREE_STRESS_ORDER    "near": boxes come in a strip that moves through the area, as data sorted by place or
//                         time does, instead of anywhere.
//   XTREE_STRESS_UNSAVED  MB of changes that memory may hold before they are written (default 0:
//                         RuntimeOptions::unsaved_bytes_max).
//   XTREE_STRESS_MODE     "memory": only what insertions cost in an index in memory, the floor.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "store/durable_runtime.h"

namespace xtree {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kRecordsDefault = 20'000;
#else
constexpr uint64_t kRecordsDefault = 500'000;
#endif
constexpr uint64_t kCommitEvery = 10'000;
constexpr uint64_t kReplayedMax = 20'000;  // Records that are deleted and inserted again.
constexpr uint32_t kSampleQueries = 10;
constexpr uint64_t kDescriptorsMax = 20;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// A small generator whose nth value can be recomputed, so that nothing has to be remembered.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t near_records = 0;  // Not 0: of so many boxes, each lies in a hundredth of the area, which moves.

Key BoxOf(uint64_t i) {
  Key key;
  for (uint32_t d = 0; d < 2; ++d) {
    const uint64_t r = Mix(i * 2 + d);
    key.lo[d] = static_cast<double>(r >> 32) / 4294967.296;              // 0..1000
    if (near_records != 0 && d == 0) {
      key.lo[d] = key.lo[d] / 100 + 990.0 * static_cast<double>(i) / static_cast<double>(near_records);
    }
    key.hi[d] = key.lo[d] + static_cast<double>(r & 0xffff) / 65536.0 / 10;  // up to 0.1 wide
  }
  return key;
}

// About 200 of 500,000 boxes.
Predicate WindowOf(uint64_t query) {
  Predicate p = Predicate::All();
  p.nan_matches = false;
  for (uint32_t d = 0; d < 2; ++d) {
    const double at = static_cast<double>(Mix(~query * 2 + d) >> 32) / 4294967.296;
    p.hi_min[d] = at;
    p.lo_max[d] = at + 20;
  }
  return p;
}

bool Matches(const Predicate& p, const Key& key) {
  for (uint32_t d = 0; d < 2; ++d) {
    if (key.lo[d] > p.lo_max[d] || key.hi[d] < p.hi_min[d]) return false;
  }
  return true;
}

uint64_t OpenDescriptors() {
  uint64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count - 1;  // The listing's own.
}

uint64_t ResidentKib(const char* field) {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  char line[200];
  uint64_t kib = 0;
  while (file != nullptr && std::fgets(line, sizeof(line), file) != nullptr) {
    if (std::string(line).starts_with(field)) kib = std::strtoull(line + 8, nullptr, 10);
  }
  if (file != nullptr) std::fclose(file);
  return kib;
}

uint64_t DiskBytes(const std::string& directory) {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    struct stat info;
    if (stat(entry.path().c_str(), &info) != 0) continue;
    bytes += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  return bytes;
}

// What an insertion costs while the index passes 1, 2, 5, 10, ... million records: measured over the half
// of them that comes before, in which all sizes from 10 million on have some folds.
class CostBySize {
 public:
  void Count(uint64_t records) {
    if (records == size_) {
      const double each = 1e6 / static_cast<double>(size_ - size_ / 2);
      const double cpu = static_cast<double>(std::clock() - cpu_) / CLOCKS_PER_SEC;
      std::printf("  up to %-16" PRIu64 " %.2f us, %.2f us of CPU each\n", size_,
                  (Seconds() - seconds_) * each, cpu * each);
      std::fflush(stdout);
      // 1, 2, 5, 10: each half begins where the last size ended, or later.
      size_ = ++step_ % 3 == 2 ? size_ / 2 * 5 : size_ * 2;
    }
    if (records == size_ / 2) {
      seconds_ = Seconds();
      cpu_ = std::clock();
    }
  }

 private:
  uint64_t size_ = 1'000'000;
  uint32_t step_ = 0;
  double seconds_ = 0;
  std::clock_t cpu_ = 0;
};

class XTreeDurabilityStressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* records = std::getenv("XTREE_STRESS_RECORDS");
    if (records != nullptr) records_ = std::strtoull(records, nullptr, 10);
    const char* order = std::getenv("XTREE_STRESS_ORDER");
    near_records = order != nullptr && std::string(order) == "near" ? records_ : 0;
    const char* base = std::getenv("XTREE_STRESS_DIR");
    std::string name = std::string(base != nullptr ? base : "/tmp") + "/xtree_stress_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // What the sample windows must return, by brute force.
  void Expect() {
    expected_.resize(kSampleQueries);
    for (uint32_t q = 0; q < kSampleQueries; ++q) predicates_.push_back(WindowOf(q));
    for (uint64_t i = 0; i < records_; ++i) {
      const Key key = BoxOf(i);
      for (uint32_t q = 0; q < kSampleQueries; ++q) {
        if (Matches(predicates_[q], key)) expected_[q].push_back(i);
      }
    }
  }
  void QueryAll(Index* index, const char* when) {
    const double start = Seconds();
    uint64_t found = 0;
    for (uint32_t q = 0; q < kSampleQueries; ++q) {
      std::vector<uint64_t> ids;
      ASSERT_TRUE(index->Search(predicates_[q], [&](uint64_t id, const double*, const double*) {
        ids.push_back(id);
      }).ok());
      std::sort(ids.begin(), ids.end());
      ASSERT_EQ(ids, expected_[q]) << when << ", query " << q;
      found += ids.size();
    }
    const double seconds = Seconds() - start;
    uint64_t total = 0;
    ASSERT_TRUE(index->Search(Predicate::All(), [&](uint64_t, const double*, const double*) {
      ++total;
    }).ok());
    ASSERT_EQ(total, records_) << when;
    std::printf("  %-22s %u windows, %" PRIu64 " results, %.1f us a window\n", when,
                kSampleQueries, found, seconds * 1e6 / kSampleQueries);
  }

  void InsertIntoMemory() {
    RuntimeOptions options;
    options.mode = DurabilityMode::kInMemory;
    auto runtime = DurableRuntime::Open(options);
    ASSERT_TRUE(runtime.ok()) << runtime.status().message();
    auto created = (*runtime)->CreateIndex("stress", IndexOptions{});
    ASSERT_TRUE(created.ok()) << created.status().message();
    CostBySize cost;
    for (uint64_t i = 0; i < records_; ++i) {
      const Status status = (*created)->Insert(BoxOf(i), i);
      ASSERT_TRUE(status.ok()) << status.message();
      cost.Count(i + 1);
    }
  }

  double PerRecord(uint64_t blocks) const {
    return static_cast<double>(blocks) * kBlockBytes / static_cast<double>(records_);
  }

  uint64_t records_ = kRecordsDefault;
  std::string directory_;
  std::vector<Predicate> predicates_;
  std::vector<std::vector<uint64_t>> expected_;
};

TEST_F(XTreeDurabilityStressTest, HeavyLoadDurableMode) {
  const char* mode = std::getenv("XTREE_STRESS_MODE");
  if (mode != nullptr && std::string(mode) == "memory") return InsertIntoMemory();
  Expect();
  RuntimeOptions options;
  options.directory = directory_;
  options.mode = DurabilityMode::kBalanced;
  const char* unsaved = std::getenv("XTREE_STRESS_UNSAVED");
  if (unsaved != nullptr) options.unsaved_bytes_max = std::strtoull(unsaved, nullptr, 10) << 20;
  std::printf("  records                %" PRIu64 "\n", records_);
  uint64_t descriptors = 0;
  {
    auto runtime = DurableRuntime::Open(options);
    ASSERT_TRUE(runtime.ok()) << runtime.status().message();
    auto created = (*runtime)->CreateIndex("stress", IndexOptions{});
    ASSERT_TRUE(created.ok()) << created.status().message();
    Index* index = *created;
    const double start = Seconds();
    const std::clock_t cpu_start = std::clock();
    CostBySize cost;
    for (uint64_t i = 0; i < records_; ++i) {
      const Status status = index->Insert(BoxOf(i), i);
      ASSERT_TRUE(status.ok()) << status.message();
      cost.Count(i + 1);
      if (i % kCommitEvery == kCommitEvery - 1) {
        const Status committed = index->Commit();
        ASSERT_TRUE(committed.ok()) << committed.message();
      }
      if (i % 100'000 == 0) descriptors = std::max(descriptors, OpenDescriptors());
    }
    ASSERT_TRUE(index->Commit().ok());
    const double seconds = Seconds() - start;
    const double cpu = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    std::printf("  insert and commit      %.2f s, %.0f records/s, %.2f us of CPU a record (a commit "
                "every %" PRIu64 ")\n", seconds, static_cast<double>(records_) / seconds,
                cpu * 1e6 / static_cast<double>(records_), kCommitEvery);
    descriptors = std::max(descriptors, OpenDescriptors());
    QueryAll(index, "query after insertion");
    const double checkpoint = Seconds();
    const Status folded = index->Checkpoint();
    ASSERT_TRUE(folded.ok()) << folded.message();
    const uint64_t disk = DiskBytes(directory_);
    std::printf("  checkpoint             %.2f s, then %.1f MB on disk, %.1f bytes a record\n",
                Seconds() - checkpoint, static_cast<double>(disk) / 1e6,
                static_cast<double>(disk) / static_cast<double>(records_));
    const IndexShared* shared = index->store()->shared();
    std::printf("  space                  %.1f bytes a record in use, %.1f in the data file, %.1f in "
                "the log, %" PRIu64 " folds\n", PerRecord(shared->allocator.used_blocks.load()),
                PerRecord(shared->allocator.file_blocks.load()),
                PerRecord(shared->log.file_blocks.load()), shared->capture.folds.load());
    std::printf("  resident               %" PRIu64 " MB (anonymous %" PRIu64 " MB), windows %u\n",
                ResidentKib("VmRSS:") / 1024, ResidentKib("RssAnon:") / 1024,
                (*runtime)->windows_mapped());
    // Some more, so that recovery has a log to replay.
    const uint64_t replayed = std::min(records_ / 10, kReplayedMax);
    for (uint64_t i = 0; i < replayed; ++i) {
      bool found = false;
      ASSERT_TRUE(index->Delete(BoxOf(i), i, &found).ok());
      ASSERT_TRUE(found) << i;
      ASSERT_TRUE(index->Insert(BoxOf(i), i).ok());
    }
    ASSERT_TRUE(index->Commit().ok());
    ASSERT_TRUE((*runtime)->CloseIndex("stress").ok());
    EXPECT_EQ((*runtime)->windows_mapped(), 0u);
  }
  {
    auto runtime = DurableRuntime::Open(options);
    ASSERT_TRUE(runtime.ok());
    const double start = Seconds();
    auto opened = (*runtime)->OpenIndex("stress");
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    std::printf("  recovery               %.2f s (%" PRIu64 " operations in the log)\n",
                Seconds() - start, std::min(records_ / 10, kReplayedMax) * 2);
    QueryAll(*opened, "query after recovery");
    descriptors = std::max(descriptors, OpenDescriptors());
    std::vector<std::string> problems;
    ASSERT_TRUE((*opened)->Check(&problems).ok());
    EXPECT_TRUE(problems.empty()) << problems.front();
  }
  std::printf("  descriptors            %" PRIu64 "\n", descriptors);
  EXPECT_LT(descriptors, kDescriptorsMax);
}

}  // namespace
}  // namespace xtree
