// What a commit costs: the standalone engine beside the disk's own fdatasync and beside LMDB.
//
// Method: every figure is a rate over about BENCH_SECONDS (default 1), the median of BENCH_RUNS
// (default 3) runs that take turns, on one file system (XTREE_BENCH_DIR). The floors overwrite 4 KiB
// of a file that was written before, or append 4 KiB to one that grows, each followed by fdatasync.
// Keys are boxes of the bundled shorelines in random order; LMDB gets a random 8-byte key and a
// 40-byte value, as much as an entry here. Prints a Markdown table.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <thread>

#if __has_include(<lmdb.h>)
#define XT_LMDB 1
#include <lmdb.h>
#else
#define XT_LMDB 0
#endif

#include "bench_support.h"
#include "store/durable_runtime.h"

namespace xtree {
namespace {

double SecondsPerRun() {
  const char* text = getenv("BENCH_SECONDS");
  return text != nullptr ? atof(text) : 1.0;
}

// Calls `work` until the time is up; how many times a second.
double Rate(const std::function<void()>& work) {
  const double limit = SecondsPerRun();
  const Stopwatch watch;
  uint64_t calls = 0;
  do {
    work();
    ++calls;
  } while (watch.Seconds() < limit);
  return static_cast<double>(calls) / watch.Seconds();
}

double RawRate(const std::string& path, bool overwrite) {
  constexpr size_t kBytes = 4096, kBlocks = 2048;
  std::vector<char> block(kBytes, 1);
  const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR, 0600);
  XT_ASSERT(fd >= 0);
  off_t at = 0;
  for (size_t i = 0; overwrite && i < kBlocks; ++i) {
    XT_ASSERT(pwrite(fd, block.data(), kBytes, static_cast<off_t>(i * kBytes)) == kBytes);
  }
  XT_ASSERT(fsync(fd) == 0);
  const double rate = Rate([&] {
    XT_ASSERT(pwrite(fd, block.data(), kBytes, at) == kBytes && fdatasync(fd) == 0);
    at += kBytes;
    if (overwrite && at == static_cast<off_t>(kBlocks * kBytes)) at = 0;
  });
  close(fd);
  return rate;
}

// Random entries, one after the other, from any thread. They lie in the order in which they are taken, so that
// fetching one costs as little as making up a random number for LMDB.
class Entries {
 public:
  Entries() {
    const std::vector<double> boxes = ReadColumns(DataPath("boxes_shore_seg_med.csv.gz"), 4);
    XT_ASSERT(!boxes.empty());
    std::vector<size_t> order(boxes.size() / 4);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
    for (const size_t i : order) boxes_.insert(boxes_.end(), &boxes[i * 4], &boxes[i * 4] + 4);
  }
  void InsertInto(Index* index) {
    const uint64_t id = next_.fetch_add(1);
    const double* box = &boxes_[id % (boxes_.size() / 4) * 4];
    Key key{};
    std::copy(box, box + 2, key.lo);
    std::copy(box + 2, box + 4, key.hi);
    XT_ASSERT(index->Insert(key, id).ok());
  }

 private:
  std::vector<double> boxes_;
  std::atomic<uint64_t> next_{1};
};

struct World {
  World() {
    RuntimeOptions options;
    options.directory = scratch.path();
    runtime = DurableRuntime::Open(options).value();
  }
  Index* NewIndex() {
    return runtime->CreateIndex("i" + std::to_string(indexes++), IndexOptions{}).value();
  }
  ScratchDirectory scratch;
  std::unique_ptr<DurableRuntime> runtime;
  uint32_t indexes = 0;
  Entries entries;
};

double CommitRate(World* world, uint32_t per_commit, uint32_t threads) {
  Index* index = world->NewIndex();
  std::vector<double> rates(threads);
  std::vector<std::thread> workers;
  for (uint32_t t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      rates[t] = Rate([&] {
        for (uint32_t i = 0; i < per_commit; ++i) world->entries.InsertInto(index);
        XT_ASSERT(index->Commit().ok());
      });
    });
  }
  double rate = 0;
  for (uint32_t t = 0; t < threads; ++t) {
    workers[t].join();
    rate += rates[t];
  }
  return rate;
}

// 64 logs with one insertion each, made durable: in one batch, or one after the other.
double ManyLogsRate(World* world, bool batch) {
  constexpr uint32_t kLogs = 64;
  std::vector<Index*> indexes;
  for (uint32_t i = 0; i < kLogs; ++i) indexes.push_back(world->NewIndex());
  return Rate([&] {
    for (Index* index : indexes) world->entries.InsertInto(index);
    if (batch) {
      XT_ASSERT(world->runtime->CommitAll().ok());
    } else {
      for (Index* index : indexes) XT_ASSERT(index->Commit().ok());
    }
  });
}

#if XT_LMDB
double LmdbRate(const std::string& directory, uint32_t per_commit) {
  MDB_env* env;
  XT_ASSERT(mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, size_t{8} << 30) == 0);
  XT_ASSERT(mdb_env_open(env, directory.c_str(), MDB_NOSUBDIR, 0600) == 0);
  std::mt19937_64 random(1);
  const double rate = Rate([&] {
    MDB_txn* txn;
    MDB_dbi dbi;
    XT_ASSERT(mdb_txn_begin(env, nullptr, 0, &txn) == 0 && mdb_dbi_open(txn, nullptr, 0, &dbi) == 0);
    for (uint32_t i = 0; i < per_commit; ++i) {
      uint64_t number = random();
      char content[40] = {};
      MDB_val key{sizeof(number), &number};
      MDB_val value{sizeof(content), content};
      XT_ASSERT(mdb_put(txn, dbi, &key, &value, 0) == 0);
    }
    XT_ASSERT(mdb_txn_commit(txn) == 0);
  });
  mdb_env_close(env);
  return rate;
}
#endif

int Main() {
  World world;
  const char* text = getenv("BENCH_RUNS");
  const int runs = text != nullptr ? atoi(text) : 3;
  std::map<std::string, std::vector<double>> results;
  const std::string& directory = world.scratch.path();
  for (int run = 0; run < runs; ++run) {
    results["overwrite"].push_back(RawRate(directory + "/raw", true));
    results["append"].push_back(RawRate(directory + "/raw", false));
    results["one"].push_back(CommitRate(&world, 1, 1));
    results["eight"].push_back(CommitRate(&world, 1, 8));
    results["many"].push_back(1e4 * CommitRate(&world, 10'000, 1));
    results["batch"].push_back(ManyLogsRate(&world, true));
    results["in turn"].push_back(ManyLogsRate(&world, false));
#if XT_LMDB
    const std::string tag = std::to_string(run);
    results["lmdb one"].push_back(LmdbRate(directory + "/one" + tag, 1));
    results["lmdb many"].push_back(1e4 * LmdbRate(directory + "/many" + tag, 10'000));
#endif
  }
  const auto median = [&](const char* name) {
    return results.contains(name) ? Median(results[name]) : 0.0;
  };
  const auto line = [&](const char* what, const char* name, const char* peer, double base) {
    printf("| %s | **%.0f** | %s %.0f | %.2f |\n", what, median(name), peer, base,
           base > 0 ? median(name) / base : 0.0);
  };
  printf("| durable commits, standalone | a second | beside | ratio |\n|---|---|---|---|\n");
  printf("| fdatasync after overwriting 4 KiB | %.0f | appending instead: %.0f | |\n",
         median("overwrite"), median("append"));
  line("1 insertion a commit, 1 thread", "one", "fdatasync:", median("overwrite"));
  line("1 insertion a commit, 8 threads", "eight", "1 thread:", median("one"));
  line("one batch over 64 logs", "batch", "64 commits in turn:", median("in turn"));
#if XT_LMDB
  line("1 insertion a commit", "one", "LMDB:", median("lmdb one"));
  line("entries, 10,000 a commit", "many", "LMDB:", median("lmdb many"));
#else
  line("entries, 10,000 a commit", "many", "(LMDB is not installed)", 0);
#endif
  return 0;
}

}  // namespace
}  // namespace xtree

int main() { return xtree::Main(); }
